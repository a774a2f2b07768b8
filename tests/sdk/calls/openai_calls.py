"""OpenAI's SDK for Python, and its client for Azure."""

import asyncio

import openai
from call import Call, refused, weather

HI = [{"role": "user", "content": "Say something."}]
TOOLS = [weather(lambda function: {"type": "function", "function": function})]
FLAT = [weather(lambda function: {"type": "function", **function})]

client = openai.OpenAI(api_key="sk-none", max_retries=0)
everywhere = {"provider": "openai", "server": client.base_url.host, "status": 200}


def counted(usage):
    if usage is None:
        return {"input": None, "output": None, "cached": None, "reasoning": None}
    return {
        "input": usage.prompt_tokens,
        "output": usage.completion_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
        "reasoning": usage.completion_tokens_details.reasoning_tokens,
    }


def chat_told(call, model, reply, **others):
    finish = [choice.finish_reason for choice in reply.choices]
    call.told(**{**everywhere, **others}, operation="chat", model=model, id=reply.id, served=reply.model, finish=finish,
              tier=reply.service_tier, fingerprint=reply.system_fingerprint, **counted(reply.usage))


def plain():
    for label, arguments in [
        ("plain", {"model": "gpt-5"}),
        ("two choices", {"model": "gpt-5-mini", "n": 2, "temperature": 0.5, "stop": ["x"]}),
        ("tools", {"model": "gpt-5", "tools": TOOLS}),
    ]:
        call = Call(f"openai chat, {label}")
        reply = client.chat.completions.create(messages=HI, extra_headers=call.fields, **arguments)
        chat_told(call, arguments["model"], reply)


def streamed():
    for label, arguments in [
        ("stream", {}),
        ("stream with usage", {"stream_options": {"include_usage": True}}),
        ("stream with tools", {"tools": TOOLS, "stream_options": {"include_usage": True}}),
    ]:
        call = Call(f"openai chat, {label}")
        finish, usage = {}, None
        for chunk in client.chat.completions.create(model="gpt-5", messages=HI, stream=True, extra_headers=call.fields, **arguments):
            usage = chunk.usage or usage
            finish |= {choice.index: choice.finish_reason for choice in chunk.choices if choice.finish_reason}
        call.told(**everywhere, operation="chat", model="gpt-5", stream=True, id=chunk.id, served=chunk.model,
                  finish=[finish[index] for index in sorted(finish)], tier=chunk.service_tier, **counted(usage))
    call = Call("openai chat, accumulated stream")
    with client.chat.completions.stream(
        model="gpt-5", messages=HI, stream_options={"include_usage": True}, extra_headers=call.fields
    ) as stream:
        chat_told(call, "gpt-5", stream.get_final_completion(), stream=True)


def others():
    call = Call("openai completions")
    reply = client.completions.create(model="davinci", prompt="Once", extra_headers=call.fields)
    call.told(**everywhere, operation="text_completion", model="davinci", id=reply.id, served=reply.model,
              finish=[choice.finish_reason for choice in reply.choices], input=reply.usage.prompt_tokens,
              output=reply.usage.completion_tokens)
    call = Call("openai completions, stream")
    for chunk in client.completions.create(model="davinci", prompt="Once", stream=True, extra_headers=call.fields):
        pass
    call.told(**everywhere, operation="text_completion", model="davinci", id=chunk.id, served=chunk.model, stream=True,
              finish=[choice.finish_reason for choice in chunk.choices], input=None, output=None)
    call = Call("openai embeddings")
    reply = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], dimensions=6, extra_headers=call.fields)
    call.told(**everywhere, operation="embeddings", model="text-embedding-3-small", served=reply.model, id=None,
              input=reply.usage.prompt_tokens, output=None, dimensions=len(reply.data[0].embedding))
    call = Call("openai moderation")
    client.moderations.create(input="x", extra_headers=call.fields)
    call.no_span()


def response_told(call, model, reply, finish, **others):
    usage = reply.usage
    call.told(**{**everywhere, **others}, operation="chat", model=model, id=reply.id, served=reply.model, finish=finish,
              tier=reply.service_tier, input=usage.input_tokens, output=usage.output_tokens,
              cached=usage.input_tokens_details.cached_tokens, reasoning=usage.output_tokens_details.reasoning_tokens)


def responses():
    for label, finish, arguments in [
        ("plain", ["stop"], {"input": "Say something.", "reasoning": {"effort": "low"}}),
        ("tools", ["tool_calls"], {"input": HI, "tools": FLAT}),
        ("too long", ["max_output_tokens"], {"input": HI, "max_output_tokens": 16}),
    ]:
        call = Call(f"openai responses, {label}")
        reply = client.responses.create(model="gpt-5", extra_headers=call.fields, **arguments)
        response_told(call, "gpt-5", reply, finish)
        call = Call(f"openai responses, {label}, stream")
        for event in client.responses.create(model="gpt-5", stream=True, extra_headers=call.fields, **arguments):
            pass
        response_told(call, "gpt-5", event.response, finish, stream=True)
    call = Call("openai responses, fetched")
    fetched = client.responses.retrieve(reply.id, extra_headers=call.fields)
    call.told(**everywhere, operation="fetch_response", id=fetched.id, served=fetched.model, input=None, output=None)
    call = Call("openai responses, failing stream")
    for event in client.responses.create(model="failing-model", input="x", stream=True, extra_headers=call.fields):
        pass
    call.told(**everywhere, operation="chat", model="failing-model", stream=True, id=event.response.id, finish=["error"],
              input=None, output=None, error=event.response.error.code)


def failures():
    for model, make in [
        ("missing-model", lambda **more: client.chat.completions.create(messages=HI, **more)),
        ("limited-model", lambda **more: client.responses.create(input="x", stream=True, **more)),
        ("broken-model", lambda **more: client.chat.completions.create(messages=HI, stream=True, **more)),
    ]:
        call = Call(f"openai, {model}")
        error = refused(lambda: make(model=model, extra_headers=call.fields), openai.APIStatusError)
        stream = None if model == "missing-model" else True
        call.told(**{**everywhere, "status": error.status_code}, operation="chat", model=model, stream=stream, id=None,
                  input=None, error=error.code or error.type)
    call = Call("openai chat, failing stream")
    error = refused(
        lambda: list(client.chat.completions.create(model="failing-model", messages=HI, stream=True, extra_headers=call.fields)),
        openai.APIError,
    )
    call.told(**everywhere, operation="chat", model="failing-model", stream=True, finish=None, error=error.code)


async def at_once():
    """Calls on several connections at once, each connection used again."""
    async with openai.AsyncOpenAI(api_key="sk-none", max_retries=0) as client:
        async def one(number):
            call, model = Call(f"openai async {number}"), f"gpt-5-{number}"
            if number % 2:
                reply = await client.chat.completions.create(model=model, messages=HI, extra_headers=call.fields)
                return chat_told(call, model, reply)
            async with client.responses.stream(model=model, input="x", extra_headers=call.fields) as stream:
                response_told(call, model, await stream.get_final_response(), ["stop"], stream=True)

        for _ in range(2):
            await asyncio.gather(*(one(number) for number in range(8)))


def azure():
    client = openai.AzureOpenAI(
        api_key="none", api_version="2026-06-01", azure_endpoint="https://example.openai.azure.com", max_retries=0
    )
    call = Call("azure chat")
    reply = client.chat.completions.create(model="my-deployment", messages=HI, extra_headers=call.fields)
    chat_told(call, "my-deployment", reply, provider="azure.ai.openai", server="example.openai.azure.com")
    call = Call("azure embeddings")
    reply = client.embeddings.create(model="my-embedder", input="a", extra_headers=call.fields)
    call.told(operation="embeddings", provider="azure.ai.openai", model="my-embedder", served=reply.model,
              input=reply.usage.prompt_tokens)


plain()
streamed()
others()
responses()
failures()
asyncio.run(at_once())
azure()
