//! Where spans and metrics go and how, from flags and `OTEL_*` variables.
//!
//! A flag wins over the variables that speak of all signals, and a variable that speaks of one
//! signal wins over both. A value that can't be used is as good as unset, and is told of; but for
//! an endpoint, without which nothing could go where it should.

mod collector;
mod endpoint;
mod env;
mod pipeline;
mod proxy;
mod resource;
#[cfg(test)]
mod tests;

use std::time::Duration;

use agentsight_otlp::metric::Temporality;
use hyper::Uri;

use self::env::Env;
pub use self::{
    collector::{Compression, Headers, Retry, Tls},
    endpoint::ConfigError,
    pipeline::Batch,
    proxy::Proxy,
    resource::Resource,
};
use super::{
    batch::{Encoding, Signal},
    limit::AttributeLimits,
    sampler::Sampler,
};
use crate::log::Level;

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
    /// Over which proxy, if not directly.
    pub proxy: Option<Proxy>,
    /// Whom to trust and who we are, where the endpoint's scheme is https.
    pub tls: Tls,
    /// Headers that go with each request.
    pub headers: Headers,
    /// How requests are written down.
    pub encoding: Encoding,
    /// Whether requests are compressed.
    pub compression: Compression,
    /// How long to try.
    pub retry: Retry,
    /// When requests are closed, and how many wait.
    pub batch: Batch,
    /// What a span may have at most.
    pub attributes: AttributeLimits,
    /// Which spans are exported.
    pub sampler: Sampler,
    /// Resource attributes.
    pub resource: Resource,
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

/// The outcome of reading the configuration.
#[derive(Clone, Debug)]
pub struct Configured<S = Settings> {
    /// `None` when it is not wanted, or `OTEL_SDK_DISABLED` is true.
    pub settings: Option<S>,
    /// What was ignored, in words for a person.
    pub warnings: Vec<String>,
}

/// Reads the settings for traces, which a flag has asked for. `env` looks up a variable.
pub fn settings(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Configured, ConfigError> {
    let mut env = Env::new(env);
    if pipeline::disabled(&mut env) {
        return Ok(Configured { settings: None, warnings: env.warnings });
    }
    if !pipeline::exporters(Signal::Traces, &mut env).unwrap_or(true) {
        env.warn("OTEL_TRACES_EXPORTER is ignored, since spans were asked for by a flag");
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
) -> Result<Configured<MetricSettings>, ConfigError> {
    let mut env = Env::new(env);
    let wanted =
        !pipeline::disabled(&mut env) && (asked || pipeline::exporters(Signal::Metrics, &mut env).unwrap_or(false));
    if !wanted {
        return Ok(Configured { settings: None, warnings: env.warnings });
    }
    let settings = MetricSettings {
        transport: transport(Signal::Metrics, flags, &mut env)?,
        interval: pipeline::interval(&mut env),
        temporality: pipeline::temporality(&mut env),
    };
    pipeline::aggregation(&mut env);
    Ok(Configured { settings: Some(settings), warnings: env.warnings })
}

/// Up to which level lines go to stderr (`OTEL_LOG_LEVEL`), and what was wrong with it. It speaks of all that the
/// engine says, whether anything is exported or not. Nothing is more talkative than `info`, so the levels beyond are
/// the same.
pub fn log_level(env: &dyn Fn(&str) -> Option<String>) -> (Option<Level>, Vec<String>) {
    let info = Some(Level::Info);
    let known = [
        ("none", None),
        ("error", Some(Level::Error)),
        ("warn", Some(Level::Warn)),
        ("info", info),
        ("debug", info),
        ("verbose", info),
        ("all", info),
    ];
    let mut env = Env::new(env);
    let unknown = "is none of none, error, warn, info, debug, verbose and all, and is ignored";
    let level = env.choice(&["OTEL_LOG_LEVEL"], &known, unknown).unwrap_or(info);
    (level, env.warnings)
}

fn transport(signal: Signal, flags: &Flags, env: &mut Env<'_>) -> Result<Settings, ConfigError> {
    let endpoint = endpoint::endpoint(signal, flags, env)?;
    Ok(Settings {
        proxy: proxy::proxy(&endpoint, env),
        endpoint,
        tls: collector::tls(signal, env),
        headers: collector::headers(signal, env),
        encoding: collector::encoding(signal, env),
        compression: collector::compression(signal, env),
        retry: collector::retry(signal, env),
        batch: pipeline::batch(env),
        attributes: pipeline::attribute_limits(env),
        sampler: pipeline::sampler(env),
        resource: resource::resource(env),
    })
}

/// The variable for this signal, then the one for all.
macro_rules! variables {
    ($signal:expr, $suffix:literal) => {
        match $signal {
            $crate::export::batch::Signal::Traces => {
                [concat!("OTEL_EXPORTER_OTLP_TRACES_", $suffix), concat!("OTEL_EXPORTER_OTLP_", $suffix)]
            }
            $crate::export::batch::Signal::Metrics => {
                [concat!("OTEL_EXPORTER_OTLP_METRICS_", $suffix), concat!("OTEL_EXPORTER_OTLP_", $suffix)]
            }
        }
    };
}
use variables;
