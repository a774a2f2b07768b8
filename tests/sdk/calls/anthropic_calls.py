"""Anthropic's SDK for Python, and its client for Bedrock."""

import asyncio

import anthropic
from call import Call, refused

HI = [{"role": "user", "content": "Say something."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"name": "weather", "description": "The weather", "input_schema": SCHEMA}]
THINKING = {"type": "enabled", "budget_tokens": 1024}
MODEL = "claude-opus-5"

client = anthropic.Anthropic(api_key="none", max_retries=0)
everywhere = {"operation": "chat", "provider": "anthropic", "server": client.base_url.host, "status": 200}
common = {"model": MODEL, "max_tokens": 2048, "messages": HI}


def told(call, reply, **others):
    usage = reply.usage
    # By the convention what was cached is a part of the input; Anthropic counts it apart.
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    values = {"model": MODEL, **everywhere, **others}
    call.told(**values, id=reply.id, served=reply.model, finish=[reply.stop_reason],
              input=usage.input_tokens + cached + written, output=usage.output_tokens, cached=cached, written=written)


def messages():
    for label, arguments in [
        ("plain", {"system": "Be brief.", "stop_sequences": ["x"]}),
        ("tools", {"tools": TOOLS}),
        ("thinking", {"thinking": THINKING}),
    ]:
        call = Call(f"anthropic, {label}")
        told(call, client.messages.create(**{**common, "extra_headers": call.fields, **arguments}))
        call = Call(f"anthropic, {label}, stream")
        with client.messages.stream(**{**common, "extra_headers": call.fields, **arguments}) as stream:
            told(call, stream.get_final_message(), stream=True)
    call = Call("anthropic, count of tokens")
    client.messages.count_tokens(model=MODEL, messages=HI, extra_headers=call.fields)
    call.no_span()
    call = Call("anthropic, beta")
    told(call, client.beta.messages.create(**common, betas=["context-management-2026-06-27"], extra_headers=call.fields))


def failures():
    for model in ("missing-model", "limited-model", "overloaded-model"):
        call = Call(f"anthropic, {model}")
        error = refused(
            lambda: client.messages.create(**{**common, "model": model}, extra_headers=call.fields), anthropic.APIStatusError
        )
        call.told(**{**everywhere, "status": error.status_code}, model=model, id=None, error=error.body["error"]["type"])
    call = Call("anthropic, failing stream")

    def stream():
        for _ in client.messages.create(**{**common, "model": "failing-model"}, stream=True, extra_headers=call.fields):
            pass

    error = refused(stream, anthropic.APIStatusError)
    call.told(**everywhere, model="failing-model", stream=True, finish=None, error=error.body["error"]["type"])


async def at_once():
    async with anthropic.AsyncAnthropic(api_key="none", max_retries=0) as client:
        async def one(number):
            call = Call(f"anthropic async {number}")
            if number % 2:
                return told(call, await client.messages.create(**common, extra_headers=call.fields))
            async with client.messages.stream(**common, extra_headers=call.fields) as stream:
                told(call, await stream.get_final_message(), stream=True)

        for _ in range(2):
            await asyncio.gather(*(one(number) for number in range(8)))


def bedrock():
    client = anthropic.AnthropicBedrock(
        aws_access_key="AKIDNONE", aws_secret_key="none", aws_region="us-east-1", max_retries=0
    )
    place = {"provider": "aws.bedrock", "server": "bedrock-runtime.us-east-1.amazonaws.com"}
    for label, arguments in [("plain", {}), ("stream", {"stream": True})]:
        call, model = Call(f"anthropic on Bedrock, {label}"), "anthropic.claude-opus-5-v1:0"
        reply = client.messages.create(**{**common, "model": model}, extra_headers=call.fields, **arguments)
        if not arguments:
            told(call, reply, **place, model=model)
            continue
        for event in reply:
            if event.type == "message_start":
                begun = event.message
            if event.type == "message_delta":
                begun.usage, begun.stop_reason = event.usage, event.delta.stop_reason
        told(call, begun, **place, model=model, stream=True)


messages()
failures()
asyncio.run(at_once())
bedrock()
