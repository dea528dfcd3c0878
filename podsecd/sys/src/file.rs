//! Files in directories that somebody else may write.

use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Why a file is not taken.
#[derive(Debug)]
pub enum FileError {
    /// Nothing there.
    Absent,
    /// Something else than a plain file of that owner with one name, or too long.
    Unfit(&'static str),
    /// The kernel's word.
    Io(io::Error),
}

/// Reads a short file of `owner`, in a tree where every name may be a trap: no symbolic link anywhere on the path
/// (openat2(2)), no waiting on a FIFO, no device, no hard link to somebody else's file.
///
/// # Errors
/// [`FileError`]
pub fn read_small(path: &Path, owner: u32, limit: usize) -> Result<Vec<u8>, FileError> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // An absolute path: the directory descriptor is not used.
    let file = match openat2(nix::fcntl::AT_FDCWD, path, how) {
        Ok(fd) => File::from(fd),
        Err(nix::Error::ENOENT) => return Err(FileError::Absent),
        Err(nix::Error::ELOOP) => return Err(FileError::Unfit("a symbolic link is on its path")),
        Err(nix::Error::ENXIO) => return Err(FileError::Unfit("not a plain file")),
        Err(error) => return Err(FileError::Io(error.into())),
    };
    let meta = file.metadata().map_err(FileError::Io)?;
    if !meta.is_file() {
        return Err(FileError::Unfit("not a plain file"));
    }
    if meta.uid() != owner {
        return Err(FileError::Unfit("owned by somebody else"));
    }
    if meta.nlink() != 1 {
        return Err(FileError::Unfit("has a second name"));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(FileError::Io)?;
    if bytes.len() > limit {
        return Err(FileError::Unfit("too long"));
    }
    Ok(bytes)
}

/// Replaces a file of ours as a whole: a temporary file in the same directory, flushed, renamed over it, the
/// directory flushed. Readers see the old or the new one.
///
/// # Errors
/// open(2), write(2), fsync(2), rename(2)
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(temporary, path)) {
        let _ = std::fs::remove_file(temporary);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

/// Is the directory's owner this uid? For a cgroup: was it delegated to him?
#[must_use]
pub fn is_owned_by(path: &Path, uid: u32) -> bool {
    nix::sys::stat::fstatat(nix::fcntl::AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| stat.st_uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unfit(result: Result<Vec<u8>, FileError>) -> &'static str {
        match result {
            Err(FileError::Unfit(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_only_plain_files() {
        let base = std::env::temp_dir().join(format!("podsec-file-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let at = |name: &str| base.join(name);
        replace(&at("good"), b"12345", 0o600).unwrap();
        assert_eq!(read_small(&at("good"), me, 5).unwrap(), b"12345");
        assert_eq!(unfit(read_small(&at("good"), me, 4)), "too long");
        assert_eq!(unfit(read_small(&at("good"), me + 1, 5)), "owned by somebody else");
        assert!(matches!(read_small(&at("none"), me, 5), Err(FileError::Absent)));
        std::os::unix::fs::symlink("good", at("link")).unwrap();
        assert_eq!(unfit(read_small(&at("link"), me, 5)), "a symbolic link is on its path");
        std::os::unix::fs::symlink(&base, at("dirlink")).unwrap();
        assert_eq!(unfit(read_small(&at("dirlink").join("good"), me, 5)), "a symbolic link is on its path");
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(unfit(read_small(&at("fifo"), me, 5)), "not a plain file");
        assert_eq!(unfit(read_small(&base, me, 5)), "not a plain file");
        std::fs::hard_link(at("good"), at("second")).unwrap();
        assert_eq!(unfit(read_small(&at("good"), me, 5)), "has a second name");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
