//! The matrix: the same forty calls by one client after the other.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agentsight::demo::{
    clients::Sending,
    receiver::Span,
    script::Script,
    talk::{Dialect, Failure, Talk},
};
use serde_json::{Value, json};

use crate::{
    live::{Live, mixed},
    program::{agentsight, root},
};

/// The calls: plain and streamed ones of every API, errors, and requests of more than 300 KiB.
pub fn calls(row: &str) -> Vec<Script> {
    let mut scripts = mixed(row, 32);
    for number in 32..36 {
        let failure = Failure::Refused { status: 429, kind: "requests", code: Some("rate_limit_exceeded") };
        let talk = Talk { failure: Some(failure), ..Talk::numbered(Dialect::Chat, number) };
        scripts.push(Script::new(format!("{row}-{number}"), "", &talk));
    }
    for number in 36..40 {
        let talk = Talk { prompt: "lorem ".repeat(53_000), ..Talk::numbered(Dialect::Messages, number) };
        scripts.push(Script::new(format!("{row}-{number}"), "", &talk));
    }
    scripts
}

/// Connections of the plan.
pub const CONNECTIONS: usize = 8;

/// The plan of the calls at the mock, eight connections with five each: the same kind of call is on none
/// of them twice in a row.
pub fn plan(live: &Live, sendings: &[Sending]) -> Value {
    let call = |sending: &Sending| {
        let request = &sending.script.request;
        let body = live.folder.path().join(format!("{}.body", sending.script.id));
        fs::write(&body, &request.body).expect("the body is written");
        let mut headers: serde_json::Map<String, Value> =
            request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        headers.insert("traceparent".to_owned(), json!(sending.trace.header()));
        headers.insert("x-demo-id".to_owned(), json!(sending.script.id));
        let reply: usize = sending.script.reply.pieces.iter().map(Vec::len).sum();
        json!({"id": sending.script.id, "host": request.host, "path": request.path, "headers": headers, "body": body,
            "reply_bytes": reply})
    };
    let connections: Vec<Vec<Value>> =
        (0..CONNECTIONS).map(|index| sendings.iter().skip(index).step_by(CONNECTIONS).map(call).collect()).collect();
    let nssdb = live.folder.path().join("nssdb");
    let address = live.mock.address();
    json!({"address": address.ip(), "port": address.port(), "ca": live.mock.ca_pem(), "nssdb": nssdb,
        "connections": connections})
}

/// How calls are spread over addresses of the peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Each connection has its own.
    Connections,
    /// Each host of requests, for a client that chooses connections by that.
    Hosts,
}

/// Gives each call of the plan one of `addresses`.
pub fn spread(plan: &mut Value, addresses: &[SocketAddr], spread: Spread) {
    let mut hosts = HashMap::new();
    for (index, calls) in plan["connections"].as_array_mut().into_iter().flatten().enumerate() {
        for call in calls.as_array_mut().into_iter().flatten() {
            let unseen = hosts.len();
            let host = *hosts.entry(call["host"].to_string()).or_insert(unseen);
            let address = addresses[if spread == Spread::Hosts { host } else { index }];
            call["address"] = json!(address.ip());
            call["port"] = json!(address.port());
        }
    }
}

/// Requires that the spans of the plan's calls tell the addresses that they went to. Of the first calls of each
/// connection, as many as are `ambiguous`, they may tell none.
pub fn judge_addresses(spans: &[Span], plan: &Value, sendings: &[Sending], ambiguous: usize) {
    let mut faults = vec![];
    let connections = plan["connections"].as_array().into_iter().flatten();
    for (index, call) in connections.flat_map(|calls| calls.as_array().into_iter().flatten().enumerate()) {
        let sending = sendings.iter().find(|sending| call["id"] == json!(sending.script.id)).expect("its sending");
        let span = spans.iter().find(|span| span.trace_id == sending.trace.trace_id).expect("its span");
        let part = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
        let told = [part("network.peer.address"), part("network.peer.port")];
        let expected = ["address", "port"].map(|part| call.get(part).unwrap_or(&plan[part]).clone());
        let is_allowed = told == expected || index < ambiguous && told == [Value::Null, Value::Null];
        if !is_allowed {
            faults.push(format!("{}: {told:?}, not {expected:?}", sending.script.id));
        }
    }
    assert!(faults.is_empty(), "{} wrong addresses of {}:\n{}", faults.len(), sendings.len(), faults.join("\n"));
}

/// Runs a client over the plan and requires that every call was answered as the mock was to.
pub fn run(live: &Live, mut client: Command, plan: &Value, sendings: &[Sending]) {
    let file = live.folder.path().join("matrix.plan");
    fs::write(&file, plan.to_string()).expect("the plan is written");
    let output = client.arg(file).stdin(Stdio::null()).output().expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{client:?}: {}\n{told}", output.status);
    let answers: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for Sending { script, .. } in sendings {
        let answered = answers.iter().filter(|answer| answer["id"] == json!(script.id)).collect::<Vec<_>>();
        assert!(
            matches!(answered[..], [answer] if answer["status"] == json!(script.reply.status)),
            "{}: {answered:?}\n{told}",
            script.id
        );
    }
}

/// `tests/clients/matrix.py` as `client`, by this Python.
pub fn python(python: &Path, client: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(root().join("tests/clients/matrix.py")).arg(client);
    command
}

/// `tests/clients/matrix.mjs` as `client`, by this program.
pub fn script(program: &Path, client: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(root().join("tests/clients/matrix.mjs")).arg(client);
    command
}

/// A Python with these packages of PyPI, in a folder that is kept beside the build; none when it can't
/// be had.
pub fn python_with(packages: &[&str]) -> Option<PathBuf> {
    let venv = agentsight().ancestors().nth(2)?.join(format!("venv-matrix-{}", packages.join("-")));
    let python = venv.join("bin/python3");
    let done = venv.join("installed");
    if !done.exists() {
        let succeeds = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let made = succeeds(Command::new("python3").args(["-m", "venv"]).arg(&venv))
            && succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages));
        if !made {
            return None;
        }
        fs::write(&done, "").ok()?;
    }
    Some(python)
}

/// The executable of a version of bun from npm, in a folder that is kept beside the build; none when it
/// can't be had.
pub fn bun(version: &str) -> Option<PathBuf> {
    of_npm("@oven/bun-linux-x64", version, "bin/bun")
}

/// The same of Deno.
pub fn deno(version: &str) -> Option<PathBuf> {
    of_npm("@deno/linux-x64-glibc", version, "deno")
}

/// A program of a package of npm.
fn of_npm(package: &str, version: &str, program: &str) -> Option<PathBuf> {
    let (_, name) = package.split_once('/')?;
    let folder = agentsight().ancestors().nth(2)?.join(format!("npm-{name}-{version}"));
    let program = folder.join("node_modules").join(package).join(program);
    if !program.exists() {
        fs::create_dir_all(&folder).ok()?;
        let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        let package = format!("{package}@{version}");
        let status = Command::new("npm").args(install).arg(&folder).arg(package).status().ok()?;
        if !status.success() {
            return None;
        }
    }
    program.exists().then_some(program)
}

/// libcrypto and libssl of a version of OpenSSL, as the wheel of a release of psycopg2-binary for this
/// version of Python has them, in a folder that is kept beside the build; none when it can't be had.
pub fn libssl(release: &str, python: &str) -> Option<[PathBuf; 2]> {
    let folder = agentsight().ancestors().nth(2)?.join(format!("libssl-{release}"));
    let find = |name: &str| {
        let folders = ["psycopg2_binary.libs", "psycopg2/.libs"].map(|libraries| folder.join(libraries));
        let mut files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        files.find(|file| file.file_name().to_string_lossy().starts_with(name)).map(|file| file.path())
    };
    if find("libssl").is_none() {
        let options = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"];
        let platforms = ["manylinux1_x86_64", "manylinux_2_17_x86_64"].map(|platform| format!("--platform={platform}"));
        let status = Command::new(python_with(&["requests"])?)
            .args(options)
            .arg(&folder)
            .args(platforms)
            .args([format!("--python-version={python}"), format!("psycopg2-binary=={release}")])
            .status()
            .ok()?;
        if !status.success() {
            return None;
        }
    }
    Some([find("libcrypto")?, find("libssl")?])
}

/// What `matrix.py` calls of OpenSSL's functions.
const CALLED: [&str; 12] = [
    "TLS_client_method",
    "SSL_CTX_new",
    "SSL_new",
    "SSL_set_fd",
    "SSL_ctrl",
    "SSL_connect",
    "SSL_write",
    "SSL_write_ex",
    "SSL_read",
    "SSL_read_ex",
    "SSL_shutdown",
    "SSL_free",
];

/// A library made of this machine's static libssl and libcrypto, that has no symbols of them but some
/// of other names, which begin with `prefix`; none where they can't be had.
pub fn hidden_libssl(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let (library, script) = (folder.join("libhidden.so"), folder.join("exported"));
    fs::write(&script, format!("{{ global: {prefix}*; local: *; }};")).ok()?;
    let named = CALLED.iter().map(|name| format!("-Wl,--undefined={name},--defsym={prefix}{name}={name}"));
    let status = Command::new("cc")
        .args(["-shared", "-s", "-o"])
        .arg(&library)
        .args(named)
        .arg(format!("-Wl,--version-script={}", script.display()))
        .args(["-l:libssl.a", "-l:libcrypto.a", "-ldl", "-lpthread"])
        .stderr(Stdio::null())
        .status()
        .ok()?;
    status.success().then_some(library)
}
