//! Which events of a stream are worth parsing.
//!
//! Most events carry a few characters of an answer and nothing that a span says. An event is parsed
//! only if one of its dialect's keys occurs with a value other than `null`. The search may find too
//! much, never too little: a key is always in double quotes before a colon, and the only other way
//! to write one is with `\u00xx` escapes, which are looked for as well.

use std::sync::OnceLock;

use memchr::memmem::Finder;

use crate::exchange::Call;

/// Whether a call knows a value already.
pub(super) type Known = fn(&Call<'_>) -> bool;

/// The keys that make an event worth parsing.
pub(super) struct Wanted {
    /// Keys, in their quotes, whose latest value counts.
    latest: &'static [&'static str],
    /// Keys, in their quotes, and whether their value is known already.
    first: &'static [(&'static str, Known)],
    finders: OnceLock<Finders>,
}

struct Finders {
    escape: Finder<'static>,
    latest: Vec<Finder<'static>>,
    first: Vec<(Finder<'static>, Known)>,
}

impl Wanted {
    /// The keys of a dialect, with their quotes.
    pub const fn new(latest: &'static [&'static str], first: &'static [(&'static str, Known)]) -> Self {
        Self { latest, first, finders: OnceLock::new() }
    }

    /// Whether `event` may hold something that `call` does not know yet.
    pub fn is_in(&self, event: &[u8], call: &Call<'_>) -> bool {
        let finders = self.finders.get_or_init(|| Finders {
            escape: Finder::new("\\u00"),
            latest: self.latest.iter().map(Finder::new).collect(),
            first: self.first.iter().map(|(key, known)| (Finder::new(key), *known)).collect(),
        });
        let unknown = finders.first.iter().filter(|(_, known)| !known(call)).map(|(finder, _)| finder);
        finders.latest.iter().chain(unknown).any(|finder| has_value(finder, event))
            || finders.escape.find(event).is_some()
    }
}

/// Whether the key of `finder` occurs with a value other than `null`.
fn has_value(finder: &Finder<'_>, event: &[u8]) -> bool {
    finder.find_iter(event).any(|at| {
        let after = event.get(at + finder.needle().len()..).unwrap_or(&[]).trim_ascii_start();
        after.strip_prefix(b":").is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    static WANTED: Wanted = Wanted::new(&["\"usage\""], &[("\"id\"", |call| call.response_id.is_some())]);

    #[test]
    fn only_events_with_a_wanted_value_are_parsed() {
        let known = Call { response_id: Some("x"), ..Call::default() };
        for (event, unknown, later) in [
            (r#"{"a":1}"#, false, false),
            (r#"{"id":"x","usage":null}"#, true, false),
            (
                r#"{"id":"x","usage" : 
 {"#,
                true,
                true,
            ),
            (r#"{"content":"usage"}"#, false, false),
            (r#"{"content":"\"usage\":1"}"#, false, false),
            (r#"{"usage":null,"x":{"usage":1}}"#, true, true),
            (r#"{"\u0075sage":1}"#, true, true),
            (r#"{"usage""#, false, false),
            ("", false, false),
        ] {
            assert_eq!(WANTED.is_in(event.as_bytes(), &Call::default()), unknown, "{event}");
            assert_eq!(WANTED.is_in(event.as_bytes(), &known), later, "{event}");
        }
    }
}
