"""boto3, for Bedrock."""

import json
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from call import Call, refused

REGION = "us-east-1"
HI = [{"role": "user", "content": [{"text": "Say something."}]}]
SCHEMA = {"json": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS = {"toolConfig": {"tools": [{"toolSpec": {"name": "weather", "description": "The weather", "inputSchema": SCHEMA}}]}}
MODEL = "us.amazon.nova-pro-v1:0"
everywhere = {
    "operation": "chat", "provider": "aws.bedrock", "server": f"bedrock-runtime.{REGION}.amazonaws.com", "status": 200,
}


def client(call):
    session = boto3.Session(aws_access_key_id="AKIDNONE", aws_secret_access_key="none", region_name=REGION)
    made = session.client("bedrock-runtime", config=Config(retries={"total_max_attempts": 1}))
    made.meta.events.register("before-send.bedrock-runtime.*", lambda request, **_: request.headers.update(call.fields))
    return made


def told(call, reply, stop, usage, model=MODEL, **others):
    cached, written = usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]
    call.told(**everywhere, **others, model=model, finish=[stop], input=usage["inputTokens"] + cached + written,
              output=usage["outputTokens"], cached=cached, written=written)


def converse(arguments, label):
    call = Call(f"bedrock converse, {label}")
    reply = client(call).converse(modelId=MODEL, messages=HI, **arguments)
    told(call, reply, reply["stopReason"], reply["usage"])
    call = Call(f"bedrock converse, {label}, stream")
    reply = client(call).converse_stream(modelId=MODEL, messages=HI, **arguments)
    events = {name: value for event in reply["stream"] for name, value in event.items()}
    told(call, reply, events["messageStop"]["stopReason"], events["metadata"]["usage"], stream=True)


CLAUDE = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 100, "messages": [{"role": "user", "content": "x"}]}


def claude_told(call, model, usage, message, stop, **others):
    cached, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    call.told(**everywhere, **others, model=model, id=message["id"], served=message["model"], finish=[stop],
              input=usage["input_tokens"] + cached + written, output=usage["output_tokens"], cached=cached, written=written)


def invoke():
    for model, body, read in [
        ("amazon.titan-text-express-v1", {"inputText": "x"},
         lambda reply: (reply["inputTextTokenCount"], reply["results"][0]["tokenCount"], reply["results"][0]["completionReason"])),
        ("amazon.nova-lite-v1:0", {"messages": HI, "inferenceConfig": {"max_new_tokens": 5}},
         lambda reply: (reply["usage"]["inputTokens"], reply["usage"]["outputTokens"], reply["stopReason"])),
        ("meta.llama4-scout-v1:0", {"prompt": "x", "max_gen_len": 5},
         lambda reply: (reply["prompt_token_count"], reply["generation_token_count"], reply["stop_reason"])),
    ]:
        call = Call(f"bedrock invoke, {model}")
        reply = client(call).invoke_model(modelId=model, body=json.dumps(body))
        tokens_in, tokens_out, finish = read(json.loads(reply["body"].read()))
        call.told(**everywhere, model=model, input=tokens_in, output=tokens_out, finish=[finish])
    model = "anthropic.claude-opus-5-v1:0"
    call = Call("bedrock invoke, Claude")
    reply = json.loads(client(call).invoke_model(modelId=model, body=json.dumps(CLAUDE))["body"].read())
    claude_told(call, model, reply["usage"], reply, reply["stop_reason"])
    call = Call("bedrock invoke, Claude, stream")
    reply = client(call).invoke_model_with_response_stream(modelId=model, body=json.dumps(CLAUDE))
    events = {event["type"]: event for event in (json.loads(event["chunk"]["bytes"]) for event in reply["body"])}
    delta = events["message_delta"]
    claude_told(call, model, delta["usage"], events["message_start"]["message"], delta["delta"]["stop_reason"], stream=True)


def failures():
    for model in ("limited-model", "missing-model"):
        call = Call(f"bedrock, {model}")
        error = refused(lambda: client(call).converse(modelId=model, messages=HI), ClientError)
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        call.told(**{**everywhere, "status": status}, model=model, error=error.response["Error"]["Code"])
    call = Call("bedrock converse, failing stream")
    reply = client(call).converse_stream(modelId="failing-model", messages=HI)
    error = refused(lambda: list(reply["stream"]), EventStreamError)
    call.told(**everywhere, model="failing-model", stream=True, finish=None, error=error.response["Error"]["Code"])


converse({}, "plain")
converse(TOOLS, "tools")
invoke()
failures()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda number: converse({}, f"thread {number}"), range(8)))
