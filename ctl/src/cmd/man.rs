//! `underpass man`: the manual page, for packagers. Written from the command-line definition and the option table.

use std::fmt::Write as _;

use clap::CommandFactory;
use underpass_stack::config::OPTIONS;

use super::failure::Failure;
use super::output::emit;

const DESCRIPTION: &str = "\
Underpass speeds up the sockets of unmodified programs. A preloaded library watches the program's socket calls. TCP \
connections that prove busy are moved, live, out of the kernel into an in-process TCP stack fed by AF_XDP queues, and \
given back whenever anything is asked of them that the stack cannot do exactly. Everything else stays in the kernel.";

const FILES: &[(&str, &str)] = &[
    ("/run/underpass/control.sock", "the daemon's socket"),
    ("/usr/share/doc/underpass/examples/underpass.toml", "an example of the daemon's settings (--config)"),
    ("/etc/underpass/profiles/NAME.env", "profiles for underpass run: lines of NAME=value"),
    ("/usr/lib/underpass/libunderpass.so", "the library"),
];

const EXIT: &[(&str, &str)] = &[
    ("0", "success"),
    ("1", "failure; for doctor: something stands in the way"),
    ("2", "wrong usage or malformed configuration"),
];

/// Runs the subcommand.
pub fn main() -> Result<(), Failure> {
    emit(&page())
}

fn page() -> String {
    let mut command = super::Cli::command();
    command.build();
    let version = command.get_version().unwrap_or_default();
    let mut page = format!(".TH UNDERPASS 1 \"\" \"underpass {version}\" \"User Commands\"\n");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    section(&mut page, "NAME", &format!("underpass \\- {}\n", escape(&about)));
    section(&mut page, "SYNOPSIS", ".B underpass\n.I command\n.RI [ arguments ]\n");
    section(&mut page, "DESCRIPTION", &format!("{}\n", escape(DESCRIPTION)));
    section(&mut page, "COMMANDS", &commands(&command));
    section(&mut page, "ENVIRONMENT", &options());
    section(&mut page, "FILES", &pairs(FILES));
    section(&mut page, "EXIT STATUS", &pairs(EXIT));
    section(&mut page, "SEE ALSO", ".BR ld.so (8),\n.BR ss (8),\n.BR tcp (7)\n");
    page
}

fn section(page: &mut String, title: &str, body: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = write!(page, ".SH \"{title}\"\n{body}");
}

fn commands(command: &clap::Command) -> String {
    let mut text = String::new();
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(text, ".SS \"underpass {}\"\n{}\n", sub.get_name(), escape(&about));
        for argument in sub.get_arguments().filter(|argument| !argument.is_hide_set() && argument.get_id() != "help") {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let _ = write!(text, ".TP\n.B \"{}\"\n{}\n", escape(&argument.to_string()), escape(&help));
        }
    }
    text
}

fn options() -> String {
    let mut text = String::new();
    for option in OPTIONS {
        let alias = option.alias.map(|alias| format!(" (or {alias})")).unwrap_or_default();
        let _ = write!(text, ".TP\n.B \"{}{alias}\"\n{}\n", option.name, escape(option.text));
        let _ = writeln!(text, "Values: {}. Default: {}.", escape(option.accepts), escape(option.shown_default()));
    }
    text
}

fn pairs(list: &[(&str, &str)]) -> String {
    list.iter().map(|(name, meaning)| format!(".TP\n.B {}\n{}\n", escape(name), escape(meaning))).collect()
}

/// Text as roff takes it literally: groff_man(7).
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq");
    let guard = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(guard).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_option_and_command() {
        let page = page();
        for option in OPTIONS {
            assert!(page.contains(option.name), "{}", option.name);
        }
        for sub in super::super::Cli::command().get_subcommands() {
            assert_eq!(page.contains(&format!("underpass {}\"", sub.get_name())), !sub.is_hide_set());
        }
    }

    #[test]
    fn the_readme_has_the_same_option_table() {
        let readme = include_str!("../../../README.md");
        for option in OPTIONS {
            let alias = option.alias.map(|alias| format!(", `{alias}`")).unwrap_or_default();
            let default = match option.default_text {
                "" => format!("`{}`", option.default),
                words => words.to_owned(),
            };
            let row = format!("| `{}`{alias} | {default} | {} | {} |\n", option.name, option.accepts, option.text);
            assert!(readme.contains(&row), "the README lacks {row}");
        }
    }

    #[test]
    fn nothing_is_taken_for_a_request() {
        assert_eq!(escape(".a-b\n'\\\""), "\\&.a\\-b\n\\&'\\e\\(dq");
    }
}
