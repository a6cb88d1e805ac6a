//! What a failed test shows: the state of every preloaded program at the moment of the failure, while they still run.

use std::process::Command;
use std::sync::Once;

use crate::artifact::{Artifacts, Profile};

static ONCE: Once = Once::new();

/// Has a panic, before anything is torn down, print what `underpass ps`, `ss` and `stats` say.
pub(crate) fn show_state_at_panic(profile: Profile) {
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            if let Ok(artifacts) = Artifacts::find(profile) {
                ["ps", "ss", "stats"].iter().for_each(|what| show(&artifacts, what));
            }
        }));
    });
}

fn show(artifacts: &Artifacts, what: &str) {
    match Command::new(&artifacts.command).arg(what).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            eprintln!("underpass {what}:\n{}", String::from_utf8_lossy(&text));
        }
        Err(error) => eprintln!("underpass {what}: {error}"),
    }
}
