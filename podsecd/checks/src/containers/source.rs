//! Where events come from: the process that has the rights (`CAP_SYS_ADMIN`, `CAP_DAC_READ_SEARCH`). It marks the file systems
//! on which stores are, reads what the kernel tells, finds out by the directory's handle whether it is about a store, and
//! passes that on to the judge; all else it forgets at once.
//!
//! Must not: parse anything but the kernel's own structures and paths; open a file; follow a link.

use super::directories::{Directories, Directory, Where};
use super::message::{Candidate, How, Known, LONGEST, Message, Sender, What, messages};
use super::place::{Id, Place, is_sign_of_a_store};
use podsec_sys::fanotify::{self, Event, Group, Handle, Mask};
use podsec_sys::nix::errno::Errno;
use podsec_sys::nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use podsec_sys::nix::sys::signalfd::SignalFd;
use podsec_sys::nix::sys::stat::{FileStat, fstat};
use podsec_sys::{process, socket};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks for new stores.
const LOOK: Duration = Duration::from_secs(10);
/// Between two that were caused by an event.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// Directories that were removed before one could look where they were.
const MOST_VANISHED: usize = 4_096;
/// Bytes of an event: less left of a buffer does not mean that there is nothing more to read.
const LONGEST_EVENT: usize = 1_024;
/// With so little read, more of the same may come at once, and the kernel makes one event of it while nobody reads.
const FEW: usize = 4_096;
const PAUSE: Duration = Duration::from_millis(1);

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// From where a directory is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Work,
    Elsewhere,
}

/// The state of this process.
pub struct Source {
    group: Option<Group>,
    directories: Directories,
    candidates: BTreeMap<u32, Candidate>,
    homes: Vec<String>,
    /// Those that are watched: which device and inode their root is.
    stores: BTreeMap<u32, (u64, u64)>,
    missed: BTreeMap<u32, String>,
    /// Events in each, and in which round the last one was.
    vanished: HashMap<Box<[u8]>, (u64, u64)>,
    /// Directories on their way from one place to another.
    moving: HashMap<Box<[u8]>, Origin>,
    /// How often there was nothing more to read.
    round: u64,
    look_at: Instant,
    looked: Instant,
    judge: Sender,
}

impl Source {
    /// With a channel to the judge.
    pub fn new(judge: OwnedFd) -> Self {
        let group = match Group::new() {
            Ok(group) => Some(group),
            Err(error) => {
                eprintln!("podsec-monitor: fanotify: {error}; all stores are watched by inotify");
                None
            }
        };
        let now = Instant::now();
        Self {
            group,
            directories: Directories::default(),
            candidates: BTreeMap::new(),
            homes: Vec::new(),
            stores: BTreeMap::new(),
            missed: BTreeMap::new(),
            vanished: HashMap::new(),
            moving: HashMap::new(),
            round: 0,
            look_at: now + LOOK,
            looked: now,
            judge: Sender::new(judge),
        }
    }

    /// Until it is told to end.
    ///
    /// # Errors
    /// when one of the other processes has ended, or the kernel does not tell any more
    pub fn run(&mut self, asker: &OwnedFd, signals: &SignalFd) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        loop {
            let mut fds = vec![signals.as_fd(), asker.as_fd(), self.judge.as_fd()];
            fds.extend(self.group.as_ref().map(|group| group.as_fd()));
            let left = self.look_at.saturating_duration_since(Instant::now());
            process::wait_readable(&fds, Some(left))?;
            if signals.read_signal()?.is_some() {
                return Ok(());
            }
            if socket::has_ended(&self.judge) {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the process that judges has ended"));
            }
            let mut news = false;
            while process::wait_readable(&[asker.as_fd()], Some(Duration::ZERO))? {
                let (length, _) = socket::receive(asker, &mut buffer)?;
                if length == 0 {
                    let text = "the process that asks owners has ended";
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, text));
                }
                for known in messages(buffer.get(..length).unwrap_or_default()) {
                    news = true;
                    match known? {
                        Known::Candidate(candidate) => {
                            _ = self.candidates.insert(candidate.number, candidate)
                        }
                        Known::Home(home) => self.homes.push(home),
                        Known::Removed(number) => self.remove(number)?,
                    }
                }
            }
            if news || self.look_at <= Instant::now() {
                self.look()?;
            }
            self.read(&mut buffer)?;
            self.judge.flush()?;
        }
    }

    /// All that the kernel has to tell now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let length = match group.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        for event in fanotify::events(buffer.get(..length).unwrap_or_default()) {
            self.event(&event)?;
        }
        if length + LONGEST_EVENT < buffer.len() {
            // Whatever belonged to what is remembered here was told by now, or as good as.
            self.round += 1;
            self.vanished.retain(|_, (_, round)| *round + 1 >= self.round);
            self.moving.clear();
        }
        self.judge.flush()?;
        if length < FEW {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    // ---- stores

    /// Which of the places where stores may be have one now.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        self.look_at = self.looked + LOOK;
        for home in std::mem::take(&mut self.homes) {
            // So that a store that comes to be there is known from the start. Where that cannot be, the next look finds it.
            if let Ok(directory) = open_directory(&home) {
                let _ = self.mark(directory);
            }
        }
        for candidate in self.candidates.values().cloned().collect::<Vec<_>>() {
            let why = self.look_at_one(&candidate)?.err().unwrap_or_default();
            let number = candidate.number;
            if self.missed.get(&number).map_or("", String::as_str) != why {
                if !why.is_empty() {
                    eprintln!("podsec-monitor: {}: {why}", candidate.root.escape_debug());
                }
                self.missed.insert(number, why.clone());
                let missed = Message::Missed { store: number, owner: candidate.owner, why };
                self.judge.push(&missed)?;
            }
        }
        self.judge.flush()
    }

    /// Nobody's any more.
    fn remove(&mut self, number: u32) -> io::Result<()> {
        self.close(number)?;
        let Some(Candidate { owner, .. }) = self.candidates.remove(&number) else { return Ok(()) };
        match self.missed.remove(&number) {
            Some(_) => self.judge.push(&Message::Missed { store: number, owner, why: String::new() }),
            None => Ok(()),
        }
    }

    fn close(&mut self, number: u32) -> io::Result<()> {
        if self.stores.remove(&number).is_none() {
            return Ok(());
        }
        self.directories.remove(number);
        self.judge.push(&Message::Closed { store: number })
    }

    /// The inner error is why there is a store that cannot be watched.
    fn look_at_one(&mut self, candidate: &Candidate) -> io::Result<Result<(), String>> {
        let number = candidate.number;
        let found = match open_directory(&candidate.root) {
            Ok(directory) => fstat(&directory).map(|stat| (directory, stat)),
            Err(error) => Err(error),
        };
        let (directory, stat) = match found {
            Ok(found) => found,
            Err(error) => {
                self.close(number)?;
                // Behind a link: the asker has followed it as its owner, and has told where it leads.
                let is_none = matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP);
                return Ok(if is_none { Ok(()) } else { Err(error.desc().into()) });
            }
        };
        let is = identity(&stat);
        if self.stores.get(&number) == Some(&is) {
            return Ok(Ok(()));
        }
        if stat.st_uid != candidate.uid {
            return Ok(Err("this place of a store belongs to somebody else".into()));
        }
        let how = match self.mark(directory) {
            Ok(()) => How::Fanotify,
            Err(_) => How::Inotify,
        };
        eprintln!(
            "podsec-monitor: watching {} of {} by {}",
            candidate.root.escape_debug(),
            candidate.owner,
            if how == How::Fanotify { "fanotify" } else { "inotify" }
        );
        let (owner, root) = (candidate.owner.clone(), candidate.root.clone());
        self.stores.insert(number, is);
        if how == How::Fanotify {
            self.directories.add(number, &root);
        }
        self.judge.push(&Message::Opened { store: number, owner, root, how })?;
        Ok(Ok(()))
    }

    fn mark(&mut self, directory: OwnedFd) -> io::Result<()> {
        let Some(group) = &self.group else { return Err(io::ErrorKind::Unsupported.into()) };
        self.directories.mark(group, directory)
    }

    // ---- events

    fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        if event.mask.contains(Mask::FAN_Q_OVERFLOW) {
            // Directories may have been moved unseen.
            self.directories.forget();
            self.vanished.clear();
            return self.judge.push(&Message::Overflow);
        }
        let Some(handle) = event.directory else { return Ok(()) };
        let is_directory = event.mask.contains(Mask::FAN_ONDIR);
        match self.directories.find(handle) {
            Where::In(directory) if is_directory => self.directory_event(event, &directory),
            Where::In(directory) => self.file_event(event, &directory),
            Where::Elsewhere => {
                if is_directory {
                    self.elsewhere(event)?;
                }
                Ok(())
            }
            Where::Vanished => self.vanished(event, handle, is_directory),
        }
    }

    fn elsewhere(&mut self, event: &Event<'_>) -> io::Result<()> {
        if event.mask.intersects(Mask::FAN_CREATE | Mask::FAN_MOVED_TO) {
            if let Some(target) = event.target {
                self.directories.forget_one(target);
            }
            if is_sign_of_a_store(event.name) {
                self.new_store()?;
            }
        }
        if event.mask.contains(Mask::FAN_MOVED_FROM) {
            self.moves(event, Origin::Elsewhere);
        }
        if event.mask.contains(Mask::FAN_DELETE)
            && let Some(target) = event.target
        {
            self.vanished.remove(target.bytes());
        }
        Ok(())
    }

    fn moves(&mut self, event: &Event<'_>, origin: Origin) {
        if self.moving.len() >= MOST_VANISHED {
            self.moving.clear();
        }
        self.moving.extend(event.target.map(|target| (target.bytes().into(), origin)));
    }

    fn new_store(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if now.saturating_duration_since(self.looked) >= LOOK_SOON {
            return self.look();
        }
        self.look_at = self.look_at.min(self.looked + LOOK_SOON);
        Ok(())
    }

    /// Something in a directory that is no more. Its own removal, which comes later, tells where it was.
    fn vanished(&mut self, event: &Event<'_>, handle: Handle<'_>, is_directory: bool) -> io::Result<()> {
        let inner = match event.target {
            Some(target) if is_directory => self.vanished.remove(target.bytes()).unwrap_or_default().0,
            _ => 0,
        };
        let count = inner + u64::from(!is_directory);
        // Before Linux 5.17 nothing will tell which directory it was that was removed.
        if count == 0 || !self.group.as_ref().is_some_and(|group| group.names_targets) {
            return Ok(());
        }
        if self.vanished.len() >= MOST_VANISHED && !self.vanished.contains_key(handle.bytes()) {
            return self.judge.push(&Message::Lost { events: count });
        }
        let (events, round) = self.vanished.entry(handle.bytes().into()).or_default();
        (*events, *round) = (*events + count, self.round);
        Ok(())
    }

    fn directory_event(&mut self, event: &Event<'_>, parent: &Directory) -> io::Result<()> {
        let mask = event.mask;
        if let (Place::Containers, Some(container)) = (parent.place, Id::new(event.name)) {
            let store = parent.store;
            if mask.intersects(Mask::FAN_CREATE | Mask::FAN_MOVED_TO) {
                self.judge.push(&Message::Born { store, container })?;
            }
            if mask.intersects(Mask::FAN_DELETE | Mask::FAN_MOVED_FROM) {
                self.judge.push(&Message::Gone { store, container, by: event.process })?;
            }
        }
        let mut what = What::default();
        let (from, to) = (mask.contains(Mask::FAN_MOVED_FROM), mask.contains(Mask::FAN_MOVED_TO));
        if mask.contains(Mask::FAN_CREATE) {
            self.remember_child(event, parent);
        }
        if from {
            let origin = if parent.place == Place::Work { Origin::Work } else { Origin::Elsewhere };
            what = what.and(What::MOVED_AWAY);
            self.moves(event, origin);
            if origin != Origin::Work {
                // All below it is somewhere else from now on.
                self.directories.forget();
            }
        }
        if to {
            let origin = event.target.and_then(|target| self.moving.remove(target.bytes()));
            match origin {
                // An overlay prepares a directory that was in an image only, or is in the place of one, and moves it to the
                // layer when something in it is written: that will be told.
                Some(Origin::Work) => {}
                Some(_) => {
                    self.directories.forget();
                    what = what.and(What::MOVED_HERE);
                }
                None => self.directories.forget(),
            }
            self.remember_child(event, parent);
        }
        if mask.contains(Mask::FAN_DELETE) {
            let removed = event.target.and_then(|target| {
                self.directories.forget_one(target);
                self.vanished.remove(target.bytes())
            });
            // A directory that was empty is no finding; one in which files were removed unseen is.
            what = what.and(What::REMOVED.when(removed.is_some()));
        }
        self.tell(event, parent, what)
    }

    fn remember_child(&mut self, event: &Event<'_>, parent: &Directory) {
        if let Some(target) = event.target {
            self.directories.remember_child(parent, event.name, target);
        }
    }

    fn file_event(&mut self, event: &Event<'_>, parent: &Directory) -> io::Result<()> {
        let mask = event.mask;
        if let Place::Notes(container) = parent.place {
            // github.com/containers/buildah, buildah.go (stateFile)
            if event.name == b"buildah.json" && mask.intersects(Mask::FAN_CREATE | Mask::FAN_MOVED_TO) {
                self.judge.push(&Message::Builds { store: parent.store, container })?;
            }
            return Ok(());
        }
        self.tell(event, parent, what(mask))
    }

    fn tell(&mut self, event: &Event<'_>, parent: &Directory, what: What) -> io::Result<()> {
        let Place::Layer(layer, at) = parent.place else { return Ok(()) };
        let directory = parent.path.get(at..).unwrap_or_default();
        if what.is_nothing() || event.name == b"." || event.name.is_empty() {
            return Ok(());
        }
        let (store, name, by) = (parent.store, event.name, event.process);
        self.judge.push(&Message::Wrote { store, layer, directory, name, what, by })
    }
}

/// What was done to a file.
fn what(mask: Mask) -> What {
    What::MADE
        .when(mask.contains(Mask::FAN_CREATE))
        .and(What::WRITTEN.when(mask.intersects(Mask::FAN_MODIFY | Mask::FAN_CLOSE_WRITE)))
        .and(What::REMOVED.when(mask.contains(Mask::FAN_DELETE)))
        .and(What::MOVED_HERE.when(mask.contains(Mask::FAN_MOVED_TO)))
        .and(What::MOVED_AWAY.when(mask.contains(Mask::FAN_MOVED_FROM)))
        .and(What::ATTRIBUTES.when(mask.contains(Mask::FAN_ATTRIB)))
}

fn identity(stat: &FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Without links on the way.
fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(AT_FDCWD, Path::new(path), OpenHow::new().flags(DIRECTORY).resolve(resolve))
}
