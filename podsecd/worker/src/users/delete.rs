//! `DeleteUser`: what `CreateUser` made, in the reverse order, after nobody can be him any more.

use super::{Entry, LOCKED, Record, Shadow, entry, etc, guard, managed};
use crate::account::{act_as, run};
use crate::change::{Act, Change};
use crate::services::credential;
use crate::store::{at, remove};
use crate::trust::{self, Event, Revise};
use crate::{Failure, keys};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::operation::UserChange;
use podsec_policy::reason::Reason;
use podsec_sys::file::Directory;
use podsec_sys::nix::sys::signal::{Signal, kill};
use podsec_sys::nix::unistd::Pid;
use podsec_sys::process::{self, Facts};
use podsec_wire::messages::{Job, Step};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where Debian has crontabs, and ALT; one file each, of his name.
const CRONTABS: [&str; 2] = ["/var/spool/cron/crontabs", "/var/spool/cron"];
/// For a user's processes to be gone after SIGKILL.
const DYING: Duration = Duration::from_secs(10);

/// A user to be removed.
#[derive(Debug)]
pub struct Delete {
    job: Job,
    config: Config,
    change: UserChange,
    /// He, if the account is still the one that podsec made.
    entry: Option<Entry>,
    warnings: Vec<String>,
}

impl Delete {
    /// From a request.
    ///
    /// # Errors
    /// `UnmanagedUser` for an account that podsec did not make, or may not touch
    pub fn new(job: &Job, change: UserChange) -> Result<Self, Failure> {
        let (config, name) = ((*job.config).clone(), &change.name);
        let mut warnings = Vec::new();
        let found = match (entry(name)?, Record::read(&config, name)?) {
            (Some(found), Some(record)) if found.account.uid != record.uid => {
                warnings.push(format!("the account {name} is not the one that podsec made, and stays"));
                None
            }
            (Some(_), _) => Some(managed(&config, name)?.1),
            (None, _) => None,
        };
        Ok(Self { job: job.clone(), config, change, entry: found, warnings })
    }

    /// He, as long as he is in the account files.
    fn entry(&self) -> Result<Option<&Entry>, Failure> {
        let there = entry(&self.change.name)?;
        let same =
            |found: &&Entry| there.as_ref().is_some_and(|there| there.account.uid == found.account.uid);
        Ok(self.entry.as_ref().filter(same))
    }

    fn lock_todo(&self) -> Result<Option<String>, Failure> {
        let locked = Shadow::read(&self.change.name)?.expires == LOCKED;
        Ok((self.entry()?.is_some() && !locked).then(|| format!("lock the account {}", self.change.name)))
    }

    fn lock_run(&mut self) -> Result<(), Failure> {
        run("usermod", &["--lock", "--expiredate", LOCKED, "--", self.change.name.as_str()], &[]).map(drop)
    }

    fn processes_todo(&self) -> Result<Option<String>, Failure> {
        let Some(entry) = self.entry()? else { return Ok(None) };
        let count = processes(&ids(&self.change.name, entry)?).len();
        Ok((count > 0).then(|| format!("end {count} processes of {}", self.change.name)))
    }

    /// What cron(8) would go on doing, for the next one of his name.
    fn crontab_todo(&self) -> Result<Option<String>, Failure> {
        let there = self.entry()?.is_some() && self.crontabs().next().is_some();
        Ok(there.then(|| format!("remove the crontab of {}", self.change.name)))
    }

    fn crontabs(&self) -> impl Iterator<Item = PathBuf> {
        let paths = CRONTABS.map(|crontabs| Path::new(crontabs).join(self.change.name.as_str()));
        paths.into_iter().filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
    }

    fn crontab_run(&mut self) -> Result<(), Failure> {
        self.crontabs().try_for_each(|path| remove(&path))
    }

    fn processes_run(&mut self) -> Result<(), Failure> {
        self.entry()?.map_or(Ok(()), |entry| end_processes(&self.change.name, entry))
    }

    fn guard_todo(&self) -> Result<Option<String>, Failure> {
        let there = self.entry()?.filter(|entry| is_his(entry)).map(guard::is_there).transpose()?;
        Ok((there == Some(true)).then(|| "lift the lock on ~/.config".to_owned()))
    }

    fn guard_run(&mut self) -> Result<(), Failure> {
        self.entry()?.map_or(Ok(()), guard::lift)
    }

    fn home_todo(&self) -> Result<Option<String>, Failure> {
        let Some(entry) = self.entry()?.filter(|entry| is_his(entry)) else { return Ok(None) };
        let home = entry.home.display();
        Ok(Some(match self.change.remove_home {
            true => format!("remove the home {home}"),
            false => format!("close the home {home}: root alone can enter it"),
        }))
    }

    fn home_run(&mut self) -> Result<(), Failure> {
        let Some(entry) = self.entry()? else { return Ok(()) };
        if self.change.remove_home { remove_home(entry) } else { close_home(entry) }
    }

    fn linger_todo(&self) -> Result<Option<String>, Failure> {
        let name = &self.change.name;
        let lingers =
            self.entry()?.is_some() && Path::new("/var/lib/systemd/linger").join(name.as_str()).exists();
        Ok(lingers.then(|| format!("end the lingering of {name}")))
    }

    fn linger_run(&mut self) -> Result<(), Failure> {
        run("loginctl", &["disable-linger", self.change.name.as_str()], &[]).map(drop)
    }

    fn keys_todo(&self) -> Result<Option<String>, Failure> {
        let name = &self.change.name;
        let there = keys::are_there(&self.config, name) || credential::is_there(name);
        Ok(there.then(|| format!("withdraw the signing keys of {name}, and his password for pushing")))
    }

    fn keys_run(&mut self) -> Result<(), Failure> {
        credential::forget(&self.change.name)?;
        keys::forget(&self.config, &self.change.name)
    }

    fn trust(&self) -> Result<Option<Revise>, Failure> {
        Revise::after(&self.job, &self.change.name, &Event::Gone)
    }

    fn account_todo(&self) -> Result<Option<String>, Failure> {
        Ok(self.entry()?.map(|_| format!("remove the account {} and its subordinate ids", self.change.name)))
    }

    fn account_run(&mut self) -> Result<(), Failure> {
        remove_account(&self.change.name)
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        let there = Record::path(&self.config, &self.change.name).exists();
        Ok(there.then(|| format!("forget {}", self.change.name)))
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        remove(&Record::path(&self.config, &self.change.name))
    }
}

/// Half removed, he stays locked; asked again, it goes on from there. Nothing is undone.
impl Change for Delete {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Password, todo: Self::lock_todo, run: Self::lock_run },
        Act { step: Step::Linger, todo: Self::crontab_todo, run: Self::crontab_run },
        Act { step: Step::Processes, todo: Self::processes_todo, run: Self::processes_run },
        Act { step: Step::Guard, todo: Self::guard_todo, run: Self::guard_run },
        Act { step: Step::Home, todo: Self::home_todo, run: Self::home_run },
        Act { step: Step::Linger, todo: Self::linger_todo, run: Self::linger_run },
        Act { step: Step::Publish, todo: Self::keys_todo, run: Self::keys_run },
        Act {
            step: Step::Policy,
            todo: |change| trust::nested_todo(change.trust()?),
            run: |change| trust::nested_run(change.trust()?),
        },
        Act { step: Step::Account, todo: Self::account_todo, run: Self::account_run },
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
    ];

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// All of an account that was only just made.
///
/// # Errors
/// as its acts
pub fn everything(config: &Config, name: &AccountName, entry: &Entry) -> Result<(), Failure> {
    end_processes(name, entry)?;
    if is_his(entry) {
        guard::lift(entry)?;
        remove_home(entry)?;
    } else if is_empty(&entry.home) {
        std::fs::remove_dir(&entry.home).map_err(at(&entry.home))?;
    }
    credential::forget(name)?;
    keys::forget(config, name)?;
    remove(&Record::path(config, name))?;
    remove_account(name)
}

/// A directory of root's with nothing in it: a home that has not yet been given to its user.
pub fn is_empty(path: &Path) -> bool {
    let roots = path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == 0);
    roots && std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn is_his(entry: &Entry) -> bool {
    entry.home.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == entry.account.uid)
}

fn remove_home(entry: &Entry) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Reason::HomeTrap, format!("{}: {error}", entry.home.display()));
    let (Some(parent), Some(name)) =
        (entry.home.parent(), entry.home.file_name().and_then(|name| name.to_str()))
    else {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    };
    Directory::open(parent).and_then(|parent| parent.remove_tree(name)).map_err(failed)
}

/// The uid will be somebody else's one day, and must not open what this one left.
fn close_home(entry: &Entry) -> Result<(), Failure> {
    let closed = guard::home(entry)?.give(0, 0, 0o700);
    closed.map_err(|error| Failure::new(Reason::HomeTrap, format!("{}: {error}", entry.home.display())))
}

fn remove_account(name: &AccountName) -> Result<(), Failure> {
    run("userdel", &["--", name.as_str()], &[])?;
    match entry(name)? {
        None => Ok(()),
        Some(_) => Err(Failure::new(Reason::Program, format!("userdel left {name}"))),
    }
}

/// His uid, and his subordinate ones: what runs in his containers would be the next user's.
fn ids(name: &AccountName, entry: &Entry) -> Result<Vec<RangeInclusive<u32>>, Failure> {
    let text = etc("subuid")?;
    let his = accounts::ranges(&text).filter(|(owner, _, count)| *owner == name.as_str() && *count > 0);
    let his = his.map(|(_, first, count)| first..=first.saturating_add(count - 1));
    Ok(his.chain([entry.account.uid..=entry.account.uid]).collect())
}

/// Processes that are, or may become, one of these; held, so that they stay the same ones.
fn processes(ids: &[RangeInclusive<u32>]) -> Vec<OwnedFd> {
    let is_one = |uid: &u32| ids.iter().any(|ids| ids.contains(uid));
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let held = pids.filter_map(|pid| {
        // Held first, looked at then.
        let process = process::open(pid).ok()?;
        let his = Facts::of(pid).status("Uid").is_ok_and(|uids| uids.iter().any(is_one));
        (his && !process::has_ended(&process)).then_some(process)
    });
    held.collect()
}

/// One by one, which nobody can resist who does not multiply; and as he could himself, all in one call (kill(2), -1),
/// which nobody can outrun who does not stop the process that makes it.
fn end_processes(name: &AccountName, entry: &Entry) -> Result<(), Failure> {
    let (ids, end) = (ids(name, entry)?, Instant::now() + DYING);
    loop {
        let found = processes(&ids);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            let text = "processes of the user do not end; they may wait for a device";
            return Err(Failure::new(Reason::Program, text));
        }
        for process in &found {
            let _ = process::signal(process, Signal::SIGKILL);
        }
        let all = || match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(podsec_sys::nix::Error::ESRCH) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let _ = act_as(&entry.account, Duration::from_secs(1), all);
        std::thread::sleep(Duration::from_millis(5));
    }
}
