//! One image, by trivy: exported, looked at, and the report read. In a [`Cage`], as the owner.

use super::Settings;
use super::cage::{Cage, Network};
use super::export::{Source, export};
use podsec_policy::trivy::{Ask, Scan};
use podsec_sys::nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a report: of an image with a hundred thousand packages.
const REPORT: u64 = 64 << 20;
/// Bytes of complaints that are looked at, from their end.
const COMPLAINTS: u64 = 4 << 10;
/// For what comes before and after trivy, so that it is trivy that gives up, and says so.
const SPARE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// What one image has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What trivy knows.
    pub scan: Scan,
    /// Files that it did not see.
    pub unread: u64,
}

/// By whom and with what.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    /// As configured.
    pub settings: &'a Settings,
    /// The program.
    pub gzip: PathBuf,
}

impl Scanner<'_> {
    /// What an image of that store needs; `scratch` is the owner's directory.
    #[must_use]
    pub fn cage(&self, source: &Source, scratch: &Path) -> Cage {
        let settings = self.settings;
        let readable = vec![settings.trivy.clone(), settings.cache_dir.clone(), source.root.clone()];
        let network = settings.server.as_deref().map_or(Network::None, |server| Network::Port(port(server)));
        let within = settings.timeout() + SPARE;
        Cage { readable, writable: scratch.to_owned(), network, largest: settings.largest(), within }
    }

    /// Looks at it. For a process in that cage.
    ///
    /// # Errors
    /// says what could not be done
    pub fn scan(&self, source: &Source, scratch: &Path) -> Result<Seen, String> {
        let settings = self.settings;
        let end = Instant::now() + settings.timeout();
        let failed = |error: io::Error| format!("{}: {error}", scratch.display());
        let (image, cache) = (scratch.join("image"), scratch.join("cache"));
        let _ = std::fs::remove_dir_all(&image);
        std::fs::create_dir(&image).map_err(failed)?;
        if settings.server.is_none() {
            copy_database(&settings.cache_dir, &cache)?;
        }
        // Half of what is left of the disk, so that nobody fills it with an image.
        let free = statvfs(scratch).map_err(|error| failed(error.into()))?;
        let free = free.blocks_available().saturating_mul(free.fragment_size()) / 2;
        let exported = export(source, &image, &self.gzip, settings.largest().min(free));
        let exported = exported.inspect_err(|_| drop(std::fs::remove_dir_all(&image)))?;
        let left = end.saturating_duration_since(Instant::now());
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let (input, cache) = (path(&image), path(&cache));
        // It gives up by itself before it is ended.
        let seconds = left.as_secs().saturating_sub(5).max(1);
        let ask = Ask { input: &input, cache: &cache, server: settings.server.as_deref(), seconds };
        let mut command = Command::new(&settings.trivy);
        environment(command.args(ask.arguments()), scratch);
        let report = scratch.join("report");
        command.stdout(File::create(&report).map_err(failed)?);
        let ran = run(&mut command, scratch, left);
        let _ = std::fs::remove_dir_all(&image);
        ran?;
        let mut bytes = Vec::new();
        let read = File::open(&report).and_then(|file| file.take(REPORT + 1).read_to_end(&mut bytes));
        read.map_err(failed)?;
        if bytes.len() as u64 > REPORT {
            return Err(format!("trivy's report has more than {REPORT} bytes"));
        }
        let mut scan = podsec_policy::trivy::read(&bytes).map_err(|error| error.to_string())?;
        scan.keep(&settings.limits);
        Ok(Seen { scan, unread: exported.unread })
    }
}

/// trivy opens its database for writing (and locks it), so each owner has his own.
fn copy_database(from: &Path, cache: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let to = cache.join("db");
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(&to).map_err(|error| failed(&to, error))?;
    // The one without which it is none comes last.
    for name in ["trivy.db", "metadata.json"] {
        let (from, to) = (from.join("db").join(name), to.join(name));
        if to.exists() && cache.join("db/metadata.json").exists() {
            continue;
        }
        std::fs::copy(&from, &to).map_err(|error| failed(&from, error))?;
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&to, mode).map_err(|error| failed(&to, error))?;
    }
    // Only read, and larger than the other.
    let _ = std::os::unix::fs::symlink(from.join("java-db"), cache.join("java-db"));
    Ok(())
}

/// Nothing of ours, nothing of the owner's: trivy reads trivy.yaml and .trivyignore where it stands, and modules from a home.
pub fn environment<'a>(command: &'a mut Command, directory: &Path) -> &'a mut Command {
    command.env_clear().env("PATH", podsec_sys::program::PATH).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    // Nobody is told that it runs.
    command.env("TRIVY_SKIP_VERSION_CHECK", "true").env("TRIVY_DISABLE_TELEMETRY", "true");
    command.env("HOME", directory).env("TMPDIR", directory).current_dir(directory)
}

/// Runs it to its end; its complaints go into a file there.
///
/// # Errors
/// what it says, or that it took too long
pub fn run(command: &mut Command, directory: &Path, within: Duration) -> Result<(), String> {
    let cannot = |error: io::Error| format!("trivy cannot be run: {error}");
    let path = directory.join("complaints");
    let mut child = command.stderr(File::create(&path).map_err(cannot)?).spawn().map_err(cannot)?;
    let end = Instant::now() + within;
    let status = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(LOOK),
            None => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(format!("trivy took longer than {} seconds", within.as_secs()));
            }
        }
    };
    let complaints = tail(&path).unwrap_or_default();
    let _ = std::fs::remove_file(&path);
    if status.success() { Ok(()) } else { Err(complaint(&complaints, &status)) }
}

fn tail(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(COMPLAINTS);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(COMPLAINTS).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Its last word: `TIME<tab>FATAL<tab>Fatal error<tab>what`.
fn complaint(stderr: &[u8], status: &std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let said = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let said = said.and_then(|line| line.rsplit('\t').next());
    said.map_or_else(|| format!("trivy failed: {status}"), |said| format!("trivy says: {said}"))
}

/// Of a URL.
fn port(url: &str) -> u16 {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let usual = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
    port.and_then(|(_, port)| port.parse().ok()).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn ports() {
        for (url, expected) in [
            ("http://trivy.local:4954", 4954),
            ("http://trivy.local:4954/x:1", 4954),
            ("http://trivy.local", 80),
            ("https://trivy.local/", 443),
            ("HTTPS://[::1]", 443),
            ("http://[::1]:5", 5),
            ("http://a:b", 80),
        ] {
            assert_eq!(port(url), expected, "{url}");
        }
    }

    #[test]
    fn a_failure_is_its_last_word() {
        let status = std::process::ExitStatus::from_raw(1 << 8);
        let said = b"2026-11-27T02:59:03Z\tINFO\tx\n2026-11-27T02:59:03Z\tFATAL\tFatal error\tinit error: DB error\n\n";
        assert_eq!(complaint(said, &status), "trivy says: init error: DB error");
        assert_eq!(complaint(b"", &status), "trivy failed: exit status: 1");
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let directory = std::env::temp_dir();
        let mut command = Command::new("/usr/bin/sleep");
        let began = Instant::now();
        let error = run(command.arg("60"), &directory, Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("longer than") && began.elapsed() < Duration::from_secs(5), "{error}");
    }
}
