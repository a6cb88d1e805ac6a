//! Two labs with a bad link between their hosts: kernel only, and with a daemon. The client sends.

use std::process::Command;

use serde::de::DeserializeOwned;
use underpass_bench::Stream;
use underpass_lab::{CommandExt, Lab, LabError, LabOptions, LinkReport, Process, Profile, Side};
use underpass_stack::testkit::LinkSpec;

use super::programs::{self, Programs};
use super::{Carrier, Carriers, cpu_of, preload};
use crate::octets::{carried_by_kernel, lane_share};

/// Ring of a connection on the lane, each way, bytes: the kernel's buffers grow by themselves to as much.
pub const BUFFER: u32 = 4 << 20;

/// Per cent of the bytes: the first of a connection, and its end, are the kernel's.
const LANE_AT_LEAST: f64 = 75.0;

/// What is set up for a run.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// What carries the two sides.
    pub carriers: Carriers,
    /// Congestion control of the sender.
    pub congestion: &'static str,
    /// Both directions of the link.
    pub link: LinkSpec,
    /// Seed of the link.
    pub seed: u64,
    /// Whether the lane's rings have [`BUFFER`] bytes, or as many as they have if nobody says anything.
    pub large_buffers: bool,
}

/// What a run of bulk data has shown.
#[derive(Clone, Debug)]
pub struct Goodput {
    /// Payload that arrived.
    pub mbit_per_s: f64,
    /// Segments that the sender has sent again.
    pub resent: u64,
    /// The sender's retransmission timeouts.
    pub timeouts: u64,
    /// Per cent of the bytes that passed by the kernel of the preloaded side, if there is one.
    pub lane: Option<f64>,
    /// What the link says.
    pub link: LinkReport,
}

/// Labs and programs.
pub struct BadLinks {
    plain: Lab,
    // A missing daemon fails the modes that need it, not the run.
    fast: Result<Lab, String>,
    programs: Programs,
}

impl BadLinks {
    /// Builds the labs. An error only if not even the kernel can be measured.
    pub fn new(programs: Programs) -> Result<Self, LabError> {
        let link = Some(LinkSpec::default());
        let options = LabOptions { profile: Profile::Release, link, ..LabOptions::default() };
        let plain = prepared(Lab::with(options)?)?;
        preload::check(plain.command(Side::Client, "cat")?, false)?;
        let fast = Lab::with_daemon(options).and_then(prepared).and_then(|lab| {
            preload::check(lab.preloaded(Side::Client, "cat")?, true)?;
            Ok(lab)
        });
        Ok(Self { plain, fast: fast.map_err(|error| error.to_string()), programs })
    }

    /// Has the kernel this congestion control?
    pub fn kernel_has(&self, congestion: &str) -> bool {
        let list = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
        list.split_whitespace().any(|name| name == congestion)
    }

    /// Is this a first look, not a result?
    pub fn quick(&self) -> bool {
        self.programs.quick()
    }

    /// Sends bulk data for `seconds`.
    pub fn goodput(&self, conditions: &Conditions, seconds: f64) -> Result<Goodput, LabError> {
        let lab = self.prepare(conditions)?;
        let time = seconds.to_string();
        let (mut server, address) = self.serve(lab, conditions, &["goodput-serve", "--seconds", &time])?;
        let before = self.counted(lab, conditions, None)?;
        let mut command = self.command(lab, conditions, Side::Client)?;
        let client = lab.spawn("client", command.args(["goodput", "--connect", &address]).args(self.by(conditions)))?;
        let limit = programs::GRACE + std::time::Duration::from_secs_f64(seconds);
        let figures: Stream = programs::parse(&server.expect_line("figures ", limit)?)?;
        let after = self.counted(lab, conditions, Some(&client))?;
        let grown = |index: usize| after[index].saturating_sub(before[index]);
        Ok(Goodput {
            mbit_per_s: figures.gbit_per_s * 1000.0,
            resent: grown(0),
            timeouts: grown(1),
            lane: conditions.carriers.preloaded().next().map(|_| lane_share(grown(2), figures.bytes)),
            link: lab.link()?.report()?,
        })
    }

    /// Two connections over one link; what each carries in `seconds` after the second has begun, in Mbit/s.
    pub fn share(&self, conditions: [Conditions; 2], seconds: f64) -> Result<[f64; 2], LabError> {
        // The lab with a daemon has room for both sorts.
        let lab = self.fast.as_ref().map_err(|why| LabError::new(why.clone()))?;
        lab.link()?.set(conditions[0].link, conditions[0].seed)?;
        let head_start = seconds / 5.0;
        let times = [seconds + head_start, seconds].map(|time| time.to_string());
        let start = |number: usize| -> Result<(Process, Process), LabError> {
            let skip = if number == 0 { head_start } else { 0.0 }.to_string();
            let args = ["goodput-serve", "--seconds", &times[number], "--skip", &skip];
            let (server, address) = self.serve_as(&format!("server{number}"), lab, &conditions[number], &args)?;
            let mut command = self.command(lab, &conditions[number], Side::Client)?;
            command.args(["goodput", "--connect", &address]).args(self.by(&conditions[number]));
            Ok((server, lab.spawn(&format!("client{number}"), &mut command)?))
        };
        let mut first = start(0)?;
        std::thread::sleep(std::time::Duration::from_secs_f64(head_start));
        let mut second = start(1)?;
        let limit = programs::GRACE + std::time::Duration::from_secs_f64(2.0 * seconds);
        let rate = |(server, client): &mut (Process, Process), conditions: &Conditions| -> Result<f64, LabError> {
            let figures: Stream = programs::parse(&server.expect_line("figures ", limit)?)?;
            if conditions.carriers.of(Side::Client) == Carrier::Underpass {
                // What else passes the kernel here is the other connection's: the lane's own count has to do.
                let sent = lab.counters(client.pid())?.get("tx_bytes").copied().unwrap_or_default();
                expect_lane(figures.bytes.saturating_sub(sent), figures.bytes)?;
            }
            Ok(figures.gbit_per_s * 1000.0)
        };
        Ok([rate(&mut first, &conditions[0])?, rate(&mut second, &conditions[1])?])
    }

    /// Runs a client of `count` requests against its server; the link loses the last segment of some.
    pub fn requests<T: DeserializeOwned>(
        &self,
        conditions: &Conditions,
        (size, count): (usize, u64),
        args: &[&str],
    ) -> Result<T, LabError> {
        let lab = self.prepare(conditions)?;
        lab.link()?.lose_marked(true)?;
        let bytes = size as u64 * count;
        let (size, count) = (["--size", &size.to_string()], ["--count", &count.to_string()]);
        let preloaded = conditions.carriers.preloaded().next();
        let by_kernel = || preloaded.map_or(Ok(0), |side| carried_by_kernel(lab.host(side)));
        let (_server, address) = self.serve(lab, conditions, &[&["request-serve"], &size[..]].concat())?;
        let mut command = self.command(lab, conditions, Side::Client)?;
        command.args([&["request", "--connect", &address], &size[..], &count[..], args].concat());
        command.args(self.by(conditions));
        let before = by_kernel()?;
        let figures = programs::figures(lab.spawn("client", &mut command)?, 60.0)?;
        expect_lane(by_kernel()?.saturating_sub(before), bytes)?;
        Ok(figures)
    }

    /// The lab for these conditions, set up so.
    fn prepare(&self, conditions: &Conditions) -> Result<&Lab, LabError> {
        let lab = match (conditions.carriers.preloaded().next(), &self.fast) {
            (None, _) => &self.plain,
            (Some(_), Ok(lab)) => lab,
            (Some(_), Err(why)) => return Err(LabError::new(why.clone())),
        };
        lab.link()?.set(conditions.link, conditions.seed)?;
        Ok(lab)
    }

    /// The kernel's part of the conditions, for a client.
    fn by(&self, conditions: &Conditions) -> Option<String> {
        self.kernel_has(conditions.congestion).then(|| format!("--congestion={}", conditions.congestion))
    }

    /// A load program on one side, pinned: the server on CPU 0, the client on CPU 1.
    fn command(&self, lab: &Lab, conditions: &Conditions, side: Side) -> Result<Command, LabError> {
        let mut command = match conditions.carriers.of(side) {
            Carrier::Kernel => lab.command(side, &self.programs.load)?,
            Carrier::Underpass => {
                let mut command = lab.preloaded(side, &self.programs.load)?;
                command.env("UNDERPASS_CC", conditions.congestion);
                if conditions.large_buffers {
                    let bytes = BUFFER.to_string();
                    command.env("UNDERPASS_SNDBUF", &bytes).env("UNDERPASS_RCVBUF", &bytes);
                }
                command
            }
        };
        conditions.carriers.instruct(side, &mut command);
        command.pin(cpu_of(side));
        Ok(command)
    }

    fn serve(&self, lab: &Lab, conditions: &Conditions, args: &[&str]) -> Result<(Process, String), LabError> {
        self.serve_as("server", lab, conditions, args)
    }

    fn serve_as(
        &self,
        name: &str,
        lab: &Lab,
        conditions: &Conditions,
        args: &[&str],
    ) -> Result<(Process, String), LabError> {
        let mut command = self.command(lab, conditions, Side::Server)?;
        command.args(args).arg("--bind").arg(format!("{}:0", lab.host(Side::Server).v4));
        let mut server = lab.spawn(name, &mut command)?;
        let address = programs::address(&mut server)?;
        Ok((server, address))
    }

    /// Segments sent again and timeouts of the sender so far, and bytes that the kernel of the preloaded side has carried.
    fn counted(&self, lab: &Lab, conditions: &Conditions, client: Option<&Process>) -> Result<[u64; 3], LabError> {
        let on_lane = conditions.carriers.of(Side::Client) == Carrier::Underpass;
        let of = |counters: &underpass_lab::Counters, name: &str| counters.get(name).copied().unwrap_or_default();
        let [resent, timeouts] = match (on_lane, client) {
            (true, None) => [0, 0],
            (true, Some(client)) => {
                let counters = lab.counters(client.pid())?;
                ["retransmits", "timeouts"].map(|name| of(&counters, name))
            }
            (false, _) => {
                let counters = lab.host(Side::Client).namespace.kernel_counters()?;
                ["Tcp.RetransSegs", "TcpExt.TCPTimeouts"].map(|name| of(&counters, name))
            }
        };
        let preloaded = conditions.carriers.preloaded().next();
        let carried = preloaded.map_or(Ok(0), |side| carried_by_kernel(lab.host(side)))?;
        Ok([resent, timeouts, carried])
    }
}

/// An error if much of what a preloaded side has sent did not go over its lane: the figures would be the kernel's.
fn expect_lane(by_kernel: u64, bytes: u64) -> Result<(), LabError> {
    let share = lane_share(by_kernel, bytes);
    if share >= LANE_AT_LEAST {
        return Ok(());
    }
    Err(LabError::new(format!("only {share:.0} % of {bytes} bytes went over the lane")))
}

/// A lab whose kernels learn nothing from one connection for the next.
fn prepared(lab: Lab) -> Result<Lab, LabError> {
    for side in [Side::Server, Side::Client] {
        lab.host(side).namespace.set("net/ipv4/tcp_no_metrics_save", "1")?;
    }
    Ok(lab)
}
