//! podsecd-worker: carries out one permitted operation and ends.
//!
//! Started by the gate and kept waiting. First it is asked whether the caller still is a member of what his role
//! hangs on ([`member`]); it holds no operation and no descriptor then. After a yes it gives up every capability but
//! those of the method's row in the table, and for a session goes into the namespaces ([`cluster`]). Then comes the job,
//! and it does it ([`session`], [`inspect`], [`ports`], [`log`]). One process, one thread, one job.
//!
//! Must not: decide who may do what; run a shell; touch what the cluster user owns before it has become him
//! ([`cluster`]).

#![forbid(unsafe_code)]

mod account;
mod cage;
mod change;
mod checks;
mod cluster;
mod fault;
mod inspect;
mod keys;
mod log;
mod member;
mod ports;
mod services;
mod session;
mod signatures;
mod signed;
mod store;
mod trust;
mod users;

use change::Changes;
use cluster::{Host, Inside};
use podsec_policy::Operation;
use podsec_policy::config::Config;
use podsec_policy::operation::Method;
use podsec_policy::reason::{Code, Reason};
use podsec_policy::rules::{self, By, Capability};
use podsec_sys::credentials::{Cap, keep_only};
use podsec_sys::process;
use podsec_wire::messages::{Change, FromWorker, Job, Outcome, Reply, Step, ToWorker};
use podsec_wire::{Channel, WireError};
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    // As a program of its own it has nothing to do, and no argument of anybody's to look at (CVE-2021-4034).
    if std::env::args_os().count() != 1 {
        eprintln!("podsecd-worker is started by podsecd");
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // The caller hung up, or podsecd is no more.
        Err(error) if error.is_end() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podsecd-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), WireError> {
    process::forbid_inspection()?;
    process::usual_priority()?;
    let gate = Channel::from(process::take_stdin());
    process::close_on_exec_from(3)?;
    let host = Host::look();
    // The gate ended, or had no use for this worker.
    let Some((mut question, _)) = gate.receive::<ToWorker>()? else { return Ok(()) };
    if matches!(question, ToWorker::WarmUp) {
        member::warm_up();
        gate.send(&FromWorker::Ready, &[])?;
        let Some((next, _)) = gate.receive::<ToWorker>()? else { return Ok(()) };
        question = next;
    }
    if let ToWorker::Recover(config) = question {
        return recover_all(&config, gate);
    }
    let ToWorker::Check { uid, roles, accounts, method, place } = question else { return Ok(()) };
    let verdict = member::check(uid, roles, &accounts);
    gate.send(&FromWorker::Checked(verdict), &[])?;
    if verdict.is_err() {
        return Ok(());
    }
    let mut report = Report { gate, step: Step::Confine };
    // While the gate records the intent: nothing of the caller's is known yet. What goes wrong is told after that.
    let inside = confine(method).and_then(|()| {
        let place = place.as_ref().filter(|_| method == Method::Enter);
        place.map(|place| Inside::enter(place, &host, &mut report)).transpose()
    });
    let Some((ToWorker::Go(job), descriptors)) = report.gate.receive::<ToWorker>()? else { return Ok(()) };
    let mut descriptors = descriptors.into_iter().map(Channel::from);
    let Some(front) = descriptors.next() else { return Ok(()) };
    let place = place.as_ref().ok_or(Reason::NoClusterUser);
    let report = &mut report;
    let result = inside.and_then(|inside| match (&job.operation, inside, descriptors.next()) {
        (operation, ..) if operation.method() != method => Err(Reason::Bug.into()),
        (Operation::Enter(enter), Some(inside), Some(client)) => {
            session::run(&job, enter, place?, inside, &front, client, report).map(|()| None)
        }
        (Operation::Inspect, None, None) => inspect::run(place?, &host, report).map(Some),
        (Operation::ListPorts, None, None) => ports::list(place?, report).map(Some),
        (Operation::AddPort(change), None, None) => ports::add(place?, *change, report).map(Some),
        (Operation::RemovePort(change), None, None) => ports::remove(place?, *change, report).map(Some),
        (Operation::AuditQuery(filter), None, None) => log::query(&job, filter, &front, report).map(Some),
        (Operation::AuditFollow(filter), None, None) => log::follow(&job, filter, &front, report).map(Some),
        (Operation::AuditVerify, None, None) => log::verify(&job, report).map(Some),
        (Operation::ListUsers(name), None, None) => {
            users::list(&job, name.as_ref(), &front, report).map(Some)
        }
        (Operation::VerifyUser(name), None, None) => users::verify(&job, name, report).map(Some),
        (Operation::ListKeys(creator), None, None) => {
            keys::list(&job, creator.as_ref(), &front, report).map(Some)
        }
        (Operation::RestrictIdMaps { restrict: None, .. }, None, None) => {
            users::show_idmaps(&job).map(|done| Some(Reply::Change(done)))
        }
        (Operation::ShowTrust(show), None, None) => trust::show(&job, *show, &front, report).map(Some),
        (Operation::TrustHistory, None, None) => trust::history(&job, &front, report).map(Some),
        (Operation::ListSignatures(creator), None, None) => {
            signatures::list(&job, creator.as_ref(), &front, report).map(Some)
        }
        (Operation::ExportTrust, None, None) => Changes::begin(&job.config, method, report)
            .and_then(|_alone| trust::export(&job, &front, report).map(Some)),
        (Operation::ServiceStatus, None, None) => services::status(&job, report).map(Some),
        (Operation::RunCheck(check), None, None) => checks::run(&job, *check, report).map(Some),
        (Operation::Findings(check), None, None) => checks::findings(*check, &front, report).map(Some),
        (Operation::WatchFindings(check), None, None) => checks::watch(*check, &front, report).map(Some),
        (_, None, None) => change(&job, report).map(Some),
        (Operation::Enter(_), None, _) => Err(Reason::NoClusterUser.into()),
        _ => Err(Failure::from(Reason::Bug)),
    });
    let reply = match result {
        // A session speaks for itself.
        Ok(None) => return Ok(()),
        Ok(Some(reply)) => {
            report.finish(Ok(()), None);
            reply
        }
        // Something is left to be completed or undone: podsecd does what it does after a crash.
        Err(Failure { reason: Reason::HelperLost, detail }) => {
            eprintln!("podsecd-worker: {detail}");
            return Ok(());
        }
        Err(Failure { reason, detail }) => {
            report.finish(Err(reason), None);
            Reply::Failed { reason, detail }
        }
    };
    front.send(&reply, &[])
}

/// Changes to users, keys, trust and servers, one at a time.
fn change(job: &Job, report: &mut Report) -> Result<Reply, Failure> {
    // What somebody else's key is takes gpg up to seconds to see: nobody waits for that but he.
    let publish = match &job.operation {
        Operation::PublishKey(new) => Some(keys::Publish::new(job, new, false, report)?),
        Operation::RotateKey(new) => Some(keys::Publish::new(job, new, true, report)?),
        _ => None,
    };
    let submit = match &job.operation {
        Operation::SubmitSignature(submit) => Some(signatures::Submit::new(job, submit, report)?),
        _ => None,
    };
    let changes = Changes::begin(&job.config, job.operation.method(), report)?;
    let done = match &job.operation {
        Operation::SetPassword(name, password) => users::set_password(job, name, password, report),
        Operation::CreateUser(new) => {
            let mut create = users::Create::new(job, (**new).clone());
            let done = changes.carry_out(&mut create, job, new.dry_run, report)?;
            Ok(Change { fingerprint: create.fingerprint, ..done })
        }
        Operation::DeleteUser(change) => {
            let mut delete = users::Delete::new(job, change.clone())?;
            changes.carry_out(&mut delete, job, change.dry_run, report)
        }
        Operation::LockUser(change) | Operation::UnlockUser(change) => {
            let lock = matches!(job.operation, Operation::LockUser(_));
            changes.carry_out(&mut users::Lock::new(job, change, lock)?, job, change.dry_run, report)
        }
        Operation::RestrictIdMaps { restrict: Some(restrict), dry_run } => {
            changes.carry_out(&mut users::IdMaps::new(job, *restrict), job, *dry_run, report)
        }
        Operation::PublishKey(new) | Operation::RotateKey(new) => {
            let mut publish = publish.ok_or(Reason::Bug)?;
            let done = changes.carry_out(&mut publish, job, new.dry_run, report)?;
            Ok(Change { fingerprint: Some(publish.fingerprint()), ..done })
        }
        Operation::RevokeKey(revocation) => {
            let fingerprint = Some(revocation.fingerprint.clone());
            let mut revoke = keys::Revoke::new(job, revocation)?;
            let done = changes.carry_out(&mut revoke, job, revocation.dry_run, report)?;
            Ok(Change { fingerprint, ..done })
        }
        Operation::SubmitSignature(_) => {
            let mut submit = submit.ok_or(Reason::Bug)?;
            let done = changes.carry_out(&mut submit, job, false, report)?;
            return Ok(Reply::Submitted(submit.path()?, !done.steps.is_empty()));
        }
        Operation::DeployService(deploy) => {
            let mut change = services::Deploy::new(job, *deploy)?;
            changes.carry_out(&mut change, job, deploy.dry_run, report)
        }
        Operation::RemoveService(remove) => {
            let mut change = services::Remove::new(job, *remove);
            changes.carry_out(&mut change, job, remove.dry_run, report)
        }
        Operation::NewCredential => {
            let mut credential = services::credential::NewCredential::new(job)?;
            changes.carry_out(&mut credential, job, false, report)?;
            return credential.reply();
        }
        operation => {
            let dry_run = match operation {
                Operation::InitTrust(init) => init.reason.dry_run,
                Operation::RollbackTrust(to) => to.reason.dry_run,
                Operation::GrantSigner(grant) => grant.reason.dry_run,
                Operation::RevokeSigner(revoke) => revoke.reason.dry_run,
                Operation::SyncTrust(sync) => sync.reason.dry_run,
                _ => return Err(Reason::Bug.into()),
            };
            let mut revise = trust::Revise::new(job)?;
            let number = revise.number();
            return Ok(Reply::Trust(number, changes.carry_out(&mut revise, job, dry_run, report)?));
        }
    };
    done.map(Reply::Change)
}

/// What a crash left of one of them: completed, or undone.
fn recover(changes: &Changes<'_>, job: &Job, report: &mut Report) -> Result<bool, Failure> {
    let result = match &job.operation {
        Operation::CreateUser(new) => changes.complete(&mut users::Create::new(job, (**new).clone()), report),
        Operation::DeleteUser(change) => users::Delete::new(job, change.clone())
            .and_then(|mut delete| changes.complete(&mut delete, report)),
        Operation::LockUser(change) | Operation::UnlockUser(change) => {
            let lock = matches!(job.operation, Operation::LockUser(_));
            users::Lock::new(job, change, lock).and_then(|mut lock| changes.complete(&mut lock, report))
        }
        Operation::RestrictIdMaps { restrict: Some(restrict), .. } => {
            changes.complete(&mut users::IdMaps::new(job, *restrict), report)
        }
        Operation::PublishKey(new) | Operation::RotateKey(new) => {
            let rotate = matches!(job.operation, Operation::RotateKey(_));
            keys::Publish::new(job, new, rotate, report)
                .and_then(|mut publish| changes.complete(&mut publish, report))
        }
        Operation::RevokeKey(revocation) => {
            keys::Revoke::new(job, revocation).and_then(|mut revoke| changes.complete(&mut revoke, report))
        }
        Operation::SubmitSignature(submit) => signatures::Submit::new(job, submit, report)
            .and_then(|mut submit| changes.complete(&mut submit, report)),
        Operation::InitTrust(_)
        | Operation::RollbackTrust(_)
        | Operation::GrantSigner(_)
        | Operation::RevokeSigner(_)
        | Operation::SyncTrust(_) => {
            trust::Revise::new(job).and_then(|mut revise| changes.complete(&mut revise, report))
        }
        Operation::DeployService(deploy) => {
            services::Deploy::new(job, *deploy).and_then(|mut deploy| changes.complete(&mut deploy, report))
        }
        Operation::RemoveService(remove) => {
            changes.complete(&mut services::Remove::new(job, *remove), report)
        }
        Operation::NewCredential => services::credential::NewCredential::new(job)
            .and_then(|mut credential| changes.complete(&mut credential, report)),
        _ => Err(Reason::Bug.into()),
    };
    match result {
        // He was made an administrator meanwhile, or his key has expired: what cannot be asked for any more is not
        // completed either. Each act by itself left the host whole.
        Err(failure) if matches!(failure.reason.code(), Code::PermissionDenied | Code::InvalidArgument) => {
            Ok(false)
        }
        // Somebody changed trust by hand since: it is for people to look at, and must not stand in everybody's way.
        Err(Failure { reason: Reason::TrustDrift | Reason::HostsConflict | Reason::ScopeTaken, .. }) => {
            Ok(false)
        }
        result => result,
    }
}

/// Nobody asks: podsecd starts, or has lost a worker.
fn recover_all(config: &Config, gate: Channel) -> Result<(), WireError> {
    let mut report = Report { gate, step: Step::Lock };
    // The widest row, since any change may have been left.
    let method = Method::CreateUser;
    cage::clean_up(config);
    if let Err(failure) = confine(method).and_then(|()| Changes::begin(config, method, &mut report)) {
        eprintln!("podsecd-worker: what a crash left half done is not completed: {}", failure.detail);
    }
    Ok(())
}

/// The way back to the gate, for steps and the outcome.
struct Report {
    gate: Channel,
    step: Step,
}

/// Why a job failed: a stable reason, and what a person should know beside it.
#[derive(Debug)]
struct Failure {
    reason: Reason,
    detail: String,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new() }
    }
}

impl Failure {
    /// With words that are not only ours, made safe to print.
    fn new(reason: Reason, detail: impl std::fmt::Display) -> Self {
        Self { reason, detail: podsec_policy::audit::escape(detail.to_string().as_bytes()) }
    }
}

impl Report {
    /// Where this is, for the record of a failure.
    fn step(&mut self, step: Step) {
        self.step = step;
    }

    /// Tells the gate which process this is now.
    fn moved(&self) -> std::io::Result<()> {
        let (pid, process) = process::own()?;
        // A gate that is gone does not matter to a session.
        let _ = self.gate.send(&FromWorker::Moved { pid }, &[process.as_fd()]);
        Ok(())
    }

    /// As [`Report::step`], and the gate knows it too, for a step that waits for others and may be where the worker is
    /// lost.
    fn waiting(&mut self, step: Step) {
        self.step(step);
        let _ = self.gate.send(&FromWorker::Step(step), &[]);
    }

    /// The outcome goes into the audit before the caller hears of it. A gate that is gone has left the intent open,
    /// and its successor will close it.
    fn finish(&self, result: Result<(), Reason>, exit: Option<i32>) {
        let outcome = Outcome { result, step: self.step, exit };
        if self.gate.send(&FromWorker::Finished(outcome), &[]).is_ok() {
            let _ = self.gate.receive_within::<ToWorker>(Duration::from_secs(2));
        }
    }
}

/// Down to the capabilities of this operation's row.
fn confine(method: Method) -> Result<(), Failure> {
    let Some(By::Worker(row)) = rules::rule(method).map(|rule| rule.by) else {
        return Err(Reason::Bug.into());
    };
    let keep: Vec<Cap> = row
        .iter()
        .map(|capability| match capability {
            Capability::SetUid => Cap::CAP_SETUID,
            Capability::SetGid => Cap::CAP_SETGID,
            Capability::Chown => Cap::CAP_CHOWN,
            Capability::DacOverride => Cap::CAP_DAC_OVERRIDE,
            Capability::Fowner => Cap::CAP_FOWNER,
            Capability::Kill => Cap::CAP_KILL,
            Capability::AuditWrite => Cap::CAP_AUDIT_WRITE,
            Capability::LinuxImmutable => Cap::CAP_LINUX_IMMUTABLE,
        })
        .collect();
    keep_only(&keep).map_err(|error| Failure::new(Reason::Bug, error))
}
