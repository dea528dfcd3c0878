//! Fronts and workers as processes: started with a channel as descriptor 0, an empty environment and nothing else.

use podsec_sys::nix::sys::signal::Signal;
use podsec_sys::process::{self, Trace};
use podsec_wire::Channel;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// Where the other two programs are installed.
pub const LIBEXEC: &str = "/usr/libexec/podsec";

/// A started front or worker.
#[derive(Debug)]
pub struct Child {
    /// Our end; non-blocking, since a child that does not read must not stop the gate.
    pub channel: Channel,
    /// The process.
    pub process: OwnedFd,
    /// By which a later podsecd finds it again.
    pub trace: Trace,
}

impl Child {
    /// Starts a program of ours. That it cannot be run shows as the end of its channel.
    ///
    /// # Errors
    /// socketpair(2), fork(2)
    pub fn start(program: &str, arguments: &[String]) -> io::Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        ours.set_nonblocking()?;
        let pid = process::start(&Path::new(LIBEXEC).join(program), arguments, theirs.as_fd())?;
        // It cannot have been reaped yet: only this thread reaps.
        Ok(Self { channel: ours, process: process::open(pid)?, trace: process::trace(pid) })
    }

    /// It goes on as another process.
    pub fn moved(&mut self, pid: i32, process: OwnedFd) {
        self.process = process;
        self.trace = process::trace(pid);
    }

    /// SIGKILL. It may run as another user by now, hence `CAP_KILL`.
    pub fn kill(&self) {
        let _ = process::signal(&self.process, Signal::SIGKILL);
    }
}
