//! One store, followed directory by directory (inotify(7)), where its file system cannot do better: by a process that is the
//! store's owner and can only read. What happens in a directory between its making and its watch is made up for by a look
//! into it; a container's directories that its owner may not read, since they are another user's in his namespace, are missed,
//! and that is said.
//!
//! Must not: leave the directory of a layer by a link.

use super::message::{Container, LONGEST_PATH, Message, Sender, What};
use super::place::{Id, Place, place};
use crate::cage::{self, Files};
use podsec_sys::credentials::{self, Account};
use podsec_sys::nix::dir::Dir;
use podsec_sys::nix::errno::Errno;
use podsec_sys::nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use podsec_sys::nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use podsec_sys::nix::sys::stat::Mode;
use podsec_sys::{process, socket};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of memory: some hundred for each directory.
const MEMORY: u64 = 1 << 30;
/// How deep it goes.
const DEEPEST: usize = 512;

const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_ONLYDIR);
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

struct Follower {
    root: PathBuf,
    uid: u32,
    inotify: Inotify,
    /// Paths below the root, by watch and back.
    paths: HashMap<WatchDescriptor, Vec<u8>>,
    watches: BTreeMap<Vec<u8>, WatchDescriptor>,
    /// Layers of containers, by container.
    layers: HashMap<Id, Id>,
    /// Containers that were made, and whose layer is not known yet.
    expected: Vec<Id>,
    /// Directories that could not be watched, and why the first one.
    missed: Option<(u64, Errno)>,
    said: Option<(u64, Errno)>,
    judge: Sender,
}

/// Until nobody listens any more.
///
/// # Errors
/// says what cannot be done at all
pub fn run(judge: OwnedFd, owner: (u32, u32, Vec<u32>), root: &str) -> Result<(), String> {
    let (uid, gid, groups) = owner;
    let become_it = || {
        if uid == 0 { credentials::keep_only(&[]) } else { Account { uid, gid, groups }.become_it() }
    };
    become_it().map_err(|error| format!("becoming the owner of {root:?}: {error}"))?;
    cage::shut(Files::Read, MEMORY)?;
    let follow = || {
        let mut follower = Follower {
            root: root.into(),
            uid,
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            paths: HashMap::new(),
            watches: BTreeMap::new(),
            layers: HashMap::new(),
            expected: Vec::new(),
            missed: None,
            said: None,
            judge: Sender::new(judge),
        };
        follower.follow()
    };
    match follow() {
        // Nobody listens any more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error: io::Error| format!("following {root:?}: {error}")),
    }
}

impl Follower {
    fn follow(&mut self) -> io::Result<()> {
        self.begin()?;
        loop {
            self.say_missed()?;
            self.judge.flush()?;
            let fds = [self.inotify.as_fd(), self.judge.as_fd()];
            // Whoever could not be asked about yet is asked about again.
            let again = (!self.expected.is_empty()).then_some(Duration::from_millis(50));
            process::wait_readable(&fds, again)?;
            if socket::has_ended(&self.judge) {
                return Ok(());
            }
            match self.inotify.read_events() {
                Ok(events) => events.into_iter().try_for_each(|event| self.event(event))?,
                Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            self.expect()?;
        }
    }

    /// All there is.
    fn begin(&mut self) -> io::Result<()> {
        self.paths.clear();
        self.watches.clear();
        self.inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        (self.layers, self.expected, self.missed) = (HashMap::new(), Vec::new(), None);
        self.watch(b"");
        for containers in ["overlay-containers", "vfs-containers"] {
            self.watch(containers.as_bytes());
        }
        self.containers()?;
        for (id, layer) in self.layers.clone() {
            for containers in ["overlay-containers", "vfs-containers"] {
                self.watch(format!("{containers}/{}/userdata", id.long()).as_bytes());
            }
            self.watch_layer(layer, false)?;
        }
        Ok(())
    }

    fn containers(&mut self) -> io::Result<bool> {
        match super::asker::containers(&self.root, self.uid) {
            Ok(containers) => {
                let pair = |container: Container| (container.id, container.layer);
                self.layers = containers.into_iter().map(pair).collect();
                Ok(true)
            }
            // The judge hears it from whoever asks for it.
            Err(_) => Ok(false),
        }
    }

    /// Watches the layers of new containers as soon as it is known which they are.
    fn expect(&mut self) -> io::Result<()> {
        if self.expected.is_empty() || !self.containers()? {
            return Ok(());
        }
        for container in std::mem::take(&mut self.expected) {
            match self.layers.get(&container) {
                Some(&layer) => self.watch_layer(layer, true)?,
                None => self.expected.push(container),
            }
        }
        Ok(())
    }

    /// What is in a new one of an overlay its container has made; with vfs it is a copy of the image.
    fn watch_layer(&mut self, layer: Id, is_new: bool) -> io::Result<()> {
        let layer = layer.long();
        self.walk(format!("overlay/{layer}/diff").into_bytes(), is_new)?;
        self.walk(format!("vfs/dir/{layer}").into_bytes(), false)
    }

    // ---- directories

    /// Below the root, without a link on the way.
    fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let below = Path::new(std::ffi::OsStr::from_bytes(path));
        let path = if path.is_empty() { self.root.clone() } else { self.root.join(below) };
        let how = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
        openat2(AT_FDCWD, &path, how)
    }

    fn watch(&mut self, path: &[u8]) {
        match self.open(path) {
            Ok(directory) => self.watch_open(&directory, path),
            Err(error) => self.miss(error),
        }
    }

    fn watch_open(&mut self, directory: &OwnedFd, path: &[u8]) {
        let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
        match self.inotify.add_watch(link.as_str(), EVENTS) {
            Ok(watch) => {
                if let Some(old) = self.paths.insert(watch, path.to_vec()) {
                    self.watches.remove(&old);
                }
                self.watches.insert(path.to_vec(), watch);
            }
            Err(error) => self.miss(error),
        }
    }

    fn miss(&mut self, error: Errno) {
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) {
            let (count, first) = self.missed.unwrap_or((0, error));
            self.missed = Some((count + 1, first));
        }
    }

    fn say_missed(&mut self) -> io::Result<()> {
        if self.missed == self.said {
            return Ok(());
        }
        self.said = self.missed;
        let why = self.missed.map_or_else(String::new, |(count, error)| {
            let more = if error == Errno::ENOSPC { " (sysctl fs.inotify.max_user_watches)" } else { "" };
            format!("{count} directories of containers cannot be watched: {}{more}", error.desc())
        });
        self.judge.push(&Message::Missed { store: 0, owner: String::new(), why })
    }

    /// A directory and all below it. What is in one that was just made may have been made before there was a watch.
    fn walk(&mut self, path: Vec<u8>, tell: bool) -> io::Result<()> {
        let top = match self.open(&path) {
            Ok(top) => top,
            Err(error) => {
                self.miss(error);
                return Ok(());
            }
        };
        let mut stack = vec![(top, path, Vec::<CString>::new())];
        if let Some((directory, path, names)) = stack.last_mut() {
            self.watch_open(directory, path);
            *names = self.look(directory, path, tell)?;
        }
        while let Some((directory, path, names)) = stack.last_mut() {
            let Some(name) = names.pop() else {
                stack.pop();
                continue;
            };
            let below = [&**path, b"/", name.to_bytes()].concat();
            if below.len() > LONGEST_PATH {
                self.miss(Errno::ENAMETOOLONG);
                continue;
            }
            let opened = openat(&*directory, name.as_c_str(), DIRECTORY, Mode::empty());
            match opened {
                Ok(_) if stack.len() == DEEPEST => self.miss(Errno::ENAMETOOLONG),
                Ok(directory) => {
                    self.watch_open(&directory, &below);
                    let names = self.look(&directory, &below, tell)?;
                    stack.push((directory, below, names));
                }
                Err(error) => self.miss(error),
            }
        }
        Ok(())
    }

    /// Names of directories in it; what else is in it is told, if it shall be.
    fn look(&mut self, directory: &OwnedFd, path: &[u8], tell: bool) -> io::Result<Vec<CString>> {
        let mut names = Vec::new();
        let mut dir = match Dir::openat(directory, ".", DIRECTORY, Mode::empty()) {
            Ok(dir) => dir,
            Err(error) => {
                self.miss(error);
                return Ok(names);
            }
        };
        for entry in dir.iter().map_while(Result::ok) {
            let name = entry.file_name();
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            match entry.file_type() {
                Some(podsec_sys::nix::dir::Type::Directory) | None => names.push(name.to_owned()),
                Some(_) if tell => self.tell(path, name.to_bytes(), What::MADE)?,
                Some(_) => {}
            }
        }
        Ok(names)
    }

    /// Forgets a directory and all below it, which is somewhere else now.
    fn forget(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        let gone: Vec<_> = self
            .watches
            .range(path.to_vec()..)
            .take_while(|(other, _)| other.starts_with(path))
            .filter(|(other, _)| *other == path || other.starts_with(&below))
            .map(|(path, watch)| (path.clone(), *watch))
            .collect();
        for (path, watch) in gone {
            self.watches.remove(&path);
            self.paths.remove(&watch);
            // It may have gone with the directory.
            let _ = self.inotify.rm_watch(watch);
        }
    }

    // ---- events

    fn event(&mut self, event: InotifyEvent) -> io::Result<()> {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.judge.push(&Message::Overflow)?;
            return self.begin();
        }
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            if let Some(path) = self.paths.remove(&event.wd) {
                self.watches.remove(&path);
            }
            return Ok(());
        }
        let (Some(parent), Some(name)) = (self.paths.get(&event.wd).cloned(), event.name) else {
            return Ok(());
        };
        let name = name.into_vec();
        if mask.contains(AddWatchFlags::IN_ISDIR) {
            return self.directory_event(mask, &parent, &name);
        }
        if let Place::Notes(container) = place(&parent) {
            let made = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
            if made && name == b"buildah.json" {
                self.judge.push(&Message::Builds { store: 0, container })?;
            }
            return Ok(());
        }
        self.tell(&parent, &name, what(mask))
    }

    fn directory_event(&mut self, mask: AddWatchFlags, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
        let (came, made) = (
            mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO),
            mask.contains(AddWatchFlags::IN_CREATE),
        );
        match (place(parent), place(&path)) {
            (Place::Containers, _) => {
                let Some(container) = Id::new(name) else { return Ok(()) };
                if came {
                    self.watch(&[&path[..], b"/userdata"].concat());
                    self.watch(&path);
                    self.expected.push(container);
                    self.judge.push(&Message::Born { store: 0, container })
                } else if !mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM) {
                    Ok(())
                } else {
                    self.expected.retain(|other| *other != container);
                    if let Some(layer) = self.layers.remove(&container) {
                        let layer = layer.long();
                        self.forget(format!("overlay/{layer}").as_bytes());
                        self.forget(format!("vfs/dir/{layer}").as_bytes());
                    }
                    self.judge.push(&Message::Gone { store: 0, container, by: 0 })
                }
            }
            (_, Place::Containers | Place::Notes(_)) if came => {
                self.watch(&path);
                if place(&path) == Place::Containers {
                    return self.begin();
                }
                Ok(())
            }
            (Place::Layer(..), _) => {
                if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
                    self.forget(&path);
                    return self.tell(parent, name, What::MOVED_AWAY);
                }
                if came {
                    // One that an overlay has moved here was empty then, so what is in it was made since.
                    return self.walk(path, made || parent.starts_with(b"overlay"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn tell(&mut self, parent: &[u8], name: &[u8], what: What) -> io::Result<()> {
        let Place::Layer(layer, at) = place(parent) else { return Ok(()) };
        if what.is_nothing() {
            return Ok(());
        }
        let directory = parent.get(at..).unwrap_or_default();
        self.judge.push(&Message::Wrote { store: 0, layer, directory, name, what, by: 0 })
    }
}

fn what(mask: AddWatchFlags) -> What {
    What::MADE
        .when(mask.contains(AddWatchFlags::IN_CREATE))
        .and(What::WRITTEN.when(mask.intersects(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE)))
        .and(What::REMOVED.when(mask.contains(AddWatchFlags::IN_DELETE)))
        .and(What::MOVED_HERE.when(mask.contains(AddWatchFlags::IN_MOVED_TO)))
        .and(What::MOVED_AWAY.when(mask.contains(AddWatchFlags::IN_MOVED_FROM)))
        .and(What::ATTRIBUTES.when(mask.contains(AddWatchFlags::IN_ATTRIB)))
}
