//! The machine that was measured.

use std::{fs, process::Command};

use serde_json::{Value, json};

fn line_of(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// What a figure depends on.
pub fn json() -> Value {
    let flags = line_of("/proc/cpuinfo", "flags");
    json!({
        "processor": line_of("/proc/cpuinfo", "model name"),
        "cores": crate::process::cores(),
        "virtual": flags.split(' ').any(|flag| flag == "hypervisor"),
        "memory": line_of("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "load": fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "openssl": crate::openssl::version().unwrap_or_default(),
        "date": output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        "commit": output("git", &["describe", "--always", "--dirty"]),
    })
}

/// The same in a line.
pub fn text() -> String {
    let facts = json();
    let fact = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    let machine = if facts["virtual"] == true { "virtual machine" } else { "machine" };
    format!(
        "{} with {} cores ({}), {}, Linux {}, {}, load {} when written, {}, commit {}",
        machine,
        facts["cores"],
        fact("processor"),
        fact("memory"),
        fact("kernel"),
        fact("openssl"),
        fact("load"),
        fact("date"),
        fact("commit")
    )
}
