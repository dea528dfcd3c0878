//! Unix sockets: packets with descriptors (unix(7), `SCM_RIGHTS`), and who is at the other end.

use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Most descriptors in one packet. A packet with more is cut by the kernel, and refused by [`receive`].
pub const MAX_DESCRIPTORS: usize = 4;

/// Connections that may wait to be accepted; whoever comes then waits in connect(2). A longer queue would only be a longer
/// way for everybody while somebody floods it.
const BACKLOG: i32 = 512;

/// Which kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes (`SOCK_STREAM`).
    Stream,
    /// Packets in order (`SOCK_SEQPACKET`).
    Packet,
}

impl Kind {
    fn raw(self) -> SockType {
        match self {
            Self::Stream => SockType::Stream,
            Self::Packet => SockType::SeqPacket,
        }
    }
}

/// Two connected packet sockets, closed on exec.
///
/// # Errors
/// socketpair(2)
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Binds, sets the permission bits, and listens. Something already there that nobody listens on is removed; a
/// socket that answers belongs to somebody, and is an error; not at once, since a podsecd that was killed may have left a
/// child just before its exec, which holds the socket for a moment.
///
/// # Errors
/// bind(2), listen(2), `AddrInUse`
pub fn listen(path: &Path, kind: Kind, mode: u32) -> io::Result<OwnedFd> {
    let mut patience = 10;
    loop {
        match connect(path, kind) {
            Ok(_) if patience > 0 => {
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                break;
            }
            Err(_) => break,
        }
    }
    let socket = socket::socket(
        AddressFamily::Unix,
        kind.raw(),
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

/// # Errors
/// socket(2), connect(2)
pub fn connect(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let socket = socket::socket(AddressFamily::Unix, kind.raw(), SockFlag::SOCK_CLOEXEC, None)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// The next connection of a listening socket, closed on exec, blocking.
///
/// # Errors
/// accept4(2); `WouldBlock` when nobody waits
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    let fd = socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4 just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Which kind of listening socket is this? For descriptors that systemd passed.
///
/// # Errors
/// getsockopt(2)
pub fn kind(socket: &OwnedFd) -> io::Result<Kind> {
    match socket::getsockopt(socket, socket::sockopt::SockType)? {
        SockType::Stream => Ok(Kind::Stream),
        SockType::SeqPacket => Ok(Kind::Packet),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Sends one packet with descriptors. Does not raise SIGPIPE.
///
/// # Errors
/// sendmsg(2); `WouldBlock` on a non-blocking socket whose reader does not read
pub fn send(socket: &impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let fd = socket.as_fd().as_raw_fd();
    loop {
        match socket::sendmsg::<()>(fd, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::Error::EINTR) => {}
            Ok(sent) if sent != bytes.len() => return Err(io::ErrorKind::WriteZero.into()),
            result => return result.map(drop).map_err(Into::into),
        }
    }
}

/// Receives one packet into `buffer`: its length, and the descriptors that came with it, closed on exec. Length 0
/// is the end.
///
/// # Errors
/// recvmsg(2); `InvalidData` for a packet longer than the buffer or with too many descriptors (those that came
/// are closed); `WouldBlock`
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // By libc and not by nix, whose iterator gives up on a cut control message and so leaks what came with it.
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slice = IoSliceMut::new(buffer);
    // SAFETY: all zeros is a valid msghdr; the pointers set below outlive the call and match their lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = (&raw mut slice).cast();
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.capacity();
    let length = loop {
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: as above.
        match usize::try_from(unsafe { libc::recvmsg(fd, &raw mut header, libc::MSG_CMSG_CLOEXEC) }) {
            Ok(length) => break length,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: the kernel filled header and control; CMSG_* walk within msg_controllen, and each SCM_RIGHTS part
    // holds as many descriptors as its length says, just installed for us and known to nobody else.
    unsafe {
        let mut part = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(found) = part.as_ref() {
            if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(part).cast::<RawFd>();
                let count = (found.cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                descriptors
                    .extend((0..count).map(|index| OwnedFd::from_raw_fd(data.add(index).read_unaligned())));
            }
            part = libc::CMSG_NXTHDR(&raw const header, part);
        }
    }
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((length, descriptors))
}

/// Length of the packet that [`receive`] would take next, which stays where it is; 0 is the end. Waits for it
/// unless the socket is non-blocking.
///
/// # Errors
/// recv(2); `WouldBlock`
pub fn next_length(socket: &impl AsFd) -> io::Result<usize> {
    loop {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC;
        match socket::recv(socket.as_fd().as_raw_fd(), &mut [], flags) {
            Err(nix::Error::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Has the other side closed, with nothing left to read? Does not wait.
#[must_use]
pub fn has_ended(socket: &impl AsFd) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(socket::recv(socket.as_fd().as_raw_fd(), &mut [0], flags), Ok(0) | Err(nix::Error::ECONNRESET))
}

/// Reads and writes of this descriptor return `WouldBlock` instead of waiting. The flag belongs to the open file,
/// so it holds for every process that shares it.
///
/// # Errors
/// fcntl(2)
pub fn set_nonblocking(fd: &impl AsFd, nonblocking: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    fcntl(fd, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// `SO_PEERCRED`: who connected, as it was at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id, in our pid namespace; 0 if it has none there.
    pub pid: i32,
    /// Effective uid.
    pub uid: u32,
    /// Effective gid.
    pub gid: u32,
}

/// # Errors
/// getsockopt(2)
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<Credentials> {
    let found = socket::getsockopt(&socket.as_fd(), socket::sockopt::PeerCredentials)?;
    Ok(Credentials { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// `SO_PEERPIDFD` (Linux 6.5): the process that connected, whatever its pid means by now.
///
/// # Errors
/// getsockopt(2); `ENOPROTOOPT` on older kernels, `EINVAL` or `ESRCH` for a process that is gone
pub fn peer_pidfd(socket: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(socket::getsockopt(&socket.as_fd(), socket::sockopt::PeerPidfd)?)
}

/// `SO_PEERGROUPS` (Linux 4.13): the supplementary groups of the process that connected, all of them.
///
/// # Errors
/// getsockopt(2)
pub fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(&groups[..])).map_err(io::Error::other)?;
        // SAFETY: the pointer and the length describe the vector's own memory, and every bit pattern is a gid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        // The kernel says in `bytes` how much there is, also when it was too much.
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_carry_descriptors() {
        let (a, b) = pair().unwrap();
        let (c, d) = pair().unwrap();
        send(&a, b"x", &[c.as_fd()]).unwrap();
        drop(c);
        let mut buffer = [0; 8];
        let (length, got) = receive(&b, &mut buffer).unwrap();
        assert_eq!((length, got.len()), (1, 1));
        send(&got[0], b"through", &[]).unwrap();
        assert_eq!(receive(&d, &mut buffer).unwrap().0, 7);
        drop(a);
        assert_eq!(receive(&b, &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn listens_where_somebody_is_about_to_leave() {
        let path = std::env::temp_dir().join(format!("podsec-listen-{}", std::process::id()));
        let first = listen(&path, Kind::Packet, 0o600).unwrap();
        assert_eq!(listen(&path, Kind::Packet, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let leaving = std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(120));
            drop(first);
        });
        listen(&path, Kind::Packet, 0o600).unwrap();
        leaving.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn tells_an_end_from_silence() {
        let (a, b) = pair().unwrap();
        assert!(!has_ended(&b));
        send(&a, b"x", &[]).unwrap();
        drop(a);
        assert!(!has_ended(&b), "there is something to read");
        receive(&b, &mut [0; 8]).unwrap();
        assert!(has_ended(&b));
    }

    #[test]
    fn refuses_gifts_and_long_packets() {
        let (a, b) = pair().unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for _ in 0..50 {
            let gift = vec![a.as_fd(); 253];
            send(&a, b"x", &gift).unwrap();
            assert_eq!(receive(&b, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        // other tests open files too, but not fifty times four
        assert!(open() < before + 50, "{before} descriptors became {}", open());
        send(&a, b"0123456789", &[]).unwrap();
        assert_eq!(receive(&b, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn knows_the_peer() {
        let (a, _b) = pair().unwrap();
        let me = peer_credentials(&a).unwrap();
        assert_eq!(me.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(u32::try_from(me.pid).unwrap(), std::process::id());
        peer_groups(&a).unwrap();
    }
}
