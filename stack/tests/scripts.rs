//! What the RFCs say, clause by clause: every script in `tests/scripts` is played against the engine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

mod packet_script;

/// Fewer scripts than this mean that they were not found.
const SCRIPTS_MIN: usize = 410;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

/// Every script by its name, `<rfc>/<name>.pkt`.
fn scripts() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for rfc in fs::read_dir(folder()).expect("the scripts' folder").flatten().filter(|entry| entry.path().is_dir()) {
        for script in fs::read_dir(rfc.path()).expect("a folder").flatten() {
            let name = [rfc.file_name(), script.file_name()].map(|part| part.to_string_lossy().into_owned()).join("/");
            assert!(name.ends_with(".pkt"), "{name} is no script");
            found.insert(name, fs::read_to_string(script.path()).expect("a readable script"));
        }
    }
    found
}

/// Scripts that are known to fail, with the reason.
fn known_faults() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("known-faults.txt")).expect("the list of known faults");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| line.split_once(": ").map(|(name, why)| (name.into(), why.into()));
    lines.map(|line| entry(line).unwrap_or_else(|| panic!("`{line}` gives no reason"))).collect()
}

#[test]
fn every_script_holds() {
    let (scripts, mut faults) = (scripts(), known_faults());
    let mut wrong = Vec::new();
    let mut expected = 0;
    for (name, text) in &scripts {
        match (packet_script::run(text), faults.remove(name)) {
            (Ok(()), None) => (),
            (Err(_), Some(_)) => expected += 1,
            (Ok(()), Some(why)) => wrong.push(format!("{name}: holds, but is listed as a known fault: {why}")),
            (Err(failure), None) => wrong.push(format!("{name}:{}: {}", failure.line, failure.what)),
        }
    }
    wrong.extend(faults.keys().map(|name| format!("{name}: listed as a known fault, but there is no such script")));
    // Not by `println!`, which is not shown when all is well; in one write, so that no other test's line comes between.
    let told = format!("{} scripts run, {expected} of them known faults\n", scripts.len());
    let _ = std::io::stderr().write_all(told.as_bytes());
    assert!(scripts.len() >= SCRIPTS_MIN, "only {} scripts found", scripts.len());
    assert!(wrong.is_empty(), "{} of {} scripts:\n{}", wrong.len(), scripts.len(), wrong.join("\n"));
}

/// The status of a script as `docs/rfc.md` has to tell it.
fn status(script: &packet_script::Script, is_fault: bool) -> &'static str {
    match (is_fault, &script.linux) {
        (true, _) => "fault",
        (false, Some(_)) => "as Linux",
        (false, None) => "holds",
    }
}

#[test]
fn the_documentation_lists_every_script_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rfc.md");
    let page = fs::read_to_string(page).expect("docs/rfc.md");
    let faults = known_faults();
    let mut rows = Vec::new();
    for (name, text) in &scripts() {
        let script = packet_script::Script::parse(text).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        rows.push(format!("| {} | `{name}` | {} |", script.clause, status(&script, faults.contains_key(name))));
    }
    let missing: Vec<&String> = rows.iter().filter(|row| !page.contains(*row)).collect();
    assert!(missing.is_empty(), "docs/rfc.md lacks:\n{missing:#?}");
    assert_eq!(page.matches(".pkt`").count(), rows.len(), "docs/rfc.md names scripts that do not exist");
}

/// A script that must fail, and a word that must be in the reason.
fn fails(events: &str, line: usize, word: &str) {
    let failure = packet_script::run(&format!("clause x\n{events}")).expect_err(events);
    assert!(failure.line == line && failure.what.contains(word), "{events}: {failure:?}");
}

#[test]
fn what_is_wrong_is_told() {
    fails("write 10\n> A 0:11 ack 0", 3, "sequence numbers should be 0:11");
    fails("write 10\n> A 0:10 ack 1", 3, "ack should be 1");
    fails("write 10\n> A 0:10 ack 0 win 1", 3, "win should be 1");
    fails("write 10\n> A 0:10 ack 0\n< A 0:0 ack 0..4 by 2\nunacked 7", 5, "found 6");
    fails("write 10\n> FA 0:10 ack 0", 3, "flags should be FA");
    fails("write 10\n> pA 0:10 ack 0", 3, "PSH should be false");
    fails("write 10\n> A 0:10 ack 0 ts 1/*", 3, "TSval should be 1");
    fails("write 10\n> A 0:10 ack 0 sack 1:2", 3, "sack should be 1:2");
    fails("write 10", 2, "expected nothing");
    fails("write 10\nquiet 1s", 3, "expected nothing");
    fails("write 10\n> A 0:10 ack 0\n+1s > A 0:10 ack 0", 4, "expected later");
    fails("+10s > A 0:10 ack 0", 2, "found none");
    fails("state closed", 2, "Established");
    fails("readable >=1", 2, "expected >=1");
    fails("count retransmits 1..2", 2, "expected 1..2");
    fails("saw reset", 2, "expected 1");
    fails("write 70000", 2, "65536");
    fails("set ring 1000\nshutdown", 1, "power of two");
}

#[test]
fn what_is_no_script_is_refused() {
    for (events, word) in [
        ("", "needs"),
        ("jump", "no event"),
        ("< A 0:10", "`ack N`"),
        ("< A 10:0 ack 0", "ends before"),
        ("> A 0:10", "`ack`"),
        ("< A 0:0 ack 0..10", "wants `by`"),
        ("< A 0:10 ack 0..10 by 5", "neither data"),
        ("<< A 0:0 ack 0 times 2 every 1s", "leaves no time"),
        ("> A 0:10 ack 0 every 1s", "for what arrives"),
        ("> X 0:10 ack 0", "no flag"),
        ("+1s..2s write 1", "leave its time open"),
        ("+1 shutdown", "no time"),
        ("shutdown now", "too much"),
        ("set shoes 42", "cannot be set"),
        ("shutdown\nset sack", "no event"),
        ("count sheep 1", "no counter"),
    ] {
        let failure = packet_script::run(&format!("clause x\n{events}")).expect_err(events);
        assert!(failure.what.contains(word), "{events}: {failure:?}");
    }
}
