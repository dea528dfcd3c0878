//! The monitors: podsec-monitor looks, in a process of its own, and keeps what it finds as the user podsec-monitor. Here it is
//! started and told what podsecd knows, and its findings are read, as that user too.
//!
//! Must not: look at anything of a user's, or parse what a monitor has not written down.

use crate::account::{SOON, act_as};
use crate::{Failure, Report, account, keys, services, trust, users};
use podsec_checks::known::{Certificate, Drift, Key, Known, Trust, User};
use podsec_checks::report;
use podsec_policy::finding::{self, Check, Found, Ran, Summary};
use podsec_policy::reason::Reason;
use podsec_sys::process::{require_root_owned, wait_readable};
use podsec_sys::program::{Run, run_with};
use podsec_sys::systemd;
use podsec_wire::Channel;
use podsec_wire::messages::{FileState, Job, Reply, Step};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

/// Beside this program.
const PROGRAM: &str = "podsec-monitor";
/// Does the same as the program, where systemd runs.
const VULNERABILITIES: &str = "podsec-check-vulnerabilities.service";
/// As long as the operation may take.
const LONGEST: Duration = Duration::from_secs(3600);
/// How often who watches is told what is new.
const LOOK: Duration = Duration::from_millis(500);

/// `RunCheck`
///
/// # Errors
/// `Unsupported`; `Program` with what it said
pub fn run(job: &Job, check: Check, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Check);
    // One that cannot be read is begun anew.
    let before = outline(check).map(|(ids, _)| ids).unwrap_or_default();
    if check == Check::Vulnerabilities && systemd::runs() {
        // podsecd has no network, and trivy may need one: a unit of its own has it.
        account::systemctl(&["start", VULNERABILITIES], LONGEST)?;
    } else {
        start(check, &known(job)?)?;
    }
    let (after, summary) = outline(check)?;
    let (new, gone) = (after.difference(&before).count() as u64, before.difference(&after).count() as u64);
    Ok(Reply::Ran(Box::new(Ran { summary, new, gone })))
}

/// Which findings there are. For who goes on as root.
fn outline(check: Check) -> Result<(BTreeSet<String>, Summary), Failure> {
    let outline =
        || report::load(check).map(|report| (report.findings.keys().cloned().collect(), report.summary()));
    act_as(&account::system(report::USER)?, SOON, outline)
        .map_err(|failure| Failure { reason: Reason::Resources, ..failure })
}

fn start(check: Check, known: &Known) -> Result<(), Failure> {
    let known = serde_json::to_vec(known).map_err(|error| Failure::new(Reason::Bug, error))?;
    let own = std::env::current_exe().map_err(|error| Failure::new(Reason::Bug, error))?;
    let program = own.with_file_name(PROGRAM);
    require_root_owned(&program)
        .map_err(|error| Failure::new(Reason::Unsupported, format!("{}: {error}", program.display())))?;
    let run = Run { input: &known, deadline: LONGEST, ..Run::default() };
    run_with(&program, &["check", check.name()], run)
        .map(drop)
        .map_err(|error| Failure::new(Reason::Program, error))
}

/// What a check is told.
fn known(job: &Job) -> Result<Known, Failure> {
    let config = &job.config;
    let user = |record: users::Record| User { name: record.name, uid: record.uid, category: record.category };
    let key = |(creator, fingerprint, expires)| Key { creator, fingerprint, expires };
    let certificate =
        |(path, expires): (PathBuf, _)| Certificate { path: path.display().to_string(), expires };
    let trust = trust::current(config)?.map(|stored| stored.trust);
    let policy = trust.as_ref().map(|trust| trust.policy().render()).unwrap_or_default();
    Ok(Known {
        config: (**config).clone(),
        users: users::all(config)?.into_iter().map(user).collect(),
        trust: trust.map(known_trust).transpose()?,
        policy: String::from_utf8(policy).map_err(|error| Failure::new(Reason::Bug, error))?,
        keys: keys::ends(config)?.into_iter().map(key).collect(),
        certificates: services::certificates(config)?.into_iter().map(certificate).collect(),
    })
}

fn known_trust(trust: trust::Trust) -> Result<Trust, Failure> {
    let drift =
        |(path, state): (&str, _)| Drift { path: path.to_owned(), missing: state == FileState::Missing };
    let drift = trust::drift(&trust)?.into_iter().map(drift).collect();
    let scopes = trust.scopes.into_iter().map(|(scope, signers)| (scope, signers.kind)).collect();
    Ok(Trust { settings: trust.settings, scopes, drift })
}

/// `Findings`
///
/// # Errors
/// `Unsupported`, `Resources`
pub fn findings(check: Option<Check>, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.step(Step::Read);
    become_reader()?;
    for check in wanted(check) {
        let report = read(check)?;
        send(front, &Reply::Summary(Box::new(report.summary())))?;
        for found in report.findings.into_values() {
            send(front, &Reply::Found(Box::new(found)))?;
        }
    }
    Ok(Reply::End)
}

/// `WatchFindings`: until the reader stops.
///
/// # Errors
/// as [`findings`]
pub fn watch(check: Option<Check>, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Read);
    become_reader()?;
    let mut shown: BTreeMap<Check, (_, BTreeMap<String, Found>)> = BTreeMap::new();
    loop {
        for check in wanted(check) {
            let version = report::version(check);
            let (seen, before) = match shown.entry(check) {
                Entry::Occupied(entry) if entry.get().0 == version => continue,
                entry => entry.or_default(),
            };
            *seen = version;
            let report = read(check)?;
            send(front, &Reply::Summary(Box::new(report.summary())))?;
            for (id, found) in &report.findings {
                // Seen again by a check that looks at everything: nothing new.
                let is_news = |before: &Found| before.finding != found.finding || before.count != found.count;
                if before.get(id).is_none_or(is_news) {
                    send(front, &Reply::Found(Box::new(found.clone())))?;
                }
            }
            for id in before.keys().filter(|id| !report.findings.contains_key(*id)) {
                send(front, &Reply::Gone(id.clone()))?;
            }
            *before = report.findings;
        }
        let gone = wait_readable(&[front.as_fd()], Some(LOOK));
        if gone.map_err(|error| Failure::new(Reason::Resources, error))? {
            return Ok(Reply::End);
        }
    }
}

fn wanted(check: Option<Check>) -> impl Iterator<Item = Check> {
    Check::ALL.into_iter().filter(move |&one| check.is_none_or(|check| check == one))
}

/// For good: whoever takes a monitor over writes what he likes into a report, and leads no root by it.
fn become_reader() -> Result<(), Failure> {
    let reader = account::system(report::USER)?;
    reader.become_it().map_err(|error| Failure::new(Reason::Resources, error))
}

fn read(check: Check) -> Result<finding::Report, Failure> {
    report::load(check).map_err(|error| Failure::new(Reason::Resources, error))
}

fn send(front: &Channel, reply: &Reply) -> Result<(), Failure> {
    // Waits when the reader does; a reader that is gone ends this.
    front.send(reply, &[]).map_err(|_| Reason::NotAttached.into())
}
