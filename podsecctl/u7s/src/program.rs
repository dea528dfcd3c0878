//! Programs of the distribution: found in the system's directories, run with an environment from scratch and an end.
//!
//! Must not: use a shell, or the caller's PATH.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where the distributions put them; also the PATH of what we start.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long one may take; all of them only print or make one system call.
const DEADLINE: Duration = Duration::from_secs(10);
const OUTPUT_LIMIT: u64 = 64 * 1024;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("cannot run {}: {source}", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("{} took longer than {}s", path.display(), DEADLINE.as_secs())]
    Deadline { path: PathBuf },
    #[error("{} failed with {status}: {text}", path.display())]
    Failed { path: PathBuf, status: String, text: String },
}

/// The first executable of this name in the system's directories.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(PATH).map(|directory| directory.join(name)).find(|path| executable(path))
}

/// Whether we may execute it.
pub(crate) fn executable(path: &Path) -> bool {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// Runs it to its end and returns what it printed.
pub(crate) fn run(path: &Path, arguments: &[&str]) -> Result<String, ProgramError> {
    let failed = |source| ProgramError::Run { path: path.into(), source };
    let mut child = Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let end = Instant::now() + DEADLINE;
    // What these print fits a pipe, so nothing blocks while nobody reads.
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                return Err(ProgramError::Deadline { path: path.into() });
            }
        }
    };
    let mut text = String::new();
    let outputs = (child.stdout.take(), child.stderr.take());
    outputs.0.map(|out| out.take(OUTPUT_LIMIT).read_to_string(&mut text)).transpose().map_err(failed)?;
    if status.success() {
        return Ok(text);
    }
    outputs.1.map(|err| err.take(OUTPUT_LIMIT).read_to_string(&mut text)).transpose().map_err(failed)?;
    let status = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or_default()),
    };
    Err(ProgramError::Failed { path: path.into(), status, text: text.trim().escape_debug().to_string() })
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
