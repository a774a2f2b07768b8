//! The same forty calls by clients of every kind, captured with no flags. To add a client, add a row.
//!
//! A file with TLS inside that was never seen is looked into when a process maps it. Rows of such files
//! start the program before its calls, without any, so that a busy machine can take its time; so do those of
//! libraries that a program loads right before its calls. [`a_program_that_an_earlier_run_knew`] and the
//! other rows of libraries don't.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use agentsight::demo::mock::Mock;
use agentsight_tests::{
    gate::skip,
    go::{self, Linking, Server, Toolchain},
    live::Live,
    matrix::{
        CONNECTIONS, Spread, bun, calls, deno, hidden_libssl, judge_addresses, libssl, plan, python, python_with, run,
        script, spread,
    },
    prepared,
    program::root,
    relay::relays,
    rustls::{self, Build},
};
use serde_json::{Value, json};

/// Whom the calls are made to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// The mock, over TLS.
    Tls,
    /// The mock, over plain HTTP.
    Plain,
    /// A server of Go's, over TLS, which speaks HTTP/2 too.
    Http2,
}

/// What makes the calls.
struct Client {
    command: Command,
    /// A file with TLS inside, and a start of it that calls nobody.
    inside: Option<(PathBuf, Command)>,
}

impl From<Command> for Client {
    fn from(command: Command) -> Self {
        Self { command, inside: None }
    }
}

impl Client {
    /// Of a program that has TLS inside, which does nothing when started with `idle`.
    fn inside(program: &Path, idle: &[&str], command: Command) -> Option<Self> {
        let mut start = Command::new(program);
        start.args(idle);
        Some(Self { command, inside: Some((fs::canonicalize(program).ok()?, start)) })
    }
}

/// Makes the calls of the row, each connection to an address of its own, and requires their spans. `client` is none when
/// it can't be had.
fn check(row: &str, peer: Peer, client: impl FnOnce(&Live) -> Option<Client>) {
    check_with(row, peer, |live, _| client(live));
}

/// The same; the client may add to its plan.
fn check_with(row: &str, peer: Peer, client: impl FnOnce(&Live, &mut Value) -> Option<Client>) {
    check_all(row, peer, 0, client);
}

/// The same; of so many calls at the start of each connection the address may be unknown, but not wrong.
fn check_all(row: &str, peer: Peer, ambiguous: usize, client: impl FnOnce(&Live, &mut Value) -> Option<Client>) {
    let Some(mut live) = Live::begin() else { return };
    if peer == Peer::Plain {
        live.mock = Mock::start_plain([]).expect("a mock");
    }
    let sendings = live.sendings(calls(row));
    let mut plan = plan(&live, &sendings);
    let Some(Client { command, inside }) = client(&live, &mut plan) else {
        skip(&format!("there is no {row} here"));
        return;
    };
    let (mut server, mut address) = (None, live.mock.address());
    if peer == Peer::Http2 {
        let Some(program) = go::build(Toolchain::System, Linking::Plain) else { return };
        let started = Server::start(&program, &sendings, live.folder.path(), false);
        address = started.address.parse().expect("an address");
        plan["ca"] = json!(started.ca);
        server = Some(started);
    }
    if peer != Peer::Plain {
        // In between, plain HTTP would be seen as calls too.
        let by = if row == "fetch" { Spread::Hosts } else { Spread::Connections };
        spread(&mut plan, &relays(address, CONNECTIONS), by);
    }
    let engine = live.engine(&[]);
    if let Some((program, mut start)) = inside {
        engine.start_until_attached(&program, &mut start);
    }
    run(&live, command, &plan, &sendings);
    let finished =
        if peer == Peer::Plain { prepared::conclude(engine, &sendings) } else { live.conclude(engine, &sendings) };
    judge_addresses(&finished.spans(), &plan, &sendings, ambiguous);
    drop(server);
}

/// A program of this machine, driven by `matrix.py` as `client`.
fn driven(program: &str, version: &str, client: &str) -> Option<Client> {
    let found = Command::new(program).arg(version).output().is_ok();
    found.then(|| python(Path::new("python3"), client).into())
}

/// Node.js, driven by `matrix.mjs` as `client`.
fn node(client: &str) -> Option<Client> {
    let output = Command::new("node").args(["-p", "process.execPath"]).output().ok()?;
    let program = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    Client::inside(&program, &["-e", ""], script(&program, client))
}

#[test]
fn curl() {
    check("curl", Peer::Tls, |_| driven("curl", "--version", "curl-http1.1"));
}

#[test]
fn curl_http2() {
    check("curl --http2", Peer::Http2, |_| driven("curl", "--version", "curl-http2"));
}

#[test]
fn curl_plain() {
    check("curl, plain", Peer::Plain, |_| driven("curl", "--version", "curl-http1.1"));
}

#[test]
fn wget() {
    check("wget", Peer::Tls, |_| driven("wget", "--version", "wget"));
}

#[test]
fn gnutls_cli() {
    check("gnutls-cli", Peer::Tls, |_| driven("gnutls-cli", "--version", "gnutls-cli"));
}

#[test]
fn nss_tstclnt() {
    check("tstclnt", Peer::Tls, |live| {
        let folder = live.folder.path().join("nssdb");
        fs::create_dir(&folder).ok()?;
        let database = format!("sql:{}", folder.display());
        let made = Command::new("certutil").args(["-N", "--empty-password", "-d", &database]).output().ok()?;
        made.status.success().then(|| driven("tstclnt", "-?", "tstclnt")).flatten()
    });
}

#[test]
fn python_requests() {
    check("requests", Peer::Tls, |_| Some(python(&python_with(&["requests"])?, "requests").into()));
}

#[test]
fn python_requests_plain() {
    check("requests, plain", Peer::Plain, |_| Some(python(&python_with(&["requests"])?, "requests").into()));
}

#[test]
fn python_httpx() {
    check("httpx", Peer::Tls, |_| Some(python(&python_with(&["httpx"])?, "httpx").into()));
}

#[test]
fn python_httpx_async() {
    check("httpx, async", Peer::Tls, |_| Some(python(&python_with(&["httpx"])?, "httpx-async").into()));
}

/// Which of several writes of one length is sent first can't be told, so that nothing is.
#[test]
fn python_memory_bios_in_disorder() {
    check_all("disorder", Peer::Tls, 2, |_, _| Some(python(Path::new("python3"), "disorder").into()));
}

#[test]
fn python_aiohttp() {
    check("aiohttp", Peer::Tls, |_| Some(python(&python_with(&["aiohttp"])?, "aiohttp").into()));
}

#[test]
fn node_https() {
    check("https", Peer::Tls, |_| node("https"));
}

#[test]
fn node_fetch() {
    check("fetch", Peer::Tls, |_| node("fetch"));
}

#[test]
fn node_http2() {
    check("http2", Peer::Http2, |_| node("http2"));
}

#[test]
fn node_plain() {
    check("node, plain", Peer::Plain, |_| node("http"));
}

/// Go's net/http, of one toolchain and linked in one way.
fn go(toolchain: Toolchain, linking: Linking, protocol: &str) {
    let peer = if protocol == "http2" { Peer::Http2 } else { Peer::Tls };
    check(&format!("go {protocol}"), peer, |_| {
        let program = go::build(toolchain, linking)?;
        let mut command = Command::new(&program);
        command.arg(protocol);
        Client::inside(&program, &["none"], command)
    });
}

#[test]
fn go_system_http1() {
    go(Toolchain::System, Linking::Plain, "http1");
}

#[test]
fn go_system_http2() {
    go(Toolchain::System, Linking::Plain, "http2");
}

#[test]
fn go_current_http1() {
    go(Toolchain::Current, Linking::Stripped, "http1");
}

#[test]
fn go_current_http2() {
    go(Toolchain::Current, Linking::Stripped, "http2");
}

/// A shared library, by its C interface.
fn shared(name: &str, libraries: impl FnOnce() -> Option<[PathBuf; 2]>) {
    check_with(name, Peer::Tls, |_, plan| {
        let [libcrypto, libssl] = libraries()?;
        let mut client = python(Path::new("python3"), "libssl");
        // Its calls follow the loading at once; a file that nothing has mapped before has its probes some
        // milliseconds after that.
        let mut start = Command::new("python3");
        start.args(["-c", "import ctypes, sys\nfor name in sys.argv[1:]: ctypes.CDLL(name, ctypes.RTLD_GLOBAL)"]);
        start.args([&libcrypto, &libssl]);
        for command in [&mut client, &mut start] {
            // Some wheels leave it to the module that they are for to find what their libraries need.
            command.env("LD_LIBRARY_PATH", libcrypto.parent()?);
        }
        plan["libcrypto"] = json!(libcrypto);
        plan["libssl"] = json!(libssl);
        Some(Client { command: client, inside: Some((fs::canonicalize(&libssl).ok()?, start)) })
    });
}

/// OpenSSL's, which a wheel of PyPI brings.
fn openssl(version: &str, release: &str, python_version: &str) {
    shared(&format!("OpenSSL {version}"), || libssl(release, python_version));
}

/// BoringSSL's, which Debian has for Android's tools.
#[test]
fn boringssl_shared() {
    shared("BoringSSL", || {
        let libraries = ["libcrypto", "libssl"]
            .map(|name| PathBuf::from(format!("/usr/lib/{}-linux-gnu/android/{name}.so.0", std::env::consts::ARCH)));
        libraries.iter().all(|library| library.is_file()).then_some(libraries)
    });
}

#[test]
fn openssl_1_0_2() {
    openssl("1.0.2n", "2.7.4", "36");
}

#[test]
fn openssl_1_1_1() {
    openssl("1.1.1w", "2.9.10", "311");
}

#[test]
fn openssl_3_5() {
    openssl("3.5.8", "2.9.13", "311");
}

/// OpenSSL inside of something else, without symbols.
#[test]
fn openssl_stripped() {
    check_with("OpenSSL, stripped", Peer::Tls, |live, plan| {
        let library = hidden_libssl(live.folder.path(), "hidden_")?;
        let mut start = Command::new("python3");
        // A library is looked into while somebody has it.
        start.args(["-c", "import ctypes, sys, time; ctypes.CDLL(sys.argv[1]); time.sleep(1)"]).arg(&library);
        for name in ["libcrypto", "libssl"] {
            plan[name] = json!(library);
        }
        plan["prefix"] = json!("hidden_");
        let client = python(Path::new("python3"), "libssl");
        Some(Client { command: client, inside: Some((fs::canonicalize(&library).ok()?, start)) })
    });
}

/// BoringSSL without symbols, in releases over two years: laid out and linked in different ways.
#[test]
fn bun_releases() {
    for version in ["1.0.36", "1.1.45", "1.2.23", "1.4.5"] {
        check(&format!("bun {version}"), Peer::Tls, |_| {
            let program = bun(version)?;
            Client::inside(&program, &["--version"], script(&program, "bun"))
        });
    }
}

/// rustls with symbols, and without them and without tables for unwinding.
#[test]
fn deno_releases() {
    for version in ["2.2.4", "2.9.6"] {
        check(&format!("deno {version}"), Peer::Tls, |live| {
            let program = deno(version)?;
            let mut command = Command::new(&program);
            command
                .args(["run", "--quiet", "--allow-all", "--unsafely-ignore-certificate-errors"])
                .arg(root().join("tests/clients/matrix.mjs"))
                .arg("deno");
            command.env("DENO_NO_UPDATE_CHECK", "1").env("DENO_DIR", live.folder.path().join("deno"));
            Client::inside(&program, &["--version"], command)
        });
    }
}

/// What an earlier run has found in a program is there for its very first call in the next.
#[test]
fn a_program_that_an_earlier_run_knew() {
    let Some(live) = Live::begin() else { return };
    let Some(program) = bun("1.4.5") else {
        skip("there is no bun 1.4.5 here");
        return;
    };
    let engine = live.engine(&[]);
    let file = fs::canonicalize(&program).expect("a path");
    engine.start_until_attached(&file, Command::new(&program).arg("--version"));
    engine.stop();
    let engine = live.engine(&[]);
    let sendings = live.sendings(calls("again"));
    run(&live, script(&program, "bun"), &plan(&live, &sendings), &sendings);
    live.conclude(engine, &sendings);
}

/// Where the dynamic linker finds libssl.
fn system_libssl() -> PathBuf {
    let output = Command::new("sh").args(["-c", "ldconfig -p | awk '/libssl.so.3 /{print $NF; exit}'"]).output();
    PathBuf::from(String::from_utf8(output.expect("ldconfig runs").stdout).expect("a path").trim())
}

/// The calls by a process that has its own copy of libssl, to a server beside it; `enter` brings it where
/// it is to run, with the copy in `COPIES`, and loads the library after `delay` seconds.
fn with_own_library(row: &str, enter: &str, delay: f64) {
    let Some(live) = Live::begin() else { return };
    let Some(program) = go::build(Toolchain::System, Linking::Plain) else { return };
    let Some(interpreter) = python_with(&["requests"]) else {
        skip("there is no requests here");
        return;
    };
    let copies = live.folder.path().join("lib");
    fs::create_dir(&copies).expect("a folder");
    let sendings = live.sendings(calls(row));
    let (server, ca) = Server::prepare(&program, &sendings, live.folder.path(), false);
    let mut plan = plan(&live, &sendings);
    plan["server"] = json!(server);
    plan["ca"] = json!(ca);
    plan["delay"] = json!(delay);
    let client = python(&interpreter, "requests");
    let enter = enter
        .replace("COPIES", &copies.display().to_string())
        .replace("LIBSSL", &system_libssl().display().to_string());
    let mut command = Command::new("sh");
    command.args(["-c", &enter, "sh"]).arg(client.get_program()).args(client.get_args());
    let engine = live.engine(&[]);
    run(&live, command, &plan, &sendings);
    live.conclude(engine, &sendings);
}

#[test]
fn in_namespaces_of_its_own() {
    with_own_library(
        "namespaces",
        "exec unshare --mount --pid --net --fork --mount-proc sh -c 'mount -t tmpfs none COPIES && \
         cp -L LIBSSL COPIES/ && ip link set lo up && LD_LIBRARY_PATH=COPIES exec \"$@\"' sh \"$@\"",
        0.0,
    );
}

/// By dlopen, in a process that has run for a while.
#[test]
fn a_library_that_is_loaded_late() {
    with_own_library("late", "cp -L LIBSSL COPIES/ && LD_LIBRARY_PATH=COPIES exec \"$@\"", 5.0);
}

/// tokio-rustls and hyper, compiled and linked in different ways; `plan` adds what is offered.
fn rustls(build: Build, peer: Peer, plan: Value) {
    let Build { profile, ciphers, stripped } = build;
    let row = format!("rustls-{profile}-{ciphers}{}", if stripped { "-stripped" } else { "" });
    check_with(&row, peer, |_, whole| {
        let program = rustls::build(build);
        whole.as_object_mut()?.extend(plan.as_object()?.clone());
        Client::inside(&program, &["--idle"], Command::new(&program))
    });
}

/// With ring's ciphers.
const fn ring(profile: &'static str, stripped: bool) -> Build {
    Build { profile, ciphers: "ring", stripped }
}

/// With those of aws-lc-rs.
const fn aws_lc_rs(stripped: bool) -> Build {
    Build { profile: "release", ciphers: "aws-lc-rs", stripped }
}

#[test]
fn rustls_debug() {
    rustls(ring("dev", false), Peer::Tls, json!({}));
}

#[test]
fn rustls_release() {
    rustls(ring("release", false), Peer::Tls, json!({}));
}

#[test]
fn rustls_release_stripped() {
    rustls(ring("release", true), Peer::Tls, json!({}));
}

#[test]
fn rustls_fat_stripped() {
    rustls(ring("fat", true), Peer::Tls, json!({}));
}

#[test]
fn rustls_http2() {
    rustls(ring("release", false), Peer::Http2, json!({"http2": true}));
}

#[test]
fn rustls_of_tls_1_2() {
    for cipher in ["AES_128_GCM", "CHACHA20_POLY1305"] {
        rustls(ring("release", true), Peer::Tls, json!({"tls": "1.2", "cipher": cipher}));
    }
}

#[test]
fn rustls_aws_lc_rs() {
    for stripped in [false, true] {
        rustls(aws_lc_rs(stripped), Peer::Tls, json!({"tls": "1.3"}));
    }
}

/// AES-GCM leaves the plaintext behind a nonce.
#[test]
fn rustls_aws_lc_rs_of_tls_1_2() {
    for cipher in ["AES_128_GCM", "CHACHA20_POLY1305"] {
        for stripped in [false, true] {
            rustls(aws_lc_rs(stripped), Peer::Tls, json!({"tls": "1.2", "cipher": cipher}));
        }
    }
}
