//! The programs that the benchmark runs: ordinary socket programs, and the raw floors (AF_XDP, shared memory). Each prints one line of
//! JSON.

mod connect;
mod floor;
mod goodput;
mod hold;
mod idle;
mod latency;
mod many;
mod pattern;
mod pingpong;
mod pipe;
mod request;
mod shm_floor;
mod stream;
mod tcp;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a program has to say at its end, or why it failed.
type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(about = "Load programs of the Underpass benchmark")]
struct Cli {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Echo over TCP.
    PingpongServe(pingpong::Serve),
    /// Time round trips over TCP.
    Pingpong(pingpong::Ping),
    /// Receive bulk data over TCP.
    StreamServe(stream::Serve),
    /// Send bulk data over TCP.
    Stream(stream::Send),
    /// Receive for a given time what a sender sends that would go on for ever.
    GoodputServe(goodput::Serve),
    /// Send until the receiver has had enough.
    Goodput(goodput::Send),
    /// Answer requests of a given size with a byte.
    RequestServe(request::Serve),
    /// Time requests whose last segment the link loses.
    Request(request::Run),
    /// Answer one request a connection.
    ConnectServe(connect::Serve),
    /// Connect, ask, read the answer, again and again.
    Connect(connect::Run),
    /// Echo over TCP, on many connections.
    HoldServe(hold::Serve),
    /// Open connections, use them for a while, then leave them alone.
    Hold(hold::Hold),
    /// Echo over TCP on very many connections (epoll).
    ManyServer(many::Serve),
    /// Exchange messages on very many connections, one after the other (epoll), then leave them open.
    ManyClient(many::Run),
    /// Time read(2) on a pipe.
    PipeRead(pipe::PipeRead),
    /// Keep a CPU from going to sleep, at the lowest priority (SCHED_IDLE).
    Awake,
    /// Send frames back that arrive by AF_XDP.
    FloorEcho(floor::Echo),
    /// Time round trips by AF_XDP.
    FloorPing(floor::Ping),
    /// Count frames that arrive by AF_XDP.
    FloorSink(floor::Sink),
    /// Send frames by AF_XDP as fast as they go.
    FloorFlood(floor::Flood),
    /// Send messages back that arrive in a shared page.
    ShmFloorEcho(shm_floor::Echo),
    /// Time round trips through a shared page.
    ShmFloorPing(shm_floor::Ping),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().program {
        Program::PingpongServe(program) => program.run(),
        Program::Pingpong(program) => program.run(),
        Program::StreamServe(program) => program.run(),
        Program::Stream(program) => program.run(),
        Program::GoodputServe(program) => program.run(),
        Program::Goodput(program) => program.run(),
        Program::RequestServe(program) => program.run(),
        Program::Request(program) => program.run(),
        Program::ConnectServe(program) => program.run(),
        Program::Connect(program) => program.run(),
        Program::HoldServe(program) => program.run(),
        Program::Hold(program) => program.run(),
        Program::ManyServer(program) => program.run(),
        Program::ManyClient(program) => program.run(),
        Program::PipeRead(program) => program.run(),
        Program::Awake => idle::keep_awake(),
        Program::FloorEcho(program) => program.run(),
        Program::FloorPing(program) => program.run(),
        Program::FloorSink(program) => program.run(),
        Program::FloorFlood(program) => program.run(),
        Program::ShmFloorEcho(program) => program.run(),
        Program::ShmFloorPing(program) => program.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("underpass-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_json(figures: &impl serde::Serialize) -> Outcome {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}
