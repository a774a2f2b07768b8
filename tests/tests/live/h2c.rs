//! HTTP/2 without TLS by curl and a server of Python's h2: after an upgrade of HTTP/1.1, and by prior knowledge.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agentsight::demo::{
    clients::Sending,
    script::Script,
    talk::{Dialect, Failure, Talk},
};
use agentsight_tests::{
    engine::KIND_SERVER,
    http2::python,
    live::{Live, large, mixed},
    prepared::conclude,
    program::root,
};
use serde_json::json;

/// `clients/h2c.py`, which answers as the scripts of `sendings` say.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(python: &Path, sendings: &[Sending], folder: &Path) -> Self {
        let reply = |Sending { script, .. }: &Sending| {
            let reply = &script.reply;
            let pieces: Vec<_> = reply.pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect();
            (script.id.clone(), json!({"status": reply.status, "content_type": reply.content_type, "pieces": pieces}))
        };
        let plan = folder.join("h2c.plan");
        fs::write(&plan, json!(sendings.iter().map(reply).collect::<BTreeMap<_, _>>()).to_string()).unwrap();
        let mut child = Command::new(python)
            .arg(root().join("tests/clients/h2c.py"))
            .arg(plan)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends everything with one curl, over one connection where `option` allows it, and requires that all was
/// answered over HTTP/2.
fn curl(option: &str, port: u16, sendings: &[Sending], folder: &Path) {
    let mut config = String::new();
    for (index, Sending { script, trace }) in sendings.iter().enumerate() {
        let body = folder.join(format!("{}.body", script.id));
        fs::write(&body, &script.request.body).unwrap();
        let own = script.request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let traceparent = trace.header();
        let added = [("traceparent", &*traceparent), ("x-demo-id", &script.id)];
        let headers: String = own.chain(added).map(|(name, value)| format!("header = \"{name}: {value}\"\n")).collect();
        config += &format!(
            "{next}url = \"http://{host}{path}\"\nconnect-to = \"::127.0.0.1:{port}\"\nnoproxy = \"*\"\n{option}\n{headers}\
             data-binary = \"@{body}\"\noutput = \"/dev/null\"\nwrite-out = \"%{{response_code}} %{{http_version}}\\n\"\n\
             silent\nmax-time = 60\n",
            next = if index > 0 { "next\n" } else { "" },
            host = script.request.host,
            path = script.request.path,
            body = body.display(),
        );
    }
    let mut child =
        Command::new("curl").args(["-q", "-K", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let answers: Vec<_> = sendings.iter().map(|Sending { script, .. }| format!("{} 2", script.reply.status)).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), answers, "{option}");
}

/// Plain and streamed calls, a refused one, and those whose request needs many frames.
fn scripts(prefix: &str) -> Vec<Script> {
    let failure = Failure::Refused { status: 429, kind: "requests", code: Some("rate_limit_exceeded") };
    let refused = Talk { failure: Some(failure), ..Talk::numbered(Dialect::Chat, 20) };
    let refused = Script::new(format!("{prefix}-refused"), "", &refused);
    mixed(prefix, 20)
        .into_iter()
        .chain([refused])
        .chain(large(&format!("{prefix}-large")).into_iter().take(2))
        .collect()
}

/// A CLIENT and a SERVER span for each, with the numbers of the exchange.
fn check(prefix: &str, send: impl FnOnce(u16, &[Sending], &Path)) {
    let Some(live) = Live::begin() else { return };
    let Some(python) = python() else { return };
    let sendings: Vec<Sending> = scripts(prefix).iter().map(Sending::of).collect();
    let server = Server::start(&python, &sendings, live.folder.path());
    let engine = live.engine(&["--role", "both"]);
    send(server.port, &sendings, live.folder.path());
    let of = |sending: &Sending, span: &agentsight::demo::receiver::Span| span.trace_id == sending.trace.trace_id;
    engine.wait_for_spans(Duration::from_secs(15), |spans| {
        sendings.iter().all(|sending| spans.iter().filter(|span| of(sending, span)).count() == 2)
    });
    let spans = conclude(engine, &sendings).spans();
    for sending in &sendings {
        let served: Vec<_> = spans.iter().filter(|span| span.kind == KIND_SERVER && of(sending, span)).collect();
        let [span] = served[..] else { panic!("{}: {served:#?}", sending.script.id) };
        assert_eq!((&span.name, &span.parent_span_id), (&sending.script.expected.name, &sending.trace.parent_id));
        for (name, value) in sending.script.expected.attributes.iter().filter(|(name, _)| name.contains("usage")) {
            assert_eq!(span.attributes.get(*name).unwrap_or(&json!(null)), value, "{name} of {span:#?}");
        }
        assert_eq!(span.attributes["server.port"], server.port);
        assert!(!span.attributes.contains_key("agentsight.capture.incomplete"), "{span:#?}");
    }
}

/// The first call to each host upgrades its connection, and is answered as stream 1.
#[test]
fn a_connection_that_curl_upgrades() {
    check("upgrade", |port, sendings, folder| curl("http2", port, sendings, folder));
}

#[test]
fn connections_of_curl_with_prior_knowledge() {
    check("prior", |port, sendings, folder| {
        // curl 7.88 can't use such a connection for a second transfer that waited for the first.
        sendings.iter().for_each(|sending| {
            curl("http2-prior-knowledge", port, std::slice::from_ref(sending), folder);
        });
    });
}
