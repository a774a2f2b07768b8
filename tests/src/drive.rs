//! Python clients that send prepared requests in the ways that `clients/drive.py` knows.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use agentsight::demo::clients::Sending;
use serde_json::{Value, json};

use crate::{live::Live, program::root};

/// A running client.
pub struct Drive {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Drive {
    /// Starts a client that sends the requests of each of `connections` over a connection of its own,
    /// every request in `pieces` writes.
    pub fn start(live: &Live, mode: &str, connections: &[&[Sending]], pieces: usize) -> Self {
        let job = |sending: &Sending| {
            let script = &sending.script;
            let file = live.folder.path().join(format!("{}.request", sending.trace.trace_id));
            let request = script.request_bytes(&[("traceparent", &sending.trace.header())]);
            fs::write(&file, request).expect("the request is written");
            json!({"id": script.id, "host": script.request.host, "request": file, "pieces": pieces})
        };
        let connections: Vec<Vec<Value>> =
            connections.iter().map(|sendings| sendings.iter().map(job).collect()).collect();
        let address = live.mock.address();
        let plan = json!({"address": address.ip(), "port": address.port(), "ca": live.mock.ca_pem(), "mode": mode,
            "connections": connections});
        let file = live.folder.path().join(format!("{mode}.plan"));
        fs::write(&file, plan.to_string()).expect("the plan is written");
        let mut child = Command::new("python3")
            .arg(root().join("tests/clients/drive.py"))
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, lines }
    }

    /// The client's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that the client prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("the client's output");
        line.trim_end().to_owned()
    }

    /// Reads what the client prints until the line `mark`.
    pub fn wait_for(&mut self, mark: &str) {
        loop {
            let line = self.line();
            assert_ne!(line, "", "the client ended before it printed {mark:?}");
            if line == mark {
                return;
            }
        }
    }

    /// Lets a client that waits for it go on.
    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().expect("stdin is a pipe").write_all(b"go\n").expect("the client reads its input");
    }

    /// Waits for the client's end and returns what else it printed.
    pub fn finish(mut self) -> Vec<Value> {
        let rest: Vec<String> = (&mut self.lines).lines().map(|line| line.expect("the client's output")).collect();
        let status = self.child.wait().expect("the client can be waited for");
        assert!(status.success(), "the client failed: {status}");
        rest.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))).collect()
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        // After `finish` both fail, and nothing is owed to a test that has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends everything in the given mode and requires that the client got the replies that the mock has.
pub fn send(live: &Live, mode: &str, connections: &[&[Sending]], pieces: usize) {
    let outcomes = Drive::start(live, mode, connections, pieces).finish();
    let mut sendings: Vec<&Sending> = connections.iter().copied().flatten().collect();
    assert_eq!(outcomes.len(), sendings.len(), "replies");
    for outcome in outcomes {
        let position = sendings.iter().position(|sending| outcome["id"] == json!(sending.script.id));
        let sending = sendings.swap_remove(position.expect("a reply to what was sent"));
        assert_eq!(outcome["status"], json!(sending.script.reply.status), "{}", sending.script.id);
    }
}
