"""What the mock's APIs are made of: requests, replies, and numbers that no two calls share."""

import gzip
import json
import random


class Request:
    """A request with its whole body."""

    def __init__(self, method, host, target, fields, body):
        self.method = method
        self.host = host
        self.path, _, query = target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
        self.fields = fields
        self.body = body

    def json(self):
        return json.loads(self.body) if self.body else {}

    def draw(self):
        return Draw(self.fields.get("traceparent", "") + self.path)


class Draw:
    """Numbers and ids of one call, drawn from what identifies it, so that a mixed-up pair shows."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.input = self.count(1000, 9000)
        self.cached = self.count(1, 900)
        self.written = self.count(1, 90)
        self.output = self.count(1000, 9000)
        self.reasoning = self.count(1, 900)

    def count(self, low, high):
        return self.random.randint(low, high)

    def id(self, prefix, length=24):
        return prefix + "".join(self.random.choice("0123456789abcdefghijkmnpqrstuvwxyz") for _ in range(length))

    def words(self):
        return [self.random.choice(("Rivers", "stones", "carry", "old", "light", "\u6cb3", "na\u00efve")) for _ in range(8)]

    def vector(self, length=8):
        return [self.random.uniform(-1, 1) for _ in range(length)]


class Reply:
    """A response: one document, or the pieces of a stream with what makes it one."""

    def __init__(self, status=200, fields=None, body=b"", pieces=None):
        self.status = status
        self.fields = fields or {}
        self.body = body
        self.pieces = pieces

    def coded(self, accepted):
        """The same in gzip, for clients that take it, as most APIs answer."""
        if self.pieces is None and "gzip" in accepted and self.body:
            self.body = gzip.compress(self.body)
            self.fields["content-encoding"] = "gzip"
        return self


def document(value, status=200, **fields):
    fields = {name.replace("_", "-"): text for name, text in fields.items()}
    return Reply(status, {"content-type": "application/json", **fields}, json.dumps(value).encode())


def events(items, end="\n", content_type="text/event-stream; charset=utf-8"):
    """Server-sent events: each item is a document, or a pair of an event's name and its document, or text
    that goes out as it is."""

    def piece(item):
        if isinstance(item, str):
            return item.encode()
        name, value = item if isinstance(item, tuple) else (None, item)
        data = value if isinstance(value, str) else json.dumps(value)
        named = f"event: {name}{end}" if name else ""
        return f"{named}data: {data}{end}{end}".encode()

    return Reply(200, {"content-type": content_type, "cache-control": "no-cache"}, pieces=[piece(item) for item in items])


def lines(items, content_type="application/x-ndjson"):
    return Reply(200, {"content-type": content_type}, pieces=[json.dumps(item).encode() + b"\n" for item in items])
