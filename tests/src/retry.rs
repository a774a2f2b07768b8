//! The C client `clients/retry.c`, built by the tests that use it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use agentsight::demo::clients::Sending;

use crate::{gate::skip, live::Live, program::root};

/// What the client tells of one exchange.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The address of the SSL object.
    pub ssl: String,
    /// Calls that had to be made again.
    pub retries: u64,
    /// Writes that took only a part of what they were given.
    pub partial_writes: u64,
}

/// Builds the client into `folder`; none where there is no C compiler or no libssl to link with.
pub fn build(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("retry");
    let output = Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-o"])
        .arg(&program)
        .arg(root().join("tests/clients/retry.c"))
        // By their full names, which exist without the development packages.
        .args(["-l:libssl.so.3", "-l:libcrypto.so.3"])
        .output();
    match output {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            skip(&format!("the C client does not build: {}", String::from_utf8_lossy(&output.stderr)));
            None
        }
        Err(error) => {
            skip(&format!("no C compiler: {error}"));
            None
        }
    }
}

/// Sends everything with the client in `mode`, each over a connection of its own, and requires the
/// mock's replies.
pub fn send(live: &Live, program: &Path, mode: &str, sendings: &[Sending]) -> Vec<Outcome> {
    let file = |sending: &Sending| {
        let file = live.folder.path().join(format!("{}.request", sending.trace.trace_id));
        let added = [("traceparent", sending.trace.header()), ("connection", "close".to_owned())];
        let request = sending.script.request_bytes(&added.each_ref().map(|(name, value)| (*name, value.as_str())));
        fs::write(&file, request).expect("the request is written");
        file
    };
    let output = Command::new(program)
        .arg(mode)
        .arg(live.mock.address().port().to_string())
        .args(sendings.iter().map(file))
        .output()
        .expect("the client starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{mode}: {}\n{}", stdout, String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), sendings.len(), "{mode}: replies");
    let outcome = |(line, sending): (&&str, &Sending)| {
        let words: Vec<&str> = line.split(' ').collect();
        let [status, bytes, ssl, retries, partial_writes] = words[..] else { panic!("{mode}: {line}") };
        let reply = &sending.script.reply;
        assert_eq!(status, reply.status.to_string(), "{mode}");
        let expected: usize = reply.writes().iter().map(Vec::len).sum();
        assert_eq!(bytes, expected.to_string(), "{mode}: bytes of the reply");
        let number = |text: &str| text.parse().expect("a number");
        Outcome { ssl: ssl.to_owned(), retries: number(retries), partial_writes: number(partial_writes) }
    };
    lines.iter().zip(sendings).map(outcome).collect()
}
