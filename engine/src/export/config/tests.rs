//! The rules of the variables, one after the other.

use std::{path::PathBuf, time::Duration};

use agentsight_otlp::metric::Temporality;

use super::*;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn configure(flag: Option<&str>, variables: Variables<'_>) -> Result<Configured, ConfigError> {
    let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    settings(&Flags { endpoint: flag.map(str::to_owned) }, &env)
}

fn configure_metrics(asked: bool, flag: Option<&str>, variables: Variables<'_>) -> Configured<MetricSettings> {
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
    // A variable for one signal is more special than a flag for all, and that is said.
    check(Some("http://f:1"), &[(TRACES, "http://b/t")], "http://b/t");
    let warnings = configure(Some("http://f:1"), &[(TRACES, "http://b/t")]).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("wins over --otel-endpoint"), "{warnings:?}");
}

#[test]
fn the_port_of_grpc_is_noticed() {
    let settings = configured(&[(GENERAL, "http://c:4317")], &["listen for gRPC"]);
    assert_eq!(settings.endpoint.to_string(), "http://c:4317/v1/traces");
    configured(&[(TRACES, "http://c:4317/v1/traces")], &[TRACES]);
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
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
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
        &[(HEADERS, "Content-Type=text/plain,a=1,content-length=3")],
        &["content-type", "content-length"],
        &[("a", "1")],
    );
    check(
        &[(HEADERS, "s3cret,a=1,s p=x,b=%0a,c=%zz")],
        &["member 1", "member 3", "member 4", "member 5"],
        &[("a", "1")],
    );
}

#[test]
fn header_values_are_never_printed() {
    let configured = configure(None, &[("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret,s3cret,bad=s3cret%")]).unwrap();
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
    let given = configured(
        &[
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/all"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/ca"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/all"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key"),
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "/metrics"),
        ],
        &[],
    );
    assert_eq!(given.tls, Tls { authorities: path("/ca"), client_certificate: None, client_key: path("/key") });
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
fn protocol() {
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
    const GENERAL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
    let check = |variables: Variables<'_>, warnings: &[&str], expected| {
        assert_eq!(configured(variables, warnings).encoding, expected, "{variables:?}");
    };
    check(&[], &[], Encoding::Protobuf);
    check(&[(GENERAL, "")], &[], Encoding::Protobuf);
    check(&[(GENERAL, "HTTP/protobuf")], &[], Encoding::Protobuf);
    check(&[(GENERAL, "http/JSON")], &[], Encoding::Json);
    check(&[(GENERAL, "grpc")], &["http/protobuf and http/json are supported"], Encoding::Protobuf);
    check(&[(GENERAL, "http/json"), (TRACES, "http/protobuf")], &[], Encoding::Protobuf);
    check(&[(GENERAL, "http/json"), (TRACES, "grpc")], &[TRACES], Encoding::Json);
    check(&[(TRACES, "json"), (GENERAL, "xml")], &[TRACES, GENERAL], Encoding::Protobuf);
}

#[test]
fn what_switches_it_off() {
    configured(&[("OTEL_SDK_DISABLED", "False")], &[]);
    configured(&[("OTEL_SDK_DISABLED", "1")], &["OTEL_SDK_DISABLED"]);
    configured(&[("OTEL_SDK_DISABLED", "")], &[]);
    let disabled = configure(None, &[("OTEL_SDK_DISABLED", "TRUE"), (GENERAL, "rubbish")]).unwrap();
    assert!(disabled.settings.is_none());
}

#[test]
fn what_has_no_effect() {
    // Only gRPC reads it; over HTTP the URL's scheme decides.
    let settings = configured(&[("OTEL_EXPORTER_OTLP_INSECURE", "true"), (GENERAL, "https://c")], &[]);
    assert_eq!(settings.endpoint.scheme_str(), Some("https"));
    configured(&[("OTEL_CONFIG_FILE", "/etc/otel.yaml")], &["OTEL_CONFIG_FILE"]);
    // Spans have no events or links, and trace contexts are read as they are on the wire.
    for name in ["OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"] {
        assert_eq!(configured(&[(name, "1")], &[]).attributes, AttributeLimits::default());
    }
    configured(&[("OTEL_PROPAGATORS", "b3"), ("OTEL_BLRP_MAX_QUEUE_SIZE", "x"), ("OTEL_LOGS_EXPORTER", "x")], &[]);
    // A flag has asked for spans.
    configured(&[("OTEL_TRACES_EXPORTER", "otlp")], &[]);
    configured(&[("OTEL_TRACES_EXPORTER", "none")], &["asked for by a flag"]);
    configured(&[("OTEL_TRACES_EXPORTER", "console,otlp")], &["other than otlp and none"]);
}

#[test]
fn log_levels() {
    let check = |value: Option<&str>, warnings: usize, expected| {
        let (level, told) = log_level(&|name| value.filter(|_| name == "OTEL_LOG_LEVEL").map(str::to_owned));
        assert_eq!((level, told.len()), (expected, warnings), "{value:?}: {told:?}");
        assert!(told.iter().all(|told| told.starts_with("OTEL_LOG_LEVEL ")), "{told:?}");
    };
    check(None, 0, Some(Level::Info));
    check(Some(" "), 0, Some(Level::Info));
    check(Some("none"), 0, None);
    check(Some("ERROR"), 0, Some(Level::Error));
    check(Some("Warn"), 0, Some(Level::Warn));
    for more in ["info", "debug", "verbose", "ALL"] {
        check(Some(more), 0, Some(Level::Info));
    }
    for wrong in ["warning", "5", "quiet"] {
        check(Some(wrong), 1, Some(Level::Info));
    }
}

#[test]
fn attribute_limits() {
    const COUNT: &str = "OTEL_ATTRIBUTE_COUNT_LIMIT";
    const SPAN_COUNT: &str = "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT";
    const LENGTH: &str = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT";
    const SPAN_LENGTH: &str = "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT";
    let check = |variables: Variables<'_>, warnings: &[&str], count_max, value_chars_max| {
        let expected = AttributeLimits { count_max, value_chars_max };
        assert_eq!(configured(variables, warnings).attributes, expected, "{variables:?}");
    };
    check(&[], &[], 128, None);
    check(&[(COUNT, "10"), (LENGTH, "20")], &[], 10, Some(20));
    check(&[(COUNT, "10"), (LENGTH, "20"), (SPAN_COUNT, "5"), (SPAN_LENGTH, "6")], &[], 5, Some(6));
    check(&[(COUNT, "10"), (SPAN_COUNT, "many")], &[SPAN_COUNT], 10, None);
    check(&[(COUNT, "-1"), (LENGTH, "x")], &[COUNT, LENGTH], 128, None);
    check(&[(COUNT, "0"), (LENGTH, "0")], &[], 0, Some(0));
}

#[test]
fn samplers() {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let check = |variables: Variables<'_>, warnings: &[&str], by_parent, ratio| {
        assert_eq!(configured(variables, warnings).sampler, Sampler::new(by_parent, ratio), "{variables:?}");
    };
    check(&[], &[], false, 1.0);
    check(&[(NAME, "ALWAYS_ON")], &[], false, 1.0);
    check(&[(NAME, "always_off")], &[], false, 0.0);
    check(&[(NAME, "traceidratio"), (ARGUMENT, "0.25")], &[], false, 0.25);
    check(&[(NAME, "traceidratio")], &[], false, 1.0);
    check(&[(NAME, "parentbased_always_on")], &[], true, 1.0);
    check(&[(NAME, "parentbased_always_off")], &[], true, 0.0);
    check(&[(NAME, "parentbased_traceidratio"), (ARGUMENT, "1")], &[], true, 1.0);
    for wrong in ["1.5", "-0.1", "NaN", "half"] {
        check(&[(NAME, "parentbased_traceidratio"), (ARGUMENT, wrong)], &[ARGUMENT], true, 1.0);
    }
    check(&[(NAME, "jaeger_remote")], &[NAME], false, 1.0);
    // An argument that nobody reads is not looked at.
    check(&[(NAME, "always_on"), (ARGUMENT, "half")], &[], false, 1.0);
}

#[test]
fn proxies() {
    const HTTP: &str = "http://c.example:4318/v1/traces";
    const HTTPS: &str = "https://c.example/v1/traces";
    let check = |endpoint: &str, variables: Variables<'_>, warnings: &[&str], expected: Option<&str>| {
        let variables = [&[(TRACES, endpoint)], variables].concat();
        let proxy = configured(&variables, warnings).proxy;
        assert_eq!(proxy.map(|proxy| proxy.uri().to_string()).as_deref(), expected, "{variables:?}");
    };
    check(HTTP, &[], &[], None);
    check(HTTP, &[("HTTP_PROXY", "http://p:1")], &[], Some("http://p:1/"));
    check(HTTP, &[("http_proxy", "http://p:1"), ("HTTP_PROXY", "http://q:1")], &[], Some("http://p:1/"));
    check(HTTP, &[("http_proxy", ""), ("HTTP_PROXY", "http://q:1")], &[], Some("http://q:1/"));
    check(HTTP, &[("HTTPS_PROXY", "http://p:1")], &[], None);
    check(HTTPS, &[("HTTP_PROXY", "http://p:1")], &[], None);
    check(HTTPS, &[("https_proxy", "https://p:1")], &[], Some("https://p:1/"));
    check(HTTPS, &[("ALL_PROXY", "socks5://p:1")], &[], Some("socks5://p:1/"));
    check(HTTPS, &[("ALL_PROXY", "http://p:1"), ("HTTPS_PROXY", "http://q:1")], &[], Some("http://q:1/"));
    check(HTTP, &[("HTTP_PROXY", "p:3128")], &[], Some("http://p:3128/"));
    check(HTTP, &[("HTTP_PROXY", "http://user:s3cret@p:1/x")], &[], Some("http://p:1/"));
    check(HTTP, &[("HTTP_PROXY", "ftp://p:1")], &["HTTP_PROXY"], None);
    check(HTTP, &[("HTTP_PROXY", "http://")], &["HTTP_PROXY"], None);
    check(HTTP, &[("ALL_PROXY", "socks4://p:1")], &["ALL_PROXY"], None);
    // What is on this host is reached directly.
    for here in ["http://localhost:4318", "http://127.1.2.3/", "http://[::1]:4318/", "http://c.localhost./"] {
        check(here, &[("HTTP_PROXY", "http://p:1")], &[], None);
    }
    let exempt = |endpoint: &str, list: &str, expected: bool| {
        let through = if expected { None } else { Some("http://p:1/") };
        check(endpoint, &[("ALL_PROXY", "http://p:1"), ("NO_PROXY", list)], &[], through);
    };
    exempt(HTTP, "c.example", true);
    exempt(HTTP, "C.Example", true);
    exempt(HTTP, "example", true);
    exempt(HTTP, ".example", true);
    exempt(HTTP, "*.example", true);
    exempt(HTTP, "*", true);
    exempt(HTTP, "a.b, c.example ,d", true);
    exempt(HTTP, "a.b c.example", true);
    exempt(HTTP, "ample", false);
    exempt(HTTP, "b.c.example", false);
    exempt(HTTP, "c.example:4318", true);
    exempt(HTTP, "c.example:80", false);
    exempt(HTTPS, "c.example:443", true);
    exempt("http://10.1.2.3:4318/", "10.1.2.3", true);
    exempt("http://10.1.2.3:4318/", "10.0.0.0/8", true);
    exempt("http://10.1.2.3:4318/", "11.0.0.0/8, 10.1.2.4", false);
    exempt("http://[2001:db8::1]:4318/", "2001:db8::/32", true);
    exempt("http://[2001:db8::1]:4318/", "[2001:db8::1]:4318", true);
    exempt("http://[2001:db8::1]:4318/", "2001:db8::2", false);
    // Small letters win here too.
    check(HTTP, &[("ALL_PROXY", "http://p:1"), ("no_proxy", "x"), ("NO_PROXY", "*")], &[], Some("http://p:1/"));
}

#[test]
fn passwords_of_proxies_are_never_printed() {
    let configured = configure(Some("http://c"), &[("HTTP_PROXY", "http://user:s3cret@p:1")]).unwrap();
    assert!(!format!("{configured:?}").contains("s3cret"));
    let configured = configure(Some("http://c"), &[("HTTP_PROXY", "s3cret://user:s3cret@p:1")]).unwrap();
    assert!(configured.warnings.len() == 1 && !configured.warnings[0].contains("s3cret"));
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
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "/key"),
            ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "/own"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
        ],
    );
    let transport = given.settings.unwrap().transport;
    assert_eq!(transport.headers.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(transport.compression, Compression::None);
    assert_eq!(transport.retry.attempt_timeout, Some(Duration::from_millis(20)));
    assert_eq!(transport.retry.total_timeout, Some(Duration::from_millis(30)));
    let path = |path: &str| Some(PathBuf::from(path));
    let tls = Tls { authorities: path("/ca"), client_certificate: path("/own"), client_key: path("/key") };
    assert_eq!(transport.tls, tls);
    assert_eq!(transport.encoding, Encoding::Json);

    let given = configure_metrics(
        true,
        None,
        &[("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"), ("OTEL_METRIC_EXPORT_TIMEOUT", "soon")],
    );
    assert!(given.warnings.len() == 1 && given.warnings[0].starts_with("OTEL_METRIC_EXPORT_TIMEOUT"));
    let transport = given.settings.unwrap().transport;
    assert_eq!((transport.compression, transport.retry), (Compression::Gzip, Retry::default()));
    let given = configure_metrics(true, None, &[("OTEL_METRIC_EXPORT_TIMEOUT", "0")]);
    assert_eq!(given.settings.unwrap().transport.retry.total_timeout, None);
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
