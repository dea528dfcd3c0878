//! podsec's own files: root's, in directories of root's, each replaced as a whole.

use crate::Failure;
use podsec_policy::name::AccountName;
use podsec_policy::reason::Reason;
use podsec_sys::file::{self, FileError};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of the host's, `None` where there is none.
///
/// # Errors
/// read(2)
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// The same as text: what is no UTF-8 in other people's lines must not keep the others from being read.
///
/// # Errors
/// read(2)
pub fn read_text(path: &Path) -> Result<Option<String>, Failure> {
    Ok(read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whose records are in a directory, by their names without `end`; in order.
pub fn accounts_in(directory: &Path, end: &str) -> Vec<AccountName> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        AccountName::new(name.strip_suffix(end)?).ok()
    });
    let mut names: Vec<_> = names.collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names
}

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
