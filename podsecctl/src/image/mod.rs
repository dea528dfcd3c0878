//! `podsecctl image`: images as files, from registries and to them, for hosts without a network.
//!
//! Owns the form of the archives and what may stand in one; skopeo(1) fetches and pushes, as the caller, and signs with his
//! key. Must not run as root, ask podsecd for anything but to publish signatures, or use a byte of an archive before all of
//! it was found to be in order.

mod archive;
mod build;
mod layout;
mod list;
mod load;
pub mod mirror;
pub mod name;
mod pack;
pub mod progress;
mod publish;
pub mod push;
pub mod registry;
mod report;
pub mod run;
mod save;
mod sign;
mod signatures;
mod skopeo;
mod tar;

use crate::Context;
use crate::cli::Image as Command;
use crate::failure::Failure;
use crate::output::{aside, clean};
use name::NameError;
use podsec_sys::nix::unistd::geteuid;
use run::Watch;
use serde_json::{Value, json};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use tar::TarError;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum Trouble {
    /// An archive, or something in it, is not as it should be.
    #[error("{0}")]
    Refused(String),
    /// It ended too early; who unpacks it may say why.
    #[error("it ends in the middle")]
    Short,
    #[error("{name} {said}")]
    Program { name: &'static str, said: String },
    #[error("{}: {error}", clean(&path.to_string_lossy()))]
    File { path: PathBuf, error: io::Error },
    #[error("cannot unpack: {0}; TMPDIR says where there is room")]
    Unpack(io::Error),
    #[error(
        "images are not handled as root: run it as an image creator, by `runuser -u NAME -- podsecctl image …`"
    )]
    Root,
    #[error("{} is there already; --force replaces it", clean(&.0.to_string_lossy()))]
    Exists(PathBuf),
    #[error("somebody else saves to {} now; try again when that has ended", clean(&.0.to_string_lossy()))]
    Busy(PathBuf),
    #[error("{said}")]
    Known { reason: &'static str, said: String },
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Trouble {
    fn file(path: &Path, error: io::Error) -> Self {
        Self::File { path: path.to_owned(), error }
    }

    fn cannot_run(name: &'static str, error: &io::Error) -> Self {
        Self::Program { name, said: format!("cannot be run: {error}") }
    }

    /// `kebab-case`, stable between versions.
    fn reason(&self) -> &str {
        match self {
            Self::Refused(_) | Self::Short => "archive",
            Self::Program { name, .. } => name,
            Self::File { .. } | Self::Unpack(_) => "file",
            Self::Root => "root",
            Self::Exists(_) => "exists",
            Self::Busy(_) => "busy",
            Self::Known { reason, .. } => reason,
            Self::Failure(failure) => failure.reason(),
        }
    }

    /// See [`crate::cli::EXIT_STATUS`].
    fn exit_status(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Short => 1,
            Self::Program { .. } | Self::File { .. } | Self::Unpack(_) => 74,
            Self::Busy(_) => 75,
            Self::Root => 77,
            Self::Exists(_) | Self::Known { .. } => 78,
            Self::Failure(failure) => failure.exit_status(),
        }
    }

    /// For programs.
    fn object(&self) -> Value {
        json!({ "reason": self.reason(), "message": self.to_string() })
    }
}

impl From<TarError> for Trouble {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Short => Self::Short,
            TarError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Short,
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<NameError> for Trouble {
    fn from(error: NameError) -> Self {
        Self::Failure(Failure::Usage(error.to_string()))
    }
}

fn usage(text: impl Into<String>) -> Trouble {
    Failure::Usage(text.into()).into()
}

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    if let Command::Signatures { creator } = &command {
        return signatures::run(context, creator.as_ref());
    }
    let done = if geteuid().is_root() { Err(Trouble::Root) } else { dispatch(context, command) };
    match done {
        Ok(status) => Ok(status),
        Err(Trouble::Failure(failure)) => Err(failure),
        Err(trouble) => {
            aside(&if context.output.is_json() {
                json!({ "error": trouble.object() }).to_string()
            } else {
                format!("podsecctl: {trouble}")
            });
            Ok(trouble.exit_status())
        }
    }
}

fn dispatch(context: &Context, command: Command) -> Result<u8, Trouble> {
    let watch = Watch::start().map_err(|error| Failure::Local("cannot watch for signals", error))?;
    match command {
        Command::Save(arguments) => save::run(context, &watch, &arguments),
        Command::Load(arguments) => load::run(context, &watch, &arguments),
        Command::List(arguments) => list::list(context, &watch, &arguments),
        Command::Verify(arguments) => list::verify(context, &watch, &arguments),
        Command::Mirror(arguments) => mirror::run(context, &watch, &arguments),
        Command::Build(arguments) => build::run(context, &watch, &arguments),
        Command::Push(arguments) => publish::run(context, &watch, &arguments),
        Command::Sign(arguments) => sign::run(context, &watch, &arguments),
        Command::Signatures { creator } => Ok(signatures::run(context, creator.as_ref())?),
    }
}

/// For commands that are about something else.
#[must_use]
pub fn failure(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Failure(failure) => failure,
        Trouble::Program { name, said } => Failure::Program(name, said),
        Trouble::File { path, error } => Failure::File(path, error),
        Trouble::Unpack(error) => Failure::Local("a directory for what is in between", error),
        other => Failure::Usage(other.to_string()),
    }
}

/// Why a program failed: the last thing that it said. skopeo says it as logfmt: `… level=fatal msg="what"`.
fn complaint(stderr: &[u8], status: &ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let Some(said) = text.lines().rev().map(str::trim).find(|line| !line.is_empty()) else {
        return format!("failed: {status}");
    };
    let message = said.split_once("level=fatal msg=").map_or(said, |(_, message)| message);
    // Quoted as in Go, and so nearly as in JSON.
    let unquoted = serde_json::from_str(message).unwrap_or_else(|_| message.to_owned());
    format!("says: {}", clean(unquoted.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::EXIT_STATUS;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_failure_is_the_programs_last_word() {
        let status = ExitStatus::from_raw(1 << 8);
        let stderr = b"Getting image\ntime=\"2026-01-01T00:00:00Z\" level=fatal msg=\"reading manifest 3 in \\\"a\\\": no\"\n\n";
        assert_eq!(complaint(stderr, &status), "says: reading manifest 3 in \"a\": no");
        assert_eq!(complaint(b"xz: (stdin): \x1b\n", &status), r"says: xz: (stdin): \x1b");
        assert_eq!(complaint(b"", &status), "failed: exit status: 1");
    }

    #[test]
    fn every_trouble_has_a_documented_exit_status() {
        let error = || io::Error::from(io::ErrorKind::StorageFull);
        for trouble in [
            Trouble::Refused(String::new()),
            Trouble::Short,
            Trouble::Program { name: "xz", said: String::new() },
            Trouble::File { path: "/x".into(), error: error() },
            Trouble::Unpack(error()),
            Trouble::Root,
            Trouble::Exists("/x".into()),
            Trouble::Busy("/x".into()),
            Trouble::Known { reason: "x", said: String::new() },
            usage("x"),
        ] {
            let status = trouble.exit_status().to_string();
            assert!(status != "0" && EXIT_STATUS.iter().any(|(known, _)| *known == status), "{trouble:?}");
            assert!(trouble.reason().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        }
    }
}
