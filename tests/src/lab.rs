//! Two hosts and the wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;

use underpass_stack::testkit::LinkSpec;

use crate::artifact::{Artifacts, Profile};
use crate::badlink::BadLink;
use crate::daemon::Daemon;
use crate::error::LabError;
use crate::ground::Ground;
use crate::namespace::{Namespace, ip};
use crate::process::Process;
use crate::router::Router;
use crate::view::{self, Connection, Counters, SocketView};

/// One of the two hosts. The names only help to talk about them: the hosts are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Address .1.
    Server,
    /// Address .2.
    Client,
}

/// Over which IP version the programs of a lab talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Over {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
    /// IPv4, but the server listens on `::`, so that its sockets are IPv6 with v4-mapped addresses.
    Mapped,
}

/// What a lab is made of.
#[derive(Clone, Copy, Debug)]
pub struct LabOptions {
    /// RX and TX queues of each interface.
    pub queues: u32,
    /// MTU of the wire in bytes.
    pub mtu: u32,
    /// A router in the middle instead of a wire: see [`Lab::router`].
    pub routed: bool,
    /// Which build of Underpass is used.
    pub profile: Profile,
    /// A bad link in place of the wire, both directions alike; [`Lab::link`] may change it later.
    pub link: Option<LinkSpec>,
    /// Over what its programs talk.
    pub over: Over,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500, routed: false, profile: Profile::Newest, link: None, over: Over::V4 }
    }
}

/// One host: a namespace with one interface.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub namespace: Namespace,
    /// The interface's name.
    pub interface: String,
    /// The interface's IPv4 address, /24.
    pub v4: Ipv4Addr,
    /// The interface's IPv6 address, /64.
    pub v6: Ipv6Addr,
}

/// A bad link and the namespace in which both cables end.
#[derive(Debug)]
struct Between {
    link: BadLink,
    // After the link, which has sockets there.
    _namespace: Namespace,
}

/// Two hosts joined by a veth pair, perhaps with a daemon. All of it goes away when dropped; a panic (a failed test) first
/// shows the daemon's log and counters.
#[derive(Debug)]
pub struct Lab {
    // Before the namespaces: it must end before they go.
    daemon: Option<Daemon>,
    // So must this.
    link: Option<Between>,
    server: Host,
    client: Host,
    router: Option<Router>,
    options: LabOptions,
    // Last: the next lab may begin when all else is gone.
    ground: Ground,
}

impl Lab {
    /// One queue, MTU 1500, no daemon.
    pub fn new() -> Result<Self, LabError> {
        Self::with(LabOptions::default())
    }

    /// As asked, without a daemon.
    pub fn with(options: LabOptions) -> Result<Self, LabError> {
        let ground = Ground::take(options.profile)?;
        let server = Host::new(ground.number(), Side::Server)?;
        let client = Host::new(ground.number(), Side::Client)?;
        let router = if options.routed { Some(Router::new(ground.number())?) } else { None };
        let mut lab = Self { daemon: None, server, client, link: None, router, options, ground };
        match (&lab.router, options.link) {
            (Some(router), _) => router.join(&lab)?,
            (None, None) => lab.wire()?,
            (None, Some(spec)) => lab.link = Some(lab.wire_through(spec)?),
        }
        Ok(lab)
    }

    /// With a running daemon. It lives in the server's namespace and serves both.
    pub fn with_daemon(options: LabOptions) -> Result<Self, LabError> {
        let mut lab = Self::with(options)?;
        lab.start_daemon()?;
        Ok(lab)
    }

    /// Starts the daemon, or a new one after the old was stopped.
    pub fn start_daemon(&mut self) -> Result<(), LabError> {
        self.stop_daemon();
        let artifacts = Artifacts::find(self.options.profile)?;
        let launcher = self.server.namespace.command(&artifacts.command)?;
        self.daemon = Some(Daemon::start(launcher, &artifacts, self.dir())?);
        Ok(())
    }

    /// Stops the daemon in an orderly way.
    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// The daemon, if one was started.
    pub fn daemon(&mut self) -> Option<&mut Daemon> {
        self.daemon.as_mut()
    }

    /// One of the hosts.
    pub fn host(&self, side: Side) -> &Host {
        match side {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }

    /// The router in the middle, in a lab that was made with one.
    pub fn router(&self) -> Option<&Router> {
        self.router.as_ref()
    }

    /// The bad link between the hosts; an error if the lab was made with a plain wire.
    pub fn link(&self) -> Result<&BadLink, LabError> {
        self.link.as_ref().map(|between| &between.link).ok_or_else(|| LabError::new("this lab has a plain wire"))
    }

    /// Where the server's programs listen.
    pub fn listening(&self) -> IpAddr {
        match self.options.over {
            Over::V4 => self.server.v4.into(),
            Over::V6 => self.server.v6.into(),
            Over::Mapped => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Where the client's programs reach them.
    pub fn address(&self) -> IpAddr {
        if self.options.over == Over::V6 { self.server.v6.into() } else { self.server.v4.into() }
    }

    /// A directory for the files of this lab.
    pub fn dir(&self) -> &Path {
        self.ground.dir()
    }

    /// A plain command on a host.
    pub fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        self.host(side).namespace.command(program)
    }

    /// A command on a host with the library preloaded, talking to this lab's daemon (if there is none, to nobody).
    pub fn preloaded(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Result<Command, LabError> {
        let mut command = self.command(side, program)?;
        let artifacts = Artifacts::find(self.options.profile)?;
        let nowhere = self.dir().join("control.sock");
        artifacts.preload(&mut command, self.daemon.as_ref().map_or(&nowhere, |daemon| daemon.socket()));
        Ok(command)
    }

    /// Starts a command; its output goes to files of this lab.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process, LabError> {
        Process::spawn(name, command, self.dir())
    }

    /// The sockets of a preloaded process (`underpass ss`).
    pub fn sockets(&self, pid: u32) -> Result<Vec<SocketView>, LabError> {
        self.artifacts()?.sockets(pid)
    }

    /// The sockets of every preloaded process, of other labs too, with their addresses.
    pub fn connections(&self) -> Result<Vec<Connection>, LabError> {
        view::connections(&self.artifacts()?.command)
    }

    /// A counter of a preloaded process (`underpass stats`).
    pub fn counter(&self, pid: u32, name: &str) -> Result<u64, LabError> {
        view::counter(&self.artifacts()?.command, pid, name)
    }

    /// All counters of a preloaded process.
    pub fn counters(&self, pid: u32) -> Result<Counters, LabError> {
        view::counters(&self.artifacts()?.command, pid)
    }

    /// Runs the `underpass` command as this lab's daemon is to be asked; its stdout.
    pub fn underpass(&self, args: &[&str]) -> Result<String, LabError> {
        let socket = self.dir().join("control.sock");
        view::said(Command::new(&self.artifacts()?.command).args(args).env("UNDERPASS_SOCKET", socket))
    }

    /// The library and the command under test.
    pub fn artifacts(&self) -> Result<Artifacts, LabError> {
        Artifacts::find(self.options.profile)
    }

    /// The daemon's log and the counters, if there is a daemon.
    pub fn report(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, Daemon::report)
    }

    fn wire(&self) -> Result<(), LabError> {
        let (server, client) = (&self.server, &self.client);
        self.cable((&server.interface, &server.namespace), (&client.interface, &client.namespace))?;
        server.configure()?;
        client.configure()
    }

    /// Each host's cable ends in a namespace of the link's own.
    fn wire_through(&self, spec: LinkSpec) -> Result<Between, LabError> {
        let number = self.ground.number();
        let namespace = Namespace::create(number, "link")?;
        // What the link's own kernel would say there.
        namespace.set("net/ipv6/conf/default/disable_ipv6", "1")?;
        let connect = |host: &Host| {
            let end = format!("l{}", host.interface);
            self.cable((&host.interface, &host.namespace), (&end, &namespace))?;
            namespace.ip(&["link", "set", &end, "up"])?;
            host.configure()?;
            host.send_whole_frames()?;
            interface_index(&namespace, &end)
        };
        let interfaces = [connect(&self.server)?, connect(&self.client)?];
        self.server.know(&self.client)?;
        self.client.know(&self.server)?;
        Ok(Between { link: BadLink::start(&namespace, interfaces, spec)?, _namespace: namespace })
    }

    /// A veth pair between two namespaces.
    pub(crate) fn cable(&self, near: (&str, &Namespace), far: (&str, &Namespace)) -> Result<(), LabError> {
        let queues = self.options.queues.to_string();
        let side = ["mtu", &self.options.mtu.to_string(), "numrxqueues", &queues, "numtxqueues", &queues];
        let one = [&["link", "add", near.0, "netns", near.1.name()], &side[..]].concat();
        let two = [&["type", "veth", "peer", "name", far.0, "netns", far.1.name()], &side[..]].concat();
        ip(&[one, two].concat()).map(|_| ())
    }
}

fn interface_index(namespace: &Namespace, name: &str) -> Result<u32, LabError> {
    let text = namespace.ip(&["-o", "link", "show", name])?;
    let number = text.split_once(':').and_then(|(number, _)| number.trim().parse().ok());
    number.ok_or_else(|| LabError::new(format!("no interface number: {text}")))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
        self.stop_daemon();
    }
}

impl Host {
    fn new(number: u32, side: Side) -> Result<Self, LabError> {
        let pid = std::process::id();
        let (x, y) = ((pid & 0x7f) as u8, (number & 0xff) as u8);
        let (role, host) = match side {
            Side::Server => ("srv", 1),
            Side::Client => ("cli", 2),
        };
        Ok(Self {
            namespace: Namespace::create(number, role)?,
            interface: format!("up-{role}{number}"),
            v4: Ipv4Addr::new(10, x, y, host),
            v6: Ipv6Addr::new(0xfd00, u16::from(x), u16::from(y), 0, 0, 0, 0, u16::from(host)),
        })
    }

    /// Has the kernel send segments of the wire's size with complete checksums, as a network card would see them to it.
    fn send_whole_frames(&self) -> Result<(), LabError> {
        let offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"];
        self.namespace.run("ethtool", &[&["-K", &self.interface], &offloads[..]].concat()).map(|_| ())
    }

    /// Tells this host the other's address for good: a lost ARP frame would cost a connection a second.
    fn know(&self, other: &Self) -> Result<(), LabError> {
        let link = other.namespace.ip(&["-o", "link", "show", &other.interface])?;
        let address = link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
        let address = address.ok_or_else(|| LabError::new(format!("no Ethernet address: {link}")))?;
        let (v4, v6) = (other.v4.to_string(), other.v6.to_string());
        for neighbour in [&v4, &v6] {
            let what = ["neigh", "replace", neighbour, "lladdr", address, "nud", "permanent", "dev", &self.interface];
            self.namespace.ip(&what)?;
        }
        Ok(())
    }

    fn configure(&self) -> Result<(), LabError> {
        let (v4, v6) = (format!("{}/24", self.v4), format!("{}/64", self.v6));
        self.namespace.ip(&["addr", "add", &v4, "dev", &self.interface])?;
        self.namespace.ip(&["addr", "add", &v6, "dev", &self.interface, "nodad"])?;
        self.namespace.ip(&["link", "set", &self.interface, "up"])?;
        Ok(())
    }
}
