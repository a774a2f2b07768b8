"""Chat completions, completions, embeddings and responses of OpenAI, and the chat of those who speak like it."""

import base64
import json
import struct

from reply import document, events

CREATED = 1_760_000_000


def failure(status, message, kind, code=None, param=None):
    return document({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


FAILURES = {
    "missing-model": (404, "The model does not exist", "invalid_request_error", "model_not_found", "model"),
    "limited-model": (429, "Rate limit reached", "tokens", "rate_limit_exceeded", None),
    "broken-model": (500, "The server had an error", "server_error", None, None),
}


def usage(draw):
    return {
        "prompt_tokens": draw.input,
        "completion_tokens": draw.output,
        "total_tokens": draw.input + draw.output,
        "prompt_tokens_details": {"cached_tokens": draw.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": draw.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def tool_calls(draw):
    return [
        {"id": draw.id("call_"), "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
        {"id": draw.id("call_"), "type": "function", "function": {"name": "time", "arguments": '{"zone":"CET"}'}},
    ]


def chat(request, usage=usage):
    body, draw = request.json(), request.draw()
    model = body.get("model") or request.path.split("/deployments/")[-1].split("/")[0]
    if model in FAILURES:
        return failure(*FAILURES[model])
    served = f"{model}-2026-08-01"
    common = {
        "id": draw.id("chatcmpl-"),
        "created": CREATED,
        "model": served,
        "service_tier": "default",
        "system_fingerprint": draw.id("fp_", 10),
    }
    calls = tool_calls(draw) if body.get("tools") else None
    finish = "tool_calls" if calls else "stop"
    finishes = [finish] + ["length"] * ((body.get("n") or 1) - 1)
    text = " ".join(draw.words())
    if not body.get("stream"):
        message = {"role": "assistant", "content": None if calls else text, "refusal": None, "annotations": []}
        if calls:
            message["tool_calls"] = calls
        choices = [
            {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
            for index, reason in enumerate(finishes)
        ]
        reply = {**common, "object": "chat.completion", "choices": choices, "usage": usage(draw)}
        return document(reply, x_request_id=draw.id("req_"), openai_processing_ms="42")
    return events(chunks({**common, "object": "chat.completion.chunk"}, body, draw, calls, finishes, usage))


def chunks(common, body, draw, calls, finishes, usage):
    """The chunks of a stream. The usage of those before the last is null, if it was asked for."""
    told = (body.get("stream_options") or {}).get("include_usage")

    def chunk(delta, index=0, finish=None):
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**common, "choices": [choice], **({"usage": None} if told else {}), "obfuscation": draw.id("", 6)}

    for index, finish in enumerate(finishes):
        yield chunk({"role": "assistant", "content": "", "refusal": None}, index)
        if calls:
            for at, call in enumerate(calls):
                function = {"name": call["function"]["name"], "arguments": ""}
                yield chunk({"tool_calls": [{"index": at, "id": call["id"], "type": "function", "function": function}]}, index)
                for piece in call["function"]["arguments"].split(":"):
                    yield chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]}, index)
        else:
            for word in draw.words():
                yield chunk({"content": word + " "}, index)
            if body["model"] == "failing-model":
                yield {"error": {"message": "The engine is overloaded", "type": "server_error", "code": "overloaded", "param": None}}
                return
        yield chunk({}, index, finish)
    if told:
        yield {**common, "choices": [], "usage": usage(draw)}
    yield "data: [DONE]\n\n"


def completions(request):
    body, draw = request.json(), request.draw()
    common = {"id": draw.id("cmpl-"), "object": "text_completion", "created": CREATED, "model": body["model"] + "-2026-08-01"}
    counted = {"prompt_tokens": draw.input, "completion_tokens": draw.output, "total_tokens": draw.input + draw.output}

    def choice(text, finish):
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    if body.get("stream"):
        stream = [{**common, "choices": [choice(word, None)]} for word in draw.words()]
        return events([*stream, {**common, "choices": [choice("", "length")]}, "data: [DONE]\n\n"])
    return document({**common, "choices": [choice(" ".join(draw.words()), "length")], "usage": counted})


def embeddings(request):
    body, draw = request.json(), request.draw()
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]

    def embedding():
        vector = draw.vector(body.get("dimensions") or 8)
        if body.get("encoding_format") == "base64":
            return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        return vector

    data = [{"object": "embedding", "index": index, "embedding": embedding()} for index, _ in enumerate(inputs)]
    counted = {"prompt_tokens": draw.input, "total_tokens": draw.input}
    return document({"object": "list", "data": data, "model": body["model"] + "-2026-08-01", "usage": counted})


def response(body, draw, **others):
    text = " ".join(draw.words())
    output = [{"type": "reasoning", "id": draw.id("rs_"), "summary": []}]
    if body.get("tools"):
        output.append({
            "type": "function_call", "id": draw.id("fc_"), "call_id": draw.id("call_"), "name": "weather",
            "arguments": '{"city":"Paris"}', "status": "completed",
        })
    else:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        output.append({"type": "message", "id": draw.id("msg_"), "role": "assistant", "status": "completed", "content": content})
    incomplete = body.get("max_output_tokens")
    return {
        "id": draw.id("resp_"),
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if incomplete else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if incomplete else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": incomplete,
        "model": body.get("model", "gpt-5") + "-2026-08-01",
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": (body.get("reasoning") or {}).get("effort"), "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [{"type": "function", "strict": True, "description": None, **tool} for tool in body.get("tools") or []],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": draw.input,
            "input_tokens_details": {"cached_tokens": draw.cached, "cache_write_tokens": draw.written},
            "output_tokens": draw.output,
            "output_tokens_details": {"reasoning_tokens": draw.reasoning},
            "total_tokens": draw.input + draw.output,
        },
        "user": None,
        "metadata": {},
        **others,
    }


def responses(request):
    body, draw = request.json(), request.draw()
    if body.get("model") in FAILURES:
        return failure(*FAILURES[body["model"]])
    whole = response(body, draw)
    if not body.get("stream"):
        return document(whole, x_request_id=draw.id("req_"))
    return events(numbered(response_events(whole, body["model"] == "failing-model")))


def numbered(items):
    for number, (name, item) in enumerate(items):
        yield name, {"type": name, "sequence_number": number, **item}


def response_events(whole, fails):
    begun = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    if fails:
        error = {"code": "server_error", "message": "The model failed"}
        yield "response.failed", {"response": {**begun, "status": "failed", "error": error}}
        return
    for index, item in enumerate(whole["output"]):
        at = {"output_index": index, "item_id": item["id"]}
        yield "response.output_item.added", {"output_index": index, "item": {**item, "status": "in_progress"}}
        if item["type"] == "message":
            part = item["content"][0]
            yield "response.content_part.added", {**at, "content_index": 0, "part": {**part, "text": ""}}
            for word in part["text"].split(" "):
                yield "response.output_text.delta", {**at, "content_index": 0, "delta": word + " ", "logprobs": []}
            yield "response.output_text.done", {**at, "content_index": 0, "text": part["text"], "logprobs": []}
            yield "response.content_part.done", {**at, "content_index": 0, "part": part}
        elif item["type"] == "function_call":
            for piece in item["arguments"].split(":"):
                yield "response.function_call_arguments.delta", {**at, "delta": piece}
            yield "response.function_call_arguments.done", {**at, "arguments": item["arguments"], "name": item["name"]}
        yield "response.output_item.done", {"output_index": index, "item": item}
    name = "response.incomplete" if whole["status"] == "incomplete" else "response.completed"
    yield name, {"response": whole}


def fetched(request):
    draw = request.draw()
    return document(response({}, draw, id=request.path.rsplit("/", 1)[-1]))


def answer(request):
    path = request.path
    if request.method == "GET" and "/responses/" in path:
        return fetched(request)
    if path.endswith("/chat/completions"):
        return chat(request)
    if path.endswith("/completions"):
        return completions(request)
    if path.endswith("/embeddings"):
        return embeddings(request)
    if path.endswith("/responses"):
        return responses(request)
    if path.endswith("/moderations"):
        return document({"id": "modr-1", "model": "omni-moderation-latest", "results": []})
    return failure(404, f"Invalid URL ({request.method} {path})", "invalid_request_error")
