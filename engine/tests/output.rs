//! What an exchange looks like as attributes and as lines.

#![recursion_limit = "256"]

mod support;

use std::{
    collections::HashSet,
    io::{self, ErrorKind, Write},
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

use agentsight::{
    exchange::{Call, Exchange, Process, Role, Value},
    metrics::{Cause, Metrics, Total},
    network::{End, Network},
    output::{Lines, Style},
    semconv,
};
use support::{exchange, exchange_with};

/// A call in which nothing is absent.
fn full<'a>(_: Call<'a>) -> Call<'a> {
    Call {
        operation: "chat",
        provider: "openai",
        server_address: Some("api.openai.com"),
        server_port: Some(443),
        request_model: Some("gpt-4o"),
        max_tokens: Some(256),
        temperature: Some(0.25),
        top_p: Some(1.0),
        top_k: Some(40),
        frequency_penalty: Some(-0.5),
        presence_penalty: Some(1e-7),
        seed: Some(-7),
        choice_count: Some(2),
        stop_sequences: Some(&["\n", "END"]),
        encoding_formats: Some(&["float"]),
        dimension_count: Some(1024),
        output_type: Some("json"),
        stream: true,
        stream_cursor: Some(3),
        reasoning_level: Some("high"),
        previous_response_id: Some("resp_0"),
        conversation_id: Some("conv_1"),
        conversation_compacted: true,
        prompt_name: Some("greeting"),
        prompt_version: Some("2"),
        openai_api_type: Some("responses"),
        openai_request_service_tier: Some("flex"),
        openai_response_service_tier: Some("default"),
        openai_system_fingerprint: Some("fp_1"),
        bedrock_guardrail_id: Some("guard"),
        bedrock_knowledge_base_id: Some("knowledge"),
        azure_namespace: Some("Microsoft.CognitiveServices"),
        response_id: Some("resp_1"),
        response_model: Some("gpt-4o-2024-11-20"),
        response_status: Some("completed"),
        finish_reasons: Some(&["stop", "length"]),
        input_tokens: Some(1234),
        output_tokens: Some(567),
        cache_read_tokens: Some(1000),
        cache_creation_tokens: Some(0),
        reasoning_tokens: Some(99),
        status_code: Some(200),
        error_type: Some("server_error"),
        trace_state: Some("a=1"),
        input_messages: Some(r#"[{"role":"user","parts":[{"type":"text","content":"Hi \"there\""}]}]"#),
        output_messages: Some("[]"),
        system_instructions: Some("[1]"),
        tool_definitions: Some("[2]"),
        content_withheld: false,
    }
}
/// An exchange in which nothing is absent.
fn everything() -> Exchange {
    let mut exchange = exchange_with(0, Box::default(), full);
    exchange.role = Role::Server;
    exchange.trace.parent_span_id = Some([0xab; 8]);
    exchange.first_chunk_nano = Some(321_000_000);
    exchange.incomplete = true;
    exchange.lost_bytes = 17;
    exchange.process = Arc::new(Process {
        pid: 42,
        executable: Some("python3".to_owned()),
        container_id: Some("c0ffee".to_owned()),
        ..Process::default()
    });
    exchange
}

fn keys(exchange: &Exchange) -> Vec<&'static str> {
    let mut keys = Vec::new();
    exchange.attributes(&mut |key, _| keys.push(key));
    keys
}

/// What is written for `exchanges`.
fn written(style: Style, exchanges: &[Exchange]) -> String {
    let out = Arc::new(Mutex::new(Vec::new()));
    let metrics = Arc::new(Metrics::default());
    let mut lines = Lines::new(style, Box::new(Shared(Arc::clone(&out))), Arc::clone(&metrics)).unwrap();
    for exchange in exchanges {
        lines.write(exchange);
    }
    lines.finish(LIMIT);
    assert_eq!(metrics.total(Total::Lines), exchanges.len() as u64);
    assert_eq!(metrics.all_losses().count(), 0);
    let out = out.lock().unwrap().clone();
    String::from_utf8(out).unwrap()
}

const LIMIT: Duration = Duration::from_secs(10);

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_attribute_has_its_place() {
    let mut exchange = exchange_with(0, Box::default(), |call| Call { content_withheld: true, ..full(call) });
    let everything = everything();
    exchange.role = everything.role;
    exchange.first_chunk_nano = everything.first_chunk_nano;
    exchange.lost_bytes = everything.lost_bytes;
    exchange.network = Arc::new(Network {
        peer: Some(End { address: "10.0.0.7".to_owned(), port: Some(50_000) }),
        ..Network::default()
    });
    let mut process = Process {
        pid: 42,
        executable: Some("python3".to_owned()),
        container_id: Some("c0ffee".to_owned()),
        container_name: Some("web".to_owned()),
        ..Process::default()
    };
    exchange.process = Arc::new(process.clone());
    let outside_of_pods: HashSet<_> = keys(&exchange).into_iter().collect();
    process.pod_uid = Some("4f1c".to_owned());
    process.pod_name = Some("web-0".to_owned());
    process.pod_namespace = Some("shop".to_owned());
    exchange.process = Arc::new(process);
    let keys = keys(&exchange);
    let distinct: HashSet<_> = keys.iter().copied().collect();
    assert_eq!(distinct.len(), keys.len(), "none twice");
    let resource = ["service.", "host.", "os.", "telemetry."];
    let expected: HashSet<_> =
        semconv::ALL.iter().copied().filter(|name| !resource.iter().any(|prefix| name.starts_with(prefix))).collect();
    assert_eq!(&distinct | &outside_of_pods, expected);
    assert!(outside_of_pods.contains("container.name") && !distinct.contains("container.name"));
}

#[test]
fn what_is_absent_is_not_shown() {
    let mut exchange = exchange_with(0, Box::default(), |_| Call {
        operation: "embeddings",
        provider: "localhost",
        ..Call::default()
    });
    exchange.process = Arc::new(Process { pid: 1, ..Process::default() });
    assert_eq!(keys(&exchange), ["gen_ai.operation.name", "gen_ai.provider.name", "process.pid", "thread.id"]);
    let mut name = "old".to_owned();
    exchange.name(&mut name);
    assert_eq!(name, "embeddings");
}

#[test]
fn lost_bytes_mean_incomplete_and_huge_numbers_do_not_wrap() {
    let mut exchange = exchange(0);
    exchange.lost_bytes = u64::MAX;
    let mut found = Vec::new();
    exchange.attributes(&mut |key, value| {
        if key.starts_with("agentsight.") {
            found.push((key, format!("{value:?}")));
        }
    });
    let most = format!("{:?}", Value::Int(i64::MAX));
    assert_eq!(
        found,
        [("agentsight.capture.incomplete", "Bool(true)".to_owned()), ("agentsight.capture.lost_bytes", most)]
    );
}

#[test]
fn json_has_everything() {
    let text = written(Style::Json, &[everything(), exchange(5)]);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!({
        "name": "chat gpt-4o",
        "kind": "SERVER",
        "trace_id": "00000000000000000000000000000001",
        "span_id": "0000000000000001",
        "parent_span_id": "abababababababab",
        "start_unix_nano": 1_700_000_000_000_000_000_u64,
        "end_unix_nano": 1_700_000_001_234_567_890_u64,
        "status": "ERROR",
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "server.address": "api.openai.com",
            "server.port": 443,
            "gen_ai.request.stream": true,
            "gen_ai.request.stream_cursor": 3,
            "gen_ai.request.max_tokens": 256,
            "gen_ai.request.temperature": 0.25,
            "gen_ai.request.top_p": 1.0,
            "gen_ai.request.top_k": 40,
            "gen_ai.request.frequency_penalty": -0.5,
            "gen_ai.request.presence_penalty": 1e-7,
            "gen_ai.request.seed": -7,
            "gen_ai.request.choice.count": 2,
            "gen_ai.request.stop_sequences": ["\n", "END"],
            "gen_ai.request.encoding_formats": ["float"],
            "gen_ai.embeddings.dimension.count": 1024,
            "gen_ai.output.type": "json",
            "gen_ai.request.reasoning.level": "high",
            "gen_ai.request.previous_response.id": "resp_0",
            "gen_ai.conversation.id": "conv_1",
            "gen_ai.conversation.compacted": true,
            "gen_ai.prompt.name": "greeting",
            "gen_ai.prompt.version": "2",
            "openai.api.type": "responses",
            "openai.request.service_tier": "flex",
            "aws.bedrock.guardrail.id": "guard",
            "aws.bedrock.knowledge_base.id": "knowledge",
            "azure.resource_provider.namespace": "Microsoft.CognitiveServices",
            "gen_ai.response.id": "resp_1",
            "gen_ai.response.model": "gpt-4o-2024-11-20",
            "gen_ai.response.status": "completed",
            "gen_ai.response.finish_reasons": ["stop", "length"],
            "gen_ai.usage.input_tokens": 1234,
            "gen_ai.usage.output_tokens": 567,
            "gen_ai.usage.cache_read.input_tokens": 1000,
            "gen_ai.usage.cache_creation.input_tokens": 0,
            "gen_ai.usage.reasoning.output_tokens": 99,
            "openai.response.service_tier": "default",
            "openai.response.system_fingerprint": "fp_1",
            "http.response.status_code": 200,
            "error.type": "server_error",
            "gen_ai.input.messages": r#"[{"role":"user","parts":[{"type":"text","content":"Hi \"there\""}]}]"#,
            "gen_ai.output.messages": "[]",
            "gen_ai.system_instructions": "[1]",
            "gen_ai.tool.definitions": "[2]",
            "gen_ai.response.time_to_first_chunk": 0.321,
            "process.pid": 42,
            "thread.id": 43,
            "process.executable.name": "python3",
            "container.id": "c0ffee",
            "agentsight.capture.incomplete": true,
            "agentsight.capture.lost_bytes": 17,
        },
    });
    assert_eq!(lines[0], expected);
    assert_eq!((&lines[1]["status"], &lines[1]["kind"]), (&"UNSET".into(), &"CLIENT".into()));
    assert!(lines[1].get("parent_span_id").is_none());
}

#[test]
fn readable_lines_are_aligned() {
    let mut slow = exchange_with(3_600_000_000_000, Box::default(), |_| Call {
        operation: "generate_content",
        provider: "gcp.gemini",
        request_model: Some("gemini-2.0-flash"),
        status_code: Some(429),
        error_type: Some("RESOURCE_EXHAUSTED"),
        ..Call::default()
    });
    slow.end_unix_nano += 100_000_000_000;
    let text = written(Style::Readable { colour: false }, &[everything(), exchange(0), slow]);
    let expected = [
        "22:13:20.000Z  python3[42]             openai            chat gpt-4o-2024-11-20                      1234  in      567  out     0.32s  first     1.23s  200 server_error  incomplete",
        "22:13:20.000Z  python3[42]             openai            chat gpt-4o-mini-2024-07-18                   12  in       34  out         -  first     1.23s  200",
        "23:13:20.000Z  python3[42]             gcp.gemini        generate_content gemini-2.0-flash              -  in        -  out         -  first   101.23s  429 RESOURCE_EXHAUSTED",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn colours_add_nothing_but_colours() {
    let plain = written(Style::Readable { colour: false }, &[everything()]);
    let coloured = written(Style::Readable { colour: true }, &[everything()]);
    assert!(coloured.contains("\x1b[31m200 server_error\x1b[0m"), "{coloured:?}");
    let mut stripped = String::new();
    let mut escape = false;
    for letter in coloured.chars() {
        match letter {
            '\x1b' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            _ => stripped.push(letter),
        }
    }
    assert_eq!(stripped, plain);
}

#[test]
fn the_wire_can_not_steer_the_terminal() {
    let hostile = exchange_with(0, Box::default(), |call| Call {
        request_model: Some("a\x1b]0;owned\x07\n\u{202e}b"),
        response_model: None,
        ..call
    });
    let text = written(Style::Readable { colour: false }, &[hostile]);
    assert_eq!(text.lines().count(), 1);
    assert!(!text.trim_end().chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{text:?}");
    assert!(text.contains("chat a\u{fffd}]0;owned\u{fffd}\u{fffd}\u{fffd}b"), "{text:?}");
}

#[test]
fn a_reader_that_leaves_ends_the_lines() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let metrics = Arc::new(Metrics::default());
    let mut lines = Lines::new(Style::Json, Box::new(Gone), Arc::clone(&metrics)).unwrap();
    let broken = lines.broken();
    lines.write(&exchange(0));
    lines.flush();
    let begun = Instant::now();
    while !broken.load(Ordering::Relaxed) {
        assert!(begun.elapsed() < LIMIT);
        thread::yield_now();
    }
    lines.write(&exchange(1));
    lines.finish(LIMIT);
    assert_eq!((metrics.total(Total::Lines), metrics.all_losses().count()), (0, 0));
}

#[test]
fn a_reader_that_stops_holds_nothing_up() {
    /// Takes one write and then waits to be let go.
    struct Stuck(mpsc::Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    const LINES: u64 = 40_000;
    let (let_go, stuck) = mpsc::channel();
    let metrics = Arc::new(Metrics::default());
    let mut lines = Lines::new(Style::Json, Box::new(Stuck(stuck)), Arc::clone(&metrics)).unwrap();
    let begun = Instant::now();
    let exchange = exchange(0);
    for _ in 0..LINES {
        lines.write(&exchange);
    }
    let dropped = metrics.losses(Cause::OutputBehind);
    assert!(dropped > LINES / 2 && dropped < LINES, "some had room: {dropped}");
    lines.finish(Duration::from_millis(50));
    assert!(begun.elapsed() < LIMIT);
    assert_eq!(metrics.losses(Cause::OutputBehind), LINES, "none was written");
    drop(let_go);
}
