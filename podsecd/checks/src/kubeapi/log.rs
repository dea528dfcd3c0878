//! A log's place: how far it has been read, and where that is again after rotation, a restart, or both.
//!
//! A file is known by its first bytes, which have the identifier and the time of an event, and not by its name or its inode
//! alone: rotation by rename keeps the inode and changes the name, rotation by copy and truncation keeps the name and makes
//! another inode, and a file system gives the inode of a file that was deleted to the next one.

use super::lines::{Piece, Splitter};
use super::opener::{Found, Opened, Time};
use super::watch::Watch;
use podsec_policy::audit::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

/// First bytes by which a file is known again.
const HEAD: usize = 1024;
/// Bytes of one turn: other logs, and the report, have theirs.
const TURN: u64 = 64 << 20;

/// How far a log has been read, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    device: u64,
    inode: u64,
    /// Everything before it was counted.
    offset: u64,
    /// SHA-256 of what is before it, up to [`HEAD`] bytes.
    head: String,
    /// When the file was written last, as far as was seen.
    time: Time,
}

/// A file that is being read.
#[derive(Debug)]
struct Reader {
    opened: Opened,
    splitter: Splitter,
    /// Its first bytes, as far as they were read.
    head: Vec<u8>,
}

/// What came of a portion.
#[derive(Debug, PartialEq, Eq)]
enum Portion {
    More,
    End,
    /// This is not the file any more that it was.
    Emptied,
}

impl Reader {
    fn new(opened: Opened, offset: u64) -> io::Result<Self> {
        let most = usize::try_from(offset).unwrap_or(HEAD).min(HEAD);
        let head = first(&opened.file, most)?;
        Ok(Self { opened, splitter: Splitter::at(offset), head })
    }

    fn portion(&mut self, give: &mut impl FnMut(Piece<'_>)) -> io::Result<Portion> {
        let at = self.splitter.read();
        let room = self.splitter.room();
        let count = self.opened.file.read_at(room, at)?;
        if count == 0 {
            let meta = self.opened.file.metadata()?;
            let same = meta.len() >= at && first(&self.opened.file, self.head.len())? == self.head;
            self.opened.time = (meta.mtime(), meta.mtime_nsec());
            return Ok(if same { Portion::End } else { Portion::Emptied });
        }
        // After the bytes: they are what followed, if the beginning is still what it was.
        if first(&self.opened.file, self.head.len())? != self.head {
            return Ok(Portion::Emptied);
        }
        let more = room.get(..count.min(HEAD - self.head.len())).unwrap_or_default();
        self.head.extend_from_slice(more);
        self.splitter.took(count, give);
        Ok(Portion::More)
    }

    fn mark(&self) -> Option<Mark> {
        let offset = self.splitter.done();
        let most = usize::try_from(offset).unwrap_or(HEAD).min(self.head.len());
        let head = self.head.get(..most).filter(|head| !head.is_empty())?;
        let Opened { device, inode, time, .. } = self.opened;
        Some(Mark { device, inode, offset, head: digest(head), time })
    }
}

fn digest(bytes: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    hex(&digest)
}

/// Up to so many bytes from the beginning.
fn first(file: &File, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut got = 0;
    while let Some(room) = bytes.get_mut(got..).filter(|room| !room.is_empty()) {
        match file.read_at(room, got as u64)? {
            0 => break,
            count => got += count,
        }
    }
    bytes.truncate(got);
    Ok(bytes)
}

impl Mark {
    /// Of what nobody will find again: what was written after that is all new.
    fn lost(time: Time) -> Self {
        Self { device: 0, inode: 0, offset: 0, head: String::new(), time }
    }

    fn is_in(&self, opened: &Opened) -> bool {
        let most = usize::try_from(self.offset).unwrap_or(HEAD).min(HEAD);
        opened.size >= self.offset && first(&opened.file, most).is_ok_and(|head| digest(&head) == self.head)
    }
}

/// One log.
#[derive(Debug, Default)]
pub struct Log {
    name: String,
    mark: Option<Mark>,
    now: Option<Reader>,
    /// What is to be read after it, the oldest first.
    next: VecDeque<Opened>,
}

impl Log {
    /// From where it was left.
    pub fn new(name: String, mark: Option<Mark>) -> Self {
        Self { name, mark, ..Self::default() }
    }

    /// How it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far it was read; none before the first line.
    pub fn mark(&self) -> Option<Mark> {
        self.now.as_ref().and_then(Reader::mark).or_else(|| self.mark.clone())
    }

    /// Is what is open now what the name stands for?
    pub fn is_current(&self, current: Option<&Opened>) -> bool {
        self.now.as_ref().zip(current).is_some_and(|(now, current)| now.opened.is(current))
    }

    /// Reads on, for a turn. `Some(true)`: there is more; `None`: what is open was emptied, so it is to be [`Log::find`].
    ///
    /// # Errors
    /// read(2)
    pub fn read(&mut self, watch: &mut Watch) -> io::Result<Option<bool>> {
        let mut turn = 0;
        while let Some(now) = &mut self.now {
            let before = now.splitter.read();
            match now.portion(&mut |piece| watch.piece(&self.name, piece))? {
                Portion::Emptied => return Ok(None),
                Portion::More => turn += now.splitter.read() - before,
                Portion::End => {
                    let Some(next) = self.next.pop_front() else { return Ok(Some(false)) };
                    // Nobody writes there any more.
                    now.splitter.finish(&mut |piece| watch.piece(&self.name, piece));
                    self.mark = self.mark();
                    self.now = Some(Reader::new(next, 0)?);
                }
            }
            if turn >= TURN {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    /// Finds the place again in what there is: is there something to be read? The log itself is always the newest; the order
    /// of the others is that in which they were written last.
    ///
    /// # Errors
    /// read(2)
    pub fn find(&mut self, found: Found, watch: &mut Watch) -> io::Result<bool> {
        self.mark = self.mark();
        let held = self.now.take().map(|now| now.opened);
        let Found { current, mut rotated, compressed } = found;
        // Renamed while the opener was looking.
        rotated.retain(|one| current.as_ref().is_none_or(|current| !one.is(current)));
        rotated.sort_by_cached_key(|one| (one.time, self.number(one), one.name.clone()));
        // An empty one has nothing to be known by, so nobody moves on to it: the mark stays where it can be found again.
        let current = current.filter(|current| current.size > 0);
        let Some(mark) = self.mark.clone() else {
            // Whatever is compressed already is history.
            return self.begin(rotated.into_iter().chain(current), 0);
        };
        let is_it = |one: &Opened| (one.device, one.inode) == (mark.device, mark.inode) && mark.is_in(one);
        if current.as_ref().is_some_and(is_it) {
            return self.begin(current, mark.offset);
        }
        // The same inode rather than a copy of it.
        let place = rotated.iter().position(is_it).or_else(|| rotated.iter().position(|one| mark.is_in(one)));
        if let Some(place) = place {
            let rest = rotated.split_off(place);
            let is_newer = |(name, time): &&(String, Time)| {
                rest.first().is_some_and(|place| *time > place.time && !name.starts_with(&place.name))
            };
            let left = compressed.iter().filter(is_newer).count();
            if left > 0 {
                watch.gap(&self.name, &format!("{left} files were compressed before they were read"));
            }
            return self.begin(rest.into_iter().chain(current), mark.offset);
        }
        rotated.retain(|one| one.time > mark.time);
        let left = compressed.iter().filter(|(_, time)| *time > mark.time).count();
        // Rotation has taken the name from what is open here, and perhaps made a compressed copy of it.
        let held = match held {
            Some(held) => {
                Some(Opened { size: held.file.metadata()?.len(), ..held }).filter(|held| mark.is_in(held))
            }
            None => None,
        };
        if held.is_none() && !mark.head.is_empty() {
            watch.gap(&self.name, &format!("what was being read is gone; files compressed since: {left}"));
            // Said once.
            self.mark = Some(Mark::lost(mark.time));
        } else if held.is_some() && left > 1 {
            watch.gap(&self.name, &format!("{left} files were compressed before they were read"));
        }
        let offset = if held.is_some() { mark.offset } else { 0 };
        self.begin(held.into_iter().chain(rotated).chain(current), offset)
    }

    fn begin(&mut self, files: impl IntoIterator<Item = Opened>, offset: u64) -> io::Result<bool> {
        self.next = files.into_iter().filter(|one| one.size > 0).collect();
        self.now = self.next.pop_front().map(|first| Reader::new(first, offset)).transpose()?;
        Ok(self.now.is_some())
    }

    /// Files that were written last in the same moment of the file system's clock are in the order of their names, or of their
    /// numbers (`audit.log.2`, `audit.log.1`).
    fn number(&self, one: &Opened) -> Reverse<u64> {
        let base = self.name.rsplit('/').next().unwrap_or_default();
        let number = one.name.strip_prefix(base).and_then(|rest| rest.strip_prefix('.')?.parse().ok());
        Reverse(number.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
