//! An exchange as an OTLP span.

use agentsight_otlp::{AnyValue, Appended, Request, Span, SpanFlags, SpanKind, Status};

use super::limit::{AttributeLimits, Limited, Source};
use crate::exchange::{Exchange, Role, Value};

/// Appends the span of `exchange`, whose attributes keep to `limits`. `name` is scratch space.
pub fn append(exchange: &Exchange, limits: &AttributeLimits, name: &mut String, request: &mut Request) -> Appended {
    exchange.name(name);
    exchange.call.with(|call| {
        request.append(&Span {
            trace_id: exchange.trace.trace_id,
            span_id: exchange.trace.span_id,
            trace_state: call.trace_state.unwrap_or_default(),
            parent_span_id: exchange.trace.parent_span_id,
            // A parent is only ever known from a request that came over the wire.
            flags: SpanFlags::new(exchange.trace.flags, exchange.trace.parent_span_id.is_some()),
            name,
            kind: match exchange.role {
                Role::Client => SpanKind::Client,
                Role::Server => SpanKind::Server,
            },
            start_time_unix_nano: exchange.start_unix_nano,
            end_time_unix_nano: exchange.start_unix_nano.saturating_add(exchange.duration_nano()),
            attributes: Limited::new(Shown(exchange), limits),
            // The description would only repeat `error.type`.
            status: if call.error_type.is_some() { Status::Error("") } else { Status::Unset },
        })
    })
}

/// The attributes of an exchange.
struct Shown<'a>(&'a Exchange);

impl Source for Shown<'_> {
    fn each(&self, visit: &mut impl FnMut(&str, &AnyValue<'_>)) {
        self.0.attributes(&mut |key, value| match value {
            Value::Str(text) => visit(key, &AnyValue::Str(text)),
            Value::Int(number) => visit(key, &AnyValue::Int(number)),
            Value::Double(number) => visit(key, &AnyValue::Double(number)),
            Value::Bool(flag) => visit(key, &AnyValue::Bool(flag)),
            Value::List(list) => visit(key, &AnyValue::Strings(list)),
        });
    }
}
