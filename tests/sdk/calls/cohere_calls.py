"""Cohere's SDK, both versions of its API."""

import asyncio

import cohere
from call import Call, refused, weather
from cohere.core.api_error import ApiError

HI = [{"role": "user", "content": "Say something."}]
TOOLS = [weather(lambda function: {"type": "function", "function": function})]
MODEL = "command-a-03-2026"
everywhere = {"operation": "chat", "provider": "cohere", "server": "api.cohere.com", "status": 200}

client = cohere.ClientV2(api_key="none")


def options(call):
    return {"additional_headers": call.fields, "max_retries": 0}


def counted(billed):
    return {"input": int(billed.input_tokens), "output": int(billed.output_tokens)}


def told(call, reply, **others):
    call.told(**everywhere, **others, model=MODEL, id=reply.id, finish=[reply.finish_reason], **counted(reply.usage.billed_units))


def stream_told(call, events):
    start, end = events[0], events[-1]
    call.told(**everywhere, model=MODEL, stream=True, id=start.id, finish=[end.delta.finish_reason],
              **counted(end.delta.usage.billed_units))


def chat():
    for label, arguments in [("plain", {"temperature": 0.5}), ("tools", {"tools": TOOLS})]:
        call = Call(f"cohere, {label}")
        told(call, client.chat(model=MODEL, messages=HI, request_options=options(call), **arguments))
        call = Call(f"cohere, {label}, stream")
        stream_told(call, list(client.chat_stream(model=MODEL, messages=HI, request_options=options(call), **arguments)))


def others():
    call = Call("cohere, embed")
    reply = client.embed(
        model="embed-v4.0", texts=["a", "b"], input_type="search_query", embedding_types=["float"], request_options=options(call)
    )
    call.told(**{**everywhere, "operation": "embeddings"}, model="embed-v4.0", input=int(reply.meta.billed_units.input_tokens))
    call = Call("cohere, rerank")
    client.rerank(model="rerank-v4.0", query="a", documents=["a", "b"], request_options=options(call))
    call.no_span()


def failures():
    for model in ("missing-model", "limited-model"):
        call = Call(f"cohere, {model}")
        error = refused(lambda: client.chat(model=model, messages=HI, request_options=options(call)), ApiError)
        # The body says it in words only.
        call.told(**{**everywhere, "status": error.status_code}, model=model, error=str(error.status_code))


def version_1():
    client = cohere.Client(api_key="none")
    call = Call("cohere v1")
    reply = client.chat(model=MODEL, message="x", request_options=options(call))
    call.told(**everywhere, model=MODEL, finish=[reply.finish_reason], **counted(reply.meta.billed_units))
    call = Call("cohere v1, stream")
    last = list(client.chat_stream(model=MODEL, message="x", request_options=options(call)))[-1]
    call.told(**everywhere, model=MODEL, stream=True, finish=[last.finish_reason], **counted(last.response.meta.billed_units))
    call = Call("cohere v1, embed")
    reply = client.embed(model="embed-v4.0", texts=["a"], input_type="search_query", request_options=options(call))
    call.told(**{**everywhere, "operation": "embeddings"}, model="embed-v4.0", input=int(reply.meta.billed_units.input_tokens))


async def at_once():
    async with cohere.AsyncClientV2(api_key="none") as client:
        async def one(number):
            call = Call(f"cohere async {number}")
            if number % 2:
                return told(call, await client.chat(model=MODEL, messages=HI, request_options=options(call)))
            stream = client.chat_stream(model=MODEL, messages=HI, request_options=options(call))
            stream_told(call, [event async for event in stream])

        await asyncio.gather(*(one(number) for number in range(6)))


chat()
others()
failures()
version_1()
asyncio.run(at_once())
