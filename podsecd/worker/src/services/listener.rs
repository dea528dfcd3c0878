//! Who listens on which port of the host, and how much is in a directory: what a status needs to look at.

use podsec_sys::nix::unistd::{Uid, User};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Whose program made it.
    pub uid: u32,
}

/// All of the host's. Of process 1, since podsecd itself has no network.
pub fn listeners() -> Vec<Listener> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/1/net").join(name)).unwrap_or_default();
    [read("tcp"), read("tcp6")].iter().flat_map(|table| table.lines().filter_map(listener)).collect()
}

/// Has the host IPv6 at all?
pub fn has_ipv6() -> bool {
    Path::new("/proc/1/net/if_inet6").exists()
}

/// A line of `/proc/net/tcp` or `tcp6` (proc_pid_net(5)): number, local address, remote address, state, three more, uid.
/// Addresses are in words of the machine's own byte order.
fn listener(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, uid) = (fields.get(1)?, fields.get(3)?, fields.get(7)?);
    let (address, port) = local.split_once(':')?;
    if *state != LISTEN {
        return None;
    }
    let word = |index: usize| {
        let digits = address.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener { address: SocketAddr::new(ip, port), uid: uid.parse().ok()? })
}

/// The first of somebody else that stands in the way. One on all addresses stands in everybody's: `::` takes IPv4, too,
/// unless its program said otherwise, which nobody sees from outside.
pub fn conflict(all: &[Listener], own: u32, wanted: &[SocketAddr]) -> Option<Listener> {
    let meets = |a: &SocketAddr, b: &SocketAddr| {
        a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    };
    let other = all.iter().filter(|listener| listener.uid != own);
    other.copied().find(|listener| wanted.iter().any(|socket| meets(&listener.address, socket)))
}

/// For a person.
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
}

/// Bytes of all files below it, as far as they can be counted in a moment.
pub fn size(directory: &Path) -> u64 {
    const PATIENCE: Duration = Duration::from_secs(3);
    let end = Instant::now() + PATIENCE;
    let mut left: Vec<PathBuf> = vec![directory.into()];
    let mut size = 0_u64;
    while let Some(directory) = left.pop()
        && Instant::now() < end
    {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            // Of the entry itself, so no link is followed.
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                left.push(entry.path());
            } else if meta.is_file() {
                size = size.saturating_add(meta.len());
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_of_proc() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 1 1 0";
        assert_eq!(listener(line), Some(Listener { address: "127.0.0.1:8080".parse().unwrap(), uid: 101 }));
        let line = "   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1";
        assert_eq!(listener(line), Some(Listener { address: "[::1]:443".parse().unwrap(), uid: 0 }));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None, "connected");
        for bad in [
            "",
            "  sl  local_address rem_address   st",
            "0: 7F:1 0:0 0A 0 0 0 0",
            "0: 0100007F:1F90 x 0A 0 0 0 x",
        ] {
            assert_eq!(listener(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_stands_in_the_way() {
        let at = |address: &str, uid| Listener { address: address.parse().unwrap(), uid };
        let wanted = |address: &str| [address.parse().unwrap()];
        for (there, uid, address, meets) in [
            ("0.0.0.0:443", 0, "0.0.0.0:443", true),
            ("0.0.0.0:443", 0, "127.0.0.1:443", true),
            ("[::]:443", 0, "127.0.0.1:443", true),
            ("10.0.0.1:443", 0, "0.0.0.0:443", true),
            ("10.0.0.1:443", 0, "10.0.0.2:443", false),
            ("10.0.0.1:443", 0, "10.0.0.1:444", false),
            ("0.0.0.0:443", 7, "0.0.0.0:443", false),
        ] {
            let found = conflict(&[at(there, uid)], 7, &wanted(address));
            assert_eq!(found.is_some(), meets, "{there} of {uid}, {address}");
        }
    }
}
