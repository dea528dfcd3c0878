//! Small files, read and replaced so that nobody who owns the directory can make us wait, swallow or leave a half.
//!
//! Owns: bounded reads, replacement by rename, the lock of a directory. Must not: create directories, follow a link
//! in the last component.

use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The file's bytes, `None` where there is no file. At most `limit` of them: a longer file is an error.
///
/// # Errors
/// Not a regular file (a FIFO would block, a link would lead elsewhere), too long, or the system's reason.
pub fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(invalid("it is a symbolic link")),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(invalid("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(invalid(format!("it is longer than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Replaces `name` in the open directory: a reader sees the old file or the whole new one, also after a power cut.
///
/// The temporary name is fixed, so a crash leaves at most one; callers that may run twice hold [`lock`].
///
/// # Errors
/// The system's reason; the old file is then untouched.
pub fn replace(directory: &OwnedFd, name: &str, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let temporary = format!(".{name}.new");
    unlink(directory, &temporary)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(directory, &temporary, flags, mode)?);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written {
        unlink(directory, &temporary)?;
        return Err(error);
    }
    fs::renameat(directory, &temporary, directory, name)?;
    fs::fsync(directory)?;
    Ok(())
}

/// Removes `name` from the open directory; that it was not there is fine.
///
/// # Errors
/// The system's reason.
pub fn unlink(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory to work in.
///
/// # Errors
/// The system's reason.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Takes the directory's own flock(2), so there is no lock file to be left behind. Gone with the returned descriptor.
///
/// # Errors
/// `TimedOut` when somebody holds it all the while; the system's reason.
pub fn lock(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let directory = directory(path)?;
    let start = Instant::now();
    loop {
        match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own for one test, gone with it.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("podsec-u7s-test-{}-{number}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
        pub(crate) fn put(&self, name: &str, text: &str) {
            replace(&directory(&self.0).unwrap(), name, text.as_bytes(), Mode::from_raw_mode(0o644)).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn replaces_whole_files_and_leaves_no_other() {
        let scratch = Scratch::new();
        scratch.put("a", "one");
        scratch.put("a", "two");
        assert_eq!(read(&scratch.0.join("a"), 3).unwrap().unwrap(), b"two");
        assert_eq!(std::fs::metadata(scratch.0.join("a")).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1);
        assert!(read(&scratch.0.join("missing"), 3).unwrap().is_none());
    }

    #[test]
    fn a_crash_between_write_and_rename_does_not_stop_the_next() {
        let scratch = Scratch::new();
        // What a crash leaves; planted as a link, as somebody hostile would.
        symlink("/etc/hostname", scratch.0.join(".a.new")).unwrap();
        scratch.put("a", "new");
        assert_eq!(read(&scratch.0.join("a"), 3).unwrap().unwrap(), b"new");
        assert!(!scratch.0.join(".a.new").exists());
    }

    #[test]
    fn reads_only_small_regular_files() {
        let scratch = Scratch::new();
        scratch.put("long", "12345");
        assert!(read(&scratch.0.join("long"), 4).unwrap_err().to_string().contains("longer than 4"));
        symlink("long", scratch.0.join("link")).unwrap();
        assert!(read(&scratch.0.join("link"), 9).unwrap_err().to_string().contains("symbolic link"));
        let fifo = scratch.0.join("fifo");
        fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(read(&fifo, 9).unwrap_err().to_string().contains("not a regular"));
        assert!(read(&scratch.0, 9).is_err());
    }

    #[test]
    fn a_held_lock_is_waited_for_but_not_for_ever() {
        let scratch = Scratch::new();
        let held = lock(&scratch.0, Duration::ZERO).unwrap();
        let start = Instant::now();
        let error = lock(&scratch.0, Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        drop(held);
        lock(&scratch.0, Duration::ZERO).unwrap();
    }
}
