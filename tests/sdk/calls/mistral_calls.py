"""Mistral's SDK."""

import asyncio
import json

from call import Call, refused, weather
from mistralai.client import Mistral, errors

HI = [{"role": "user", "content": "Say something."}]
TOOLS = [weather(lambda function: {"type": "function", "function": function})]
MODEL = "mistral-large-2512"
everywhere = {"operation": "chat", "provider": "mistral_ai", "server": "api.mistral.ai", "status": 200}

client = Mistral(api_key="none")


def counted(usage):
    counts = usage.model_dump()
    cached = (counts["prompt_tokens_details"] or {}).get("cached_tokens")
    return {"input": counts["prompt_tokens"], "output": counts["completion_tokens"], "cached": cached}


def told(call, reply, **others):
    values = {"model": MODEL, **everywhere, **others}
    call.told(**values, id=reply.id, served=reply.model, finish=[choice.finish_reason for choice in reply.choices],
              **counted(reply.usage))


def chat():
    for label, arguments in [("plain", {"temperature": 0.5, "random_seed": 7}), ("tools", {"tools": TOOLS})]:
        call = Call(f"mistral, {label}")
        told(call, client.chat.complete(model=MODEL, messages=HI, http_headers=call.fields, **arguments))
        call = Call(f"mistral, {label}, stream")
        stream = client.chat.stream(model=MODEL, messages=HI, http_headers=call.fields, **arguments)
        told(call, [event.data for event in stream][-1], stream=True)


def others():
    call = Call("mistral, fill in the middle")
    reply = client.fim.complete(model="codestral-2512", prompt="def f(", suffix="return 1", http_headers=call.fields)
    told(call, reply, model="codestral-2512", operation="text_completion")
    call = Call("mistral, embeddings")
    reply = client.embeddings.create(model="mistral-embed", inputs=["a", "b"], http_headers=call.fields)
    call.told(**{**everywhere, "operation": "embeddings"}, model="mistral-embed", served=reply.model, input=reply.usage.prompt_tokens)
    call = Call("mistral, agent")
    reply = client.agents.complete(agent_id="ag-1", messages=HI, http_headers=call.fields)
    told(call, reply, model=None)


def failures():
    for model in ("missing-model", "limited-model"):
        call = Call(f"mistral, {model}")
        error = refused(lambda: client.chat.complete(model=model, messages=HI, http_headers=call.fields), errors.MistralError)
        # Its code is a number, which says less than its type.
        call.told(**{**everywhere, "status": error.status_code}, model=model, error=json.loads(error.body)["type"])


async def at_once():
    async def one(number):
        call = Call(f"mistral async {number}")
        if number % 2:
            return told(call, await client.chat.complete_async(model=MODEL, messages=HI, http_headers=call.fields))
        stream = await client.chat.stream_async(model=MODEL, messages=HI, http_headers=call.fields)
        told(call, [event.data async for event in stream][-1], stream=True)

    await asyncio.gather(*(one(number) for number in range(6)))


chat()
others()
failures()
asyncio.run(at_once())
