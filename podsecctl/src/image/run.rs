//! Programs that are run and a directory for what is unpacked: both end with podsecctl, also by a signal.
//!
//! Must not: use a shell, the caller's `PATH`, or names in a directory that others can write, once that is open.

use super::Trouble;
use podsec_sys::file::Directory;
use podsec_sys::nix::fcntl::{Flock, FlockArg, OFlag};
use podsec_sys::nix::sys::memfd::{MFdFlags, memfd_create};
use podsec_sys::nix::sys::signal::{SigSet, Signal, raise};
use podsec_sys::nix::unistd::{geteuid, mkdtemp};
use podsec_sys::process::{self, Facts};
use podsec_sys::program::PATH;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// By which podsecctl is ended from the keyboard, by a hangup, or by kill(1).
const SIGNALS: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
/// What is left of a podsecctl that was killed begins with that.
const SCRATCH: &str = "podsec-image-";
/// Between making such a directory and locking it.
const YOUNG: Duration = Duration::from_secs(60);
/// How often somebody looks how far a program is.
const LOOK: Duration = Duration::from_millis(200);
/// Of a program's complaints.
const MOST_COMPLAINTS: u64 = 64 * 1024;

/// Sees to it that nothing is left when a signal ends podsecctl.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<Left>>);

/// What would be left.
#[derive(Debug, Default)]
struct Left {
    programs: BTreeMap<u32, OwnedFd>,
    scratch: BTreeMap<PathBuf, (Directory, String)>,
}

impl Left {
    fn clear(&mut self) {
        for program in self.programs.values() {
            let _ = process::signal(program, Signal::SIGKILL);
        }
        for (parent, name) in std::mem::take(&mut self.scratch).into_values() {
            // What the other thread makes in that moment would be in the way of it.
            let _ = (0..10).any(|_| parent.remove_tree(&name).is_ok());
        }
    }
}

impl Watch {
    /// Watches for signals from now on. To be called before there is another thread.
    ///
    /// # Errors
    /// pthread_sigmask(3), pthread_create(3)
    pub fn start() -> io::Result<Self> {
        let watch = Self::default();
        let left = Arc::clone(&watch.0);
        // Who ignores a signal, as below nohup(1), shall not be ended by it.
        let ignored = ignored_signals();
        let signals: SigSet =
            SIGNALS.into_iter().filter(|&signal| ignored & (1 << (signal as i32 - 1)) == 0).collect();
        signals.thread_block()?;
        let wait = move || {
            let Ok(signal) = signals.wait() else { return };
            // Held to the end: the other thread starts nothing any more, and does not complain about what was killed.
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            left.clear();
            // So that the parent sees which signal it was.
            let _ = signals.thread_unblock();
            let _ = raise(signal);
        };
        std::thread::Builder::new().spawn(wait)?;
        Ok(watch)
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// fork(2), execve(2)
    pub fn spawn(&self, command: &mut Command) -> io::Result<Running> {
        let mut left = self.left();
        let child = command.spawn()?;
        let running = Running { child, watch: self.clone(), has_ended: false };
        let number = i32::try_from(running.child.id()).map_err(io::Error::other)?;
        left.programs.insert(running.child.id(), process::open(number)?);
        drop(left);
        Ok(running)
    }

    /// Runs a program to its end: what it printed, and what it complained about.
    ///
    /// # Errors
    /// fork(2), execve(2), memfd_create(2)
    pub fn run(&self, command: &mut Command, mut look: impl FnMut(u32)) -> io::Result<Done> {
        // Memory instead of pipes, so that nobody waits for a reader.
        let (output, errors) = (memory()?, memory()?);
        command.stdout(output.try_clone()?).stderr(errors.try_clone()?);
        let mut running = self.spawn(command)?;
        let process = process::open(i32::try_from(running.id()).map_err(io::Error::other)?)?;
        while !process::wait_readable(&[process.as_fd()], Some(LOOK))? {
            look(running.id());
        }
        let status = running.wait()?;
        Ok(Done { status, output: contents(output, u64::MAX)?, errors: contents(errors, MOST_COMPLAINTS)? })
    }
}

impl Default for Watch {
    /// Without regard to signals, for tests.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Left::default())))
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Done {
    /// As wait(2) has it.
    pub status: ExitStatus,
    /// Standard output.
    pub output: Vec<u8>,
    /// Standard error, as much as is worth showing.
    pub errors: Vec<u8>,
}

/// Signals that this process was started with as ignored, bit by bit (proc_pid_status(5)).
fn ignored_signals() -> u64 {
    let status = Facts::own().read("status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// For what a program prints.
///
/// # Errors
/// memfd_create(2)
pub fn memory() -> io::Result<File> {
    Ok(memfd_create(c"", MFdFlags::MFD_CLOEXEC)?.into())
}

/// From the beginning, at most so much.
///
/// # Errors
/// read(2)
pub fn contents(mut file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A program of the system's, with nothing of the environment but the variables of these names.
///
/// # Errors
/// [`Trouble::Program`] where it is not installed
pub fn program(name: &'static str, kept: &[&str]) -> Result<Command, Trouble> {
    let path = podsec_sys::program::find(name)
        .ok_or_else(|| Trouble::Program { name, said: "is not installed on this host".into() })?;
    let mut command = Command::new(path);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command.envs(kept.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))));
    Ok(command)
}

/// A program that runs; killed when nobody holds it any more.
#[derive(Debug)]
pub struct Running {
    child: Child,
    watch: Watch,
    has_ended: bool,
}

impl Running {
    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its end.
    ///
    /// # Errors
    /// wait(2)
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.has_ended = true;
        self.watch.left().programs.remove(&self.child.id());
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.wait();
        }
    }
}

/// A directory of our own, mode 0700, below `TMPDIR` or `/var/tmp`; removed with all that is in it.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Who holds it is alive.
    _lock: Flock<File>,
    watch: Watch,
}

impl Scratch {
    /// # Errors
    /// mkdtemp(3), flock(2)
    pub fn new(watch: &Watch) -> io::Result<Self> {
        let base = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
        Self::below(&base.unwrap_or_else(|| "/var/tmp".into()), watch)
    }

    fn below(base: &Path, watch: &Watch) -> io::Result<Self> {
        let base = base.canonicalize()?;
        let parent = Directory::open(&base)?;
        remove_stale(&base, &parent);
        let path = mkdtemp(&base.join(format!("{SCRATCH}XXXXXX")))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        watch.left().scratch.insert(path.clone(), (parent, name));
        let lock = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, error)| io::Error::from(error))?;
        Ok(Self { path, _lock: lock, watch: watch.clone() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same, held open.
    ///
    /// # Errors
    /// openat2(2)
    pub fn open(&self) -> io::Result<Directory> {
        Directory::open(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut left = self.watch.left();
        if let Some((parent, name)) = left.scratch.remove(&self.path) {
            let _ = parent.remove_tree(&name);
        }
    }
}

/// What a podsecctl of ours left that could not clear up, killed or without power.
fn remove_stale(base: &Path, parent: &Directory) {
    for name in parent.names().unwrap_or_default() {
        let Some(name) = name.to_str().ok().filter(|name| name.starts_with(SCRATCH)) else { continue };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let Ok(opened) = parent.open_beneath(Path::new(name), flags, 0) else { continue };
        let is_old = |made: SystemTime| made.elapsed().is_ok_and(|age| age > YOUNG);
        let is_ours = opened.metadata().is_ok_and(|metadata| {
            metadata.uid() == geteuid().as_raw() && metadata.modified().is_ok_and(is_old)
        });
        if is_ours && Flock::lock(opened, FlockArg::LockExclusiveNonblock).is_ok() {
            let _ = parent.remove_tree(name);
            crate::output::aside(&format!(
                "podsecctl: removed {}, which an earlier one left",
                base.join(name).display()
            ));
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A directory for one test.
    #[derive(Debug)]
    pub struct Place(pub PathBuf);

    impl Place {
        pub fn new() -> Self {
            Self(mkdtemp(&std::env::temp_dir().join("podsec-test-XXXXXX")).unwrap())
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_scratch_directory_is_private_and_goes() {
        let place = Place::new();
        let scratch = Scratch::below(&place.0, &Watch::default()).unwrap();
        let other = Scratch::below(&place.0, &scratch.watch).unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        scratch.open().unwrap().make("a", 0o700).unwrap().make_file("b", b"c", 0o600).unwrap();
        drop(scratch);
        assert!(!path.exists() && other.path().exists());
    }

    #[test]
    fn what_was_left_is_removed_and_what_is_in_use_is_not() {
        let place = Place::new();
        let make = |name: &str| {
            let path = place.0.join(name);
            std::fs::create_dir_all(path.join("amd64")).unwrap();
            let file = File::open(&path).unwrap();
            file.set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
            (path, file)
        };
        let (stale, _) = make("podsec-image-AAAAAA");
        let (used, file) = make("podsec-image-BBBBBB");
        let (other, _) = make("somebody-elses");
        let young = place.0.join("podsec-image-CCCCCC");
        std::fs::create_dir(&young).unwrap();
        std::os::unix::fs::symlink(&other, place.0.join("podsec-image-DDDDDD")).unwrap();
        let _lock = Flock::lock(file, FlockArg::LockExclusive).unwrap();
        drop(Scratch::below(&place.0, &Watch::default()).unwrap());
        assert!(!stale.exists() && used.exists() && other.exists() && young.exists());
    }

    #[test]
    fn a_program_ends_with_its_holder() {
        let watch = Watch::default();
        let running = watch.spawn(program("sleep", &[]).unwrap().arg("600")).unwrap();
        let process = process::open(i32::try_from(running.id()).unwrap()).unwrap();
        assert_eq!(watch.left().programs.len(), 1);
        drop(running);
        assert!(process::has_ended(&process) && watch.left().programs.is_empty());
    }

    #[test]
    fn a_program_is_heard_and_knows_nothing() {
        let done = Watch::default().run(&mut program("env", &["HOME"]).unwrap(), |_| ()).unwrap();
        let text = String::from_utf8(done.output).unwrap();
        let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
        names.sort_unstable();
        assert!(names == ["HOME", "LC_ALL", "PATH"] || names == ["LC_ALL", "PATH"], "{text}");
        let error = program("podsec-no-such-program", &[]).unwrap_err().to_string();
        assert_eq!(error, "podsec-no-such-program is not installed on this host");
    }
}
