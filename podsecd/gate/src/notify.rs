//! systemd: sockets that it passes (sd_listen_fds(3)) and what it is told (sd_notify(3)).

use podsec_sys::socket::{self, Kind};
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC; `None` once podsecd is going down.
    pub requests: Option<OwnedFd>,
    /// Sessions.
    pub attach: OwnedFd,
}

/// The sockets that systemd passed to this very process; `None` when it passed none.
///
/// # Errors
/// when it passed others than one stream and one packet socket
pub fn passed() -> io::Result<Option<Listeners>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    let count = number("LISTEN_FDS").and_then(|count| i32::try_from(count).ok()).unwrap_or(0);
    if count != 2 {
        return Err(io::Error::other(format!(
            "{count} sockets passed; podsecd.socket has one stream and one packet socket"
        )));
    }
    let (mut requests, mut attach) = (None, None);
    for fd in podsec_sys::process::take_passed(count) {
        socket::set_nonblocking(&fd, true)?;
        match socket::kind(&fd)? {
            Kind::Stream => requests = Some(fd),
            Kind::Packet => attach = Some(fd),
        }
    }
    match (requests, attach) {
        (requests @ Some(_), Some(attach)) => Ok(Some(Listeners { requests, attach })),
        _ => Err(io::Error::other("the passed sockets are not one stream and one packet socket")),
    }
}

/// Tells systemd, where it listens.
pub fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &to));
    if let Err(error) = told {
        eprintln!("podsecd: systemd could not be told {state:?}: {error}");
    }
}
