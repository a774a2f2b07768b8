"""Cohere: chat and embed of both versions."""

from reply import document, events, lines


def usage(draw):
    billed = {"input_tokens": draw.input, "output_tokens": draw.output}
    return {
        "billed_units": billed,
        "tokens": {"input_tokens": draw.input + 70, "output_tokens": draw.output + 3},
        "cached_tokens": draw.cached,
    }


def chat(request):
    body, draw = request.json(), request.draw()
    if body["model"] == "missing-model":
        return document({"id": draw.id("", 36), "message": "model 'missing-model' not found"}, 404)
    if body["model"] == "limited-model":
        return document({"id": draw.id("", 36), "message": "You are using a Trial key"}, 429)
    calls = [{"id": draw.id("weather_"), "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}]
    message = {"role": "assistant", "content": [{"type": "text", "text": " ".join(draw.words())}]}
    finish = "COMPLETE"
    if body.get("tools"):
        message = {"role": "assistant", "tool_plan": "I will look.", "tool_calls": calls}
        finish = "TOOL_CALL"
    whole = {"id": draw.id("", 36), "message": message, "finish_reason": finish, "usage": usage(draw)}
    return events(chat_events(whole, draw)) if body.get("stream") else document(whole, x_debug_trace_id=draw.id("", 32))


def chat_events(whole, draw):
    message = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield event("message-start", id=whole["id"], delta={"message": message})
    if whole["finish_reason"] == "TOOL_CALL":
        yield event("tool-plan-delta", delta={"message": {"tool_plan": "I will look."}})
        call = whole["message"]["tool_calls"][0]
        start = {**call, "function": {**call["function"], "arguments": ""}}
        yield event("tool-call-start", index=0, delta={"message": {"tool_calls": start}})
        for piece in ('{"city":', '"Paris"}'):
            yield event("tool-call-delta", index=0, delta={"message": {"tool_calls": {"function": {"arguments": piece}}}})
        yield event("tool-call-end", index=0)
    else:
        yield event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
        for word in draw.words():
            yield event("content-delta", index=0, delta={"message": {"content": {"text": word + " "}}})
        yield event("content-end", index=0)
    yield event("message-end", delta={"finish_reason": whole["finish_reason"], "usage": whole["usage"]})
    yield "data: [DONE]\n\n"


def event(name, **fields):
    return name, {"type": name, **fields}


def chat_v1(request):
    body, draw = request.json(), request.draw()
    text = " ".join(draw.words())
    whole = {
        "response_id": draw.id("", 36),
        "generation_id": draw.id("", 36),
        "text": text,
        "chat_history": [{"role": "USER", "message": body["message"]}, {"role": "CHATBOT", "message": text}],
        "finish_reason": "COMPLETE",
        "meta": {"api_version": {"version": "1"}, "billed_units": usage(draw)["billed_units"], "tokens": usage(draw)["tokens"]},
    }
    if not body.get("stream"):
        return document(whole)
    start = {"is_finished": False, "event_type": "stream-start", "generation_id": whole["generation_id"]}
    words = [{"is_finished": False, "event_type": "text-generation", "text": word} for word in draw.words()]
    end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": whole}
    return lines([start, *words, end], content_type="application/stream+json")


def embed(request):
    body, draw = request.json(), request.draw()
    kinds = body.get("embedding_types")
    rows = [draw.vector() for _ in body["texts"]]
    common = {"id": draw.id("", 36), "texts": body["texts"], "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": draw.input}}}
    if kinds:
        values = {kind: rows if kind == "float" else [[1, -2, 3] for _ in rows] for kind in kinds}
        return document({**common, "response_type": "embeddings_by_type", "embeddings": values})
    return document({**common, "response_type": "embeddings_floats", "embeddings": rows})


def answer(request):
    if request.path.endswith("/v2/chat"):
        return chat(request)
    if request.path.endswith("/v1/chat"):
        return chat_v1(request)
    if request.path.endswith("/embed"):
        return embed(request)
    if request.path.endswith("/rerank"):
        result = [{"index": 0, "relevance_score": 0.9}]
        return document({"id": request.draw().id("", 36), "results": result, "meta": {"billed_units": {"search_units": 1}}})
    return document({"message": "not found"}, 404)
