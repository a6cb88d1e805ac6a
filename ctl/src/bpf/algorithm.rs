//! A congestion control of ours, which no connection is ever controlled by: a socket that is switched to it is given the congestion window
//! and the slow start threshold that it is to have, which neither a socket option nor TCP_REPAIR can, and keeps them when it is switched
//! back. Programs without privilege cannot choose it (it lacks TCP_CONG_NON_RESTRICTED).
//!
//! The kernel has it as a structure of operations (BPF_MAP_TYPE_STRUCT_OPS, since Linux 5.6). Its name is known to all network namespaces.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use zerocopy::IntoBytes;

use super::btf::{Btf, Structure};
use super::instructions::{self, Instruction, Offsets, Wanted};
use super::{Error, sys};

/// What the names of all daemons' algorithms begin with.
const PREFIX: &str = "underpass";
/// Names that are tried: another daemon may have the same process number, in another namespace.
const ATTEMPTS: u32 = 64;
const OPERATIONS: &str = "tcp_congestion_ops";
/// What the kernel keeps of them in the map.
const VALUE: &str = "bpf_struct_ops_tcp_congestion_ops";

/// No socket's cookie. 0 is that of all whose cookie nobody has asked for.
const NOBODY: Wanted = Wanted { cookie: u64::MAX, cwnd: 1, ssthresh: 2 };

/// The registered algorithm; it goes when this is dropped.
pub struct Algorithm {
    name: String,
    wanted: sys::Cell,
    _registered: Registered,
}

/// What keeps an algorithm registered.
enum Registered {
    /// Since Linux 6.4, a link: nothing is left of a process that dies.
    Link { _link: OwnedFd },
    /// Before, the map's element. A daemon that is killed leaves a name behind that nobody uses.
    Element(sys::Cell),
}

impl Drop for Registered {
    fn drop(&mut self) {
        if let Self::Element(operations) = self
            && let Err(error) = operations.delete()
        {
            tracing::warn!("the congestion control that gives windows back stays behind: {error}");
        }
    }
}

impl Algorithm {
    /// Loads its programs and registers it.
    ///
    /// # Errors
    /// A kernel without type information (CONFIG_DEBUG_INFO_BTF) or without BPF's compiler (CONFIG_BPF_JIT).
    pub fn load() -> Result<Self, Error> {
        match Self::load_as(PREFIX, true) {
            // It does not know the flag.
            Err(error) if error.errno() == Some(libc::EINVAL) => Self::load_as(PREFIX, false),
            done => done,
        }
    }

    /// With a name that begins so (nine letters at most), registered by a link or without.
    pub(crate) fn load_as(prefix: &str, link: bool) -> Result<Self, Error> {
        let types = Btf::of_kernel()?;
        let wanted = sys::Cell::array(size_of::<Wanted>()).map_err(Error::of("making a map"))?;
        wanted.set(NOBODY.as_bytes()).map_err(Error::of("filling a map"))?;
        let mut template = Template::new(&types)?;
        let programs = load_programs(&types, &template.operations, &wanted)?;
        for (member, program) in &programs {
            template.set_program(member, program)?;
        }
        let (name, registered) = register(&template, prefix, link)?;
        Ok(Self { name, wanted, _registered: registered })
    }

    /// Its name, for TCP_CONGESTION.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is `name` an algorithm of this kind, ours or another daemon's?
    pub fn is_kin(name: &str) -> bool {
        name.starts_with(PREFIX)
    }

    /// From now on the socket with this cookie (SO_COOKIE) gets these, in segments, when it is switched to the algorithm, and no other socket
    /// gets anything.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn expect(&self, cookie: u64, cwnd: u32, ssthresh: u32) -> io::Result<()> {
        self.wanted.set(Wanted { cookie, cwnd, ssthresh }.as_bytes())
    }
}

type Programs = [(&'static str, OwnedFd); 4];

fn load_programs(types: &Btf, operations: &Structure, wanted: &sys::Cell) -> Result<Programs, Error> {
    let socket = types.structure("tcp_sock")?;
    let place = |of: &Structure, member| of.member(member).and_then(|place| short(place.offset));
    let offsets = Offsets {
        cookie: place(&types.structure("sock_common")?, "skc_cookie")?,
        cwnd: place(&socket, "snd_cwnd")?,
        ssthresh: place(&socket, "snd_ssthresh")?,
    };
    let load = |member: &'static str, program: Vec<Instruction>| {
        let index = operations.member(member)?.index;
        sys::load(&program, operations.id, index).map(|fd| (member, fd)).map_err(Error::of(member))
    };
    Ok([
        load("init", instructions::init(offsets, wanted.as_fd()))?,
        load("ssthresh", instructions::ssthresh(offsets))?,
        load("undo_cwnd", instructions::undo_cwnd(offsets))?,
        load("cong_avoid", instructions::cong_avoid())?,
    ])
}

fn short(offset: usize) -> Result<i16, Error> {
    i16::try_from(offset).map_err(Error::of("an offset"))
}

/// The map's element: the operations as user space writes them, with descriptors in the places of functions.
struct Template {
    operations: Structure,
    /// Number of the element's type.
    type_id: u32,
    /// Where the operations begin in it, bytes.
    begin: usize,
    bytes: Vec<u8>,
}

impl Template {
    fn new(types: &Btf) -> Result<Self, Error> {
        let (operations, value) = (types.structure(OPERATIONS)?, types.structure(VALUE)?);
        let begin = value.member("data")?.offset;
        Ok(Self { operations, type_id: value.id, begin, bytes: vec![0; value.size] })
    }

    fn set_program(&mut self, member: &'static str, program: &OwnedFd) -> Result<(), Error> {
        let descriptor = program.as_raw_fd() as usize;
        write(&mut self.bytes, self.begin + self.operations.member(member)?.offset, &descriptor.to_ne_bytes())
    }

    /// With a name.
    fn named(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = self.bytes.clone();
        write(&mut bytes, self.begin + self.operations.member("name")?.offset, name.as_bytes())?;
        Ok(bytes)
    }
}

fn write(bytes: &mut [u8], at: usize, what: &[u8]) -> Result<(), Error> {
    let place = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..what.len()));
    let out = || Error { what: OPERATIONS, source: "a member lies outside".into() };
    place.ok_or_else(out).map(|place| place.copy_from_slice(what))
}

fn register(template: &Template, prefix: &str, link: bool) -> Result<(String, Registered), Error> {
    let mut number = std::process::id();
    for _ in 0..ATTEMPTS {
        // Fifteen letters at most.
        let name = format!("{prefix}{:x}", number & 0xff_ffff);
        match try_register(template.type_id, &template.named(&name)?, link) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => number = number.wrapping_add(1),
            done => return done.map(|registered| (name, registered)).map_err(Error::of("registering it")),
        }
    }
    Err(Error { what: "registering it", source: "every name that was tried is taken".into() })
}

fn try_register(type_id: u32, operations: &[u8], link: bool) -> io::Result<Registered> {
    let cell = sys::Cell::operations(type_id, operations.len(), link)?;
    cell.set(operations)?;
    Ok(if link { Registered::Link { _link: sys::link(&cell)? } } else { Registered::Element(cell) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn available(name: &str) -> bool {
        let of = |kind| std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{kind}_congestion_control")).unwrap();
        let listed = |kind| of(kind).split_whitespace().any(|known| known == name);
        assert!(!listed("allowed"), "without privilege it may not be chosen");
        listed("available")
    }

    #[test]
    fn the_verifiers_words_are_told() {
        let operations = Btf::of_kernel().unwrap().structure(OPERATIONS).unwrap();
        let index = operations.member("ssthresh").unwrap().index;
        let without_answer = &instructions::cong_avoid()[1..];
        let error = sys::load(without_answer, operations.id, index).unwrap_err().to_string();
        assert!(error.contains("denied") && error.contains("R0"), "{error}");
    }

    #[test]
    fn several_are_registered_at_once_and_gone_with_their_owners() {
        for link in [true, false] {
            let algorithms = [(); 3].map(|()| Algorithm::load_as(PREFIX, link).unwrap());
            let names = algorithms.each_ref().map(|algorithm| algorithm.name().to_owned());
            assert!(
                names.iter().all(|name| available(name) && name.len() <= 15 && Algorithm::is_kin(name)),
                "{names:?}"
            );
            drop(algorithms);
            assert!(!names.iter().any(|name| available(name)), "{names:?}");
        }
    }
}
