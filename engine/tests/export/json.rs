//! `http/json`: the same requests in OTLP's JSON mapping.

use std::{collections::BTreeMap, time::Duration};

use agentsight::{
    export::config::{self, Flags, Settings},
    metrics::Cause,
};
use serde_json::Value;

use crate::support::{self, Answer, Collector, Received, ok};

fn settings(collector: &Collector, more: &[(&str, &str)]) -> Settings {
    let env = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("http/json".to_owned()),
        "OTEL_SERVICE_NAME" => Some("a \"quoted\" name".to_owned()),
        _ => more.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
    };
    let flags = Flags { endpoint: Some(format!("http://{}", collector.address)) };
    let mut settings = config::settings(&flags, &env).unwrap().settings.unwrap();
    settings.retry.pause_initial = Duration::from_millis(10);
    settings
}

fn spans(request: &Received) -> Vec<Value> {
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let of = &body["resourceSpans"][0];
    assert_eq!(attributes(&of["resource"])["service.name"]["stringValue"], "a \"quoted\" name");
    assert_eq!(of["scopeSpans"][0]["scope"]["name"], "agentsight");
    assert!(of["scopeSpans"][0]["schemaUrl"].as_str().unwrap().starts_with("https://opentelemetry.io/schemas/"));
    of["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let list = of["attributes"].as_array().unwrap().iter();
    list.map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone())).collect()
}

fn reply(status: u16, headers: &'static str, body: &str) -> Answer {
    Answer::Reply(status, headers, body.as_bytes().to_vec())
}

#[test]
fn spans_are_written_as_the_mapping_says() {
    let collector = Collector::start(vec![ok()]);
    let done = support::export(settings(&collector, &[]), 20, Duration::from_secs(10)).unwrap();
    assert_eq!((done.report.exported, done.report.losses), (20, vec![]), "{:?}", done.log);
    let spans: Vec<_> = collector.received().iter().flat_map(spans).collect();
    assert_eq!(spans.len(), 20);
    for (index, span) in (1..).zip(&spans) {
        assert_eq!(span["traceId"], format!("{index:032x}"));
        assert_eq!(span["spanId"], format!("{index:016x}"));
        assert_eq!(span["kind"], 3);
        assert_eq!(span["startTimeUnixNano"], format!("{}", 1_700_000_000_000_000_000_u64 + index - 1));
        let attributes = attributes(span);
        assert_eq!(attributes["gen_ai.usage.input_tokens"]["intValue"], "12");
        assert_eq!(attributes["gen_ai.request.temperature"]["doubleValue"], 0.7);
        let reasons = &attributes["gen_ai.response.finish_reasons"]["arrayValue"]["values"];
        assert_eq!(reasons[0]["stringValue"], "stop");
    }
}

#[test]
fn limits_of_attributes_hold() {
    let collector = Collector::start(vec![ok()]);
    let limits = [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3"), ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "2")];
    support::export(settings(&collector, &limits), 1, Duration::from_secs(10)).unwrap();
    let span = spans(&collector.received()[0]).remove(0);
    let attributes = attributes(&span);
    assert_eq!(attributes.len(), 3);
    assert!(span["droppedAttributesCount"].as_u64().unwrap() > 3, "{span}");
    assert_eq!(attributes["gen_ai.operation.name"]["stringValue"], "ch");
}

#[test]
fn answers_in_json_are_understood() {
    let partial = r#"{"partialSuccess":{"rejectedSpans":"4","errorMessage":"four are bad"}}"#;
    let json = "content-type: application/json\r\n";
    let collector = Collector::start(vec![reply(200, json, partial)]);
    let done = support::export(settings(&collector, &[]), 10, Duration::from_secs(10)).unwrap();
    assert_eq!((done.report.exported, done.report.losses), (6, vec![(Cause::ExportPartialRejected, 4)]));
    assert!(done.log[0].contains("four are bad"), "{:?}", done.log);

    let collector = Collector::start(vec![reply(400, json, r#"{"code":3,"message":"no such tenant"}"#)]);
    let done = support::export(settings(&collector, &[]), 10, Duration::from_secs(10)).unwrap();
    assert_eq!((done.report.exported, done.report.losses), (0, vec![(Cause::ExportRefused, 10)]));
    assert!(done.log[0].contains("no such tenant"), "{:?}", done.log);
}
