"""Holds spans against what SDKs told their callers.

    judge.py SPANS TOLD...    files of lines of JSON: of `agentsight trace --json`, of the callers
    judge.py --arrived SPANS TOLD...    2 while a call that is to have a span has none

A call has one span of the SDK's process and one of the mock's, or none where none is told of; every
attribute that is told of is on it with that value, and one that is told to be null is not on it.
"""

import json
import sys
from collections import defaultdict


def read(path):
    with open(path, encoding="utf-8") as file:
        # The last line may still be on its way.
        return [json.loads(line) for line in file if line.endswith("\n")]


def differences(span, call):
    if span.get("parent_span_id") != call["parent_id"]:
        yield f"it hangs below {span.get('parent_span_id')}"
    found = span["attributes"]
    if (span["status"] == "ERROR") != (call["attributes"]["error.type"] is not None):
        yield f"its status is {span['status']}"
    if "agentsight.capture.incomplete" in found:
        yield "something of it was not captured"
    for name, value in call["attributes"].items():
        if found.get(name) != value:
            yield f"{name} is {found.get(name)!r}, and the SDK told {value!r}"


def main(arguments):
    only_arrived = arguments[0] == "--arrived"
    spans_file, *told_files = arguments[1:] if only_arrived else arguments
    by_trace = defaultdict(list)
    for span in read(spans_file):
        by_trace[span["trace_id"]].append(span)
    calls = [call for file in told_files for call in read(file)]
    if only_arrived:
        return 0 if all(len(by_trace[call["trace_id"]]) >= 2 for call in calls if call["attributes"] is not None) else 2
    faults = []
    for call in calls:
        spans = by_trace[call["trace_id"]]
        kinds = sorted(span["kind"] for span in spans)
        if kinds != ([] if call["attributes"] is None else ["CLIENT", "SERVER"]):
            faults.append(f"{call['call']}: its spans are {kinds}")
            continue
        for span in spans:
            faults += [f"{call['call']}, {span['kind']}: {fault}" for fault in differences(span, call)]
    for file in told_files:
        print(f"{file.rsplit('/', 1)[-1]}: {len(read(file))} calls")
    print(f"{len(calls)} calls, {len(faults)} differences")
    print("".join(f"  {fault}\n" for fault in faults), end="")
    return 1 if faults or not calls else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
