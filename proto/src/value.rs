//! Attribute values and the visitor that gives them.

use prost::encoding::encoded_len_varint;

use crate::json::{Members, put_array, put_base64, put_double as put_json_double, put_long, put_object, put_string};
use crate::wire::{
    FIXED64_LEN, delimited_len, put_bytes, put_double, put_message, put_prefix, put_prefixes, put_varint, varint_len,
};

/// `opentelemetry.proto.common.v1.AnyValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum AnyValue<'a> {
    /// No value: null.
    #[default]
    Empty,
    /// A string.
    Str(&'a str),
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// An array of strings.
    Strings(&'a [&'a str]),
    /// An array of any values.
    Array(&'a [AnyValue<'a>]),
    /// A list of keys and values; the keys have to differ.
    Map(&'a [(&'a str, AnyValue<'a>)]),
}

/// Something with attributes: it shows them one after the other, so that none has to be collected.
pub trait Attributes {
    /// Calls `visit` for each attribute. Keys have to be non-empty and to differ.
    fn visit(&self, visit: &mut dyn FnMut(&str, AnyValue<'_>));

    /// How many attributes the last visit left out, for some limit.
    fn dropped(&self) -> u32 {
        0
    }
}

impl<K: AsRef<str>> Attributes for [(K, AnyValue<'_>)] {
    fn visit(&self, visit: &mut dyn FnMut(&str, AnyValue<'_>)) {
        for (key, value) in self {
            visit(key.as_ref(), *value);
        }
    }
}

impl Attributes for [(String, String)] {
    fn visit(&self, visit: &mut dyn FnMut(&str, AnyValue<'_>)) {
        for (key, value) in self {
            visit(key, AnyValue::Str(value));
        }
    }
}

impl<A: Attributes + ?Sized> Attributes for &A {
    fn visit(&self, visit: &mut dyn FnMut(&str, AnyValue<'_>)) {
        (*self).visit(visit);
    }

    fn dropped(&self) -> u32 {
        (*self).dropped()
    }
}

impl AnyValue<'_> {
    /// The length of the message, unless it takes a walk through nested values to tell.
    #[inline]
    fn flat_len(&self) -> Option<usize> {
        Some(match *self {
            Self::Empty => 0,
            Self::Str(text) => delimited_len(text.len()),
            Self::Bytes(bytes) => delimited_len(bytes.len()),
            Self::Bool(_) => varint_len(1),
            Self::Int(value) => varint_len(value as u64),
            Self::Double(_) => FIXED64_LEN,
            Self::Strings(list) => delimited_len(strings_len(list)),
            Self::Array(_) | Self::Map(_) => return None,
        })
    }

    /// The message without the prefix before it.
    fn put_content(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Empty => {}
            Self::Str(text) => put_bytes(1, text.as_bytes(), out),
            Self::Bool(value) => put_varint(2, value.into(), out),
            Self::Int(value) => put_varint(3, value as u64, out),
            Self::Double(value) => put_double(4, value, out),
            Self::Bytes(bytes) => put_bytes(7, bytes, out),
            Self::Strings(list) => {
                put_prefix(5, strings_len(list), out);
                for text in list {
                    put_prefix(1, delimited_len(text.len()), out);
                    put_bytes(1, text.as_bytes(), out);
                }
            }
            Self::Array(list) => put_message(5, 1, out, |out| list.iter().for_each(|value| value.put(1, out))),
            Self::Map(list) => {
                put_message(6, 1, out, |out| list.iter().for_each(|(key, value)| put_key_value(1, key, *value, out)));
            }
        }
    }

    /// The message in JSON.
    fn put_json(&self, out: &mut Vec<u8>) {
        put_object(out, |value| match *self {
            Self::Empty => {}
            Self::Str(text) => value.string("stringValue", text),
            Self::Bool(truth) => value.bool("boolValue", truth),
            Self::Int(number) => put_long(number, value.member("intValue")),
            Self::Double(number) => put_json_double(number, value.member("doubleValue")),
            Self::Bytes(bytes) => put_base64(bytes, value.member("bytesValue")),
            Self::Strings(list) => value.object("arrayValue", |array| {
                array.array("values", |values| {
                    list.iter().for_each(|text| put_object(values.next(), |value| value.string("stringValue", text)));
                });
            }),
            Self::Array(list) => value.object("arrayValue", |array| {
                array.array("values", |values| list.iter().for_each(|value| value.put_json(values.next())));
            }),
            Self::Map(list) => value.object("kvlistValue", |map| {
                map.array("values", |values| {
                    list.iter().for_each(|(key, value)| put_json_key_value(key, *value, values.next()));
                });
            }),
        });
    }

    /// The message as the field `field`.
    fn put(&self, field: u32, out: &mut Vec<u8>) {
        match self.flat_len() {
            Some(len) => {
                put_prefix(field, len, out);
                self.put_content(out);
            }
            None => put_message(field, 1, out, |out| self.put_content(out)),
        }
    }
}

/// The length of an `ArrayValue` of strings.
fn strings_len(list: &[&str]) -> usize {
    list.iter().map(|text| delimited_len(delimited_len(text.len()))).sum()
}

/// `opentelemetry.proto.common.v1.KeyValue` as the field `field`.
#[inline]
pub(crate) fn put_key_value(field: u32, key: &str, value: AnyValue<'_>, out: &mut Vec<u8>) {
    match value.flat_len() {
        Some(len) => {
            let whole = delimited_len(key.len()) + delimited_len(len);
            out.reserve(1 + encoded_len_varint(whole as u64) + whole);
            put_prefix(field, whole, out);
            put_bytes(1, key.as_bytes(), out);
            if let AnyValue::Str(text) = value {
                // Most are strings.
                put_prefixes(2, 1, text.len(), out);
                out.extend_from_slice(text.as_bytes());
            } else {
                put_prefix(2, len, out);
                value.put_content(out);
            }
        }
        None => put_message(field, 1, out, |out| {
            put_bytes(1, key.as_bytes(), out);
            value.put(2, out);
        }),
    }
}

/// All `attributes` as the repeated field `field`.
#[inline]
pub(crate) fn put_attributes(field: u32, attributes: &(impl Attributes + ?Sized), out: &mut Vec<u8>) {
    attributes.visit(&mut |key, value| put_key_value(field, key, value, out));
}

fn put_json_key_value(key: &str, value: AnyValue<'_>, out: &mut Vec<u8>) {
    put_object(out, |member| {
        put_string(key, member.member("key"));
        value.put_json(member.member("value"));
    });
}

/// All `attributes` as the member `attributes` of `object`.
pub(crate) fn put_json_attributes(attributes: &(impl Attributes + ?Sized), object: &mut Members<'_>) {
    put_array(object.member("attributes"), |list| {
        attributes.visit(&mut |key, value| put_json_key_value(key, value, list.next()));
    });
}
