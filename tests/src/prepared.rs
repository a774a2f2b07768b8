//! Clients that send prepared bytes in ways of their own, and the verdict on their spans alone.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use agentsight::demo::clients::Sending;
use serde_json::{Value, json};

use crate::{
    engine::{Engine, Finished, KIND_SERVER},
    live::{Live, judge, wait_for},
    program::root,
};

/// Runs a client of `tests/clients`, by `command` and the client's path, that gets its plan on stdin.
pub fn run(command: &[&str], client: &str, plan: &Value) {
    let (program, arguments) = command.split_first().expect("a program");
    let mut child = Command::new(program)
        .args(arguments)
        .arg(root().join("tests/clients").join(client))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().expect("stdin is a pipe").write_all(plan.to_string().as_bytes()).expect("the client reads");
    let status = child.wait().expect("the client can be waited for");
    assert!(status.success(), "{client}: {status}");
}

/// What the clients are told: where the mock is, and each request and reply as bytes in a file.
pub fn plan(live: &Live, mode: &str, sendings: &[Sending]) -> Value {
    let file = |name: String, bytes: &[u8]| {
        let path = live.folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let jobs: Vec<Value> = sendings
        .iter()
        .map(|Sending { script, trace }| {
            let request = script.request_bytes(&[("traceparent", &trace.header())]);
            let reply = script.reply.writes().concat();
            let mut headers: serde_json::Map<String, Value> =
                script.request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
            headers.insert("traceparent".into(), json!(trace.header()));
            headers.insert("x-demo-id".into(), json!(script.id));
            headers.insert("host".into(), json!(script.request.host));
            json!({"id": script.id, "method": script.request.method, "path": script.request.path, "headers": headers,
                "body": file(format!("{}.body", script.id), &script.request.body),
                "request": file(format!("{}.request", script.id), &request),
                "reply": file(format!("{}.reply", script.id), &reply), "reply_size": reply.len()})
        })
        .collect();
    let address = live.mock.address();
    json!({"mode": mode, "address": address.ip(), "port": address.port(), "jobs": jobs})
}

/// Waits for one right span for each of `sendings`. What others on this machine say over plain sockets is
/// captured too, so nothing is asked of the counters.
pub fn conclude(engine: Engine, sendings: &[Sending]) -> Finished {
    wait_for(&engine, sendings);
    let finished = engine.stop();
    let own: Vec<_> = finished
        .spans()
        .into_iter()
        .filter(|span| span.kind != KIND_SERVER && sendings.iter().any(|own| own.trace.trace_id == span.trace_id))
        .collect();
    judge(&own, sendings);
    assert!(finished.status.success(), "{:?}\n{}", finished.status, finished.stderr);
    finished
}
