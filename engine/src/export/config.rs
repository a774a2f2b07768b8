//! Where spans go and how, from flags and `OTEL_*` variables.

use std::{fmt, path::PathBuf, time::Duration};

use agentsight_otlp::metric::Temporality;
use hyper::{
    Uri,
    header::{HeaderName, HeaderValue},
    http::uri::PathAndQuery,
};
use thiserror::Error;

use super::{
    batch::Signal,
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
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which speaks of traces alone. The same goes for metrics.
    pub endpoint: Option<String>,
}

/// Everything the exporter needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where requests are posted to, path included.
    pub endpoint: Uri,
    /// Whom to trust and who we are, where the endpoint's scheme is https.
    pub tls: Tls,
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

/// Everything that the export of metrics needs to know.
#[derive(Clone, Debug)]
pub struct MetricSettings {
    /// Where requests go and how.
    pub transport: Settings,
    /// How often metrics are exported (`OTEL_METRIC_EXPORT_INTERVAL`).
    pub interval: Duration,
    /// Since when values count (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
    pub temporality: Temporality,
}

/// The outcome of reading the configuration of metrics.
#[derive(Clone, Debug)]
pub struct ConfiguredMetrics {
    /// `None` when they are not wanted, or `OTEL_SDK_DISABLED` is true.
    pub settings: Option<MetricSettings>,
    /// What was ignored, in words for a person.
    pub warnings: Vec<String>,
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
    let settings = transport(Signal::Traces, flags, &mut env)?;
    Ok(Configured { settings: Some(settings), warnings: env.warnings })
}

/// Reads the settings for metrics. They are wanted when `asked`, by a flag, or when
/// `OTEL_METRICS_EXPORTER` is `otlp`; that variable's default elsewhere, `otlp`, is not the default
/// here, since few who ask for spans expect more. `env` looks up a variable.
pub fn metrics(
    asked: bool,
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<ConfiguredMetrics, ConfigError> {
    let mut env = Env::new(env);
    if env.flag("OTEL_SDK_DISABLED") || !(asked || metrics_exporter(&mut env)) {
        return Ok(ConfiguredMetrics { settings: None, warnings: env.warnings });
    }
    let transport = transport(Signal::Metrics, flags, &mut env)?;
    let interval = env.positive("OTEL_METRIC_EXPORT_INTERVAL").unwrap_or(60_000);
    let settings = MetricSettings {
        transport,
        interval: Duration::from_millis(interval as u64),
        temporality: temporality(&mut env),
    };
    aggregation(&mut env);
    Ok(ConfiguredMetrics { settings: Some(settings), warnings: env.warnings })
}

fn transport(signal: Signal, flags: &Flags, env: &mut Env<'_>) -> Result<Settings, ConfigError> {
    protocol(signal, env);
    Ok(Settings {
        endpoint: endpoint(signal, flags, env)?,
        tls: tls(signal, env),
        headers: headers(signal, env),
        compression: compression(signal, env),
        batch: batch(env),
        retry: retry(signal, env),
        resource: resource(env),
    })
}

/// `OTEL_METRICS_EXPORTER`: a list, of which only `otlp` and `none` mean something here.
fn metrics_exporter(env: &mut Env<'_>) -> bool {
    const NAME: &str = "OTEL_METRICS_EXPORTER";
    let Some(list) = env.text(NAME) else { return false };
    let mut wanted = false;
    for exporter in list.split(',').map(str::trim) {
        match exporter.to_ascii_lowercase().as_str() {
            "otlp" => wanted = true,
            "none" | "" => {}
            _ => env.warnings.push(format!("{NAME} has an exporter other than otlp and none, which is ignored")),
        }
    }
    wanted
}

/// `lowmemory` means delta for histograms, and all our metrics are histograms.
fn temporality(env: &mut Env<'_>) -> Temporality {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match env.text(NAME).unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "cumulative" => Temporality::Cumulative,
        "delta" | "lowmemory" => Temporality::Delta,
        _ => {
            env.warnings.push(format!("{NAME} is none of cumulative, delta and lowmemory, and is ignored"));
            Temporality::Cumulative
        }
    }
}

fn aggregation(env: &mut Env<'_>) {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    if env.text(NAME).is_some_and(|value| !value.eq_ignore_ascii_case("explicit_bucket_histogram")) {
        env.warnings.push(format!("{NAME} is ignored: only explicit_bucket_histogram is supported"));
    }
}

/// How long all attempts at a request may take.
const fn total_timeout(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "OTEL_BSP_EXPORT_TIMEOUT",
        Signal::Metrics => "OTEL_METRIC_EXPORT_TIMEOUT",
    }
}

/// The variable for this signal, then the one for all.
macro_rules! variables {
    ($signal:expr, $suffix:literal) => {
        match $signal {
            Signal::Traces => [concat!("OTEL_EXPORTER_OTLP_TRACES_", $suffix), concat!("OTEL_EXPORTER_OTLP_", $suffix)],
            Signal::Metrics => {
                [concat!("OTEL_EXPORTER_OTLP_METRICS_", $suffix), concat!("OTEL_EXPORTER_OTLP_", $suffix)]
            }
        }
    };
}

fn protocol(signal: Signal, env: &mut Env<'_>) {
    for name in variables!(signal, "PROTOCOL") {
        if env.text(name).is_some_and(|value| !value.eq_ignore_ascii_case("http/protobuf")) {
            env.warnings.push(format!("{name} is ignored: only http/protobuf is supported"));
        }
    }
}

fn endpoint(signal: Signal, flags: &Flags, env: &Env<'_>) -> Result<Uri, ConfigError> {
    let [own, general] = variables!(signal, "ENDPOINT");
    if let Some(url) = env.text(own) {
        return parse_endpoint(own, &url);
    }
    let flag = flags.endpoint.as_deref().map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned);
    let (source_name, base) = match (flag, env.text(general)) {
        (Some(url), _) => ("--otel-endpoint", url),
        (None, Some(url)) => (general, url),
        (None, None) => (general, ENDPOINT_DEFAULT.to_owned()),
    };
    let base = parse_endpoint(source_name, &base)?;
    let path = format!("{}{}", base.path().trim_end_matches('/'), signal.path());
    let path = PathAndQuery::try_from(path).map_err(|_| ConfigError::BadEndpoint { source_name })?;
    let mut parts = base.into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| ConfigError::BadEndpoint { source_name })
}

fn parse_endpoint(source_name: &'static str, url: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = url.parse().map_err(|_| ConfigError::BadEndpoint { source_name })?;
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

fn tls(signal: Signal, env: &mut Env<'_>) -> Tls {
    let mut file = |names: [&str; 2]| env.first(&names, |env, name| env.text(name)).map(PathBuf::from);
    Tls {
        authorities: file(variables!(signal, "CERTIFICATE")),
        client_certificate: file(variables!(signal, "CLIENT_CERTIFICATE")),
        client_key: file(variables!(signal, "CLIENT_KEY")),
    }
}

/// The headers of the variable for one signal replace those of the general one as a whole.
fn headers(signal: Signal, env: &mut Env<'_>) -> Headers {
    let list = variables!(signal, "HEADERS").into_iter().find_map(|name| env.text(name).map(|list| (name, list)));
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

fn compression(signal: Signal, env: &mut Env<'_>) -> Compression {
    let names = variables!(signal, "COMPRESSION");
    let parsed = env.first(&names, |env, name| match env.text(name)?.to_ascii_lowercase().as_str() {
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
    let delay = env.duration("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(default.delay);
    let spans_max = env.positive("OTEL_BSP_MAX_EXPORT_BATCH_SIZE");
    let waiting_spans_max = env.positive("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(default.waiting_spans_max);
    if spans_max.is_some_and(|spans_max| spans_max > waiting_spans_max) {
        env.warnings.push("OTEL_BSP_MAX_EXPORT_BATCH_SIZE is above the queue size and is lowered to it".to_owned());
    }
    Batch { delay, spans_max: spans_max.unwrap_or(default.spans_max).min(waiting_spans_max), waiting_spans_max }
}

fn retry(signal: Signal, env: &mut Env<'_>) -> Retry {
    let default = Retry::default();
    // Zero means no limit.
    let limit = |given: Option<Duration>, default| given.map_or(default, |given| Some(given).filter(|g| !g.is_zero()));
    let attempt = env.first(&variables!(signal, "TIMEOUT"), |env, name| env.duration(name));
    let total = env.duration(total_timeout(signal));
    Retry {
        attempt_timeout: limit(attempt, default.attempt_timeout),
        total_timeout: limit(total, default.total_timeout),
        ..default
    }
}

const _: () = assert!(limits::EXPORT_WAITING_BYTES_MAX >= limits::EXPORT_REQUEST_BYTES_TARGET);

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn configure(flag: Option<&str>, variables: Variables<'_>) -> Result<Configured, ConfigError> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        settings(&Flags { endpoint: flag.map(str::to_owned) }, &env)
    }

    fn configure_metrics(asked: bool, flag: Option<&str>, variables: Variables<'_>) -> ConfiguredMetrics {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        metrics(asked, &Flags { endpoint: flag.map(str::to_owned) }, &env).unwrap()
    }

    /// The settings, which have to come with as many warnings as `warnings` and each about it.
    fn configured(variables: Variables<'_>, warnings: &[&str]) -> Settings {
        let configured = configure(None, variables).unwrap();
        assert_eq!(configured.warnings.len(), warnings.len(), "{variables:?}: {:?}", configured.warnings);
        for (warning, about) in configured.warnings.iter().zip(warnings) {
            assert!(warning.contains(about), "{warning}");
        }
        configured.settings.unwrap()
    }

    const GENERAL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn endpoint() {
        let check = |flag, variables: Variables<'_>, expected: &str| {
            let settings = configure(flag, variables).unwrap().settings.unwrap();
            assert_eq!(settings.endpoint.to_string(), expected, "{flag:?} {variables:?}");
        };
        check(None, &[], "http://localhost:4318/v1/traces");
        check(None, &[(GENERAL, ""), (TRACES, "  ")], "http://localhost:4318/v1/traces");
        check(None, &[(GENERAL, "http://c:4318")], "http://c:4318/v1/traces");
        check(None, &[(GENERAL, "http://c:4318/")], "http://c:4318/v1/traces");
        check(None, &[(GENERAL, "http://c:4318/x")], "http://c:4318/x/v1/traces");
        check(None, &[(GENERAL, "http://c:4318/x/")], "http://c:4318/x/v1/traces");
        check(None, &[(GENERAL, "http://c")], "http://c/v1/traces");
        check(None, &[(GENERAL, " http://c ")], "http://c/v1/traces");
        check(None, &[(GENERAL, "https://c/x")], "https://c/x/v1/traces");
        check(None, &[(GENERAL, "http://user:s3cret@c:1/x")], "http://c:1/x/v1/traces");
        check(None, &[(GENERAL, "http://[::1]:4318")], "http://[::1]:4318/v1/traces");
        check(None, &[(TRACES, "http://c:4318")], "http://c:4318/");
        check(None, &[(TRACES, "http://c:4318/x/")], "http://c:4318/x/");
        check(None, &[(GENERAL, "http://a"), (TRACES, "http://b/t?q=1")], "http://b/t?q=1");
        check(Some("http://f:1"), &[], "http://f:1/v1/traces");
        check(Some("http://f:1"), &[(GENERAL, "http://a")], "http://f:1/v1/traces");
        check(Some(""), &[(GENERAL, "http://a")], "http://a/v1/traces");
        check(Some("http://f:1"), &[(TRACES, "http://b/t")], "http://b/t");
    }

    #[test]
    fn endpoints_that_can_not_be_used() {
        let check = |flag, variables: Variables<'_>, expected: &str| {
            let error = configure(flag, variables).unwrap_err().to_string();
            assert!(error.contains(expected), "{flag:?} {variables:?}: {error}");
        };
        check(Some("localhost:4318"), &[], "--otel-endpoint is not a URL");
        check(Some("collector"), &[], "--otel-endpoint is not a URL");
        check(Some("/v1/traces"), &[], "--otel-endpoint is not a URL");
        check(None, &[(GENERAL, "http://")], "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL");
        check(None, &[(TRACES, "http://a b")], "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is not a URL");
        check(None, &[(GENERAL, "unix://c/x")], "unix");
    }

    #[test]
    fn header_fields() {
        const TRACES_HEADERS: &str = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
        const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
        let check = |variables: Variables<'_>, warnings: &[&str], expected: &[(&str, &str)]| {
            let Headers(headers) = configured(variables, warnings).headers;
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
            assert_eq!(headers, expected, "{variables:?}");
        };
        check(&[(HEADERS, "")], &[], &[]);
        check(&[(HEADERS, "Api-Key=k, x-b = c%20d ")], &[], &[("api-key", "k"), ("x-b", "c d")]);
        check(
            &[(HEADERS, "authorization=Basic YWxhZGRpbjpvcGVu==")],
            &[],
            &[("authorization", "Basic YWxhZGRpbjpvcGVu==")],
        );
        check(&[(HEADERS, "a=1"), (TRACES_HEADERS, "b=2")], &[], &[("b", "2")]);
        check(
            &[(HEADERS, "s3cret,a=1,s p=x,b=%0a,c=%zz")],
            &["member 1", "member 3", "member 4", "member 5"],
            &[("a", "1")],
        );
    }

    #[test]
    fn header_values_are_never_printed() {
        let configured =
            configure(None, &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret,s3cret,bad=s3cret%")]).unwrap();
        let printed = format!("{configured:?}");
        assert!(printed.contains("api-key") && !printed.contains("s3cret"), "{printed}");
    }

    #[test]
    fn tls_files() {
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(configured(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "")], &[]).tls, Tls::default());
        let given = configured(
            &[
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca"),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/all"),
                ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/traces"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
            ],
            &[],
        );
        let expected = Tls { authorities: path("/ca"), client_certificate: path("/traces"), client_key: path("/key") };
        assert_eq!(given.tls, expected);
    }

    #[test]
    fn compression() {
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION";
        const GENERAL: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
        let check = |variables: Variables<'_>, warnings: &[&str], expected| {
            assert_eq!(configured(variables, warnings).compression, expected, "{variables:?}");
        };
        check(&[], &[], Compression::None);
        check(&[(GENERAL, "gzip")], &[], Compression::Gzip);
        check(&[(GENERAL, "GZip")], &[], Compression::Gzip);
        check(&[(GENERAL, "gzip"), (TRACES, "none")], &[], Compression::None);
        check(&[(GENERAL, "gzip"), (TRACES, "")], &[], Compression::Gzip);
        check(&[(GENERAL, "gzip"), (TRACES, "zstd")], &[TRACES], Compression::Gzip);
        check(&[(GENERAL, "lz4")], &[GENERAL], Compression::None);
    }

    #[test]
    fn times() {
        const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
        const GENERAL: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
        const TOTAL: &str = "OTEL_BSP_EXPORT_TIMEOUT";
        let check = |variables: Variables<'_>, warnings: &[&str], attempt: Option<u64>, total: Option<u64>| {
            let retry = configured(variables, warnings).retry;
            let limits = (retry.attempt_timeout, retry.total_timeout);
            assert_eq!(limits, (attempt.map(Duration::from_millis), total.map(Duration::from_millis)), "{variables:?}");
        };
        check(&[], &[], Some(10_000), Some(30_000));
        check(&[(GENERAL, "250"), (TOTAL, "900")], &[], Some(250), Some(900));
        check(&[(GENERAL, "250"), (TRACES, "50")], &[], Some(50), Some(30_000));
        check(&[(GENERAL, "250"), (TRACES, "x")], &[TRACES], Some(250), Some(30_000));
        check(&[(GENERAL, "0"), (TOTAL, "0")], &[], None, None);
        check(&[(GENERAL, "-1"), (TOTAL, "1.5")], &[GENERAL, TOTAL], Some(10_000), Some(30_000));
    }

    #[test]
    fn batches() {
        const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
        const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
        let check = |variables: Variables<'_>, warnings: &[&str], delay, spans_max, waiting_spans_max| {
            let expected = Batch { delay: Duration::from_millis(delay), spans_max, waiting_spans_max };
            assert_eq!(configured(variables, warnings).batch, expected, "{variables:?}");
        };
        check(&[], &[], 5000, 512, 32_768);
        check(&[(DELAY, "100"), (BATCH, "10"), (QUEUE, "20")], &[], 100, 10, 20);
        check(&[(DELAY, "0")], &[], 0, 512, 32_768);
        check(&[(BATCH, "0"), (QUEUE, "0")], &[BATCH, QUEUE], 5000, 512, 32_768);
        check(&[(DELAY, "soon"), (BATCH, "-5"), (QUEUE, "1e3")], &[DELAY, BATCH, QUEUE], 5000, 512, 32_768);
        check(&[(BATCH, "30"), (QUEUE, "20")], &[BATCH], 5000, 20, 20);
        check(&[(QUEUE, "100")], &[], 5000, 100, 100);
    }

    #[test]
    fn protocol_and_switch() {
        configured(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/protobuf"), ("OTEL_SDK_DISABLED", "False")], &[]);
        configured(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], &["only http/protobuf"]);
        configured(&[("OTEL_SDK_DISABLED", "1")], &["OTEL_SDK_DISABLED"]);
        configured(&[("OTEL_SDK_DISABLED", "")], &[]);
        let disabled = configure(None, &[("OTEL_SDK_DISABLED", "TRUE"), (GENERAL, "rubbish")]).unwrap();
        assert!(disabled.settings.is_none());
    }

    #[test]
    fn metrics_are_wanted_when_someone_says_so() {
        const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
        let check = |asked, variables: Variables<'_>, warnings: &[&str], wanted: bool| {
            let configured = configure_metrics(asked, None, variables);
            assert_eq!(configured.settings.is_some(), wanted, "{asked} {variables:?}");
            assert_eq!(configured.warnings.len(), warnings.len(), "{:?}", configured.warnings);
            assert!(configured.warnings.iter().zip(warnings).all(|(warning, about)| warning.contains(about)));
        };
        check(false, &[], &[], false);
        check(false, &[(EXPORTER, " ")], &[], false);
        check(false, &[(EXPORTER, "none")], &[], false);
        check(false, &[(EXPORTER, "OTLP")], &[], true);
        check(false, &[(EXPORTER, "console, otlp")], &[EXPORTER], true);
        check(false, &[(EXPORTER, "prometheus")], &[EXPORTER], false);
        check(true, &[], &[], true);
        // A flag wins over the environment.
        check(true, &[(EXPORTER, "none")], &[], true);
        check(true, &[("OTEL_SDK_DISABLED", "true")], &[], false);
    }

    #[test]
    fn metrics_have_variables_of_their_own() {
        let endpoint = |flag, variables: Variables<'_>, expected: &str| {
            let settings = configure_metrics(true, flag, variables).settings.unwrap();
            assert_eq!(settings.transport.endpoint.to_string(), expected, "{flag:?} {variables:?}");
        };
        const OWN: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
        endpoint(None, &[], "http://localhost:4318/v1/metrics");
        endpoint(None, &[(GENERAL, "http://c:4318/x/")], "http://c:4318/x/v1/metrics");
        endpoint(None, &[(GENERAL, "http://a"), (TRACES, "http://b/t")], "http://a/v1/metrics");
        endpoint(None, &[(GENERAL, "http://a"), (OWN, "http://b/m")], "http://b/m");
        endpoint(Some("http://f:1"), &[], "http://f:1/v1/metrics");
        endpoint(Some("http://f:1"), &[(OWN, "http://b/m")], "http://b/m");

        let given = configure_metrics(
            true,
            None,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
                ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "b=2"),
                ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
                ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "20"),
                ("OTEL_METRIC_EXPORT_TIMEOUT", "30"),
                ("OTEL_BSP_EXPORT_TIMEOUT", "40"),
                ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/ca"),
            ],
        );
        let transport = given.settings.unwrap().transport;
        assert_eq!(transport.headers.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(transport.compression, Compression::None);
        assert_eq!(transport.retry.attempt_timeout, Some(Duration::from_millis(20)));
        assert_eq!(transport.retry.total_timeout, Some(Duration::from_millis(30)));
        assert_eq!(transport.tls.authorities, Some(PathBuf::from("/ca")));
    }

    #[test]
    fn interval_and_temporality() {
        const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
        const PREFERENCE: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        const AGGREGATION: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        let check = |variables: Variables<'_>, warnings: usize, interval_ms, temporality| {
            let configured = configure_metrics(true, None, variables);
            assert_eq!(configured.warnings.len(), warnings, "{:?}", configured.warnings);
            let settings = configured.settings.unwrap();
            let found = (settings.interval, settings.temporality);
            assert_eq!(found, (Duration::from_millis(interval_ms), temporality), "{variables:?}");
        };
        check(&[], 0, 60_000, Temporality::Cumulative);
        check(&[(INTERVAL, "250"), (PREFERENCE, "Delta")], 0, 250, Temporality::Delta);
        check(&[(PREFERENCE, "lowmemory")], 0, 60_000, Temporality::Delta);
        check(&[(PREFERENCE, "cumulative")], 0, 60_000, Temporality::Cumulative);
        check(&[(INTERVAL, "0"), (PREFERENCE, "both")], 2, 60_000, Temporality::Cumulative);
        check(&[(AGGREGATION, "explicit_bucket_histogram")], 0, 60_000, Temporality::Cumulative);
        check(&[(AGGREGATION, "base2_exponential_bucket_histogram")], 1, 60_000, Temporality::Cumulative);
    }

    #[test]
    fn resource_attributes() {
        const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
        const NAME: &str = "OTEL_SERVICE_NAME";
        let check = |variables: Variables<'_>, warnings: &[&str], expected: &[(&str, Option<&str>)]| {
            let resource = configured(variables, warnings).resource;
            for (key, value) in expected {
                let found: Vec<_> = resource.iter().filter(|(known, _)| known == key).collect();
                assert!(found.len() <= 1, "{key} is there once");
                assert_eq!(found.first().map(|(_, value)| value.as_str()), *value, "{variables:?} {key}");
            }
        };
        let version = Some(env!("CARGO_PKG_VERSION"));
        check(
            &[],
            &[],
            &[
                ("service.name", Some("agentsight")),
                ("service.version", version),
                ("os.type", Some("linux")),
                ("telemetry.sdk.name", Some("agentsight")),
                ("telemetry.sdk.language", Some("rust")),
                ("telemetry.sdk.version", version),
            ],
        );
        check(&[(NAME, "")], &[], &[("service.name", Some("agentsight"))]);
        check(&[(ATTRIBUTES, "service.name=a")], &[], &[("service.name", Some("a"))]);
        check(&[(ATTRIBUTES, "service.name=a"), (NAME, "b")], &[], &[("service.name", Some("b"))]);
        check(&[(ATTRIBUTES, "team=x%2Cy,host.name=h,team=z")], &[], &[("team", Some("z")), ("host.name", Some("h"))]);
        check(&[(ATTRIBUTES, "telemetry.sdk.name=x")], &[], &[("telemetry.sdk.name", Some("agentsight"))]);
        check(&[(ATTRIBUTES, "team=x,broken")], &[ATTRIBUTES], &[("team", None)]);
        check(&[(ATTRIBUTES, "team=%zz,a=b")], &[ATTRIBUTES], &[("team", None), ("a", None)]);
    }

    #[test]
    fn each_start_has_an_id_of_its_own() {
        let id = || {
            let resource = configured(&[], &[]).resource;
            resource.into_iter().find(|(key, _)| key == crate::semconv::SERVICE_INSTANCE_ID).unwrap().1
        };
        assert_ne!(id(), id());
        assert_eq!(id().len(), 36);
    }
}
