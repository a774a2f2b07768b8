//! Answers while they arrive: choices, their parts, and the pieces of these.

use bumpalo::Bump;

use super::{
    super::{
        json::Json,
        text::{List, Text},
    },
    part::{Arguments, Part},
    writer::Writer,
};
use crate::limits::LIST_MAX;

/// Parts that one choice may have.
const PARTS_MAX: usize = 1024;

/// What was answered so far.
#[derive(Default)]
pub(in crate::genai) struct Output<'a> {
    choices: List<'a, Choice<'a>>,
    /// What may be kept.
    bytes_max: usize,
    /// What of it is left.
    bytes_left: usize,
    /// Data is kept as it is.
    with_data: bool,
}

/// One generation.
#[derive(Default)]
struct Choice<'a> {
    index: i64,
    parts: List<'a, Piece<'a>>,
}

/// A part that grows.
#[derive(Default)]
struct Piece<'a> {
    kind: Kind,
    key: i64,
    id: Text<'a>,
    name: Text<'a>,
    text: Text<'a>,
}

/// What a piece will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::genai) enum Kind {
    /// Said.
    #[default]
    Text,
    /// Thought.
    Reasoning,
    /// Called; the text is its arguments.
    ToolCall,
    /// Called by the provider; the text is its arguments.
    ServerToolCall,
    /// Something that came in one piece, written out already.
    Written,
}

impl<'a> Output<'a> {
    /// Nothing yet, and room for `bytes_max`.
    pub fn new(bytes_max: usize, with_data: bool) -> Self {
        Self { choices: List::default(), bytes_max, bytes_left: bytes_max, with_data }
    }

    /// Forgets what has arrived, because the whole has.
    pub fn clear(&mut self) {
        *self = Self::new(self.bytes_max, self.with_data);
    }

    fn choice(&mut self, arena: &'a Bump, index: i64) -> Option<&mut Choice<'a>> {
        let known = self.choices.as_slice().iter().position(|choice| choice.index == index);
        let at = known.unwrap_or(self.choices.as_slice().len());
        if known.is_none() && at < LIST_MAX {
            self.choices.push(arena, Choice { index, ..Choice::default() });
        }
        self.choices.as_mut_slice().get_mut(at)
    }

    /// A choice is there, even if nothing will be said.
    pub fn begin(&mut self, arena: &'a Bump, choice: i64) {
        self.choice(arena, choice);
    }

    /// The part `key` of a choice, which is made if it is not there.
    fn piece(&mut self, arena: &'a Bump, choice: i64, kind: Kind, key: i64) -> Option<&mut Piece<'a>> {
        let parts = &mut self.choice(arena, choice)?.parts;
        let known = parts.as_slice().iter().rposition(|piece| piece.kind == kind && piece.key == key);
        let at = known.unwrap_or(parts.as_slice().len());
        if known.is_none() && at < PARTS_MAX {
            parts.push(arena, Piece { kind, key, ..Piece::default() });
        }
        parts.as_mut_slice().get_mut(at)
    }

    /// More of the part `key`.
    pub fn push(&mut self, arena: &'a Bump, choice: i64, kind: Kind, key: i64, more: &str) {
        if more.is_empty() {
            return;
        }
        let more = more.get(..more.floor_char_boundary(self.bytes_left)).unwrap_or("");
        self.bytes_left -= more.len();
        if let Some(piece) = self.piece(arena, choice, kind, key) {
            piece.text.push(arena, more);
        }
    }

    /// More of the last part, or the first of a new one if the last is of another kind.
    pub fn flow(&mut self, arena: &'a Bump, choice: i64, kind: Kind, more: &str) {
        let parts = self.choice(arena, choice).map_or(0, |choice| choice.parts.as_slice().len());
        let last = self.choice(arena, choice).and_then(|choice| choice.parts.as_slice().last());
        let key = last.filter(|piece| piece.kind == kind).map(|piece| piece.key);
        let key = key.unwrap_or(i64::try_from(parts).unwrap_or(i64::MAX));
        self.push(arena, choice, kind, key, more);
    }

    /// More of the last part, or all of it again with something added.
    pub fn grow(&mut self, arena: &'a Bump, choice: i64, kind: Kind, text: &str) {
        let last = self.choice(arena, choice).and_then(|choice| choice.parts.as_slice().last());
        let known = last.filter(|piece| piece.kind == kind).and_then(|piece| text.strip_prefix(piece.text.as_str()));
        self.flow(arena, choice, kind, known.filter(|_| text.len() > 1).unwrap_or(text));
    }

    /// Whether there is a part `key`.
    pub fn has(&self, choice: i64, kind: Kind, key: i64) -> bool {
        let choices = self.choices.as_slice().iter().filter(|known| known.index == choice);
        choices.flat_map(|choice| choice.parts.as_slice()).any(|piece| piece.kind == kind && piece.key == key)
    }

    /// A value as the text of the part `key`.
    pub fn push_value(&mut self, arena: &'a Bump, choice: i64, kind: Kind, key: i64, value: Json<'_>) {
        let mut writer = Writer::new(arena, self.bytes_left, self.with_data);
        writer.element(|writer| writer.value(value));
        let written = writer.finish().and_then(|array| array.strip_prefix('[')?.strip_suffix(']'));
        self.push(arena, choice, kind, key, written.unwrap_or(""));
    }

    /// All of the part `key`, which replaces what was there, for servers that repeat themselves.
    pub fn replace(&mut self, arena: &'a Bump, choice: i64, kind: Kind, key: i64, text: &str) {
        if let Some(piece) = self.piece(arena, choice, kind, key) {
            let freed = piece.text.len();
            piece.text.truncate(0);
            self.bytes_left = self.bytes_left.saturating_add(freed);
        }
        self.push(arena, choice, kind, key, text);
    }

    /// A call's name and id, each if it is known.
    pub fn call(&mut self, arena: &'a Bump, choice: i64, kind: Kind, key: i64, id: Option<&str>, name: Option<&str>) {
        let left = self.bytes_left;
        let Some(piece) = self.piece(arena, choice, kind, key) else { return };
        let mut used = 0;
        for (known, text) in [(&mut piece.id, id), (&mut piece.name, name)] {
            if let (true, Some(text)) = (known.is_empty(), text.filter(|text| text.len() <= left - used)) {
                known.push(arena, text);
                used += text.len();
            }
        }
        self.bytes_left -= used;
    }

    /// A part that came in one piece.
    pub fn part(&mut self, arena: &'a Bump, choice: i64, part: &Part<'_>) {
        match *part {
            Part::Text(text) => return self.whole(arena, choice, Kind::Text, text),
            Part::Reasoning(text) => return self.whole(arena, choice, Kind::Reasoning, text),
            _ => {}
        }
        let mut writer = Writer::new(arena, self.bytes_left, self.with_data);
        writer.part(part);
        let written = writer.finish().and_then(|array| array.strip_prefix('[')?.strip_suffix(']'));
        if let Some(written) = written {
            self.whole(arena, choice, Kind::Written, written);
        }
    }

    /// A part of its own.
    fn whole(&mut self, arena: &'a Bump, choice: i64, kind: Kind, text: &str) {
        if kind == Kind::Written && text.len() > self.bytes_left {
            return;
        }
        // Keys of parts that grow are not negative.
        let parts = self.choice(arena, choice).map_or(0, |choice| choice.parts.as_slice().len());
        self.push(arena, choice, kind, -1 - i64::try_from(parts).unwrap_or(0), text);
    }

    /// Writes the messages, in the order of choices. `reason` tells why each one ended.
    pub fn write<'r>(&mut self, arena: &'a Bump, bytes_max: usize, reason: impl Fn(i64) -> &'r str) -> Option<&'a str> {
        let mut writer = Writer::new(arena, bytes_max, self.with_data);
        self.choices.as_mut_slice().sort_unstable_by_key(|choice| choice.index);
        for choice in self.choices.as_slice() {
            writer.message("assistant", Some(reason(choice.index)), |writer| {
                choice.parts.as_slice().iter().for_each(|piece| piece.write(writer));
            });
        }
        writer.finish()
    }
}

impl Piece<'_> {
    fn write(&self, writer: &mut Writer<'_>) {
        let text = self.text.as_str();
        let id = Some(self.id.as_str()).filter(|id| !id.is_empty());
        let (name, arguments) = (self.name.as_str(), Arguments::Text(text));
        match self.kind {
            Kind::Text => writer.part(&Part::Text(text)),
            Kind::Reasoning => writer.part(&Part::Reasoning(text)),
            Kind::ToolCall => writer.part(&Part::ToolCall { id, name, arguments }),
            Kind::ServerToolCall => writer.part(&Part::ServerToolCall { id, name, kind: name, arguments }),
            Kind::Written => writer.written(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes_max: usize, fill: impl for<'a> FnOnce(&'a Bump, &mut Output<'a>)) -> Option<String> {
        let arena = Bump::new();
        let mut output = Output::new(bytes_max, false);
        fill(&arena, &mut output);
        output.write(&arena, bytes_max, |choice| if choice == 0 { "stop" } else { "length" }).map(str::to_owned)
    }

    #[test]
    fn pieces_become_parts() {
        let text = written(10_000, |arena, output| {
            output.push(arena, 1, Kind::Text, 0, "b");
            output.push(arena, 0, Kind::Reasoning, 0, "hm");
            output.push(arena, 0, Kind::Text, 0, "a");
            output.call(arena, 0, Kind::ToolCall, 1, Some("c1"), Some("g"));
            output.call(arena, 0, Kind::ToolCall, 0, Some("c0"), Some("f"));
            output.push(arena, 0, Kind::ToolCall, 0, "{\"x\":");
            output.push(arena, 0, Kind::ToolCall, 1, "nonsense");
            output.push(arena, 0, Kind::ToolCall, 0, "1}");
            output.push(arena, 0, Kind::Text, 0, "b");
        });
        let expect = concat!(
            r#"[{"role":"assistant","parts":[{"type":"reasoning","content":"hm"},{"type":"text","content":"ab"},"#,
            r#"{"type":"tool_call","id":"c1","name":"g","arguments":"nonsense"},"#,
            r#"{"type":"tool_call","id":"c0","name":"f","arguments":{"x":1}}],"finish_reason":"stop"},"#,
            r#"{"role":"assistant","parts":[{"type":"text","content":"b"}],"finish_reason":"length"}]"#
        );
        assert_eq!(text.as_deref(), Some(expect));
    }

    #[test]
    fn what_flows_breaks_where_something_else_comes() {
        let text = written(10_000, |arena, output| {
            output.flow(arena, 0, Kind::Text, "a");
            output.flow(arena, 0, Kind::Text, "b");
            output.part(arena, 0, &Part::Other("thing"));
            output.flow(arena, 0, Kind::Text, "c");
        });
        let text = text.unwrap();
        assert!(
            text.contains(r#"[{"type":"text","content":"ab"},{"type":"thing"},{"type":"text","content":"c"}]"#),
            "{text}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let arena = Bump::new();
        let mut output = Output::new(1000, false);
        for round in 0..10_000 {
            output.push(&arena, round % 7, Kind::Text, 0, "some text that goes on");
            output.part(&arena, round % 3, &Part::Other("thing"));
            output.call(&arena, 0, Kind::ToolCall, round, Some("id"), Some("name"));
        }
        assert!(arena.allocated_bytes() < 1024 * 1024, "{}", arena.allocated_bytes());
        let text = output.write(&arena, 1000, |_| "stop").unwrap();
        assert!(text.len() <= 1000);
        serde_json::from_str::<serde_json::Value>(text).unwrap();
    }
}
