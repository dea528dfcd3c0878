//! Files in directories that somebody else may write.

use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
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
    put(path, bytes, mode, |temporary| std::fs::rename(temporary, path).map(|()| true)).map(drop)
}

/// The same for a file that others replace too: only if it is still what it `was` (none: not there); if not, nothing is
/// done. The two change places and the old one is looked at then, so whoever comes in between loses nothing.
///
/// # Errors
/// as [`replace`], renameat2(2)
pub fn replace_if(path: &Path, bytes: &[u8], mode: u32, was: Option<&[u8]>) -> io::Result<bool> {
    let here = nix::fcntl::AT_FDCWD;
    let rename = |from: &Path, flags| renameat2(here, from, here, path, flags);
    put(path, bytes, mode, |temporary| {
        let Some(was) = was else {
            return match rename(temporary, RenameFlags::RENAME_NOREPLACE) {
                Err(nix::Error::EEXIST) => Ok(false),
                done => Ok(done.map(|()| true)?),
            };
        };
        match rename(temporary, RenameFlags::RENAME_EXCHANGE) {
            Err(nix::Error::ENOENT) => return Ok(false),
            done => done?,
        }
        let same = std::fs::read(temporary)? == was;
        if !same {
            rename(temporary, RenameFlags::RENAME_EXCHANGE)?;
        }
        Ok(same)
    })
}

/// Writes the new file beside the other one and lets it be put in its place: was it?
fn put(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    place: impl FnOnce(&Path) -> io::Result<bool>,
) -> io::Result<bool> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let remove = || match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove()?;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary)?;
    // Whatever the umask: who shall read it is the caller's to say.
    let open = file.set_permissions(std::fs::Permissions::from_mode(mode));
    let written = open.and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    let placed = written.and_then(|()| place(temporary));
    // Either the new one that was not wanted or the old one.
    let removed = remove();
    let placed = placed?;
    removed?;
    File::open(directory)?.sync_all()?;
    Ok(placed)
}

/// Waits for a lock that only podsec's own processes take (flock(2)); it ends with the descriptor.
///
/// # Errors
/// open(2), flock(2)
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// A directory that is held open, so that no name on the way to it can be swapped any more.
#[derive(Debug)]
pub struct Directory(OwnedFd);

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Directory {
    /// Of the host's: no symbolic link on its path.
    ///
    /// # Errors
    /// openat2(2)
    pub fn open(path: &Path) -> io::Result<Self> {
        let how = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(Self(openat2(nix::fcntl::AT_FDCWD, path, how)?))
    }

    /// Something below it, on the same file system, without symbolic links.
    ///
    /// # Errors
    /// openat2(2)
    pub fn open_beneath(&self, path: &Path, flags: OFlag, mode: u32) -> io::Result<File> {
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(resolve);
        Ok(openat2(&self.0, path, how)?.into())
    }

    /// A directory below it.
    ///
    /// # Errors
    /// as [`Directory::open_beneath`]
    pub fn directory(&self, path: &Path) -> io::Result<Self> {
        Ok(Self(self.open_beneath(path, DIRECTORY, 0)?.into()))
    }

    /// What is known of it.
    ///
    /// # Errors
    /// fstat(2)
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        File::from(self.0.try_clone()?).metadata()
    }

    /// Makes a directory in it.
    ///
    /// # Errors
    /// mkdirat(2)
    pub fn make(&self, name: &str, mode: u32) -> io::Result<Self> {
        nix::sys::stat::mkdirat(&self.0, name, Mode::from_bits_truncate(mode))?;
        self.directory(Path::new(name))
    }

    /// The directory of that name in it, made where there is none.
    ///
    /// # Errors
    /// mkdirat(2), openat2(2)
    pub fn open_or_make(&self, name: &str, mode: u32) -> io::Result<Self> {
        match self.make(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.directory(Path::new(name)),
            made => made,
        }
    }

    /// Removes all that is in it; as [`Directory::remove_tree`].
    ///
    /// # Errors
    /// as that; a name that is no UTF-8
    pub fn empty(&self) -> io::Result<()> {
        for name in self.names()? {
            self.remove_tree(name.to_str().map_err(io::Error::other)?)?;
        }
        Ok(())
    }

    /// Makes a file in it that was not there, with that in it.
    ///
    /// # Errors
    /// openat2(2), write(2)
    pub fn make_file(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<File> {
        use std::io::Write as _;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = self.open_beneath(Path::new(name), flags, mode)?;
        file.write_all(bytes)?;
        Ok(file)
    }

    /// Makes a symbolic link in it that was not there.
    ///
    /// # Errors
    /// symlinkat(2)
    pub fn make_link(&self, name: &str, target: &Path) -> io::Result<()> {
        Ok(nix::unistd::symlinkat(target, &self.0, name)?)
    }

    /// Where a symbolic link in it leads.
    ///
    /// # Errors
    /// readlinkat(2)
    pub fn read_link(&self, name: &str) -> io::Result<std::path::PathBuf> {
        Ok(nix::fcntl::readlinkat(&self.0, name)?.into())
    }

    /// Gives it to somebody.
    ///
    /// # Errors
    /// fchown(2), fchmod(2)
    pub fn give(&self, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        // The mode first: afterwards it is somebody else's, and may take CAP_FOWNER.
        nix::sys::stat::fchmod(&self.0, Mode::from_bits_truncate(mode))?;
        Ok(nix::unistd::fchown(&self.0, Some(uid.into()), Some(gid.into()))?)
    }

    /// Names in it.
    ///
    /// # Errors
    /// getdents(2)
    pub fn names(&self) -> io::Result<Vec<CString>> {
        let mut dir = nix::dir::Dir::openat(&self.0, ".", DIRECTORY, Mode::empty())?;
        let names = dir.iter().map(|entry| Ok(entry?.file_name().to_owned()));
        let names: io::Result<Vec<CString>> = names.collect();
        Ok(names?.into_iter().filter(|name| ![&b"."[..], b".."].contains(&name.to_bytes())).collect())
    }

    /// Removes a name in it, and all that is below, immutable or not. Another file system that is mounted there stays, and
    /// is an error. However deep the tree, two directories are open: what is found in one below comes up first.
    ///
    /// # Errors
    /// unlinkat(2), renameat(2)
    pub fn remove_tree(&self, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        if self.unlink(&name)? {
            return Ok(());
        }
        let top = self.below(&name)?;
        let mut moved = 0_u64;
        loop {
            let names = top.names()?;
            if names.is_empty() {
                return self.remove(&name, UnlinkatFlags::RemoveDir);
            }
            for name in names {
                if top.unlink(&name)? {
                    continue;
                }
                let below = top.below(&name)?;
                for inner in below.names()? {
                    while !below.unlink(&inner)? {
                        moved += 1;
                        let (free, flags) = (format!("{moved}"), RenameFlags::RENAME_NOREPLACE);
                        below.release(&inner);
                        match renameat2(&below.0, inner.as_c_str(), &top.0, free.as_str(), flags) {
                            Ok(()) => break,
                            Err(nix::Error::EEXIST) => {}
                            Err(error) => return Err(error.into()),
                        }
                    }
                }
                top.remove(&name, UnlinkatFlags::RemoveDir)?;
            }
        }
    }

    fn below(&self, name: &CStr) -> io::Result<Self> {
        self.directory(Path::new(OsStr::from_bytes(name.to_bytes())))
    }

    /// False: it is a directory.
    fn unlink(&self, name: &CStr) -> io::Result<bool> {
        match self.remove(name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, name: &CStr, flags: UnlinkatFlags) -> io::Result<()> {
        match unlinkat(&self.0, name, flags) {
            Err(nix::Error::EPERM) => {
                self.release(name);
                Ok(unlinkat(&self.0, name, flags)?)
            }
            result => Ok(result?),
        }
    }

    /// Takes the attribute `i` from it and from a name in it, as far as they have it.
    fn release(&self, name: &CStr) {
        let _ = set_immutable(self, false);
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        let _ = self.open_beneath(path, OFlag::O_RDONLY, 0).and_then(|file| set_immutable(&file, false));
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

mod flags {
    nix::ioctl_read_bad!(get, libc::FS_IOC_GETFLAGS, libc::c_int);
    nix::ioctl_write_ptr_bad!(set, libc::FS_IOC_SETFLAGS, libc::c_int);
    /// `FS_IMMUTABLE_FL`, include/uapi/linux/fs.h
    pub(super) const IMMUTABLE: libc::c_int = 0x10;
}

/// Has it the attribute `i` of chattr(1)?
///
/// # Errors
/// ioctl_iflags(2); `Unsupported` where the file system has no attributes
pub fn is_immutable(file: &impl AsFd) -> io::Result<bool> {
    Ok(attributes(file)? & flags::IMMUTABLE != 0)
}

fn attributes(file: &impl AsFd) -> io::Result<libc::c_int> {
    let mut all = 0;
    // SAFETY: the kernel writes an int.
    match unsafe { flags::get(file.as_fd().as_raw_fd(), &raw mut all) } {
        Ok(_) => Ok(all),
        Err(nix::Error::ENOTTY | nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => {
            Err(io::ErrorKind::Unsupported.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives or takes the attribute `i`; needs `CAP_LINUX_IMMUTABLE`.
///
/// # Errors
/// as [`is_immutable`]
pub fn set_immutable(file: &impl AsFd, immutable: bool) -> io::Result<()> {
    let now = attributes(file)?;
    let then = if immutable { now | flags::IMMUTABLE } else { now & !flags::IMMUTABLE };
    if then == now {
        return Ok(());
    }
    // SAFETY: the kernel reads an int.
    match unsafe { flags::set(file.as_fd().as_raw_fd(), &raw const then) } {
        Ok(_) => Ok(()),
        Err(nix::Error::ENOTTY | nix::Error::EOPNOTSUPP) => Err(io::ErrorKind::Unsupported.into()),
        Err(error) => Err(error.into()),
    }
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

    #[test]
    fn what_others_replaced_meanwhile_stays() {
        let path = std::env::temp_dir().join(format!("podsec-replace-{}", std::process::id()));
        replace(&path, b"old", 0o600).unwrap();
        for was in [None, Some(&b"older"[..])] {
            assert!(!replace_if(&path, b"new", 0o600, was).unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), b"old");
            assert!(!path.with_extension("new").exists());
        }
        assert!(replace_if(&path, b"new", 0o600, Some(b"old")).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        std::fs::remove_file(&path).unwrap();
        assert!(!replace_if(&path, b"new", 0o600, Some(b"old")).unwrap());
        assert!(!path.exists());
        assert!(replace_if(&path, b"new", 0o600, None).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        std::fs::remove_file(&path).unwrap();
    }

    fn unfit(result: Result<Vec<u8>, FileError>) -> &'static str {
        match result {
            Err(FileError::Unfit(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tree_is_removed_however_deep() {
        let base = std::env::temp_dir().join(format!("podsec-tree-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let outside = base.join("outside");
        File::create(&outside).unwrap();
        let at = Directory::open(&base).unwrap();
        let mut deep = at.make("tree", 0o700).unwrap();
        for level in 0..2000 {
            deep.make_file("file", b"", 0o600).unwrap();
            std::os::unix::fs::symlink(&outside, base.join("tree").join(format!("link{level}"))).unwrap();
            deep = deep.make("1", 0o700).unwrap();
        }
        at.remove_tree("tree").unwrap();
        at.remove_tree("tree").unwrap();
        assert_eq!(at.names().unwrap(), [CString::new("outside").unwrap()]);
        at.remove_tree("outside").unwrap();
        std::fs::remove_dir(&base).unwrap();
    }

    #[test]
    fn nothing_beneath_leads_out() {
        let base = std::env::temp_dir().join(format!("podsec-beneath-{}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        let at = Directory::open(&base).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("link")).unwrap();
        for path in ["link", "link/passwd", "../x", "/etc"] {
            assert!(at.open_beneath(Path::new(path), OFlag::O_RDONLY, 0).is_err(), "{path}");
        }
        assert!(at.make_file("link", b"", 0o600).is_err());
        assert!(Directory::open(&base.join("link")).is_err());
        std::fs::remove_dir_all(&base).unwrap();
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
