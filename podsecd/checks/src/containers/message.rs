//! What the processes of this monitor say to each other: packets of messages, each with postcard.

use super::place::Id;
use podsec_sys::socket;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes of a packet.
pub const LONGEST: usize = 128 * 1024;
/// A packet with so much in it is sent.
const FULL: usize = 60 * 1024;
/// The longest message fits behind one that is nearly full.
const _: () = assert!(FULL + LONGEST_PATH + 255 + 200 < LONGEST);
/// Bytes of a directory's path inside a layer; the rest of a longer one is left out.
pub const LONGEST_PATH: usize = 3000;

/// What a process of this program is: the first packet that it gets.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    /// With a channel to the judge.
    Asker,
    /// With a channel to the asker.
    Judge,
    /// Of one store, as its owner: uid, gid, groups.
    Follower {
        /// Whose it is.
        owner: (u32, u32, Vec<u32>),
        /// Its root.
        root: String,
    },
}

/// A place where a store may be. Both the source and the asker know it by its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it is in the list of all.
    pub number: u32,
    /// Login name of its owner.
    pub owner: String,
    /// His uid, which the directory must have.
    pub uid: u32,
    /// No link is on it.
    pub root: String,
}

/// A container, as its owner says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: Id,
    pub layer: Id,
    pub name: String,
    pub image: String,
    /// Is an image built in it?
    pub builds: bool,
}

/// From the asker to the source.
#[derive(Debug, Serialize, Deserialize)]
pub enum Known {
    /// A place where a store may be.
    Candidate(Candidate),
    /// It is nobody's any more.
    Removed(u32),
    /// A directory below which new stores come to be.
    Home(String),
}

/// How a store is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// With all of its file system.
    Fanotify,
    /// Directory by directory, since the file system cannot do better.
    Inotify,
}

/// What was done to a file: bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What(u8);

impl What {
    pub const MADE: Self = Self(1);
    pub const WRITTEN: Self = Self(2);
    pub const REMOVED: Self = Self(4);
    pub const MOVED_HERE: Self = Self(8);
    pub const MOVED_AWAY: Self = Self(16);
    pub const ATTRIBUTES: Self = Self(32);

    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn when(self, is: bool) -> Self {
        if is { self } else { Self(0) }
    }

    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// For people.
    pub fn words(self) -> String {
        let words = [
            (Self::MADE, "made"),
            (Self::WRITTEN, "written"),
            (Self::MOVED_HERE, "put in place"),
            (Self::MOVED_AWAY, "moved away"),
            (Self::REMOVED, "removed"),
            (Self::ATTRIBUTES, "attributes changed"),
        ];
        let said: Vec<_> =
            words.iter().filter(|(bit, _)| self.0 & bit.0 != 0).map(|(_, word)| *word).collect();
        said.join(", ")
    }
}

/// To the judge, from the source or a follower; a follower's number of a store is not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// A store is there.
    Opened { store: u32, owner: String, root: String, how: How },
    /// It is there no more.
    Closed { store: u32 },
    /// Whose store cannot be watched as it should be, and why; empty: it can be again.
    Missed { store: u32, owner: String, why: String },
    /// A container: all that is done to its layer from now on it does.
    Born { store: u32, container: Id },
    /// It is one in which an image is built.
    Builds { store: u32, container: Id },
    /// It is removed by that process: what is done to its layer from now on is its removal, and what that process has removed
    /// before was. 0: by one that is not known.
    Gone { store: u32, container: Id, by: i32 },
    /// Something was done to a file in a layer, by that process.
    Wrote { store: u32, layer: Id, directory: &'a [u8], name: &'a [u8], what: What, by: i32 },
    /// The kernel had no room for more events.
    Overflow,
    /// We had none.
    Lost { events: u64 },
}

/// Messages on their way.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    packet: Vec<u8>,
}

impl Sender {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, packet: Vec::with_capacity(LONGEST) }
    }

    /// Waits for the other side when it has not read what was sent before.
    pub fn push<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        postcard::to_io(message, &mut self.packet).map_err(io::Error::other)?;
        if self.packet.len() >= FULL { self.flush() } else { Ok(()) }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.packet.is_empty() {
            return Ok(());
        }
        let sent = socket::send(&self.socket, &self.packet, &[]);
        self.packet.clear();
        sent
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One packet, of one message, with descriptors.
pub fn send<T: Serialize>(socket: &impl AsFd, message: &T, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    socket::send(socket, &bytes, descriptors)
}

/// The messages of a packet; the last may be an error.
pub fn messages<'a, T: Deserialize<'a>>(mut packet: &'a [u8]) -> impl Iterator<Item = io::Result<T>> {
    std::iter::from_fn(move || {
        if packet.is_empty() {
            return None;
        }
        match postcard::take_from_bytes(packet) {
            Ok((message, rest)) => {
                packet = rest;
                Some(Ok(message))
            }
            Err(error) => {
                packet = &[];
                Some(Err(io::Error::other(error)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_read_as_they_were_sent() {
        let (one, other) = socket::pair().unwrap();
        let mut sender = Sender::new(one);
        let layer = Id::new(&[b'a'; 64]).unwrap();
        let what = What::MADE.and(What::WRITTEN);
        let wrote = Message::Wrote { store: 3, layer, directory: b"usr/\xff", name: b"a\nb", what, by: 7 };
        let born = Message::Born { store: 3, container: layer };
        sender.push(&wrote).unwrap();
        sender.push(&born).unwrap();
        sender.flush().unwrap();
        let mut buffer = vec![0; LONGEST];
        let (length, _) = socket::receive(&other, &mut buffer).unwrap();
        let read: Vec<Message<'_>> = messages(&buffer[..length]).map(Result::unwrap).collect();
        assert_eq!(read, [wrote, born]);
        assert_eq!(what.words(), "made, written");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = messages::<Message<'_>>(&bytes).count();
        }
    }
}
