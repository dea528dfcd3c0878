//! A session between client and worker, on the socket that a reservation or a ticket brought. docs/session.md has the bytes.
//!
//! ```text
//! client ── Open + 0 or 3 fds ──▶ worker   3: stdin, stdout, stderr; 0: a terminal was asked for
//! client ◀─ Terminal + fd ─────── worker   the leader of the new terminal
//! client ◀─ Started ───────────── worker   the program runs
//! client ── Signal ─────────────▶ worker   (a changed window needs no frame: TIOCSWINSZ on the leader)
//! client ◀─ Exited ────────────── worker   or Failed, at any time before
//! ```

use crate::{Channel, WireError};
use podsec_policy::Reason;
use podsec_sys::socket;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd as _;
use std::path::Path;

/// client → worker
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// First; with the three descriptors unless a terminal was asked for.
    Open,
    /// For the process group of the session's program.
    Signal(Signal),
}

/// Signals that a caller may send to his own session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "signal(7)")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Term,
    Kill,
    Usr1,
    Usr2,
    Tstp,
    Cont,
}

/// worker → client
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The leader of the session's terminal comes along.
    Terminal,
    /// The program runs.
    Started,
    /// It will not run.
    Failed {
        /// Stable.
        reason: Reason,
        /// For a person, escaped; the reason's own sentence when empty.
        detail: String,
    },
    /// It ended.
    Exited(Exit),
}

/// How a program ended, wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    /// As a shell and ssh show it: the code, or 128 and the signal.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code.into(),
            Self::Signal(signal) => 128 + i32::from(signal),
        }
    }
}

/// The gate's word on a ticket, or a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attached {
    /// The session's socket comes along.
    Session,
    /// No such ticket for you.
    Refused,
}

/// Fetches a session: sends the ticket to the gate and receives the session's socket.
///
/// # Errors
/// [`WireError`]; `PermissionDenied` when the gate refuses the ticket
pub fn attach(path: &Path, ticket: &[u8; 32]) -> Result<Channel, WireError> {
    receive(&present(path, ticket)?)
}

/// Reserves a session that this process is going to ask for under that number. podsecd makes ready for it meanwhile.
///
/// # Errors
/// [`WireError`]
pub fn reserve(path: &Path, number: u64) -> Result<Channel, WireError> {
    present(path, &number.to_le_bytes())
}

fn present(path: &Path, bytes: &[u8]) -> Result<Channel, WireError> {
    let gate = Channel::from(socket::connect(path, socket::Kind::Packet)?);
    socket::send(&gate.as_fd(), bytes, &[])?;
    Ok(gate)
}

/// Takes the session's socket, for which a ticket or a request has been sent.
///
/// # Errors
/// [`WireError`]; `PermissionDenied` when there is none
pub fn receive(gate: &Channel) -> Result<Channel, WireError> {
    match gate.receive::<Attached>()? {
        Some((Attached::Session, descriptors)) => {
            let first = descriptors.into_iter().next();
            first
                .map(Channel::from)
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData).into())
        }
        Some((Attached::Refused, _)) | None => {
            Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied).into())
        }
    }
}
