//! A script is played.

use super::Failure;
use super::machine::Machine;
use super::segment::{Pattern, Relative};
use super::syntax::{Event, Line, Script};
use super::value::Wait;

/// Plays all events. Whatever goes out without being expected is a failure.
pub fn play(script: &Script) -> Result<(), Failure> {
    let mut machine = Machine::new(&script.setup).map_err(|what| Failure { line: 1, what })?;
    for line in &script.lines {
        let told = |what: String| Failure { line: line.number, what: format!("`{}`: {what}", line.text) };
        event(&mut machine, line).map_err(told)?;
    }
    let last = script.lines.last().map_or(1, |line| line.number);
    nothing_left(&mut machine).map_err(|what| Failure { line: last, what: format!("at the end: {what}") })
}

fn event(machine: &mut Machine, line: &Line) -> Result<(), String> {
    if let Event::Expect(patterns) = &line.event {
        return expect(machine, line.wait, patterns);
    }
    let looks_only = matches!(line.event, Event::Check(_)) && line.wait == Wait::NONE;
    if !looks_only && !matches!(line.event, Event::Skip) {
        quiet(machine, line.wait.min)?;
    }
    match &line.event {
        Event::Expect(_) => Ok(()),
        Event::Inject(segments) => segments.iter().try_for_each(|segment| {
            if segment.pause > 0 {
                skip(machine, segment.pause)?;
            }
            machine.inject(segment);
            machine.pump()
        }),
        Event::InjectTogether(segments) => {
            segments.iter().for_each(|segment| machine.inject(segment));
            Ok(())
        }
        Event::Write { len, more, takes } => moved(*takes, machine.write(*len, *more)?),
        Event::Read { len, takes } => moved(*takes, machine.read(*len as usize)?),
        Event::Shutdown => machine.call(|connection, now| connection.shutdown_write(now)),
        Event::Choose(choice) => choice.make(machine),
        Event::Quiet(nanos) => quiet(machine, *nanos),
        Event::Check(check) => check.ask(machine),
        Event::Skip => skip(machine, line.wait.min),
    }
}

fn moved(want: u32, got: u32) -> Result<(), String> {
    if want == got { Ok(()) } else { Err(format!("expected {want} bytes, found {got}")) }
}

/// Nothing goes out for so many ns.
fn quiet(machine: &mut Machine, nanos: u64) -> Result<(), String> {
    let start = machine.now;
    if machine.wait(start.after(nanos))? {
        let took = machine.now.since(start);
        nothing_left(machine).map_err(|what| format!("{took:?} later, {what}"))?;
    }
    Ok(())
}

/// Whatever goes out within so many ns does not matter.
fn skip(machine: &mut Machine, nanos: u64) -> Result<(), String> {
    let end = machine.now.after(nanos);
    while machine.wait(end)? {
        while machine.take_sent().is_some() {}
    }
    Ok(())
}

fn nothing_left(machine: &mut Machine) -> Result<(), String> {
    let left: Vec<String> = std::iter::from_fn(|| machine.take_sent()).map(|sent| sent.to_string()).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("expected nothing, found [{}]", left.join("; "))) }
}

/// Each pattern's segment goes out; the first after `wait`, the others with it.
fn expect(machine: &mut Machine, wait: Wait, patterns: &[Pattern]) -> Result<(), String> {
    let mut wait = wait;
    for (at, pattern) in patterns.iter().enumerate() {
        let start = machine.now;
        let which =
            if patterns.len() > 1 { format!("segment {} of {}: ", at + 1, patterns.len()) } else { String::new() };
        if !machine.wait(start.after(wait.max))? {
            return Err(format!("{which}expected a segment, found none"));
        }
        let took = machine.now.nanos_since(start);
        let Some(sent) = machine.take_sent() else { return Err(format!("{which}found none")) };
        compare(pattern, &sent).map_err(|what| format!("{which}{what}"))?;
        if took < wait.min {
            return Err(format!(
                "{which}expected later than {} µs, found `{sent}` after {} µs",
                wait.min / 1000,
                took / 1000
            ));
        }
        wait = Wait::NONE;
    }
    Ok(())
}

fn compare(pattern: &Pattern, sent: &Relative) -> Result<(), String> {
    let wrong = pattern.differences(sent);
    if wrong.is_empty() { Ok(()) } else { Err(format!("found `{sent}`: {}", wrong.join(", "))) }
}
