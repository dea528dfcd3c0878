//! One question about each of many users: several under way at once, the answers in the order of the users, progress
//! for whoever waits, and an exit status for all of it. A failure with one does not stop the others.

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, Verb, aside, clean, count};
use podsec_policy::name::AccountName;
use podsec_proto::v1::UserChange;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tonic::Status;

/// Who waits no longer than this need not know how far it is.
const SOON: Duration = Duration::from_secs(1);

/// Asks all, and shows the answers in the order of the questions, each as soon as it and those before it are there.
///
/// # Errors
/// What `show` says; and no more is asked
pub fn each<T, F>(
    daemon: &Daemon,
    questions: Vec<F>,
    mut show: impl FnMut(usize, Result<T, Failure>) -> Result<(), Failure>,
) -> Result<(), Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<tonic::Response<T>, Status>> + Send + 'static,
{
    let mut progress = Progress::new(questions.len(), std::io::stderr().is_terminal());
    let mut early = BTreeMap::new();
    let mut next = 0;
    daemon.ask_each(questions, |heard| {
        if let Some((index, answer)) = heard {
            progress.done += 1;
            early.insert(index, answer);
        }
        if early.contains_key(&next) {
            progress.clear();
        }
        while let Some(answer) = early.remove(&next) {
            show(next, answer)?;
            next += 1;
        }
        progress.draw();
        Ok(())
    })
}

/// `12 of 200`, on a line of the terminal that it leaves as it was.
struct Progress {
    total: usize,
    done: usize,
    since: Instant,
    is_wanted: bool,
    shown: String,
}

impl Progress {
    fn new(total: usize, is_wanted: bool) -> Self {
        Self {
            total,
            done: 0,
            since: Instant::now(),
            is_wanted: is_wanted && total > 1,
            shown: String::new(),
        }
    }

    fn draw(&mut self) {
        let text = format!("{} of {}", self.done, self.total);
        let is_due = self.done < self.total && self.since.elapsed() >= SOON;
        if self.is_wanted && is_due && self.shown != text {
            put(&format!("\r{text}"));
            self.shown = text;
        }
    }

    fn clear(&mut self) {
        if !self.shown.is_empty() {
            put(&format!("\r{:1$}\r", "", self.shown.len()));
            self.shown.clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn put(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// How it went with all of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Something was done, or would be.
    pub changed: usize,
    /// Nothing was to do.
    pub same: usize,
    /// See stderr.
    pub failed: usize,
    /// Of the first failure.
    pub status: u8,
}

impl Tally {
    fn add(&mut self, answer: &Result<UserChange, Failure>) {
        match answer {
            Ok(change) if change.changed => self.changed += 1,
            Ok(_) => self.same += 1,
            Err(failure) => {
                if self.failed == 0 {
                    self.status = failure.exit_status();
                }
                self.failed += 1;
            }
        }
    }

    /// `200 users: 180 made, 15 as they were, 5 failed`
    fn sentence(&self, verb: Verb, dry_run: bool) -> String {
        let total = self.changed + self.same + self.failed;
        let done = if dry_run { format!("to {}", verb.todo) } else { verb.done.to_owned() };
        format!(
            "{}: {} {done}, {} as they were, {} failed",
            count(total as u64, "user"),
            self.changed,
            self.same,
            self.failed
        )
    }
}

/// Asks for a change to each of the users, and prints what came of it. `warnings` are ours, beside podsecd's, for a
/// user that is changed.
///
/// # Errors
/// Only of printing: what podsecd refuses is in the tally.
pub fn change<F>(
    context: &Context,
    daemon: &Daemon,
    (verb, dry_run): (Verb, bool),
    users: &[(AccountName, Vec<String>)],
    ask: impl Fn(usize) -> F,
) -> Result<Tally, Failure>
where
    F: Future<Output = Result<tonic::Response<UserChange>, Status>> + Send + 'static,
{
    let output = &context.output;
    let mut tally = Tally::default();
    let questions = (0..users.len()).map(ask).collect();
    each(daemon, questions, |index, answer| {
        let Some((name, warnings)) = users.get(index) else { return Ok(()) };
        let answer = answer.map(|mut change| {
            if change.changed {
                change.warnings.extend_from_slice(warnings);
            }
            change
        });
        tally.add(&answer);
        match answer {
            Err(failure) if output.is_json() => drop(output.object(&failed(name, &failure))?),
            Err(failure) => aside(&format!("podsecctl: {name}: {failure}")),
            Ok(change) if output.is_json() => {
                let mut object = object(&change);
                if let Value::Object(fields) = &mut object {
                    fields.insert("name".into(), name.as_str().into());
                }
                output.object(&object)?;
            }
            Ok(change) => {
                let steps = dry_run || users.len() == 1;
                let sentence = verb.sentence(name.as_str(), change.changed, dry_run);
                output.bytes(text(output, sentence, &change, steps).as_bytes())?;
            }
        }
        Ok(())
    })?;
    if users.len() > 1 && !output.is_json() {
        output.bytes((tally.sentence(verb, dry_run) + "\n").as_bytes())?;
    }
    Ok(tally)
}

/// One of many that was not done, for programs.
pub fn failed(name: &AccountName, failure: &Failure) -> Value {
    json!({ "name": name.as_str(), "error": failure.object() })
}

/// A change for programs.
pub fn object(change: &UserChange) -> Value {
    let mut object = json!({ "changed": change.changed, "steps": change.steps, "warnings": change.warnings });
    if let Value::Object(fields) = &mut object
        && !change.fingerprint.is_empty()
    {
        fields.insert("fingerprint".into(), change.fingerprint.as_str().into());
    }
    object
}

/// What was done, and below it the steps, where they are wanted, and what a person should know.
pub fn text(output: &Output, sentence: String, change: &UserChange, steps: bool) -> String {
    let mut lines = vec![sentence];
    let steps = change.steps.iter().filter(|_| steps);
    lines.extend(steps.map(|step| format!("  {}", clean(step))));
    if !change.fingerprint.is_empty() && !lines.iter().any(|line| line.contains(&change.fingerprint)) {
        lines.push(format!("  fingerprint of the key: {}", clean(&change.fingerprint)));
    }
    let warning = output.paint(Style::Warn, "warning:");
    lines.extend(change.warnings.iter().map(|text| format!("  {warning} {}", clean(text))));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told() {
        let change = UserChange {
            fingerprint: String::new(),
            changed: true,
            steps: vec!["wrote\x1b[2J".into()],
            warnings: vec!["no\nway".into()],
        };
        let told = |steps| text(&Output::plain(), "made carol".into(), &change, steps);
        assert_eq!(told(true), "made carol\n  wrote\\x1b[2J\n  warning: no\\x0away\n");
        assert_eq!(told(false), "made carol\n  warning: no\\x0away\n");
    }

    #[test]
    fn the_first_failure_is_the_status() {
        let mut tally = Tally::default();
        let same = UserChange::default();
        let changed = UserChange { changed: true, ..same.clone() };
        for answer in [
            Ok(changed.clone()),
            Err(Failure::Closed),
            Err(Failure::Usage("x".into())),
            Ok(same),
            Ok(changed),
        ] {
            tally.add(&answer);
        }
        assert_eq!(tally, Tally { changed: 2, same: 1, failed: 2, status: 75 });
        let verb = Verb { done: "made", todo: "make", nothing: "was made already" };
        assert_eq!(tally.sentence(verb, false), "5 users: 2 made, 1 as they were, 2 failed");
        assert_eq!(tally.sentence(verb, true), "5 users: 2 to make, 1 as they were, 2 failed");
    }

    #[test]
    fn progress_is_for_whoever_waits() {
        let mut progress = Progress::new(2, true);
        progress.draw();
        assert_eq!(progress.shown, "");
        progress.since = Instant::now().checked_sub(SOON).unwrap();
        progress.done = 1;
        progress.draw();
        assert_eq!(progress.shown, "1 of 2");
        progress.clear();
        assert_eq!(progress.shown, "");
        assert!(!Progress::new(1, true).is_wanted && !Progress::new(2, false).is_wanted);
    }
}
