//! Attribute values and the visitor that gives them.

use prost::encoding::encoded_len_varint;

use crate::json::{Members, put_array, put_base64, put_double as put_json_double, put_long, put_object, put_string};
use crate::wire::{
    FIXED64_LEN, SHORT_BYTES, copy_short, delimited_len, put_bytes, put_double, put_message, put_prefix, put_prefixes,
    put_short_varint, put_varint, varint_len,
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
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>));

    /// How many attributes the last visit left out, for some limit.
    fn dropped(&self) -> u32 {
        0
    }
}

impl<K: AsRef<str>> Attributes for [(K, AnyValue<'_>)] {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        for (key, value) in self {
            visit(key.as_ref(), value);
        }
    }
}

impl Attributes for [(String, String)] {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        for (key, value) in self {
            visit(key, &AnyValue::Str(value));
        }
    }
}

impl<A: Attributes + ?Sized> Attributes for &A {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
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
///
/// There are a few dozen in a span, nearly all of them short, so that most of the work would be asking for
/// room and calling functions that copy a few bytes. Those that fit are written into a window of
/// [`WINDOW_BYTES`] at the end of `out` instead, in pieces whose length is known here.
#[inline]
pub(crate) fn put_attributes(field: u32, attributes: &(impl Attributes + ?Sized), out: &mut Vec<u8>) {
    let mut end = out.len();
    attributes.visit(&mut |key, value| {
        if out.len() < end + WINDOW_BYTES {
            out.resize(end + 8 * WINDOW_BYTES, 0);
        }
        let window = out.get_mut(end..).and_then(|rest| rest.first_chunk_mut());
        match window.and_then(|window| put_short_key_value(field, key, value, window)) {
            Some(bytes) => end += bytes,
            None => {
                out.truncate(end);
                put_key_value(field, key, *value, out);
                end = out.len();
            }
        }
    });
    out.truncate(end);
}

/// What a short attribute takes at the most.
const WINDOW_BYTES: usize = 160;

// Four bytes and the key, four bytes or those before a number, and the value.
const _: () = assert!(4 + SHORT_BYTES + 4 + SHORT_BYTES + 16 <= WINDOW_BYTES);
// All lengths are one byte.
const _: () = assert!(2 + SHORT_BYTES + 4 + SHORT_BYTES < 0x80);

/// `opentelemetry.proto.common.v1.KeyValue` as the field `field`, if it is short. Returns its length.
#[inline]
fn put_short_key_value(field: u32, key: &str, value: &AnyValue<'_>, out: &mut [u8; WINDOW_BYTES]) -> Option<usize> {
    let (key, field) = (key.as_bytes(), u8::try_from(field).ok().filter(|field| *field < 16)?);
    if key.len() > SHORT_BYTES {
        return None;
    }
    let key_bytes = key.len();
    // The key is written first, because what is behind it is written over.
    copy_short(key, out.get_mut(4..)?.first_chunk_mut()?);
    let place = out.get_mut(4 + key_bytes..)?;
    let value_bytes = match *value {
        AnyValue::Str(text) if text.len() <= SHORT_BYTES => {
            let bytes = text.len() as u8;
            *place.first_chunk_mut()? = [2 << 3 | 2, bytes + 2, 1 << 3 | 2, bytes];
            copy_short(text.as_bytes(), place.get_mut(4..)?.first_chunk_mut()?);
            4 + text.len()
        }
        AnyValue::Int(number) => {
            let bytes = put_short_varint(number as u64, place.get_mut(3..)?.first_chunk_mut()?);
            *place.first_chunk_mut()? = [2 << 3 | 2, bytes as u8 + 1, 3 << 3];
            3 + bytes
        }
        AnyValue::Double(number) => {
            let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
            *place.first_chunk_mut()? = [2 << 3 | 2, 9, 4 << 3 | 1, a, b, c, d, e, f, g, h];
            11
        }
        AnyValue::Bool(truth) => {
            *place.first_chunk_mut()? = [2 << 3 | 2, 2, 2 << 3, truth.into()];
            4
        }
        _ => return None,
    };
    *out.first_chunk_mut()? = [field << 3 | 2, (2 + key_bytes + value_bytes) as u8, 1 << 3 | 2, key_bytes as u8];
    Some(4 + key_bytes + value_bytes)
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
        attributes.visit(&mut |key, value| put_json_key_value(key, *value, list.next()));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short ones and long ones, each by itself and all of them behind each other.
    #[test]
    fn attributes_are_the_same_in_a_window() {
        let text: String = ('!'..='~').chain("äöü".chars()).collect();
        let cut = |bytes: usize| &text[..text.floor_char_boundary(bytes)];
        let texts = (0..60).map(|bytes| AnyValue::Str(cut(bytes)));
        let ints = (0..64).flat_map(|bits| [1_i64 << bits, (1_i64 << bits).wrapping_sub(1), -1 << bits]);
        let others = [AnyValue::Bool(true), AnyValue::Bool(false), AnyValue::Double(-0.5), AnyValue::Empty];
        let lists = [AnyValue::Strings(&["a", "b"]), AnyValue::Array(&[AnyValue::Int(1)]), AnyValue::Bytes(&[1])];
        let values: Vec<_> = texts.chain(ints.map(AnyValue::Int)).chain(others).chain(lists).collect();
        let all: Vec<_> = (1..60).flat_map(|bytes| values.iter().map(move |value| (cut(bytes), *value))).collect();
        for attributes in all.chunks(1).chain([&all[..]]) {
            for field in [9, 16] {
                let (mut out, mut expect) = (vec![7; 3], vec![7; 3]);
                put_attributes(field, attributes, &mut out);
                attributes.iter().for_each(|(key, value)| put_key_value(field, key, *value, &mut expect));
                assert!(out == expect, "{field} {:?}", attributes.first());
            }
        }
    }
}
