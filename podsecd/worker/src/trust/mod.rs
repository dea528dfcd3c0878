//! Trust in images: numbered revisions of one document, and the files of the host that follow from it.
//!
//! What podman, skopeo and CRI-O read is replaced as a whole, the policy last, so that a reader sees the old or the new
//! one. What somebody changed by hand is never overwritten unless he who asks says so, and kept even then. Must not:
//! write anything that is not rendered from typed values.

mod bundle;
mod state;

pub use bundle::export;
pub use state::{Key, Name, Signers, Trust};

use crate::change::{Act, Change};
use crate::fault::point;
use crate::store::{self, at, now, public_directory, read_json, remove, write_json};
use crate::{Failure, Report, member};
use podsec_policy::config::Config;
use podsec_policy::containers::hosts::usable_address;
use podsec_policy::containers::policy_json::Policy;
use podsec_policy::name::AccountName;
use podsec_policy::operation::Operation;
use podsec_policy::peer::Role;
use podsec_policy::reason::Reason;
use podsec_policy::trust::{GrantSigner, RevokeSigner, Settings, ShowTrust, SignatureKind, TrustReason};
use podsec_policy::user::Scope;
use podsec_sys::file;
use podsec_sys::nix::unistd::User;
use podsec_wire::Channel;
use podsec_wire::messages::{FileState, Job, Reply, Revision, Step, TrustPart};
use serde::{Deserialize, Serialize};
use state::{HOSTS, POLICY, Written};
use std::collections::BTreeSet;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};

/// Revisions that are kept.
const KEPT: u64 = 1000;
/// Bytes of a file in one reply.
const PART: usize = 64 * 1024;

/// One revision as it is on disk: its head is the first line, trust the second, so that a history need not read trust.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its head.
    pub head: Revision,
    /// Its contents.
    pub trust: Trust,
}

#[derive(Serialize, Deserialize)]
struct Pointer {
    revision: u64,
}

fn directory(config: &Config) -> PathBuf {
    config.audit.state.join("trust")
}

fn revision_path(config: &Config, number: u64) -> PathBuf {
    directory(config).join("revisions").join(format!("{number:08}"))
}

fn load(config: &Config, number: u64) -> Result<Option<Stored>, Failure> {
    let path = revision_path(config, number);
    let Some(text) = store::read(&path)? else { return Ok(None) };
    let bad = |error: serde_json::Error| at(&path)(error.into());
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    let (head, trust) = text.split_at(end);
    Ok(Some(Stored {
        head: serde_json::from_slice(head).map_err(bad)?,
        trust: serde_json::from_slice(trust).map_err(|error| at(&path)(error.into()))?,
    }))
}

/// The revision that is in force.
///
/// # Errors
/// when it cannot be read
pub fn current(config: &Config) -> Result<Option<Stored>, Failure> {
    let Some(Pointer { revision }) = read_json(&pointer(config))? else { return Ok(None) };
    // A host that has lost it is not one without trust.
    let lost =
        || Failure::new(Reason::Resources, format!("revision {revision} of trust is in force, and gone"));
    load(config, revision)?.ok_or_else(lost).map(Some)
}

/// Which one that is.
fn pointer(config: &Config) -> PathBuf {
    directory(config).join("current")
}

/// Where images and signatures are.
///
/// # Errors
/// when it cannot be read
pub fn settings(config: &Config) -> Result<Option<Settings>, Failure> {
    Ok(current(config)?.map(|stored| stored.trust.settings))
}

fn read(path: &str) -> Result<Option<Vec<u8>>, Failure> {
    store::read(Path::new(path))
}

/// A new revision, or the files of the current one again.
#[derive(Debug)]
pub struct Revise {
    config: Config,
    uid: u32,
    what: String,
    reason: TrustReason,
    current: Option<Stored>,
    next: Trust,
    /// Worked out once: rendering ten thousand scopes takes a while.
    files: Vec<Written>,
    before: Vec<Written>,
    warnings: Vec<String>,
    /// Whose it is, where it is another host's.
    followed: Option<bundle::Followed>,
}

impl Revise {
    /// From a request.
    ///
    /// # Errors
    /// `NoTrust`, `TrustFollows`, `TrustDrift`, `NoRevision`, `ScopeTaken`, `UnmanagedUser`
    pub fn new(job: &Job) -> Result<Self, Failure> {
        let config = &job.config;
        let now = current(config)?;
        match &job.operation {
            Operation::InitTrust(init) => {
                if let Some(address) = init.settings.address {
                    usable_address(address, true)
                        .map_err(|error| Failure::new(Reason::BadHost, format!("address: {error}")))?;
                }
                let mut next = match &now {
                    None => from_records(config, init.settings.clone())?,
                    Some(now) => own(now)?,
                };
                next.settings = init.settings.clone();
                let what = if now.is_some() { "settings" } else { "trust from now on" };
                Self::to(job, now, next, what.into(), init.reason.clone())
            }
            Operation::RollbackTrust(to) => {
                let now = now.ok_or(Reason::NoTrust)?;
                let old = load(config, to.revision)?.ok_or_else(|| {
                    let text =
                        format!("there is no revision {}; podsecctl trust history lists them", to.revision);
                    Failure::new(Reason::NoRevision, text)
                })?;
                let mut next = old.trust;
                let dropped = without_revoked(config, &now.trust, &mut next)?;
                let what = format!("as in revision {}", to.revision);
                let mut revise = Self::to(job, Some(now), next, what, to.reason.clone())?;
                revise.warnings.extend(dropped);
                Ok(revise)
            }
            Operation::GrantSigner(grant) => {
                let now = now.ok_or(Reason::NoTrust)?;
                let mut next = own(&now)?;
                require_creator(config, &grant.creator)?;
                let keys = crate::keys::trusted(config, &grant.creator)?;
                next.grant(grant)?;
                next.keys.insert(Name(grant.creator.clone()), keys.clone());
                let what = format!("{} signs in {}", grant.creator, list(&grant.scopes));
                let mut revise = Self::to(job, Some(now), next, what, grant.reason.clone())?;
                if !keys.iter().any(|key| key.kind == grant.kind) {
                    revise.warnings.push(format!(
                        "{} has published no such key yet; until then nothing runs from there: podsecctl key publish",
                        grant.creator
                    ));
                }
                Ok(revise)
            }
            Operation::RevokeSigner(revoke) => {
                let now = now.ok_or(Reason::NoTrust)?;
                let mut next = own(&now)?;
                if next.scopes_of(&revoke.creator).next().is_none() {
                    // Asked again there is nothing to do; a name that nobody has is a mistake.
                    require_creator(config, &revoke.creator)?;
                }
                next.revoke(revoke);
                next.forget_keys();
                let scopes = if revoke.scopes.is_empty() { "any scope".into() } else { list(&revoke.scopes) };
                let more = if revoke.distrust { "; what he signed is not trusted either" } else { "" };
                let what = format!("{} signs no more in {scopes}{more}", revoke.creator);
                Self::to(job, Some(now), next, what, revoke.reason.clone())
            }
            Operation::SyncTrust(sync) => bundle::follow(job, sync, now),
            _ => Err(Reason::Bug.into()),
        }
    }

    /// What somebody's keys, scopes or end mean for trust; `None` where there is none, or it is another host's.
    ///
    /// # Errors
    /// `ScopeTaken`, `TrustDrift`
    pub fn after(job: &Job, creator: &AccountName, event: &Event) -> Result<Option<Self>, Failure> {
        let Some(now) = current(&job.config)? else { return Ok(None) };
        if now.trust.follows.is_some() {
            return Ok(None);
        }
        let mut next = now.trust.clone();
        // To take trust away cannot wait until somebody has looked at what was changed by hand.
        let (what, overwrite) = match event {
            Event::Keys(keys, urgent) => {
                if next.scopes_of(creator).next().is_none() {
                    return Ok(None);
                }
                next.keys.insert(Name(creator.clone()), keys.clone());
                (format!("keys of {creator}"), *urgent)
            }
            Event::Scopes { scopes, shared, keys } => {
                let (kind, reason) = (SignatureKind::Gpg, TrustReason::default());
                let (creator, scopes, shared) = (creator.clone(), scopes.clone(), *shared);
                let what = format!("{creator} signs in {}", list(&scopes));
                next.keys.insert(Name(creator.clone()), keys.clone());
                next.grant(&GrantSigner { creator, scopes, kind, shared, reason })?;
                (what, false)
            }
            Event::Gone => {
                let (creator, reason) = (creator.clone(), TrustReason::default());
                let what = format!("{creator} is no creator any more");
                next.revoke(&RevokeSigner { creator, scopes: Vec::new(), distrust: true, reason });
                next.forget_keys();
                (what, true)
            }
        };
        let reason = TrustReason { overwrite, ..TrustReason::default() };
        Self::to(job, Some(now), next, what, reason).map(Some)
    }

    fn to(
        job: &Job,
        current: Option<Stored>,
        next: Trust,
        what: String,
        reason: TrustReason,
    ) -> Result<Self, Failure> {
        let before = match &current {
            Some(current) => current.trust.files(),
            None => Vec::new(),
        };
        let (files, config) = (next.files(), (*job.config).clone());
        let (uid, warnings) = (job.uid, Vec::new());
        let revise =
            Self { config, uid, what, reason, current, next, files, before, warnings, followed: None };
        let drifted = revise.drifted()?;
        if revise.current.is_some() && !drifted.is_empty() && !revise.reason.overwrite {
            let text = format!(
                "{} changed by hand; podsecctl trust diff shows how, --overwrite writes what podsec has",
                drifted.join(" and ")
            );
            return Err(Failure::new(Reason::TrustDrift, text));
        }
        Ok(revise)
    }

    fn changes(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.trust != self.next)
    }

    /// Of the revision that it makes.
    pub fn number(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.head.revision);
        if self.changes() { current + 1 } else { current }
    }

    /// Files that are neither as the current revision has them nor as the next will.
    fn drifted(&self) -> Result<Vec<String>, Failure> {
        let mut drifted = Vec::new();
        for file in &self.files {
            let before = self.before.iter().find(|before| before.path == file.path);
            let there = read(file.path)?;
            if there != file.bytes
                && before.is_none_or(|before| there != before.bytes)
                && !(before.is_none() && there.is_none())
            {
                drifted.push(file.path.to_owned());
            }
        }
        if let Some(current) = &self.current
            && let Some(there) = read(HOSTS)?
        {
            let as_written = |trust: &Trust| trust.hosts(&there).is_ok_and(|wanted| wanted == there);
            if !as_written(&current.trust) && !as_written(&self.next) {
                drifted.push(HOSTS.to_owned());
            }
        }
        Ok(drifted)
    }

    fn revision_todo(&self) -> Result<Option<String>, Failure> {
        Ok(self.changes().then(|| format!("make revision {}: {}", self.number(), self.what)))
    }

    fn revision_run(&mut self) -> Result<(), Failure> {
        let user = member::own_name(self.uid).map_or_else(|| self.uid.to_string(), String::from);
        let head = Revision {
            revision: self.number(),
            time: now(),
            uid: self.uid,
            user,
            why: self.reason.why.clone(),
            what: self.what.clone(),
            scopes: u32::try_from(self.next.scopes.len()).unwrap_or(u32::MAX),
        };
        let bug = |error| Failure::new(Reason::Bug, error);
        let mut text = serde_json::to_vec(&head).map_err(bug)?;
        text.push(b'\n');
        text.extend(serde_json::to_vec(&self.next).map_err(bug)?);
        let path = revision_path(&self.config, self.number());
        for directory in [directory(&self.config), directory(&self.config).join("revisions")] {
            podsec_sys::process::make_root_owned(&directory, 0o700).map_err(at(&directory))?;
        }
        file::replace(&path, &text, 0o600).map_err(at(&path))
    }

    fn files_todo(&self, policy: bool) -> Result<Option<String>, Failure> {
        let mut changed = Vec::new();
        for file in self.files.iter().filter(|file| (file.path == POLICY) == policy) {
            if read(file.path)? != file.bytes {
                let verb = if file.bytes.is_some() { "write" } else { "remove" };
                changed.push(format!("{verb} {}", file.path));
            }
        }
        Ok((!changed.is_empty()).then(|| changed.join(", ")))
    }

    fn files_run(&mut self, policy: bool) -> Result<(), Failure> {
        for file in self.files.clone().into_iter().filter(|file| (file.path == POLICY) == policy) {
            self.keep(&file)?;
            put(&file)?;
        }
        Ok(())
    }

    /// Where what was there before this revision is kept.
    fn kept(&self, file: &Written) -> PathBuf {
        let name = Path::new(file.path).file_name().unwrap_or_default().to_string_lossy();
        directory(&self.config).join("kept").join(format!("{:08}-{name}", self.number()))
    }

    /// What somebody else wrote there is kept.
    fn keep(&mut self, file: &Written) -> Result<(), Failure> {
        let Some(there) = read(file.path)?.filter(|there| file.bytes.as_ref() != Some(there)) else {
            return Ok(());
        };
        if self.before.iter().any(|before| before.path == file.path && before.bytes.as_ref() == Some(&there))
        {
            return Ok(());
        }
        let path = self.kept(file);
        if let Some(kept) = path.parent() {
            podsec_sys::process::make_root_owned(kept, 0o700).map_err(at(kept))?;
        }
        file::replace(&path, &there, 0o600).map_err(at(&path))?;
        self.warnings.push(format!("what was in {} is kept as {}", file.path, path.display()));
        Ok(())
    }

    fn hosts_todo(&self) -> Result<Option<String>, Failure> {
        let there = read(HOSTS)?.unwrap_or_default();
        let names = self.next.settings.address.map(|address| format!("the names for {address}"));
        let what = names.unwrap_or_else(|| "no names".into());
        Ok((self.next.hosts(&there)? != there).then(|| format!("write {what} to {HOSTS}")))
    }

    fn hosts_run(&mut self) -> Result<(), Failure> {
        put_hosts(&self.next)
    }

    fn current_todo(&self) -> Result<Option<String>, Failure> {
        if let Some(followed) = &self.followed
            && !bundle::is_remembered(&self.config, followed)?
        {
            return Ok(Some(format!(
                "revision {} is in force, and the other host's key is remembered",
                self.number()
            )));
        }
        let there: Option<Pointer> = read_json(&pointer(&self.config))?;
        let there = there.map(|there| there.revision);
        Ok((there != Some(self.number())).then(|| format!("revision {} is in force", self.number())))
    }

    fn current_run(&mut self) -> Result<(), Failure> {
        let revision = self.number();
        link_user_policy()?;
        if let Some(followed) = &self.followed {
            bundle::remember(&self.config, followed)?;
        }
        write_json(&pointer(&self.config), &Pointer { revision })?;
        match revision.checked_sub(KEPT) {
            Some(old) => remove(&revision_path(&self.config, old)),
            None => Ok(()),
        }
    }

    fn publish_todo(&self) -> Result<Option<String>, Failure> {
        // What is another host's is not this one's to sign.
        let stale = self.next.follows.is_none() && bundle::is_stale(&self.config, self.number())?;
        Ok(stale.then(|| "sign the bundle for other hosts anew".into()))
    }

    fn publish_run(&mut self) -> Result<(), Failure> {
        bundle::make(&self.config).map(drop)
    }

    /// All of it as one act of another change.
    fn all_todo(&self) -> Result<Option<String>, Failure> {
        let mut todo = Vec::new();
        for act in Self::ACTS {
            todo.extend((act.todo)(self)?);
        }
        let first = todo.into_iter().next();
        Ok(first.map(|first| format!("{first}; in {POLICY} and what goes with it")))
    }

    /// The same. Half of it would be a change by hand to whoever comes next.
    fn all_run(&mut self) -> Result<(), Failure> {
        let mut all = || -> Result<(), Failure> {
            for act in Self::ACTS {
                if (act.todo)(self)?.is_some() {
                    point(&format!("before-trust-{}", act.step.name()))?;
                    (act.run)(self)?;
                    point(&format!("after-trust-{}", act.step.name()))?;
                }
            }
            Ok(())
        };
        all().or_else(|failure| self.undo().and(Err(failure)))
    }
}

/// [`Revise::after`] as an act of another change: what is to be done?
///
/// # Errors
/// as the acts
pub fn nested_todo(revise: Option<Revise>) -> Result<Option<String>, Failure> {
    revise.map_or(Ok(None), |revise| revise.all_todo())
}

/// Does it.
///
/// # Errors
/// as the acts
pub fn nested_run(revise: Option<Revise>) -> Result<(), Failure> {
    revise.map_or(Ok(()), |mut revise| revise.all_run())
}

/// What trust has to follow.
#[derive(Clone, Debug)]
pub enum Event {
    /// A creator's keys are these now; at once, whatever was changed by hand?
    Keys(Vec<Key>, bool),
    /// A creator was made.
    Scopes {
        /// Where he signs.
        scopes: Vec<Scope>,
        /// Beside others.
        shared: bool,
        /// With what.
        keys: Vec<Key>,
    },
    /// He is removed.
    Gone,
}

impl Change for Revise {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Revision, todo: Self::revision_todo, run: Self::revision_run },
        Act {
            step: Step::Registries,
            todo: |change| change.files_todo(false),
            run: |change| change.files_run(false),
        },
        Act { step: Step::Hosts, todo: Self::hosts_todo, run: Self::hosts_run },
        Act {
            step: Step::Policy,
            todo: |change| change.files_todo(true),
            run: |change| change.files_run(true),
        },
        Act { step: Step::Record, todo: Self::current_todo, run: Self::current_run },
        Act { step: Step::Publish, todo: Self::publish_todo, run: Self::publish_run },
    ];

    /// The files as they were before.
    fn undo(&mut self) -> Result<(), Failure> {
        if !self.changes() {
            return Ok(());
        }
        match &self.current {
            Some(current) => {
                write_json(&pointer(&self.config), &Pointer { revision: current.head.revision })?
            }
            None => {
                remove(&pointer(&self.config))?;
                // The host's policy may accept anything in a moment; image users are held to their own again before.
                let users = Path::new(crate::users::USER_POLICY);
                if std::fs::read_link(users).is_ok() {
                    file::replace(users, &Policy::reject_all().render(), 0o644).map_err(at(users))?;
                }
            }
        }
        for file in &self.files {
            let kept = self.kept(file);
            // What is not as this wrote it, it has not come to.
            if read(file.path)? == file.bytes {
                let before = self.before.iter().find(|before| before.path == file.path);
                let bytes =
                    read(&kept.to_string_lossy())?.or_else(|| before.and_then(|before| before.bytes.clone()));
                // A policy that was the same before there was trust stays.
                if bytes.is_some() || file.path != POLICY {
                    put(&Written { path: file.path, bytes })?;
                }
            }
            remove(&kept)?;
        }
        let nowhere = || Trust::new(Settings { address: None, ..self.next.settings.clone() });
        put_hosts(&self.current.as_ref().map_or_else(nowhere, |current| current.trust.clone()))?;
        remove(&revision_path(&self.config, self.number()))
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

fn put(file: &Written) -> Result<(), Failure> {
    let path = Path::new(file.path);
    let Some(bytes) = &file.bytes else { return remove(path) };
    if read(file.path)?.as_ref() == Some(bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        public_directory(parent)?;
    }
    file::replace(path, bytes, 0o644).map_err(at(path))
}

/// Others edit this file too: what one of them wrote meanwhile is read again.
fn put_hosts(trust: &Trust) -> Result<(), Failure> {
    for _ in 0..10 {
        let there = read(HOSTS)?;
        let wanted = trust.hosts(there.as_deref().unwrap_or_default())?;
        if Some(&wanted) == there.as_ref() || (there.is_none() && wanted.is_empty()) {
            return Ok(());
        }
        let path = Path::new(HOSTS);
        if file::replace_if(path, &wanted, 0o644, there.as_deref()).map_err(at(path))? {
            return Ok(());
        }
    }
    Err(Failure::new(Reason::Resources, format!("{HOSTS} is being written to by somebody else all the time")))
}

/// From now on what image users are held to is the host's policy.
fn link_user_policy() -> Result<(), Failure> {
    let link = Path::new(crate::users::USER_POLICY);
    let target = Path::new(POLICY);
    if std::fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        public_directory(parent)?;
    }
    let temporary = link.with_extension("new");
    remove(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary).map_err(at(&temporary))?;
    std::fs::rename(&temporary, link).map_err(at(link))
}

/// Nobody else has scopes: whoever came by the name later would have them, too.
fn require_creator(config: &Config, name: &AccountName) -> Result<(), Failure> {
    let user = User::from_name(name.as_str()).ok().flatten();
    match user {
        Some(user) if member::holds(user.uid.as_raw(), Role::ImageCreator, &config.accounts) => Ok(()),
        _ => Err(Failure::new(Reason::UnmanagedUser, format!("{name} is no image creator on this host"))),
    }
}

/// Only where trust is this host's own.
fn own(stored: &Stored) -> Result<Trust, Failure> {
    if let Some(url) = &stored.trust.follows {
        let text = format!("this host follows {url}; change trust there, then podsecctl trust sync");
        return Err(Failure::new(Reason::TrustFollows, text));
    }
    Ok(stored.trust.clone())
}

/// The scopes and keys that creators have already.
fn from_records(config: &Config, settings: Settings) -> Result<Trust, Failure> {
    let mut trust = Trust::new(settings);
    for (creator, scopes) in crate::users::creators(config)? {
        let keys = crate::keys::trusted(config, &creator)?;
        let (kind, reason) = (SignatureKind::Gpg, TrustReason::default());
        // Whether they may share was decided when they were made.
        trust.grant(&GrantSigner { creator: creator.clone(), scopes, kind, shared: true, reason })?;
        trust.keys.insert(Name(creator), keys);
    }
    Ok(trust)
}

/// What was revoked stays revoked: an old revision brings back no key that its creator's records do not have as good.
fn without_revoked(config: &Config, now: &Trust, old: &mut Trust) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    if old.follows.is_some() {
        // Keys are the other host's business; what it has revoked since is not in the newest that we have.
        for (creator, keys) in &mut old.keys {
            let good = now.keys.get(creator).cloned().unwrap_or_default();
            keys.retain(|key| good.contains(key));
        }
        return Ok(warnings);
    }
    for (creator, keys) in &mut old.keys {
        let good = crate::keys::trusted(config, &creator.0)?;
        for key in keys.iter().filter(|key| !good.contains(key)) {
            warnings.push(format!("the key {} of {} is revoked, and stays so", key.fingerprint, creator.0));
        }
        *keys = good;
    }
    // Whoever comes by the name of somebody who is gone would have his scopes, too.
    let names = old.scopes.values().flat_map(|signers| signers.active.iter().chain(&signers.retired));
    let names: BTreeSet<Name> = names.cloned().collect();
    for gone in names.into_iter().filter(|name| require_creator(config, &name.0).is_err()) {
        for signers in old.scopes.values_mut() {
            signers.active.remove(&gone);
            signers.retired.remove(&gone);
        }
        warnings.push(format!("{} is no image creator any more, and signs nowhere", gone.0));
    }
    old.scopes.retain(|_, signers| !signers.active.is_empty() || !signers.retired.is_empty());
    old.forget_keys();
    Ok(warnings)
}

fn list(scopes: &[Scope]) -> String {
    match scopes {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", scopes.len() - 3),
        all => all.iter().map(Scope::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// All files of trust, and how each one is.
fn files_of(trust: &Trust) -> Result<Vec<(Written, FileState)>, Failure> {
    let mut files = trust.files();
    if let Some(there) = read(HOSTS)? {
        // A block that is damaged is a change too: what it should be cannot be said then.
        files.push(Written { path: HOSTS, bytes: Some(trust.hosts(&there).unwrap_or_default()) });
    }
    let state = |file: Written| {
        let state = match (read(file.path)?, &file.bytes) {
            (there, wanted) if there == *wanted => FileState::Same,
            (None, _) => FileState::Missing,
            _ => FileState::Changed,
        };
        Ok((file, state))
    };
    files.into_iter().map(state).collect()
}

/// Files that are not as trust has them, by path.
///
/// # Errors
/// when one cannot be read
pub fn drift(trust: &Trust) -> Result<Vec<(&'static str, FileState)>, Failure> {
    let all = files_of(trust)?.into_iter().map(|(file, state)| (file.path, state));
    Ok(all.filter(|(_, state)| *state != FileState::Same).collect())
}

/// `ShowTrust`
///
/// # Errors
/// `NoTrust`, `NoRevision`
pub fn show(job: &Job, asked: ShowTrust, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.step(Step::Read);
    let config = &job.config;
    let now = current(config)?.ok_or(Reason::NoTrust)?;
    let is_current = asked.revision.is_none_or(|number| number == now.head.revision);
    let stored = match asked.revision {
        Some(number) if !is_current => load(config, number)?.ok_or(Reason::NoRevision)?,
        _ => now,
    };
    let mut parts = Vec::new();
    let Stored { head, trust } = stored;
    parts.push(TrustPart::Revision(head));
    let fingerprint = bundle::fingerprint(config, &trust)?;
    parts.push(TrustPart::Settings {
        settings: trust.settings.clone(),
        follows: trust.follows.clone(),
        fingerprint,
    });
    for (scope, Signers { kind, active, retired }) in &trust.scopes {
        let signers = active.iter().map(|Name(name)| (name.clone(), false));
        let signers = signers.chain(retired.iter().map(|Name(name)| (name.clone(), true))).collect();
        parts.push(TrustPart::Scope { scope: scope.clone(), kind: *kind, signers });
    }
    for (Name(creator), keys) in &trust.keys {
        parts.extend(keys.iter().map(|key| TrustPart::Key {
            creator: creator.clone(),
            fingerprint: key.fingerprint.clone(),
            kind: key.kind,
        }));
    }
    for (Written { path, bytes }, state) in files_of(&trust)? {
        let contents = bytes.filter(|_| asked.files).unwrap_or_default();
        let file =
            |contents: &[u8]| TrustPart::File { path: path.to_owned(), state, contents: contents.to_vec() };
        if contents.is_empty() {
            parts.push(file(&[]));
        }
        parts.extend(contents.chunks(PART).map(file));
    }
    send_all(parts, front)
}

/// `TrustHistory`
///
/// # Errors
/// when it cannot be read
pub fn history(job: &Job, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.step(Step::Read);
    let newest = current(&job.config)?.ok_or(Reason::NoTrust)?.head.revision;
    let mut parts = Vec::new();
    for number in (1..=newest).rev() {
        let path = revision_path(&job.config, number);
        let Ok(file) = std::fs::File::open(&path) else { break };
        let mut line = String::new();
        io::BufReader::new(file).read_line(&mut line).map_err(at(&path))?;
        let head = serde_json::from_str(&line).map_err(|error| at(&path)(error.into()))?;
        parts.push(TrustPart::Revision(head));
    }
    send_all(parts, front)
}

fn send_all(parts: Vec<TrustPart>, front: &Channel) -> Result<Reply, Failure> {
    for part in parts {
        if front.send(&Reply::TrustPart(Box::new(part)), &[]).is_err() {
            break;
        }
    }
    Ok(Reply::End)
}
