//! `podsec.v1.IdentityService`: who the caller is taken for, and whether podsecd is well.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::Operation;
use podsec_policy::operation::Method;
use podsec_policy::peer::{Role, Roles};
use podsec_policy::rules::RULES;
use podsec_proto::v1::{HealthRequest, HealthResponse, WhoAmIRequest, WhoAmIResponse};
use podsec_wire::messages::Answer;

impl Rpc for WhoAmIRequest {
    const METHOD: Method = Method::WhoAmI;
    type Response = WhoAmIResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::WhoAmI)
    }

    fn response(outcome: Outcome) -> Option<WhoAmIResponse> {
        let Outcome::Answer(Answer::WhoAmI { uid, login_uid, roles }) = outcome else { return None };
        Some(WhoAmIResponse {
            uid,
            login_uid,
            roles: roles.iter().map(|role| role.name().to_owned()).collect(),
            operations: operations(roles),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }
}

/// What the table lets these roles ask for.
fn operations(roles: Roles) -> Vec<String> {
    let roles = roles.with(Role::Anyone);
    let may = RULES.iter().filter(|rule| rule.roles.intersection(roles) != Roles::NONE);
    may.map(|rule| rule.path.to_owned()).collect()
}

impl Rpc for HealthRequest {
    const METHOD: Method = Method::Health;
    type Response = HealthResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::Health)
    }

    fn response(outcome: Outcome) -> Option<HealthResponse> {
        let Outcome::Answer(Answer::Health { audit_writable, connections, sessions, uptime }) = outcome
        else {
            return None;
        };
        Some(HealthResponse { audit_writable, connections, sessions, uptime })
    }
}
