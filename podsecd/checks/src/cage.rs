//! What each process of a watcher can still do once it has begun: its rights are as its own module says, and in any case it
//! runs no program, starts no process, reaches nobody and looks into nobody's memory.

use landlock::{Access as _, AccessFs};
use podsec_cage::walls::{self, ALONE, NEVER, NEWEST};
use podsec_sys::credentials;
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use std::path::Path;

/// Beside what nobody in a cage has need of.
const FORBIDDEN: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_socketpair,
];

/// Which files it reaches.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// Directories, to look where they are.
    Directories,
    /// What the user that it has become reads.
    Read,
    /// This directory alone, to read and write.
    Own(&'a Path),
}

/// Shuts this process in, for good. `memory` is what it may allocate, in bytes.
///
/// # Errors
/// says which wall could not be built
pub fn shut(files: Files<'_>, memory: u64) -> Result<(), String> {
    credentials::no_new_privileges().map_err(|error| format!("no new privileges: {error}"))?;
    for (resource, most) in [(Resource::RLIMIT_DATA, memory), (Resource::RLIMIT_CORE, 0)] {
        setrlimit(resource, most, most).map_err(|error| format!("limits: {error}"))?;
    }
    let all = Path::new("/");
    walls::close(&[match files {
        Files::Directories => (all, AccessFs::ReadDir.into()),
        Files::Read => (all, AccessFs::ReadDir | AccessFs::ReadFile),
        Files::Own(path) => (path, AccessFs::from_all(NEWEST) & !AccessFs::Execute),
    }])?;
    let filter = walls::filter(walls::refused(&[NEVER, ALONE, FORBIDDEN]), libc::EPERM)?;
    seccompiler::apply_filter(&filter).map_err(|error| format!("seccomp: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::process::in_child;
    use std::time::Duration;

    #[test]
    fn it_reaches_what_it_needs_and_nothing_else() {
        let own = std::env::temp_dir().join(format!("podsec-watch-cage-{}", std::process::id()));
        std::fs::create_dir(&own).unwrap();
        let tried = |files: Files<'_>| {
            let said = in_child(Duration::from_secs(10), || {
                if let Err(error) = shut(files, 256 << 20) {
                    return error.into_bytes();
                }
                let did = [
                    std::fs::read_dir("/usr").is_ok(),
                    std::fs::read("/etc/passwd").is_ok(),
                    std::fs::File::create(own.join("x")).is_ok(),
                    std::fs::File::create("/tmp/podsec-watch-cage").is_ok(),
                    podsec_sys::program::run(Path::new("/usr/bin/true"), &[]).is_ok(),
                    std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                    std::os::unix::net::UnixStream::connect("/run/x").is_ok(),
                    podsec_sys::socket::pair().is_ok(),
                    std::thread::Builder::new().spawn(|| ()).is_ok(),
                ];
                did.map(|did| b'0' + u8::from(did)).to_vec()
            });
            String::from_utf8(said.unwrap()).unwrap()
        };
        assert_eq!(tried(Files::Directories), "100000000");
        assert_eq!(tried(Files::Read), "110000000");
        assert_eq!(tried(Files::Own(&own)), "001000000");
        std::fs::remove_dir_all(&own).unwrap();
    }
}
