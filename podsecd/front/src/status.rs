//! The one place that turns a failure into what the caller is told: a gRPC status
//! (grpc/doc/statuscodes.md) with a `google.rpc.ErrorInfo` (google/rpc/error_details.proto) for programs.
//!
//! Must not say more than [`Reason::is_public`] allows: why somebody is not authorised is for the audit.

use podsec_policy::Reason;
use podsec_policy::operation::Method;
use podsec_policy::reason::Code;
use std::collections::HashMap;
use std::fmt::Display;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of everything that podsecd says.
const DOMAIN: &str = "podsec";
/// `ErrorInfo.reason` of every refusal of a person.
const NOT_AUTHORISED: &str = "not-authorised";

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// From the closed list.
    pub reason: Reason,
    /// For a person; the reason's own sentence when empty.
    pub detail: String,
}

impl Failure {
    /// A request that is not one, and where.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// What is wrong with a field of a request. `error` must not hold text of the caller's, unless escaped.
    #[must_use]
    pub fn at(field: &str, reason: Reason, error: impl Display) -> Self {
        Self::new(reason, format!("{field}: {error}"))
    }

    /// What the caller of `method` is told; `None`: there is no such method.
    #[must_use]
    pub fn status(&self, method: Option<Method>) -> Status {
        let reason = self.reason;
        let (name, sentence) = match method {
            Some(method) if !reason.is_public() => {
                (NOT_AUTHORISED, format!("not authorised: {} is for {}", method.name(), method.allowed()))
            }
            None if !reason.is_public() => (NOT_AUTHORISED, "not authorised".to_owned()),
            _ if self.detail.is_empty() => (reason.name(), reason.sentence().to_owned()),
            _ => (reason.name(), self.detail.clone()),
        };
        let mut metadata = HashMap::new();
        if let Some(method) = method {
            metadata.insert("method".to_owned(), method.name().to_owned());
            metadata.insert("roles".to_owned(), method.allowed());
        }
        Status::with_error_details(
            code(reason.code()),
            sentence,
            ErrorDetails::with_error_info(name, DOMAIN, metadata),
        )
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new() }
    }
}

/// The answer to a health check of a service that is not ours, which grpc/doc/health-checking.md fixes.
#[must_use]
pub fn no_such_service() -> Status {
    let details = ErrorDetails::with_error_info("unknown-service", DOMAIN, HashMap::new());
    Status::with_error_details(tonic::Code::NotFound, "this podsecd has no such service", details)
}

fn code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::NotFound => tonic::Code::NotFound,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Internal => tonic::Code::Internal,
        Code::Unavailable => tonic::Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [Method; 3] = [Method::WhoAmI, Method::Enter, Method::AuditVerify];

    #[test]
    fn every_reason_has_its_code_and_name() {
        for &reason in Reason::ALL {
            for method in METHODS {
                let status = Failure::from(reason).status(Some(method));
                assert_eq!(format!("{:?}", status.code()), format!("{:?}", reason.code()), "{reason:?}");
                let info = status.get_details_error_info().unwrap();
                assert_eq!(info.domain, "podsec");
                let name = if reason.is_public() { reason.name() } else { "not-authorised" };
                assert_eq!(info.reason, name);
                assert_eq!(info.metadata["method"], method.name());
                assert_eq!(info.metadata["roles"], method.allowed());
            }
        }
    }

    #[test]
    fn nothing_of_a_hidden_reason_gets_out() {
        for &reason in Reason::ALL.iter().filter(|reason| !reason.is_public()) {
            for method in [Some(Method::Enter), None] {
                let status = Failure::new(reason, "uid 4000000000 is not plausible").status(method);
                let said = format!("{status:?} {}", String::from_utf8_lossy(status.details()));
                assert!(!said.contains(reason.name()) && !said.contains("plausible"), "{said}");
            }
        }
    }

    #[test]
    fn a_detail_speaks_for_a_public_reason() {
        let plain = Failure::from(Reason::PortInUse).status(Some(Method::AddPort));
        assert_eq!(plain.message(), Reason::PortInUse.sentence());
        let detailed = Failure::new(Reason::PortInUse, "tcp 8080 is in use").status(Some(Method::AddPort));
        assert_eq!(detailed.message(), "tcp 8080 is in use");
        let unknown = Failure::from(Reason::UnknownMethod).status(None);
        assert_eq!(unknown.code(), tonic::Code::Unimplemented);
        assert!(unknown.get_details_error_info().unwrap().metadata.is_empty());
    }
}
