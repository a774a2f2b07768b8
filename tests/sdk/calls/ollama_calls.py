"""Ollama's SDK, which asks for a stream only by leaving it out."""

import asyncio

import ollama
from call import Call, refused, weather

HOST = "https://ollama.com"
HI = [{"role": "user", "content": "Say something."}]
TOOLS = [weather(lambda function: {"type": "function", "function": function})]
MODEL = "llama4"
everywhere = {"provider": "ollama.com", "server": "ollama.com", "status": 200}


def client(call, kind=ollama.Client):
    return kind(host=HOST, headers=call.fields)


def told(call, reply, operation="chat", **others):
    call.told(**everywhere, **others, operation=operation, model=MODEL, served=reply.model, id=None, finish=[reply.done_reason],
              input=reply.prompt_eval_count, output=reply.eval_count)


def chat():
    for label, arguments in [("plain", {}), ("tools", {"tools": TOOLS}), ("too long", {"options": {"num_predict": 4}})]:
        call = Call(f"ollama, {label}")
        told(call, client(call).chat(model=MODEL, messages=HI, **arguments))
        call = Call(f"ollama, {label}, stream")
        told(call, list(client(call).chat(model=MODEL, messages=HI, stream=True, **arguments))[-1], stream=True)


def others():
    call = Call("ollama, generate")
    told(call, client(call).generate(model=MODEL, prompt="Once"), "text_completion")
    call = Call("ollama, generate, stream")
    told(call, list(client(call).generate(model=MODEL, prompt="Once", stream=True))[-1], "text_completion", stream=True)
    call = Call("ollama, embed")
    reply = client(call).embed(model=MODEL, input=["a", "b"])
    call.told(**everywhere, operation="embeddings", model=MODEL, served=reply.model, input=reply.prompt_eval_count)
    call = Call("ollama, list")
    client(call).list()
    call.no_span()


def failures():
    call = Call("ollama, missing-model")
    error = refused(lambda: client(call).chat(model="missing-model", messages=HI), ollama.ResponseError)
    call.told(**{**everywhere, "status": error.status_code}, operation="chat", model="missing-model", error=str(error.status_code))
    call = Call("ollama, failing stream")
    refused(lambda: list(client(call).chat(model="failing-model", messages=HI, stream=True)), ollama.ResponseError)
    call.told(**everywhere, operation="chat", model="failing-model", stream=True, finish=None, error="_OTHER")


async def at_once():
    async def one(number):
        call = Call(f"ollama async {number}")
        if number % 2:
            return told(call, await client(call, ollama.AsyncClient).chat(model=MODEL, messages=HI))
        stream = await client(call, ollama.AsyncClient).chat(model=MODEL, messages=HI, stream=True)
        told(call, [part async for part in stream][-1], stream=True)

    await asyncio.gather(*(one(number) for number in range(6)))


chat()
others()
failures()
asyncio.run(at_once())
