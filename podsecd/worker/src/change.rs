//! A change to the host that a crash at any moment leaves whole: the one mechanism for all of them.
//!
//! A change is a list of [`Act`]s. Each says what it would do to the host as it is now, so the same list is the plan of a
//! dry run, does nothing the second time, and goes on where it was left. Before the first act a note of the whole
//! request is on disk; it goes when the last is done. Whoever finds a note completes the change, or undoes it where it
//! made nothing that anybody could see: podsecd's start does, before it serves, and every change before its own.
//!
//! Must not: write a secret down ([`podsec_policy::secret`] refuses to be).

use crate::fault::point;
use crate::store::{at, remove};
use crate::{Failure, Report};
use podsec_policy::config::Config;
use podsec_policy::operation::{Method, Operation};
use podsec_policy::reason::Reason;
use podsec_policy::rules::rule;
use podsec_sys::file;
use podsec_sys::nix::fcntl::Flock;
use podsec_wire::messages::{Change as Done, FromWorker, Job, Recovered, Step};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// One act of a change.
#[derive(Debug)]
pub struct Act<C> {
    /// As the audit names it.
    pub step: Step,
    /// What is to be done, as a sentence; `None`: nothing.
    pub todo: fn(&C) -> Result<Option<String>, Failure>,
    /// Does it.
    pub run: fn(&mut C) -> Result<(), Failure>,
}

/// Something that is done in several acts.
pub trait Change: Sized + 'static {
    /// In this order.
    const ACTS: &'static [Act<Self>];
    /// Is there anything of it yet? Found after a crash, a change that has not begun is forgotten.
    fn has_begun(&self) -> Result<bool, Failure> {
        Ok(true)
    }
    /// Takes back what it made, where an act fails and that is to be had. What it only completed stays.
    fn undo(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// What a person should know about what was done.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Nobody else changes users and keys as long as this lives.
#[derive(Debug)]
pub struct Changes<'a> {
    config: &'a Config,
    _lock: Flock<File>,
}

/// On disk while a change goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Of the form of this; another is left for the podsecd that wrote it.
    version: u32,
    id: String,
    uid: u32,
    operation: Operation,
}

const VERSION: u32 = 1;
/// Times 50 ms.
const PATIENCE: u32 = 200;

impl<'a> Changes<'a> {
    /// Waits for others, and until what one of them has left is completed or undone. A worker that has what it takes
    /// does that itself; another waits for the one that podsecd has started for it.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn begin(config: &'a Config, method: Method, report: &mut Report) -> Result<Self, Failure> {
        report.waiting(Step::Lock);
        let state = &config.audit.state;
        for name in ["users", "keys", "trust", "signatures", "journal"] {
            let path = state.join(name);
            podsec_sys::process::make_root_owned(&path, 0o700).map_err(at(&path))?;
        }
        let can_recover = rule(method).map(|rule| rule.by) == rule(Method::CreateUser).map(|rule| rule.by);
        let path = state.join("users.lock");
        for _ in 0..PATIENCE {
            let changes = Self { config, _lock: file::lock(&path).map_err(at(&path))? };
            if can_recover {
                changes.recover(report)?;
                return Ok(changes);
            }
            let journal = state.join("journal");
            if std::fs::read_dir(&journal).map_err(at(&journal))?.next().is_none() {
                return Ok(changes);
            }
            drop(changes);
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = "a change that a crash left half done is not completed; podsecd's log says why";
        Err(Failure::new(Reason::Resources, text))
    }

    fn recover(&self, report: &mut Report) -> Result<(), Failure> {
        let directory = self.config.audit.state.join("journal");
        for entry in std::fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            if path.extension().is_some() {
                // Half written, so nothing was begun.
                std::fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            let text = std::fs::read(&path).map_err(at(&path))?;
            let note: Note = serde_json::from_slice(&text).map_err(|error| left(&path, error))?;
            if note.version != VERSION {
                return Err(left(&path, format!("version {}", note.version)));
            }
            let Note { id, uid, operation, .. } = note;
            let (method, target) = (operation.method(), podsec_policy::audit::escape(&operation.target()));
            let job = Job { id, uid, operation, config: Box::new(self.config.clone()) };
            let completed = crate::recover(self, &job, report)?;
            point("journal-end")?;
            remove(&path)?;
            let recovered = Recovered { id: job.id, method, target, uid, completed };
            let _ = report.gate.send(&FromWorker::Recovered(Box::new(recovered)), &[]);
        }
        Ok(())
    }

    /// Does all that is to be done, or says what it would be.
    ///
    /// # Errors
    /// of the act that failed, after undoing
    pub fn carry_out<C: Change>(
        &self,
        change: &mut C,
        job: &Job,
        dry_run: bool,
        report: &mut Report,
    ) -> Result<Done, Failure> {
        report.step(Step::Plan);
        let mut steps = Vec::new();
        for act in C::ACTS {
            steps.extend((act.todo)(change)?);
        }
        if !dry_run && !steps.is_empty() {
            let path = self.config.audit.state.join("journal").join(&job.id);
            let (id, uid, operation) = (job.id.clone(), job.uid, without_secrets(&job.operation));
            let note = serde_json::to_vec(&Note { version: VERSION, id, uid, operation });
            let note = note.map_err(|error| Failure::new(Reason::Bug, error))?;
            file::replace(&path, &note, 0o600).map_err(at(&path))?;
            let result = forward(change, report);
            let undone = if result.is_err() { change.undo() } else { Ok(()) };
            // Where this fails the note stays, and is no other than one that a crash has left.
            let ended = undone.and_then(|()| point("journal-end")).and_then(|()| remove(&path));
            ended.map_err(|failure| Failure { reason: Reason::HelperLost, ..failure })?;
            steps = result?;
        }
        Ok(Done { steps, warnings: change.warnings(), fingerprint: None })
    }

    /// After a crash: was it completed, or undone?
    ///
    /// # Errors
    /// when neither could be done; it is tried again
    pub fn complete<C: Change>(&self, change: &mut C, report: &mut Report) -> Result<bool, Failure> {
        if !change.has_begun()? {
            return Ok(false);
        }
        match forward(change, report) {
            Ok(_) => Ok(true),
            Err(_) => change.undo().map(|()| false),
        }
    }
}

fn forward<C: Change>(change: &mut C, report: &mut Report) -> Result<Vec<String>, Failure> {
    let mut done = Vec::new();
    for act in C::ACTS {
        let Some(text) = (act.todo)(change)? else { continue };
        report.waiting(act.step);
        point(&format!("before-{}", act.step.name()))?;
        (act.run)(change)?;
        point(&format!("after-{}", act.step.name()))?;
        done.push(text);
    }
    Ok(done)
}

/// What is needed to complete it after a crash: a key that was to be made with a passphrase is not made then.
fn without_secrets(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    if let Operation::CreateUser(user) = &mut operation {
        user.key = None;
    }
    operation
}

fn left(path: &Path, why: impl std::fmt::Display) -> Failure {
    let path = path.display();
    Failure::new(Reason::Bug, format!("{path} was left by another podsecd, which has to complete it: {why}"))
}
