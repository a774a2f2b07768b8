"""Anthropic's messages, also as Vertex and Bedrock serve them."""

from reply import document, events

FAILURES = {
    "missing-model": (404, "not_found_error"),
    "limited-model": (429, "rate_limit_error"),
    "overloaded-model": (529, "overloaded_error"),
}


def failure(status, kind, draw):
    error = {"type": "error", "error": {"type": kind, "message": "It did not work"}, "request_id": draw.id("req_")}
    return document(error, status, request_id=error["request_id"])


def message(body, model, draw):
    content = []
    if (body.get("thinking") or {}).get("type") == "enabled":
        content.append({"type": "thinking", "thinking": "Let me see.", "signature": draw.id("sig", 40)})
    content.append({"type": "text", "text": " ".join(draw.words())})
    if body.get("tools"):
        content.append({"type": "tool_use", "id": draw.id("toolu_"), "name": "weather", "input": {"city": "Paris"}})
    return {
        "id": draw.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": model + "-20260801",
        "content": content,
        "stop_reason": "tool_use" if body.get("tools") else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": draw.input,
            "cache_creation_input_tokens": draw.written,
            "cache_read_input_tokens": draw.cached,
            "cache_creation": {"ephemeral_5m_input_tokens": draw.written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": draw.output,
            "service_tier": "standard",
        },
    }


def stream(whole, fails=False):
    """The events of a stream; the usage of the first one is that of the beginning."""
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield "message_start", {"type": "message_start", "message": begun}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        start = {**block, **empty[block["type"]]}
        yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas(block):
            yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
        if fails:
            yield "error", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            return
        yield "content_block_stop", {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"type": "message_delta", "delta": delta, "usage": whole["usage"]}
    yield "message_stop", {"type": "message_stop"}


def deltas(block):
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": word + " "} for word in block["text"].split(" "))
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"city"', ': "Paris"}'))


def answer(request):
    body, draw = request.json(), request.draw()
    if request.path.endswith("/count_tokens"):
        return document({"input_tokens": draw.input})
    model = body.get("model") or request.path.rsplit("/", 1)[-1].split(":")[0]
    if model in FAILURES:
        return failure(*FAILURES[model], draw)
    whole = message(body, model, draw)
    if not body.get("stream"):
        return document(whole, request_id=draw.id("req_"))
    return events(stream(whole, model == "failing-model"))
