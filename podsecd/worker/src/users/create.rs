//! `CreateUser`: the account, locked until a password is set, and all that its category needs.

use super::{
    Entry, Record, Shadow, TAG, delete, entry, etc, first_uid, groups, guard, is_known, managed, subids,
};
use crate::account::{SOON, act_as, run, tool};
use crate::change::{Act, Change};
use crate::keys::Creator;
use crate::services::credential;
use crate::store::{now, read_json};
use crate::trust::{self, Event, Revise};
use crate::{Failure, keys};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::reason::Reason;
use podsec_policy::user::{Category, Fingerprint, NewUser, key_user_id};
use podsec_sys::file::Directory;
use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::nix::unistd::{AccessFlags, eaccess};
use podsec_sys::program::ProgramError;
use podsec_sys::systemd;
use podsec_wire::messages::{Job, Step};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Tries, where other tools hold the account files.
const TRIES: u32 = 40;

/// A user to be made, or completed.
#[derive(Debug)]
pub struct Create {
    job: Job,
    config: Config,
    id: String,
    caller: u32,
    new: NewUser,
    warnings: Vec<String>,
    /// Of the key that was made with him.
    pub fingerprint: Option<Fingerprint>,
}

impl Create {
    /// From a request.
    pub fn new(job: &Job, new: NewUser) -> Self {
        let config = (*job.config).clone();
        let mut warnings = Vec::new();
        if new.linger && !systemd::runs() {
            warnings.push(
                "unsupported: no systemd runs here, so nothing ends with a login or outlives it".into(),
            );
        }
        Self {
            job: job.clone(),
            config,
            id: job.id.clone(),
            caller: job.uid,
            new,
            warnings,
            fingerprint: None,
        }
    }

    fn name(&self) -> &AccountName {
        &self.new.name
    }

    fn is_cluster_admin(&self) -> bool {
        self.new.category == Category::ClusterAdmin
    }

    /// In place of a hash: no password fits it.
    fn tag(&self) -> String {
        format!("!{TAG}{}", self.id)
    }

    /// Did this very operation make the account?
    fn made_here(&self) -> Result<bool, Failure> {
        Ok(Shadow::read(self.name())?.password == self.tag())
    }

    fn entry(&self) -> Result<Entry, Failure> {
        let none = || Failure::new(Reason::Program, format!("{} is not in /etc/passwd", self.name()));
        entry(self.name())?.ok_or_else(none)
    }

    fn home(&self) -> PathBuf {
        if self.is_cluster_admin() { "/var/lib".into() } else { self.config.users.homes.clone() }
            .join(self.name().as_str())
    }

    // ---- the account

    fn account_todo(&self) -> Result<Option<String>, Failure> {
        let (name, config) = (self.name(), &self.config);
        if (name.as_str() == config.accounts.cluster_user) != self.is_cluster_admin() {
            let text =
                format!("the cluster user of this host, and no other, is {}", config.accounts.cluster_user);
            return Err(Failure::new(Reason::BadName, text));
        }
        let taken = |why: &str| Err(Failure::new(Reason::UserExists, format!("{name}: {why}")));
        if entry(name)?.is_some() {
            if self.is_cluster_admin() || self.made_here()? {
                return Ok(None);
            }
            if Record::read(config, name)?.is_none() {
                return taken("there is a user of that name that podsec did not make; choose another name");
            }
            let (record, _) = managed(config, name)?;
            if record.category.name() != self.new.category.name() {
                let text = format!("{name} is of the category {}; delete him first", record.category.name());
                return Err(Failure::new(Reason::OtherCategory, text));
            }
            return self.scopes_are_free().map(|()| None);
        }
        let group = etc("group")?;
        if Record::read(config, name)?.is_some() {
            return taken("his account was removed by other means; first: podsecctl user delete");
        }
        if is_known(name) {
            return taken("the account database of this host's network has a user of that name");
        }
        if accounts::gid(&group, name.as_str()).is_some() {
            return taken("there is a group of that name, and each user has one of his own");
        }
        let groups = groups(config, &self.new.category);
        if let Some(none) = groups.iter().find(|wanted| accounts::gid(&group, wanted).is_none()) {
            let text = format!("the group {none} is not on this host; systemd-sysusers makes it");
            return Err(Failure::new(Reason::NoGroup, text));
        }
        if !self.is_cluster_admin() && self.home().symlink_metadata().is_ok() {
            return Err(self.home_exists("there is something of that name"));
        }
        self.scopes_are_free()?;
        let groups = match &groups[..] {
            [] => String::new(),
            [group] => format!(", in the group {group}"),
            groups => format!(", in the groups {}", groups.join(" and ")),
        };
        let subids = match self.new.category {
            Category::ImageCreator { .. } | Category::ImageUser => {
                format!(", with {} subordinate ids", config.users.subids)
            }
            Category::ClusterUser | Category::ClusterAdmin => String::new(),
        };
        Ok(Some(format!("make the account {name}, locked until a password is set{groups}{subids}")))
    }

    fn home_exists(&self, why: &str) -> Failure {
        Failure::new(Reason::HomeExists, format!("{}: {why}", self.home().display()))
    }

    fn scopes_are_free(&self) -> Result<(), Failure> {
        let Category::ImageCreator { scopes: _, shared } = &self.new.category else { return Ok(()) };
        for record in std::fs::read_dir(super::directory(&self.config)).into_iter().flatten().flatten() {
            let Some(record) = read_json::<Record>(&record.path()).ok().flatten() else { continue };
            let Category::ImageCreator { shared: theirs, .. } = &record.category else { continue };
            if record.name == *self.name() || (*shared && *theirs) {
                continue;
            }
            for scope in self.new.category.scopes() {
                if let Some(other) = record.category.scopes().iter().find(|other| other.overlaps(scope)) {
                    let text = format!(
                        "{scope}: {other} belongs to {}; where both are shared, both may sign",
                        record.name
                    );
                    return Err(Failure::new(Reason::ScopeTaken, text));
                }
            }
        }
        Ok(())
    }

    fn account_run(&mut self) -> Result<(), Failure> {
        // Of somebody who had the name before, and perhaps the number too.
        keys::forget(&self.config, self.name())?;
        credential::forget(self.name())?;
        trust::nested_run(Revise::after(&self.job, self.name(), &Event::Gone)?)?;
        let (name, tag) = (self.name().as_str(), self.tag());
        let (home, shell) = (self.home(), self.config.users.shell.clone());
        let mut arguments =
            vec!["--no-create-home".to_owned(), "--user-group".into(), "--password".into(), tag];
        arguments.extend(["--home-dir".into(), home.display().to_string()]);
        arguments.extend(["--shell".into(), shell.display().to_string()]);
        arguments.extend(["--comment".into(), self.new.full_name.as_str().into()]);
        let groups = groups(&self.config, &self.new.category);
        if !groups.is_empty() {
            arguments.extend(["--groups".into(), groups.join(",")]);
        }
        if self.is_cluster_admin() {
            arguments.push("--system".into());
        }
        // A system user gets his from usermod, a person of the cluster has none.
        let count = match self.new.category {
            Category::ImageCreator { .. } | Category::ImageUser => self.config.users.subids,
            Category::ClusterUser | Category::ClusterAdmin => 0,
        };
        for attempt in 1.. {
            let mut all = arguments.clone();
            // login.defs(5): a range of exactly the size that is wanted is the range that is taken.
            let first = if count > 0 { subids::free(&self.config)? } else { 0 };
            for kind in ["UID", "GID"] {
                let range = [("MIN", first), ("MAX", first + count.saturating_sub(1))];
                for (key, value) in range.into_iter().filter(|_| count > 0).chain([("COUNT", count)]) {
                    all.extend(["--key".to_owned(), format!("SUB_{kind}_{key}={value}")]);
                }
            }
            all.extend(["--".to_owned(), name.to_owned()]);
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            match tool("useradd", &all, &[]) {
                Ok(_) => break,
                // 1: the files are locked, 16 and 18: somebody took the range (useradd(8)).
                Err(ProgramError::Failed { code: Some(1 | 10 | 16 | 18), .. }) if attempt < TRIES => {
                    std::thread::sleep(Duration::from_millis(u64::from(attempt.min(10)) * 20));
                }
                Err(error) => return Err(Failure::new(Reason::Program, error)),
            }
        }
        self.look_at_account()
    }

    /// What useradd made is what was meant.
    fn look_at_account(&self) -> Result<(), Failure> {
        let (name, found) = (self.name(), self.entry()?);
        let wrong =
            |what: &str| Err(Failure::new(Reason::Program, format!("useradd made {name} with {what}")));
        let uid = found.account.uid;
        let passwd = etc("passwd")?;
        if uid == 0 || (uid < first_uid()?) != self.is_cluster_admin() {
            return wrong("a uid of another kind of user");
        }
        if accounts::accounts(&passwd).filter(|other| other.uid == uid).count() != 1 {
            return wrong("a uid that somebody else has");
        }
        let group = etc("group")?;
        if groups(&self.config, &self.new.category).iter().any(|wanted| !found.is_in(&group, wanted)) {
            return wrong("other groups");
        }
        if !self.made_here()? {
            return wrong("another password");
        }
        Ok(())
    }

    // ---- subordinate ids

    fn subids_todo(&self) -> Result<Option<String>, Failure> {
        let name = self.name();
        // useradd gives them with the account, but not to system users.
        let comes_along = entry(name)?.is_none() && !self.is_cluster_admin();
        if !self.new.category.has_containers()
            || comes_along
            || subids::of(name.as_str())?.iter().all(Option::is_some)
        {
            return Ok(None);
        }
        Ok(Some(format!("give {name} {} subordinate ids", self.config.users.subids)))
    }

    fn subids_run(&mut self) -> Result<(), Failure> {
        let name = self.name().as_str();
        let lacks = subids::of(name)?.map(|range| range.is_none());
        // usermod takes what it is told, also a range that somebody was given a moment ago.
        for attempt in 1.. {
            let first = subids::free(&self.config)?;
            let range = format!("{first}-{}", first + (self.config.users.subids - 1));
            let change = |options: [&'static str; 2]| {
                let options =
                    options.into_iter().zip(lacks).filter_map(|(option, lacks)| lacks.then_some(option));
                let arguments = options.flat_map(|option| [option, &range]).chain(["--", name]);
                run("usermod", &arguments.collect::<Vec<_>>(), &[])
            };
            change(["--add-subuids", "--add-subgids"])?;
            match subids::of(name) {
                Ok([Some(_), Some(_)]) => break,
                Ok(_) => {
                    return Err(Failure::new(
                        Reason::Program,
                        format!("usermod gave {name} no subordinate ids"),
                    ));
                }
                Err(failure) => {
                    change(["--del-subuids", "--del-subgids"])?;
                    if attempt == TRIES {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }

    // ---- the home

    fn home_todo(&self) -> Result<Option<String>, Failure> {
        let todo = Ok(Some(format!("make the home {}", self.home().display())));
        let Some(entry) = entry(self.name())? else { return todo };
        match entry.home.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => todo,
            Err(error) => Err(self.home_exists(&error.to_string())),
            Ok(meta) if meta.is_dir() && meta.uid() == entry.account.uid => Ok(None),
            // Made, and not yet given to him.
            Ok(meta)
                if meta.is_dir() && meta.uid() == 0 && self.made_here()? && delete::is_empty(&entry.home) =>
            {
                todo
            }
            Ok(_) => Err(self.home_exists("it is not his directory")),
        }
    }

    fn home_run(&mut self) -> Result<(), Failure> {
        let entry = self.entry()?;
        let failed = |error: io::Error| self.home_exists(&error.to_string());
        let (Some(parent), Some(name)) =
            (entry.home.parent(), entry.home.file_name().and_then(|name| name.to_str()))
        else {
            return Err(self.home_exists("it has no name"));
        };
        let parent = Directory::open(parent).map_err(failed)?;
        let home = match parent.make(name, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => parent.directory(Path::new(name)),
            made => made,
        };
        home.and_then(|home| home.give(entry.account.uid, entry.account.gid, 0o700)).map_err(failed)
    }

    /// Once: what he changes or removes later is his affair.
    fn skeleton_todo(&self) -> Result<Option<String>, Failure> {
        if self.is_cluster_admin() || Record::read(&self.config, self.name())?.is_some() {
            return Ok(None);
        }
        let more = match self.new.category {
            Category::ImageCreator { .. } => {
                " and a policy of his own, under which he may use unsigned images"
            }
            Category::ClusterUser => " and ~/.kube",
            Category::ImageUser | Category::ClusterAdmin => "",
        };
        Ok(Some(format!("put what is in /etc/skel{more} into the home")))
    }

    fn skeleton_run(&mut self) -> Result<(), Failure> {
        let Entry { account, home } = self.entry()?;
        let category = self.new.category.name();
        let warnings = act_as(&account, SOON, || {
            fill(&home, category).map_err(|error| format!("{}: {error}", home.display()))
        })?;
        self.warnings.extend(warnings);
        Ok(())
    }

    // ---- guard, linger, record

    fn guard_todo(&self) -> Result<Option<String>, Failure> {
        let todo =
            || Some("put a strict policy.json into ~/.config/containers that he cannot change".to_owned());
        if self.new.category != Category::ImageUser {
            return Ok(None);
        }
        let Some(entry) = entry(self.name())? else { return Ok(todo()) };
        if entry.home.symlink_metadata().is_err() {
            return Ok(todo());
        }
        Ok(if guard::state(&entry)? == guard::State::Absent { todo() } else { None })
    }

    fn guard_run(&mut self) -> Result<(), Failure> {
        if guard::place(&self.entry()?)? == guard::State::Movable {
            let home = self.home();
            self.warnings.push(format!(
                "unsupported: the file system of {} cannot make files immutable, so he can rename ~/.config away",
                home.display()
            ));
        }
        Ok(())
    }

    fn linger_todo(&self) -> Result<Option<String>, Failure> {
        let lingers = || Path::new(LINGER).join(self.name().as_str()).exists();
        let todo = self.new.linger && systemd::runs() && !lingers();
        Ok(todo.then(|| format!("let processes of {} outlive his login", self.name())))
    }

    fn linger_run(&mut self) -> Result<(), Failure> {
        run("loginctl", &["enable-linger", self.name().as_str()], &[]).map(drop)
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        if self.is_cluster_admin() {
            return Ok(None);
        }
        Ok(match Record::read(&self.config, self.name())? {
            Some(record) if record.category == self.new.category => self
                .renames(&record)
                .then(|| format!("call {} '{}' from now on", self.name(), self.new.full_name.as_str())),
            Some(_) => {
                let scopes: Vec<_> = self.new.category.scopes().iter().map(ToString::to_string).collect();
                Some(format!("let {} sign in {} from now on", self.name(), scopes.join(", ")))
            }
            None => Some(format!("remember {} as one of podsec's users", self.name())),
        })
    }

    /// Nothing said is nothing changed.
    fn renames(&self, record: &Record) -> bool {
        !self.new.full_name.as_str().is_empty() && self.new.full_name != record.full_name
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        let record = match Record::read(&self.config, self.name())? {
            Some(mut record) => {
                if self.renames(&record) {
                    let full_name = self.new.full_name.as_str();
                    run("usermod", &["--comment", full_name, "--", self.name().as_str()], &[])?;
                    record.full_name = self.new.full_name.clone();
                }
                Record { category: self.new.category.clone(), ..record }
            }
            None => Record {
                name: self.name().clone(),
                uid: self.entry()?.account.uid,
                category: self.new.category.clone(),
                full_name: self.new.full_name.clone(),
                created: now(),
                created_by: self.caller,
                expired: None,
            },
        };
        record.write(&self.config)
    }

    // ---- the signing key

    fn creator(&self, entry: &Entry) -> Creator {
        Creator::new(&self.config, self.name(), entry.account.uid)
    }

    fn publish_todo(&self) -> Result<Option<String>, Failure> {
        match entry(self.name())? {
            Some(entry) => self.creator(&entry).publish_todo(),
            None => Ok(None),
        }
    }

    fn publish_run(&mut self) -> Result<(), Failure> {
        self.creator(&self.entry()?).publish_run()
    }

    /// By which he pushes to the registry, where this host has it.
    fn credential_todo(&self) -> Result<Option<String>, Failure> {
        let creator = matches!(self.new.category, Category::ImageCreator { .. });
        let todo =
            creator && credential::registry(&self.config).is_ok() && !credential::is_there(self.name());
        Ok(todo.then(|| format!("put a password for pushing to the registry into {AUTH}")))
    }

    fn credential_run(&mut self) -> Result<(), Failure> {
        let (registry, Entry { account, home }) = (credential::registry(&self.config)?, self.entry()?);
        let password = credential::make_for(&self.config, self.name())?;
        let text = credential::auth(&registry, self.name(), &password);
        let written = act_as(&account, SOON, || {
            let write = || -> io::Result<()> {
                let path = Path::new(AUTH.trim_start_matches("~/"));
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
                let mut file = Directory::open(&home)?.open_beneath(path, flags, 0o600)?;
                io::Write::write_all(&mut file, text.expose())
            };
            write().map_err(|error| format!("{AUTH}: {error}"))
        });
        if let Err(failure) = written {
            // He gets himself another when he needs it.
            self.warnings.push(format!(
                "{}; {} can do: podsecctl service credential",
                failure.detail,
                self.name()
            ));
        }
        Ok(())
    }

    /// Where he signs is trust's business, once there is trust.
    fn trust(&self) -> Result<Option<Revise>, Failure> {
        let Category::ImageCreator { scopes, shared } = &self.new.category else { return Ok(None) };
        let keys = keys::trusted(&self.config, self.name())?;
        let event = Event::Scopes { scopes: scopes.clone().into(), shared: *shared, keys };
        Revise::after(&self.job, self.name(), &event)
    }

    fn key_todo(&self) -> Result<Option<String>, Failure> {
        let Some(key) = &self.new.key else { return Ok(None) };
        if keys::count(&self.config, self.name())? > 0 {
            return Ok(None);
        }
        let (algorithm, days) = (key.algorithm.name(), key.days.get());
        let kept = if key.passphrase.is_some() { "with a passphrase" } else { "WITHOUT a passphrase" };
        Ok(Some(format!("make a signing key, {algorithm}, for {days} days, {kept}")))
    }

    fn key_run(&mut self) -> Result<(), Failure> {
        let Some(key) = self.new.key.clone() else { return Ok(()) };
        let entry = self.entry()?;
        let user_id = key_user_id(self.name(), &self.new.full_name, self.new.category.scopes());
        let public = keys::generate(&self.config, (&entry.account, &entry.home), &user_id, &key)?;
        self.fingerprint = Some(self.creator(&entry).add(&self.job, public)?);
        Ok(())
    }
}

/// Where podman and skopeo look for it; containers-auth.json(5).
const AUTH: &str = "~/.config/containers/auth.json";
/// Names of users whose processes outlive their login (loginctl(1)).
const LINGER: &str = "/var/lib/systemd/linger";

impl Change for Create {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Account, todo: Self::account_todo, run: Self::account_run },
        Act { step: Step::Subids, todo: Self::subids_todo, run: Self::subids_run },
        Act { step: Step::Home, todo: Self::home_todo, run: Self::home_run },
        Act { step: Step::Skeleton, todo: Self::skeleton_todo, run: Self::skeleton_run },
        Act { step: Step::Guard, todo: Self::guard_todo, run: Self::guard_run },
        Act { step: Step::Linger, todo: Self::linger_todo, run: Self::linger_run },
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
        Act { step: Step::Key, todo: Self::key_todo, run: Self::key_run },
        Act { step: Step::Publish, todo: Self::publish_todo, run: Self::publish_run },
        Act { step: Step::Credential, todo: Self::credential_todo, run: Self::credential_run },
        Act {
            step: Step::Policy,
            todo: |change| trust::nested_todo(change.trust()?),
            run: |change| trust::nested_run(change.trust()?),
        },
    ];

    fn has_begun(&self) -> Result<bool, Failure> {
        Ok(entry(self.name())?.is_some()
            && (self.made_here()? || Record::read(&self.config, self.name())?.is_some()))
    }

    /// The account goes again if this made it, and with it everything that is its.
    fn undo(&mut self) -> Result<(), Failure> {
        if !self.made_here()? {
            return Ok(());
        }
        let entry = self.entry()?;
        delete::everything(&self.config, self.name(), &entry)
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// As the user. Only plain files and directories are copied from `/etc/skel`: a link, a FIFO or a set-uid program in there
/// is a mistake of somebody's, and is told; so is what he may not read.
fn fill(home: &Path, category: &str) -> io::Result<Vec<String>> {
    let mut warnings = Vec::new();
    let home = Directory::open(home)?;
    copy(Path::new("/etc/skel"), &home, 16, &mut warnings)?;
    match category {
        "image-creator" => {
            let containers = make(&make(&home, ".config")?, "containers")?;
            let policy = b"{\n    \"default\": [\n        {\n            \"type\": \"insecureAcceptAnything\"\n        }\n    ]\n}\n";
            put(&containers, "policy.json", policy, 0o644)?;
        }
        "cluster-user" => _ = make(&home, ".kube")?,
        _ => {}
    }
    Ok(warnings)
}

fn make(at: &Directory, name: &str) -> io::Result<Directory> {
    match at.make(name, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at.directory(Path::new(name)),
        made => made,
    }
}

fn put(at: &Directory, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    match at.make_file(name, bytes, mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made?.set_permissions(std::fs::Permissions::from_mode(mode)),
    }
}

fn copy(from: &Path, to: &Directory, depth: u32, warnings: &mut Vec<String>) -> io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, meta) = (entry.path(), entry.metadata()?);
        let name = entry.file_name();
        let plain = meta.is_file() && meta.mode() & 0o7000 == 0 && meta.len() <= 1 << 20;
        let access = if meta.is_dir() { AccessFlags::R_OK | AccessFlags::X_OK } else { AccessFlags::R_OK };
        let readable = eaccess(&path, access).is_ok();
        match name.to_str().filter(|_| readable) {
            Some(name) if meta.is_dir() && depth > 0 => copy(&path, &make(to, name)?, depth - 1, warnings)?,
            Some(name) if plain => put(to, name, &std::fs::read(&path)?, meta.mode() & 0o755)?,
            _ => {
                let path = podsec_policy::audit::escape(path.as_os_str().as_encoded_bytes());
                warnings.push(format!(
                    "{path} was not copied: it is no plain file of at most 1 MiB, or directory, that the user may read"
                ));
            }
        }
    }
    Ok(())
}
