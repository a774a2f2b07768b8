//! Fields as ranges of a text that may still be growing or moving, so not as slices.

use super::Field;
use crate::limits::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};

/// Fields that are laid out without touching the larger arrays.
const FIELDS_FEW: usize = 12;
const FIELDS_USUAL: usize = 32;

/// A range of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

const _: () = assert!(2 * HEAD_BYTES_MAX <= u32::MAX as usize);

impl Span {
    /// Heads are bounded by [`HEAD_BYTES_MAX`], so positions in them fit.
    pub fn new(start: usize, bytes: usize) -> Self {
        Self { start: start as u32, end: (start + bytes) as u32 }
    }

    pub fn start(self) -> usize {
        self.start as usize
    }

    pub fn end(self) -> usize {
        self.end as usize
    }

    pub fn len(self) -> usize {
        self.end() - self.start()
    }

    /// The bytes in `text`.
    pub fn of(self, text: &[u8]) -> &[u8] {
        text.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// Runs `with` on the fields at `spans`, names and values. They are laid out on the stack, because a
/// list that is kept for reuse can't hold slices of each head in turn.
pub(super) fn with_fields<R>(text: &[u8], spans: &[(Span, Span)], with: impl FnOnce(&[Field<'_>]) -> R) -> R {
    if spans.len() <= FIELDS_FEW {
        with_fields_on_stack::<FIELDS_FEW, R>(text, spans, with)
    } else if spans.len() <= FIELDS_USUAL {
        with_fields_on_stack::<FIELDS_USUAL, R>(text, spans, with)
    } else {
        with_fields_on_stack::<HEAD_FIELDS_MAX, R>(text, spans, with)
    }
}

fn with_fields_on_stack<const N: usize, R>(
    text: &[u8],
    spans: &[(Span, Span)],
    with: impl FnOnce(&[Field<'_>]) -> R,
) -> R {
    let mut fields = [Field { name: &[], value: &[] }; N];
    for (field, (name, value)) in fields.iter_mut().zip(spans) {
        *field = Field { name: name.of(text), value: value.of(text) };
    }
    with(&fields[..spans.len().min(N)])
}
