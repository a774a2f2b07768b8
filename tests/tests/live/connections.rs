//! Both ends of a connection on this machine.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use agentsight::demo::{
    clients::Sending,
    script::Script,
    talk::{Dialect, Talk},
};
use agentsight_tests::{
    engine::KIND_SERVER,
    live::{Live, judge, wait_for},
};

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Serves one connection with `openssl s_server`: what comes in over TLS is on its stdout, and what is
/// written to its stdin goes out.
fn serve_one(live: &Live, sending: &Sending) -> u16 {
    let (key, certificate) = live.certificate();
    let port = free_port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-naccept", "1", "-accept", &format!("127.0.0.1:{port}"), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let script = sending.script.clone();
    thread::spawn(move || {
        let (mut stdin, mut stdout) = (server.stdin.take().unwrap(), server.stdout.take().unwrap());
        let mut request = vec![];
        let mut buffer = [0; 16_384];
        while !request.ends_with(&script.request.body) {
            match stdout.read(&mut buffer) {
                Ok(length @ 1..) => request.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
        stdin.write_all(&script.reply.writes().concat()).unwrap();
        stdin.flush().unwrap();
        // It ends when its only client is gone.
        let _ = stdout.read_to_end(&mut request);
        let _ = server.wait();
    });
    port
}

#[test]
fn the_side_is_read_off_the_direction() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&["--role", "both"]);
    let sendings = live.sendings([Script::new("sides", "", &Talk::numbered(Dialect::Chat, 7))]);
    let [sending] = &sendings[..] else { panic!("one") };
    let port = serve_one(&live, sending);
    let began = Instant::now();
    let body = live.folder.path().join("body");
    std::fs::write(&body, &sending.script.request.body).unwrap();
    // The server listens soon; s_server with one connection to take must not be probed.
    thread::sleep(Duration::from_millis(500));
    let status = Command::new("curl")
        .args(["-q", "-sk", "--http1.1", "--noproxy", "*", "--connect-to", &format!("::127.0.0.1:{port}")])
        .args(["-H", "content-type: application/json", "-H", &format!("traceparent: {}", sending.trace.header())])
        .args(["-o", "/dev/null", "--data-binary", &format!("@{}", body.display())])
        .arg(format!("https://{}{}", sending.script.request.host, sending.script.request.path))
        .status();
    assert!(status.unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(20));

    assert!(engine.wait_for_spans(Duration::from_secs(15), |spans| {
        spans.iter().filter(|span| span.trace_id == sending.trace.trace_id).count() == 2
    }));
    let finished = engine.stop();
    let (servers, clients): (Vec<_>, Vec<_>) = finished.spans().into_iter().partition(|span| span.kind == KIND_SERVER);
    judge(&clients, &sendings);
    let own: Vec<_> = servers.into_iter().filter(|span| span.trace_id == sending.trace.trace_id).collect();
    let [mut server] = <[_; 1]>::try_from(own).expect("one SERVER span");
    assert_eq!(server.attributes["process.executable.name"], "openssl");
    server.kind = agentsight::demo::receiver::KIND_CLIENT;
    judge(&[server], &sendings);
}

#[test]
fn what_is_no_http_gives_no_span_and_no_loss() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    // A client that says something else over TLS; the mock hangs up on it.
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-connect", &live.mock.address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(&[0xfe; 100_000]).unwrap();
    let _ = client.wait();
    let sendings = live.sendings(agentsight_tests::live::mixed("beside", 5));
    agentsight_tests::drive::send(&live, "threads", &[&sendings], 1);
    assert!(wait_for(&engine, &sendings));
    live.conclude(engine, &sendings);
    // The mock still listens.
    drop(TcpStream::connect(live.mock.address()).unwrap());
}
