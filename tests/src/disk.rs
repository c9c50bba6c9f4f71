//! A disk small enough to fill: a file system in memory, mounted where a server keeps what it writes.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::services::ZooKeeper;
use crate::services::zookeeper::LOG_FOLDER;

/// How large it is: the tables and the transactions of an hour fit, or a log between two checkpoints.
const SIZE: &str = "size=384m";
/// How its folder's name begins, in the server's.
const NAME: &str = "disk-";
/// What fills it.
const BALLOON: &str = "balloon";

/// A mounted disk; unmounted when it is dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Mounts one below `folder`, for the user who owns that. Fails where nothing may be mounted.
    pub fn mount(folder: &Path, what: &str) -> anyhow::Result<Self> {
        let disk = folder.join(format!("{NAME}{what}"));
        fs::create_dir(&disk).with_context(|| format!("make {}", disk.display()))?;
        let owner = fs::metadata(folder)?;
        let options = format!("{SIZE},mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).output()?;
        ensure!(mount.status.success(), "mount: {}", String::from_utf8_lossy(&mount.stderr).trim());
        Ok(Self { folder: disk })
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes until nothing fits.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut balloon = File::create(self.folder.join(BALLOON))?;
        let mut chunk = vec![1; 1 << 20];
        loop {
            match balloon.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull && chunk.len() > 1 => {
                    chunk.truncate(chunk.len() / 2)
                }
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
    }

    /// Makes room again.
    pub fn free(&self) -> anyhow::Result<()> {
        fs::remove_file(self.folder.join(BALLOON)).context("make room on the disk")
    }
}

/// A disk for the log of a server of ZooKeeper, which starts anew with it (one of an ensemble learns all from its peers). A
/// piece of the log is filled within seconds.
pub fn of_log(server: &mut ZooKeeper) -> anyhow::Result<Disk> {
    let disk = Disk::mount(&server.place.folder, "log")?;
    let folder = disk.folder().display().to_string();
    server.place.settings.extend([(LOG_FOLDER.to_owned(), folder), ("preAllocSize".to_owned(), "8".to_owned())]);
    server.wipe()?;
    Ok(disk)
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

/// Lazily: the server may still have files open.
fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("-l").arg(folder).output();
}

/// Unmounts what nobody drops any more, `…/postgres-PID-N/disk-log`: disks of processes that were killed, and our own when we
/// are about to leave in a hurry.
pub fn unmount_forgotten() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for folder in mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        let server = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let owner = server.as_deref().and_then(|name| owner(name)?.parse().ok());
        let is_ours = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAME));
        let left = |pid: u32| pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists();
        if is_ours && owner.is_some_and(left) {
            unmount(folder);
        }
    }
}

/// The number of the process in a server's folder's name.
fn owner(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("postgres-").or_else(|| name.strip_prefix("zookeeper-"))?;
    rest.split('-').next()
}
