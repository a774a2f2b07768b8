//! The command line where it needs no privileges, or must say that it has none.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    thread,
    time::Duration,
};

use agentsight::demo::Folder;
use agentsight_tests::{
    command::{run, stderr, stdout},
    gate::skip,
    program::agentsight,
};

/// A run that must fail with this exit code and say all of `texts` on stderr.
fn check_refused(arguments: &[&str], code: i32, texts: &[&str]) {
    let output = run(arguments, |_| {});
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    for text in texts {
        assert!(stderr(&output).contains(text), "{arguments:?} does not say {text:?}: {}", stderr(&output));
    }
    assert_eq!(stdout(&output), "", "{arguments:?}");
}

#[test]
fn what_is_not_understood_is_named() {
    check_refused(&["tracing"], 2, &["tracing"]);
    check_refused(&["trace", "--no-such-option"], 2, &["--no-such-option"]);
    check_refused(&["trace", "--pid", "everyone"], 2, &["everyone"]);
    check_refused(&["trace", "--role", "sideways"], 2, &["sideways", "client", "server", "both"]);
    check_refused(&["trace", "--ring-size", "-4"], 2, &["-4"]);
    check_refused(&["trace", "--duration", "soon"], 2, &["soon"]);
    check_refused(&["trace", "--otel-endpoint", "ftp://localhost"], 2, &["ftp://localhost"]);
}

#[test]
fn help_and_version_are_told_on_stdout() {
    for arguments in [&["--help"][..], &["trace", "--help"], &["debug", "trace", "--help"], &["replay", "--help"]] {
        let output = run(arguments, |_| {});
        assert!(output.status.success(), "{arguments:?}");
        assert!(stdout(&output).contains("Usage: agentsight"), "{arguments:?}");
    }
    let trace = stdout(&run(&["trace", "--help"], |_| {}));
    let same = stdout(&run(&["debug", "trace", "--help"], |_| {}));
    for option in [
        "--otel",
        "--otel-endpoint",
        "--otel-capture-content",
        "--pid",
        "--comm",
        "--uid",
        "--binary-path",
        "--role",
        "--json",
        "--quiet",
        "--workers",
        "--ring-size",
        "--duration",
        "--stats",
    ] {
        assert!(trace.contains(option) && same.contains(option), "{option}");
    }
    assert!(stdout(&run(&["--version"], |_| {})).starts_with("agentsight "));
}

#[test]
fn a_recording_that_is_none_is_refused() {
    let folder = Folder::create().unwrap();
    let file = folder.path().join("recording");
    let name = file.to_str().unwrap();
    check_refused(&["replay", name, "--json"], 1, &[name]);
    fs::write(&file, "no recording at all, but longer than any header could be").unwrap();
    check_refused(&["replay", name, "--json"], 1, &[name]);
    fs::write(&file, "").unwrap();
    check_refused(&["replay", name, "--json"], 1, &[name]);
}

/// A copy of the program that a user without rights can start, from a folder that the user can enter.
fn for_everyone(folder: &Folder) -> PathBuf {
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("agentsight");
    fs::copy(agentsight(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_missing_privilege_is_named_with_the_remedy() {
    const NOBODY: u32 = 65_534;
    let folder = Folder::create().unwrap();
    let program = for_everyone(&folder);
    let mut command = std::process::Command::new(program);
    command.args(["trace", "--duration", "1"]);
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let is_root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if is_root {
        command.uid(NOBODY).gid(NOBODY);
    } else if agentsight_tests::gate::live_or_skip().is_some() {
        return skip("this user has the privileges");
    }
    // A process that another test has just forked holds the copy open for writing until it executes its own.
    let output = (0..500)
        .find_map(|_| match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
                None
            }
            other => Some(other.unwrap()),
        })
        .expect("the copy is free within seconds");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("CAP_BPF") && said.contains("CAP_PERFMON"), "the privileges are not named: {said}");
    assert!(said.contains("sudo"), "the remedy is not named: {said}");
    assert!(!said.contains("panicked"), "{said}");
}
