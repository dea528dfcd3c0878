//! Who judges: the user podsec-monitor, without a capability and with nothing to reach but the report. It hears of events from
//! the source and from followers, asks about containers, and writes down what it comes to, once a second at most.

use super::Settings;
use super::asker::{Answer, Question};
use super::ledger::Ledger;
use super::message::{Container, How, LONGEST, Message, messages, send};
use crate::cage::{self, Files};
use crate::report;
use podsec_policy::finding::{Check, Outcome, Report};
use podsec_sys::{process, socket};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

const OFTEN: Duration = Duration::from_secs(1);
/// So often it says that it is there, though nothing happens.
const SELDOM: Duration = Duration::from_secs(30);
const DAY: u64 = 24 * 60 * 60;
/// A follower that has ended is started again after that.
const AGAIN: Duration = Duration::from_secs(5);
/// Bytes of memory.
const MEMORY: u64 = 512 << 20;
/// Of a report that takes long to write, the share of the time that goes there.
const SHARE: u32 = 10;

struct Judge {
    ledger: Ledger,
    report: Report,
    keep: u64,
    written: Instant,
    took: Duration,
    /// Answers that have come in part.
    parts: HashMap<u32, Vec<Container>>,
    followers: HashMap<u32, OwnedFd>,
    /// Those that have ended, and when they are started again.
    ended: BTreeMap<u32, Instant>,
    source: OwnedFd,
    asker: OwnedFd,
}

/// Until the source ends.
///
/// # Errors
/// says what cannot be read or written
pub fn run(source: OwnedFd, asker: OwnedFd, settings: &Settings) -> Result<(), String> {
    let directory = report::directory(Check::Containers);
    report::account()?.become_it().map_err(|error| format!("becoming {}: {error}", report::USER))?;
    cage::shut(Files::Own(&directory), MEMORY)?;
    let _alone = report::alone(&directory.join("lock"))?;
    let report = report::load(Check::Containers).unwrap_or_else(|error| {
        eprintln!("podsec-monitor: {error}; begun anew");
        Report::new(Check::Containers)
    });
    let mut judge = Judge {
        ledger: Ledger::new(settings.rules.clone()),
        report,
        keep: u64::from(settings.keep_days).saturating_mul(DAY),
        written: Instant::now(),
        took: Duration::ZERO,
        parts: HashMap::new(),
        followers: HashMap::new(),
        ended: BTreeMap::new(),
        source,
        asker,
    };
    judge.write(Some(Instant::now()))?;
    let followed = judge.follow();
    // Whatever ended it: what was seen is written down.
    judge.write(None).and(followed.map_err(|error| error.to_string()))
}

impl Judge {
    fn follow(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        loop {
            let mut fds = vec![self.source.as_fd(), self.asker.as_fd()];
            fds.extend(self.followers.values().map(|follower| follower.as_fd()));
            process::wait_readable(&fds, Some(self.left()))?;
            let now = Instant::now();
            if is_ready(&self.asker)? && !self.answered(now, &mut buffer)? {
                return Err(io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the process that asks owners has ended",
                ));
            }
            if is_ready(&self.source)? && !self.heard(now, &mut buffer)? {
                return Ok(());
            }
            self.hear_followers(now, &mut buffer)?;
            while let Some(entry) = self.ended.first_entry().filter(|entry| *entry.get() <= now) {
                send(&self.asker, &Question::Follow(entry.remove_entry().0), &[])?;
            }
            for store in self.ledger.questions(now) {
                send(&self.asker, &Question::Containers(store), &[])?;
            }
            if self.is_due(now) {
                self.write(Some(now)).map_err(io::Error::other)?;
            }
        }
    }

    /// Until there is something to do though nothing happens.
    fn left(&self) -> Duration {
        let wait = if self.ledger.is_dirty() { OFTEN.max(self.took * SHARE) } else { SELDOM };
        let write = self.written + wait;
        let next =
            self.ledger.next().into_iter().chain(self.ended.values().copied()).fold(write, Instant::min);
        next.saturating_duration_since(Instant::now())
    }

    fn is_due(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.written);
        since >= SELDOM || self.ledger.is_dirty() && since >= OFTEN.max(self.took * SHARE)
    }

    /// A packet from the source; false: it has ended.
    fn heard(&mut self, now: Instant, buffer: &mut [u8]) -> io::Result<bool> {
        let (length, _) = socket::receive(&self.source, buffer)?;
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            let message = message?;
            match message {
                Message::Opened { store, how, .. } => {
                    self.followers.remove(&store);
                    self.ended.remove(&store);
                    if how == How::Inotify {
                        send(&self.asker, &Question::Follow(store), &[])?;
                    }
                }
                Message::Closed { store } => {
                    self.followers.remove(&store);
                    self.ended.remove(&store);
                }
                _ => {}
            }
            self.ledger.take(now, message);
        }
        Ok(length > 0)
    }

    /// A packet from the asker; false: it has ended.
    fn answered(&mut self, now: Instant, buffer: &mut [u8]) -> io::Result<bool> {
        let (length, mut descriptors) = socket::receive(&self.asker, buffer)?;
        for answer in messages(buffer.get(..length).unwrap_or_default()) {
            match answer? {
                Answer::Containers { store, containers, all } => {
                    let part = self.parts.entry(store).or_default();
                    part.extend(containers);
                    if all {
                        let containers = self.parts.remove(&store).unwrap_or_default();
                        self.ledger.answer(now, store, containers);
                    }
                }
                Answer::Failed { store, why } => self.ledger.failed(now, store, why),
                Answer::Following { store } => {
                    // What was made and removed meanwhile nobody has seen.
                    self.ledger.take_of(
                        now,
                        store,
                        Message::Missed { store, owner: String::new(), why: String::new() },
                    );
                    self.ledger.unknown(now, store);
                    self.followers.extend(descriptors.pop().map(|follower| (store, follower)));
                }
            }
        }
        Ok(length > 0)
    }

    /// Packets from followers. One that has ended, since its owner may end it, is started again a little later.
    fn hear_followers(&mut self, now: Instant, buffer: &mut [u8]) -> io::Result<()> {
        let mut ended = Vec::new();
        for (&store, follower) in &self.followers {
            if !is_ready(follower)? {
                continue;
            }
            let length = socket::receive(follower, buffer).map_or(0, |(length, _)| length);
            if length == 0 {
                ended.push(store);
            }
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                match message {
                    Ok(message) => self.ledger.take_of(now, store, message),
                    Err(_) => ended.push(store),
                }
            }
        }
        for store in ended {
            self.followers.remove(&store);
            self.ended.insert(store, now + AGAIN);
            let why = "who followed it as its owner has ended, and is started again";
            self.ledger.take_of(now, store, Message::Missed { store, owner: String::new(), why: why.into() });
        }
        Ok(())
    }

    /// Without a time: all that is left.
    fn write(&mut self, time: Option<Instant>) -> Result<(), String> {
        self.ledger.tick(time);
        let (began, now) = (Instant::now(), report::now());
        self.report.forget(now.saturating_sub(self.keep));
        self.ledger.drain(now, &mut self.report);
        let missed = self.ledger.missed();
        self.report.outcome = if missed.is_empty() { Outcome::Complete } else { Outcome::Partial { missed } };
        self.report.time = now;
        report::save(&self.report)?;
        self.took = began.elapsed();
        self.report.took = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        self.written = Instant::now();
        Ok(())
    }
}

fn is_ready(fd: &OwnedFd) -> io::Result<bool> {
    process::wait_readable(&[fd.as_fd()], Some(Duration::ZERO))
}
