//! `SetPassword`, `LockUser`, `UnlockUser`.

use super::{LOCKED, Record, Shadow, TAG, managed};
use crate::account::run;
use crate::change::{Act, Change};
use crate::fault::point;
use crate::{Failure, Report};
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::operation::UserChange;
use podsec_policy::secret::{Password, Secret};
use podsec_wire::messages::{Change as Done, Job, Step};

/// An account to be locked or unlocked.
#[derive(Debug)]
pub struct Lock {
    config: Config,
    name: AccountName,
    lock: bool,
}

impl Lock {
    /// From a request.
    ///
    /// # Errors
    /// `UnmanagedUser`
    pub fn new(job: &Job, change: &UserChange, lock: bool) -> Result<Self, Failure> {
        managed(&job.config, &change.name)?;
        Ok(Self { config: (*job.config).clone(), name: change.name.clone(), lock })
    }

    fn todo(&self) -> Result<Option<String>, Failure> {
        let is_locked = Shadow::read(&self.name)?.expires == LOCKED;
        let (record, _) = managed(&self.config, &self.name)?;
        Ok(match self.lock {
            true if !is_locked => Some(format!("lock {}: no login by any means", self.name)),
            false if is_locked || record.expired.is_some() => Some(format!("unlock {}", self.name)),
            _ => None,
        })
    }

    /// The day on which the account would expire anyhow is kept, and comes back.
    fn run(&mut self) -> Result<(), Failure> {
        let (record, _) = managed(&self.config, &self.name)?;
        let (name, shadow) = (self.name.as_str(), Shadow::read(&self.name)?);
        if self.lock {
            let expired = record.expired.clone().or(Some(shadow.expires));
            Record { expired, ..record }.write(&self.config)?;
            return run("usermod", &["--lock", "--expiredate", LOCKED, "--", name], &[]).map(drop);
        }
        let expires = record.expired.clone().unwrap_or_default();
        let mut arguments = vec!["--expiredate", &expires];
        // Without a password there is nothing to unlock: the account goes on waiting for one.
        if shadow.password.trim_start_matches('!').starts_with('$') {
            arguments.push("--unlock");
        }
        run("usermod", &[&arguments[..], &["--", name]].concat(), &[])?;
        Record { expired: None, ..record }.write(&self.config)
    }
}

impl Change for Lock {
    const ACTS: &'static [Act<Self>] = &[Act { step: Step::Account, todo: Self::todo, run: Self::run }];
}

/// Sets it by chpasswd(8), on its standard input. One program does all of it, so there is nothing to complete after a
/// crash, and nothing of it is written down.
///
/// # Errors
/// `UnmanagedUser`, `Program`
pub fn set_password(
    job: &Job,
    name: &AccountName,
    password: &Password,
    report: &mut Report,
) -> Result<Done, Failure> {
    report.waiting(Step::Password);
    managed(&job.config, name)?;
    // With room for all from the start, so that no half of it is left elsewhere in memory.
    let mut line = Vec::with_capacity(name.as_str().len() + password.expose().len() + 2);
    line.extend_from_slice(name.as_str().as_bytes());
    line.push(b':');
    line.extend_from_slice(password.expose());
    line.push(b'\n');
    let line = Secret::new(line);
    point("before-password")?;
    run("chpasswd", &[], line.expose())?;
    point("after-password")?;
    let mut warnings = Vec::new();
    let shadow = Shadow::read(name)?;
    if shadow.password.contains(TAG) {
        return Err(Failure::new(
            podsec_policy::Reason::Program,
            format!("chpasswd left {name} without a password"),
        ));
    }
    if shadow.expires == LOCKED {
        warnings.push(format!("{name} stays locked; to unlock him: podsecctl user unlock {name}"));
    }
    Ok(Done { steps: vec![format!("set the password of {name}")], warnings, fingerprint: None })
}
