//! Where spans go and how, from flags and `OTEL_*` variables.

use std::{fmt, time::Duration};

use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
    http::uri::PathAndQuery,
};
use thiserror::Error;

use super::{
    env::{Env, pairs},
    resource::{Resource, resource},
};
use crate::limits;

/// Where a collector listens by default.
const ENDPOINT_DEFAULT: &str = "http://localhost:4318";

/// What the command line says about the export.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--otel-endpoint`: the base that `/v1/traces` is appended to. It wins over
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, and like that one it loses to
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which speaks of traces alone.
    pub endpoint: Option<String>,
}

/// Everything the exporter needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where requests are posted to, path included.
    pub endpoint: Uri,
    /// Headers that go with each request.
    pub headers: Headers,
    /// Whether requests are compressed.
    pub compression: Compression,
    /// When requests are closed, and how many wait.
    pub batch: Batch,
    /// How long to try.
    pub retry: Retry,
    /// Resource attributes.
    pub resource: Resource,
}

/// Header fields of a request. Their values are often credentials, so they can't be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

impl fmt::Debug for Headers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
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

/// When a request is closed and how many may wait to be sent (`OTEL_BSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How long the first span of a request waits for others.
    pub delay: Duration,
    /// Spans in one request.
    pub spans_max: usize,
    /// Spans in requests that wait for the collector, the one on its way included. The default is
    /// above the specification's 2048: a busy gateway finishes that many calls in less time than
    /// a collector takes to restart. What they take is bounded in bytes as well.
    pub waiting_spans_max: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), spans_max: 512, waiting_spans_max: 32_768 }
    }
}

/// How long to try (`OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_EXPORT_TIMEOUT`), and the pauses.
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

/// The outcome of reading the configuration.
#[derive(Clone, Debug)]
pub struct Configured {
    /// `None` when `OTEL_SDK_DISABLED` is true.
    pub settings: Option<Settings>,
    /// What was ignored, in words for a person.
    pub warnings: Vec<String>,
}

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
    #[error(
        "{source_name} has the scheme {scheme}, but only http is supported; for TLS run a local collector that forwards"
    )]
    UnsupportedScheme {
        /// The flag or variable that it came from.
        source_name: &'static str,
        /// The scheme.
        scheme: String,
    },
}

/// Reads the settings for traces. `env` looks up a variable.
pub fn settings(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Configured, ConfigError> {
    let mut env = Env::new(env);
    if env.flag("OTEL_SDK_DISABLED") {
        return Ok(Configured { settings: None, warnings: env.warnings });
    }
    protocol(&mut env);
    let settings = Settings {
        endpoint: endpoint(flags, &env)?,
        headers: headers(&mut env),
        compression: compression(&mut env),
        batch: batch(&mut env),
        retry: retry(&mut env),
        resource: resource(&mut env),
    };
    Ok(Configured { settings: Some(settings), warnings: env.warnings })
}

/// The variable for traces, then the one for all signals.
macro_rules! signal {
    ($suffix:literal) => {
        [concat!("OTEL_EXPORTER_OTLP_TRACES_", $suffix), concat!("OTEL_EXPORTER_OTLP_", $suffix)]
    };
}

fn protocol(env: &mut Env<'_>) {
    for name in signal!("PROTOCOL") {
        if env.text(name).is_some_and(|value| !value.eq_ignore_ascii_case("http/protobuf")) {
            env.warnings.push(format!("{name} is ignored: only http/protobuf is supported"));
        }
    }
}

fn endpoint(flags: &Flags, env: &Env<'_>) -> Result<Uri, ConfigError> {
    let [traces, general] = signal!("ENDPOINT");
    if let Some(url) = env.text(traces) {
        return parse_endpoint(traces, &url);
    }
    let flag = flags.endpoint.as_deref().map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned);
    let (source_name, base) = match (flag, env.text(general)) {
        (Some(url), _) => ("--otel-endpoint", url),
        (None, Some(url)) => (general, url),
        (None, None) => (general, ENDPOINT_DEFAULT.to_owned()),
    };
    let base = parse_endpoint(source_name, &base)?;
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    let path = PathAndQuery::try_from(path).map_err(|_| ConfigError::BadEndpoint { source_name })?;
    let mut parts = base.into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| ConfigError::BadEndpoint { source_name })
}

fn parse_endpoint(source_name: &'static str, url: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = url.parse().map_err(|_| ConfigError::BadEndpoint { source_name })?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some(scheme), Some(_)) => Err(ConfigError::UnsupportedScheme { source_name, scheme: scheme.to_owned() }),
        _ => Err(ConfigError::BadEndpoint { source_name }),
    }
}

/// The headers of the variable for traces replace those of the general one as a whole.
fn headers(env: &mut Env<'_>) -> Headers {
    let list = signal!("HEADERS").into_iter().find_map(|name| env.text(name).map(|list| (name, list)));
    let mut headers = Headers::default();
    let Some((name, list)) = list else { return headers };
    for (index, pair) in pairs(&list).enumerate() {
        let header = pair.ok().and_then(|(key, value)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(key).ok()?, value))
        });
        match header {
            Some(header) => headers.0.push(header),
            // Neither key nor value is shown: with a typo, either may be the secret.
            None => env.warnings.push(format!("{name}: member {} is not a valid header and is ignored", index + 1)),
        }
    }
    headers
}

fn compression(env: &mut Env<'_>) -> Compression {
    let parsed = env.first(&signal!("COMPRESSION"), |env, name| match env.text(name)?.to_ascii_lowercase().as_str() {
        "none" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        _ => {
            env.warnings.push(format!("{name} is neither gzip nor none and is ignored"));
            None
        }
    });
    parsed.unwrap_or_default()
}

fn batch(env: &mut Env<'_>) -> Batch {
    let default = Batch::default();
    let mut batch = Batch {
        delay: env.duration("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(default.delay),
        spans_max: env.positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(default.spans_max),
        waiting_spans_max: env.positive("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(default.waiting_spans_max),
    };
    if batch.spans_max > batch.waiting_spans_max {
        env.warnings.push("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is above the queue size and is lowered to it".to_owned());
        batch.spans_max = batch.waiting_spans_max;
    }
    batch
}

fn retry(env: &mut Env<'_>) -> Retry {
    let default = Retry::default();
    // Zero means no limit.
    let limit = |given: Option<Duration>, default| given.map_or(default, |given| Some(given).filter(|g| !g.is_zero()));
    let attempt = env.first(&signal!("TIMEOUT"), |env, name| env.duration(name));
    let total = env.duration("OTEL_BSP_EXPORT_TIMEOUT");
    Retry {
        attempt_timeout: limit(attempt, default.attempt_timeout),
        total_timeout: limit(total, default.total_timeout),
        ..default
    }
}

const _: () = assert!(limits::EXPORT_WAITING_BYTES_MAX >= limits::EXPORT_REQUEST_BYTES_TARGET);
