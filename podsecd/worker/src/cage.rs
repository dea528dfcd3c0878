//! Work in a cage (`podsec_cage`), by the parser's user, in a directory below podsecd's own.

use crate::Failure;
use crate::account::{self, LONG, act_as};
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_sys::credentials::Account;
use podsec_sys::file::Directory;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Of the directories, before the pid.
const PREFIX: &str = "cage-";

/// Runs `work` in a cage of its own, with a directory of its own; what it says is all that comes out.
///
/// # Errors
/// `Unsupported`; `BadKey` with what `work` says, or that it said nothing in time
pub fn inside<T: Serialize + DeserializeOwned>(
    config: &Config,
    work: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<T, Failure> {
    let (account, directory) = prepare(config)?;
    let said = act_as(&account, LONG, || podsec_cage::work(&directory, work));
    let _ = std::fs::remove_dir(&directory);
    said.map_err(|failure| Failure { reason: Reason::BadKey, ..failure })
}

/// A directory of the parser's own, for this one alone.
fn prepare(config: &Config) -> Result<(Account, PathBuf), Failure> {
    let account = account::system(&config.accounts.front)?;
    let directory = config.socket.path.with_file_name(format!("{PREFIX}{}", std::process::id()));
    let made = || -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Directory::open(&directory)?.give(account.uid, account.gid, 0o700)
    };
    made().map_err(crate::store::at(&directory))?;
    Ok((account, directory))
}

/// Removes what workers that were killed have left.
pub fn clean_up(config: &Config) {
    let Some(parent) = config.socket.path.parent() else { return };
    let Ok(held) = Directory::open(parent) else { return };
    for name in held.names().unwrap_or_default() {
        let pid = name.to_str().ok().and_then(|name| Some((name, name.strip_prefix(PREFIX)?.parse().ok()?)));
        if let Some((name, pid)) = pid
            && podsec_sys::process::open(pid).is_err()
        {
            let _ = held.remove_tree(name);
        }
    }
}
