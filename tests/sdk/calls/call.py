"""One call of an SDK, and what the SDK told its caller: a line of JSON each, for `judge.py`."""

import json
import secrets
import sys

ATTRIBUTES = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "server": "server.address",
    "model": "gen_ai.request.model",
    "stream": "gen_ai.request.stream",
    "id": "gen_ai.response.id",
    "served": "gen_ai.response.model",
    "finish": "gen_ai.response.finish_reasons",
    "input": "gen_ai.usage.input_tokens",
    "output": "gen_ai.usage.output_tokens",
    "cached": "gen_ai.usage.cache_read.input_tokens",
    "written": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning": "gen_ai.usage.reasoning.output_tokens",
    "dimensions": "gen_ai.embeddings.dimension.count",
    "conversation": "gen_ai.conversation.id",
    "tier": "openai.response.service_tier",
    "fingerprint": "openai.response.system_fingerprint",
    "status": "http.response.status_code",
    "error": "error.type",
}


class Call:
    """A call that is about to be made; its `traceparent` tells its span from all others."""

    def __init__(self, label):
        self.label = label
        self.trace_id = secrets.token_hex(16)
        self.parent_id = secrets.token_hex(8)

    @property
    def traceparent(self):
        return f"00-{self.trace_id}-{self.parent_id}-01"

    @property
    def fields(self):
        return {"traceparent": self.traceparent}

    def told(self, **values):
        """What the SDK returned. What it did not return must not be on the span either."""
        unknown = values.keys() - ATTRIBUTES.keys()
        assert not unknown, unknown
        # An API that has no such thing gives none.
        values = {"error": None, "stream": None, **values}
        self.line({ATTRIBUTES[name]: value for name, value in values.items()})

    def no_span(self):
        """The call is none of a model."""
        self.line(None)

    def line(self, attributes):
        told = {"call": self.label, "trace_id": self.trace_id, "parent_id": self.parent_id, "attributes": attributes}
        # One write, since threads share the stream.
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


def refused(make, kinds):
    """The exception that a call ends with, which has to be one of `kinds`."""
    try:
        make()
    except kinds as error:
        return error
    raise AssertionError("the call did not fail")


def weather(wrap=lambda function: function):
    """A tool in the form that most APIs share."""
    properties = {"city": {"type": "string", "description": "Where"}}
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    return wrap({"name": "weather", "description": "The weather of a city", "parameters": schema})
