//! Documents that differ from one before them only inside of values: found without a walk.
//!
//! ```text
//! {"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{…},"finish_reason":"stop"}],…}
//!       └─ open ──┘                                                             └ ┘
//!                    literal: compared                                         open: passed over
//! ```
//!
//! A client asks in the same form each time, and a server answers in the same form. So a document that was
//! walked is kept as what it is made of: its bytes, where its values are, and which of them somebody asks
//! for. Of the next one the bytes between open values are compared, and the end of an open value is found
//! as the walk finds it; then the walk would have taken the same steps, and its entries are those of the
//! document before with other places. A value is open once it differed, or if it is long.
//!
//! The comparison is exact, so whatever doesn't fit is walked as if there were no forms.

use super::{
    extract::Found,
    index::{Entry, Index, Observer, Stop, leaf},
    passing::Passing,
    shape::Shape,
};
use crate::limits::{JSON_FORM_BYTES_MAX, JSON_FORM_VALUES_MAX, JSON_FORMS_MAX, JSON_FORMS_TRIED_MAX};

/// A value that is longer is open from the start: it is hardly the same twice.
const CLOSED_BYTES_MAX: usize = 40;

/// Of documents of no known form in a row beyond [`JSON_FORMS_MAX`], one in so many becomes a form.
const LEARNT_EVERY: usize = 16;

/// The forms that a worker knows, the last one used first.
#[derive(Default)]
pub struct Forms {
    forms: Vec<Form>,
    /// Finds the values of a document that becomes a form.
    index: Index,
    values: Values,
    /// Documents without a form since the last one that had one.
    misses: usize,
}

/// What a document is made of.
#[derive(Default)]
struct Form {
    shape: u16,
    /// The document, without the values that were open from the start.
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// Values that are no objects or arrays which somebody asks for, in order.
    values: Vec<Value>,
}

/// A value of a form.
#[derive(Clone, Copy)]
struct Value {
    /// Its bytes in the form's text.
    start: u32,
    end: u32,
    /// Its entry, if somebody asks for it.
    entry: Option<u32>,
    /// It may be any other value, but for an object or array if it has an entry.
    open: bool,
}

/// The values of a document as they are found.
#[derive(Default)]
struct Values(Vec<Value>);

impl Observer for Values {
    fn leaf(&mut self, entry: usize, start: usize, end: usize) {
        self.0.push(Value { start: start as u32, end: end as u32, entry: Some(entry as u32), open: false });
    }

    fn passed(&mut self, start: usize, end: usize) {
        self.0.push(Value { start: start as u32, end: end as u32, entry: None, open: false });
    }
}

/// Why a document isn't of a form.
enum Differs {
    /// From this place of the form's text on, outside of its open values.
    At(usize),
    /// In an open value, or by its end.
    Otherwise,
}

impl Forms {
    /// Finds the values of `document`, which may be a part of one, as a walk by `shape` would. False when
    /// that takes a walk.
    pub(super) fn find(&mut self, document: &[u8], shape: &'static Shape, found: &mut Found<'_>) -> bool {
        if self.knows(document, shape, found) {
            return true;
        }
        self.misses += 1;
        // What always looks different isn't worth the effort.
        if self.misses > JSON_FORMS_MAX && !self.misses.is_multiple_of(LEARNT_EVERY) {
            return false;
        }
        self.learn(document, shape) && self.forms.first_mut().is_some_and(|form| form.find(document, found))
    }

    /// The same for a document whose form is known.
    fn knows(&mut self, document: &[u8], shape: &'static Shape, found: &mut Found<'_>) -> bool {
        let of_shape = self.forms.iter_mut().enumerate().filter(|(_, form)| form.shape == shape.id());
        let fits = |(at, form): (usize, &mut Form)| form.find(document, found).then_some(at);
        let Some(at) = of_shape.take(JSON_FORMS_TRIED_MAX).find_map(fits) else { return false };
        self.forms.swap(0, at);
        self.misses = 0;
        true
    }

    /// Whether the form of `document` is known; if so, `extract` is made by it.
    #[cfg(test)]
    pub(super) fn finds(&mut self, document: &[u8], shape: &'static Shape, extract: &mut super::Extract) -> bool {
        extract.find(|found| self.knows(document, shape, found))
    }

    /// Makes a form of `document`, if it is a whole one that is small but for what nobody asks for.
    fn learn(&mut self, document: &[u8], shape: &'static Shape) -> bool {
        self.index.begin(Some(shape));
        self.values.0.clear();
        if u32::try_from(document.len()).is_err() {
            return false;
        }
        let is_document = self.index.observed_walk(document, true, &mut self.values) == Stop::More;
        let (entries, values) = (self.index.entries(), &mut self.values.0);
        if !is_document
            || !self.index.is_whole()
            || values.len() > JSON_FORM_VALUES_MAX
            || entries.len() > 2 * JSON_FORM_VALUES_MAX
        {
            return false;
        }
        let is_long = |value: &Value| (value.end - value.start) as usize > CLOSED_BYTES_MAX;
        let long_bytes: usize = values.iter().filter(|value| is_long(value)).map(|value| value.len()).sum();
        if document.len() - long_bytes > JSON_FORM_BYTES_MAX {
            return false;
        }
        let mut form = if self.forms.len() < JSON_FORMS_MAX { None } else { self.forms.pop() }.unwrap_or_default();
        form.learn(document, shape, entries, values);
        self.forms.insert(0, form);
        true
    }
}

impl Value {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Form {
    /// Becomes the form of `document`, which has these entries and values.
    fn learn(&mut self, document: &[u8], shape: &'static Shape, entries: &[Entry], values: &[Value]) {
        self.shape = shape.id();
        self.text.clear();
        self.entries.clear();
        self.values.clear();
        self.entries.extend_from_slice(entries);
        let mut copied = 0;
        // Entries are in the order of what they are of, so that each is moved once.
        let mut unmoved = 0;
        for value in values {
            let is_long = value.len() > CLOSED_BYTES_MAX;
            let (start, end) = (value.start as usize, value.end as usize);
            let until = if is_long { start } else { end };
            let cut = copied - self.text.len();
            unmoved = self.move_entries(unmoved, until, cut);
            self.text.extend_from_slice(document.get(copied..until).unwrap_or_default());
            copied = end;
            let (start, end) = (start - cut, until - cut);
            self.values.push(Value { start: start as u32, end: end as u32, entry: value.entry, open: is_long });
        }
        let cut = copied - self.text.len();
        self.move_entries(unmoved, document.len(), cut);
        self.text.extend_from_slice(document.get(copied..).unwrap_or_default());
    }

    /// Moves entries from the `from`th on that begin before `until` by `cut` bytes; returns the next one.
    fn move_entries(&mut self, from: usize, until: usize, cut: usize) -> usize {
        let mut at = from;
        while let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.start() < until) {
            *entry = entry.moved_to(entry.start().saturating_sub(cut));
            at += 1;
        }
        at
    }

    /// Finds the values of `document`, if it has this form. What differs inside of values is open from now
    /// on.
    fn find(&mut self, document: &[u8], found: &mut Found<'_>) -> bool {
        loop {
            match self.fits(document, found) {
                Ok(()) => return true,
                Err(Differs::Otherwise) => return false,
                Err(Differs::At(at)) => {
                    // A number may go on where it ended before.
                    let is_there =
                        |value: &&mut Value| !value.open && value.start as usize <= at && at <= value.end as usize;
                    let Some(value) = self.values.iter_mut().find(is_there) else { return false };
                    value.open = true;
                }
            }
        }
    }

    fn fits(&self, document: &[u8], found: &mut Found<'_>) -> Result<(), Differs> {
        found.begin(&self.text, &self.entries);
        let (mut at, mut compared) = (0, 0);
        for value in self.values.iter().filter(|value| value.open) {
            at = self.literal(document, at, compared..value.start as usize)?;
            let first = *document.get(at).ok_or(Differs::Otherwise)?;
            at = match value.entry {
                Some(_) if matches!(first, b'{' | b'[') => return Err(Differs::Otherwise),
                Some(entry) => {
                    let (leaf, behind) = leaf(document, at, first, true).map_err(|_| Differs::Otherwise)?;
                    found.put(entry as usize, leaf, document.get(at..behind).unwrap_or_default());
                    behind
                }
                None => {
                    let passed = Passing::new(first).and_then(|mut passing| passing.end(document, at));
                    passed.map_err(|_| Differs::Otherwise)?
                }
            };
            compared = value.end as usize;
        }
        at = self.literal(document, at, compared..self.text.len())?;
        let rest = document.get(at..).unwrap_or_default();
        let is_over = rest.iter().all(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
        is_over.then_some(()).ok_or(Differs::Otherwise)
    }

    /// Compares what is in `document` from `at` on with a range of the form's text; returns what is behind.
    #[inline(always)]
    fn literal(&self, document: &[u8], at: usize, range: std::ops::Range<usize>) -> Result<usize, Differs> {
        let literal = self.text.get(range.clone()).ok_or(Differs::Otherwise)?;
        let there = document.get(at..).ok_or(Differs::Otherwise)?;
        if there.starts_with(literal) {
            return Ok(at + literal.len());
        }
        let same = there.iter().zip(literal).take_while(|(there, known)| there == known).count();
        // What was cut short differs by its end.
        Err(if same < there.len() { Differs::At(range.start + same) } else { Differs::Otherwise })
    }
}
