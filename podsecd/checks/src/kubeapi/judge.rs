//! The judge: the user podsec-monitor, without capabilities, with descriptors of the opener and one directory of its own.
//!
//! Report and place are one file, replaced as a whole: whenever this process ends, what was counted and how far was read
//! belong together, and the next one counts nothing twice and leaves nothing out.

use super::log::{Log, Mark};
use super::opener::Opener;
use super::watch::Watch;
use super::{Followed, MEMORY, Settings};
use crate::{cage, report};
use podsec_policy::finding::{Check, Outcome, Report, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often it is looked whether there is more.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is looked whether the log was rotated.
const ROTATION: Duration = Duration::from_secs(1);
/// Between two reports, where there is something new and all is read; where there is still more to read; and where there is
/// nothing new, so that whoever reads it sees that somebody looks.
const NEWS: Duration = Duration::from_secs(1);
const BEHIND: Duration = Duration::from_secs(5);
const ALIVE: Duration = Duration::from_secs(60);
/// Seconds.
const DAY: u64 = 86_400;

/// What is written: a report, and how far each log was read.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    report: &'a Report,
    position: BTreeMap<&'a str, Mark>,
}

/// The rest of it, read again.
#[derive(Default, Deserialize)]
struct Position {
    #[serde(default)]
    position: BTreeMap<String, Mark>,
}

/// A log and who opens it.
struct Source {
    log: Log,
    followed: Followed,
    /// Whose opener, and which of his logs it is; or why there is none.
    opener: Result<(usize, usize), String>,
    looked: Option<Instant>,
    /// Why it cannot be read, or that it can.
    state: Result<(), String>,
}

/// Runs until it is ended.
///
/// # Errors
/// says why it cannot
pub fn run(settings: &Settings) -> Result<(), String> {
    let account = report::account()?;
    let (mut sources, openers) = start(settings)?;
    account.become_it().map_err(|error| format!("becoming {}: {error}", report::USER))?;
    let directory = report::directory(Check::KubeApi);
    let _alone = report::alone(&directory.join("lock"))?;
    cage::shut(cage::Files::Own(&directory), MEMORY)?;
    let (report, mut position) = load();
    for source in &mut sources {
        source.log = Log::new(source.log.name().to_owned(), position.position.remove(source.log.name()));
    }
    follow(Watch::new(report, settings.rules.clone()), &mut sources, &openers, settings.keep_days)
}

/// An opener for each owner, with all of his logs.
fn start(settings: &Settings) -> Result<(Vec<Source>, Vec<Opener>), String> {
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let mut owners: Vec<(&str, u32, u32, Vec<std::path::PathBuf>)> = Vec::new();
    let mut sources = Vec::new();
    for followed in &settings.logs {
        let known = owners.iter().position(|(name, ..)| *name == followed.owner);
        let found = || podsec_policy::accounts::account(&passwd, &followed.owner);
        let owner = known.map(Ok).unwrap_or_else(|| {
            let account =
                found().ok_or_else(|| format!("the user {} is not on this host", followed.owner))?;
            owners.push((&followed.owner, account.uid, account.gid, Vec::new()));
            Ok(owners.len() - 1)
        });
        let opener = owner.map(|owner| {
            let logs = owners.get_mut(owner).map(|(.., logs)| logs);
            let index = logs.map_or(0, |logs| {
                logs.push(followed.path.clone());
                logs.len() - 1
            });
            (owner, index)
        });
        let log = Log::new(Text::of(followed.path.as_os_str().as_encoded_bytes()).to_string(), None);
        sources.push(Source { log, followed: followed.clone(), opener, looked: None, state: Ok(()) });
    }
    let start = |(_, uid, gid, logs)| Opener::start(uid, gid, logs);
    Ok((sources, owners.into_iter().map(start).collect::<Result<_, _>>()?))
}

/// As it was written last. A report that cannot be read is begun anew, and the logs with it.
fn load() -> (Report, Position) {
    let path = report::directory(Check::KubeApi).join("report.json");
    let position = || {
        let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display()))
    };
    let read = report::load(Check::KubeApi);
    if read.as_ref().is_ok_and(|report| report.outcome == Outcome::Never) {
        return (Report::new(Check::KubeApi), Position::default());
    }
    read.and_then(|report| Ok((report, position()?))).unwrap_or_else(|error| {
        eprintln!("podsec-monitor: {error}; begun anew");
        (Report::new(Check::KubeApi), Position::default())
    })
}

fn follow(
    mut watch: Watch,
    sources: &mut [Source],
    openers: &[Opener],
    keep_days: u32,
) -> Result<(), String> {
    let mut written = Instant::now();
    let mut is_first = true;
    loop {
        let mut more = false;
        for source in &mut *sources {
            let before = source.state.clone();
            let went_on = source.turn(&mut watch, openers)?;
            more |= went_on;
            if source.state != before {
                watch.changed = true;
                if let Err(why) = &source.state {
                    eprintln!("podsec-monitor: {why}");
                }
            }
        }
        let now = report::now();
        watch.forget(now.saturating_sub(u64::from(keep_days) * DAY));
        let wait = match (watch.changed, more) {
            (true, false) => NEWS,
            (true, true) => BEHIND,
            (false, _) => ALIVE,
        };
        if written.elapsed() >= wait || (is_first && !more) {
            watch.report.outcome = outcome(sources);
            watch.report.time = now;
            write(&watch.report, sources)?;
            watch.changed = false;
            (written, is_first) = (Instant::now(), false);
        }
        if !more {
            std::thread::sleep(LOOK);
        }
    }
}

impl Source {
    /// Reads on: is there more?
    ///
    /// # Errors
    /// the opener is gone
    fn turn(&mut self, watch: &mut Watch, openers: &[Opener]) -> Result<bool, String> {
        let path = &self.followed.path;
        let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
        let (owner, index) = match &self.opener {
            Ok(opener) => *opener,
            Err(why) => {
                self.state = Err(format!("{}: {why}", path.display()));
                return Ok(false);
            }
        };
        let opener = openers.get(owner).ok_or("no opener")?;
        let read = self.log.read(watch).map_err(wrong)?;
        if read == Some(true) {
            return Ok(true);
        }
        let emptied = read.is_none();
        if !emptied && self.looked.is_some_and(|looked| looked.elapsed() < ROTATION) {
            return Ok(false);
        }
        // Most of the time only the log itself is looked at.
        let is_first = self.looked.replace(Instant::now()).is_none();
        for all in [false, true] {
            if !all && (emptied || is_first) {
                continue;
            }
            let found = match opener.ask(index, path, all)? {
                Ok(found) => found,
                Err(why) => {
                    self.state = Err(why);
                    return Ok(false);
                }
            };
            self.state = match found.current {
                Some(_) => Ok(()),
                None => Err(format!("{}: not there; is the API server's audit on?", path.display())),
            };
            if all {
                return self.log.find(found, watch).map_err(wrong);
            }
            if self.log.is_current(found.current.as_ref()) {
                break;
            }
        }
        Ok(false)
    }
}

fn outcome(sources: &[Source]) -> Outcome {
    let missed: BTreeMap<_, _> = sources
        .iter()
        .filter_map(|source| Some((Text::of(source.log.name()), Text::of(source.state.as_ref().err()?))))
        .collect();
    match missed.values().next() {
        None => Outcome::Complete,
        Some(why) if missed.len() == sources.len() => Outcome::Unknown { why: why.clone() },
        Some(_) => Outcome::Partial { missed },
    }
}

fn write(report: &Report, sources: &[Source]) -> Result<(), String> {
    let marks = sources.iter().filter_map(|source| Some((source.log.name(), source.log.mark()?)));
    report::write(&report::path(Check::KubeApi), &Written { report, position: marks.collect() }, 0o640)
}
