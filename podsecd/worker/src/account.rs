//! Other people's processes: acting as a user, and the programs of the distribution.

use crate::Failure;
use crate::store::read_text;
use podsec_policy::accounts;
use podsec_policy::reason::Reason;
use podsec_sys::credentials::Account;
use podsec_sys::process;
use podsec_sys::program::{self, ProgramError, Run};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;
use std::time::Duration;

/// For what is done in a user's home. He may stop the process that does it.
pub const SOON: Duration = Duration::from_secs(5);
/// The same, where programs run.
pub const LONG: Duration = Duration::from_secs(30);

/// One of the accounts that sysusers.d(5) makes: what runs as it has no other groups.
///
/// # Errors
/// `Unsupported`
pub fn system(name: &str) -> Result<Account, Failure> {
    let passwd = read_text(Path::new("/etc/passwd"))?.unwrap_or_default();
    let found = accounts::account(&passwd, name).ok_or_else(|| {
        let text = format!("the user {name} is not on this host; systemd-sysusers makes it");
        Failure::new(Reason::Unsupported, text)
    })?;
    Ok(Account { uid: found.uid, gid: found.gid, groups: Vec::new() })
}

/// Does something as that user, in a process of its own that has no way back. What is in his home is his, and may be
/// anything: links to root's files, FIFOs, other people's directories. As him it can do no more than he can.
///
/// # Errors
/// what `work` says; `HomeTrap` when it says nothing in time
pub fn act_as<T: Serialize + DeserializeOwned>(
    account: &Account,
    within: Duration,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<T, Failure> {
    let parent = i32::try_from(std::process::id()).map_err(|error| Failure::new(Reason::Bug, error))?;
    let said = process::in_child(within, || {
        let dropped = account.become_it().and_then(|()| process::die_with_parent(parent));
        let result = dropped.map_err(|error| error.to_string()).and_then(|()| work());
        serde_json::to_vec(&result).unwrap_or_default()
    });
    let said =
        said.map_err(|error| Failure::new(Reason::HomeTrap, format!("acting as the user: {error}")))?;
    let result: Result<T, String> =
        serde_json::from_slice(&said).map_err(|error| Failure::new(Reason::HomeTrap, error))?;
    result.map_err(|text| Failure::new(Reason::HomeTrap, text))
}

/// Runs a program of the distribution's as root.
///
/// # Errors
/// `Program` with what it said
pub fn run(name: &str, arguments: &[&str], input: &[u8]) -> Result<String, Failure> {
    tool(name, arguments, input).map_err(|error| Failure::new(Reason::Program, error))
}

/// The same, for whoever looks at how it failed.
///
/// # Errors
/// [`ProgramError`]
pub fn tool(name: &str, arguments: &[&str], input: &[u8]) -> Result<String, ProgramError> {
    let path = program::find_roots(name).map_err(|source| ProgramError::Run { path: name.into(), source })?;
    // These wait up to 15 seconds for each other (lckpwdf(3)).
    // Without /usr/local, as in find_roots.
    let environment = [("PATH", Path::new("/usr/sbin:/usr/bin:/sbin:/bin"))];
    let run = Run { input, environment: &environment, deadline: Duration::from_secs(60) };
    let printed = program::run_with(&path, arguments, run)?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// Runs systemctl(1), by the bus: systemd's own socket is closed to podsecd, whatever its capabilities.
///
/// # Errors
/// `Unsupported`; `Program` with what it said
pub fn systemctl(arguments: &[&str], deadline: Duration) -> Result<(), Failure> {
    let path = program::find_roots("systemctl").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let environment = [("SYSTEMCTL_FORCE_BUS", Path::new("1"))];
    let run = Run { environment: &environment, deadline, ..Run::default() };
    program::run_with(&path, arguments, run).map(drop).map_err(|error| Failure::new(Reason::Program, error))
}
