//! What a span may have at most (`OTEL_ATTRIBUTE_*_LIMIT`, `OTEL_SPAN_ATTRIBUTE_*_LIMIT`).

use std::cell::Cell;

use agentsight_otlp::{AnyValue, Attributes};

use crate::limits::LIST_MAX;

/// Bounds of a span's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributeLimits {
    /// Attributes; further ones are left out and counted on the span.
    pub count_max: usize,
    /// Characters of a string, or of each string in a list; the rest is cut off. `None` is no limit.
    pub value_chars_max: Option<usize>,
}

impl Default for AttributeLimits {
    /// The defaults of the OpenTelemetry specification.
    fn default() -> Self {
        Self { count_max: 128, value_chars_max: None }
    }
}

/// Something with attributes, whose visitor is known when it is compiled.
pub(super) trait Source {
    /// Calls `visit` for each attribute.
    fn each(&self, visit: &mut impl FnMut(&str, &AnyValue<'_>));
}

/// Attributes within bounds.
pub(super) struct Limited<'a, A> {
    attributes: A,
    limits: &'a AttributeLimits,
    dropped: Cell<u32>,
}

impl<'a, A: Source> Limited<'a, A> {
    pub(super) fn new(attributes: A, limits: &'a AttributeLimits) -> Self {
        Self { attributes, limits, dropped: Cell::new(0) }
    }
}

impl<A: Source> Attributes for Limited<'_, A> {
    fn visit(&self, visit: &mut dyn FnMut(&str, &AnyValue<'_>)) {
        let mut count = 0_usize;
        self.attributes.each(&mut |key, value| {
            count += 1;
            if count > self.limits.count_max {
                return;
            }
            match self.limits.value_chars_max {
                None => visit(key, value),
                Some(chars_max) => cut_value(*value, chars_max, &mut |value| visit(key, &value)),
            }
        });
        self.dropped.set(count.saturating_sub(self.limits.count_max).try_into().unwrap_or(u32::MAX));
    }

    fn dropped(&self) -> u32 {
        self.dropped.get()
    }
}

fn cut_value(value: AnyValue<'_>, chars_max: usize, visit: &mut dyn FnMut(AnyValue<'_>)) {
    match value {
        AnyValue::Str(text) => visit(AnyValue::Str(cut(text, chars_max))),
        AnyValue::Strings(list) => {
            // No list of an exchange has more elements.
            let mut shorter = [""; LIST_MAX];
            let count = list.len().min(LIST_MAX);
            shorter.iter_mut().zip(list).for_each(|(shorter, text)| *shorter = cut(text, chars_max));
            visit(AnyValue::Strings(&shorter[..count]));
        }
        other => visit(other),
    }
}

/// The first `chars_max` characters.
fn cut(text: &str, chars_max: usize) -> &str {
    if text.len() <= chars_max {
        return text;
    }
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: [(&str, AnyValue<'_>); 4] = [
        ("a", AnyValue::Str("aäöü😀")),
        ("b", AnyValue::Int(123_456)),
        ("c", AnyValue::Strings(&["one", "", "three"])),
        ("d", AnyValue::Str("")),
    ];

    struct Slice(&'static [(&'static str, AnyValue<'static>)]);

    impl Source for Slice {
        fn each(&self, visit: &mut impl FnMut(&str, &AnyValue<'_>)) {
            self.0.iter().for_each(|(key, value)| visit(key, value));
        }
    }

    fn check(count_max: usize, value_chars_max: Option<usize>, expected: &str, dropped: u32) {
        let limits = AttributeLimits { count_max, value_chars_max };
        let limited = Limited::new(Slice(&ATTRIBUTES), &limits);
        let mut seen = vec![];
        // Twice: nothing is left of the visit before.
        for _ in 0..2 {
            seen.clear();
            limited.visit(&mut |key, value| {
                seen.push(match value {
                    AnyValue::Str(text) => format!("{key}={text}"),
                    AnyValue::Strings(list) => format!("{key}={}", list.join("|")),
                    AnyValue::Int(number) => format!("{key}={number}"),
                    other => panic!("{other:?}"),
                });
            });
        }
        assert_eq!((seen.join(" ").as_str(), limited.dropped()), (expected, dropped), "{limits:?}");
    }

    #[test]
    fn attributes_keep_to_their_bounds() {
        check(128, None, "a=aäöü😀 b=123456 c=one||three d=", 0);
        check(4, Some(5), "a=aäöü😀 b=123456 c=one||three d=", 0);
        check(128, Some(4), "a=aäöü b=123456 c=one||thre d=", 0);
        check(128, Some(1), "a=a b=123456 c=o||t d=", 0);
        check(3, Some(0), "a= b=123456 c=||", 1);
        check(1, None, "a=aäöü😀", 3);
        check(0, None, "", 4);
    }
}
