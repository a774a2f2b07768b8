//! Generated attributes, and the same as this crate's borrowed ones.

use agentsight_otlp::{AnyValue, Attributes};
use opentelemetry_proto::tonic::common::v1::{self as oracle, KeyValue, any_value::Value};
use proptest::prelude::*;

fn value() -> impl Strategy<Value = oracle::AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,200}".prop_map(|text| Some(Value::StringValue(text))),
        any::<bool>().prop_map(|value| Some(Value::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(Value::IntValue(value))),
        prop_oneof![any::<f64>().prop_filter("comparable", |value| !value.is_nan()), Just(f64::INFINITY)]
            .prop_map(|value| Some(Value::DoubleValue(value))),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Some(Value::BytesValue(bytes))),
        proptest::collection::vec(".{0,40}", 0..6).prop_map(|texts| {
            let values = texts.into_iter().map(|text| oracle::AnyValue { value: Some(Value::StringValue(text)) });
            Some(Value::ArrayValue(oracle::ArrayValue { values: values.collect() }))
        }),
    ]
    .prop_map(|value| oracle::AnyValue { value });
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5)
                .prop_map(|values| Value::ArrayValue(oracle::ArrayValue { values })),
            proptest::collection::vec((".{1,9}", inner), 0..5).prop_map(|values| {
                let values = values.into_iter().map(|(key, value)| key_value(key, value)).collect();
                Value::KvlistValue(oracle::KeyValueList { values })
            }),
        ]
        .prop_map(|value| oracle::AnyValue { value: Some(value) })
    })
}

fn key_value(key: String, value: oracle::AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..Default::default() }
}

/// A few attributes with values of all kinds.
pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    proptest::collection::vec((".{1,40}", value()), 0..8)
        .prop_map(|list| list.into_iter().map(|(key, value)| key_value(key, value)).collect())
}

/// What a request in JSON says. The types don't understand what the mapping has for doubles without
/// end (which is tested where it is written), so those must not be in it.
#[allow(dead_code, reason = "not every test has requests")]
pub fn from_json<M: serde::de::DeserializeOwned>(body: &[u8]) -> M {
    match serde_json::from_slice(body) {
        Ok(message) => message,
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(body)),
    }
}

/// Puts a number for each double that is none.
#[allow(dead_code, reason = "not every test has requests")]
pub fn make_finite(attributes: &mut [KeyValue]) {
    attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut()).for_each(make_value_finite);
}

fn make_value_finite(value: &mut oracle::AnyValue) {
    match &mut value.value {
        Some(Value::DoubleValue(double)) if !double.is_finite() => *double = 0.1,
        Some(Value::ArrayValue(list)) => list.values.iter_mut().for_each(make_value_finite),
        Some(Value::KvlistValue(list)) => make_finite(&mut list.values),
        _ => {}
    }
}

/// Generated attributes as a visitor.
pub struct Given<'a>(pub &'a [KeyValue]);

impl Attributes for Given<'_> {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        for attribute in self.0 {
            visit(&attribute.key, &borrow(attribute.value.as_ref().unwrap()));
        }
    }
}

/// `value` as this crate's type. Lists are leaked; it is a test.
fn borrow(value: &oracle::AnyValue) -> AnyValue<'_> {
    match &value.value {
        None => AnyValue::Empty,
        Some(Value::StringValue(text)) => AnyValue::Str(text),
        Some(Value::BoolValue(value)) => AnyValue::Bool(*value),
        Some(Value::IntValue(value)) => AnyValue::Int(*value),
        Some(Value::DoubleValue(value)) => AnyValue::Double(*value),
        Some(Value::BytesValue(bytes)) => AnyValue::Bytes(bytes),
        Some(Value::ArrayValue(list)) => match list.values.iter().map(text).collect::<Option<Vec<_>>>() {
            Some(texts) => AnyValue::Strings(texts.leak()),
            None => AnyValue::Array(list.values.iter().map(borrow).collect::<Vec<_>>().leak()),
        },
        Some(Value::KvlistValue(list)) => AnyValue::Map(
            list.values
                .iter()
                .map(|member| (member.key.as_str(), borrow(member.value.as_ref().unwrap())))
                .collect::<Vec<_>>()
                .leak(),
        ),
        Some(Value::StringValueStrindex(_)) => unreachable!("profiles only"),
    }
}

fn text(value: &oracle::AnyValue) -> Option<&str> {
    match &value.value {
        Some(Value::StringValue(text)) => Some(text),
        _ => None,
    }
}
