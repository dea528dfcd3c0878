//! Public keys of image creators: kept as podsec's records, and published where verifiers of images find them.
//!
//! A private key never comes here. What a stranger calls a public key is parsed by gpg in a cage ([`judge`]); what is
//! published is what gpg wrote of it. Whose it is, is decided by who asks. Must not: take a name of an owner from anybody
//! but an Administrator.

mod generate;
mod judge;

pub use generate::generate;

use crate::change::{Act, Change};
use crate::store::{accounts_in, at, now, public_directory, read_json, remove, write_json};
use crate::trust::{self, Event, Revise};
use crate::{Failure, Report, member};
use judge::{Judged, judge};
use podsec_policy::audit::{hex, unhex_bytes};
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::operation::{KeyRevocation, NewPublicKey};
use podsec_policy::peer::Role;
use podsec_policy::reason::Reason;
use podsec_policy::trust::SignatureKind;
use podsec_policy::user::Fingerprint;
use podsec_sys::file;
use podsec_sys::nix::unistd::User;
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Key, KeyState, Reply, Step};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the keys of all creators are for whoever verifies: one file each, OpenPGP, root's and readable by all. As
/// `keyPath` of containers-policy.json(5) names it.
const PUBLISHED: &str = "/var/sigstore/keys";

/// The keys of a creator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Of their owner. Somebody else of the same name does not inherit them.
    uid: u32,
    /// Oldest first.
    keys: Vec<StoredKey>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    fingerprint: Fingerprint,
    algorithm: String,
    user_id: String,
    created: u64,
    expires: Option<u64>,
    published: u64,
    state: KeyState,
    /// What it is for.
    #[serde(default = "gpg")]
    kind: SignatureKind,
    /// OpenPGP or PEM, in hex.
    key: String,
}

/// What records say that are older than sigstore's keys.
fn gpg() -> SignatureKind {
    SignatureKind::Gpg
}

impl StoredKey {
    fn new(judged: &Judged) -> Self {
        Self {
            fingerprint: judged.fingerprint.clone(),
            algorithm: judged.algorithm.clone(),
            user_id: judged.user_id.clone(),
            created: judged.created,
            expires: judged.expires,
            published: now(),
            state: KeyState::Current,
            kind: judged.kind,
            key: hex(&judged.key),
        }
    }

    /// As of now.
    fn state(&self) -> KeyState {
        match self.state {
            KeyState::Revoked => KeyState::Revoked,
            _ if self.expires.is_some_and(|expires| expires <= now()) => KeyState::Expired,
            state => state,
        }
    }

    fn is_good(&self) -> bool {
        matches!(self.state(), KeyState::Current | KeyState::Previous)
    }
}

impl Stored {
    fn trusted(&self) -> Vec<trust::Key> {
        let keys = self.keys.iter().filter(|key| key.state != KeyState::Revoked);
        keys.map(|key| trust::Key {
            fingerprint: key.fingerprint.clone(),
            kind: key.kind,
            key: key.key.clone(),
        })
        .collect()
    }
}

fn path(config: &Config, creator: &AccountName) -> PathBuf {
    config.audit.state.join("keys").join(format!("{creator}.json"))
}

fn published(creator: &AccountName) -> PathBuf {
    Path::new(PUBLISHED).join(format!("{creator}.pgp"))
}

/// How many of a creator's keys are good now.
///
/// # Errors
/// when they cannot be read
pub fn count(config: &Config, creator: &AccountName) -> Result<u32, Failure> {
    let stored: Option<Stored> = read_json(&path(config, creator))?;
    let good = stored.unwrap_or_default().keys.iter().filter(|key| key.is_good()).count();
    Ok(u32::try_from(good).unwrap_or(u32::MAX))
}

/// What verifiers of a creator's images are given: all that is not revoked. Those that have expired are among them, since
/// verifiers judge that by the time of the signature.
///
/// # Errors
/// when they cannot be read
pub fn trusted(config: &Config, creator: &AccountName) -> Result<Vec<trust::Key>, Failure> {
    let user = User::from_name(creator.as_str()).map_err(|error| Failure::new(Reason::Resources, error))?;
    let stored: Option<Stored> = read_json(&path(config, creator))?;
    // Not those of somebody else who had the name.
    let his = stored.filter(|stored| user.is_some_and(|user| user.uid.as_raw() == stored.uid));
    Ok(his.unwrap_or_default().trusted())
}

/// Keys that creators sign with, expired or not, and when they do: those that are neither revoked nor followed by another.
///
/// # Errors
/// when they cannot be read
pub fn ends(config: &Config) -> Result<Vec<(AccountName, Fingerprint, Option<u64>)>, Failure> {
    let mut ends = Vec::new();
    for creator in accounts_in(&config.audit.state.join("keys"), ".json") {
        let stored: Option<Stored> = read_json(&path(config, &creator))?;
        let current = stored.unwrap_or_default().keys.into_iter();
        let current = current.filter(|key| key.state == KeyState::Current);
        ends.extend(current.map(|key| (creator.clone(), key.fingerprint, key.expires)));
    }
    Ok(ends)
}

/// Is there anything to [`forget`]?
pub fn are_there(config: &Config, creator: &AccountName) -> bool {
    path(config, creator).exists() || published(creator).exists()
}

/// Of a creator who is removed: nothing that he signed is trusted any more.
///
/// # Errors
/// unlink(2)
pub fn forget(config: &Config, creator: &AccountName) -> Result<(), Failure> {
    remove(&published(creator))?;
    remove(&path(config, creator))
}

fn wanted(stored: &Stored) -> Vec<u8> {
    let keys =
        stored.keys.iter().filter(|key| key.state != KeyState::Revoked && key.kind == SignatureKind::Gpg);
    keys.filter_map(|key| unhex_bytes(&key.key)).flatten().collect()
}

/// Whose keys something is about.
#[derive(Debug)]
pub struct Creator {
    config: Config,
    name: AccountName,
    uid: u32,
}

impl Creator {
    /// He, whoever asks.
    pub fn new(config: &Config, name: &AccountName, uid: u32) -> Self {
        Self { config: config.clone(), name: name.clone(), uid }
    }

    /// The caller, or, where an Administrator says so, somebody else.
    fn asked(job: &Job, named: Option<&AccountName>) -> Result<Self, Failure> {
        let nobody =
            || Failure::new(Reason::UnmanagedUser, "you have no account of a plain name on this host");
        let own = member::own_name(job.uid);
        let accounts = &job.config.accounts;
        let Some(named) = named.filter(|&named| own.as_ref() != Some(named)) else {
            if !member::holds(job.uid, Role::ImageCreator, accounts) {
                let text = "you are no image creator yourself; name the one whose key it is: --creator NAME";
                return Err(Failure::new(Reason::NotOwner, text));
            }
            return own.map(|own| Self::new(&job.config, &own, job.uid)).ok_or_else(nobody);
        };
        if !member::holds(job.uid, Role::Administrator, accounts) {
            let text = format!("{named} is somebody else; only an Administrator may do that for him");
            return Err(Failure::new(Reason::NotOwner, text));
        }
        let user = User::from_name(named.as_str()).ok().flatten();
        let user = user.filter(|user| member::holds(user.uid.as_raw(), Role::ImageCreator, accounts));
        let none =
            || Failure::new(Reason::UnmanagedUser, format!("{named} is no image creator on this host"));
        user.map(|user| Self::new(&job.config, named, user.uid.as_raw())).ok_or_else(none)
    }

    /// His keys; not those of somebody else who had the name.
    fn stored(&self) -> Result<Stored, Failure> {
        let stored: Option<Stored> = read_json(&path(&self.config, &self.name))?;
        let his = stored.filter(|stored| stored.uid == self.uid);
        Ok(his.unwrap_or(Stored { uid: self.uid, keys: Vec::new() }))
    }

    fn store(&self, stored: &Stored) -> Result<(), Failure> {
        write_json(&path(&self.config, &self.name), stored)
    }

    /// The key that was made with him, who has none that is good. Those that he had stay what they are.
    ///
    /// # Errors
    /// `BadKey` for one that was revoked; write(2)
    pub fn add(self, job: &Job, key: Judged) -> Result<Fingerprint, Failure> {
        let mut publish = Publish { job: job.clone(), creator: self, rotate: false, key };
        publish.record_run()?;
        Ok(publish.fingerprint())
    }

    /// Is the verifiers' file as the records have it?
    ///
    /// # Errors
    /// when one of both cannot be read
    pub fn publish_todo(&self) -> Result<Option<String>, Failure> {
        let path = published(&self.name);
        let there = std::fs::read(&path).unwrap_or_default();
        Ok((there != wanted(&self.stored()?)).then(|| format!("write {}", path.display())))
    }

    /// The file for verifiers: all that are not revoked. Those that have expired stay in it, since verifiers judge that by
    /// the time of the signature.
    ///
    /// # Errors
    /// write(2)
    pub fn publish_run(&self) -> Result<(), Failure> {
        let path = published(&self.name);
        let bytes = wanted(&self.stored()?);
        if bytes.is_empty() {
            return remove(&path);
        }
        public_directory(Path::new(PUBLISHED))?;
        file::replace(&path, &bytes, 0o644).map_err(at(&path))
    }
}

/// A key to be published: the first, the same again, or a new one beside the old.
#[derive(Debug)]
pub struct Publish {
    job: Job,
    creator: Creator,
    rotate: bool,
    key: Judged,
}

impl Publish {
    /// From a request: judges the key.
    ///
    /// # Errors
    /// `NotOwner`, `BadKey`
    pub fn new(job: &Job, new: &NewPublicKey, rotate: bool, report: &mut Report) -> Result<Self, Failure> {
        let creator = Creator::asked(job, new.creator.as_ref())?;
        report.waiting(Step::Key);
        let key = judge(&job.config, new.key.bytes())?;
        Ok(Self { job: job.clone(), creator, rotate, key })
    }

    /// Of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint.clone()
    }

    /// What will be there, and in words what changes.
    fn plan(&self) -> Result<(Stored, Option<String>), Failure> {
        let mut stored = self.creator.stored()?;
        let (creator, fingerprint) = (&self.creator.name, &self.key.fingerprint);
        if let Some(same) = stored.keys.iter_mut().find(|key| key.fingerprint == *fingerprint) {
            if same.state == KeyState::Revoked {
                let text = format!("{fingerprint} was revoked, and stays so; make a new key");
                return Err(Failure::new(Reason::BadKey, text));
            }
            let new = StoredKey::new(&self.key);
            if (&same.key, same.expires) == (&new.key, new.expires) {
                return Ok((stored, None));
            }
            *same = StoredKey { published: same.published, state: same.state, ..new };
            return Ok((stored, Some(format!("renew the key {fingerprint} of {creator}"))));
        }
        // One that has expired is no key to rotate from, as for `podsecctl key generate`.
        let kind = self.key.kind;
        let there = stored.keys.iter().any(|key| key.state() == KeyState::Current && key.kind == kind);
        match (there, self.rotate) {
            (true, false) => {
                let text = format!(
                    "{creator} has another key already; to put this one in its place: podsecctl key rotate"
                );
                return Err(Failure::new(Reason::KeyExists, text));
            }
            (false, true) => {
                let text = format!("{creator} has no key to rotate; podsecctl key publish");
                return Err(Failure::new(Reason::NoKey, text));
            }
            _ => {}
        }
        for key in stored.keys.iter_mut().filter(|key| key.state == KeyState::Current && key.kind == kind) {
            key.state = KeyState::Previous;
        }
        stored.keys.push(StoredKey::new(&self.key));
        let old = if there { "; the one before stays good for what it signed" } else { "" };
        Ok((stored, Some(format!("publish the key {fingerprint} of {creator}{old}"))))
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        self.plan().map(|(_, todo)| todo)
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        self.creator.store(&self.plan()?.0)
    }

    fn trust(&self) -> Result<Option<Revise>, Failure> {
        let keys = Event::Keys(self.plan()?.0.trusted(), false);
        Revise::after(&self.job, &self.creator.name, &keys)
    }
}

impl Change for Publish {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
        Act {
            step: Step::Publish,
            todo: |change| change.creator.publish_todo(),
            run: |change| change.creator.publish_run(),
        },
        Act {
            step: Step::Policy,
            todo: |change| trust::nested_todo(change.trust()?),
            run: |change| trust::nested_run(change.trust()?),
        },
    ];

    fn warnings(&mut self) -> Vec<String> {
        match self.key.expires {
            None if self.key.kind == SignatureKind::Gpg => {
                vec!["the key never expires; better give it an end: gpg --quick-set-expire".into()]
            }
            _ => Vec::new(),
        }
    }
}

/// A key to be trusted no more.
#[derive(Debug)]
pub struct Revoke {
    job: Job,
    creator: Creator,
    fingerprint: Fingerprint,
}

impl Revoke {
    /// From a request.
    ///
    /// # Errors
    /// `NotOwner`, `NoKey`
    pub fn new(job: &Job, revocation: &KeyRevocation) -> Result<Self, Failure> {
        let creator = Creator::asked(job, revocation.creator.as_ref())?;
        let fingerprint = revocation.fingerprint.clone();
        if !creator.stored()?.keys.iter().any(|key| key.fingerprint == fingerprint) {
            return Err(Failure::new(Reason::NoKey, format!("{} has no key {fingerprint}", creator.name)));
        }
        Ok(Self { job: job.clone(), creator, fingerprint })
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        let stored = self.creator.stored()?;
        let good = stored
            .keys
            .iter()
            .any(|key| key.fingerprint == self.fingerprint && key.state != KeyState::Revoked);
        Ok(good.then(|| format!("revoke the key {} of {}", self.fingerprint, self.creator.name)))
    }

    /// His keys without it.
    fn revoked(&self) -> Result<Stored, Failure> {
        let mut stored = self.creator.stored()?;
        for key in stored.keys.iter_mut().filter(|key| key.fingerprint == self.fingerprint) {
            key.state = KeyState::Revoked;
        }
        Ok(stored)
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        self.creator.store(&self.revoked()?)
    }

    fn trust(&self) -> Result<Option<Revise>, Failure> {
        let keys = Event::Keys(self.revoked()?.trusted(), true);
        Revise::after(&self.job, &self.creator.name, &keys)
    }
}

impl Change for Revoke {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
        Act {
            step: Step::Publish,
            todo: |change| change.creator.publish_todo(),
            run: |change| change.creator.publish_run(),
        },
        Act {
            step: Step::Policy,
            todo: |change| trust::nested_todo(change.trust()?),
            run: |change| trust::nested_run(change.trust()?),
        },
    ];
}

/// `ListKeys`
///
/// # Errors
/// `NotOwner`
pub fn list(
    job: &Job,
    named: Option<&AccountName>,
    front: &Channel,
    report: &mut Report,
) -> Result<Reply, Failure> {
    report.step(Step::Read);
    let administrator = member::holds(job.uid, Role::Administrator, &job.config.accounts);
    let mut creators = Vec::new();
    match (named, administrator) {
        (Some(named), true) => creators.push(named.clone()),
        (None, true) => creators = accounts_in(&job.config.audit.state.join("keys"), ".json"),
        (named, false) => creators.push(Creator::asked(job, named)?.name),
    }
    for creator in creators {
        let stored: Option<Stored> = read_json(&path(&job.config, &creator))?;
        let stored = stored.filter(|stored| administrator || stored.uid == job.uid);
        for key in stored.unwrap_or_default().keys {
            let key = Key {
                creator: creator.clone(),
                state: key.state(),
                key: unhex_bytes(&key.key).unwrap_or_default(),
                fingerprint: key.fingerprint,
                algorithm: key.algorithm,
                user_id: key.user_id,
                created: key.created,
                expires: key.expires,
                published: key.published,
            };
            if front.send(&Reply::Key(Box::new(key)), &[]).is_err() {
                return Ok(Reply::End);
            }
        }
    }
    Ok(Reply::End)
}
