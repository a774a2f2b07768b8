//! JSON, read forgivingly about types, because a field of the wrong type is an absent field.
//!
//! A document is read in one of two ways, which look alike to whoever reads. For the few fields that a
//! span wants, [`index`] finds where the values are and reads none that isn't asked for. Where all of a
//! document is wanted, because its content is captured, `simd-json` builds its tape in place.

pub(super) mod blocks;
mod extract;
mod form;
mod index;
mod lenient;
mod passing;
mod scalar;
mod shape;
mod tape;
#[cfg(test)]
mod tests;
mod view;

use bumpalo::Bump;
use simd_json::{Buffers, Node, Tape};

pub(super) use self::shape::{Inside, KEYS_MAX, Shape};
pub use self::{
    extract::{Extract, Extraction},
    form::Forms,
};
use self::{
    index::Index,
    view::{Document, View},
};
use super::destination::Destinations;
use crate::limits::{JSON_KEPT_BYTES_MAX, JSON_STRUCTURALS_MAX};

/// What a worker keeps between two documents, so that reading allocates nothing after warm-up.
#[derive(Default)]
pub struct Scratch {
    index: Index,
    /// Strings whose escapes are undone.
    texts: Bump,
    buffers: Buffers,
    /// Empty between two documents. It is there except while a document is read.
    tape: Option<Tape<'static>>,
    /// Copies of what is in read-only memory.
    copy: Vec<u8>,
    /// Where requests went.
    pub(super) destinations: Destinations,
    /// What a base64 payload decoded to.
    pub(super) decoded: Vec<u8>,
}

impl Scratch {
    /// Hands the root of `document` to `read`, which is to ask for a few of its values, and for none that
    /// `shape` leaves out. A string with escapes is cut to [`view::ESCAPED_BYTES_MAX`]. `None` when it is
    /// no JSON where it was looked at, or has too many values.
    pub(super) fn look<R>(
        &mut self,
        document: &[u8],
        shape: Option<&'static Shape>,
        read: impl for<'t> FnOnce(Json<'t>) -> R,
    ) -> Option<R> {
        let document = document.strip_prefix(lenient::BYTE_ORDER_MARK).unwrap_or(document);
        let result = self
            .index
            .fill(document, shape)
            .map(|entries| read(Json::Seen(Document::new(document, entries, &self.texts).root())));
        self.texts.reset();
        if self.index.bytes() + self.texts.allocated_bytes() > JSON_KEPT_BYTES_MAX {
            self.index = Index::default();
            self.texts = Bump::new();
        }
        result
    }

    /// The same for a document of which an extract was made.
    pub(super) fn look_at_extract<R>(
        &mut self,
        extract: &Extract,
        read: impl for<'t> FnOnce(Json<'t>) -> R,
    ) -> Option<R> {
        let result = extract.look(&self.texts, read);
        self.texts.reset();
        if self.texts.allocated_bytes() > JSON_KEPT_BYTES_MAX {
            self.texts = Bump::new();
        }
        result
    }

    /// Parses `document` in place and hands its root to `read`. `None` when it is no JSON, or is
    /// built to take far more memory than its size.
    pub(super) fn parse<R>(&mut self, document: &mut [u8], read: impl for<'t> FnOnce(Json<'t>) -> R) -> Option<R> {
        let document = lenient::without_byte_order_mark(document);
        if lenient::structurals(document) > JSON_STRUCTURALS_MAX {
            return None;
        }
        lenient::replace_lone_surrogates(document);
        lenient::replace_non_numbers(document);
        let large = document.len() > JSON_KEPT_BYTES_MAX;
        let mut tape = self.tape.take().unwrap_or_else(|| Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape(document, &mut self.buffers, &mut tape).is_ok();
        let result = (parsed && !tape.0.is_empty()).then(|| read(Json::Parsed(tape::Value(&tape.0))));
        if large {
            self.buffers = Buffers::default();
        } else {
            self.tape = Some(tape.reset());
        }
        result
    }

    /// The same for a document in memory that must not be written to.
    pub(super) fn parse_copy<R>(&mut self, document: &[u8], read: impl for<'t> FnOnce(Json<'t>) -> R) -> Option<R> {
        let mut copy = std::mem::take(&mut self.copy);
        copy.clear();
        copy.extend_from_slice(document);
        let result = self.parse(&mut copy, read);
        if copy.capacity() <= JSON_KEPT_BYTES_MAX {
            self.copy = copy;
        }
        result
    }
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(super) enum Json<'t> {
    /// Of an index.
    Seen(View<'t>),
    /// Of a tape.
    Parsed(tape::Value<'t>),
}

impl<'t> Json<'t> {
    /// The value of `key`, when this is an object. Of duplicates the last counts, as it does for
    /// the parsers that servers and clients use.
    pub fn get(self, key: &str) -> Option<Json<'t>> {
        match self {
            Self::Seen(view) => view.get(key).map(Self::Seen),
            Self::Parsed(value) => value.get(key).map(Self::Parsed),
        }
    }

    /// The value at the end of `path`.
    pub fn at(self, path: &[&str]) -> Option<Json<'t>> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The members of an object in order; nothing for any other value.
    pub fn entries(self) -> impl Iterator<Item = (&'t str, Json<'t>)> {
        let (seen, parsed) = match self {
            Self::Seen(view) => (Some(view), None),
            Self::Parsed(value) => (None, Some(value)),
        };
        let seen = seen
            .into_iter()
            .flat_map(View::members)
            .filter_map(|(key, value)| Some((key.string()?, Self::Seen(value))));
        let parsed = parsed.into_iter().flat_map(tape::Value::members).map(|(key, value)| (key, Self::Parsed(value)));
        seen.chain(parsed)
    }

    /// The elements of an array in order; nothing for any other value.
    pub fn items(self) -> impl Iterator<Item = Json<'t>> {
        let (seen, parsed) = match self {
            Self::Seen(view) => (Some(view), None),
            Self::Parsed(value) => (None, Some(value)),
        };
        let seen = seen.into_iter().flat_map(View::items).map(Self::Seen);
        seen.chain(parsed.into_iter().flat_map(tape::Value::items).map(Self::Parsed))
    }

    /// The values of several keys at once, each as [`Json::get`] has it.
    #[inline]
    pub fn find<const N: usize>(self, keys: [&str; N]) -> [Option<Json<'t>>; N] {
        let mut found = [None; N];
        match self {
            Self::Seen(view) => view.members().for_each(|(name, value)| {
                let plain = name.plain();
                let is = |key: &str| plain.map_or_else(|| name.is(key), |plain| plain == key.as_bytes());
                let hits = keys.iter().zip(&mut found).filter(|(key, _)| is(key));
                hits.for_each(|(_, found)| *found = Some(Self::Seen(value)));
            }),
            Self::Parsed(value) => value.members().for_each(|(name, value)| {
                let hits = keys.iter().zip(&mut found).filter(|(key, _)| name == **key);
                hits.for_each(|(_, found)| *found = Some(Self::Parsed(value)));
            }),
        }
        found
    }

    /// Whether this may have a member whose key has one of these slots of `shape`, a bit each. Where it wasn't
    /// walked by that shape, it may.
    pub fn may_have(self, shape: &Shape, slots: u64) -> bool {
        match self {
            Self::Seen(view) if view.shape() == shape.id() => {
                view.members().any(|(key, _)| slots >> key.slot() & 1 != 0)
            }
            _ => true,
        }
    }

    /// Where the values of the keys of `shape` are, when this is an object.
    #[inline]
    pub fn places(self, shape: &Shape) -> Places<'t> {
        let mut places = Places { object: self, present: 0, at: [0; KEYS_MAX] };
        let mut put = |slot: usize, at: u32| {
            if let Some(place) = places.at.get_mut(slot) {
                *place = at;
                places.present |= 1 << slot;
            }
        };
        match self {
            Self::Seen(view) if view.shape() == shape.id() => {
                view.members().for_each(|(key, value)| put(key.slot(), value.place()));
            }
            Self::Seen(view) => view.members().for_each(|(key, value)| {
                let plain = key.plain().or_else(|| key.string().map(str::as_bytes));
                if let Some(slot) = plain.and_then(|key| shape.slot(key)) {
                    put(slot, value.place());
                }
            }),
            Self::Parsed(object) => {
                let mut at = 1;
                for (key, value) in object.members() {
                    if let Some(slot) = shape.slot(key.as_bytes()) {
                        put(slot, at + 1);
                    }
                    at += 1 + value.0.len() as u32;
                }
            }
        }
        places
    }

    /// A string that says something: the empty one is how several servers spell "not yet known".
    pub fn text(self) -> Option<&'t str> {
        self.string().filter(|text| !text.is_empty())
    }

    /// Any string.
    pub fn string(self) -> Option<&'t str> {
        match self {
            Self::Seen(view) => view.string(),
            Self::Parsed(value) => value.string(),
        }
    }

    /// A whole number, however it is spelled.
    pub fn int(self) -> Option<i64> {
        match self {
            Self::Seen(view) => scalar::int(view.bare()?),
            Self::Parsed(value) => value.int(),
        }
    }

    /// A count: a whole number that is not negative.
    pub fn count(self) -> Option<i64> {
        self.int().filter(|count| *count >= 0)
    }

    /// Any finite number.
    pub fn float(self) -> Option<f64> {
        match self {
            Self::Seen(view) => scalar::float(view.bare()?),
            Self::Parsed(value) => value.float(),
        }
    }

    /// `true` or `false`.
    pub fn bool(self) -> Option<bool> {
        match self {
            Self::Seen(view) => match view.bare()? {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            },
            Self::Parsed(value) => value.bool(),
        }
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        match self {
            Self::Seen(view) => view.first_byte() == b'n',
            Self::Parsed(value) => value.is_null(),
        }
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        match self {
            Self::Seen(view) => view.first_byte() == b'{',
            Self::Parsed(value) => value.is_object(),
        }
    }

    /// Whether this is an array.
    pub fn is_array(self) -> bool {
        match self {
            Self::Seen(view) => view.first_byte() == b'[',
            Self::Parsed(value) => value.is_array(),
        }
    }

    /// Whether this is a string, which may be long.
    pub fn is_string(self) -> bool {
        match self {
            Self::Seen(view) => view.first_byte() == b'"',
            Self::Parsed(value) => value.string().is_some(),
        }
    }

    /// The value's node, for whoever writes it out again; only a parsed document has any.
    pub fn node(self) -> Option<&'t Node<'t>> {
        match self {
            Self::Seen(_) => None,
            Self::Parsed(value) => value.node(),
        }
    }
}

/// The members of an object by the slots of their keys in a [`Shape`].
pub(super) struct Places<'t> {
    object: Json<'t>,
    /// A bit for each slot whose key is there.
    pub present: u64,
    /// Of a document that was looked at, places among all its values; of one that was parsed, distances
    /// from the object's node.
    at: [u32; KEYS_MAX],
}

impl<'t> Places<'t> {
    /// The value of the key in this slot. Of duplicates the last counts.
    #[inline]
    pub fn value(&self, slot: usize) -> Option<Json<'t>> {
        let at = *self.at.get(slot).filter(|_| self.present >> slot & 1 != 0)?;
        match self.object {
            Json::Seen(view) => Some(Json::Seen(view.of_place(at))),
            Json::Parsed(object) => Some(Json::Parsed(tape::Value(object.0.get(at as usize..)?))),
        }
    }
}
