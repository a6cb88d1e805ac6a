//! What carries the bytes of a run.

use std::process::Command;

use underpass_lab::Side;

/// What carries one side's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The program as it is.
    Kernel,
    /// With the library preloaded.
    Underpass,
}

/// What carries the two sides.
#[derive(Clone, Copy, Debug)]
pub struct Carriers {
    /// The server's.
    pub server: Carrier,
    /// The client's.
    pub client: Carrier,
    /// Promotion at the first data call, also of what the policy would leave in the kernel.
    pub eager: bool,
    /// The connections are over IPv6.
    pub v6: bool,
}

impl Carriers {
    /// Nothing preloaded.
    pub const KERNEL: Self = Self::new(Carrier::Kernel, Carrier::Kernel);
    /// The server preloaded.
    pub const SERVER: Self = Self::new(Carrier::Underpass, Carrier::Kernel);
    /// The client preloaded.
    pub const CLIENT: Self = Self::new(Carrier::Kernel, Carrier::Underpass);
    /// Both preloaded.
    pub const BOTH: Self = Self::new(Carrier::Underpass, Carrier::Underpass);

    const fn new(server: Carrier, client: Carrier) -> Self {
        Self { server, client, eager: false, v6: false }
    }

    /// The same with [`Self::eager`].
    pub const fn eagerly(self) -> Self {
        Self { eager: true, ..self }
    }

    /// The same over IPv6.
    pub const fn over_v6(self) -> Self {
        Self { v6: true, ..self }
    }

    /// What carries this side's.
    pub fn of(self, side: Side) -> Carrier {
        match side {
            Side::Server => self.server,
            Side::Client => self.client,
        }
    }

    /// Tells a command of this side what its library has to know.
    pub fn instruct(self, side: Side, command: &mut Command) {
        if self.eager && self.of(side) == Carrier::Underpass {
            command.env("UNDERPASS_PROMOTE", "eager");
        }
    }

    /// Sides with the library preloaded.
    pub fn preloaded(self) -> impl Iterator<Item = Side> {
        [Side::Server, Side::Client].into_iter().filter(move |side| self.of(*side) == Carrier::Underpass)
    }
}
