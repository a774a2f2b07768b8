"""Gemini and Vertex: generateContent, its stream, embeddings."""

from reply import document, events


def usage(draw):
    return {
        "promptTokenCount": draw.input,
        "candidatesTokenCount": draw.output,
        "thoughtsTokenCount": draw.reasoning,
        "cachedContentTokenCount": draw.cached,
        "totalTokenCount": draw.input + draw.output + draw.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": draw.input}],
    }


def chunk(parts, model, ids, counted, finish=None):
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0, "safetyRatings": []}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "usageMetadata": counted, "modelVersion": model + "-001", "responseId": ids}


def generate(request, model, streams):
    body, draw = request.json(), request.draw()
    ids, counted = draw.id("", 22), usage(draw)
    text = [{"text": word + " "} for word in draw.words()]
    call = [{"functionCall": {"name": "weather", "args": {"city": "Paris"}}}]
    limit = (body.get("generationConfig") or {}).get("maxOutputTokens")
    finish = "MAX_TOKENS" if limit else "STOP"
    parts = call if body.get("tools") else text
    if not streams:
        return document(chunk(parts, model, ids, counted, finish), server_timing="gfet4t7; dur=42")
    growing = [{**counted, "candidatesTokenCount": index + 1} for index, _ in enumerate(parts[:-1])] + [counted]
    ends = [None] * (len(parts) - 1) + [finish]
    chunks = [chunk([part], model, ids, count, end) for part, count, end in zip(parts, growing, ends)]
    return events(chunks, end="\r\n", content_type="text/event-stream")


def failure(code, status, message):
    return document({"error": {"code": code, "message": message, "status": status, "details": []}}, code)


def answer(request):
    name, _, verb = request.path.rpartition("/")[2].partition(":")
    draw = request.draw()
    if name == "missing-model":
        return failure(404, "NOT_FOUND", "models/missing-model is not found")
    if name == "limited-model":
        return failure(429, "RESOURCE_EXHAUSTED", "Quota exceeded")
    if verb in ("generateContent", "streamGenerateContent"):
        return generate(request, name, verb == "streamGenerateContent")
    if verb == "batchEmbedContents":
        return document({"embeddings": [{"values": draw.vector()} for _ in request.json()["requests"]]})
    if verb == "embedContent":
        return document({"embedding": {"values": draw.vector()}})
    if verb == "predict":
        statistics = {"truncated": False, "token_count": draw.input}
        predictions = [{"embeddings": {"values": draw.vector(), "statistics": statistics}} for _ in request.json()["instances"]]
        return document({"predictions": predictions})
    if verb == "countTokens":
        return document({"totalTokens": draw.input})
    return failure(404, "NOT_FOUND", request.path)
