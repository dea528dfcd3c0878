//! A process that may only compute: for gpg and its like, which parse what a stranger sent (their parsers, like everybody's
//! for OpenPGP, have had their advisories). Another user, no way to gain rights, the programs and libraries of the host to
//! read, one directory of its own to write, no socket, no other process to look at, little memory and time. And what is done
//! in it for images: signatures are verified ([`openpgp`], [`sigstore`]), and what they sign is read ([`payload`]).
//!
//! Must not: become that user, which takes rights; decide whose key counts for what.

#![forbid(unsafe_code)]

pub mod openpgp;
pub mod payload;
pub mod sigstore;
pub mod walls;

use landlock::{Access as _, AccessFs};
use podsec_sys::credentials;
use podsec_sys::file::Directory;
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use std::io;
use std::path::Path;
use walls::{NEVER, NEWEST};

/// What programs of the distribution need to start.
const READABLE: [&str; 7] =
    ["/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"];

/// Bytes of the largest file that is written there.
const LARGEST: u64 = 16 << 20;

/// Shuts this process in, with that directory to write, which is empty before and after, and lets it work. For one that is
/// the other user already, and ends with what this says.
///
/// # Errors
/// what `work` says; which wall could not be built
pub fn work<T>(directory: &Path, work: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    empty(directory).map_err(|error| error.to_string())?;
    shut(directory)?;
    let said = work(directory);
    let _ = empty(directory);
    said
}

fn empty(directory: &Path) -> io::Result<()> {
    Directory::open(directory)?.empty()
}

/// Shuts this process and whatever it starts in, for good. It is the other user already.
///
/// # Errors
/// says which wall could not be built; nothing may be parsed then
pub fn shut(writable: &Path) -> Result<(), String> {
    credentials::no_new_privileges().map_err(|error| error.to_string())?;
    for (resource, most) in [
        (Resource::RLIMIT_CPU, 10),
        (Resource::RLIMIT_AS, 512 << 20),
        (Resource::RLIMIT_FSIZE, LARGEST),
        (Resource::RLIMIT_NOFILE, 64),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most).map_err(|error| error.to_string())?;
    }
    close_file_system(writable)?;
    filter_calls().map_err(|error| error.to_string())
}

fn close_file_system(writable: &Path) -> Result<(), String> {
    let (read, all) = (AccessFs::from_read(NEWEST), AccessFs::from_all(NEWEST));
    let readable = READABLE.iter().map(|path| (Path::new(path), read));
    walls::close(&readable.chain([(writable, all)]).collect::<Vec<_>>())
}

/// Nobody can be reached: gpg looks for its agent, and must find that there is none.
fn filter_calls() -> Result<(), Box<dyn std::error::Error>> {
    let mut forbidden = walls::refused(&[NEVER, &[libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_sendmmsg]]);
    let family = libc::AF_UNIX.unsigned_abs().into();
    let other = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)?;
    forbidden.insert(libc::SYS_socket, vec![SeccompRule::new(vec![other])?]);
    let unreachable = walls::refused(&[&[libc::SYS_connect]]);
    for (rules, error) in [(forbidden, libc::EPERM), (unreachable, libc::ECONNREFUSED)] {
        seccompiler::apply_filter(&walls::filter(rules, error)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::process::in_child;
    use std::time::Duration;

    /// Tries it in a copy of this process.
    fn inside(work: fn(&Path) -> String) -> String {
        let own = std::env::temp_dir().join(format!("podsec-cage-{}-{}", std::process::id(), work as usize));
        std::fs::create_dir(&own).unwrap();
        let said = in_child(Duration::from_secs(10), || match shut(&own) {
            Ok(()) => work(&own).into_bytes(),
            Err(error) => format!("not shut: {error}").into_bytes(),
        });
        std::fs::remove_dir_all(&own).unwrap();
        String::from_utf8(said.unwrap()).unwrap()
    }

    #[test]
    fn it_can_compute_and_write_there() {
        let said = inside(|own| {
            let written = std::fs::File::create_new(own.join("x")).is_ok();
            let ran = podsec_sys::program::run(Path::new("/usr/bin/true"), &[]).is_ok();
            format!("{written} {ran}")
        });
        assert_eq!(said, "true true");
    }

    #[test]
    fn and_nothing_else() {
        let said = inside(|_| {
            let tries = [
                std::fs::read("/etc/passwd").is_ok(),
                std::fs::File::create_new("/tmp/podsec-cage-escape").is_ok(),
                std::fs::read_dir("/home").is_ok(),
                std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                std::os::unix::net::UnixStream::connect("/run/podsec/podsecd.sock").is_ok(),
                std::os::unix::net::UnixDatagram::bind("/tmp/podsec-cage-socket").is_ok(),
                podsec_sys::nix::sched::unshare(podsec_sys::nix::sched::CloneFlags::CLONE_NEWUSER).is_ok(),
                podsec_sys::program::run(Path::new("/usr/bin/cat"), &["/etc/hostname"]).is_ok(),
            ];
            format!("{tries:?}")
        });
        assert_eq!(said, format!("{:?}", [false; 8]));
    }
}
