//! trivy's database on this host: is it there, how old is it, and fetching a newer one. All of that as the user podsec-monitor,
//! whose it is, and with nothing of anybody's images at hand.

use super::cage::{Cage, Network};
use super::{Settings, trivy};
use crate::owner::Owner;
use crate::storage::read_plain;
use podsec_policy::trivy::Database;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// For fetching: as long as a slow line takes for a hundred megabytes.
const FETCH: Duration = Duration::from_secs(1200);
/// Bytes of its largest file.
const LARGEST: u64 = 16 << 30;

/// The database that images are compared with now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What is found with one is found with the other, if these are the same.
    pub version: String,
    /// `None` where a server has it.
    pub days_old: Option<u64>,
    /// Why there is no newer one.
    pub not_fetched: Option<String>,
}

/// Looks, and fetches a newer one where there should be one by now.
///
/// # Errors
/// that there is none, and what to do
pub fn ready(settings: &Settings, monitor: &Owner, now: u64) -> Result<Known, String> {
    if let Some(server) = &settings.server {
        return Ok(Known { version: format!("server {server}"), days_old: None, not_fetched: None });
    }
    let directory = &settings.cache_dir;
    let look = || cage(settings, Network::None).run_as(monitor, || read(directory));
    let mut found = look()?;
    let mut not_fetched = None;
    if !settings.offline && found.as_ref().is_none_or(|found| found.is_due(now)) {
        let fetched = cage(settings, Network::All).run_as(monitor, || fetch(settings));
        not_fetched = fetched.err();
        found = look()?;
    }
    let Some(found) = found else {
        let why = not_fetched.map(|why| format!(" ({why})")).unwrap_or_default();
        return Err(format!(
            "there is no vulnerability database in {}{why}: let podsec-check-vulnerabilities.service reach the network, \
             or bring trivy's db directory there and say offline = true in {}",
            directory.display(),
            crate::CONFIGURATION
        ));
    };
    let days_old = Some(found.days_old(now));
    Ok(Known { version: found.updated_at, days_old, not_fetched })
}

fn cage(settings: &Settings, network: Network) -> Cage {
    let directory = settings.cache_dir.clone();
    let readable = vec![settings.trivy.clone()];
    Cage { readable, writable: directory, network, largest: LARGEST, within: FETCH }
}

/// `None`: there is none.
fn read(directory: &Path) -> Result<Option<Database>, String> {
    let metadata = directory.join("db/metadata.json");
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}; remove it", metadata.display());
    match read_plain(&metadata, 64 << 10) {
        Ok(bytes) => {
            let database = Database::read(&bytes).map_err(|error| wrong(&error))?;
            Ok(directory.join("db/trivy.db").is_file().then_some(database))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(&error)),
    }
}

/// Beside the one that is used, which trivy would remove before it has another.
fn fetch(settings: &Settings) -> Result<(), String> {
    let new = settings.cache_dir.join("new");
    let failed = |error: io::Error| format!("{}: {error}", settings.cache_dir.display());
    let _ = std::fs::remove_dir_all(&new);
    std::fs::create_dir(&new).map_err(failed)?;
    let mut command = Command::new(&settings.trivy);
    command.args(["image", "--download-db-only", "--quiet"]);
    command.arg(format!("--cache-dir={}", new.display()));
    command.args(settings.repository.as_ref().map(|repository| format!("--db-repository={repository}")));
    trivy::environment(&mut command, &new).stdout(Stdio::null());
    for name in ["HTTPS_PROXY", "NO_PROXY"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let fetched = trivy::run(&mut command, &new, FETCH)
        .and_then(|()| read(&new))
        .and_then(|found| found.map(drop).ok_or_else(|| "trivy fetched nothing".into()))
        .and_then(|()| put(&new.join("db"), &settings.cache_dir.join("db")).map_err(failed));
    let _ = std::fs::remove_dir_all(&new);
    fetched
}

/// For every owner, who takes a copy.
fn put(new: &Path, db: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    std::fs::create_dir_all(db)?;
    mode(db, 0o755)?;
    // What says how new it is comes last.
    for name in ["trivy.db", "metadata.json"] {
        mode(&new.join(name), 0o644)?;
        std::fs::rename(new.join(name), db.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_or_not() {
        let directory = std::env::temp_dir().join(format!("podsec-database-{}", std::process::id()));
        let put = |name: &str, text: &str| {
            podsec_sys::file::replace(&directory.join("db").join(name), text.as_bytes(), 0o600).unwrap();
        };
        std::fs::create_dir_all(directory.join("db")).unwrap();
        assert_eq!(read(&directory), Ok(None));
        put("metadata.json", r#"{"Version":2,"UpdatedAt":"2026-11-20T01:02:03Z"}"#);
        assert_eq!(read(&directory), Ok(None), "half of it");
        put("trivy.db", "");
        assert_eq!(read(&directory).unwrap().unwrap().updated_at, "2026-11-20T01:02:03Z");
        put("metadata.json", "{}");
        assert!(read(&directory).unwrap_err().contains("metadata.json"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
