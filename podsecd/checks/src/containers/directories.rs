//! Which directory a handle is: asked of the kernel once, remembered until some directory is moved.
//!
//! Must not: open anything but directories, and those as places only.

use super::message::LONGEST_PATH;
use super::place::{Place, place};
use podsec_sys::fanotify::{self, Group, Handle};
use podsec_sys::nix::errno::Errno;
use podsec_sys::nix::fcntl::{OFlag, openat, readlink};
use podsec_sys::nix::sys::stat::{Mode, fstat};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::rc::Rc;

/// Directories that are remembered, and bytes of their paths.
const MOST_REMEMBERED: usize = 65_536;
const MOST_BYTES: usize = 8 << 20;
const DELETED: &[u8] = b" (deleted)";

/// A directory in a store.
#[derive(Clone, Debug)]
pub struct Directory {
    pub store: u32,
    /// Below the store's root.
    pub path: Rc<[u8]>,
    /// Which part of the store that is.
    pub place: Place,
}

/// What is known of a directory.
#[derive(Clone, Debug)]
pub enum Where {
    Elsewhere,
    In(Directory),
    /// Removed, and nobody knows where it was.
    Vanished,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Directories {
    /// One open directory for each mount, by its number, of each file system that is marked.
    mounts: HashMap<Vec<u8>, Vec<(i32, OwnedFd)>>,
    /// Of stores, by their numbers.
    roots: BTreeMap<u32, Vec<u8>>,
    remembered: HashMap<Box<[u8]>, Where>,
    bytes: usize,
}

impl Directories {
    /// Marks the file system of a directory, unless it is, and makes sure that its handles can be opened.
    pub fn mark(&mut self, group: &Group, directory: OwnedFd) -> io::Result<()> {
        let (handle, mount) = fanotify::handle_of(directory.as_fd())?;
        let handle = fanotify::handle(&handle).ok_or(io::ErrorKind::InvalidData)?;
        let known = self.mounts.get(handle.file_system());
        if known.is_some_and(|mounts| mounts.iter().any(|(number, _)| *number == mount)) {
            return Ok(());
        }
        handle.open(directory.as_fd())?;
        if known.is_none() {
            let number = group.mark(directory.as_fd())?;
            if number != handle.file_system() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let key = handle.file_system().to_vec();
        self.mounts.entry(key).or_default().push((mount, directory));
        Ok(())
    }

    /// A store is there.
    pub fn add(&mut self, store: u32, root: &str) {
        self.roots.insert(store, root.as_bytes().to_vec());
        self.forget();
    }

    /// It is there no more.
    pub fn remove(&mut self, store: u32) {
        self.roots.remove(&store);
        self.forget();
    }

    /// One that is made or moved below another one.
    pub fn remember_child(&mut self, parent: &Directory, name: &[u8], child: Handle<'_>) {
        let path = join(&parent.path, name);
        let directory = Directory { store: parent.store, place: place(&path), path: path.into() };
        self.remember(child, Where::In(directory));
    }

    /// One that is removed, or made where nothing is looked for.
    pub fn forget_one(&mut self, directory: Handle<'_>) {
        self.remembered.remove(directory.bytes());
    }

    /// All but what is watched.
    pub fn forget(&mut self) {
        self.remembered.clear();
        self.bytes = 0;
    }

    fn remember(&mut self, handle: Handle<'_>, place: Where) {
        let bytes = match &place {
            Where::In(directory) => directory.path.len(),
            _ => 0,
        };
        if self.remembered.len() >= MOST_REMEMBERED || self.bytes + bytes > MOST_BYTES {
            self.forget();
        }
        self.bytes += bytes;
        self.remembered.insert(handle.bytes().into(), place);
    }

    /// Where it is.
    pub fn find(&mut self, handle: Handle<'_>) -> Where {
        if let Some(place) = self.remembered.get(handle.bytes()) {
            return place.clone();
        }
        let place = self.resolve(handle);
        if !matches!(place, Where::Vanished) {
            self.remember(handle, place.clone());
        }
        place
    }

    /// Asks the kernel: through each mount of its file system, since another one may show another part of it.
    fn resolve(&self, handle: Handle<'_>) -> Where {
        let mut found = Where::Vanished;
        for (_, mount) in self.mounts.get(handle.file_system()).into_iter().flatten() {
            let Ok(directory) = handle.open(mount.as_fd()) else { continue };
            match path_of(directory.as_fd()).and_then(|path| self.in_a_store(&path)) {
                Some(directory) => return Where::In(directory),
                None => found = Where::Elsewhere,
            }
        }
        found
    }

    /// The store with the longest root above it.
    fn in_a_store(&self, path: &[u8]) -> Option<Directory> {
        let below = |root: &[u8]| match path.strip_prefix(root) {
            Some([]) => Some(path.len()),
            Some([b'/', ..]) => Some(root.len() + 1),
            _ => None,
        };
        let found = self.roots.iter().filter_map(|(number, root)| Some((below(root)?, *number)));
        let (at, store) = found.max()?;
        let path = path.get(at..)?;
        Some(Directory { store, path: path.into(), place: place(path) })
    }
}

/// Not longer than is of use to anybody, however deep somebody goes.
fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    if joined.len() + name.len() > LONGEST_PATH {
        joined.truncate(LONGEST_PATH - 5);
        let cut: &[u8] = "/…".as_bytes();
        if !joined.ends_with(cut) {
            joined.extend(cut);
        }
    } else {
        joined.extend(name);
    }
    joined
}

/// Of an open directory, as this process sees it. Of one that is deeper than a path may be long, that of one above it.
fn path_of(directory: BorrowedFd<'_>) -> Option<Vec<u8>> {
    const UP: &str = "../../../../../../../../../../../../../../../../";
    let link = |fd: BorrowedFd<'_>| readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str());
    let mut above: Option<OwnedFd> = None;
    for _ in 0..10_000 {
        let here = above.as_ref().map_or(directory, |fd| fd.as_fd());
        match link(here) {
            Ok(path) => {
                let mut path = path.into_vec();
                if path.ends_with(DELETED) && fstat(here).is_ok_and(|stat| stat.st_nlink == 0) {
                    path.truncate(path.len() - DELETED.len());
                }
                if above.is_some() || path.len() > LONGEST_PATH {
                    path.truncate(LONGEST_PATH);
                    path = join(&path, &[b'x'; LONGEST_PATH]);
                }
                return Some(path);
            }
            Err(Errno::ENAMETOOLONG) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                above = Some(openat(here, UP, flags, Mode::empty()).ok()?);
            }
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

    #[test]
    fn paths_do_not_grow_without_end() {
        let mut path = b"overlay/x/diff".to_vec();
        for _ in 0..10_000 {
            path = join(&path, b"0123456789");
            assert!(path.len() <= LONGEST_PATH);
        }
        assert!(path.starts_with(b"overlay/x/diff/0123456789/") && path.ends_with("/…".as_bytes()));
        assert_eq!(join(b"", b"a"), b"a");
        assert_eq!(join(b"a", b"b\xff"), b"a/b\xff");
    }

    #[test]
    fn the_path_of_a_directory_deeper_than_paths_are_long() {
        let here = format!("/dev/shm/podsec-deep-{}", std::process::id());
        std::fs::create_dir(&here).unwrap();
        let mut directory: OwnedFd = std::fs::File::open(&here).unwrap().into();
        let name = "d".repeat(200);
        for _ in 0..40 {
            podsec_sys::nix::sys::stat::mkdirat(&directory, name.as_str(), Mode::S_IRWXU).unwrap();
            directory = openat(&directory, name.as_str(), DIRECTORY, Mode::empty()).unwrap();
        }
        let path = path_of(directory.as_fd()).unwrap();
        assert!(path.starts_with(here.as_bytes()) && path.len() <= LONGEST_PATH, "{}", path.len());
        podsec_sys::file::Directory::open(Path::new("/dev/shm"))
            .unwrap()
            .remove_tree(here.strip_prefix("/dev/shm/").unwrap())
            .unwrap();
        let gone = path_of(directory.as_fd());
        assert!(gone.is_none_or(|path| !path.ends_with(DELETED)));
    }
}
