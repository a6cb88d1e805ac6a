//! Where the members of the running kernel's structures lie, by its type information (BTF; Linux Documentation/bpf/btf.rst).
//! They move from one version to the next. (aya reads this information, too, but keeps members to itself.)

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::Error;

/// The kernel's own types.
const KERNEL: &str = "/sys/kernel/btf/vmlinux";
const READING: &str = "reading the kernel's types";
/// What type information begins with.
pub const MAGIC: u16 = 0xeb9f;

/// Kinds of types.
mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// `struct btf_header`; offsets count from its end.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: u16,
    version: u8,
    flags: u8,
    len: u32,
    types: u32,
    types_len: u32,
    strings: u32,
    strings_len: u32,
}

/// `struct btf_type`; what belongs to it follows.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Type {
    name: u32,
    info: u32,
    size: u32,
}

/// `struct btf_member`. In structures with bit-fields, the upper eight bits of `offset` are a bit-field's width, and 0 of any other member.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Member {
    name: u32,
    of_type: u32,
    offset: u32,
}

impl Type {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn members(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Bytes of what follows; `None`: a kind that is not known here, so that no later type can be found.
    fn following(&self) -> Option<usize> {
        match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => Some(4),
            kind::ARRAY => Some(12),
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Some(12 * self.members()),
            kind::ENUM | kind::FUNC_PROTO => Some(8 * self.members()),
            kind::PTR | kind::FWD..=kind::RESTRICT | kind::FUNC | kind::FLOAT | kind::TYPE_TAG => Some(0),
            _ => None,
        }
    }
}

/// Type information.
pub struct Btf {
    bytes: Vec<u8>,
    types: Range<usize>,
    strings: Range<usize>,
}

/// A structure.
#[derive(Debug)]
pub struct Structure {
    /// The number of its type.
    pub id: u32,
    /// Bytes.
    pub size: usize,
    /// Names (of one that is anonymous, empty) and offsets as they are written, in order.
    members: Vec<(Vec<u8>, u32)>,
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many come before it.
    pub index: u32,
    /// Bytes from the structure's begin.
    pub offset: usize,
}

impl Btf {
    /// That of the running kernel.
    ///
    /// # Errors
    /// It has none (CONFIG_DEBUG_INFO_BTF), or of a form not known here.
    pub fn of_kernel() -> Result<Self, Error> {
        Self::parse(std::fs::read(KERNEL).map_err(Error::of(READING))?)
    }

    /// Finds the sections of type information.
    ///
    /// # Errors
    /// It is not, or not whole.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let header = Header::read_from_prefix(&bytes).ok().map(|(header, _)| header);
        let header = header.filter(|header| header.magic == MAGIC).ok_or_else(malformed)?;
        let section = |offset: u32, len: u32| {
            let start = (header.len as usize).checked_add(offset as usize)?;
            let range = start..start.checked_add(len as usize)?;
            bytes.get(range.clone()).map(|_| range)
        };
        let types = section(header.types, header.types_len).ok_or_else(malformed)?;
        let strings = section(header.strings, header.strings_len).ok_or_else(malformed)?;
        Ok(Self { types, strings, bytes })
    }

    /// The first structure of this name.
    ///
    /// # Errors
    /// There is none, or the types before it cannot be read.
    pub fn structure(&self, name: &'static str) -> Result<Structure, Error> {
        let mut rest = self.bytes.get(self.types.clone()).unwrap_or_default();
        // 0 is void, of which nothing is written.
        let mut id = 0;
        while !rest.is_empty() {
            id += 1;
            let (head, after) = Type::read_from_prefix(rest).map_err(|_| malformed())?;
            let (own, next) = head.following().and_then(|len| after.split_at_checked(len)).ok_or_else(malformed)?;
            if head.kind() == kind::STRUCT && self.string(head.name)? == name.as_bytes() {
                return Ok(Structure { id, size: head.size as usize, members: self.members(own)? });
            }
            rest = next;
        }
        Err(missing(name))
    }

    fn members(&self, bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, Error> {
        let member = |bytes| {
            let member = Member::read_from_bytes(bytes).map_err(|_| malformed())?;
            Ok((self.string(member.name)?.to_vec(), member.offset))
        };
        bytes.chunks(size_of::<Member>()).map(member).collect()
    }

    fn string(&self, offset: u32) -> Result<&[u8], Error> {
        let strings = self.bytes.get(self.strings.clone()).and_then(|strings| strings.get(offset as usize..));
        strings.and_then(|rest| rest.split(|&byte| byte == 0).next()).ok_or_else(malformed)
    }
}

impl Structure {
    /// Where the member of this name is.
    ///
    /// # Errors
    /// There is none, or it is a bit-field.
    pub fn member(&self, name: &'static str) -> Result<Place, Error> {
        let mut members = (0..).zip(&self.members);
        let whole = |bits: u32| bits >> 24 == 0 && bits.is_multiple_of(8);
        let found = members.find(|(_, (own, bits))| own == name.as_bytes() && whole(*bits));
        found.map(|(index, (_, bits))| Place { index, offset: (bits / 8) as usize }).ok_or_else(|| missing(name))
    }
}

fn malformed() -> Error {
    Error { what: READING, source: "they are malformed, or of a form that is not known".into() }
}

fn missing(name: &'static str) -> Error {
    Error { what: name, source: "not among the kernel's types".into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A type of any kind; a structure "ab" and one "cd" with bit-fields, of two members each: "x", and an anonymous one or "y", which
    /// is three bits wide.
    fn sample_after(first: &[u32]) -> Vec<u8> {
        const BIT_FIELDS: u32 = 1 << 31;
        let strings = b"\0ab\0cd\0x\0y\0";
        let structure =
            |name, flag, second, offset| [name, flag | kind::STRUCT << 24 | 2, 16, 7, 1, 32, second, 1, offset];
        let types = [first, &structure(1, 0, 0, 64), &structure(4, BIT_FIELDS, 9, 3 << 24 | 64)].concat();
        let header = [u32::from(MAGIC) | 1 << 16, 24, 0, 4 * types.len() as u32];
        let sections = [4 * types.len() as u32, strings.len() as u32];
        let words = header.into_iter().chain(sections).chain(types);
        words.flat_map(u32::to_ne_bytes).chain(strings.iter().copied()).collect()
    }

    /// With an integer.
    fn sample() -> Vec<u8> {
        sample_after(&[1, kind::INT << 24, 4, 32])
    }

    #[test]
    fn structures_and_their_members_are_found() {
        let btf = Btf::parse(sample()).unwrap();
        let (plain, split) = (btf.structure("ab").unwrap(), btf.structure("cd").unwrap());
        assert_eq!((plain.id, plain.size, split.id), (2, 16, 3));
        assert_eq!(plain.member("x").unwrap(), Place { index: 0, offset: 4 });
        assert_eq!(plain.member("").unwrap(), Place { index: 1, offset: 8 });
        assert_eq!(split.member("x").unwrap(), Place { index: 0, offset: 4 });
        let absent = [plain.member("y").unwrap_err(), split.member("y").unwrap_err(), btf.structure("a").unwrap_err()];
        assert!(absent.iter().all(|error| error.to_string().contains("not among")), "{absent:?}");
    }

    #[test]
    fn the_running_kernels_types_are_understood_to_the_last() {
        let btf = Btf::of_kernel().unwrap();
        let socket = btf.structure("tcp_sock").unwrap();
        let (cwnd, all) = (socket.member("snd_cwnd").unwrap(), btf.structure("sock").unwrap().size);
        assert!((all..socket.size).contains(&cwnd.offset) && cwnd.offset.is_multiple_of(4), "{cwnd:?} {all}");
        assert_eq!(btf.structure("sock").unwrap().member("__sk_common").unwrap(), Place { index: 0, offset: 0 });
        let error = btf.structure("no_such_structure").unwrap_err().to_string();
        assert!(error.contains("not among"), "{error}");
    }

    #[test]
    fn what_is_cut_short_or_of_an_unknown_kind_is_refused() {
        let whole = sample();
        for len in 0..whole.len() {
            assert!(Btf::parse(whole[..len].to_vec()).is_err(), "{len}");
        }
        // The magic number, a count of members, a name, the length of the types.
        for (at, value) in [(0, 0), (24 + 16 + 4, 200), (24 + 16 + 3, 0xff), (12, 70)] {
            let mut broken = whole.clone();
            broken[at] = value;
            assert!(Btf::parse(broken).and_then(|btf| btf.structure("cd")).is_err(), "{at} {value}");
        }
        let error = Btf::parse(sample_after(&[1, 31 << 24, 4])).unwrap().structure("ab").unwrap_err();
        assert!(error.to_string().contains("malformed"), "{error}");
    }

    #[test]
    fn types_of_every_kind_are_passed_over() {
        // Words that follow, for two members where they are counted.
        let kinds = [0, 1, 0, 3, 6, 6, 4, 0, 0, 0, 0, 0, 0, 4, 1, 6, 0, 1, 0, 6];
        for (number, words) in (0..).zip(kinds).skip(1) {
            let mut first = vec![0, number << 24 | 2, 0];
            first.extend(std::iter::repeat_n(0, words));
            assert_eq!(Btf::parse(sample_after(&first)).unwrap().structure("cd").unwrap().id, 3, "{number}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in prop::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
            let mut bytes = sample();
            for (at, value) in noise {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            for name in ["ab", "cd"] {
                if let Ok(found) = Btf::parse(bytes.clone()).and_then(|btf| btf.structure(name)) {
                    let _ = (found.member("x"), found.member("y"));
                }
            }
        }
    }
}
