//! docker-registry (distribution/distribution 2.x): its configuration, its own judgement of that, and its store.
//!
//! It listens on a socket in the file system that only the web server reaches, so there is no way around the password.

use super::account;
use crate::Failure;
use crate::store::at;
use podsec_policy::reason::Reason;
use podsec_sys::file::Directory;
use podsec_sys::program::{Run, find_roots, run_with};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Its configuration, as podsec-registry.service has it.
pub const FILE: &str = "/etc/podsec/services/registry.yml";
/// Its images.
pub const STORE: &str = "/var/lib/podsec-registry";
/// Where it listens.
pub const SOCKET: &str = "/run/podsec-registry/registry.sock";
/// As whom it runs.
pub const USER: &str = "podsec-registry";

/// Debian's program.
///
/// # Errors
/// `Unsupported`
pub fn program() -> Result<PathBuf, Failure> {
    find_roots("docker-registry").map_err(|error| Failure::new(Reason::Unsupported, error))
}

/// Its configuration (distribution's configuration.md). Locations are relative, so it need not know how it is called.
/// Lines of requests have what resumes an upload in them, so there are none. Nobody deletes: each creator may push
/// everywhere, and what is signed is told by its digest.
pub fn render(store: &str) -> String {
    format!(
        "# Written by podsec; changes are shown by `podsecctl service status` and undone by the next deploy.
version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {store}
  delete:
    enabled: false
http:
  net: unix
  addr: {SOCKET}
  relativeurls: true
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"
    )
}

/// Has it read a configuration. It has no option for that; collecting garbage in an empty store reads all of it, and does
/// nothing more.
///
/// # Errors
/// `ServiceConfig` with what it said
pub fn try_out(scratch: &Path) -> Result<(), Failure> {
    let (store, file) = (scratch.join("store"), scratch.join("registry.yml"));
    for name in ["blobs", "repositories"] {
        let directory = store.join("docker/registry/v2").join(name);
        std::fs::create_dir_all(&directory).map_err(at(&directory))?;
    }
    let text = render(&store.display().to_string());
    podsec_sys::file::replace(&file, text.as_bytes(), 0o600).map_err(at(&file))?;
    let file = file.display().to_string();
    let tried = run_with(&program()?, &["garbage-collect", "--dry-run", &file], Run::default());
    tried.map(drop).map_err(|error| Failure::new(Reason::ServiceConfig, error))
}

/// Is there one, and its own?
///
/// # Errors
/// `Unsupported` without its user
pub fn has_store() -> Result<bool, Failure> {
    let uid = account(USER)?.uid;
    Ok(Path::new(STORE).symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == uid))
}

/// Makes it.
///
/// # Errors
/// mkdir(2), chown(2)
pub fn make_store() -> Result<(), Failure> {
    if has_store()? {
        return Ok(());
    }
    let (path, account) = (Path::new(STORE), account(USER)?);
    let make = || -> io::Result<()> {
        let parent = Directory::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let store = parent.open_or_make(name, 0o755)?;
        // Everybody may read, as by pulling; so its size can be told without a capability.
        store.give(account.uid, account.gid, 0o755)
    };
    make().map_err(at(path))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_configuration() {
        insta::assert_snapshot!("registry", super::render(super::STORE));
    }
}
