//! Where the values of a document are that somebody asks for: found without building any.
//!
//! ```text
//! object ─► key ─► wanted? ── yes ──► note where it begins and ends, go into it
//!                     └────── no ───► pass over it: only quotes and brackets count
//! ```
//!
//! A span wants a dozen values of a body of any size. A tape copies each string and reads each number
//! to get there; here a value costs twelve bytes, only those that are asked for are read, and of what
//! lies between them nothing is known but where it ends.
//!
//! What is walked through has to keep to the grammar of RFC 8259, or there is no document; so has a
//! string that is read. What is passed over is not looked at any closer than it takes to find its end.
//! A document that was cut short is never one, because something is left open in it. Of one that is
//! wanted as a whole, as when it has to tell whether it is a call at all, everything is judged.

use super::{
    passing::{Passing, string_end},
    scalar,
    shape::{Inside, Shape},
};
use crate::limits::JSON_STRUCTURALS_MAX;

/// A value, or an object's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    start: u32,
    /// Of a string its closing quote; of an object or array the entry behind its last one; of anything
    /// else the byte behind it.
    end: u32,
    /// Of a key its slot, of an object its shape's id; 0 where all is wanted.
    tag: u16,
    first: u8,
    escapes: bool,
}

const _: () = assert!(crate::limits::BODY_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(JSON_STRUCTURALS_MAX < u32::MAX as usize);
const _: () = assert!(size_of::<Entry>() == 12);

impl Entry {
    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// Its first byte, which tells what it is.
    pub fn first(self) -> u8 {
        self.first
    }

    /// The slot of a key, or the id of an object's shape.
    pub fn tag(self) -> u16 {
        self.tag
    }

    /// The same value with its first byte at `start`.
    pub fn moved_to(self, start: usize) -> Self {
        let end = match self.first {
            b'{' | b'[' => self.end,
            _ => self.end.wrapping_sub(self.start).wrapping_add(start as u32),
        };
        Self { start: start as u32, end, ..self }
    }

    /// A string that isn't what it says.
    pub fn has_escapes(self) -> bool {
        self.escapes
    }
}

/// The values of a document in order, and what it takes to find them. Kept for the next document.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Entry>,
    /// The innermost object or array under way.
    level: Option<Level>,
    /// Those around it.
    outer: Vec<Level>,
    next: Next,
}

/// An object or array under way.
#[derive(Clone, Copy)]
struct Level {
    /// Its entry.
    at: u32,
    is_object: bool,
    /// What is wanted of it, or of an array's objects.
    inside: Inside,
}

/// What a walk comes to next, and where.
#[derive(Clone, Copy)]
enum Next {
    /// A value, of which this is wanted.
    Value(usize, Inside),
    /// What is behind the bracket that opens an object or array.
    First(usize),
    /// The key of a member.
    Member(usize),
    /// What is behind a value, or behind the end of an object or array.
    Behind(usize),
    /// Nothing but spaces.
    Nothing(usize),
}

impl Default for Next {
    fn default() -> Self {
        Self::Value(0, Inside::All)
    }
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text is at its end.
    More,
    /// It is no JSON, or has too many values.
    Malformed,
    /// The value that begins here goes on behind the text, and nobody asks for it: the text may end here
    /// and go on behind the value.
    Passing(usize),
}

/// Is told where the values of a document are that are no objects or arrays which somebody asks for.
pub(super) trait Observer {
    /// A string, number or name that somebody asks for.
    fn leaf(&mut self, entry: usize, start: usize, end: usize);
    /// A value that nobody asks for.
    fn passed(&mut self, start: usize, end: usize);
}

/// Nobody has to be told.
impl Observer for () {
    fn leaf(&mut self, _: usize, _: usize, _: usize) {}
    fn passed(&mut self, _: usize, _: usize) {}
}

impl Index {
    /// What a value costs.
    pub const ENTRY_BYTES: usize = size_of::<Entry>();

    /// The values of `text` that `shape` wants, root first; `None` when it is no JSON, or has too many.
    pub fn fill(&mut self, text: &[u8], shape: Option<&'static Shape>) -> Option<&[Entry]> {
        self.begin(shape);
        u32::try_from(text.len()).ok()?;
        let stop = self.walk(text, true);
        let is_document = stop == Stop::More && self.is_whole();
        (is_document && (shape.is_some() || self.is_sound(text))).then_some(&self.entries)
    }

    /// Whether the strings of a document of which all is wanted are strings.
    fn is_sound(&self, text: &[u8]) -> bool {
        let mut strings = self.entries.iter().filter(|entry| entry.first() == b'"');
        std::str::from_utf8(text).is_ok()
            && strings.all(|entry| text.get(entry.start() + 1..entry.end()).is_some_and(scalar::is_sound_string))
    }

    /// Forgets the document before.
    pub fn begin(&mut self, shape: Option<&'static Shape>) {
        self.entries.clear();
        self.outer.clear();
        self.level = None;
        self.next = Next::Value(0, shape.map_or(Inside::All, Inside::Shaped));
    }

    /// The values that were found.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How far the walk has come.
    pub fn at(&self) -> usize {
        match self.next {
            Next::Value(at, _) | Next::First(at) | Next::Member(at) | Next::Behind(at) | Next::Nothing(at) => at,
        }
    }

    /// The root has ended.
    pub fn is_whole(&self) -> bool {
        matches!(self.next, Next::Nothing(_))
    }

    /// Memory that is held.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.outer.capacity() * size_of::<Level>()
    }

    /// Is at the end of a document with these entries, whose text has so many bytes.
    pub fn be_whole(&mut self, text_bytes: usize) {
        self.next = Next::Nothing(text_bytes);
    }

    /// Puts entries in the place of those that were found.
    pub fn replace(&mut self, entries: &[Entry]) {
        self.entries.clear();
        self.entries.extend_from_slice(entries);
    }

    /// Puts another value in the place of one.
    pub fn put(&mut self, at: usize, value: Entry) {
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = value;
        }
    }

    /// Goes on through `text`, which has grown since the last time, until it stops; `all`: it won't grow.
    pub fn walk(&mut self, text: &[u8], all: bool) -> Stop {
        self.observed_walk(text, all, &mut ())
    }

    /// The same while `observer` is told.
    pub fn observed_walk(&mut self, text: &[u8], all: bool, observer: &mut impl Observer) -> Stop {
        loop {
            match self.step(text, self.next, all, observer) {
                Ok(next) => self.next = next,
                Err(stop) => {
                    if let Stop::Passing(at) = stop {
                        self.next = Next::Behind(at);
                    }
                    return stop;
                }
            }
        }
    }

    /// What comes after `next`. When there is an error, nothing has changed but that members before it are
    /// done with.
    #[inline(always)]
    fn step(&mut self, text: &[u8], next: Next, all: bool, observer: &mut impl Observer) -> Result<Next, Stop> {
        Ok(match next {
            Next::Value(at, inside) => {
                let at = spaces_end(text, at);
                let first = byte(text, at)?;
                match first {
                    b'{' | b'[' => {
                        let is_object = first == b'{';
                        let tag = if let (Inside::Shaped(shape), true) = (inside, is_object) { shape.id() } else { 0 };
                        let place = self.entries.len() as u32;
                        self.push(Entry { start: at as u32, end: 0, tag, first, escapes: false })?;
                        self.outer.extend(self.level);
                        self.level = Some(Level { at: place, is_object, inside });
                        Next::First(at + 1)
                    }
                    _ => {
                        let (leaf, behind) = leaf(text, at, first, all)?;
                        observer.leaf(self.entries.len(), at, behind);
                        self.push(leaf)?;
                        Next::Behind(behind)
                    }
                }
            }
            Next::First(at) => {
                let at = spaces_end(text, at);
                let level = self.level.ok_or(Stop::Malformed)?;
                match (byte(text, at)?, level.is_object) {
                    (b'}', true) | (b']', false) => self.close(at),
                    (_, true) => Next::Member(at),
                    (_, false) => Next::Value(at, level.inside),
                }
            }
            Next::Member(at) => self.member(text, at, all, observer)?,
            Next::Behind(at) => {
                let at = spaces_end(text, at);
                let Some(level) = self.level else { return Ok(Next::Nothing(at)) };
                match (byte(text, at)?, level.is_object) {
                    (b',', true) => Next::Member(at + 1),
                    (b',', false) => Next::Value(at + 1, level.inside),
                    (b'}', true) | (b']', false) => self.close(at),
                    _ => return Err(Stop::Malformed),
                }
            }
            Next::Nothing(at) => {
                byte(text, spaces_end(text, at))?;
                return Err(Stop::Malformed);
            }
        })
    }

    /// Members of an object from the key on that begins at `at`, or behind spaces there: up to one with
    /// an object or array inside that is wanted, or the last one.
    #[inline(always)]
    fn member(&mut self, text: &[u8], at: usize, all: bool, observer: &mut impl Observer) -> Result<Next, Stop> {
        let inside = self.level.ok_or(Stop::Malformed)?.inside;
        let mut start = at;
        loop {
            let at = spaces_end(text, start);
            if byte(text, at)? != b'"' {
                return Err(Stop::Malformed);
            }
            let (end, escapes) = string_end(text, at + 1).map_err(|_| Stop::More)?;
            let colon = spaces_end(text, end + 1);
            if byte(text, colon)? != b':' {
                return Err(Stop::Malformed);
            }
            let value = spaces_end(text, colon + 1);
            let first = byte(text, value)?;
            let slot = match inside {
                Inside::All => Some((0, inside)),
                Inside::Shaped(shape) => {
                    let key = text.get(at + 1..end).unwrap_or_default();
                    let slot = if escapes { slot_of_escaped(shape, key) } else { shape.slot(key) };
                    slot.map(|slot| (slot, shape.inside(slot)))
                }
            };
            let behind = match slot {
                None => match Passing::new(first)?.end(text, value) {
                    Err(Stop::More) if !all => return Err(Stop::Passing(value)),
                    end => {
                        let end = end?;
                        observer.passed(value, end);
                        end
                    }
                },
                Some((slot, inside)) => {
                    let key = Entry { start: at as u32, end: end as u32, tag: slot as u16, first: b'"', escapes };
                    if matches!(first, b'{' | b'[') {
                        self.push(key)?;
                        return Ok(Next::Value(value, inside));
                    }
                    let (leaf, behind) = leaf(text, value, first, all)?;
                    self.push(key)?;
                    observer.leaf(self.entries.len(), value, behind);
                    self.push(leaf)?;
                    behind
                }
            };
            let comma = spaces_end(text, behind);
            if text.get(comma) != Some(&b',') {
                return Ok(Next::Behind(comma));
            }
            start = comma + 1;
            self.next = Next::Member(start);
        }
    }

    #[inline(always)]
    fn push(&mut self, entry: Entry) -> Result<(), Stop> {
        // Each costs memory, which a document of nothing but structure would make use of.
        if self.entries.len() > JSON_STRUCTURALS_MAX {
            return Err(Stop::Malformed);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The innermost object or array ends at `at`.
    #[inline(always)]
    fn close(&mut self, at: usize) -> Next {
        let end = self.entries.len() as u32;
        let opened = self.level.and_then(|level| self.entries.get_mut(level.at as usize));
        if let Some(opened) = opened {
            opened.end = end;
        }
        self.level = self.outer.pop();
        Next::Behind(at + 1)
    }
}

/// The string, number or name that begins with `first` at `at`, and what is behind it.
#[inline(always)]
pub(super) fn leaf(text: &[u8], at: usize, first: u8, all: bool) -> Result<(Entry, usize), Stop> {
    if first == b'"' {
        let (end, escapes) = string_end(text, at + 1).map_err(|_| Stop::More)?;
        return Ok((Entry { start: at as u32, end: end as u32, tag: 0, first, escapes }, end + 1));
    }
    if !all {
        // It may go on behind the text.
        scalar::bare_end(text, at).ok_or(Stop::More)?;
    }
    let end = scalar::end(text, at).ok_or(Stop::Malformed)?;
    Ok((Entry { start: at as u32, end: end as u32, tag: 0, first, escapes: false }, end))
}

/// The slot of a key that has escapes. No key that anybody asks for is longer than what is undone.
#[inline(never)]
fn slot_of_escaped(shape: &Shape, key: &[u8]) -> Option<usize> {
    shape.slot(scalar::unescape(key, &mut [0; 64])?)
}

#[inline(always)]
fn byte(text: &[u8], at: usize) -> Result<u8, Stop> {
    text.get(at).copied().ok_or(Stop::More)
}

/// Behind the spaces at `at`.
#[inline(always)]
fn spaces_end(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}
