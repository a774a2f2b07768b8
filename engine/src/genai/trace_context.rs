//! W3C Trace Context: which span the request belongs to.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, sections 3.2 and 3.3.

use bumpalo::Bump;

use super::text::Text;
use crate::{
    limits::TEXT_BYTES_MAX,
    wire::{self, Field},
};

/// A request's valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// Id of the caller's span, not all zero.
    pub parent_id: [u8; 8],
    /// Trace flags.
    pub flags: u8,
}

/// The request's `traceparent`; `None` when it is absent, invalid or given twice.
pub fn trace_parent(fields: &[Field<'_>]) -> Option<TraceParent> {
    let mut values = wire::fields(fields, "traceparent");
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (version, rest) = value.split_at_checked(2)?;
    let version = *hex::<1>(version)?.first()?;
    let (fields, unknown) = rest.split_at_checked(53)?;
    // Version 0 ends here; what a later one adds begins with a dash and is not looked at.
    let valid = match version {
        0xff => false,
        0 => unknown.is_empty(),
        _ => unknown.first().is_none_or(|byte| *byte == b'-'),
    };
    let mut parts = fields.split(|byte| *byte == b'-');
    let (Some(b""), Some(trace_id), Some(parent_id), Some(flags), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let parent =
        TraceParent { trace_id: hex(trace_id)?, parent_id: hex(parent_id)?, flags: *hex::<1>(flags)?.first()? };
    (valid && parent.trace_id != [0; 16] && parent.parent_id != [0; 8]).then_some(parent)
}

/// Exactly `N` bytes in lowercase hexadecimal.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// List members that a `tracestate` may have.
const MEMBERS_MAX: usize = 32;

/// Members beyond this size are the first to go when a `tracestate` is too long.
const MEMBER_BYTES_LARGE: usize = 128;

/// The request's `tracestate`, its field lines joined in order. Only meaningful with a valid
/// `traceparent`; a malformed one is as good as none.
pub(super) fn trace_state<'a>(arena: &'a Bump, fields: &[Field<'_>]) -> Option<&'a str> {
    let members = || {
        wire::fields(fields, "tracestate")
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(|member| member.trim_ascii())
            .filter(|member| !member.is_empty())
    };
    if members().count() > MEMBERS_MAX || !members().all(is_member) {
        return None;
    }
    let whole: usize = members().map(|member| member.len() + 1).sum();
    let keep_large = whole <= TEXT_BYTES_MAX;
    let mut joined = Text::default();
    for member in members().filter(|member| keep_large || member.len() <= MEMBER_BYTES_LARGE) {
        let member = std::str::from_utf8(member).ok()?;
        if joined.len() + member.len() + 1 > TEXT_BYTES_MAX {
            break;
        }
        if !joined.is_empty() {
            joined.push(arena, ",");
        }
        joined.push(arena, member);
    }
    (!joined.is_empty()).then(|| joined.into_str())
}

/// `key=value` of printable ASCII (section 3.3.1.3, without its finer points).
fn is_member(member: &[u8]) -> bool {
    let printable = member.iter().all(|byte| matches!(byte, 0x20..=0x7e));
    printable && memchr::memchr(b'=', member).is_some_and(|at| at > 0 && at + 1 < member.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(values: &[&str]) -> Option<TraceParent> {
        let fields: Vec<_> =
            values.iter().map(|value| Field { name: b"TraceParent", value: value.as_bytes() }).collect();
        trace_parent(&fields)
    }

    #[test]
    fn a_parent_is_read() {
        let read = parent(&[VALID]).unwrap();
        assert_eq!((read.trace_id[0], read.trace_id[15], read.parent_id[7], read.flags), (0x0a, 0x9c, 0x31, 1));
        for longer in [VALID.replacen("00", "cc", 1), format!("{}-what", VALID.replacen("00", "cc", 1))] {
            assert_eq!(parent(&[&longer]), Some(read), "a later version: {longer}");
        }
    }

    #[test]
    fn an_invalid_parent_is_none() {
        let invalid = [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}0"),
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0x", 1),
            &VALID.replace('-', "_"),
            &format!("{}.x", VALID.replacen("00", "cc", 1)),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é",
        ];
        for value in invalid {
            assert_eq!(parent(&[value]), None, "{value}");
        }
        assert_eq!(parent(&[VALID, VALID]), None, "twice");
    }

    fn state(values: &[&str]) -> Option<String> {
        let fields: Vec<_> =
            values.iter().map(|value| Field { name: b"tracestate", value: value.as_bytes() }).collect();
        trace_state(&Bump::new(), &fields).map(str::to_owned)
    }

    #[test]
    fn states_are_joined_and_bounded() {
        assert_eq!(state(&["a=1, b=2", "", "c@x=3,"]).as_deref(), Some("a=1,b=2,c@x=3"));
        assert_eq!(state(&[]), None);
        for malformed in ["a", "a=", "=1", "a=\u{7f}"] {
            assert_eq!(state(&["b=2", malformed]), None, "{malformed}");
        }
        assert_eq!(state(&[&vec!["a=1"; 33].join(",")]), None, "too many members");
        let large = format!("large={}", "x".repeat(1000));
        assert_eq!(
            state(&[&large, "a=1", &format!("b={}", "y".repeat(100))]),
            Some(format!("a=1,b={}", "y".repeat(100)))
        );
    }
}
