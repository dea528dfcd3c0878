//! What the caller gives beside the command line: files, descriptors, and answers on his terminal.
//!
//! Owns the reading of passwords and passphrases, which never come from arguments or the environment, where others of
//! the host can see them (proc(5)). Must not print one, or leave the terminal without its echo.

use crate::failure::Failure;
use podsec_policy::secret::{Password, Secret};
use podsec_sys::nix::errno::Errno;
use podsec_sys::nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use podsec_sys::nix::sys::signal::{SigSet, Signal, raise};
use podsec_sys::nix::sys::signalfd::SignalFd;
use podsec_sys::nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use podsec_sys::nix::unistd::read;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

/// More than any secret that is taken; also the longest line of a terminal (`N_TTY_BUF_SIZE`).
const LONGEST_INPUT: usize = 4096;

/// The signals that end or stop a program from the keyboard or by a hangup.
const SIGNALS: [Signal; 5] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP];

/// A file, or standard input for `-`, of at most so many bytes.
///
/// # Errors
/// [`Failure::File`], [`Failure::Usage`]
pub fn file(path: &Path, most: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::File(path.into(), error);
    let bytes = if path.as_os_str() == "-" {
        some(io::stdin().lock(), most)
    } else {
        File::open(path).and_then(|file| some(file, most))
    };
    let bytes = bytes.map_err(failed)?;
    if bytes.len() > most {
        return Err(Failure::Usage(format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(bytes)
}

/// At most one byte too many.
fn some(from: impl Read, most: usize) -> io::Result<Vec<u8>> {
    // Not to be moved, which would leave a copy of a secret behind.
    let mut bytes = Vec::with_capacity(most.saturating_add(1).min(LONGEST_INPUT));
    from.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A new secret from one of the caller's descriptors, fit to protect something.
///
/// # Errors
/// [`Failure::Usage`]
pub fn secret_from(descriptor: u32) -> Result<Password, Failure> {
    passphrase_from(descriptor).and_then(checked)
}

/// One that protects something already, however badly. A newline at its end was put there by an editor or echo(1).
///
/// # Errors
/// [`Failure::Usage`]
pub fn passphrase_from(descriptor: u32) -> Result<Secret, Failure> {
    let unfit = |why: &dyn std::fmt::Display| Failure::Usage(format!("descriptor {descriptor}: {why}"));
    let opened = match descriptor {
        0 => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        // A safe way to a descriptor by its number (proc(5)); sockets alone do not go.
        number => File::open(format!("/proc/self/fd/{number}")),
    };
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unfit(&"it is not open"),
        _ => unfit(&error),
    })?;
    if file.is_terminal() {
        return Err(unfit(&"a terminal would show what is typed; without the option it is asked for unseen"));
    }
    let mut bytes = some(file, LONGEST_INPUT - 1).map_err(|error| unfit(&error))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}

fn checked(secret: Secret) -> Result<Password, Failure> {
    Password::new(secret).map_err(|error| Failure::Usage(error.to_string()))
}

/// Is there somebody to ask?
#[must_use]
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// A new secret, typed twice and unseen.
///
/// # Errors
/// [`Failure::Usage`], [`Failure::Local`]
pub fn new_secret(prompt: &str) -> Result<Password, Failure> {
    let first = checked(line(&format!("{prompt}: "), false)?)?;
    if line("The same again: ", false)?.expose() != first.expose() {
        return Err(Failure::Usage("the two were not the same, so nothing was done".into()));
    }
    Ok(first)
}

/// Asks whether to go on.
///
/// # Errors
/// [`Failure::Declined`], and [`Failure::Usage`] where there is nobody to ask
pub fn confirm(question: &str) -> Result<(), Failure> {
    if !is_terminal() {
        return Err(Failure::Usage("there is no terminal to ask on; --yes goes on without asking".into()));
    }
    match line(&format!("{question} [y/N] "), true)?.expose() {
        b"y" | b"Y" | b"yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}

/// A line from the terminal at standard input; the prompt goes to stderr.
fn line(prompt: &str, echo: bool) -> Result<Secret, Failure> {
    let failed = |error: io::Error| Failure::Local("the terminal", error);
    loop {
        let silence = if echo { None } else { Some(Silence::begin().map_err(failed)?) };
        let mut stderr = io::stderr();
        let _ = write!(stderr, "{prompt}").and_then(|()| stderr.flush());
        let read = match &silence {
            Some(silence) => silence.line(),
            None => read_line().map(Ok),
        };
        if silence.is_some() {
            // The one that was typed was not shown.
            let _ = writeln!(stderr);
        }
        drop(silence);
        match read.map_err(failed)? {
            Ok(secret) => return Ok(secret),
            // With the terminal as it was. Who was only stopped asks again.
            Err(signal) => raise(signal).map_err(|error| failed(error.into()))?,
        }
    }
}

/// The terminal gives whole lines, and no more than one at a time.
fn read_line() -> io::Result<Secret> {
    let mut bytes = vec![0; LONGEST_INPUT];
    let length = loop {
        match read(io::stdin(), &mut bytes) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    bytes.truncate(length);
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Secret::new(bytes))
}

/// No echo until this is dropped, and none of [`SIGNALS`] that would end the program before that.
struct Silence {
    before: Termios,
    signals: SignalFd,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let silence = Self { before: before.clone(), signals: podsec_sys::process::signals(&SIGNALS)? };
        let mut silent = before;
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        silent.local_flags.insert(LocalFlags::ICANON);
        // What was typed before was seen, and meant for something else.
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
        Ok(silence)
    }

    /// A line, or the signal that came first.
    fn line(&self) -> io::Result<Result<Secret, Signal>> {
        let stdin = io::stdin();
        loop {
            let interest = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [interest(self.signals.as_fd()), interest(stdin.as_fd())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(came) = self.signals.read_signal()? {
                let number = i32::try_from(came.ssi_signo).map_err(|_| io::ErrorKind::InvalidData)?;
                return Ok(Err(Signal::try_from(number)?));
            }
            let [_, input] = fds;
            if input.any() == Some(true) {
                return read_line().map(Ok);
            }
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
        let _ = SigSet::from_iter(SIGNALS).thread_unblock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::pipe;
    use std::os::fd::AsRawFd as _;

    fn from_pipe(bytes: &[u8]) -> Result<Password, Failure> {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        secret_from(u32::try_from(reader.as_raw_fd()).unwrap())
    }

    #[test]
    fn secrets_from_descriptors() {
        for (bytes, secret) in [
            ("correct horse", "correct horse"),
            ("correct horse\n", "correct horse"),
            (" spaced ", " spaced "),
        ] {
            let read = from_pipe(bytes.as_bytes()).unwrap();
            assert_eq!(read.expose(), secret.as_bytes());
        }
        for bytes in ["", "\n", "short\n", "two lines\n\n", "two\nlines here"] {
            let refused = from_pipe(bytes.as_bytes()).unwrap_err();
            assert!(refused.to_string().starts_with("a password or passphrase has "), "{bytes:?}: {refused}");
        }
        assert!(from_pipe(&[b'x'; LONGEST_INPUT + 7]).is_err());
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"short\n").unwrap();
        drop(writer);
        let old = passphrase_from(u32::try_from(reader.as_raw_fd()).unwrap()).unwrap();
        assert_eq!(old.expose(), b"short");
        let absent = secret_from(1_000_000).unwrap_err();
        assert_eq!(absent.to_string(), "descriptor 1000000: it is not open");
        let (_leader, follower) = podsec_sys::terminal::open(24, 80).unwrap();
        let terminal = secret_from(u32::try_from(follower.as_raw_fd()).unwrap());
        assert!(terminal.unwrap_err().to_string().contains("unseen"));
    }

    #[test]
    fn files_have_an_end() {
        assert_eq!(file(Path::new("/dev/null"), 7).unwrap(), b"");
        assert!(matches!(file(Path::new("/dev/zero"), 7), Err(Failure::Usage(_))));
        assert!(matches!(file(Path::new("/no/such/file"), 7), Err(Failure::File(..))));
    }
}
