//! One finished request/response pair, and what it says in the terms of the GenAI conventions.

use std::sync::Arc;

use crate::{
    arena::{Family, Travelling},
    intervals::Intervals,
    network::Network,
    semconv as name,
};

/// What one exchange said, borrowed from the exchange's arena. Absent on the wire is absent here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Call<'a> {
    /// `gen_ai.operation.name`, for example `chat`.
    pub operation: &'static str,
    /// `gen_ai.provider.name`.
    pub provider: &'a str,
    /// `server.address`: the host of `Host` or `:authority`.
    pub server_address: Option<&'a str>,
    /// `server.port`.
    pub server_port: Option<u16>,
    /// `gen_ai.request.model`.
    pub request_model: Option<&'a str>,
    /// `gen_ai.request.max_tokens`.
    pub max_tokens: Option<i64>,
    /// `gen_ai.request.temperature`.
    pub temperature: Option<f64>,
    /// `gen_ai.request.top_p`.
    pub top_p: Option<f64>,
    /// `gen_ai.request.top_k`.
    pub top_k: Option<i64>,
    /// `gen_ai.request.frequency_penalty`.
    pub frequency_penalty: Option<f64>,
    /// `gen_ai.request.presence_penalty`.
    pub presence_penalty: Option<f64>,
    /// `gen_ai.request.seed`.
    pub seed: Option<i64>,
    /// `gen_ai.request.choice.count`, when it is not 1.
    pub choice_count: Option<i64>,
    /// `gen_ai.request.stop_sequences`.
    pub stop_sequences: Option<&'a [&'a str]>,
    /// `gen_ai.request.encoding_formats`.
    pub encoding_formats: Option<&'a [&'a str]>,
    /// `gen_ai.embeddings.dimension.count`.
    pub dimension_count: Option<i64>,
    /// `gen_ai.output.type`.
    pub output_type: Option<&'static str>,
    /// `gen_ai.request.stream`: set only when streaming.
    pub stream: bool,
    /// `gen_ai.request.stream_cursor`.
    pub stream_cursor: Option<i64>,
    /// `gen_ai.request.reasoning.level`.
    pub reasoning_level: Option<&'a str>,
    /// `gen_ai.request.previous_response.id`.
    pub previous_response_id: Option<&'a str>,
    /// `gen_ai.conversation.id`.
    pub conversation_id: Option<&'a str>,
    /// `gen_ai.conversation.compacted`: only ever true.
    pub conversation_compacted: bool,
    /// `gen_ai.prompt.name`.
    pub prompt_name: Option<&'a str>,
    /// `gen_ai.prompt.version`.
    pub prompt_version: Option<&'a str>,
    /// `openai.api.type`.
    pub openai_api_type: Option<&'static str>,
    /// `openai.request.service_tier`, when it is not `auto`.
    pub openai_request_service_tier: Option<&'a str>,
    /// `openai.response.service_tier`.
    pub openai_response_service_tier: Option<&'a str>,
    /// `openai.response.system_fingerprint`.
    pub openai_system_fingerprint: Option<&'a str>,
    /// `aws.bedrock.guardrail.id`.
    pub bedrock_guardrail_id: Option<&'a str>,
    /// `aws.bedrock.knowledge_base.id`.
    pub bedrock_knowledge_base_id: Option<&'a str>,
    /// `azure.resource_provider.namespace`.
    pub azure_namespace: Option<&'static str>,
    /// `gen_ai.response.id`.
    pub response_id: Option<&'a str>,
    /// `gen_ai.response.model`.
    pub response_model: Option<&'a str>,
    /// `gen_ai.response.status` (fetched responses only).
    pub response_status: Option<&'a str>,
    /// `gen_ai.response.finish_reasons`, in the order of the choices.
    pub finish_reasons: Option<&'a [&'a str]>,
    /// `gen_ai.usage.input_tokens`.
    pub input_tokens: Option<i64>,
    /// `gen_ai.usage.output_tokens`.
    pub output_tokens: Option<i64>,
    /// `gen_ai.usage.cache_read.input_tokens`.
    pub cache_read_tokens: Option<i64>,
    /// `gen_ai.usage.cache_creation.input_tokens`.
    pub cache_creation_tokens: Option<i64>,
    /// `gen_ai.usage.reasoning.output_tokens`.
    pub reasoning_tokens: Option<i64>,
    /// `http.response.status_code`.
    pub status_code: Option<u16>,
    /// `error.type`; present exactly when the span's status is ERROR.
    pub error_type: Option<&'a str>,
    /// W3C `tracestate`, when `traceparent` was valid.
    pub trace_state: Option<&'a str>,
    /// `gen_ai.input.messages` as JSON, when content is captured.
    pub input_messages: Option<&'a str>,
    /// `gen_ai.output.messages` as JSON, when content is captured.
    pub output_messages: Option<&'a str>,
    /// `gen_ai.system_instructions` as JSON, when content is captured.
    pub system_instructions: Option<&'a str>,
    /// `gen_ai.tool.definitions` as JSON, when content is captured.
    pub tool_definitions: Option<&'a str>,
    /// Content was to be captured, and was not, because there was too much to keep up with.
    pub content_withheld: bool,
}

/// [`Call`] as a family, for [`Travelling`].
pub struct CallFamily;

impl Family for CallFamily {
    // In the arena too, so that an exchange is small where it moves.
    type In<'a> = &'a mut Call<'a>;
}

/// Which end of the exchange the observed process was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It sent the request: a CLIENT span.
    Client,
    /// It received the request: a SERVER span.
    Server,
}

/// Where the span hangs in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// This span's id, not all zero.
    pub span_id: [u8; 8],
    /// Parent span id from the request's `traceparent`.
    pub parent_span_id: Option<[u8; 8]>,
    /// W3C trace flags (the low 8 bits).
    pub flags: u8,
}

/// The observed process, as far as it was known when its connection was first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// `process.pid`, as this program's pid namespace numbers it, and where it has no number there as the
    /// host does.
    pub pid: u32,
    /// `process.executable.name`.
    pub executable: Option<String>,
    /// `container.id`.
    pub container_id: Option<String>,
    /// `k8s.container.name` in a pod, `container.name` elsewhere.
    pub container_name: Option<String>,
    /// `k8s.pod.uid`.
    pub pod_uid: Option<String>,
    /// `k8s.pod.name`.
    pub pod_name: Option<String>,
    /// `k8s.namespace.name`.
    pub pod_namespace: Option<String>,
}

/// A finished exchange on its way from a worker to the encoder.
pub struct Exchange {
    /// Which side was observed.
    pub role: Role,
    /// Trace id, span id and parent.
    pub trace: TraceContext,
    /// Observed process.
    pub process: Arc<Process>,
    /// What carried it.
    pub network: Arc<Network>,
    /// `thread.id` of the thread that moved the request's first byte.
    pub thread_id: u32,
    /// First byte of the request, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Last byte of the response (or what ended the exchange), nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
    /// Last byte of the request to the first data event, nanoseconds; streamed responses only.
    pub first_chunk_nano: Option<u64>,
    /// Times between the chunks of a streamed response.
    pub chunk_intervals: Intervals,
    /// Its end was not seen, so that its duration is not known.
    pub end_unseen: bool,
    /// Bytes of this exchange that were lost or cut.
    pub lost_bytes: u64,
    /// Some of the exchange was not seen (`lost_bytes` may be 0 when the amount is unknown).
    pub incomplete: bool,
    /// Index of the worker whose pool the arena goes back to.
    pub worker: usize,
    /// What was said.
    pub call: Travelling<CallFamily>,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A string.
    Str(&'a str),
    /// A signed integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// A list of strings.
    List(&'a [&'a str]),
}

impl Exchange {
    /// Shows the span's attributes, always in the same order; what is absent is not shown.
    pub fn attributes(&self, visit: &mut impl FnMut(&'static str, Value<'_>)) {
        self.call.with(|call| call.attributes(visit));
        if let Some(nanos) = self.first_chunk_nano {
            visit(name::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, Value::Double(nanos as f64 / 1e9));
        }
        self.network_attributes(visit);
        visit(name::PROCESS_PID, Value::Int(self.process.pid.into()));
        visit(name::THREAD_ID, Value::Int(self.thread_id.into()));
        let mut text = |key, value: &Option<String>| {
            if let Some(value) = value {
                visit(key, Value::Str(value));
            }
        };
        text(name::PROCESS_EXECUTABLE_NAME, &self.process.executable);
        text(name::CONTAINER_ID, &self.process.container_id);
        let in_pod = self.process.pod_uid.is_some();
        let container_name = if in_pod { name::K8S_CONTAINER_NAME } else { name::CONTAINER_NAME };
        text(container_name, &self.process.container_name);
        text(name::K8S_POD_UID, &self.process.pod_uid);
        text(name::K8S_POD_NAME, &self.process.pod_name);
        text(name::K8S_NAMESPACE_NAME, &self.process.pod_namespace);
        if self.incomplete || self.lost_bytes > 0 {
            visit(name::AGENTSIGHT_CAPTURE_INCOMPLETE, Value::Bool(true));
        }
        if self.call.with(|call| call.content_withheld) {
            visit(name::AGENTSIGHT_CAPTURE_CONTENT_WITHHELD, Value::Bool(true));
        }
        if self.lost_bytes > 0 {
            visit(name::AGENTSIGHT_CAPTURE_LOST_BYTES, Value::Int(self.lost_bytes.try_into().unwrap_or(i64::MAX)));
        }
    }

    /// The other end of the connection; of a call that was served, it is the client.
    fn network_attributes(&self, visit: &mut impl FnMut(&'static str, Value<'_>)) {
        let Some(peer) = &self.network.peer else { return };
        let port = peer.port.map(|port| Value::Int(port.into()));
        if self.role == Role::Server {
            // Of a UNIX socket it is the server's end that has a name.
            let Some(port) = port else { return };
            visit(name::CLIENT_ADDRESS, Value::Str(&peer.address));
            visit(name::CLIENT_PORT, port);
        }
        visit(name::NETWORK_PEER_ADDRESS, Value::Str(&peer.address));
        if let Some(port) = port {
            visit(name::NETWORK_PEER_PORT, port);
        }
    }

    /// Puts the span's name into `out`: the operation and the model that was asked for, if known.
    pub fn name(&self, out: &mut String) {
        out.clear();
        self.call.with(|call| {
            out.push_str(call.operation);
            if let Some(model) = call.request_model {
                out.push(' ');
                out.push_str(model);
            }
        });
    }

    /// Nanoseconds from the request's first byte to the end. Clocks may differ between CPUs, so
    /// that it could come out negative; it is zero then.
    pub fn duration_nano(&self) -> u64 {
        self.end_unix_nano.saturating_sub(self.start_unix_nano)
    }
}

impl Call<'_> {
    /// The attributes that the wire gave, in the order of the conventions' tables.
    fn attributes(&self, visit: &mut impl FnMut(&'static str, Value<'_>)) {
        let mut show = |key, value: Option<Value<'_>>| {
            if let Some(value) = value {
                visit(key, value);
            }
        };
        let text = |value: Option<_>| value.map(Value::Str);
        let int = |value: Option<i64>| value.map(Value::Int);
        let double = |value: Option<f64>| value.map(Value::Double);
        let list = |value: Option<_>| value.map(Value::List);
        // These flags have one value; they are never sent as false.
        let flag = |value: bool| value.then_some(Value::Bool(true));

        // What samplers look at comes first.
        show(name::GEN_AI_OPERATION_NAME, Some(Value::Str(self.operation)));
        // Without a host nothing says who provides.
        show(name::GEN_AI_PROVIDER_NAME, Some(self.provider).filter(|name| !name.is_empty()).map(Value::Str));
        show(name::GEN_AI_REQUEST_MODEL, text(self.request_model));
        show(name::SERVER_ADDRESS, text(self.server_address));
        show(name::SERVER_PORT, self.server_port.map(|port| Value::Int(port.into())));

        show(name::GEN_AI_REQUEST_STREAM, flag(self.stream));
        show(name::GEN_AI_REQUEST_STREAM_CURSOR, int(self.stream_cursor));
        show(name::GEN_AI_REQUEST_MAX_TOKENS, int(self.max_tokens));
        show(name::GEN_AI_REQUEST_TEMPERATURE, double(self.temperature));
        show(name::GEN_AI_REQUEST_TOP_P, double(self.top_p));
        show(name::GEN_AI_REQUEST_TOP_K, int(self.top_k));
        show(name::GEN_AI_REQUEST_FREQUENCY_PENALTY, double(self.frequency_penalty));
        show(name::GEN_AI_REQUEST_PRESENCE_PENALTY, double(self.presence_penalty));
        show(name::GEN_AI_REQUEST_SEED, int(self.seed));
        show(name::GEN_AI_REQUEST_CHOICE_COUNT, int(self.choice_count));
        show(name::GEN_AI_REQUEST_STOP_SEQUENCES, list(self.stop_sequences));
        show(name::GEN_AI_REQUEST_ENCODING_FORMATS, list(self.encoding_formats));
        show(name::GEN_AI_EMBEDDINGS_DIMENSION_COUNT, int(self.dimension_count));
        show(name::GEN_AI_OUTPUT_TYPE, text(self.output_type));
        show(name::GEN_AI_REQUEST_REASONING_LEVEL, text(self.reasoning_level));
        show(name::GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID, text(self.previous_response_id));
        show(name::GEN_AI_CONVERSATION_ID, text(self.conversation_id));
        show(name::GEN_AI_CONVERSATION_COMPACTED, flag(self.conversation_compacted));
        show(name::GEN_AI_PROMPT_NAME, text(self.prompt_name));
        show(name::GEN_AI_PROMPT_VERSION, text(self.prompt_version));
        show(name::OPENAI_API_TYPE, text(self.openai_api_type));
        show(name::OPENAI_REQUEST_SERVICE_TIER, text(self.openai_request_service_tier));
        show(name::AWS_BEDROCK_GUARDRAIL_ID, text(self.bedrock_guardrail_id));
        show(name::AWS_BEDROCK_KNOWLEDGE_BASE_ID, text(self.bedrock_knowledge_base_id));
        show(name::AZURE_RESOURCE_PROVIDER_NAMESPACE, text(self.azure_namespace));

        show(name::GEN_AI_RESPONSE_ID, text(self.response_id));
        show(name::GEN_AI_RESPONSE_MODEL, text(self.response_model));
        show(name::GEN_AI_RESPONSE_STATUS, text(self.response_status));
        show(name::GEN_AI_RESPONSE_FINISH_REASONS, list(self.finish_reasons));
        show(name::GEN_AI_USAGE_INPUT_TOKENS, int(self.input_tokens));
        show(name::GEN_AI_USAGE_OUTPUT_TOKENS, int(self.output_tokens));
        show(name::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, int(self.cache_read_tokens));
        show(name::GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, int(self.cache_creation_tokens));
        show(name::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, int(self.reasoning_tokens));
        show(name::OPENAI_RESPONSE_SERVICE_TIER, text(self.openai_response_service_tier));
        show(name::OPENAI_RESPONSE_SYSTEM_FINGERPRINT, text(self.openai_system_fingerprint));
        show(name::HTTP_RESPONSE_STATUS_CODE, self.status_code.map(|code| Value::Int(code.into())));
        show(name::ERROR_TYPE, text(self.error_type));

        show(name::GEN_AI_INPUT_MESSAGES, text(self.input_messages));
        show(name::GEN_AI_OUTPUT_MESSAGES, text(self.output_messages));
        show(name::GEN_AI_SYSTEM_INSTRUCTIONS, text(self.system_instructions));
        show(name::GEN_AI_TOOL_DEFINITIONS, text(self.tool_definitions));
    }
}
