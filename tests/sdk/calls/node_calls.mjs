// OpenAI's and Anthropic's SDKs for Node: the same lines as call.py prints.
import Anthropic from "@anthropic-ai/sdk";
import { randomBytes } from "node:crypto";
import OpenAI from "openai";

const openai = new OpenAI({ apiKey: "sk-none", maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: "none", maxRetries: 0 });
const hi = [{ role: "user", content: "Say something." }];
const parameters = { type: "object", properties: { city: { type: "string" } } };

const names = {
  operation: "gen_ai.operation.name",
  provider: "gen_ai.provider.name",
  server: "server.address",
  model: "gen_ai.request.model",
  stream: "gen_ai.request.stream",
  id: "gen_ai.response.id",
  served: "gen_ai.response.model",
  finish: "gen_ai.response.finish_reasons",
  input: "gen_ai.usage.input_tokens",
  output: "gen_ai.usage.output_tokens",
  cached: "gen_ai.usage.cache_read.input_tokens",
  written: "gen_ai.usage.cache_creation.input_tokens",
  reasoning: "gen_ai.usage.reasoning.output_tokens",
  status: "http.response.status_code",
  error: "error.type",
};

class Call {
  constructor(label) {
    this.label = label;
    this.traceId = randomBytes(16).toString("hex");
    this.parentId = randomBytes(8).toString("hex");
    this.options = { headers: { traceparent: `00-${this.traceId}-${this.parentId}-01` } };
  }

  told(values) {
    const all = Object.entries({ error: null, stream: null, ...values });
    const attributes = Object.fromEntries(all.map(([name, value]) => [names[name], value ?? null]));
    console.log(JSON.stringify({ call: this.label, trace_id: this.traceId, parent_id: this.parentId, attributes }));
  }
}

const ofOpenai = { provider: "openai", server: new URL(openai.baseURL).hostname, status: 200 };
const ofAnthropic = { operation: "chat", provider: "anthropic", server: new URL(anthropic.baseURL).hostname, status: 200 };

function chatTold(call, model, reply, others = {}) {
  const { usage } = reply;
  call.told({
    ...ofOpenai,
    operation: "chat",
    model,
    id: reply.id,
    served: reply.model,
    finish: reply.choices.map((choice) => choice.finish_reason),
    input: usage?.prompt_tokens,
    output: usage?.completion_tokens,
    cached: usage?.prompt_tokens_details.cached_tokens,
    reasoning: usage?.completion_tokens_details.reasoning_tokens,
    ...others,
  });
}

function responseTold(call, model, reply, finish, others = {}) {
  const { usage } = reply;
  call.told({
    ...ofOpenai,
    operation: "chat",
    model,
    id: reply.id,
    served: reply.model,
    finish,
    input: usage.input_tokens,
    output: usage.output_tokens,
    cached: usage.input_tokens_details.cached_tokens,
    reasoning: usage.output_tokens_details.reasoning_tokens,
    ...others,
  });
}

function messageTold(call, reply, others = {}) {
  const { usage } = reply;
  call.told({
    ...ofAnthropic,
    model: "claude-opus-5",
    id: reply.id,
    served: reply.model,
    finish: [reply.stop_reason],
    input: usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
    output: usage.output_tokens,
    cached: usage.cache_read_input_tokens,
    written: usage.cache_creation_input_tokens,
    ...others,
  });
}

async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("the call did not fail");
}

async function openaiCalls(round) {
  const model = `gpt-5-${round}`;
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  for (const [label, more] of [["plain", {}], ["tools", { tools }], ["two choices", { n: 2 }]]) {
    let call = new Call(`node openai chat, ${label} ${round}`);
    chatTold(call, model, await openai.chat.completions.create({ model, messages: hi, ...more }, call.options));
    call = new Call(`node openai chat, ${label}, stream ${round}`);
    const body = { model, messages: hi, stream_options: { include_usage: true }, ...more };
    const stream = openai.chat.completions.stream(body, call.options);
    chatTold(call, model, await stream.finalChatCompletion(), { usage: undefined, stream: true });
  }
  let call = new Call(`node openai responses ${round}`);
  responseTold(call, model, await openai.responses.create({ model, input: "x" }, call.options), ["stop"]);
  call = new Call(`node openai responses, stream ${round}`);
  let last;
  for await (const event of await openai.responses.create({ model, input: "x", stream: true }, call.options)) last = event;
  responseTold(call, model, last.response, ["stop"], { stream: true });
  call = new Call(`node openai embeddings ${round}`);
  const { usage, model: served } = await openai.embeddings.create({ model, input: ["a", "b"] }, call.options);
  call.told({ ...ofOpenai, operation: "embeddings", model, served, input: usage.prompt_tokens, output: null });
}

async function anthropicCalls(round) {
  const common = { model: "claude-opus-5", max_tokens: 100, messages: hi };
  const tools = [{ name: "weather", input_schema: parameters }];
  for (const [label, more] of [["plain", {}], ["tools", { tools }]]) {
    let call = new Call(`node anthropic, ${label} ${round}`);
    messageTold(call, await anthropic.messages.create({ ...common, ...more }, call.options));
    call = new Call(`node anthropic, ${label}, stream ${round}`);
    messageTold(call, await anthropic.messages.stream({ ...common, ...more }, call.options).finalMessage(), { stream: true });
  }
}

async function failures() {
  let call = new Call("node openai, limited-model");
  let error = await refused(openai.chat.completions.create({ model: "limited-model", messages: hi }, call.options));
  call.told({ ...ofOpenai, operation: "chat", model: "limited-model", status: error.status, error: error.code });
  call = new Call("node anthropic, overloaded-model");
  const body = { model: "overloaded-model", max_tokens: 100, messages: hi };
  error = await refused(anthropic.messages.create(body, call.options));
  call.told({ ...ofAnthropic, model: body.model, status: error.status, error: error.error.error.type });
}

await Promise.all([0, 1, 2, 3].flatMap((round) => [openaiCalls(round), anthropicCalls(round)]));
await failures();
