//! What a process has cost, read from Linux's `/proc` without disturbing it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The kernel's unit in `/proc/PID/stat` (`USER_HZ`), the same on every Linux architecture Rust supports.
const TICKS_PER_S: u64 = 100;

/// One line of `/proc/PID/stat`, as far as it matters here.
#[derive(Debug)]
struct Stat {
    name: String,
    parent: u32,
    /// User and system time of the process itself.
    own_ticks: u64,
    /// The same of its children that have ended and were waited for.
    reaped_ticks: u64,
}

/// CPU time of one process so far, all threads, user and system.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    Ok(ticks(stat(pid)?.own_ticks))
}

/// The most memory the process ever had resident, in MB (10^6 bytes).
pub(crate) fn peak_rss_mb(pid: u32) -> Result<f64> {
    Ok(status_kib(pid, "VmHWM:")? * 1024.0 / 1e6)
}

fn status_kib(pid: u32, name: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
        .with_context(|| format!("no {name} in {path}: has the process ended?"))
}

/// The parent of `pid`, if `pid` runs on this machine and is called `name`.
pub(crate) fn parent_of(pid: u32, name: &str) -> Option<u32> {
    stat(pid).ok().filter(|stat| stat.name == name).map(|stat| stat.parent)
}

/// The memory the process has resident right now, in MB (10^6 bytes).
pub(crate) fn rss_mb(pid: u32) -> Result<f64> {
    Ok(status_kib(pid, "VmRSS:")? * 1024.0 / 1e6)
}

/// The process of this machine that listens on `port` of the loopback interface, if it may be seen.
pub(crate) fn listener(port: u16) -> Option<u32> {
    let listening = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let sockets: Vec<String> = listening.flat_map(|table| listening_inodes(&table, port)).collect();
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        links.into_iter().any(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
    })
}

/// Sockets of `/proc/net/tcp` that listen on `port`, as links of a process's files name them.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let listens = fields.get(1)?.rsplit_once(':')?.1 == format!("{port:04X}") && *fields.get(3)? == LISTEN;
        listens.then(|| Some(format!("socket:[{}]", fields.get(9)?)))?
    };
    table.lines().filter_map(of_line).collect()
}

/// CPU time so far of `root` and everything below it, ended children included.
pub(crate) fn tree_cpu_time(root: u32) -> Result<Duration> {
    let processes: HashMap<u32, Stat> = fs::read_dir("/proc")
        .context("cannot list /proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid).ok()?)))
        .collect();
    let below_root = |pid: u32| {
        let mut at = pid;
        while at != root {
            match processes.get(&at) {
                Some(stat) if stat.parent != 0 => at = stat.parent,
                _ => return false,
            }
        }
        true
    };
    let total = processes
        .iter()
        .filter(|(pid, _)| below_root(**pid))
        .map(|(_, stat)| stat.own_ticks + stat.reaped_ticks)
        .sum::<u64>();
    Ok(ticks(total))
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS_PER_S)
}

fn stat(pid: u32) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let line = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&line).with_context(|| format!("{path} has an unknown form: {line}"))
}

/// The name stands in parentheses and may itself contain spaces and parentheses; numbers follow the last one.
fn parse(line: &str) -> Option<Stat> {
    let (head, tail) = line.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    // proc(5) numbers the state as field 3; here it is the first.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name,
        parent: u32::try_from(number(4)?).ok()?,
        own_ticks: number(14)? + number(15)?,
        reaped_ticks: number(16)? + number(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = parse("42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 5 6 7\n").unwrap();
        assert_eq!((stat.name.as_str(), stat.parent, stat.own_ticks, stat.reaped_ticks), ("a) b (c", 7, 33, 77));
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener(socket.local_addr().unwrap().port()), Some(std::process::id()));
    }

    #[test]
    fn a_busy_process_is_seen_to_cost_something() {
        let me = std::process::id();
        let before = tree_cpu_time(me).unwrap();
        while cpu_time(me).unwrap() < Duration::from_millis(50) {}
        assert!(tree_cpu_time(me).unwrap() > before);
        assert!(peak_rss_mb(me).unwrap() > 0.1);
    }
}
