//! podsec's own files: root's, in directories of root's, each replaced as a whole.

use crate::Failure;
use podsec_policy::reason::Reason;
use podsec_sys::file::{self, FileError};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of podsec's own, `None` where there is none.
///
/// # Errors
/// when it cannot be read, or is not what podsec wrote
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    const LONGEST: usize = 16 << 20;
    match file::read_small(path, 0, LONGEST) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| at(path)(error.into())),
        Err(FileError::Absent) => Ok(None),
        Err(FileError::Unfit(why)) => Err(at(path)(io::Error::other(why))),
        Err(FileError::Io(error)) => Err(at(path)(error)),
    }
}

/// Replaces it as a whole.
///
/// # Errors
/// write(2), rename(2)
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| Failure::new(Reason::Bug, error))?;
    file::replace(path, &bytes, 0o600).map_err(at(path))
}

/// Removes it if it is there.
///
/// # Errors
/// unlink(2)
pub fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// A directory that everybody may look into and only root writes, whatever the umask.
///
/// # Errors
/// mkdir(2); where somebody else may write it, or one above it
pub fn public_directory(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let missing: Vec<&Path> = path.ancestors().take_while(|part| !part.exists()).collect();
    podsec_sys::process::make_root_owned(path, 0o755).map_err(at(path))?;
    for part in missing {
        std::fs::set_permissions(part, std::fs::Permissions::from_mode(0o755)).map_err(at(part))?;
    }
    Ok(())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Says where it went wrong.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = PathBuf::from(path);
    move |error| Failure::new(Reason::Resources, format!("{}: {error}", path.display()))
}
