"""Google's GenAI SDK, for Gemini and for Vertex."""

import asyncio

from call import Call, refused
from google import genai
from google.genai import errors, types

MODEL = "gemini-3-pro"
client = genai.Client(api_key="none")
everywhere = {
    "operation": "generate_content", "provider": "gcp.gemini", "server": "generativelanguage.googleapis.com", "status": 200,
}


def config(call, **others):
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers=call.fields), **others)


def weather(city: str) -> str:
    """The weather of a city."""
    return city


TOOLS = {"tools": [weather], "automatic_function_calling": types.AutomaticFunctionCallingConfig(disable=True)}
KINDS = [("plain", {"temperature": 0.5}), ("too long", {"max_output_tokens": 16}), ("tools", TOOLS)]


def told(call, reply, **others):
    usage = reply.usage_metadata
    finish = [candidate.finish_reason.value.lower() for candidate in reply.candidates]
    values = {"model": MODEL, **everywhere, **others}
    call.told(**values, id=reply.response_id, served=reply.model_version, finish=finish,
              # By the convention thoughts are a part of the output; Gemini counts them apart.
              input=usage.prompt_token_count, output=usage.candidates_token_count + usage.thoughts_token_count,
              cached=usage.cached_content_token_count, reasoning=usage.thoughts_token_count)


def generate():
    for label, arguments in KINDS:
        call = Call(f"gemini, {label}")
        told(call, client.models.generate_content(model=MODEL, contents="Say something.", config=config(call, **arguments)))
        call = Call(f"gemini, {label}, stream")
        stream = client.models.generate_content_stream(model=MODEL, contents="x", config=config(call, **arguments))
        told(call, list(stream)[-1], stream=True)


def others():
    call = Call("gemini, embeddings")
    options = types.EmbedContentConfig(output_dimensionality=8, http_options=types.HttpOptions(headers=call.fields))
    reply = client.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=options)
    call.told(**{**everywhere, "operation": "embeddings"}, model="gemini-embedding-001", input=None,
              dimensions=len(reply.embeddings[0].values))
    call = Call("gemini, count of tokens")
    options = types.CountTokensConfig(http_options=types.HttpOptions(headers=call.fields))
    client.models.count_tokens(model=MODEL, contents="x", config=options)
    call.no_span()


def failures():
    for model in ("missing-model", "limited-model"):
        call = Call(f"gemini, {model}")
        error = refused(lambda: client.models.generate_content(model=model, contents="x", config=config(call)), errors.APIError)
        call.told(**{**everywhere, "status": error.code}, model=model, id=None, error=error.status)


async def at_once():
    async def one(number):
        call = Call(f"gemini async {number}")
        if number % 2:
            return told(call, await client.aio.models.generate_content(model=MODEL, contents="x", config=config(call)))
        stream = await client.aio.models.generate_content_stream(model=MODEL, contents="x", config=config(call))
        told(call, [chunk async for chunk in stream][-1], stream=True)

    for _ in range(2):
        await asyncio.gather(*(one(number) for number in range(6)))


def vertex():
    client = genai.Client(vertexai=True, api_key="none")
    place = {"provider": "gcp.vertex_ai", "server": "aiplatform.googleapis.com"}
    call = Call("vertex")
    told(call, client.models.generate_content(model=MODEL, contents="x", config=config(call)), **place)
    call = Call("vertex, stream")
    told(call, list(client.models.generate_content_stream(model=MODEL, contents="x", config=config(call)))[-1], **place, stream=True)
    call = Call("vertex, embeddings")
    options = types.EmbedContentConfig(http_options=types.HttpOptions(headers=call.fields))
    reply = client.models.embed_content(model="text-embedding-005", contents="a", config=options)
    tokens = sum(int(embedding.statistics.token_count) for embedding in reply.embeddings)
    call.told(**place, operation="embeddings", model="text-embedding-005", input=tokens)


generate()
others()
failures()
asyncio.run(at_once())
vertex()
