//! `grpc.health.v1.Health` (grpc/doc/health-checking.md), for load balancers, probes and monitoring that know no
//! podsec. Each state is asked of the gate as [`Operation::Health`], under the same rule.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::Operation;
use podsec_policy::operation::Method;
use podsec_policy::rules::RULES;
use podsec_wire::messages::Answer;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// One answer.
pub const CHECK: &str = "grpc.health.v1.Health/Check";
/// One now, and one whenever it changes.
pub const WATCH: &str = "grpc.health.v1.Health/Watch";

/// Is it the whole of podsecd, or a service of the table?
#[must_use]
pub fn is_known(service: &str) -> bool {
    service.is_empty() || RULES.iter().any(|rule| rule.path.split('/').next() == Some(service))
}

impl Rpc for HealthCheckRequest {
    const METHOD: Method = Method::Health;
    type Response = HealthCheckResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::Health)
    }

    /// Serving is: privileged operations are possible.
    fn response(outcome: Outcome) -> Option<HealthCheckResponse> {
        let Outcome::Answer(Answer::Health { audit_writable, .. }) = outcome else { return None };
        Some(state(if audit_writable { ServingStatus::Serving } else { ServingStatus::NotServing }))
    }
}

/// As a message.
#[must_use]
pub fn state(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_services_of_the_table() {
        for service in [
            "",
            "podsec.v1.IdentityService",
            "podsec.v1.NamespaceService",
            "podsec.v1.AuditService",
            "podsec.v1.UserService",
            "podsec.v1.KeyService",
        ] {
            assert!(is_known(service), "{service}");
        }
        for service in ["podsec", "podsec.v1.", "podsec.v1.IdentityService/WhoAmI", "grpc.health.v1.Health"] {
            assert!(!is_known(service), "{service}");
        }
    }
}
