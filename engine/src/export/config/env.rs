//! Values of `OTEL_*` variables, by the parsing rules of the OpenTelemetry specification
//! ("Environment Variable Specification" and "Protocol Exporter").

use std::time::Duration;

/// A view of the environment that keeps a list of what was wrong with it.
pub(super) struct Env<'a> {
    look_up: &'a dyn Fn(&str) -> Option<String>,
    /// One sentence for each value that had to be ignored. Never holds a value that may be secret.
    pub(super) warnings: Vec<String>,
}

impl<'a> Env<'a> {
    pub(super) fn new(look_up: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { look_up, warnings: Vec::new() }
    }

    /// Keeps a sentence for the user, once.
    pub(super) fn warn(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if !self.warnings.contains(&sentence) {
            self.warnings.push(sentence);
        }
    }

    /// A string; an empty one is as good as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.look_up)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// A boolean: nothing but `true`, in any case, is true.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let Some(value) = self.text(name) else { return false };
        if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") {
            self.warn(format!("{name} is neither true nor false and counts as false"));
        }
        value.eq_ignore_ascii_case("true")
    }

    /// A whole number; a bad or negative one is as good as unset.
    pub(super) fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.text(name)?;
        let number = value.parse().ok();
        if number.is_none() {
            self.warn(format!("{name} is not a whole number and is ignored"));
        }
        number
    }

    /// A number that must not be zero.
    pub(super) fn positive(&mut self, name: &str) -> Option<usize> {
        let number = self.number(name)?;
        if number == 0 {
            self.warn(format!("{name} is zero and is ignored"));
        }
        usize::try_from(number).ok().filter(|number| *number > 0)
    }

    /// A duration in milliseconds.
    pub(super) fn duration(&mut self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }

    /// A fraction, from 0 to 1.
    pub(super) fn ratio(&mut self, name: &str) -> Option<f64> {
        let value = self.text(name)?;
        let ratio = value.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        if ratio.is_none() {
            self.warn(format!("{name} is not a number from 0 to 1 and is ignored"));
        }
        ratio
    }

    /// One of `known` words, in any case, from the first of `names` that holds one. What is `unknown`
    /// is told.
    pub(super) fn choice<T: Copy>(&mut self, names: &[&str], known: &[(&str, T)], unknown: &str) -> Option<T> {
        self.first(names, |env, name| {
            let value = env.text(name)?;
            let found = known.iter().find(|(word, _)| value.eq_ignore_ascii_case(word));
            if found.is_none() {
                env.warn(format!("{name} {unknown}"));
            }
            found.map(|(_, meaning)| *meaning)
        })
    }

    /// The first of `names` that holds a usable value, as `parse` sees it.
    pub(super) fn first<T>(&mut self, names: &[&str], parse: impl Fn(&mut Self, &str) -> Option<T>) -> Option<T> {
        names.iter().find_map(|name| parse(self, name))
    }
}

/// `key1=value1,key2=value2` with percent-encoded values, as in W3C Baggage. Each member is given
/// on its own, so that the caller decides what one bad member means for the others.
pub(super) fn pairs(list: &str) -> impl Iterator<Item = Result<(String, String), BadPair>> {
    list.split(',').map(str::trim).filter(|member| !member.is_empty()).map(|member| {
        let (key, value) = member.split_once('=').ok_or(BadPair)?;
        let key = percent_decode(key.trim()).ok_or(BadPair)?;
        let value = percent_decode(value.trim()).ok_or(BadPair)?;
        if key.is_empty() { Err(BadPair) } else { Ok((key, value)) }
    })
}

/// A member without `=`, without a key, or with a broken percent-encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPair;

/// RFC 3986 section 2.1. `+` stands for itself.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_trimmed_and_decoded() {
        let check = |list: &str, expected: &[Result<(&str, &str), BadPair>]| {
            let expected: Vec<_> =
                expected.iter().map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned()))).collect();
            assert_eq!(pairs(list).collect::<Vec<_>>(), expected, "{list:?}");
        };
        check("", &[]);
        check(" , ,", &[]);
        check("a=b", &[Ok(("a", "b"))]);
        check(" a = b , c=d=e ", &[Ok(("a", "b")), Ok(("c", "d=e"))]);
        check("a=", &[Ok(("a", ""))]);
        check("a=x%20y%2Cz+%C3%A4", &[Ok(("a", "x y,z+ä"))]);
        check("a%3Db=c", &[Ok(("a=b", "c"))]);
        check("a,b=c", &[Err(BadPair), Ok(("b", "c"))]);
        check("=b", &[Err(BadPair)]);
        check("a=%", &[Err(BadPair)]);
        check("a=%4", &[Err(BadPair)]);
        check("a=%zz", &[Err(BadPair)]);
        check("a=%+1", &[Err(BadPair)]);
        check("a=%ff", &[Err(BadPair)]);
    }
}
