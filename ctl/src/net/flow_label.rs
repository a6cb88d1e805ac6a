//! IPv6 flow labels (RFC 6437), as the kernel chooses them (net.ipv6.auto_flowlabels and flowlabel_state_ranges,
//! Documentation/networking/ip-sysctl.rst).

use std::fs;

use underpass_stack::wire::ipv6::FLOW_LABEL;

/// Labels with this bit are chosen without anybody's leave, those without it by agreement (IPV6_FLOWLABEL_STATELESS_FLAG).
const STATELESS: u32 = 0x8_0000;
/// Values of net.ipv6.auto_flowlabels.
const OFF: u32 = 0;
const ON: u32 = 1;
const FORCED: u32 = 3;

/// What a socket wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// None, or it is not IPv6.
    None,
    /// One that is its own, the same for all its packets.
    Auto,
    /// This one.
    Fixed(u32),
}

/// The settings of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    auto: u32,
    state_ranges: bool,
}

impl Policy {
    /// Of the calling thread's namespace. What cannot be read counts as the kernel's default.
    pub fn read() -> Self {
        let number = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv6/{name}")).ok()?;
            text.trim().parse::<u32>().ok()
        };
        Self {
            auto: number("auto_flowlabels").unwrap_or(ON),
            state_ranges: number("flowlabel_state_ranges").unwrap_or(1) != 0,
        }
    }

    /// The label of a connection. `hash` is the connection's and hard to guess (RFC 6437, section 3).
    pub fn choose(self, wanted: Label, hash: u64) -> u32 {
        match wanted {
            Label::Fixed(label) if label & FLOW_LABEL != 0 => label & FLOW_LABEL,
            Label::Auto if self.auto == OFF => 0,
            Label::Auto => self.of(hash),
            _ if self.auto == FORCED => self.of(hash),
            _ => 0,
        }
    }

    /// Never 0, which means none.
    fn of(self, hash: u64) -> u32 {
        let mark = if self.state_ranges { STATELESS } else { 0 };
        ((hash as u32 & FLOW_LABEL) | mark).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_that_the_kernel_would_choose() {
        let policy = |auto, state_ranges| Policy { auto, state_ranges };
        let hash = 0xfff0_0000_abc1_2345;
        assert_eq!(policy(ON, true).choose(Label::Auto, hash), 0x9_2345);
        assert_eq!(policy(ON, false).choose(Label::Auto, hash), 0x1_2345);
        assert_eq!(policy(ON, false).choose(Label::Auto, 0), 1);
        assert_eq!(policy(2, true).choose(Label::Auto, hash), 0x9_2345, "the socket asked for it");
        assert_eq!(policy(OFF, true).choose(Label::Auto, hash), 0);
        assert_eq!(policy(ON, true).choose(Label::None, hash), 0);
        assert_eq!(policy(FORCED, true).choose(Label::None, hash), 0x9_2345);
        for auto in [OFF, ON, FORCED] {
            assert_eq!(policy(auto, true).choose(Label::Fixed(0xfff1_2345), hash), 0x1_2345);
        }
    }
}
