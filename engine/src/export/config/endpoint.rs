//! Where requests are posted to.

use hyper::{Uri, http::uri::PathAndQuery};
use thiserror::Error;

use super::{Env, Flags, Signal, variables};

/// Where collectors listen for OTLP over gRPC.
const GRPC_PORT: u16 = 4317;

/// Where a collector listens by default.
const ENDPOINT_DEFAULT: &str = "http://localhost:4318";

/// A configuration that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The endpoint is not a URL with scheme and host.
    #[error("{source_name} is not a URL of the form http://host:port/path")]
    BadEndpoint {
        /// The flag or variable that it came from.
        source_name: &'static str,
    },
    /// The endpoint has a scheme that we do not speak.
    #[error("{source_name} has the scheme {scheme}, but only http and https are supported")]
    UnsupportedScheme {
        /// The flag or variable that it came from.
        source_name: &'static str,
        /// The scheme.
        scheme: String,
    },
}

/// The URL for `signal`: its own variable as it is, else the flag, the general variable or the
/// default with the signal's path appended.
pub(super) fn endpoint(signal: Signal, flags: &Flags, env: &mut Env<'_>) -> Result<Uri, ConfigError> {
    let [own, general] = variables!(signal, "ENDPOINT");
    let flag = flags.endpoint.as_deref().map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned);
    if let Some(url) = env.text(own) {
        if flag.is_some() {
            env.warn(format!("{own} wins over --otel-endpoint, since it speaks of one signal"));
        }
        return parse(own, &url, env);
    }
    let (source_name, base) = match (flag, env.text(general)) {
        (Some(url), _) => ("--otel-endpoint", url),
        (None, Some(url)) => (general, url),
        (None, None) => (general, ENDPOINT_DEFAULT.to_owned()),
    };
    let base = parse(source_name, &base, env)?;
    let path = format!("{}{}", base.path().trim_end_matches('/'), signal.path());
    let path = PathAndQuery::try_from(path).map_err(|_| ConfigError::BadEndpoint { source_name })?;
    let mut parts = base.into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| ConfigError::BadEndpoint { source_name })
}

fn parse(source_name: &'static str, url: &str, env: &mut Env<'_>) -> Result<Uri, ConfigError> {
    let uri: Uri = url.parse().map_err(|_| ConfigError::BadEndpoint { source_name })?;
    if uri.port_u16() == Some(GRPC_PORT) {
        env.warn(format!("{source_name} has port 4317, where collectors listen for gRPC; for HTTP it is 4318"));
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(without_user(uri)),
        (Some(scheme), Some(_)) => Err(ConfigError::UnsupportedScheme { source_name, scheme: scheme.to_owned() }),
        _ => Err(ConfigError::BadEndpoint { source_name }),
    }
}

/// Only scheme, host, port and path of an endpoint count. User and password are cut off, so that
/// they are in no log line.
fn without_user(uri: Uri) -> Uri {
    let Some((_, host)) = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')) else {
        return uri;
    };
    let host = host.parse();
    let mut parts = uri.into_parts();
    parts.authority = host.ok();
    // Without an authority this is an error, and the address that nobody can reach.
    Uri::from_parts(parts).unwrap_or_default()
}
