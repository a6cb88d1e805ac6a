//! What a value may be: one parser for each kind of option.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Algorithm, Lanes, LogLevel, Promote, Spin};

pub(super) fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "1" | "yes" | "true" => Some(true),
        "off" | "0" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// The entries of a list: commas as in our documentation, blanks as in OpenOnload's.
fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t']).filter(|entry| !entry.is_empty())
}

pub(super) fn lanes(value: &str) -> Option<Lanes> {
    let mut lanes = Lanes { shm: false, xdp: false };
    for entry in entries(value) {
        match entry {
            "shm" => lanes.shm = true,
            "xdp" => lanes.xdp = true,
            _ => return None,
        }
    }
    (lanes.shm || lanes.xdp).then_some(lanes)
}

pub(super) fn promote(value: &OsStr) -> Option<Promote> {
    match value.as_bytes() {
        b"auto" => Some(Promote::Auto),
        b"eager" => Some(Promote::Eager),
        b"off" => Some(Promote::Off),
        _ => None,
    }
}

pub(super) fn spin(value: &str) -> Option<Spin> {
    match value {
        "auto" => Some(Spin::Auto),
        "0" => Some(Spin::Never),
        "-1" => Some(Spin::Always),
        _ => value.parse().ok().filter(|usec| (1..=10_000_000).contains(usec)).map(Spin::Usec),
    }
}

/// 107 bytes: sun_path without its NUL, unix(7).
pub(super) fn socket(value: &OsStr) -> Option<PathBuf> {
    let bytes = value.as_bytes();
    let fits = bytes.starts_with(b"/") && bytes.len() <= 107 && !bytes.contains(&0);
    fits.then(|| PathBuf::from(value))
}

pub(super) fn interfaces(value: &str) -> Option<Vec<String>> {
    // dev_valid_name() of the kernel: IFNAMSIZ, no slash, not a dot name.
    let valid = |name: &str| name.len() <= 15 && !name.contains(['/', ':', '\0']) && name != "." && name != "..";
    entries(value).map(|name| valid(name).then(|| name.to_owned())).collect()
}

pub(super) fn log(value: &OsStr) -> Option<LogLevel> {
    match value.as_bytes() {
        b"off" => Some(LogLevel::Off),
        b"error" => Some(LogLevel::Error),
        b"warn" => Some(LogLevel::Warn),
        b"info" => Some(LogLevel::Info),
        b"debug" => Some(LogLevel::Debug),
        b"trace" => Some(LogLevel::Trace),
        _ => None,
    }
}

pub(super) fn congestion(value: &OsStr) -> Option<Option<Algorithm>> {
    match value.as_bytes() {
        b"auto" => Some(None),
        name => Algorithm::named(name).map(Some),
    }
}

pub(super) fn optional_path(value: &OsStr) -> Option<Option<PathBuf>> {
    let path = (!value.is_empty()).then(|| PathBuf::from(value));
    (!value.as_bytes().contains(&0)).then_some(path)
}

pub(super) fn name(value: &str) -> Option<Option<String>> {
    let fits = value.len() <= 31 && !value.contains(char::is_control);
    fits.then(|| (!value.is_empty()).then(|| value.to_owned()))
}

pub(super) fn sized(value: &OsStr, min: u32, max: u32) -> Option<u32> {
    let number: u32 = value.to_str()?.parse().ok()?;
    (min..=max).contains(&number).then(|| number.next_power_of_two())
}
