//! The proxy on the way to the collector: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in
//! small letters or capitals, as curl and Go read them.

use std::net::IpAddr;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::Env;

/// A proxy, and the name and password that it may want. Those can't be printed.
#[derive(Clone, Debug)]
pub struct Proxy {
    pub(in crate::export) intercept: Intercept,
}

impl Proxy {
    /// How to reach it: scheme, host and perhaps port.
    pub fn uri(&self) -> &Uri {
        self.intercept.uri()
    }
}

/// The proxy for `endpoint`, if there is one to use. This host is always reached directly, as Go
/// programs do: a collector beside us is not what a proxy is for.
pub(super) fn proxy(endpoint: &Uri, env: &mut Env<'_>) -> Option<Proxy> {
    let own = match endpoint.scheme_str() {
        Some("https") => ["https_proxy", "HTTPS_PROXY"],
        _ => ["http_proxy", "HTTP_PROXY"],
    };
    let names = [own[0], own[1], "all_proxy", "ALL_PROXY"];
    let (name, value) = names.iter().find_map(|name| Some((name, env.text(name)?)))?;
    if is_loopback(endpoint.host()?) {
        return None;
    }
    let usable = Matcher::builder().all(value.as_str()).build().intercept(endpoint);
    if usable.is_none_or(|proxy| proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks4"))) {
        // Its value may hold a password.
        env.warn(format!("{name} is ignored: it is not of the form http://host:port, https:// or socks5://"));
        return None;
    }
    let list = env.first(&["no_proxy", "NO_PROXY"], |env, name| env.text(name)).unwrap_or_default();
    let exceptions = exceptions(&list, port(endpoint));
    let intercept = Matcher::builder().all(value).no(exceptions).build().intercept(endpoint)?;
    Some(Proxy { intercept })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    // RFC 6761 section 6.3: all names below it are loopback too.
    name == "localhost" || name.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn port(endpoint: &Uri) -> u16 {
    let default = if endpoint.scheme_str() == Some("https") { 443 } else { 80 };
    endpoint.port_u16().unwrap_or(default)
}

/// The members of `NO_PROXY` that can concern an endpoint with this `port`, in the matcher's form:
/// names, which stand for all below them too, addresses, networks and `*`.
fn exceptions(list: &str, port: u16) -> String {
    let members = list.split([',', ' ', '\t']).filter_map(|member| {
        let member = member.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(member);
        let (host, wanted) = split_port(member);
        (wanted.is_none() || wanted == Some(port)).then(|| host.trim_start_matches('[').trim_end_matches(']'))
    });
    members.collect::<Vec<_>>().join(",")
}

/// `host:port` and `[address]:port`, but not a bare IPv6 address, which is full of colons.
fn split_port(member: &str) -> (&str, Option<u16>) {
    let parts = member.rsplit_once(':').filter(|(host, _)| host.ends_with(']') || !host.contains(':'));
    match parts.map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (member, None),
    }
}
