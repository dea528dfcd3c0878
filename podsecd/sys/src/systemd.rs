//! systemd: sockets that it passes (sd_listen_fds(3)) and what it is told (sd_notify(3)).

use crate::socket::{self, Kind};
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// sd_booted(3)
#[must_use]
pub fn runs() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// The sockets that systemd passed to this very process, which is to look once; `None` when it passed none.
///
/// # Errors
/// when it passed more than four, or something that is no socket
pub fn passed() -> io::Result<Option<Vec<(Kind, OwnedFd)>>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    let count = number("LISTEN_FDS").and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    if count > 4 {
        return Err(io::Error::other(format!("{count} sockets passed")));
    }
    let sockets = crate::process::take_passed(count).into_iter().map(|fd| {
        socket::set_nonblocking(&fd, true)?;
        Ok((socket::kind(&fd)?, fd))
    });
    sockets.collect::<io::Result<_>>().map(Some)
}

/// Tells systemd, where it listens.
///
/// # Errors
/// sendto(2)
pub fn tell(state: &str) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address?).map(drop)
}
