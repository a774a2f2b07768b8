//! How requests are sent: what a collector wants to be told, and how long to try.

use std::{fmt, path::PathBuf, time::Duration};

use hyper::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING,
};

use super::{
    Encoding, Env, Signal,
    env::{BadPair, pairs},
    variables,
};

/// Header fields of a request. Their values are often credentials, so they can't be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

impl fmt::Debug for Headers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Files in PEM format (`OTEL_EXPORTER_OTLP_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities to trust, instead of those that the system trusts.
    pub authorities: Option<PathBuf>,
    /// Our own certificate, and its chain.
    pub client_certificate: Option<PathBuf>,
    /// The key of our own certificate.
    pub client_key: Option<PathBuf>,
}

/// `OTEL_EXPORTER_OTLP_COMPRESSION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Requests go as they are.
    #[default]
    None,
    /// Requests are compressed with gzip.
    Gzip,
}

/// How long to try (`OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_EXPORT_TIMEOUT` or for metrics
/// `OTEL_METRIC_EXPORT_TIMEOUT`), and the pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// One attempt, from connecting to the end of the response. `None` is no limit.
    pub attempt_timeout: Option<Duration>,
    /// All attempts of one request, pauses included. `None` is no limit.
    pub total_timeout: Option<Duration>,
    /// The pause after the first failure, before jitter; it doubles with each further one.
    pub pause_initial: Duration,
    /// The longest pause that we choose ourselves.
    pub pause_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempt_timeout: Some(Duration::from_secs(10)),
            total_timeout: Some(Duration::from_secs(30)),
            pause_initial: Duration::from_millis(500),
            pause_max: Duration::from_secs(5),
        }
    }
}

pub(super) fn encoding(signal: Signal, env: &mut Env<'_>) -> Encoding {
    const UNKNOWN: &str = "is ignored: http/protobuf and http/json are supported";
    let known = [("http/protobuf", Encoding::Protobuf), ("http/json", Encoding::Json)];
    env.choice(&variables!(signal, "PROTOCOL"), &known, UNKNOWN).unwrap_or_default()
}

pub(super) fn compression(signal: Signal, env: &mut Env<'_>) -> Compression {
    let known = [("none", Compression::None), ("gzip", Compression::Gzip)];
    let names = variables!(signal, "COMPRESSION");
    env.choice(&names, &known, "is neither gzip nor none and is ignored").unwrap_or_default()
}

pub(super) fn tls(signal: Signal, env: &mut Env<'_>) -> Tls {
    let mut file = |names: [&str; 2]| env.first(&names, |env, name| env.text(name)).map(PathBuf::from);
    Tls {
        authorities: file(variables!(signal, "CERTIFICATE")),
        client_certificate: file(variables!(signal, "CLIENT_CERTIFICATE")),
        client_key: file(variables!(signal, "CLIENT_KEY")),
    }
}

pub(super) fn retry(signal: Signal, env: &mut Env<'_>) -> Retry {
    let default = Retry::default();
    // Zero means no limit.
    let limit = |given: Option<Duration>, default| given.map_or(default, |given| Some(given).filter(|g| !g.is_zero()));
    let attempt = env.first(&variables!(signal, "TIMEOUT"), |env, name| env.duration(name));
    let total = env.duration(match signal {
        Signal::Traces => "OTEL_BSP_EXPORT_TIMEOUT",
        Signal::Metrics => "OTEL_METRIC_EXPORT_TIMEOUT",
    });
    Retry {
        attempt_timeout: limit(attempt, default.attempt_timeout),
        total_timeout: limit(total, default.total_timeout),
        ..default
    }
}

/// What describes a request's body and its connection is not for the configuration to say.
const OURS: [HeaderName; 5] = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// The headers of the variable for one signal replace those of the general one as a whole.
pub(super) fn headers(signal: Signal, env: &mut Env<'_>) -> Headers {
    let list = variables!(signal, "HEADERS").into_iter().find_map(|name| env.text(name).map(|list| (name, list)));
    let mut headers = Headers::default();
    let Some((name, list)) = list else { return headers };
    for (index, pair) in pairs(&list).enumerate() {
        let number = index + 1;
        match header(pair) {
            Some((known, _)) if OURS.contains(&known) => {
                env.warn(format!("{name}: {known} is not for the configuration to set and is ignored"));
            }
            Some(header) => headers.0.push(header),
            // Neither key nor value is shown: with a typo, either may be the secret.
            None => env.warn(format!("{name}: member {number} is not a valid header and is ignored")),
        }
    }
    headers
}

fn header(pair: Result<(String, String), BadPair>) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.ok()?;
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::try_from(name).ok()?, value))
}
