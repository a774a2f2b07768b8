//! Requests and responses of the APIs, as large as is asked for. All responses say the same counts.

use std::fmt::Write as _;

/// What every response says of its input.
pub const INPUT_TOKENS: i64 = 12;
/// What every response says of its output.
pub const OUTPUT_TOKENS: i64 = 34;

/// An API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// Gemini.
    Gemini,
    /// Bedrock Converse.
    Converse,
    /// Ollama.
    Ollama,
    /// Cohere.
    Cohere,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Chat, Self::Responses, Self::Messages, Self::Gemini, Self::Converse, Self::Ollama, Self::Cohere];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "OpenAI chat",
            Self::Responses => "OpenAI responses",
            Self::Messages => "Anthropic messages",
            Self::Gemini => "Gemini",
            Self::Converse => "Bedrock Converse",
            Self::Ollama => "Ollama",
            Self::Cohere => "Cohere",
        }
    }

    fn host(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses => "api.openai.com",
            Self::Messages => "api.anthropic.com",
            Self::Gemini => "generativelanguage.googleapis.com",
            Self::Converse => "bedrock-runtime.us-east-1.amazonaws.com",
            Self::Ollama => "localhost:11434",
            Self::Cohere => "api.cohere.com",
        }
    }

    fn path(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Self::Chat, _) => "/v1/chat/completions",
            (Self::Responses, _) => "/v1/responses",
            (Self::Messages, _) => "/v1/messages",
            (Self::Gemini, false) => "/v1beta/models/gemini-2.5-flash:generateContent",
            (Self::Gemini, true) => "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            (Self::Converse, false) => "/model/amazon.nova-lite-v1%3A0/converse",
            (Self::Converse, true) => "/model/amazon.nova-lite-v1%3A0/converse-stream",
            (Self::Ollama, _) => "/api/chat",
            (Self::Cohere, _) => "/v2/chat",
        }
    }

    fn stream_type(self) -> &'static str {
        match self {
            Self::Converse => "application/vnd.amazon.eventstream",
            Self::Ollama => "application/x-ndjson",
            _ => "text/event-stream",
        }
    }

    /// A request with `texts` as its conversation: JSON strings without their quotes.
    pub fn request(self, texts: &[String], stream: bool) -> Vec<u8> {
        let body = self.request_body(texts, stream);
        let mut head = format!("POST {} HTTP/1.1\r\nHost: {}\r\n", self.path(stream), self.host());
        head.push_str("Accept: application/json\r\nContent-Type: application/json\r\nUser-Agent: bench/1.0\r\n");
        head.push_str("Authorization: Bearer sk-0000000000000000000000000000000000000000\r\n");
        let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body.into_bytes()].concat()
    }

    fn request_body(self, texts: &[String], stream: bool) -> String {
        let list = |each: &dyn Fn(&str, &str) -> String| {
            let roles = ["user", "assistant"].into_iter().cycle();
            texts.iter().zip(roles).map(|(text, role)| each(role, text)).collect::<Vec<_>>().join(",")
        };
        let messages = || list(&|role, text| format!(r#"{{"role":"{role}","content":"{text}"}}"#));
        match self {
            Self::Chat => format!(
                r#"{{"model":"gpt-4o-mini","messages":[{}],"temperature":0.5,"max_tokens":256,"stream":{stream}}}"#,
                messages()
            ),
            Self::Responses => format!(
                r#"{{"model":"gpt-4o-mini","input":[{}],"temperature":0.5,"max_output_tokens":256,"stream":{stream}}}"#,
                messages()
            ),
            Self::Messages => format!(
                r#"{{"model":"claude-sonnet-4-5","max_tokens":256,"messages":[{}],"temperature":0.5,"stream":{stream}}}"#,
                messages()
            ),
            Self::Gemini => format!(
                r#"{{"contents":[{}],"generationConfig":{{"temperature":0.5,"maxOutputTokens":256}}}}"#,
                list(&|role, text| format!(r#"{{"role":"{role}","parts":[{{"text":"{text}"}}]}}"#))
            ),
            Self::Converse => format!(
                r#"{{"messages":[{}],"inferenceConfig":{{"temperature":0.5,"maxTokens":256}}}}"#,
                list(&|role, text| format!(r#"{{"role":"{role}","content":[{{"text":"{text}"}}]}}"#))
            ),
            Self::Ollama => format!(
                r#"{{"model":"llama3.2","messages":[{}],"options":{{"temperature":0.5,"num_predict":256}},"stream":{stream}}}"#,
                messages()
            ),
            Self::Cohere => format!(
                r#"{{"model":"command-r-08-2024","messages":[{}],"temperature":0.5,"max_tokens":256,"stream":{stream}}}"#,
                messages()
            ),
        }
    }

    /// A whole response that answers `text`.
    pub fn response(self, text: &str) -> Vec<u8> {
        let body = self.response_body(text);
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2035 00:00:00 GMT\r\nContent-Type: application/json\r\n\
             x-request-id: req_0123456789abcdef\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    /// The body of [`Dialect::response`].
    pub fn response_body(self, text: &str) -> String {
        let (input, output) = (INPUT_TOKENS, OUTPUT_TOKENS);
        match self {
            Self::Chat => format!(
                r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4o-mini-2024-07-18","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":46,"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0}}}},"service_tier":"default","system_fingerprint":"fp_44709d6fcb"}}"#
            ),
            Self::Responses => format!(r#"{{{}}}"#, responses_object("completed", text)),
            Self::Messages => format!(
                r#"{{"model":"claude-sonnet-4-5-20250929","id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{input},"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":{output},"service_tier":"standard"}}}}"#
            ),
            Self::Gemini => gemini(text, true),
            Self::Converse => format!(
                r#"{{"metrics":{{"latencyMs":551}},"output":{{"message":{{"content":[{{"text":"{text}"}}],"role":"assistant"}}}},"stopReason":"end_turn","usage":{{"inputTokens":{input},"outputTokens":{output},"totalTokens":46}}}}"#
            ),
            Self::Ollama => ollama(text, true),
            Self::Cohere => format!(
                r#"{{"id":"c14c80c3-18eb-4519-9460-6c92edd8cfb4","message":{{"role":"assistant","content":[{{"type":"text","text":"{text}"}}]}},"finish_reason":"COMPLETE","usage":{{"billed_units":{{"input_tokens":{input},"output_tokens":{output}}},"tokens":{{"input_tokens":{input},"output_tokens":{output}}}}}}}"#
            ),
        }
    }

    /// The head of a streamed response and its writes, an event each.
    pub fn streamed(self, words: &[String]) -> Vec<Vec<u8>> {
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2035 00:00:00 GMT\r\nContent-Type: {}\r\n\
             x-request-id: req_0123456789abcdef\r\nTransfer-Encoding: chunked\r\n\r\n",
            self.stream_type()
        );
        let chunk = |event: Vec<u8>| [format!("{:x}\r\n", event.len()).into_bytes(), event, b"\r\n".to_vec()].concat();
        let mut writes = vec![head.into_bytes()];
        writes.extend(self.events(words).into_iter().map(chunk));
        writes.push(b"0\r\n\r\n".to_vec());
        writes
    }

    /// The events of a stream that says `words`, as they are on the wire.
    pub fn events(self, words: &[String]) -> Vec<Vec<u8>> {
        let sse = |data: String| format!("data: {data}\n\n").into_bytes();
        let named = |name: &str, data: String| format!("event: {name}\ndata: {data}\n\n").into_bytes();
        let (input, output) = (INPUT_TOKENS, OUTPUT_TOKENS);
        let mut events = vec![];
        match self {
            Self::Chat => {
                let event = |choices: String, usage: &str| {
                    sse(format!(
                        r#"{{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{choices}],"usage":{usage}}}"#
                    ))
                };
                let choice = |delta: &str, reason: &str| {
                    format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}"#)
                };
                events.extend(
                    words.iter().map(|word| event(choice(&format!(r#"{{"content":"{word}"}}"#), "null"), "null")),
                );
                events.push(event(choice("{}", r#""stop""#), "null"));
                events.push(event(
                    String::new(),
                    &format!(r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":46}}"#),
                ));
                events.push(sse("[DONE]".to_owned()));
            }
            Self::Responses => {
                let whole = |kind: &str, status: &str, text: &str| {
                    named(
                        kind,
                        format!(
                            r#"{{"type":"{kind}","sequence_number":0,"response":{{{}}}}}"#,
                            responses_object(status, text)
                        ),
                    )
                };
                events.push(whole("response.created", "in_progress", ""));
                events.extend(words.iter().enumerate().map(|(number, word)| {
                    named(
                        "response.output_text.delta",
                        format!(
                            r#"{{"type":"response.output_text.delta","sequence_number":{number},"item_id":"msg_67c9fdcf37fc8190ba82116e33fb28c507b8b0ad4e5eb654","output_index":0,"content_index":0,"delta":"{word}","logprobs":[],"obfuscation":"Xc8Wq1"}}"#
                        ),
                    )
                }));
                events.push(whole("response.completed", "completed", &words.concat()));
            }
            Self::Messages => {
                events.push(named("message_start", format!(r#"{{"type":"message_start","message":{{"model":"claude-sonnet-4-5-20250929","id":"msg_01XFDUDYJgAACzvnptvVoYEL","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{input},"output_tokens":1}}}}}}"#)));
                events.push(named(
                    "content_block_start",
                    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#.to_owned(),
                ));
                events.extend(words.iter().map(|word| {
                    named(
                        "content_block_delta",
                        format!(
                            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{word}"}}}}"#
                        ),
                    )
                }));
                events.push(named("content_block_stop", r#"{"type":"content_block_stop","index":0}"#.to_owned()));
                events.push(named("message_delta", format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{output}}}}}"#)));
                events.push(named("message_stop", r#"{"type":"message_stop"}"#.to_owned()));
            }
            Self::Gemini => {
                let last = words.len().saturating_sub(1);
                events.extend(words.iter().enumerate().map(|(at, word)| sse(gemini(word, at == last))));
            }
            Self::Converse => {
                events.push(aws("messageStart", r#"{"p":"abcd","role":"assistant"}"#));
                events.extend(words.iter().map(|word| {
                    aws(
                        "contentBlockDelta",
                        &format!(r#"{{"contentBlockIndex":0,"delta":{{"text":"{word}"}},"p":"abcdefghijklmnop"}}"#),
                    )
                }));
                events.push(aws("messageStop", r#"{"p":"abcdefg","stopReason":"end_turn"}"#));
                events.push(aws("metadata", &format!(r#"{{"metrics":{{"latencyMs":551}},"p":"ab","usage":{{"inputTokens":{input},"outputTokens":{output},"totalTokens":46}}}}"#)));
            }
            Self::Ollama => {
                events.extend(words.iter().map(|word| (ollama(word, false) + "\n").into_bytes()));
                events.push((ollama("", true) + "\n").into_bytes());
            }
            Self::Cohere => {
                events.push(named(
                    "message-start",
                    r#"{"id":"c14c80c3-18eb-4519-9460-6c92edd8cfb4","type":"message-start","delta":{"message":{"role":"assistant","content":[]}}}"#.to_owned(),
                ));
                events.extend(words.iter().map(|word| {
                    named(
                        "content-delta",
                        format!(
                            r#"{{"type":"content-delta","index":0,"delta":{{"message":{{"content":{{"text":"{word}"}}}}}}}}"#
                        ),
                    )
                }));
                events.push(named("message-end", format!(r#"{{"type":"message-end","delta":{{"finish_reason":"COMPLETE","usage":{{"billed_units":{{"input_tokens":{input},"output_tokens":{output}}},"tokens":{{"input_tokens":{input},"output_tokens":{output}}}}}}}}}"#)));
            }
        }
        events
    }
}

fn responses_object(status: &str, text: &str) -> String {
    let usage = if status == "completed" {
        format!(
            r#"{{"input_tokens":{INPUT_TOKENS},"input_tokens_details":{{"cached_tokens":0}},"output_tokens":{OUTPUT_TOKENS},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":46}}"#
        )
    } else {
        "null".to_owned()
    };
    format!(
        r#""id":"resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b","object":"response","created_at":1741476542,"status":"{status}","error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":256,"model":"gpt-4o-mini-2024-07-18","output":[{{"type":"message","id":"msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d3795b","status":"{status}","role":"assistant","content":[{{"type":"output_text","text":"{text}","annotations":[]}}]}}],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{{"effort":null,"summary":null}},"store":true,"temperature":0.5,"text":{{"format":{{"type":"text"}}}},"tool_choice":"auto","tools":[],"top_p":1.0,"truncation":"disabled","usage":{usage},"user":null,"metadata":{{}}"#
    )
}

fn gemini(text: &str, last: bool) -> String {
    let reason = if last { r#","finishReason":"STOP""# } else { "" };
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}}{reason},"index":0}}],"usageMetadata":{{"promptTokenCount":{INPUT_TOKENS},"candidatesTokenCount":{OUTPUT_TOKENS},"totalTokenCount":46,"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{INPUT_TOKENS}}}]}},"modelVersion":"gemini-2.5-flash","responseId":"Q2xhaXJlIG5vdA"}}"#
    )
}

fn ollama(text: &str, done: bool) -> String {
    let end = if done {
        format!(
            r#""done_reason":"stop","done":true,"total_duration":4883583458,"load_duration":1334875,"prompt_eval_count":{INPUT_TOKENS},"prompt_eval_duration":342546000,"eval_count":{OUTPUT_TOKENS},"eval_duration":4535599000"#
        )
    } else {
        r#""done":false"#.to_owned()
    };
    format!(
        r#"{{"model":"llama3.2","created_at":"2035-01-01T00:00:00.000000000Z","message":{{"role":"assistant","content":"{text}"}},{end}}}"#
    )
}

/// A message of an AWS event stream.
fn aws(kind: &str, payload: &str) -> Vec<u8> {
    let mut headers = vec![];
    for (name, value) in [(":event-type", kind), (":content-type", "application/json"), (":message-type", "event")] {
        headers.push(name.len() as u8);
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let checksum = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_be_bytes()
    };
    let mut message = ((16 + headers.len() + payload.len()) as u32).to_be_bytes().to_vec();
    message.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    message.extend_from_slice(&checksum(&message));
    message.extend_from_slice(&headers);
    message.extend_from_slice(payload.as_bytes());
    message.extend_from_slice(&checksum(&message));
    message
}
