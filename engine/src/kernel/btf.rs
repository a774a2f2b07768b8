//! Offsets of fields in the running kernel's structures, from its type information (BTF,
//! Documentation/bpf/btf.rst).

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// Structures and unions without a name inside each other that are followed.
const DEPTH_MAX: u32 = 8;

/// The type information of a kernel.
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins in `types`; the first type has the number 1.
    starts: Vec<u32>,
    /// Numbers of the structures by name.
    structs: HashMap<&'a [u8], u32>,
}

impl<'a> Btf<'a> {
    /// Reads what `/sys/kernel/btf/vmlinux` holds. `None` when it isn't BTF of this byte order, or
    /// contradicts itself.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let section = |at: usize| {
            let start = word(bytes, 4)?.checked_add(word(bytes, at)?)? as usize;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let mut btf = Self { types: section(8)?, strings: section(16)?, starts: Vec::new(), structs: HashMap::new() };
        let mut at = 0;
        while at < btf.types.len() {
            btf.starts.push(u32::try_from(at).ok()?);
            let info = word(btf.types, at + 4)?;
            if kind(info) == KIND_STRUCT
                && let Some(name) = btf.name(word(btf.types, at)?).filter(|name| !name.is_empty())
            {
                btf.structs.insert(name, u32::try_from(btf.starts.len()).ok()?);
            }
            at += 12 + trailing_bytes(info)?;
        }
        Some(btf)
    }

    /// Offset in bytes of a field of a structure: names from the outermost field inwards. Fields of
    /// members without a name count as the structure's own. `None` when there is none, or it is a
    /// bit field.
    pub fn offset(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let mut number = *self.structs.get(structure.as_bytes())?;
        let mut bits = 0;
        for name in path {
            let (member, at) = self.member(self.resolve(number)?, name.as_bytes(), DEPTH_MAX)?;
            (number, bits) = (member, bits + at);
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// A member's type and its offset in bits.
    fn member(&self, number: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let (info, start) = self.head(number)?;
        if !matches!(kind(info), KIND_STRUCT | KIND_UNION) || depth == 0 {
            return None;
        }
        (0..info & 0xffff).find_map(|index| {
            let at = start + 12 + 12 * index as usize;
            let (label, member, offset) = (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
            // With the kind flag set, the upper byte is the width of a bit field.
            let (offset, width) = if info >> 31 == 1 { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            let label = self.name(label)?;
            if label == name {
                return (width == 0).then_some((member, offset));
            }
            let (member, inner) = label.is_empty().then(|| self.member(member, name, depth - 1))??;
            Some((member, offset + inner))
        })
    }

    /// Past typedefs, qualifiers and arrays to the type itself.
    fn resolve(&self, mut number: u32) -> Option<u32> {
        for _ in 0..32 {
            let (info, start) = self.head(number)?;
            number = match kind(info) {
                // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
                8..=11 | 18 => word(self.types, start + 8)?,
                KIND_ARRAY => word(self.types, start + 12)?,
                _ => return Some(number),
            };
        }
        None
    }

    fn head(&self, number: u32) -> Option<(u32, usize)> {
        let start = *self.starts.get((number as usize).checked_sub(1)?)? as usize;
        Some((word(self.types, start + 4)?, start))
    }

    fn name(&self, at: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(at as usize..)?;
        rest.get(..memchr::memchr(0, rest)?)
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Bytes that follow a type's first twelve.
fn trailing_bytes(info: u32) -> Option<usize> {
    let entries = (info & 0xffff) as usize;
    Some(match kind(info) {
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        KIND_ARRAY => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * entries,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * entries,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { union { int a; struct { int b; int c; }; }; int d[2]; unsigned e:3; }` in BTF.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0c\0d\0e\0";
        let at = |name: &str| strings.windows(name.len() + 1).position(|w| w == [name.as_bytes(), b"\0"].concat());
        let name = |name: &str| at(name).unwrap() as u32;
        let info = |kind: u32, entries: u32| kind << 24 | entries;
        let types: Vec<u32> = [
            vec![name("int"), info(1, 0), 4, 32],
            vec![0, info(KIND_ARRAY, 0), 0, 1, 1, 2],
            vec![0, info(KIND_STRUCT, 2), 8, name("b"), 1, 0, name("c"), 1, 32],
            vec![0, info(KIND_UNION, 2), 8, name("a"), 1, 0, 0, 3, 0],
            vec![name("s"), 1 << 31 | info(KIND_STRUCT, 3), 20, 0, 4, 0, name("d"), 2, 64, name("e"), 1, 3 << 24 | 128],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let len = u32::try_from(types.len()).unwrap();
        for word in [24, 0, len, len, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_through_members_without_a_name() {
        let bytes = sample();
        let btf = Btf::parse(&bytes).unwrap();
        for (path, expected) in [
            (&["a"][..], Some(0)),
            (&["b"], Some(0)),
            (&["c"], Some(4)),
            (&["d"], Some(8)),
            (&["e"], None),
            (&["f"], None),
            (&["a", "b"], None),
        ] {
            assert_eq!(btf.offset("s", path), expected, "{path:?}");
        }
        assert_eq!(btf.offset("t", &["a"]), None);
    }

    #[test]
    fn damage_is_told_not_followed() {
        let bytes = sample();
        for len in 0..bytes.len() {
            let _ = Btf::parse(&bytes[..len]).and_then(|btf| btf.offset("s", &["c"]));
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            let _ = Btf::parse(&bytes).and_then(|btf| btf.offset("s", &["c"]));
        }
    }

    #[test]
    fn this_kernel_is_read() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.offset("sock_common", &["skc_daddr"]), Some(0));
        assert!(btf.offset("sock", &["__sk_common", "skc_family"]).is_some());
    }
}
