"""Amazon Bedrock: Converse, InvokeModel, and their event streams."""

import base64
import json
import struct
import zlib
from urllib.parse import unquote

import anthropic
from reply import Reply, document


def message(fields, payload):
    """One message of application/vnd.amazon.eventstream; all header values are strings (type 7)."""
    head = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in fields.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    body = prelude + head + payload
    return body + struct.pack("!I", zlib.crc32(body))


def event(name, value):
    fields = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(fields, json.dumps(value).encode())


def exception(name, text):
    fields = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(fields, json.dumps({"message": text}).encode())


def stream(pieces):
    return Reply(200, {"content-type": "application/vnd.amazon.eventstream"}, pieces=list(pieces))


def usage(draw):
    total = draw.input + draw.output + draw.cached + draw.written
    return {
        "inputTokens": draw.input,
        "outputTokens": draw.output,
        "totalTokens": total,
        "cacheReadInputTokens": draw.cached,
        "cacheWriteInputTokens": draw.written,
    }


def converse(request, streams, model):
    body, draw = request.json(), request.draw()
    tool = {"toolUse": {"toolUseId": draw.id("tooluse_"), "name": "weather", "input": {"city": "Paris"}}}
    words = draw.words()
    stop = "tool_use" if body.get("toolConfig") else "end_turn"
    content = [{"text": " ".join(words)}] + ([tool] if stop == "tool_use" else [])
    if not streams:
        output = {"message": {"role": "assistant", "content": content}}
        return document({"output": output, "stopReason": stop, "usage": usage(draw), "metrics": {"latencyMs": 551}})

    def pieces():
        yield event("messageStart", {"role": "assistant", "p": "abc"})
        for word in words:
            yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word + " "}})
        if model == "failing-model":
            yield exception("modelStreamErrorException", "The model failed")
            return
        yield event("contentBlockStop", {"contentBlockIndex": 0})
        if stop == "tool_use":
            start = {"toolUse": {"toolUseId": tool["toolUse"]["toolUseId"], "name": "weather"}}
            yield event("contentBlockStart", {"contentBlockIndex": 1, "start": start})
            for piece in ('{"city"', ':"Paris"}'):
                yield event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"toolUse": {"input": piece}}})
            yield event("contentBlockStop", {"contentBlockIndex": 1})
        yield event("messageStop", {"stopReason": stop})
        yield event("metadata", {"usage": usage(draw), "metrics": {"latencyMs": 551}})

    return stream(pieces())


def counts(draw):
    return {
        "x-amzn-bedrock-input-token-count": str(draw.input),
        "x-amzn-bedrock-output-token-count": str(draw.output),
        "x-amzn-bedrock-invocation-latency": "551",
    }


def native(body, draw, model):
    """What the family of `model` answers."""
    text = " ".join(draw.words())
    if model.startswith("anthropic."):
        return anthropic.message(body, model.partition(".")[2], draw)
    if model.startswith("amazon.titan"):
        return {"inputTextTokenCount": draw.input, "results": [{"tokenCount": draw.output, "outputText": text, "completionReason": "FINISH"}]}
    if model.startswith("amazon.nova"):
        counted = {"inputTokens": draw.input, "outputTokens": draw.output, "totalTokens": draw.input + draw.output}
        return {"output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn", "usage": counted}
    return {"generation": text, "prompt_token_count": draw.input, "generation_token_count": draw.output, "stop_reason": "stop"}


def invoke(request, streams, model):
    body, draw = request.json(), request.draw()
    if not streams:
        reply = document(native(body, draw, model))
        reply.fields.update(counts(draw))
        return reply

    def pieces():
        metrics = {"inputTokenCount": draw.input, "outputTokenCount": draw.output, "invocationLatency": 551, "firstByteLatency": 31}
        items = [item for _, item in anthropic.stream(anthropic.message(body, model.partition(".")[2], draw))]
        items[-1]["amazon-bedrock-invocationMetrics"] = metrics
        for item in items:
            inner = base64.b64encode(json.dumps(item).encode()).decode()
            yield event("chunk", {"bytes": inner, "p": draw.id("", 9)})

    return stream(pieces())


def answer(request):
    _, _, model, verb = (*request.path.split("/"), "", "", "", "")[:4]
    model, draw = unquote(model), request.draw()
    if model == "limited-model":
        reply = document({"message": "Too many requests"}, 429)
        reply.fields["x-amzn-errortype"] = "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    elif model == "missing-model":
        reply = document({"message": "The provided model identifier is invalid."}, 400)
        reply.fields["x-amzn-errortype"] = "ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    elif verb.startswith("converse"):
        reply = converse(request, verb == "converse-stream", model)
    else:
        reply = invoke(request, verb == "invoke-with-response-stream", model)
    reply.fields["x-amzn-requestid"] = draw.id("", 36)
    return reply
