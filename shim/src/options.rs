//! The options, read once.

use std::sync::OnceLock;

use underpass_stack::config::{Config, Promote};

use crate::unusual::{self, Unusual};

static CONFIG: OnceLock<Config> = OnceLock::new();

/// Reads the environment. What is wrong with it is said on stderr, and the defaults are used.
pub fn read() {
    let (config, problems) = Config::from_env();
    for problem in &problems {
        crate::log::complain(format_args!("underpass: {problem}"));
    }
    let usual = config.enabled && config.promote == Promote::Auto;
    let _ = CONFIG.set(config);
    if usual {
        unusual::lower(Unusual::Options);
    }
}

/// The options; before the constructor has run, the defaults.
pub fn get() -> &'static Config {
    CONFIG.get_or_init(Config::default)
}

/// May connections be promoted at all?
pub fn promotes() -> bool {
    CONFIG.get().is_some_and(|c| c.enabled && (c.lanes.xdp || c.lanes.shm) && c.promote != Promote::Off)
}

/// Is the library to be pure pass-through?
pub fn is_off() -> bool {
    CONFIG.get().is_none_or(|c| !c.enabled)
}

/// The name shown by `underpass ps`.
pub fn stack_name() -> String {
    if let Some(name) = &get().name {
        return name.clone();
    }
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    comm.trim_end().to_owned()
}
