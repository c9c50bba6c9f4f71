//! One standalone ZooKeeper server, or one of an [`ensemble`](super::ensemble).

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::guard::{Guard, Service};
use super::place::{has_jar, java};
use super::{Error, Place, base_folder, tied};

/// How long a four-letter word may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// The setting that makes a server one of an ensemble; ZooKeeper wants it in a file.
pub(crate) const MY_ID: &str = "myid";
/// The setting with the folder of the log, when it is not that of the data.
pub(crate) const LOG_FOLDER: &str = "dataLogDir";
/// The Debian package puts its jar here; the manifest names the others.
const DEBIAN_JAR: &str = "/usr/share/java/zookeeper.jar";

/// A ZooKeeper server of our own. [`Guard::wipe`] is what an operator does who deletes its data folder.
pub type ZooKeeper = Guard<Standalone>;

/// Asks `address` whether it serves: `ruok` is answered with `imok`.
pub fn is_ok(address: &str) -> bool {
    ask(address, b"ruok").is_ok_and(|answer| answer == "imok")
}

/// Whether a server has joined those that serve: `ruok` is answered with `imok` also by one that stands alone.
pub(crate) fn serves(address: &str) -> bool {
    ask(address, b"srvr").is_ok_and(|answer| answer.contains("Mode: "))
}

fn ask(address: &str, word: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(word)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where ZooKeeper's jars and Java are.
#[derive(Debug)]
pub struct Standalone {
    java: PathBuf,
    class_path: OsString,
}

impl Service for Standalone {
    const NAME: &'static str = "zookeeper";
    const STOP: Signal = Signal::SIGTERM;
    const END: Signal = Signal::SIGKILL;

    fn find() -> Result<Self, Error> {
        let missing = |missing: String| Error::NotInstalled {
            service: Self::NAME,
            missing,
            advice: "apt-get install libzookeeper-java default-jre-headless, or run tests/run, which fetches the jars with Maven, or name a folder with ZooKeeper's libs in TINE_TEST_ZOOKEEPER_LIBS",
        };
        let class_path = class_path()
            .ok_or_else(|| missing(format!("no {DEBIAN_JAR} and no zookeeper-*.jar in {}", fetched().display())))?;
        let java = java().ok_or_else(|| missing("no java in JAVA_HOME or PATH".to_owned()))?;
        Ok(Self { java, class_path })
    }

    fn prepare(&self, place: &Place) -> Result<(), Error> {
        let failed = |e| Error::io(Self::NAME, format!("write into {}", place.folder.display()), e);
        fs::create_dir_all(place.data()).map_err(failed)?;
        if let Some((_, id)) = place.settings.iter().find(|(name, _)| name == MY_ID) {
            fs::write(place.data().join(MY_ID), id).map_err(failed)?;
        }
        fs::write(config_file(place), configuration(place)).map_err(failed)
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = tied(&self.java, "KILL");
        // Container nodes are looked at every minute by default; this one is not a zoo.cfg setting.
        command.args(["-Xmx256m", "-XX:+UseSerialGC", "-Dznode.container.checkIntervalMs=1000", "-cp"]);
        command.arg(&self.class_path).arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
        command.arg(config_file(place)).current_dir(&place.folder);
        command
    }

    /// A piece of the log that was begun when nothing fitted has no header; the server reads it and gives up.
    fn clear(&self, place: &Place) -> Result<(), Error> {
        let Some((_, folder)) = place.settings.iter().find(|(name, _)| name == LOG_FOLDER) else { return Ok(()) };
        let folder = Path::new(folder).join("version-2");
        let failed = |e| Error::io(Self::NAME, format!("clear {}", folder.display()), e);
        for piece in fs::read_dir(&folder).map_err(failed)?.flatten() {
            let is_log = piece.file_name().to_string_lossy().starts_with("log.");
            let mut magic = [0; 4];
            let begun = fs::File::open(piece.path()).and_then(|mut file| file.read_exact(&mut magic));
            if is_log && (begun.is_err() || &magic != b"ZKLG") {
                fs::remove_file(piece.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn ready(&self, place: &Place, _pid: u32) -> bool {
        is_ok(&place.address())
    }

    fn serves(&self, place: &Place, _pid: u32) -> bool {
        serves(&place.address())
    }
}

fn fetched() -> PathBuf {
    std::env::var_os("TINE_TEST_ZOOKEEPER_LIBS").map_or_else(|| base_folder().join("zookeeper-libs"), PathBuf::from)
}

fn class_path() -> Option<OsString> {
    if has_jar(&fetched(), "zookeeper-") {
        return Some(fetched().join("*").into_os_string());
    }
    Path::new(DEBIAN_JAR).is_file().then(|| OsString::from(DEBIAN_JAR))
}

fn config_file(place: &Place) -> PathBuf {
    place.folder.join("zoo.cfg")
}

fn configuration(place: &Place) -> String {
    let mut lines = vec![
        format!("dataDir={}", place.data().display()),
        format!("clientPort={}", place.port),
        "clientPortAddress=127.0.0.1".to_owned(),
    ];
    // A short tick lets a test ask for sessions of less than a second; the client asks, the server bounds.
    let fixed = [
        "tickTime=500",
        "minSessionTimeout=500",
        "maxSessionTimeout=60000",
        "maxClientCnxns=0",
        "admin.enableServer=false",
        "4lw.commands.whitelist=*",
    ];
    lines.extend(fixed.map(str::to_owned));
    let settings = place.settings.iter().filter(|(name, _)| name != MY_ID);
    lines.extend(settings.map(|(name, value)| format!("{name}={value}")));
    lines.join("\n") + "\n"
}
