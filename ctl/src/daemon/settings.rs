//! The settings file.

use std::path::Path;

use serde::Deserialize;

use super::Error;

/// What an operator may set; every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which interfaces may be accelerated.
    pub interfaces: Interfaces,
    /// Who may use the control socket.
    pub socket: Access,
}

/// `[interfaces]`: names, `*` stands for any rest of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Interfaces {
    /// If not empty, only these.
    pub allow: Vec<String>,
    /// Never these.
    pub deny: Vec<String>,
}

/// `[socket]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// Group of the socket file.
    pub group: String,
    /// Its mode, e.g. `0o660`.
    pub mode: u32,
}

impl Default for Access {
    fn default() -> Self {
        Self { group: "underpass".into(), mode: 0o660 }
    }
}

impl Settings {
    /// Reads a file; without one, the defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let wrong = |text: String| Error::Settings(path.to_owned(), text);
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let settings: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if settings.socket.mode > 0o777 {
            return Err(wrong("socket.mode: a file mode is at most 0o777".into()));
        }
        Ok(settings)
    }

    /// May this interface be accelerated?
    pub fn admits(&self, name: &str) -> bool {
        let listed = |list: &[String]| list.iter().any(|pattern| matches(pattern, name));
        !listed(&self.interfaces.deny) && (self.interfaces.allow.is_empty() || listed(&self.interfaces.allow))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, Error> {
        let path = std::env::temp_dir().join(format!("underpass-settings-{}-{:p}.toml", std::process::id(), text));
        std::fs::write(&path, text).unwrap();
        let loaded = Settings::load(Some(&path));
        std::fs::remove_file(&path).unwrap();
        loaded
    }

    #[test]
    fn lists_select_interfaces() {
        let settings = load("[interfaces]\nallow = [\"eth*\", \"veth0\"]\ndeny = [\"eth1\"]\n").unwrap();
        let admitted: Vec<bool> =
            ["eth0", "eth1", "veth0", "veth01"].iter().map(|name| settings.admits(name)).collect();
        assert_eq!(admitted, [true, false, true, false]);
        assert_eq!(settings.socket, Access::default());
    }

    #[test]
    fn mistakes_name_key_and_line() {
        let unknown = load("[interfaces]\nalow = []\n").unwrap_err();
        assert_eq!(unknown.exit_code(), 2);
        let text = unknown.to_string();
        assert!(text.contains("alow") && text.contains("line 2"), "{text}");
        let typed = load("[socket]\nmode = \"rw\"\n").unwrap_err().to_string();
        assert!(typed.contains("mode") && typed.contains("line 2"), "{typed}");
        assert!(load("[socket]\nmode = 0o1777\n").unwrap_err().to_string().contains("socket.mode"));
    }
}
