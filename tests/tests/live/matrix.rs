//! The same forty calls by clients of every kind, captured with no flags. To add a client, add a row.

use std::{path::Path, process::Command};

use agentsight_tests::{
    gate::skip,
    live::Live,
    matrix::{bun, calls, plan, python, python_with, run, script},
    rustls::{Build, build},
};

/// Makes the calls of the row and requires their spans. `client` is none when it can't be had.
fn check(row: &str, client: impl FnOnce(&Live) -> Option<Command>) {
    let Some(live) = Live::begin() else { return };
    let Some(client) = client(&live) else {
        skip(&format!("there is no {row} here"));
        return;
    };
    let engine = live.engine(&[]);
    let sendings = live.sendings(calls(row));
    run(client, &plan(&live, &sendings), &sendings);
    live.conclude(engine, &sendings);
}

/// A program of this machine, driven by `matrix.py`.
fn driven(program: &str, argument: &str) -> Option<Command> {
    let found = Command::new(program).arg(argument).output().is_ok();
    found.then(|| python(Path::new("python3"), program))
}

#[test]
fn wget() {
    check("wget", |_| driven("wget", "--version"));
}

#[test]
fn gnutls_cli() {
    check("gnutls-cli", |_| driven("gnutls-cli", "--version"));
}

#[test]
fn nss_tstclnt() {
    check("tstclnt", |live| {
        let folder = live.folder.path().join("nssdb");
        std::fs::create_dir(&folder).ok()?;
        let database = format!("sql:{}", folder.display());
        let made = Command::new("certutil").args(["-N", "--empty-password", "-d", &database]).output().ok()?;
        made.status.success().then(|| driven("tstclnt", "-?")).flatten()
    });
}

#[test]
fn python_requests() {
    check("requests", |_| Some(python(&python_with(&["requests"])?, "requests")));
}

#[test]
fn python_httpx() {
    check("httpx", |_| Some(python(&python_with(&["httpx"])?, "httpx")));
}

#[test]
fn python_aiohttp() {
    check("aiohttp", |_| Some(python(&python_with(&["aiohttp"])?, "aiohttp")));
}

#[test]
fn node_https() {
    check("https", |_| {
        Command::new("node").arg("--version").output().ok()?;
        Some(script(Path::new("node"), "https"))
    });
}

/// BoringSSL without symbols, in releases over two years: laid out and linked in different ways.
#[test]
fn bun_releases() {
    for version in ["1.0.36", "1.1.45", "1.2.23", "1.4.5"] {
        let Some(live) = Live::begin() else { return };
        let Some(program) = bun(version) else {
            skip(&format!("there is no bun {version} here"));
            return;
        };
        // Named, so that it is looked into before the first call; the functions are found in the same way.
        let engine = live.engine(&["--binary-path", &program.display().to_string()]);
        let sendings = live.sendings(calls(&format!("bun-{version}")));
        run(script(&program, "bun"), &plan(&live, &sendings), &sendings);
        live.conclude(engine, &sendings);
    }
}

/// tokio-rustls and hyper, compiled and linked in different ways.
fn rustls(profile: &'static str, stripped: bool) {
    let row = format!("rustls-{profile}{}", if stripped { "-stripped" } else { "" });
    check(&row, |_| Some(Command::new(build(Build { profile, stripped }))));
}

#[test]
fn rustls_debug() {
    rustls("dev", false);
}

#[test]
fn rustls_release() {
    rustls("release", false);
}

#[test]
fn rustls_release_stripped() {
    rustls("release", true);
}

#[test]
fn rustls_fat_stripped() {
    rustls("fat", true);
}
