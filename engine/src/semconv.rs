//! Attribute names of the OpenTelemetry semantic conventions, GenAI and general ones.
//!
//! The GenAI part is still in development upstream; a rename there is a change of one line here.

/// The schema that the names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev";

macro_rules! names {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $($(#[$doc])* #[doc = concat!("`", $name, "`")] pub const $constant: &str = $name;)*
        /// Every name in this module.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

names! {
    GEN_AI_OPERATION_NAME = "gen_ai.operation.name";
    GEN_AI_PROVIDER_NAME = "gen_ai.provider.name";
    GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id";
    GEN_AI_CONVERSATION_COMPACTED = "gen_ai.conversation.compacted";
    GEN_AI_OUTPUT_TYPE = "gen_ai.output.type";
    GEN_AI_PROMPT_NAME = "gen_ai.prompt.name";
    GEN_AI_PROMPT_VERSION = "gen_ai.prompt.version";
    GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count";
    GEN_AI_REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats";
    GEN_AI_REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty";
    GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens";
    GEN_AI_REQUEST_MODEL = "gen_ai.request.model";
    GEN_AI_REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty";
    GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id";
    GEN_AI_REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level";
    GEN_AI_REQUEST_SEED = "gen_ai.request.seed";
    GEN_AI_REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences";
    GEN_AI_REQUEST_STREAM = "gen_ai.request.stream";
    GEN_AI_REQUEST_STREAM_CURSOR = "gen_ai.request.stream_cursor";
    GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature";
    GEN_AI_REQUEST_TOP_K = "gen_ai.request.top_k";
    GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p";
    GEN_AI_EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count";
    GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons";
    GEN_AI_RESPONSE_ID = "gen_ai.response.id";
    GEN_AI_RESPONSE_MODEL = "gen_ai.response.model";
    GEN_AI_RESPONSE_STATUS = "gen_ai.response.status";
    GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
    GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens";
    GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens";
    GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens";
    /// To be renamed to `gen_ai.usage.cache_write.input_tokens` by a later version.
    GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens";
    GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens";
    GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages";
    GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages";
    GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions";
    GEN_AI_TOOL_DEFINITIONS = "gen_ai.tool.definitions";
    OPENAI_API_TYPE = "openai.api.type";
    OPENAI_REQUEST_SERVICE_TIER = "openai.request.service_tier";
    OPENAI_RESPONSE_SERVICE_TIER = "openai.response.service_tier";
    OPENAI_RESPONSE_SYSTEM_FINGERPRINT = "openai.response.system_fingerprint";
    AWS_BEDROCK_GUARDRAIL_ID = "aws.bedrock.guardrail.id";
    AWS_BEDROCK_KNOWLEDGE_BASE_ID = "aws.bedrock.knowledge_base.id";
    AZURE_RESOURCE_PROVIDER_NAMESPACE = "azure.resource_provider.namespace";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
    ERROR_TYPE = "error.type";
    CLIENT_ADDRESS = "client.address";
    CLIENT_PORT = "client.port";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    PROCESS_PID = "process.pid";
    PROCESS_EXECUTABLE_NAME = "process.executable.name";
    CONTAINER_ID = "container.id";
    CONTAINER_NAME = "container.name";
    K8S_CONTAINER_NAME = "k8s.container.name";
    K8S_POD_UID = "k8s.pod.uid";
    K8S_POD_NAME = "k8s.pod.name";
    K8S_NAMESPACE_NAME = "k8s.namespace.name";
    THREAD_ID = "thread.id";
    /// Ours: some of the exchange was not seen.
    AGENTSIGHT_CAPTURE_INCOMPLETE = "agentsight.capture.incomplete";
    /// Ours: how many bytes of the exchange were lost or cut, where that is known.
    AGENTSIGHT_CAPTURE_LOST_BYTES = "agentsight.capture.lost_bytes";
    /// Ours: content was to be captured, and was not, because there was too much to keep up with.
    AGENTSIGHT_CAPTURE_CONTENT_WITHHELD = "agentsight.capture.content_withheld";
    SERVICE_NAME = "service.name";
    SERVICE_VERSION = "service.version";
    SERVICE_INSTANCE_ID = "service.instance.id";
    HOST_NAME = "host.name";
    HOST_ID = "host.id";
    HOST_ARCH = "host.arch";
    OS_TYPE = "os.type";
    TELEMETRY_SDK_NAME = "telemetry.sdk.name";
    TELEMETRY_SDK_LANGUAGE = "telemetry.sdk.language";
    TELEMETRY_SDK_VERSION = "telemetry.sdk.version";
}

/// Names of metrics, and of the attributes that only metrics have.
pub mod metric {
    names! {
        GEN_AI_CLIENT_TOKEN_USAGE = "gen_ai.client.token.usage";
        GEN_AI_CLIENT_OPERATION_DURATION = "gen_ai.client.operation.duration";
        GEN_AI_CLIENT_OPERATION_TIME_TO_FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk";
        GEN_AI_CLIENT_OPERATION_TIME_PER_OUTPUT_CHUNK = "gen_ai.client.operation.time_per_output_chunk";
        GEN_AI_SERVER_REQUEST_DURATION = "gen_ai.server.request.duration";
        GEN_AI_SERVER_TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token";
        GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token";
        /// `input` or `output`.
        GEN_AI_TOKEN_TYPE = "gen_ai.token.type";
        /// True on the point of everything that got no attributes of its own.
        OTEL_METRIC_OVERFLOW = "otel.metric.overflow";
    }
}
