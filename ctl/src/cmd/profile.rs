//! Profiles: named sets of options for `underpass run`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use underpass_stack::config::{Config, OPTIONS};

use super::failure::Failure;

/// Where an administrator's own profiles lie; they come before the built-in ones.
const DIRECTORY: &str = "/etc/underpass/profiles";

/// The profiles that come with Underpass.
const BUILT_IN: &[(&str, &str)] = &[
    ("latency", include_str!("../../../packaging/profiles/latency.env")),
    ("throughput", include_str!("../../../packaging/profiles/throughput.env")),
    ("safe", include_str!("../../../packaging/profiles/safe.env")),
];

/// Variables that a profile sets, in its order.
pub type Variables = Vec<(String, String)>;

/// The profile of that name: a built-in one, one of `/etc/underpass/profiles`, or a file if the name holds a slash.
pub fn load(name: &str) -> Result<Variables, Failure> {
    let path = if name.contains('/') { PathBuf::from(name) } else { Path::new(DIRECTORY).join(format!("{name}.env")) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() != std::io::ErrorKind::NotFound || name.contains('/') => {
            return Err(Failure::Usage(format!("cannot read profile {}: {error}", path.display())));
        }
        Err(_) => built_in(name)?.to_owned(),
    };
    parse(&text).map_err(|error| Failure::Usage(format!("profile {name}: {error}")))
}

fn built_in(name: &str) -> Result<&'static str, Failure> {
    let found = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    found.ok_or_else(|| {
        let names: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
        Failure::Usage(format!("no profile {name:?}: there are {}, and files in {DIRECTORY}", names.join(", ")))
    })
}

/// Lines of `NAME=value`; blank lines and lines that start with `#` are skipped. Names and values are checked against
/// the option table, so that a typing error does not pass silently.
fn parse(text: &str) -> Result<Variables, String> {
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number}: expected NAME=value"))?;
        let (name, value) = (name.trim_end(), value.trim_start());
        if !OPTIONS.iter().any(|option| option.name == name || option.alias == Some(name)) {
            return Err(format!("line {number}: {name} is not an option (see underpass run --help)"));
        }
        let (_, problems) = Config::from_vars(|asked| (asked == name).then(|| OsString::from(value)));
        if let Some(problem) = problems.first() {
            return Err(format!("line {number}: {problem}"));
        }
        variables.push((name.to_owned(), value.to_owned()));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_profiles_are_valid() {
        for (name, text) in BUILT_IN {
            assert!(!parse(text).unwrap().is_empty(), "{name}");
        }
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse("# x\n\nUNDERPASS = off").unwrap(), [("UNDERPASS".to_owned(), "off".to_owned())]);
        assert!(parse("\nUNDERPASS").unwrap_err().starts_with("line 2: expected NAME=value"));
        assert!(parse("UNDERPAS=on").unwrap_err().starts_with("line 1: UNDERPAS is not an option"));
        assert!(parse("UNDERPASS_FRAMES=3").unwrap_err().contains("accepted are 512..65536"));
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let Failure::Usage(text) = load("fastest").unwrap_err() else { panic!("not a usage error") };
        assert!(text.contains("latency, throughput, safe"), "{text}");
        assert!(matches!(load("./no/such/file"), Err(Failure::Usage(_))));
    }
}
