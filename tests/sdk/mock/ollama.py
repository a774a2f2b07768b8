"""Ollama's own API."""

from reply import document, lines


def stats(draw):
    return {
        "total_duration": 5_191_566_416,
        "load_duration": 2_154_458,
        "prompt_eval_count": draw.input,
        "prompt_eval_duration": 383_809_000,
        "eval_count": draw.output,
        "eval_duration": 4_799_921_000,
    }


def generate(request, wrap):
    """A reply of `chat` or `generate`; `wrap` puts a piece of text where it belongs."""
    body, draw = request.json(), request.draw()
    if body["model"] == "missing-model":
        return document({"error": "model 'missing-model' not found"}, 404)
    common = {"model": body["model"], "created_at": "2026-08-01T14:02:37.437Z"}
    last = {"done": True, "done_reason": "length" if (body.get("options") or {}).get("num_predict") else "stop", **stats(draw)}
    calls = [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}] if body.get("tools") else None
    if body.get("stream", True) is False:
        return document({**common, **wrap(" ".join(draw.words()), calls), **last})
    pieces = [{**common, **wrap(word + " ", None), "done": False} for word in draw.words()]
    if body["model"] == "failing-model":
        return lines([*pieces, {"error": "llama runner process has terminated"}])
    called = [{**common, **wrap("", calls), "done": False}] if calls else []
    return lines([*pieces, *called, {**common, **wrap("", None), **last}])


def answer(request):
    draw = request.draw()

    def as_message(text, calls):
        return {"message": {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}}

    if request.path == "/api/chat":
        return generate(request, as_message)
    if request.path == "/api/generate":
        return generate(request, lambda text, _: {"response": text})
    if request.path == "/api/embed":
        body = request.json()
        count = len(body["input"]) if isinstance(body["input"], list) else 1
        reply = {"model": body["model"], "embeddings": [draw.vector() for _ in range(count)], "total_duration": 14_143_917}
        return document({**reply, "load_duration": 1_019_500, "prompt_eval_count": draw.input})
    if request.path == "/api/tags":
        return document({"models": []})
    return document({"error": "not found"}, 404)
