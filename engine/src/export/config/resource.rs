//! The resource that all spans share: this agent and the host it runs on.

use std::fs;

use super::env::{Env, pairs};
use crate::semconv as name;

/// Attributes of a resource: keys that differ, in a fixed order.
pub type Resource = Vec<(String, String)>;

/// The attributes from the environment and from the host. What the environment says wins, but for
/// `telemetry.sdk.*`, which says who wrote the telemetry and is not for the user to choose.
pub(super) fn resource(env: &mut Env<'_>) -> Resource {
    let mut resource = Resource::new();
    let given = resource_attributes(env);
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            match resource.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => *known = value,
                None => resource.push((key.to_owned(), value)),
            }
        }
    };
    set(name::SERVICE_NAME, Some("agentsight".to_owned()));
    set(name::SERVICE_VERSION, Some(env!("CARGO_PKG_VERSION").to_owned()));
    set(name::SERVICE_INSTANCE_ID, first_line("/proc/sys/kernel/random/uuid"));
    set(name::HOST_NAME, first_line("/proc/sys/kernel/hostname"));
    set(name::HOST_ID, first_line("/etc/machine-id").or_else(|| first_line("/var/lib/dbus/machine-id")));
    set(name::HOST_ARCH, Some(host_arch(std::env::consts::ARCH).to_owned()));
    set(name::OS_TYPE, Some(std::env::consts::OS.to_owned()));
    for (key, value) in given {
        set(&key, Some(value));
    }
    set(name::SERVICE_NAME, env.text("OTEL_SERVICE_NAME"));
    set(name::TELEMETRY_SDK_NAME, Some("agentsight".to_owned()));
    set(name::TELEMETRY_SDK_LANGUAGE, Some("rust".to_owned()));
    set(name::TELEMETRY_SDK_VERSION, Some(env!("CARGO_PKG_VERSION").to_owned()));
    resource
}

/// `OTEL_RESOURCE_ATTRIBUTES`: one bad member voids the whole value.
fn resource_attributes(env: &mut Env<'_>) -> Resource {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let Some(list) = env.text(NAME) else { return Resource::new() };
    let attributes: Result<_, _> = pairs(&list).collect();
    attributes.unwrap_or_else(|_| {
        env.warn(format!("{NAME} can't be decoded and is ignored as a whole"));
        Resource::new()
    })
}

/// The first line of a small file; absent when it is empty or not there.
fn first_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// `host.arch` as the conventions spell it.
fn host_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "x86" => "x86",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}
