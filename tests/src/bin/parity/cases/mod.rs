//! The cases. A case is a function; its transcript is what it prints.

pub mod close;
pub mod drawn;
pub mod epoll;
pub mod epoll_first;
pub mod fds;
pub mod information;
pub mod odd;
pub mod options;
pub mod options6;
pub mod poll;
pub mod recv;
pub mod send;
pub mod signals;
pub mod threads;
pub mod told;
pub mod unsent;

use crate::session::Session;

/// One case.
pub struct Case {
    /// The group that it runs with.
    pub group: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Does traffic come first, so that an eager end is on its lane?
    pub warm: bool,
    /// What it does.
    pub run: fn(&mut Session),
}

/// A group's table: functions after traffic, then functions without.
macro_rules! group {
    ($group:literal: $($warm:ident)* ; $($cold:ident)*) => {
        /// The group's cases.
        pub const CASES: &[super::Case] = &[
            $(super::Case { group: $group, name: concat!($group, "-", stringify!($warm)), warm: true, run: $warm },)*
            $(super::Case { group: $group, name: concat!($group, "-", stringify!($cold)), warm: false, run: $cold },)*
        ];
    };
}
pub(crate) use group;

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let groups = [
        recv::CASES,
        send::CASES,
        poll::CASES,
        epoll::CASES,
        epoll_first::CASES,
        close::CASES,
        fds::CASES,
        threads::CASES,
        signals::CASES,
        options::CASES,
        information::CASES,
        unsent::CASES,
        options6::CASES,
        odd::CASES,
        told::CASES,
    ];
    groups.into_iter().flatten()
}
