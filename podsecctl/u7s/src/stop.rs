//! `stop`: a polite end, through rootlesskit, which hands the signal on to the payload.

use podsec_u7s::cli;
use podsec_u7s::config::Config;
use podsec_u7s::rootlesskit::{Pid, StateDir};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Why they did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StopError {
    #[error(
        "rootlesskit (process {0}) still runs after {1}s; look at the payload, or: systemctl kill -s KILL podsec-u7s"
    )]
    Late(Pid, u16),
    #[error("cannot signal rootlesskit (process {0}): {1}")]
    Signal(Pid, std::io::Error),
}

/// Sends SIGTERM and waits. That nothing runs is fine.
pub(crate) fn stop(config: &Config, arguments: &cli::Stop) -> Result<(), StopError> {
    let state = StateDir::new(config.state_dir.as_path());
    let Some(pid) = state.holder() else { return Ok(()) };
    let failed = |error: Errno| StopError::Signal(pid, error.into());
    let process = match open(pid) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.map_err(failed)?,
    };
    // The number may have changed hands until the descriptor held it; the lock has not, if it still has the same owner.
    if state.holder() != Some(pid) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::TERM) {
        Err(Errno::SRCH) => return Ok(()),
        other => other.map_err(failed)?,
    }
    let patience = Duration::from_secs(arguments.timeout.into());
    let patience = Timespec::try_from(patience).map_err(|_| StopError::Late(pid, arguments.timeout))?;
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).map_err(failed)? {
        0 => Err(StopError::Late(pid, arguments.timeout)),
        _ => Ok(()),
    }
}

fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    let raw = i32::try_from(pid.get()).map_err(|_| Errno::SRCH)?;
    pidfd_open(rustix::process::Pid::from_raw(raw).ok_or(Errno::SRCH)?, PidfdFlags::empty())
}
