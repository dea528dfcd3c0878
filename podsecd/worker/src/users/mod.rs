//! The people that podsec makes, and its records of them.
//!
//! Accounts are changed by the distribution's own programs and read back afterwards; homes are touched as their users
//! ([`crate::account::act_as`]), or below a held directory where a thing has to be root's. Must not: touch root, system
//! users, members of the administrators' group, or anybody without a record ([`managed`]), whoever asks.

mod create;
mod delete;
mod guard;
mod idmaps;
mod lock;
mod subids;
mod verify;

pub use create::Create;
pub use delete::Delete;
pub use guard::USER_POLICY;
pub use idmaps::{IdMaps, show as show_idmaps};
pub use lock::{Lock, set_password};
pub use verify::verify;

use crate::store::{at, read_json, read_text, write_json};
use crate::{Failure, Report, keys, member};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::peer::Role;
use podsec_policy::reason::Reason;
use podsec_policy::user::{Category, FullName, Scope};
use podsec_sys::credentials::Account;
use podsec_sys::nix::unistd::User as NssUser;
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Reply, Step, User, UserState};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What podsec remembers of a user that it made: root's file, one each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Login name, as the file's.
    pub name: AccountName,
    /// Given by useradd(8). An account of another uid is somebody else.
    pub uid: u32,
    /// What he is.
    pub category: Category,
    /// As he was made.
    pub full_name: FullName,
    /// Seconds since 1970.
    pub created: u64,
    /// Uid of who asked for it.
    pub created_by: u32,
    /// While he is locked: the day on which the account would have expired otherwise (shadow(5)), if on any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<String>,
}

impl Record {
    /// Where it is.
    fn path(config: &Config, name: &AccountName) -> PathBuf {
        directory(config).join(format!("{name}.json"))
    }

    /// `None`: podsec did not make him.
    fn read(config: &Config, name: &AccountName) -> Result<Option<Self>, Failure> {
        read_json(&Self::path(config, name))
    }

    fn write(&self, config: &Config) -> Result<(), Failure> {
        write_json(&Self::path(config, &self.name), self)
    }
}

fn directory(config: &Config) -> PathBuf {
    config.audit.state.join("users")
}

/// Image creators, and where they sign by their records.
///
/// # Errors
/// when a record cannot be read
pub fn creators(config: &Config) -> Result<Vec<(AccountName, Vec<Scope>)>, Failure> {
    let mut creators = Vec::new();
    for found in std::fs::read_dir(directory(config)).into_iter().flatten().flatten() {
        if let Some(Record { name, category: Category::ImageCreator { scopes, .. }, .. }) =
            read_json(&found.path())?
        {
            creators.push((name, scopes.into()));
        }
    }
    Ok(creators)
}

/// One of the account files, whole.
fn etc(name: &str) -> Result<String, Failure> {
    Ok(read_text(&Path::new("/etc").join(name))?.unwrap_or_default())
}

/// A user as the account files have him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Ids, with his supplementary groups.
    pub account: Account,
    /// Home directory.
    pub home: PathBuf,
}

impl Entry {
    /// Is he in that group, by the group file as it was read?
    fn is_in(&self, group: &str, name: &str) -> bool {
        accounts::gid(group, name).is_some_and(|gid| self.account.groups.contains(&gid))
    }
}

/// `None`: no such account in `/etc/passwd`.
fn entry(name: &AccountName) -> Result<Option<Entry>, Failure> {
    let (passwd, group) = (etc("passwd")?, etc("group")?);
    Ok(accounts::account(&passwd, name.as_str()).map(|found| Entry {
        account: Account { uid: found.uid, gid: found.gid, groups: accounts::groups_of(&group, found.name) },
        home: found.home.into(),
    }))
}

/// Fields of a user's line in shadow(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shadow {
    password: String,
    /// Days since 1970.
    expires: String,
}

impl Shadow {
    fn of(shadow: &str, name: &str) -> Self {
        let fields = accounts::entry(shadow, name).unwrap_or_default();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default().to_owned();
        Self { password: field(1), expires: field(7) }
    }

    fn read(name: &AccountName) -> Result<Self, Failure> {
        Ok(Self::of(&etc("shadow")?, name.as_str()))
    }

    /// With [`LOCKED`] nobody logs in, by whatever means: PAM's account management refuses (pam_unix(8)).
    fn state(&self) -> UserState {
        if self.expires == LOCKED {
            UserState::Locked
        } else if self.password.trim_start_matches('!').starts_with(TAG) {
            UserState::NoPassword
        } else {
            UserState::Active
        }
    }
}

/// The second of January 1970: an account that has expired long ago.
const LOCKED: &str = "1";

/// What stands in shadow(5) where a hash would, as long as a user has no password: no hash of any kind, behind the `!` of a
/// locked one. With the operation's id it says who made the account: what another tool made under the same name at the
/// same time is never taken for podsec's.
const TAG: &str = "podsec-";

/// The first uid of people (login.defs(5), `UID_MIN`).
fn first_uid() -> Result<u32, Failure> {
    let text = etc("login.defs")?;
    let value = text.lines().find_map(|line| line.trim().strip_prefix("UID_MIN")?.trim().parse().ok());
    Ok(value.unwrap_or(1000))
}

/// A user that podsec made and may touch now, whoever asks.
///
/// # Errors
/// `UnmanagedUser` says why he is none
pub fn managed(config: &Config, name: &AccountName) -> Result<(Record, Entry), Failure> {
    let none = |why: &str| Failure::new(Reason::UnmanagedUser, format!("{name} {why}"));
    let record = Record::read(config, name)?.ok_or_else(|| none("is not one of podsec's users"))?;
    let gone = "was removed or replaced by other means than podsec; delete what podsec has of him: podsecctl user delete";
    let entry = entry(name)?.filter(|entry| entry.account.uid == record.uid).ok_or_else(|| none(gone))?;
    let uid = record.uid;
    if uid < first_uid()? || name.as_str() == config.accounts.cluster_user {
        return Err(none("is a system user"));
    }
    if member::is_member(uid, &config.accounts.administrators) {
        return Err(none("is an administrator now"));
    }
    Ok((record, entry))
}

/// Administrators ask about anyone, everybody else about himself.
///
/// # Errors
/// `NotOwner`
pub fn self_or_administrator(job: &Job, name: &AccountName) -> Result<(), Failure> {
    let himself = member::own_name(job.uid).is_some_and(|own| own == *name);
    if himself || member::holds(job.uid, Role::Administrator, &job.config.accounts) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::NotOwner,
        format!("{name} is somebody else; an Administrator may ask about him"),
    ))
}

/// Does the account database know this name, from wherever?
fn is_known(name: &AccountName) -> bool {
    !matches!(NssUser::from_name(name.as_str()), Ok(None))
}

/// All that podsec made, by their names.
///
/// # Errors
/// `Resources`
pub fn all(config: &Config) -> Result<Vec<Record>, Failure> {
    let mut records: Vec<Record> = Vec::new();
    for entry in std::fs::read_dir(directory(config)).into_iter().flatten() {
        let path = entry.map_err(at(&directory(config)))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            // Removed meanwhile.
            records.extend(read_json::<Record>(&path)?);
        }
    }
    records.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    Ok(records)
}

/// `ListUsers`
pub fn list(
    job: &Job,
    name: Option<&AccountName>,
    front: &Channel,
    report: &mut Report,
) -> Result<Reply, Failure> {
    report.step(Step::Read);
    let config = &job.config;
    let administrator = member::holds(job.uid, Role::Administrator, &config.accounts);
    let own = member::own_name(job.uid);
    let mut records: Vec<Record> = Vec::new();
    match (name, &own) {
        (Some(name), _) => {
            self_or_administrator(job, name)?;
            records.extend(Record::read(config, name)?);
        }
        (None, _) if administrator => {
            records = all(config)?;
        }
        (None, Some(own)) => records.extend(Record::read(config, own)?),
        (None, None) => {}
    }
    let (passwd, shadow, subuid) = (etc("passwd")?, etc("shadow")?, etc("subuid")?);
    // Each file is read once, however many users there are.
    let uids: HashMap<&str, u32> = accounts::accounts(&passwd).map(|found| (found.name, found.uid)).collect();
    let shadows: HashMap<&str, &str> =
        shadow.lines().filter_map(|line| Some((line.split(':').next()?, line))).collect();
    let ranges: HashMap<&str, (u32, u32)> =
        accounts::ranges(&subuid).map(|(owner, first, count)| (owner, (first, count))).collect();
    for record in records {
        let name = record.name.as_str();
        let state = if uids.get(name) == Some(&record.uid) {
            Shadow::of(shadows.get(name).copied().unwrap_or_default(), name).state()
        } else {
            UserState::Gone
        };
        let user = User {
            uid: record.uid,
            state,
            subids: ranges.get(name).copied(),
            created: record.created,
            keys: keys::count(config, &record.name)?,
            name: record.name,
            category: record.category,
            full_name: record.full_name,
        };
        if front.send(&Reply::User(Box::new(user)), &[]).is_err() {
            break;
        }
    }
    Ok(Reply::End)
}

/// The groups of a category, by the names of the configuration.
fn groups<'a>(config: &'a Config, category: &Category) -> Vec<&'a str> {
    let accounts = &config.accounts;
    match category {
        Category::ImageCreator { .. } => vec![&accounts.image_users, &accounts.image_creators],
        Category::ImageUser => vec![&accounts.image_users],
        Category::ClusterUser | Category::ClusterAdmin => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_an_account() {
        let shadow =
            "a:!podsec-1:1:0:9:7:::\nb:$y$x:1:0:9:7::1:\nc:!$y$x:1:0:9:7::20000:\nd:$y$x:1:0:9:7:::\n";
        let state = |name: &str| Shadow::of(shadow, name).state();
        assert_eq!(
            ["a", "b", "c", "d"].map(state),
            [UserState::NoPassword, UserState::Locked, UserState::Active, UserState::Active]
        );
    }
}
