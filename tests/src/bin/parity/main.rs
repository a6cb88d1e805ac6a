//! Does a call do the same with and without Underpass? Many small cases over one TCP connection; each prints what every call
//! returned. Nothing here says what is right: the kernel does, when the same case runs without the library.
//!
//! ```text
//! parity list                                         the cases: group, name, and "warm" if traffic comes first
//! parity list FROM TO                                 the same of drawn ones with these seeds
//! parity run CASE accept|connect ADDRESS CONTROL      the end under test
//! parity peer connect|accept ADDRESS CONTROL          the other end, which does what it is told
//! parity inherited FD                                 what a case executes with a socket
//! ```
//!
//! CONTROL is the path of a Unix socket over which the end under test directs the other one.

mod cases;
mod peer;
mod session;
mod sys;

use std::process::ExitCode;

use session::{Session, meet_as_peer};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => {
            cases::all().for_each(|case| {
                println!("{} {}{}", case.group, case.name, if case.warm { " warm" } else { "" });
            });
            ExitCode::SUCCESS
        }
        ["list", from, to] => list_drawn(from, to),
        ["run", name, role, address, control] => run(name, role == "accept", address, control),
        ["peer", role, address, control] => finish(
            meet_as_peer(role == "accept", address, control).and_then(|(socket, control)| peer::serve(socket, control)),
        ),
        ["inherited", fd] => {
            cases::fds::inherited(fd.parse().unwrap_or(-1));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("parity: see the source for the arguments");
            ExitCode::FAILURE
        }
    }
}

fn list_drawn(from: &str, to: &str) -> ExitCode {
    let (Ok(from), Ok(to)) = (from.parse::<u64>(), to.parse()) else { return ExitCode::FAILURE };
    (from..to).for_each(|seed| println!("drawn {}{seed} warm", cases::drawn::NAME));
    ExitCode::SUCCESS
}

fn run(name: &str, accepts: bool, address: &str, control: &str) -> ExitCode {
    if let Some(seed) = name.strip_prefix(cases::drawn::NAME).and_then(|seed| seed.parse().ok()) {
        return finish(Session::meet(accepts, address, control).map(|mut session| {
            session.warm_up();
            cases::drawn::run(&mut session, seed);
            session.end();
        }));
    }
    let Some(case) = cases::all().find(|case| case.name == name) else {
        eprintln!("parity: no case {name}");
        return ExitCode::FAILURE;
    };
    finish(Session::meet(accepts, address, control).map(|mut session| {
        if case.warm {
            session.warm_up();
        }
        (case.run)(&mut session);
        session.end();
    }))
}

fn finish(outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parity: {error}");
            ExitCode::FAILURE
        }
    }
}
