//! The program as a whole: export, record and replay, a command of its own, signals, the demo.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agentsight::demo::{
    receiver::{Receiver, Span},
    verdict::TraceParent,
};
use agentsight_tests::{
    command::{run, stderr, stdout},
    drive,
    engine::{Engine, signal, span},
    gate::live_or_skip,
    live::{Live, judge, mixed, wait_for},
    program::{agentsight, root},
};

/// Spans of the given traffic, without those of anybody else.
fn own(spans: Vec<Span>, sendings: &[agentsight::demo::clients::Sending]) -> Vec<Span> {
    let is_own = |span: &Span| sendings.iter().any(|sending| sending.trace.trace_id == span.trace_id);
    spans.into_iter().filter(is_own).collect()
}

#[test]
fn spans_arrive_at_a_collector_that_was_away() {
    let Some(live) = Live::begin() else { return };
    // The first answers are refusals that may be retried.
    let receiver = Receiver::start_refusing([503, 429]).unwrap();
    let mut engine =
        Engine::spawn(live.folder.path(), &["trace", "--spool", "off", "--otel", "--otel-endpoint", &receiver.url()]);
    engine.wait_until_ready();
    let sendings = live.sendings(mixed("export", 30));
    drive::send(&live, "threads", &sendings.chunks(10).collect::<Vec<_>>(), 2);
    let finished = engine.stop();
    assert!(finished.status.success(), "{}", finished.stderr);
    let spans = receiver.spans();
    judge(&spans, &sendings);
    assert!(spans.iter().all(|span| span.resource["service.name"] == "agentsight"));
    let exported = finished.stats.as_ref().unwrap()["exported"].as_u64();
    assert_eq!(exported, Some(u64::try_from(spans.len()).unwrap()));
    let secrets = receiver.requests().iter().any(|request| {
        request.body.windows(agentsight::demo::CANARY.len()).any(|part| part == agentsight::demo::CANARY.as_bytes())
    });
    assert!(!secrets, "a secret was exported");
    assert!(finished.drops().is_empty(), "{:?}", finished.drops());
}

#[test]
fn the_environment_says_where_and_as_what() {
    let Some(live) = Live::begin() else { return };
    let receiver = Receiver::start().unwrap();
    let child = Command::new(agentsight())
        .args(["debug", "trace", "--spool", "off", "--otel", "--duration", "6"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
        .env("OTEL_SERVICE_NAME", "watcher")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=a%20b")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let sendings = live.sendings(mixed("environment", 5));
    drive::send(&live, "threads", &[&sendings], 1);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    judge(&receiver.spans(), &sendings);
    for span in receiver.spans() {
        assert_eq!(span.resource["service.name"], "watcher");
        assert_eq!(span.resource["deployment.environment.name"], "test");
        assert_eq!(span.resource["team"], "a b");
    }
    assert!(receiver.requests().iter().all(|request| request.header("x-tenant") == Some("acme")));
}

#[test]
fn content_is_on_the_spans_only_when_it_is_asked_for() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&["--otel-capture-content"]);
    let mut sendings = live.sendings(mixed("content", 5));
    drive::send(&live, "threads", &[&sendings], 1);
    wait_for(&engine, &sendings);
    let spans = own(engine.stop().spans(), &sendings);
    assert_eq!(spans.len(), sendings.len());
    for span in spans.iter().filter(|span| span.name.starts_with("chat")) {
        for name in ["gen_ai.input.messages", "gen_ai.output.messages"] {
            let text = span.attributes.get(name).and_then(|value| value.as_str()).unwrap_or_default();
            let messages: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{name}: {text:?}"));
            assert!(messages[0]["parts"][0]["content"].is_string(), "{name}: {text}");
        }
    }
    for sending in &mut sendings {
        sending.script.expected.attributes.retain(|name, _| !name.ends_with(".messages"));
    }
    judge(&spans, &sendings);
}

#[test]
fn a_recording_gives_the_same_spans_again() {
    let Some(live) = Live::begin() else { return };
    let recording = live.folder.path().join("recording");
    let name = recording.to_str().unwrap().to_owned();
    let mut recorder = Engine::spawn(live.folder.path(), &["record", &name]);
    recorder.wait_until_ready();
    let sendings = live.sendings(mixed("recorded", 40));
    drive::send(&live, "threads", &sendings.chunks(5).collect::<Vec<_>>(), 3);
    // What is still in the rings is written when it drains.
    let finished = recorder.stop();
    assert!(finished.status.success(), "{}", finished.stderr);
    let replay = || {
        let output = run(&["replay", &name, "--json"], |_| {});
        assert!(output.status.success(), "{}", stderr(&output));
        own(stdout(&output).lines().map(span).collect(), &sendings)
    };
    let mut first = replay();
    judge(&first, &sendings);
    let mut second = replay();
    for spans in [&mut first, &mut second] {
        spans.sort_by(|a, b| a.trace_id.cmp(&b.trace_id));
        // A span's own id is new each time.
        spans.iter_mut().for_each(|span| span.span_id.clear());
    }
    assert_eq!(first, second);

    let output = run(&["replay", &name, "--json", "--repeat", "3"], |_| {});
    let repeated = own(stdout(&output).lines().map(span).collect(), &sendings);
    assert_eq!(repeated.len(), 3 * sendings.len());

    // A recording that was cut off by a crash gives what it has.
    let bytes = fs::read(&recording).unwrap();
    fs::write(&recording, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let output = run(&["replay", &name, "--json"], |_| {});
    let fewer = own(stdout(&output).lines().map(span).collect(), &sendings);
    assert!(!fewer.is_empty() && fewer.len() <= sendings.len(), "{} spans\n{}", fewer.len(), stderr(&output));
}

#[test]
fn a_command_of_its_own_is_captured_alone_and_passes_its_exit_code_on() {
    let Some(live) = Live::begin() else { return };
    let sendings = live.sendings(mixed("command", 1));
    let [sending] = &sendings[..] else { panic!("one") };
    let request = &sending.script.request;
    let trace = TraceParent::random();
    let curl = |header: &str| {
        format!(
            "curl -q -s --http1.1 --noproxy '*' --cacert {} --connect-to ::{} -H 'content-type: application/json' \
             -H 'x-demo-id: {}' -H 'traceparent: {header}' -o /dev/null --data-binary '{}' https://{}{}",
            live.mock.ca_pem().unwrap().display(),
            live.mock.address(),
            sending.script.id,
            String::from_utf8_lossy(&request.body),
            request.host,
            request.path,
        )
    };
    // A descendant does it, as early as it can.
    let script = format!("({}); exit 7", curl(&sending.trace.header()));
    let child = Command::new(agentsight())
        .args(["trace", "--json", "--", "sh", "-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Somebody else at the same time.
    let other = Command::new("sh").args(["-c", &curl(&trace.header())]).status().unwrap();
    assert!(other.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    let spans: Vec<Span> = stdout(&output).lines().map(span).collect();
    judge(&spans, &sendings);
    assert_eq!(spans.len(), 1, "{spans:#?}");

    let output = run(&["trace", "--json", "--", "/no/such/command"], |_| {});
    assert!(!output.status.success());
    assert!(stderr(&output).contains("/no/such/command"), "{}", stderr(&output));
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let Some(live) = Live::begin() else { return };
    // A collector that never answers keeps the flush waiting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let mut engine =
        Engine::spawn(live.folder.path(), &["trace", "--spool", "off", "--otel", "--otel-endpoint", &endpoint]);
    engine.wait_until_ready();
    let sendings = live.sendings(mixed("signals", 10));
    drive::send(&live, "threads", &[&sendings], 1);
    std::thread::sleep(Duration::from_millis(300));
    engine.signal("INT");
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    engine.signal("INT");
    let finished = engine.wait();
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    let ended_by_signal = finished.status.signal().is_some() || finished.status.code() == Some(130);
    assert!(ended_by_signal, "{:?}", finished.status);
}

/// Perf events and links of probes that a process has open.
fn probes(pid: u32) -> (usize, usize) {
    let files: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a running process")
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .collect();
    let named = |name: &str| files.iter().filter(|file| file.to_str().is_some_and(|file| file.contains(name))).count();
    (named("perf_event"), named("bpf_link"))
}

#[test]
fn many_probes_come_off_in_a_moment() {
    let Some(live) = Live::begin() else { return };
    let engine = live.engine(&[]);
    let (events, links) = probes(engine.pid());
    // A perf event of each CPU tells of processes; the thread that waits for it has a descriptor of its own.
    let cpus = agentsight::kernel::cpu_count() as usize;
    assert!(events <= 2 * cpus + 1 && links > 5, "{events} events, {links} links");
    let began = Instant::now();
    let finished = engine.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    assert!(finished.status.success(), "{:?}", finished.status);
}

#[test]
fn the_limit_of_open_files_is_raised_but_not_for_a_command() {
    let Some(live) = Live::begin() else { return };
    let launcher = ["sh", "-c", "ulimit -Sn 40; exec \"$@\"", "sh"];
    let command = ["sh", "-c", "ulimit -Sn; sleep 0.2"];
    let engine = Engine::spawn_by(live.folder.path(), &launcher, &[&["trace", "--json", "--"], &command[..]].concat());
    let finished = engine.wait();
    assert!(finished.status.success(), "{:?}\n{}", finished.status, finished.stderr);
    assert_eq!(finished.stdout, ["40"], "{}", finished.stderr);
    assert!(!finished.stderr.contains("open files"), "{}", finished.stderr);
}

#[test]
fn probes_go_on_one_by_one_where_the_kernel_has_no_links_for_them() {
    let Some(live) = Live::begin() else { return };
    let launcher = root().join("tests/clients/old_linux.py");
    let launcher = ["python3", launcher.to_str().unwrap()];
    let mut engine = Engine::spawn_by(live.folder.path(), &launcher, &["trace", "--json"]);
    engine.wait_until_ready();
    let (events, links) = probes(engine.pid());
    assert!(events > 20 && links <= 5, "{events} events, {links} links");
    let sendings = live.sendings(mixed("events", 10));
    drive::send(&live, "threads", &[&sendings], 1);
    live.conclude(engine, &sendings);
}

#[test]
fn a_collector_that_is_not_there_is_told_and_ends_nothing() {
    let Some(live) = Live::begin() else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let engine = live.engine(&["--spool", "off", "--otel", "--otel-endpoint", &endpoint]);
    let sendings = live.sendings(mixed("nobody", 6));
    drive::send(&live, "threads", &[&sendings], 1);
    assert!(wait_for(&engine, &sendings));
    engine.signal("TERM");
    let began = Instant::now();
    let finished = engine.wait();
    assert!(began.elapsed() < Duration::from_secs(20), "the flush has a bound");
    judge(&finished.spans(), &sendings);
    assert!(finished.stderr.contains(&endpoint), "{}", finished.stderr);
    let lost: u64 = finished.drops().values().sum();
    assert_eq!(lost, 6, "what was not exported is counted: {:?}", finished.drops());
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let Some(live) = Live::begin() else { return };
    let mut child = Command::new(agentsight())
        .args(["trace", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    drop(child.stdout.take());
    let sendings = live.sendings(mixed("reader", 10));
    drive::send(&live, "threads", &[&sendings], 1);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(10) {
            signal(child.id(), "KILL");
            panic!("it goes on without a reader");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn the_demo_is_right_and_says_so() {
    let Some(_permit) = live_or_skip() else { return };
    let output = run(&["demo"], |command| {
        command.env("NO_COLOR", "1");
    });
    let said = stdout(&output);
    assert!(output.status.success(), "{said}\n{}", stderr(&output));
    assert!(said.lines().filter(|line| line.ends_with("  right")).count() >= 18, "{said}");
    assert!(!said.contains("WRONG") && !said.contains("MISSING") && !said.contains('\x1b'), "{said}");
}
