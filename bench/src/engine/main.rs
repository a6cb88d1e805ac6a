//! One scene on one engine, for a look with callgrind or perf: `underpass-engine SCENE ENGINE CONNECTIONS GROUPS BURST [trust]`, where
//! SCENE counts from 0, it happens BURST times a pass, and `trust` leaves received checksums unverified.

use std::process::ExitCode;

use underpass_bench::engine::{GROUP, Run, SCENES, Which};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("underpass-engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<String, String> {
    let usage = || "usage: underpass-engine SCENE ENGINE CONNECTIONS GROUPS BURST [trust]".to_owned();
    let [scene, engine, connections, groups, burst, rest @ ..] = words else { return Err(usage()) };
    let number = |word: &String| word.parse::<usize>().map_err(|_| usage());
    let scene = *SCENES.get(number(scene)?).ok_or_else(usage)?;
    let which = *Which::ALL.iter().find(|which| which.name() == engine).ok_or_else(usage)?;
    let connections = number(connections)?.max(1);
    let burst = number(burst)?;
    if burst == 0 || !GROUP.is_multiple_of(burst) {
        return Err(format!("BURST has to divide {GROUP}"));
    }
    let played = Run { scene, connections, burst, verify: rest.is_empty() };
    let figures = which.play(played, number(groups)?).map_err(|error| error.to_string())?;
    let (scene, ns, sent, count) = (scene.name(), figures.ns, figures.sent, figures.count);
    let text = format!("{scene}, {engine}, {connections}: {ns:.1} ns, {sent:.2} segments sent, {count} times");
    Ok(text)
}
