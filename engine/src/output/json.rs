//! One exchange as one JSON object.

use std::io::Write;

use crate::exchange::{Exchange, Role, Value};

/// Appends the object to `out`. `name` is scratch space.
pub(super) fn object(exchange: &Exchange, out: &mut Vec<u8>, name: &mut String) {
    exchange.name(name);
    out.extend_from_slice(b"{\"name\":");
    string(name, out);
    out.extend_from_slice(match exchange.role {
        Role::Client => b",\"kind\":\"CLIENT\"".as_slice(),
        Role::Server => b",\"kind\":\"SERVER\"".as_slice(),
    });
    out.extend_from_slice(b",\"trace_id\":");
    hex(&exchange.trace.trace_id, out);
    out.extend_from_slice(b",\"span_id\":");
    hex(&exchange.trace.span_id, out);
    if let Some(parent) = &exchange.trace.parent_span_id {
        out.extend_from_slice(b",\"parent_span_id\":");
        hex(parent, out);
    }
    let error = exchange.call.with(|call| call.error_type.is_some());
    let (start, end) = (exchange.start_unix_nano, exchange.start_unix_nano.saturating_add(exchange.duration_nano()));
    write(out, format_args!(",\"start_unix_nano\":{start},\"end_unix_nano\":{end}"));
    write(out, format_args!(",\"status\":\"{}\",\"attributes\":{{", if error { "ERROR" } else { "UNSET" }));
    let mut separator = false;
    exchange.attributes(&mut |key, attribute| {
        if separator {
            out.push(b',');
        }
        separator = true;
        string(key, out);
        out.push(b':');
        value(attribute, out);
    });
    out.extend_from_slice(b"}}");
}

fn value(value: Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Str(text) => string(text, out),
        Value::Int(number) => write(out, format_args!("{number}")),
        // `Debug` gives the shortest text that reads back as the same number.
        Value::Double(number) if number.is_finite() => write(out, format_args!("{number:?}")),
        // JSON has no such numbers; protobuf's JSON mapping spells them like this.
        Value::Double(number) if number.is_nan() => string("NaN", out),
        Value::Double(number) => string(if number > 0.0 { "Infinity" } else { "-Infinity" }, out),
        Value::Bool(flag) => write(out, format_args!("{flag}")),
        Value::List(list) => {
            out.push(b'[');
            for (index, text) in list.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                string(text, out);
            }
            out.push(b']');
        }
    }
}

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes everything");
}

/// A string with its quotes, RFC 8259 section 7. What needs no escape is copied in runs.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f | 0x7f)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        match special[0] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => write(out, format_args!("\\u{byte:04x}")),
        }
        rest = &special[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        write(out, format_args!("{byte:02x}"));
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_reads_back(text in "\\PC*", control in proptest::collection::vec(0..0xa0_u8, 0..40)) {
            let text: String = text.chars().chain(control.into_iter().map(char::from)).collect();
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            prop_assert!(!out.iter().any(|byte| byte.is_ascii_control()));
        }

        #[test]
        fn any_number_reads_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            let mut out = Vec::new();
            value(Value::Double(number), &mut out);
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            match read.as_f64() {
                // serde_json's fast reader may be off by the last bit.
                Some(read) => prop_assert!((read - number).abs() <= number.abs() * 1e-15),
                None => prop_assert_eq!(read.as_str(), Some(if number.is_nan() {
                    "NaN"
                } else if number > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                })),
            }
        }
    }
}
