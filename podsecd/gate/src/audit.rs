//! Writes the audit: the file with its hash chain, the chain's end, the operations that are open, and journald.

use podsec_policy::audit::{self, Head, Phase, Record};
use podsec_policy::config;
use podsec_policy::peer::{Peer, Roles};
use podsec_sys::process::Trace;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An operation whose intent is written and whose outcome is not, as kept on disk until it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Open {
    /// 128 random bits in hex; also the name of its file.
    pub id: String,
    /// Method name.
    pub op: String,
    /// Of the peer.
    pub uid: u32,
    /// Of the peer.
    pub login_uid: Option<u32>,
    /// Of the peer.
    pub pid: i32,
    /// Of the peer.
    pub roles: Roles,
    /// Escaped.
    pub target: String,
    /// Of the intent.
    pub micros: u64,
    /// By which the worker is found again.
    pub worker: Trace,
}

impl Open {
    /// A record about it, of this moment.
    pub fn record(&self, phase: Phase) -> Record {
        let now = now();
        let ms = (phase != Phase::Intent).then(|| now.saturating_sub(self.micros) / 1000);
        Record {
            micros: if phase == Phase::Intent { self.micros } else { now },
            phase,
            id: self.id.clone(),
            op: self.op.clone(),
            uid: self.uid,
            login_uid: self.login_uid,
            pid: self.pid,
            roles: self.roles.names(),
            target: self.target.clone(),
            ms,
            ..Record::default()
        }
    }
}

/// Wall clock, microseconds since 1970. Only for records; deadlines are on the monotonic clock.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The audit, open for writing.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    /// A note of each open operation, in a slot of its own; by id, which.
    operations: File,
    slots: BTreeMap<String, usize>,
    file: File,
    end: File,
    head: Head,
    /// Id of the operation whose outcome is the last line of an earlier podsecd.
    ended: String,
    journal: Option<UnixDatagram>,
    writable: bool,
}

/// No line is longer: every part of a record is bounded.
const LINE: usize = 8 * 1024;
/// Nor is a note half of this long.
const SLOT: usize = 4096;
const JOURNAL: &str = "/run/systemd/journal/socket";

impl Audit {
    /// Opens the audit and finds the end of its chain.
    ///
    /// # Errors
    /// when a file or directory cannot be made or is not root's
    pub fn open(config: &config::Audit) -> io::Result<Self> {
        for directory in [config.path.parent(), Some(&config.state)].into_iter().flatten() {
            podsec_sys::process::make_root_owned(directory, 0o700).map_err(at(directory))?;
        }
        let end = open_note(&config.state.join("audit.end"))?;
        let mut audit = Self {
            path: config.path.clone(),
            operations: open_note(&config.state.join("audit.open"))?,
            slots: BTreeMap::new(),
            file: open_log(&config.path).map_err(at(&config.path))?,
            head: read_end(&end),
            end,
            ended: String::new(),
            journal: None,
            writable: true,
        };
        audit.catch_up()?;
        if config.journald {
            // Without a journal there is nothing to connect to, and nothing lost.
            audit.journal =
                UnixDatagram::unbound().ok().filter(|journal| journal.set_nonblocking(true).is_ok());
        }
        Ok(audit)
    }

    /// Was the last record written?
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// A crash may have cut the last line, or come between the line and the note of the chain's end. The line
    /// counts if it is whole and follows. A torn one never counted: it is taken back, and told in a record, so that
    /// the chain stays whole. Had it been a whole one that somebody cut, the chain would go on after it, with a gap.
    fn catch_up(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut tail = Vec::new();
        self.file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        (&self.file).take(64 * 1024).read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let torn = tail.split_off(whole);
        let mut lines = tail.split(|&byte| byte == b'\n');
        if let Some(last) = lines.rfind(|line| audit::link(line).is_ok()) {
            self.ended = audit::ended(last).unwrap_or_default().to_owned();
            if let Ok((head, _)) = audit::link(last)
                && head.seq > self.head.seq
            {
                self.head = head;
            }
        }
        if torn.len() > LINE {
            // Nothing of ours; it stays, and the next record has a line of its own.
            return self.file.write_all(b"\n");
        }
        if !torn.is_empty() {
            self.file.set_len(length - torn.len() as u64)?;
            let nobody = Peer { uid: 0, gid: 0, groups: Vec::new(), pid: 0, login_uid: None };
            let torn = audit::escape(&torn);
            let record = Record::denial(now(), &nobody, Roles::NONE, "", torn.clone(), "torn-line");
            if let Err(error) = self.append(&Record { phase: Phase::Recovered, ..record }) {
                eprintln!("podsecd: a crash had cut the last line of the audit ({torn}): {error}");
            }
        }
        Ok(())
    }

    /// Adds a record. It is in the file, or this is an error and the file is as it was.
    ///
    /// # Errors
    /// write(2)
    pub fn append(&mut self, record: &Record) -> io::Result<()> {
        let result = self.try_append(record);
        self.writable = result.is_ok();
        result
    }

    fn try_append(&mut self, record: &Record) -> io::Result<()> {
        let before = self.follow_rotation()?;
        let (mut line, head) = record.line(self.head);
        line.push('\n');
        // One write: other readers see the line whole or not yet. What a full disk cut off is taken back.
        match self.file.write(line.as_bytes()) {
            Ok(written) if written == line.len() => {}
            result => {
                let _ = self.file.set_len(before);
                return Err(result.err().unwrap_or_else(|| io::ErrorKind::StorageFull.into()));
            }
        }
        self.head = head;
        // Should this fail, the next start finds the end in the line above.
        let _ = self.end.write_all_at(format!("{:020} {}\n", head.seq, audit::hex(&head.hash)).as_bytes(), 0);
        if let Some(journal) = &self.journal {
            // Best effort: the file is the audit.
            let _ = journal.send_to(record.datagram().as_bytes(), JOURNAL);
        }
        Ok(())
    }

    /// Somebody renamed the file away (logrotate(8)), or removed it: the chain goes on in a new one. Gives how long the
    /// one in use is.
    fn follow_rotation(&mut self) -> io::Result<u64> {
        let ours = self.file.metadata()?;
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
            return Ok(ours.len());
        }
        self.file = open_log(&self.path)?;
        Ok(self.file.metadata()?.len())
    }

    /// Writes the intent and remembers the operation, with the number that its intent will have.
    ///
    /// # Errors
    /// as [`Audit::append`]
    pub fn begin(&mut self, open: &Open) -> io::Result<()> {
        let noted = self.note(open, self.head.seq + 1);
        let result = noted.and_then(|()| self.append(&open.record(Phase::Intent)));
        if result.is_err() {
            self.writable = false;
            let _ = self.forget(open);
        }
        result
    }

    /// Notes where the worker of an open operation is now.
    ///
    /// # Errors
    /// write(2)
    pub fn moved(&mut self, open: &Open) -> io::Result<()> {
        self.note(open, self.head.seq)
    }

    /// By one write, and over what was there: whoever is killed meanwhile leaves the old text or the new one. A rest of
    /// a longer old one is not read.
    fn note(&mut self, open: &Open, seq: u64) -> io::Result<()> {
        let mut room = [0; SLOT];
        let note = postcard::to_slice(&(seq, open), &mut room).map_err(io::Error::other)?;
        let is_free = |slot: &usize| self.slots.values().all(|taken| taken != slot);
        let slot = self.slots.get(&open.id).copied().or_else(|| (0..).find(is_free)).unwrap_or_default();
        self.slots.insert(open.id.clone(), slot);
        self.operations.write_all_at(note, (slot * SLOT) as u64)
    }

    fn forget(&mut self, open: &Open) -> io::Result<()> {
        let Some(slot) = self.slots.remove(&open.id) else { return Ok(()) };
        // No record has the number 0.
        self.operations.write_all_at(&[0], (slot * SLOT) as u64)
    }

    /// Writes the outcome and forgets the operation. If it cannot be written, the operation stays open on disk,
    /// and the next start records it as recovered.
    ///
    /// # Errors
    /// as [`Audit::append`]
    pub fn end(&mut self, open: &Open, record: &Record) -> io::Result<()> {
        self.append(record)?;
        self.forget(open)
    }

    /// What the last podsecd left open: an intent was written, and no outcome.
    ///
    /// # Errors
    /// read(2)
    pub fn left_open(&mut self) -> io::Result<Vec<Open>> {
        let (mut notes, mut found) = (Vec::new(), Vec::new());
        self.operations.seek(SeekFrom::Start(0))?;
        self.operations.read_to_end(&mut notes)?;
        for (slot, note) in notes.chunks(SLOT).enumerate() {
            if let Ok((seq, open)) = postcard::from_bytes::<(u64, Open)>(note)
                && (1..=self.head.seq).contains(&seq)
                && open.id != self.ended
            {
                self.slots.insert(open.id.clone(), slot);
                found.push(open);
            } else {
                // Free; or a crash came before the intent was written, so that nothing was done, or right after the outcome.
                self.operations.write_all_at(&[0], (slot * SLOT) as u64)?;
            }
        }
        Ok(found)
    }
}

fn open_note(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(at(path))
}

/// Says where it went wrong.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open_log(path: &Path) -> io::Result<File> {
    const O_NOFOLLOW: i32 = podsec_sys::nix::libc::O_NOFOLLOW;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(O_NOFOLLOW)
        .open(path)?;
    podsec_sys::process::require_root_owned(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a plain file", path.display()),
        ));
    }
    Ok(file)
}

fn read_end(file: &File) -> Head {
    let mut text = [0; 85];
    let mut read = || {
        file.read_exact_at(&mut text, 0).ok()?;
        let (seq, hash) = text.split_at_checked(20)?;
        let seq = std::str::from_utf8(seq).ok()?.parse().ok()?;
        Some(Head { seq, hash: audit::unhex(hash.get(1..65)?)? })
    };
    read().unwrap_or(Head::GENESIS)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(PathBuf);
    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn place(name: &str) -> Option<(Place, config::Audit)> {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("not root: the audit refuses directories that are not root's");
            return None;
        }
        let base = PathBuf::from(format!("/run/podsec-audit-{name}-{}", std::process::id()));
        let config =
            config::Audit { path: base.join("log/audit.jsonl"), state: base.join("state"), journald: false };
        Some((Place(base), config))
    }

    fn open_operation(id: &str) -> Open {
        let roles = Roles::NONE;
        let (id, op, target) = (id.into(), "NamespaceService/Enter".into(), "x".into());
        Open { id, op, uid: 1, login_uid: None, pid: 1, roles, target, micros: now(), worker: (1, 1) }
    }

    fn verify(paths: &[&Path]) -> Result<u64, (usize, audit::LinkError)> {
        let text: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let mut head = Head::GENESIS;
        for (index, line) in text.lines().enumerate() {
            head = audit::verify(head, line.as_bytes()).map_err(|error| (index + 1, error))?;
        }
        Ok(head.seq)
    }

    #[test]
    fn chain_survives_restart_rotation_and_a_torn_line() {
        let Some((_place, config)) = place("chain") else { return };
        let mut audit = Audit::open(&config).unwrap();
        let (a, b) = (open_operation("a"), open_operation("b"));
        audit.begin(&a).unwrap();
        audit.begin(&b).unwrap();
        audit.end(&a, &a.record(Phase::Done)).unwrap();
        drop(audit);
        let mut audit = Audit::open(&config).unwrap();
        assert_eq!(audit.left_open().unwrap().iter().map(|open| open.id.as_str()).collect::<Vec<_>>(), ["b"]);
        let rotated = config.path.with_extension("jsonl.1");
        std::fs::rename(&config.path, &rotated).unwrap();
        audit.end(&b, &b.record(Phase::Recovered)).unwrap();
        drop(audit);
        assert_eq!(verify(&[&rotated, &config.path]), Ok(4));
        // the end of the chain is known though the file that held it is gone
        std::fs::rename(&config.path, config.path.with_extension("jsonl.0")).unwrap();
        let mut audit = Audit::open(&config).unwrap();
        audit.begin(&a).unwrap();
        assert_eq!(verify(&[&rotated, &config.path.with_extension("jsonl.0"), &config.path]), Ok(5));
        drop(audit);
        let mut torn = std::fs::read_to_string(&config.path).unwrap();
        torn.push_str("{\"seq\":6,\"ti");
        podsec_sys::file::replace(&config.path, torn.as_bytes(), 0o600).unwrap();
        Audit::open(&config).unwrap().end(&a, &a.record(Phase::Recovered)).unwrap();
        let text = std::fs::read_to_string(&config.path).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.lines().nth(1).unwrap().contains(r#""target":"{\"seq\":6,\"ti","reason":"torn-line""#),
            "{text}"
        );
        assert_eq!(verify(&[&rotated, &config.path.with_extension("jsonl.0"), &config.path]), Ok(7));
        // a whole line that was cut is no torn one: it had been counted
        podsec_sys::file::replace(&config.path, &text.as_bytes()[..text.len() - 9], 0o600).unwrap();
        Audit::open(&config).unwrap();
        let broken = verify(&[&rotated, &config.path.with_extension("jsonl.0"), &config.path]);
        assert_eq!(broken.unwrap_err(), (7, audit::LinkError::Missing));
    }

    #[test]
    fn a_crash_between_two_writes_neither_adds_nor_loses_an_outcome() {
        let Some((_place, config)) = place("between") else { return };
        let mut audit = Audit::open(&config).unwrap();
        let (a, b) = (open_operation("a"), open_operation("b"));
        let left = || {
            let mut audit = Audit::open(&config).unwrap();
            audit.left_open().unwrap().into_iter().map(|open| open.id).collect::<Vec<_>>()
        };
        // b is remembered, and its intent not yet written
        audit.begin(&a).unwrap();
        let notes = open_note(&config.state.join("audit.open")).unwrap();
        notes.write_all_at(&postcard::to_stdvec(&(2_u64, &b)).unwrap(), SLOT as u64).unwrap();
        assert_eq!(left(), ["a"]);
        // it does not come back when others have had that number
        audit.append(&b.record(Phase::Recovered)).unwrap();
        assert_eq!(left(), ["a"]);
        // a moves to a worker with shorter numbers
        let short = |worker| Open { worker, ..a.clone() };
        audit.moved(&short((4_000_000, u64::MAX))).unwrap();
        audit.moved(&short((1, 1))).unwrap();
        assert_eq!(left(), ["a"]);
        assert_eq!(audit.left_open().unwrap()[0].worker, (1, 1));
        // the outcome of a is written, and a not yet forgotten
        let mut remembered = [0; SLOT];
        assert!(notes.read_at(&mut remembered, 0).unwrap() > 100);
        audit.end(&a, &a.record(Phase::Done)).unwrap();
        notes.write_all_at(&remembered, 0).unwrap();
        assert!(left().is_empty());
        // slots are used again, the lowest first
        audit.begin(&b).unwrap();
        audit.begin(&a).unwrap();
        assert_eq!(left(), ["b", "a"]);
        assert!(notes.metadata().unwrap().len() < 2 * SLOT as u64);
    }

    #[test]
    fn refuses_what_is_not_roots_alone() {
        let Some((place, config)) = place("owner") else { return };
        std::fs::create_dir_all(place.0.join("log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &config.path).unwrap();
        assert!(Audit::open(&config).is_err());
        std::fs::remove_file(&config.path).unwrap();
        std::os::unix::fs::fchown(File::open(place.0.join("log")).unwrap(), Some(1), None).unwrap();
        assert_eq!(Audit::open(&config).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
