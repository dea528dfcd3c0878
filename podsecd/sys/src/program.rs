//! Programs of the distribution: found in the system's directories, run with an environment from scratch and an end.
//!
//! Must not: use a shell, or the caller's PATH.

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the distributions put them; also the PATH of what we start.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long one may take; all of them only print or make one system call.
const DEADLINE: Duration = Duration::from_secs(10);
const OUTPUT_LIMIT: u64 = 256 * 1024;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum ProgramError {
    #[error("cannot run {}: {source}", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("{} took longer than {seconds}s", path.display())]
    Deadline { path: PathBuf, seconds: u64 },
    #[error("{} failed with {status}: {text}", path.display())]
    Failed { path: PathBuf, status: String, code: Option<i32>, text: String },
}

/// The first executable of this name in the system's directories.
pub fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(PATH).map(|directory| directory.join(name)).find(|path| executable(path))
}

/// The same for root: only what nobody else could have put there. So nothing below `/usr/local`, which on Debian the
/// group staff may write.
///
/// # Errors
/// `NotFound`; `PermissionDenied` where somebody else than root may write it
pub fn find_roots(name: &str) -> io::Result<PathBuf> {
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let mut paths = directories.iter().map(|directory| Path::new(directory).join(name));
    let Some(path) = paths.find(|path| executable(path)) else {
        let text = format!("{name} is not installed");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    };
    let path = path.canonicalize()?;
    crate::process::require_root_owned(&path)?;
    Ok(path)
}

/// Whether we may execute it.
pub fn executable(path: &Path) -> bool {
    use nix::unistd::{AccessFlags, eaccess};
    path.is_file() && eaccess(path, AccessFlags::X_OK).is_ok()
}

/// What a program gets beside its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// On its standard input. Kept in memory only, so it may be a secret.
    pub input: &'a [u8],
    /// Beside `PATH` and `LC_ALL`.
    pub environment: &'a [(&'a str, &'a Path)],
    /// Then it is killed.
    pub deadline: Duration,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self { input: &[], environment: &[], deadline: DEADLINE }
    }
}

/// Options of curl(1) for whoever fetches or posts something: no .curlrc, no proxy, nothing but HTTP. A redirect is an error:
/// only with --location curl takes it for one.
pub const CURL: &[&str] = &[
    "--disable",
    "--silent",
    "--show-error",
    "--fail",
    "--globoff",
    "--proto",
    "=http,https",
    "--noproxy",
    "*",
    "--location",
    "--max-redirs",
    "0",
    "--connect-timeout",
    "10",
];

/// Runs it to its end and returns what it printed.
///
/// # Errors
/// [`ProgramError`]
pub fn run(path: &Path, arguments: &[&str]) -> Result<String, ProgramError> {
    let printed = run_with(path, arguments, Run::default())?;
    String::from_utf8(printed)
        .map_err(|error| ProgramError::Run { path: path.into(), source: io::Error::other(error) })
}

/// The same, with more to say.
///
/// # Errors
/// [`ProgramError`]
pub fn run_with(path: &Path, arguments: &[&str], run: Run<'_>) -> Result<Vec<u8>, ProgramError> {
    let failed = |source| ProgramError::Run { path: path.into(), source };
    // Memory instead of pipes, so that nobody waits for a reader or a writer.
    let memory =
        || memfd_create(c"", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(|error| failed(error.into()));
    let (mut input, output, errors) = (memory()?, memory()?, memory()?);
    input.write_all(run.input).and_then(|()| input.seek(SeekFrom::Start(0))).map_err(failed)?;
    let stdio = |file: &File| file.try_clone().map(Stdio::from).map_err(failed);
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(run.environment.iter().copied())
        .stdin(stdio(&input)?)
        .stdout(stdio(&output)?)
        .stderr(stdio(&errors)?)
        .spawn()
        .map_err(failed)?;
    let end = Instant::now() + run.deadline;
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                return Err(ProgramError::Deadline { path: path.into(), seconds: run.deadline.as_secs() });
            }
        }
    };
    let printed = |mut file: File| {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.take(OUTPUT_LIMIT).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    if status.success() {
        return printed(output);
    }
    let (code, text) = (status.code(), printed(errors)?);
    let status = match (code, status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    // One line, for whoever shows it.
    let text = String::from_utf8_lossy(&text).trim().replace(char::is_control, " ");
    Err(ProgramError::Failed { path: path.into(), status, code, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_and_nothing_else() {
        assert!(find("true").unwrap().is_absolute());
        assert_eq!(find("podsec-no-such-program"), None);
        assert!(!executable(Path::new("/usr/bin")) && !executable(Path::new("/etc/passwd")));
    }

    #[test]
    fn runs_without_our_environment() {
        let printed = run(&find("env").unwrap(), &[]).unwrap();
        let mut lines: Vec<_> = printed.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LC_ALL=C", &format!("PATH={PATH}")]);
    }

    #[test]
    fn says_how_a_program_failed() {
        let error = run(&find("ls").unwrap(), &["--", "/podsec-no-such"]).unwrap_err().to_string();
        assert!(error.contains("exit status 2") && error.contains("No such file"), "{error}");
        assert!(matches!(run(Path::new("/podsec-no-such"), &[]), Err(ProgramError::Run { .. })));
    }
}
