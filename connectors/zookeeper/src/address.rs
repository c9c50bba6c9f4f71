//! Where the ensemble is: `host:port,host:port/chroot`, checked before anybody is asked.

use tine_core::failure::Failure;

/// Attempts to connect in one round.
const ROUND_ATTEMPTS: usize = 8;

/// A parsed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// `host:port,host:port`.
    pub(crate) hosts: String,
    /// Empty, or `/a/b`.
    pub(crate) chroot: String,
}

impl Address {
    pub(crate) fn parse(address: &str) -> Result<Address, Failure> {
        let wrong = |what: &str| {
            Err(Failure::fatal(format!(
                "the zookeeper address {address:?} has {what}; expected host:port,host:port/chroot"
            )))
        };
        let (hosts, chroot) = match address.split_once('/') {
            Some((hosts, chroot)) => (hosts, chroot.trim_end_matches('/')),
            None => (address, ""),
        };
        for host in hosts.split(',') {
            let (name, port) = host.rsplit_once(':').unwrap_or((host, "2181"));
            if name.is_empty() || name.contains(char::is_whitespace) {
                return wrong("an empty or misspelt host");
            }
            if !port.parse::<u16>().is_ok_and(|port| port > 0) {
                return wrong("a port that is not a number from 1 to 65535");
            }
        }
        let misspelt = |name: &str| name.is_empty() || name == "." || name == ".." || name.contains(char::is_control);
        if chroot.contains(',') || (!chroot.is_empty() && chroot.split('/').any(misspelt)) {
            return wrong("a chroot that is no path");
        }
        let chroot = if chroot.is_empty() { String::new() } else { format!("/{chroot}") };
        Ok(Address { hosts: hosts.to_owned(), chroot })
    }

    /// The hosts as the client wants them: often enough that it comes back soon after an outage. It doubles its pause
    /// after each round through the list, so that a list of one leaves gaps of seconds and a restarted server is found
    /// only when the lease has run out.
    pub(crate) fn cluster(&self) -> String {
        let hosts = self.hosts.split(',').count();
        vec![self.hosts.as_str(); ROUND_ATTEMPTS.div_ceil(hosts)].join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_chroot_are_told_apart() {
        let address = Address::parse("a:1,b/x/y/").unwrap();
        assert_eq!((address.hosts.as_str(), address.chroot.as_str()), ("a:1,b", "/x/y"));
        assert_eq!(Address::parse("[::1]:2181").unwrap().chroot, "");
        assert_eq!(Address::parse("a,b,c/x").unwrap().cluster(), "a,b,c,a,b,c,a,b,c");
    }

    #[test]
    fn a_misspelt_address_is_an_error_with_the_address() {
        for wrong in ["", ":2181", "a:x", "a:0", "a:70000", "a,,b", "a/x,b/x", "a//x", "a/..", "a b:1"] {
            assert!(Address::parse(wrong).unwrap_err().message.contains(&format!("{wrong:?}")), "{wrong}");
        }
    }
}
