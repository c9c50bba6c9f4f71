//! Where a worker listens, and how it proves who it is: settings alone, judged before anything is opened.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::failure::Failure;

/// Where a worker listens for its peers.
///
/// ```
/// use tine_core::transport::{Listen, Tls};
///
/// let here = Listen::on("127.0.0.1:7100")?;
/// let there = Listen::on("0.0.0.0:7100")?
///     .advertise("worker-1.example:7100")?
///     .tls(Tls { authority: "ca.pem".into(), certificate: "worker-1.pem".into(), key: "worker-1.key".into() });
/// let behind_a_tunnel = Listen::on("10.0.0.1:7100")?.plaintext();
/// assert_ne!(here, there);
/// assert!(Listen::on("7100").is_err(), "no host");
/// # let _ = behind_a_tunnel;
/// # Ok::<(), tine_core::failure::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub(crate) bind: String,
    pub(crate) advertise: Option<String>,
    pub(crate) tls: Option<Tls>,
    pub(crate) plaintext: bool,
}

/// PEM files of a worker: both sides of a connection show a certificate of the same authority.
///
/// ```
/// use tine_core::transport::{Listen, Tls};
///
/// /// The files of one worker, in one directory.
/// fn tls(directory: &std::path::Path) -> Tls {
///     let [authority, certificate, key] = ["ca.pem", "worker.pem", "worker.key"].map(|file| directory.join(file));
///     Tls { authority, certificate, key }
/// }
///
/// let listen = Listen::on("0.0.0.0:7100")?.advertise("worker-1.example:7100")?.tls(tls("/etc/tine".as_ref()));
/// assert_eq!(listen.to_string(), "0.0.0.0:7100");
/// # Ok::<(), tine_core::failure::Failure>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The authority that signed every worker's certificate.
    pub authority: PathBuf,
    /// This worker's certificate, with the host that it advertises among its names, and for use by servers and clients.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

#[cfg_attr(not(feature = "cluster"), allow(dead_code, reason = "without it no port is opened"))]
impl Listen {
    /// Listens on `host:port`; port 0 takes a free one.
    ///
    /// # Errors
    /// `Fatal` when it is no `host:port`.
    pub fn on(address: &str) -> Result<Listen, Failure> {
        split(address)?;
        Ok(Listen { bind: address.to_owned(), advertise: None, tls: None, plaintext: false })
    }

    /// What peers connect to, where that is another address than the one listened on (`0.0.0.0`, a gateway).
    ///
    /// # Errors
    /// `Fatal` when it is no `host:port`.
    pub fn advertise(mut self, address: &str) -> Result<Listen, Failure> {
        split(address)?;
        self.advertise = Some(address.to_owned());
        Ok(self)
    }

    /// Encrypts, and admits only peers with a certificate of the same authority.
    pub fn tls(mut self, tls: Tls) -> Listen {
        self.tls = Some(tls);
        self
    }

    /// Allows plaintext beyond loopback: whoever can read or write the network between the workers can read and forge
    /// what they say to one another.
    pub fn plaintext(mut self) -> Listen {
        self.plaintext = true;
        self
    }

    /// Whether this address may be talked to: over TLS any, in plaintext loopback alone unless more was asked for.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        self.tls.is_some() || self.plaintext || ip.is_loopback()
    }

    /// Refuses to open a port that anybody could talk to.
    pub(crate) fn check(&self, bound: &[SocketAddr]) -> Result<(), Failure> {
        match bound.iter().find(|address| !self.admits(address.ip())) {
            None => Ok(()),
            Some(address) => Err(Failure::fatal(format!(
                "{self} is {address}, beyond loopback, and plaintext is not safe there: give TLS files, or ask for \
                 plaintext by name"
            ))),
        }
    }

    /// What peers are told, once the port is open.
    pub(crate) fn advertised(&self, open: SocketAddr) -> Result<String, Failure> {
        let told = self.advertise.as_ref().unwrap_or(&self.bind);
        let (host, port) = split(told)?;
        if self.advertise.is_none() && open.ip().is_unspecified() {
            return Err(Failure::fatal(format!(
                "{self} is every address of this machine, and peers need one of them: advertise it"
            )));
        }
        let port = if port == 0 { open.port() } else { port };
        Ok(format!("{host}:{port}"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bind)
    }
}

/// Host (with the brackets of an IPv6 address) and port.
fn split(address: &str) -> Result<(&str, u16), Failure> {
    let wrong = || Failure::fatal(format!("the address {address:?} is no host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || !host.chars().all(plain) || (host.contains(':') && !bracketed) {
        return Err(wrong());
    }
    Ok((host, port.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_none_is_named() {
        for wrong in ["", "7100", ":7100", "host", "host:", "host:70000", "a b:1", "http://a:1", "::1:7100", "a/b:1"] {
            assert!(Listen::on(wrong).unwrap_err().message.contains(&format!("{wrong:?}")), "{wrong}");
        }
        assert!(Listen::on("[::1]:7100").is_ok() && Listen::on("worker-1.example:0").is_ok());
    }

    #[test]
    fn x1_plaintext_beyond_loopback_is_refused_unless_asked_for_by_name() {
        let everywhere: SocketAddr = "0.0.0.0:7100".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:7100".parse().unwrap();
        let listen = Listen::on("0.0.0.0:7100").unwrap();
        let refused = listen.check(&[here, everywhere]).unwrap_err();
        assert!(refused.message.contains("0.0.0.0:7100") && refused.message.contains("plaintext"), "{refused}");
        assert!(listen.check(&[here]).is_ok());
        let files = Tls { authority: "a".into(), certificate: "c".into(), key: "k".into() };
        assert!(listen.clone().tls(files).check(&[everywhere]).is_ok());
        assert!(listen.plaintext().check(&[everywhere]).is_ok());
    }

    #[test]
    fn peers_are_told_an_address_that_they_can_reach() {
        let open = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 7123);
        let free = Listen::on("localhost:0").unwrap();
        assert_eq!(free.advertised(open("127.0.0.1")).unwrap(), "localhost:7123");
        let every = Listen::on("0.0.0.0:7100").unwrap();
        assert!(every.advertised(open("0.0.0.0")).unwrap_err().message.contains("advertise"));
        assert_eq!(every.advertise("w:9").unwrap().advertised(open("0.0.0.0")).unwrap(), "w:9");
    }
}
