//! What is wanted of a document that comes in pieces, without the rest of it.
//!
//! ```text
//! piece ─► a little of it behind what is kept ─► walk ─► more, or a value that nobody asks for:
//!   ▲                                                    what is kept ends where it begins,
//!   └──────────── behind its end, however far ◄───────── and its bytes are passed over in the piece
//! ```
//!
//! A request's messages and an answer's text are nearly all of a body, and a span wants neither. So what
//! is kept is as small as what is wanted, whatever the body's size, and nothing else is copied.

use bumpalo::Bump;

use super::{
    Json,
    form::Forms,
    index::{Entry, Index, Stop},
    passing::Passing,
    shape::Shape,
    view::Document,
};

/// The least that is taken of a piece at once: a small document as a whole.
const TAKEN_BYTES: usize = 1024;

/// A document under way.
#[derive(Default)]
pub struct Extract {
    /// What is kept of it.
    text: Vec<u8>,
    index: Index,
    /// What is wanted of it.
    shape: Option<&'static Shape>,
    passing: Option<Passing>,
    /// How long the text has to be before it is looked at again.
    due: usize,
    malformed: bool,
}

/// What is found of a document without a walk.
pub(super) struct Found<'e> {
    text: &'e mut Vec<u8>,
    index: &'e mut Index,
}

impl Found<'_> {
    /// All of it is like a document with this text and these entries, but for what is put in their place.
    pub fn begin(&mut self, text: &[u8], entries: &[Entry]) {
        self.text.clear();
        self.text.extend_from_slice(text);
        self.index.replace(entries);
    }

    /// The value `leaf`, which has these bytes, is in the place of an entry.
    #[inline(always)]
    pub fn put(&mut self, entry: usize, leaf: Entry, bytes: &[u8]) {
        self.index.put(entry, leaf.moved_to(self.text.len()));
        self.text.extend_from_slice(bytes);
    }
}

/// What an [`Extract`] is to take of a document.
#[derive(Clone, Copy)]
pub struct Extraction(pub(in crate::genai) &'static Shape);

impl Extract {
    /// Begins another document.
    pub fn begin(&mut self, extraction: Extraction) {
        self.text.clear();
        self.index.begin(Some(extraction.0));
        self.shape = Some(extraction.0);
        (self.passing, self.due, self.malformed) = (None, 0, false);
    }

    /// Bytes that are held for the document.
    pub fn held_bytes(&self) -> usize {
        self.text.len() + self.index.entries().len() * Index::ENTRY_BYTES
    }

    /// Bytes that are held for this document and the next ones.
    pub fn capacity_bytes(&self) -> usize {
        self.text.capacity() + self.index.bytes()
    }

    /// Takes the first piece, which is likely to be all of the document.
    pub fn feed_all(&mut self, document: &[u8], forms: &mut Forms) {
        if let Some(shape) = self.shape {
            if self.find(|found| forms.find(document, shape, found)) {
                return;
            }
            self.begin(Extraction(shape));
        }
        self.feed(document);
    }

    /// Is whole if `find` finds it.
    #[inline]
    pub(super) fn find(&mut self, find: impl FnOnce(&mut Found<'_>) -> bool) -> bool {
        let Self { text, index, .. } = self;
        let is_found = find(&mut Found { text, index });
        if is_found {
            self.index.be_whole(self.text.len());
        }
        is_found
    }

    /// Takes the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && !self.malformed {
            if let Some(passing) = &mut self.passing {
                match passing.end(piece, 0) {
                    Ok(end) => piece = piece.get(end..).unwrap_or_default(),
                    Err(stop) => {
                        self.malformed = stop != Stop::More;
                        return;
                    }
                }
                self.passing = None;
            }
            let taken = TAKEN_BYTES.max(self.due.saturating_sub(self.text.len())).min(piece.len());
            let (front, rest) = piece.split_at(taken);
            self.text.extend_from_slice(front);
            piece = rest;
            if self.text.len() >= self.due {
                self.walk();
            }
        }
    }

    fn walk(&mut self) {
        self.due = 0;
        match self.index.walk(&self.text, false) {
            Stop::More => {
                // What is long has to grow to twice its length before it is looked at again, so that pieces may
                // be as small as they like.
                let under_way = self.text.len().saturating_sub(self.index.at());
                if under_way > TAKEN_BYTES {
                    self.due = self.text.len() + under_way;
                }
            }
            Stop::Malformed => self.malformed = true,
            Stop::Passing(at) => self.pass(at),
        }
    }

    /// The document has ended.
    pub fn finish(&mut self) {
        if self.due > 0 && !self.malformed {
            self.walk();
        }
    }

    /// The value at `at`, which nobody asks for, goes on behind what there is.
    fn pass(&mut self, at: usize) {
        let first = self.text.get(at).copied().unwrap_or_default();
        let passing = Passing::new(first).and_then(|mut passing| match passing.end(&self.text, at) {
            Err(Stop::More) => Ok(passing),
            _ => Err(Stop::Malformed),
        });
        self.malformed = passing.is_err();
        self.passing = passing.ok();
        self.text.truncate(at);
    }

    /// Hands the root of a finished document to `read`, as [`super::Scratch::look`] does, with `texts` for
    /// what has escapes. `None` when it was no JSON, or isn't there whole.
    pub(super) fn look<R>(&self, texts: &Bump, read: impl for<'t> FnOnce(Json<'t>) -> R) -> Option<R> {
        let document = Document::new(&self.text, self.index.entries(), texts);
        (!self.malformed && self.index.is_whole()).then(|| read(Json::Seen(document.root())))
    }
}
