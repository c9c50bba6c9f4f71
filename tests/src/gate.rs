//! A pipe that holds one piece of output: whoever writes to it is never more than one `write` ahead of its reader.
//!
//! That makes it possible to stop or kill a program *where it stands*: [`Gate::peek`] shows what it wrote last while its next
//! write is still blocked. In Linux's packet mode (`O_DIRECT`) each write takes a page of its own, and the pipe has one.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, tee};
use nix::unistd::{pipe2, read};

/// The smallest pipe there is: one page, one packet.
const ONE_PAGE: i32 = 4096;
/// Larger than any packet.
const PACKET_BYTES: usize = 64 * 1024;

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Gate {
    from: OwnedFd,
    /// Where a look at the packet goes: a duplicate, made by the kernel.
    copy_in: OwnedFd,
    copy_out: OwnedFd,
    buffer: Vec<u8>,
}

impl Gate {
    /// A gate and the writer's side, which becomes a program's standard error.
    pub(crate) fn new() -> io::Result<(Gate, OwnedFd)> {
        let (from, to) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT)?;
        fcntl(&to, FcntlArg::F_SETPIPE_SZ(ONE_PAGE))?;
        let (copy_out, copy_in) = pipe2(OFlag::O_CLOEXEC)?;
        Ok((Gate { from, copy_in, copy_out, buffer: vec![0; PACKET_BYTES] }, to))
    }

    /// Waits for a packet and shows it; it stays where it is. Empty when every writer is gone.
    pub(crate) fn peek(&mut self) -> io::Result<&[u8]> {
        let length = tee(&self.from, &self.copy_in, PACKET_BYTES, SpliceFFlags::empty())?;
        if length == 0 {
            return Ok(&[]);
        }
        let length = read(&self.copy_out, &mut self.buffer)?;
        Ok(&self.buffer[..length])
    }

    /// Takes the packet out: the writer goes on.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        read(&self.from, &mut self.buffer)?;
        Ok(())
    }
}
