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
            roles: roles.names(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(roles: Roles) -> Vec<String> {
        operations(roles).into_iter().filter_map(|path| Some(path.rsplit_once('/')?.1.to_owned())).collect()
    }

    #[test]
    fn operations_are_those_of_the_table() {
        assert_eq!(names(Roles::NONE), ["WhoAmI", "Health"]);
        assert_eq!(names(Roles::NONE.with(Role::ImageUser)), ["WhoAmI", "Health", "List", "Verify", "Show"]);
        let administrator = operations(Roles::NONE.with(Role::Administrator));
        let creators_alone = RULES.iter().filter(|rule| !administrator.iter().any(|path| path == rule.path));
        let creators_alone: Vec<_> = creators_alone.map(|rule| rule.method.name()).collect();
        assert_eq!(creators_alone, ["SignatureService/Submit", "ServiceService/NewCredential"]);
        let cluster = names(Roles::NONE.with(Role::ClusterAdmin));
        assert!(cluster.contains(&"Enter".to_owned()) && !cluster.contains(&"Query".to_owned()));
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let health = || Answer::Health { audit_writable: true, connections: 0, sessions: 0, uptime: 0 };
        assert!(WhoAmIRequest::response(Outcome::Answer(health())).is_none());
        assert!(HealthRequest::response(Outcome::Answer(health())).unwrap().audit_writable);
        let me = Answer::WhoAmI { uid: 0, login_uid: None, roles: Roles::NONE };
        assert!(HealthRequest::response(Outcome::Answer(me)).is_none());
    }
}
