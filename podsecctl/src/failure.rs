//! Every way in which a command does not succeed: one sentence for a person, a stable reason for a program, and an
//! exit status ([`crate::cli::EXIT_STATUS`]).

use crate::cli::USAGE;
use crate::output::clean;
use podsec_policy::Reason;
use podsec_policy::name::AccountName;
use podsec_policy::reason::Code as ReasonCode;
use podsec_policy::user::Fingerprint;
use serde_json::{Value, json};
use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// connect(2): no file.
    #[error("{} is not there: podsecd is not set up to listen; start it: systemctl start podsecd.socket", .0.display())]
    Absent(PathBuf),
    /// connect(2): a file, and nobody behind it.
    #[error("nobody listens at {}: podsecd has ended; start it: systemctl restart podsecd.socket", .0.display())]
    Refused(PathBuf),
    /// connect(2): not for you.
    #[error("{} keeps you out by its permissions: an administrator sets them (SocketMode= of podsecd.socket)", .0.display())]
    Permission(PathBuf),
    /// connect(2), the rest.
    #[error("cannot connect to {}: {}", .0.display(), .1)]
    Connect(PathBuf, #[source] io::Error),
    /// Somebody else than root listens there.
    #[error("{} is not root's: uid {uid} listens there, so nothing was sent to it", socket.display())]
    NotRoots {
        /// Where.
        socket: PathBuf,
        /// Who.
        uid: u32,
    },
    /// Closed, before or under an answer.
    #[error(
        "podsecd closed the connection without an answer: it is restarting, or too many connections are open; try again"
    )]
    Closed,
    /// No answer.
    #[error("podsecd has not answered for {0} seconds; look at `journalctl -u podsecd`, and try again")]
    Silent(u64),
    /// Not allowed.
    #[error("you may not ask for {method}: it is for {roles}; `podsecctl whoami` shows what you are")]
    Denied {
        /// As the audit names it.
        method: String,
        /// Who may.
        roles: String,
        /// Stable.
        reason: String,
    },
    /// podsecd's own words.
    #[error("{message}")]
    Answer {
        /// The status.
        code: Code,
        /// Stable.
        reason: String,
        /// A sentence.
        message: String,
    },
    /// podsecd answered, and not as this version of it does.
    #[error("podsecd's answer makes no sense here ({0}): are podsecctl and podsecd of one version?")]
    Nonsense(&'static str),
    /// A reason of podsec's list: the worker's own words, or ours where podsecd need not be asked.
    #[error("{}", if detail.is_empty() { reason.sentence() } else { detail })]
    Known {
        /// Stable.
        reason: Reason,
        /// More than the reason's sentence, or nothing.
        detail: String,
    },
    /// The session could not be fetched.
    #[error("podsecd gave a session and then did not hand it over; try again")]
    Ticket,
    /// The session's socket closed under it.
    #[error("the session was lost: its worker is gone; `podsecctl audit --last 5` shows how far it came")]
    Lost,
    /// Reading or copying what belongs to the session.
    #[error("{0}: {1}")]
    Local(&'static str, #[source] io::Error),
    /// write(2) to stdout.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// No such account.
    #[error("no user is called {0:?} on this host")]
    NoUser(String),
    /// An account, perhaps, but none of podsec's.
    #[error("podsec made no user {0}; an administrator makes one: podsecctl user create")]
    Unmanaged(AccountName),
    /// A file of the caller's.
    #[error("cannot read {}: {}", .0.display(), .1)]
    File(PathBuf, #[source] io::Error),
    /// A file of the caller's that was to be made.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, #[source] io::Error),
    /// What a program said that does part of the work, such as skopeo.
    #[error("{0} {1}")]
    Program(&'static str, String),
    /// What gpg said.
    #[error("gpg {0}")]
    Gpg(String),
    /// Asked whether he is sure, somebody was not.
    #[error("not confirmed, so nothing was done")]
    Declined,
    /// A key that was made, and then podsecd did not take it.
    #[error(
        "{source}; the key {fingerprint} is in your keyring and not published: try `podsecctl key {} {fingerprint}`",
        if *rotate { "rotate" } else { "publish" }
    )]
    Unpublished {
        /// The key.
        fingerprint: Fingerprint,
        /// Beside others?
        rotate: bool,
        /// Why.
        source: Box<Failure>,
    },
}

impl Failure {
    /// From the answer of a call.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        // What did not come from podsecd at all: the connection's own failure.
        let mut source = status.source();
        while let Some(error) = source {
            if error.is::<hyper::Error>() {
                return Self::Closed;
            }
            source = error.source();
        }
        let info = status.get_details_error_info().filter(|info| info.domain == "podsec");
        let reason = match &info {
            Some(info) => clean(&info.reason),
            None => code_name(status.code()).to_owned(),
        };
        let said = |key| info.as_ref().and_then(|info| info.metadata.get(key)).map(|text| clean(text));
        match (status.code(), said("method"), said("roles")) {
            // For what he is; otherwise for what the thing is that he asked about, and then podsecd says so.
            (Code::PermissionDenied, Some(method), Some(roles)) if reason == "not-authorised" => {
                Self::Denied { method, roles, reason }
            }
            (code, ..) => Self::Answer { code, reason, message: clean(status.message()) },
        }
    }

    /// `kebab-case`, stable between versions.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Usage(_) => "usage",
            Self::Absent(_) => "socket-absent",
            Self::Refused(_) => "socket-refused",
            Self::Permission(_) => "socket-permission",
            Self::Connect(..) => "socket",
            Self::NotRoots { .. } => "socket-not-roots",
            Self::Closed => "closed",
            Self::Silent(_) => "silent",
            Self::Denied { reason, .. } | Self::Answer { reason, .. } => reason,
            Self::Nonsense(_) => "protocol",
            Self::Known { reason, .. } => reason.name(),
            Self::Ticket => "ticket",
            Self::Lost => Reason::HelperLost.name(),
            Self::Local(..) => "local",
            Self::Output(_) => "output",
            Self::NoUser(_) => "no-user",
            Self::Unmanaged(_) => Reason::UnmanagedUser.name(),
            Self::File(..) => "file",
            Self::Write(..) => "file",
            Self::Program(name, _) => name,
            Self::Gpg(_) => "gpg",
            Self::Declined => "declined",
            Self::Unpublished { source, .. } => source.reason(),
        }
    }

    /// See [`crate::cli::EXIT_STATUS`].
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::NoUser(_) => USAGE,
            Self::Absent(_)
            | Self::Refused(_)
            | Self::Permission(_)
            | Self::Connect(..)
            | Self::NotRoots { .. } => 69,
            Self::Closed | Self::Silent(_) | Self::Ticket => 75,
            Self::Denied { .. } => 77,
            Self::Answer { code, .. } => of_code(*code),
            Self::Nonsense(_) => 76,
            Self::Known { reason: Reason::Exec, .. } => 127,
            Self::Known { reason, .. } => of_code(code_of(*reason)),
            Self::Lost => 70,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 128 + 13,
            Self::Local(..)
            | Self::Output(_)
            | Self::File(..)
            | Self::Write(..)
            | Self::Program(..)
            | Self::Gpg(_) => 74,
            Self::Unmanaged(_) => 78,
            Self::Declined => 1,
            Self::Unpublished { source, .. } => source.exit_status(),
        }
    }

    /// For programs.
    #[must_use]
    pub fn object(&self) -> Value {
        json!({ "reason": self.reason(), "message": self.to_string() })
    }

    /// Is there nobody to tell it to? Whoever closes a pipe knows that he did.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn of_code(code: Code) -> u8 {
    match code {
        Code::InvalidArgument | Code::OutOfRange => USAGE,
        Code::PermissionDenied | Code::Unauthenticated => 77,
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Cancelled => 75,
        Code::FailedPrecondition | Code::NotFound | Code::AlreadyExists => 78,
        Code::Unimplemented => 76,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => 70,
    }
}

fn code_of(reason: Reason) -> Code {
    match reason.code() {
        ReasonCode::InvalidArgument => Code::InvalidArgument,
        ReasonCode::DeadlineExceeded => Code::DeadlineExceeded,
        ReasonCode::NotFound => Code::NotFound,
        ReasonCode::PermissionDenied => Code::PermissionDenied,
        ReasonCode::ResourceExhausted => Code::ResourceExhausted,
        ReasonCode::FailedPrecondition => Code::FailedPrecondition,
        ReasonCode::Unimplemented => Code::Unimplemented,
        ReasonCode::Internal => Code::Internal,
        ReasonCode::Unavailable => Code::Unavailable,
    }
}

/// For an answer that says no reason of its own.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => "not-authorised",
        Code::InvalidArgument | Code::OutOfRange => "bad-argument",
        Code::Unimplemented => "unknown-method",
        Code::ResourceExhausted => "resources",
        Code::DeadlineExceeded => "deadline",
        Code::Unavailable => "unavailable",
        Code::FailedPrecondition => "failed-precondition",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::EXIT_STATUS;
    use std::collections::HashMap;
    use tonic_types::{ErrorDetails, StatusExt};

    fn answer(code: Code, message: &str, reason: &str, metadata: &[(&str, &str)]) -> Failure {
        let metadata: HashMap<String, String> = metadata.iter().map(|&(k, v)| (k.into(), v.into())).collect();
        let details = ErrorDetails::with_error_info(reason, "podsec", metadata);
        Failure::from_status(&Status::with_error_details(code, message, details))
    }

    #[test]
    fn a_refusal_says_who_may() {
        let said = [("method", "NamespaceService/Enter"), ("roles", "Administrator or ClusterAdmin")];
        let failure = answer(Code::PermissionDenied, "not authorised", "not-authorised", &said);
        assert_eq!(
            failure.to_string(),
            "you may not ask for NamespaceService/Enter: it is for Administrator or ClusterAdmin; `podsecctl whoami` \
             shows what you are"
        );
        assert_eq!((failure.reason(), failure.exit_status()), ("not-authorised", 77));
        // he is whom it is for, and has asked about somebody whom it is not about
        let said = [("method", "UserService/Lock"), ("roles", "Administrator")];
        let failure =
            answer(Code::PermissionDenied, "root is not one of podsec's users", "unmanaged-user", &said);
        assert_eq!(failure.to_string(), "root is not one of podsec's users");
        assert_eq!((failure.reason(), failure.exit_status()), ("unmanaged-user", 77));
        // without details there is still a sentence and a reason
        let failure = Failure::from_status(&Status::permission_denied("not authorised"));
        assert_eq!(
            (failure.to_string().as_str(), failure.reason(), failure.exit_status()),
            ("not authorised", "not-authorised", 77)
        );
    }

    #[test]
    fn every_reason_of_podsecd_has_a_documented_exit_status() {
        for &reason in Reason::ALL {
            let over_grpc = answer(code_of(reason), reason.sentence(), reason.name(), &[]);
            let over_session = Failure::Known { reason, detail: String::new() };
            assert_eq!(over_grpc.reason(), reason.name());
            assert_eq!(over_grpc.to_string(), over_session.to_string());
            for failure in [over_grpc, over_session] {
                let status = failure.exit_status().to_string();
                assert!(
                    status != "0" && EXIT_STATUS.iter().any(|(known, _)| *known == status),
                    "{failure:?}: {status}"
                );
            }
        }
        let down = answer(Code::FailedPrecondition, "down", "namespace-down", &[]);
        assert_eq!((down.exit_status(), down.reason()), (78, "namespace-down"));
        assert_eq!(Failure::Known { reason: Reason::Exec, detail: "no sh".into() }.exit_status(), 127);
    }

    #[test]
    fn what_podsecd_says_cannot_drive_the_terminal() {
        let failure = answer(Code::Internal, "a\x1b[2J\nb", "x\u{9b}", &[]);
        assert_eq!((failure.to_string().as_str(), failure.reason()), (r"a\x1b[2J\x0ab", r"x\u{9b}"));
        let said = [("method", "\x1b]0;x\x07"), ("roles", "r\n")];
        let failure = answer(Code::PermissionDenied, "", "not-authorised", &said);
        assert!(!failure.to_string().chars().any(char::is_control), "{failure}");
    }

    #[test]
    fn another_domain_is_not_ours() {
        let details = ErrorDetails::with_error_info("evil", "example.com", HashMap::new());
        let failure = Failure::from_status(&Status::with_error_details(Code::Unavailable, "no", details));
        assert_eq!((failure.reason(), failure.exit_status()), ("unavailable", 75));
    }

    #[test]
    fn a_key_that_was_made_in_vain_is_not_forgotten() {
        let fingerprint = Fingerprint::new("0123456789abcdef0123456789abcdef01234567").unwrap();
        let source = Box::new(Failure::Closed);
        let failure = Failure::Unpublished { fingerprint, rotate: false, source };
        let todo = "`podsecctl key publish 0123456789ABCDEF0123456789ABCDEF01234567`";
        assert!(failure.to_string().ends_with(todo), "{failure}");
        assert_eq!((failure.reason(), failure.exit_status()), ("closed", 75));
        assert_eq!(failure.object()["reason"], "closed");
    }

    #[test]
    fn a_reader_who_went_away_is_no_news() {
        let failure = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert!(failure.is_quiet() && failure.exit_status() == 141);
        let failure = Failure::Output(io::ErrorKind::StorageFull.into());
        assert!(!failure.is_quiet() && failure.exit_status() == 74);
    }
}
