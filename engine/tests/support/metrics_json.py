"""Reads a request of metrics in OTLP's JSON mapping, and writes what Google's protobuf runtime makes of it by the
published definitions, as protobuf. From stdin to stdout. The ids of exemplars, which OTLP writes in hex where JSON of
protobuf has base64, are put into base64 first.
"""

import base64
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest


def ids(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("traceId", "spanId"):
                value[key] = base64.b64encode(bytes.fromhex(inner)).decode()
            else:
                ids(inner)
    elif isinstance(value, list):
        for inner in value:
            ids(inner)


request = json.load(sys.stdin)
ids(request)
sys.stdout.buffer.write(json_format.ParseDict(request, ExportMetricsServiceRequest()).SerializeToString())
