//! One PostgreSQL cluster: `initdb` into a folder of our own, trust on loopback, no Unix socket.
//!
//! The server refuses to run as root; then it runs as the user `postgres`, in a folder that user can reach.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};

use super::guard::{Guard, Service};
use super::place::{new_folder, open_to_all};
use super::{Error, Place, tied};

/// Debian installs each major version beside the others below this folder.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";
/// The setting that is given when a cluster is made, in MB, and never again.
pub(crate) const SEGMENT_SIZE: &str = "wal_segment_size";
/// The superuser of the cluster; the address needs no password.
const SUPERUSER: &str = "postgres";

/// A PostgreSQL server of our own.
pub type Postgres = Guard<Cluster>;

impl Guard<Cluster> {
    /// `postgres://postgres@127.0.0.1:port/postgres`.
    pub fn url(&self) -> String {
        format!("postgres://{SUPERUSER}@{}/postgres", self.address())
    }
}

/// Where PostgreSQL's programs are, and the user they run as when we are root.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    user: Option<User>,
}

impl Cluster {
    /// Makes `command` run as the server's user.
    fn as_user<'a>(&self, command: &'a mut Command, place: &Place) -> &'a mut Command {
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command.current_dir(&place.folder).stdin(Stdio::null())
    }

    fn give(&self, path: &Path) -> Result<(), Error> {
        let Some(user) = &self.user else { return Ok(()) };
        chown(path, Some(user.uid), Some(user.gid))
            .map_err(|e| Error::io(Self::NAME, format!("give {} to {}", path.display(), user.name), e.into()))
    }
}

impl Service for Cluster {
    const NAME: &'static str = "postgres";
    // "Fast": open transactions are rolled back, clients are cut off, files are closed.
    const STOP: Signal = Signal::SIGINT;
    // "Immediate": the server ends its helper processes and leaves.
    const END: Signal = Signal::SIGQUIT;

    fn find() -> Result<Self, Error> {
        let missing = |missing: String| Error::NotInstalled {
            service: Self::NAME,
            missing,
            advice: "apt-get install postgresql, or name the folder of initdb and postgres in TINE_TEST_POSTGRES_BIN",
        };
        let programs = programs().ok_or_else(|| missing(format!("no initdb below {DEBIAN_FOLDER}")))?;
        let user = if geteuid().is_root() {
            let found = User::from_name(SUPERUSER).ok().flatten();
            Some(found.ok_or_else(|| missing(format!("no user {SUPERUSER}, and the server refuses to run as root")))?)
        } else {
            None
        };
        Ok(Self { programs, user })
    }

    fn settle(&self, place: Place) -> Result<Place, Error> {
        let reachable = self.user.is_none() || open_to_all(&place.folder);
        let place = if reachable {
            place
        } else {
            // A checkout below a private home folder: only the server's folder moves.
            let folder = new_folder(Self::NAME, &std::env::temp_dir().join("tine-test-postgres"))?;
            let _ = fs::remove_dir(&place.folder);
            Place { folder, ..place }
        };
        self.give(&place.folder)?;
        Ok(place)
    }

    fn prepare(&self, place: &Place) -> Result<(), Error> {
        let mut initdb = Command::new(self.programs.join("initdb"));
        initdb.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.arg(format!("--username={SUPERUSER}")).arg("--pgdata").arg("data");
        if let Some((_, megabytes)) = place.settings.iter().find(|(name, _)| name == SEGMENT_SIZE) {
            initdb.arg(format!("--wal-segsize={megabytes}"));
        }
        let made = self.as_user(&mut initdb, place).output();
        let made = made.map_err(|e| Error::io(Self::NAME, "run initdb", e))?;
        if made.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).into_owned();
        Err(Error::io(Self::NAME, "initialise its data folder", std::io::Error::other(why)))
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = tied(self.programs.join("postgres"), "QUIT");
        command.args(["-D", "data", "-p", &place.port.to_string()]);
        let fixed = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("max_connections", "200")];
        let given = place.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let given = given.filter(|(name, _)| *name != SEGMENT_SIZE);
        for (name, value) in fixed.into_iter().chain(given) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        self.as_user(&mut command, place);
        command
    }

    fn ready(&self, place: &Place, pid: u32) -> bool {
        // What pg_ctl waits for: the last line says "starting", "ready" or "stopping". After a kill the file of the dead
        // server is still there; the first line is its process id.
        let status = fs::read_to_string(place.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = status.lines().map(str::trim);
        lines.next() == Some(&pid.to_string()) && lines.nth(6) == Some("ready")
    }

    fn gone(&self, place: &Place) -> bool {
        // After SIGKILL of the server its helpers notice and leave; until then a new server refuses to start. Each
        // of them works inside the data folder.
        let Ok(data) = fs::canonicalize(place.data()) else { return true };
        let Ok(processes) = fs::read_dir("/proc") else { return true };
        !processes.flatten().any(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
    }
}

/// `TINE_TEST_POSTGRES_BIN`, or the newest version below Debian's folder.
fn programs() -> Option<PathBuf> {
    let with_initdb = |folder: PathBuf| folder.join("initdb").is_file().then_some(folder);
    if let Some(folder) = std::env::var_os("TINE_TEST_POSTGRES_BIN") {
        return with_initdb(PathBuf::from(folder));
    }
    let versions = fs::read_dir(DEBIAN_FOLDER).ok()?.flatten();
    let newest = |entry: fs::DirEntry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, with_initdb(entry.path().join("bin"))?))
    };
    versions.filter_map(newest).max_by_key(|(version, _)| *version).map(|(_, folder)| folder)
}
