//! `RestrictIdMaps`: newuidmap(1) and newgidmap(1), which give a user's namespace his subordinate ids, for image users
//! alone. By control(8) where the distribution has it (ALT), else by group and mode. Without them a user has containers
//! of a single uid only.

use super::etc;
use crate::Failure;
use crate::account::run;
use crate::change::{Act, Change};
use crate::store::{at, read_json, remove, write_json};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_sys::nix::fcntl::AT_FDCWD;
use podsec_sys::nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use podsec_sys::nix::unistd::{Gid, fchownat};
use podsec_sys::program::find_roots;
use podsec_wire::messages::{Change as Done, Job, Step};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const PROGRAMS: [&str; 2] = ["newuidmap", "newgidmap"];
/// Set-uid, for root and the group.
const RESTRICTED: u32 = 0o4710;

/// How it was before, to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    /// Path, mode, gid.
    programs: Vec<(PathBuf, u32, u32)>,
    /// The cluster user was put into the group, since rootlesskit needs both programs.
    joined: bool,
}

/// Restrict, or open again.
#[derive(Debug)]
pub struct IdMaps {
    config: Config,
    restrict: bool,
}

impl IdMaps {
    /// From a request.
    pub fn new(job: &Job, restrict: bool) -> Self {
        Self { config: (*job.config).clone(), restrict }
    }

    fn note(&self) -> PathBuf {
        self.config.audit.state.join("idmaps.json")
    }

    fn before(&self) -> Result<Option<Before>, Failure> {
        read_json(&self.note())
    }

    fn gid(&self) -> Result<u32, Failure> {
        let name = &self.config.accounts.image_users;
        let gid = accounts::gid(&etc("group")?, name).filter(|&gid| gid != 0);
        gid.ok_or_else(|| Failure::new(Reason::NoGroup, format!("the group {name} is not on this host")))
    }

    fn cluster_user_is_member(&self) -> Result<bool, Failure> {
        let (user, group) = (&self.config.accounts.cluster_user, etc("group")?);
        let exists = accounts::account(&etc("passwd")?, user).is_some();
        Ok(!exists || accounts::groups_of(&group, user).contains(&self.gid()?))
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        Ok((self.restrict && self.before()?.is_none()).then(|| "remember how it was".to_owned()))
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        let programs = PROGRAMS.iter().map(|name| {
            let path = program(name)?;
            let meta = path.metadata().map_err(at(&path))?;
            if meta.mode() & 0o4000 == 0 {
                let text = format!(
                    "{} has its rights by file capabilities, which a change of group would take away",
                    path.display()
                );
                return Err(Failure::new(Reason::Unsupported, text));
            }
            Ok((path, meta.mode() & 0o7777, meta.gid()))
        });
        let before =
            Before { programs: programs.collect::<Result<_, _>>()?, joined: !self.cluster_user_is_member()? };
        write_json(&self.note(), &before)
    }

    fn account_todo(&self) -> Result<Option<String>, Failure> {
        let (user, group) = (&self.config.accounts.cluster_user, &self.config.accounts.image_users);
        let joined = self.before()?.is_some_and(|before| before.joined);
        let member = self.cluster_user_is_member()?;
        Ok(match self.restrict {
            true if !member => {
                Some(format!("put {user} into the group {group}: rootlesskit needs both programs"))
            }
            false if member && joined => Some(format!("take {user} out of the group {group} again")),
            _ => None,
        })
    }

    fn account_run(&mut self) -> Result<(), Failure> {
        let (user, group) = (&self.config.accounts.cluster_user, &self.config.accounts.image_users);
        let action = if self.restrict { "--add" } else { "--delete" };
        run("gpasswd", &[action, user, group], &[]).map(drop)
    }

    fn modes_todo(&self) -> Result<Option<String>, Failure> {
        let group = &self.config.accounts.image_users;
        let todo = if self.restrict {
            self.is_open()?.then(|| format!("let only the group {group} run newuidmap and newgidmap"))
        } else {
            self.before()?.is_some().then(|| "let everybody run newuidmap and newgidmap again".to_owned())
        };
        Ok(todo)
    }

    /// May anybody else than root and the group run one of them?
    fn is_open(&self) -> Result<bool, Failure> {
        let gid = self.gid()?;
        for name in PROGRAMS {
            let path = program(name)?;
            let meta = path.metadata().map_err(at(&path))?;
            if meta.mode() & 0o001 != 0 || meta.gid() != gid {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn modes_run(&mut self) -> Result<(), Failure> {
        if find_roots("control").is_ok() {
            let facility = if self.restrict { "podmanonly" } else { "public" };
            for name in PROGRAMS {
                run("control", &[name, facility], &[])?;
            }
        } else if self.restrict {
            let gid = self.gid()?;
            for name in PROGRAMS {
                set(&program(name)?, RESTRICTED, gid)?;
            }
        } else {
            for (path, mode, gid) in self.before()?.unwrap_or_default().programs {
                set(&path, mode, gid)?;
            }
        }
        if self.restrict { Ok(()) } else { remove(&self.note()) }
    }
}

fn program(name: &str) -> Result<PathBuf, Failure> {
    find_roots(name).map_err(|error| Failure::new(Reason::Unsupported, error))
}

/// A change of group takes the set-uid bit away (chown(2)), so the mode comes after it.
fn set(path: &Path, mode: u32, gid: u32) -> Result<(), Failure> {
    let changed = fchownat(
        AT_FDCWD,
        path,
        None,
        Some(Gid::from_raw(gid)),
        podsec_sys::nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    );
    let changed = changed.and_then(|()| {
        fchmodat(AT_FDCWD, path, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
    });
    changed.map_err(|error| at(path)(error.into()))
}

impl Change for IdMaps {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
        Act { step: Step::Account, todo: Self::account_todo, run: Self::account_run },
        Act { step: Step::Modes, todo: Self::modes_todo, run: Self::modes_run },
    ];
}

/// How it is, in words.
///
/// # Errors
/// where the programs are not installed
pub fn show(job: &Job) -> Result<Done, Failure> {
    let maps = IdMaps::new(job, true);
    let group = &job.config.accounts.image_users;
    let text = match maps.is_open()? {
        true => "everybody may run newuidmap and newgidmap".to_owned(),
        false => format!("only root and the group {group} may run newuidmap and newgidmap"),
    };
    Ok(Done { warnings: vec![text], ..Done::default() })
}

/// May he have containers with more than his own uid only as a member of the image users' group?
pub fn is_restricted(config: &Config) -> bool {
    let maps = IdMaps { config: config.clone(), restrict: true };
    maps.is_open().is_ok_and(|open| !open)
}
