"""Mistral: what of it differs from OpenAI's form."""

import openai
from reply import document, events


def usage(draw):
    return {
        "prompt_tokens": draw.input,
        "completion_tokens": draw.output,
        "total_tokens": draw.input + draw.output,
        "prompt_tokens_details": {"cached_tokens": draw.cached},
    }


def chat(request):
    body, draw = request.json(), request.draw()
    model = body.get("model") or "mistral-large-2512"
    if model == "missing-model":
        return document({"object": "error", "message": "Invalid model", "type": "invalid_model", "param": None, "code": "1500"}, 400)
    if model == "limited-model":
        return document({"object": "error", "message": "Too many", "type": "rate_limited", "param": None, "code": "1300"}, 429)
    common = {"id": draw.id("", 32), "created": openai.CREATED, "model": model}
    calls = [{**call, "index": index} for index, call in enumerate(openai.tool_calls(draw))] if body.get("tools") else None
    finish = "tool_calls" if calls else "stop"
    if not body.get("stream"):
        message = {"role": "assistant", "content": "" if calls else " ".join(draw.words()), "tool_calls": calls, "prefix": False}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return document({**common, "object": "chat.completion", "choices": [choice], "usage": usage(draw)})
    common["object"] = "chat.completion.chunk"

    def chunk(delta, finish=None, **others):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {**common, "choices": [choice], **others, "p": draw.id("", 7)}

    stream = [chunk({"role": "assistant", "content": ""})] + [chunk({"content": word + " "}) for word in draw.words()]
    last = {"content": "", "tool_calls": calls} if calls else {"content": ""}
    return events([*stream, chunk(last, finish, usage=usage(draw)), "data: [DONE]\n\n"])


def embeddings(request):
    body, draw = request.json(), request.draw()
    data = [{"object": "embedding", "index": index, "embedding": draw.vector()} for index, _ in enumerate(body["input"])]
    counted = {"prompt_tokens": draw.input, "completion_tokens": 0, "total_tokens": draw.input, "prompt_audio_seconds": None}
    return document({"id": draw.id("", 32), "object": "list", "data": data, "model": body["model"], "usage": counted})


def answer(request):
    if request.path.endswith("/embeddings"):
        return embeddings(request)
    if request.path.endswith("/completions"):
        return chat(request)
    return document({"detail": "Not Found"}, 404)
