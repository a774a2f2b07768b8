//! Where functions begin and end, as the unwinder is told: `.eh_frame_hdr` (Linux Standard Base, section
//! 10.6), a sorted table that stripped programs have too.

use std::collections::BTreeMap;

use crate::kernel::image::{Image, Region};

/// Version 1; the pointer to the frames relative to its place, the count plain, and the table relative to
/// the section, all of four bytes. What linkers write.
const FORMAT: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

/// Bytes before the table: the format, the pointer to the frames, and the count.
const HEADER_BYTES: usize = 12;

/// Functions by their first address, with the address behind their last byte; none when the file doesn't
/// have the table, or in another format.
pub fn functions(image: &Image<'_>) -> Option<BTreeMap<u64, u64>> {
    let header = image.section(".eh_frame_hdr")?;
    let frames = image.section(".eh_frame")?;
    Some(read(&header, image.bytes_of(&header)?, &frames, image.bytes_of(&frames)?))
}

fn read(header: &Region, table: &[u8], frames: &Region, descriptions: &[u8]) -> BTreeMap<u64, u64> {
    if table.get(..4) != Some(&FORMAT) {
        return BTreeMap::new();
    }
    let entries = table.get(HEADER_BYTES..).unwrap_or_default().chunks_exact(8);
    let function = |entry: &[u8]| {
        let start = header.address.wrapping_add_signed(signed(entry, 0)?);
        let description = header.address.wrapping_add_signed(signed(entry, 4)?);
        // Length, where the common part is, first address relative to its place, bytes.
        let fields = descriptions.get(usize::try_from(description.checked_sub(frames.address)?).ok()?..)?;
        let said = description.wrapping_add(8).wrapping_add_signed(signed(fields, 8)?);
        let len = u64::try_from(signed(fields, 12)?).ok()?;
        (said == start).then_some((start, start.checked_add(len)?))
    };
    entries.filter_map(function).collect()
}

fn signed(bytes: &[u8], at: usize) -> Option<i64> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(i64::from(i32::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_from_the_table() {
        let region = |address, len| Region { address, offset: 0, len, executable: false };
        let word = |value: i64| i32::try_from(value).unwrap().to_le_bytes();
        let (header, frames) = (region(0x1000, 28), region(0x2000, 64));
        let table =
            [&FORMAT[..], &word(0), &word(2), &word(0x3000), &word(0x1010), &word(0x3100), &word(0x1030)].concat();
        let mut descriptions = vec![0; 64];
        // One at 0x2010 of 0x20 bytes, and one at 0x2030 that is of another function.
        descriptions[0x18..0x20].copy_from_slice(&[word(0x4000 - 0x2018), word(0x20)].concat());
        descriptions[0x38..0x40].copy_from_slice(&[word(0x4104 - 0x2038), word(0x20)].concat());
        assert_eq!(read(&header, &table, &frames, &descriptions), BTreeMap::from([(0x4000, 0x4020)]));
        assert!(read(&header, &table[1..], &frames, &descriptions).is_empty());
        assert!(read(&header, &table, &frames, &[]).is_empty());
    }
}
