//! Tests of the option table and its parser.

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn parse(vars: &[(&str, &str)]) -> (Config, Vec<String>) {
    let find = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
    let (config, problems) = Config::from_vars(find);
    (config, problems.iter().map(ToString::to_string).collect())
}

#[test]
fn every_default_is_acceptable_and_gives_the_documented_configuration() {
    let mut config = Config::default();
    for option in OPTIONS {
        assert!((option.set)(&mut config, OsStr::new(option.default)).is_some(), "{}", option.name);
        assert!(!option.shown_default().is_empty(), "{} shows no default", option.name);
    }
    assert!(config.enabled);
    assert_eq!(config.lanes, Lanes { shm: true, xdp: true });
    assert_eq!((config.promote, config.spin), (Promote::Auto, Spin::Auto));
    assert_eq!(config.socket, Path::new("/run/underpass/control.sock"));
    assert_eq!((config.frames, config.ring, config.rcvbuf, config.sndbuf), (4096, 2048, 262_144, 262_144));
    assert_eq!(config.congestion, None);
    assert!(config.interfaces.is_empty() && config.name.is_none() && config.log_file.is_none());
}

#[test]
fn names_are_unique() {
    let mut seen = std::collections::HashSet::new();
    for name in OPTIONS.iter().flat_map(|o| std::iter::once(o.name).chain(o.alias)) {
        assert!(seen.insert(name), "{name} twice");
    }
}

#[test]
fn values_reach_their_fields() {
    let (config, problems) = parse(&[
        ("UNDERPASS", "off"),
        ("UNDERPASS_LANES", "xdp"),
        ("UNDERPASS_PROMOTE", "eager"),
        ("UNDERPASS_SPIN_USEC", "250"),
        ("UNDERPASS_SOCKET", "/tmp/x.sock"),
        ("UNDERPASS_INTERFACES", "eth0, eth1"),
        ("UNDERPASS_LOG", "debug"),
        ("UNDERPASS_LOG_FILE", "/tmp/log"),
        ("UNDERPASS_NAME", "cache"),
        ("UNDERPASS_FRAMES", "5000"),
        ("UNDERPASS_RING", "64"),
        ("UNDERPASS_RCVBUF", "1048576"),
        ("UNDERPASS_SNDBUF", "8388608"),
        ("UNDERPASS_RCVBUF_MAX", "33554432"),
        ("UNDERPASS_SNDBUF_MAX", "16000000"),
        ("UNDERPASS_SHM_RING", "5000"),
        ("UNDERPASS_CC", "reno"),
    ]);
    assert_eq!(problems, Vec::<String>::new());
    let expected = Config {
        enabled: false,
        lanes: Lanes { shm: false, xdp: true },
        promote: Promote::Eager,
        spin: Spin::Usec(250),
        socket: "/tmp/x.sock".into(),
        interfaces: vec!["eth0".into(), "eth1".into()],
        log: LogLevel::Debug,
        log_file: Some("/tmp/log".into()),
        name: Some("cache".into()),
        frames: 8192,
        ring: 64,
        rcvbuf: 1 << 20,
        sndbuf: 8 << 20,
        rcvbuf_max: 32 << 20,
        sndbuf_max: 16 << 20,
        shm_ring: 8192,
        congestion: Some(Algorithm::Reno),
    };
    assert_eq!(config, expected);
}

#[test]
fn the_own_name_beats_the_alias_and_empty_means_unset() {
    assert_eq!(parse(&[("EF_POLL_USEC", "-1")]).0.spin, Spin::Always);
    assert_eq!(parse(&[("EF_POLL_USEC", "-1"), ("UNDERPASS_SPIN_USEC", "0")]).0.spin, Spin::Never);
    assert_eq!(parse(&[("EF_POLL_USEC", "-1"), ("UNDERPASS_SPIN_USEC", "")]).0.spin, Spin::Always);
    assert_eq!(parse(&[("EF_INTERFACE_WHITELIST", "a b")]).0.interfaces, ["a", "b"]);
}

#[test]
fn a_bad_value_is_named_with_what_would_be_accepted_and_the_default_is_used() {
    let (config, problems) = parse(&[("UNDERPASS_PROMOTE", "sometimes"), ("EF_RXQ_SIZE", "63")]);
    assert_eq!(config, Config::default());
    assert_eq!(
        problems,
        [
            "UNDERPASS_PROMOTE=\"sometimes\" is not valid: accepted are auto, eager, off; using the default (auto)",
            "EF_RXQ_SIZE=\"63\" is not valid: accepted are 64..8192, rounded up to a power of two; using the default (2048)",
        ]
    );
}

#[test]
fn bounds_are_the_stated_ones() {
    for (name, low, high) in [
        ("UNDERPASS_FRAMES", 512, 65_536),
        ("UNDERPASS_RING", 64, 8192),
        ("UNDERPASS_RCVBUF", 65_536, 8_388_608),
        ("UNDERPASS_SNDBUF", 65_536, 8_388_608),
        ("UNDERPASS_SHM_RING", 4096, 8_388_608),
        ("UNDERPASS_SPIN_USEC", -1, 10_000_000),
    ] {
        for (value, good) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
            let (_, problems) = parse(&[(name, &value.to_string())]);
            assert_eq!(problems.is_empty(), good, "{name}={value}");
        }
    }
}

#[test]
fn an_unknown_variable_is_reported_with_the_nearest_name() {
    let names = ["UNDERPASS_LANE", "UNDERPASS_ZEBRA_CROSSING", "UNDERPASS_LOG", "UNDERPASS", "PATH"];
    let problems = unknown_variables(names.iter().map(OsString::from));
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "UNDERPASS_LANE is not an option and is ignored; did you mean UNDERPASS_LANES?",
            "UNDERPASS_ZEBRA_CROSSING is not an option and is ignored; see underpass run --help",
        ]
    );
}

proptest! {
    #[test]
    fn any_bytes_give_a_valid_configuration(value in proptest::collection::vec(any::<u8>(), 0..200)) {
        let value = OsString::from_vec(value);
        let (config, problems) = Config::from_vars(|_| Some(value.clone()));
        for problem in &problems {
            prop_assert!(problem.to_string().contains("accepted are"));
        }
        prop_assert!(config.frames.is_power_of_two() && (512..=65_536).contains(&config.frames));
        prop_assert!(config.ring.is_power_of_two() && (64..=8192).contains(&config.ring));
        prop_assert!(config.socket.is_absolute());
        prop_assert!(config.lanes.shm || config.lanes.xdp);
    }

    #[test]
    fn any_number_is_taken_or_reported(number in any::<i64>()) {
        let text = OsString::from(number.to_string());
        let (config, problems) = Config::from_vars(|n| (n == "UNDERPASS_RCVBUF").then(|| text.clone()));
        prop_assert_eq!(problems.is_empty(), (65_536..=8_388_608).contains(&number));
        prop_assert!((65_536..=8_388_608).contains(&config.rcvbuf) && config.rcvbuf.is_power_of_two());
    }

    #[test]
    fn any_name_is_judged(name in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut full = b"UNDERPASS_".to_vec();
        full.extend(name);
        let known = OPTIONS.iter().any(|o| o.name.as_bytes() == full);
        let problems = unknown_variables(std::iter::once(OsString::from_vec(full)));
        prop_assert!(problems.len() == 1 || known);
        prop_assert!(problems.iter().all(|p| !p.to_string().is_empty()));
    }
}
