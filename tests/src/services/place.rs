//! Where servers live on this machine: their base folder, a folder each, free ports, and the programs they run on.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Error;

/// The first port given out; lower ones belong to well-known services.
const FIRST_PORT: u32 = 20_000;

/// A file that marks a folder somebody should look at: it is not swept.
pub(crate) const KEPT: &str = "kept";

/// A server's folder, its ports and the settings it was given.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder that holds everything of this server.
    pub folder: PathBuf,
    /// The port clients connect to.
    pub port: u16,
    /// A second port, for servers that talk to themselves.
    pub inner_port: u16,
    /// Settings that override the default ones, in the server's own words. Kafka's may name `{port}` and `{inner}`.
    pub settings: Vec<(String, String)>,
}

impl Place {
    /// The folder with the server's data: what `wipe` deletes.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The file with everything the server prints.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// `TINE_TEST_DIR`, or `target/services` of this workspace.
pub fn base_folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("services");
    let folder = std::env::var_os("TINE_TEST_DIR").map_or_else(default, PathBuf::from);
    // Servers work in a folder of their own, so what they are told must not depend on ours.
    std::path::absolute(&folder).unwrap_or(folder)
}

/// A loopback port nobody listens on, below the range the system gives to outgoing connections.
///
/// A port of that range could become the local port of a reconnecting client while its server is down, and the server
/// could not come back.
pub fn free_port() -> io::Result<u16> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let end = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u32>().ok())
        .filter(|first| *first > FIRST_PORT + 1_000)
        .unwrap_or(32_768);
    let ports = end - FIRST_PORT;
    for _ in 0..ports {
        let nth = TRIED.fetch_add(1, Ordering::Relaxed);
        let candidate = FIRST_PORT + std::process::id().wrapping_mul(101).wrapping_add(nth) % ports;
        let port = u16::try_from(candidate).map_err(io::Error::other)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port in {FIRST_PORT}..{end}")))
}

/// Makes a new empty folder `NAME-PID-N` below `base`, after removing those whose process is gone.
pub(crate) fn new_folder(service: &'static str, base: &Path) -> Result<PathBuf, Error> {
    static SWEEP: Once = Once::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(base).map_err(|e| Error::io(service, format!("create {}", base.display()), e))?;
    SWEEP.call_once(|| sweep(base));
    let folder = base.join(format!("{service}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&folder).map_err(|e| Error::io(service, format!("create {}", folder.display()), e))?;
    Ok(folder)
}

fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let kept = entry.path().join(KEPT).exists();
        if !kept && owner(&entry.file_name().to_string_lossy()).is_some_and(|pid| !alive(pid)) {
            // Another process may be sweeping the same folder: whoever comes second has nothing left to do.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in `kafka-PID-N`; no other name is ours.
fn owner(folder: &str) -> Option<u32> {
    let mut parts = folder.split('-');
    let service = parts.next()?;
    let (pid, nth) = (parts.next()?, parts.next()?);
    let ours = ["kafka", "zookeeper", "postgres"].contains(&service) && parts.next().is_none();
    nth.parse::<u32>().ok()?;
    pid.parse().ok().filter(|_| ours)
}

fn alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// The Java program: `JAVA_HOME/bin/java`, or the first in `PATH`.
pub(crate) fn java() -> Option<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    home.filter(|java| java.is_file()).or_else(|| in_path("java"))
}

/// Whether `folder` holds a file whose name starts with `prefix` and ends with `.jar`.
pub(crate) fn has_jar(folder: &Path, prefix: &str) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".jar")
        })
    })
}

/// Whether a user other than the owner can walk into `folder`.
pub(crate) fn open_to_all(folder: &Path) -> bool {
    folder.ancestors().all(|part| fs::metadata(part).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_out_once() {
        let ports: std::collections::HashSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn only_our_own_folders_are_swept() {
        assert_eq!(owner("kafka-123-0"), Some(123));
        assert_eq!(owner("kafka-libs"), None);
        assert_eq!(owner("redis-123-0"), None);
        assert_eq!(owner("kafka-123-0-old"), None);
    }
}
