//! Reading the audit: the current file and the rotated ones beside it, in the order of their chain. Root's own files,
//! read by root without a capability.

use crate::{Failure, Report};
use podsec_policy::audit::{self, Filter, Head, LinkError, Record};
use podsec_policy::reason::Reason;
use podsec_sys::process::wait_readable;
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Reply, Step};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a follower looks for news.
const LOOK: Duration = Duration::from_millis(200);

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure::new(Reason::Resources, format!("{}: {error}", path.display()))
}

/// The audit's file and what rotation made of earlier ones (`audit.jsonl.1`, `audit.jsonl-20260102`), oldest first by
/// the number of their first record. Compressed ones are left to zcat.
fn files(current: &Path) -> Result<Vec<PathBuf>, Failure> {
    let (Some(directory), Some(name)) = (current.parent(), current.file_name()) else {
        return Err(Reason::Bug.into());
    };
    let name = name.to_string_lossy();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io(directory))? {
        let path = entry.map_err(io(directory))?.path();
        let is_one = path.file_name().is_some_and(|other| other.to_string_lossy().starts_with(&*name));
        if is_one && path.is_file() {
            let first = lines(&path)?.find_map(|line| Some(audit::link(&line.ok()?).ok()?.0.seq));
            match first {
                Some(seq) => found.push((seq, path)),
                // Nothing in it yet; only the current one is worth keeping.
                None if path == current => found.push((u64::MAX, path)),
                None => {}
            }
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn lines(path: &Path) -> Result<impl Iterator<Item = std::io::Result<Vec<u8>>>, Failure> {
    Ok(BufReader::new(File::open(path).map_err(io(path))?).split(b'\n'))
}

/// The line, if it is a record that the filter lets through.
fn passing(line: &[u8], filter: &Filter) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let record: Record = serde_json::from_str(text).ok()?;
    filter.passes(&record).then(|| text.to_owned())
}

fn send(front: &Channel, record: String) -> Result<(), Failure> {
    // Waits when the reader does; a reader that is gone ends this.
    front.send(&Reply::Record(record), &[]).map_err(|_| Reason::NotAttached.into())
}

/// `AuditQuery`
pub fn query(job: &Job, filter: &Filter, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Read);
    read_all(&job.config.audit.path, filter, front)?;
    Ok(Reply::End)
}

/// Sends what is there, and gives the number of the last record that was looked at.
fn read_all(current: &Path, filter: &Filter, front: &Channel) -> Result<u64, Failure> {
    let (mut newest, mut seen) = (VecDeque::new(), 0);
    let last = filter.last.and_then(|last| usize::try_from(last).ok()).filter(|&last| last > 0);
    for path in files(current)? {
        for line in lines(&path)? {
            let line = line.map_err(io(&path))?;
            seen = audit::link(&line).map_or(seen, |(head, _)| head.seq);
            let Some(record) = passing(&line, filter) else { continue };
            let Some(last) = last else {
                send(front, record)?;
                continue;
            };
            if newest.len() == last {
                newest.pop_front();
            }
            newest.push_back(record);
        }
    }
    newest.into_iter().try_for_each(|record| send(front, record))?;
    Ok(seen)
}

/// `AuditFollow`: until the reader stops.
pub fn follow(job: &Job, filter: &Filter, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Read);
    let mut tail = Tail::open(&job.config.audit.path)?;
    // Opened before the past is read, so nothing in between is missed; numbers tell what was shown already.
    tail.seen = read_all(&job.config.audit.path, filter, front)?;
    while !wait_readable(&[front.as_fd()], Some(LOOK)).map_err(io(&job.config.audit.path))? {
        let there = std::fs::metadata(&job.config.audit.path).map(|there| there.ino());
        tail.send_new(&job.config.audit.path, filter, front)?;
        let ours = tail.file.metadata().map_err(io(&job.config.audit.path))?.ino();
        if there.is_ok_and(|there| there != ours) {
            // Rotated, and the old file was read to its end just now.
            tail = Tail { seen: tail.seen, ..Tail::open(&job.config.audit.path)? };
        }
    }
    Ok(Reply::End)
}

/// The end of a file that grows.
struct Tail {
    file: File,
    position: u64,
    line: Vec<u8>,
    seen: u64,
}

impl Tail {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(io(path))?;
        Ok(Self { file, position: 0, line: Vec::new(), seen: 0 })
    }

    fn send_new(&mut self, path: &Path, filter: &Filter, front: &Channel) -> Result<(), Failure> {
        let mut reader = BufReader::new(&self.file);
        reader.seek(SeekFrom::Start(self.position)).map_err(io(path))?;
        loop {
            let read = reader.read_until(b'\n', &mut self.line).map_err(io(path))?;
            self.position += read as u64;
            if self.line.last() != Some(&b'\n') {
                // The end, or a line that is being written.
                return Ok(());
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let Ok((head, _)) = audit::link(line) else { continue };
            if head.seq <= self.seen {
                continue;
            }
            self.seen = head.seq;
            if let Some(record) = passing(line, filter) {
                send(front, record)?;
            }
        }
    }
}

/// `AuditVerify`: names the first link that does not hold.
pub fn verify(job: &Job, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Read);
    let (mut head, mut records, mut count) = (None::<Head>, 0, 0);
    for path in files(&job.config.audit.path)? {
        count += 1;
        for (index, line) in lines(&path)?.enumerate() {
            let line = line.map_err(io(&path))?;
            let next = match head {
                Some(head) => audit::verify(head, &line),
                // The oldest file that is still there begins wherever rotation has cut.
                None => first(&line),
            };
            match next {
                Ok(next) => head = Some(next),
                Err(error) => {
                    let broken = Some((path.display().to_string(), index as u64 + 1, error.to_string()));
                    return Ok(Reply::Verified { records, files: count, broken });
                }
            }
            records += 1;
        }
    }
    Ok(Reply::Verified { records, files: count, broken: None })
}

fn first(line: &[u8]) -> Result<Head, LinkError> {
    let (head, prev) = audit::link(line)?;
    if head.seq == 1 && prev != Head::GENESIS.hash {
        return Err(LinkError::Missing);
    }
    Ok(head)
}
