//! HPACK (RFC 7541), decoded from outside.
//!
//! Two things differ from a decoder at the end of a connection. The size of the dynamic table needs
//! no SETTINGS: the encoder starts at 4,096 bytes and announces every change in the blocks
//! themselves (section 4.2). And blocks may have been lost. Entries are counted from the newest, so
//! after a loss those that are inserted from then on are known by their right indexes, and every
//! index beyond them is unknown: a field that needs it is left out and counted. A table that is
//! taken to be larger than it is does no harm either, as nobody refers to what was evicted.

mod huffman;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

use self::table::{Table, Texts};
use super::{
    Field,
    span::{Span, with_fields},
};
use crate::limits::{HEAD_BUFFER_KEPT_BYTES, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, HPACK_TABLE_BYTES_MAX};

/// Why a block can't be decoded. The rest of it is lost, and with it the dynamic table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// The block ends inside a field.
    #[error("block ends inside a field")]
    Truncated,
    /// An integer beyond what any index or length can be.
    #[error("integer too large")]
    Integer,
    /// An index beyond a table that is known in full, or zero.
    #[error("no such index")]
    Index,
    /// A string that isn't Huffman code.
    #[error("bad Huffman code")]
    Huffman,
    /// A change of the table's size behind a field (section 4.2).
    #[error("misplaced table size update")]
    SizeUpdate,
    /// More than [`HEAD_BYTES_MAX`] or [`HEAD_FIELDS_MAX`].
    #[error("field list too long")]
    TooLong,
}

/// Decodes the field blocks of one direction, in their order.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Names and values of the last block. They are copied, because a field may evict an entry that
    /// an earlier one came from.
    text: Vec<u8>,
    spans: Vec<(Span, Span)>,
    unknown: usize,
}

/// The fields of one block.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    text: &'a [u8],
    spans: &'a [(Span, Span)],
    /// Fields that are left out because an entry that they refer to was lost.
    pub unknown: usize,
}

impl Fields<'_> {
    /// Runs `with` on the fields.
    pub fn with<R>(&self, with: impl FnOnce(&[Field<'_>]) -> R) -> R {
        with_fields(self.text, self.spans, with)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder for a connection seen from its beginning.
    pub fn new() -> Self {
        Self { table: Table::default(), text: Vec::new(), spans: Vec::new(), unknown: 0 }
    }

    /// A decoder for a connection met in the middle.
    pub fn midway() -> Self {
        let mut decoder = Self::new();
        decoder.lose();
        decoder
    }

    /// A block was lost, or some of one.
    pub fn lose(&mut self) {
        self.table.lose();
    }

    /// Some entries may still be unknown.
    pub fn is_lossy(&self) -> bool {
        self.table.has_unknown()
    }

    /// Decodes one whole block.
    pub fn decode(&mut self, block: &[u8]) -> Result<Fields<'_>, Error> {
        self.text.clear();
        self.text.shrink_to(HEAD_BUFFER_KEPT_BYTES);
        self.spans.clear();
        self.unknown = 0;
        let mut rest = block;
        while !rest.is_empty() {
            if let Err(error) = self.decode_field(&mut rest) {
                self.lose();
                return Err(error);
            }
        }
        Ok(Fields { text: &self.text, spans: &self.spans, unknown: self.unknown })
    }

    /// One representation of section 6.
    fn decode_field(&mut self, rest: &mut &[u8]) -> Result<(), Error> {
        match rest.first().copied().unwrap_or_default() {
            0x80.. => {
                let index = integer(rest, 7)?;
                let name = self.copy_name(index)?;
                let value = self.copy_value(index)?;
                self.push(name, value)
            }
            0x40.. => {
                let (name, value) = self.literal(rest, 6)?;
                self.table.insert(name.map(|name| name.of(&self.text)), value.of(&self.text));
                self.push(name, Some(value))
            }
            0x20.. => {
                if !self.spans.is_empty() || self.unknown > 0 {
                    return Err(Error::SizeUpdate);
                }
                let size = integer(rest, 5)?;
                self.table.resize(size);
                Ok(())
            }
            // Without indexing, or never indexed: the same to a reader.
            _ => {
                let (name, value) = self.literal(rest, 4)?;
                self.push(name, Some(value))
            }
        }
    }

    fn literal(&mut self, rest: &mut &[u8], prefix: u32) -> Result<(Option<Span>, Span), Error> {
        let name = match integer(rest, prefix)? {
            0 => Some(self.string(rest)?),
            index => self.copy_name(index)?,
        };
        Ok((name, self.string(rest)?))
    }

    fn push(&mut self, name: Option<Span>, value: Option<Span>) -> Result<(), Error> {
        let (Some(name), Some(value)) = (name, value) else {
            self.unknown += 1;
            return Ok(());
        };
        if self.spans.len() >= HEAD_FIELDS_MAX || self.text.len() > HEAD_BYTES_MAX {
            return Err(Error::TooLong);
        }
        self.spans.push((name, value));
        Ok(())
    }

    /// A string literal (section 5.2).
    fn string(&mut self, rest: &mut &[u8]) -> Result<Span, Error> {
        let is_huffman = rest.first().ok_or(Error::Truncated)? & 0x80 != 0;
        let length = integer(rest, 7)?;
        let (bytes, after) = rest.split_at_checked(length).ok_or(Error::Truncated)?;
        *rest = after;
        let start = self.text.len();
        if is_huffman {
            huffman::decode(bytes, &mut self.text)?;
        } else {
            self.text.extend_from_slice(bytes);
        }
        self.since(start)
    }

    /// The name of an entry; `None` if it is unknown.
    fn copy_name(&mut self, index: usize) -> Result<Option<Span>, Error> {
        let start = self.text.len();
        match static_table::entry(index) {
            Some((name, _)) => self.text.extend_from_slice(name.as_bytes()),
            None => match self.table.entry(index.saturating_sub(static_table::ENTRIES))? {
                Some(Texts { name: Some(name), .. }) => self.text.extend_from_slice(name),
                _ => return Ok(None),
            },
        }
        self.since(start).map(Some)
    }

    /// The value of an entry; `None` if it is unknown.
    fn copy_value(&mut self, index: usize) -> Result<Option<Span>, Error> {
        let start = self.text.len();
        match static_table::entry(index) {
            Some((_, value)) => self.text.extend_from_slice(value.as_bytes()),
            None => match self.table.entry(index.saturating_sub(static_table::ENTRIES))? {
                Some(Texts { value, .. }) => self.text.extend_from_slice(value),
                None => return Ok(None),
            },
        }
        self.since(start).map(Some)
    }

    /// What was appended to the text. A short block can refer to a long entry many times.
    fn since(&self, start: usize) -> Result<Span, Error> {
        if self.text.len() > HEAD_BYTES_MAX {
            return Err(Error::TooLong);
        }
        Ok(Span::new(start, self.text.len() - start))
    }
}

/// An integer with a prefix of so many bits (section 5.1).
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, mut after) = rest.split_first().ok_or(Error::Truncated)?;
    let limit = (1u32 << prefix) - 1;
    let mut value = u32::from(first) & limit;
    if value == limit {
        let mut shift = 0;
        loop {
            let (&byte, behind) = after.split_first().ok_or(Error::Truncated)?;
            after = behind;
            // Four bytes hold more than any index or length here.
            if shift > 21 {
                return Err(Error::Integer);
            }
            value += u32::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = after;
    Ok(value as usize)
}

const _: () = assert!(HPACK_TABLE_BYTES_MAX < 1 << 21);
