//! `podsec.v1.AuditService`: filters as operations, and the records that a worker reads as a stream.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::audit::{Filter, Phase};
use podsec_policy::operation::Method;
use podsec_policy::rules::RULES;
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    AuditFilter, AuditRecord, BrokenLink, FollowRequest, QueryRequest, VerifyRequest, VerifyResponse,
};
use podsec_wire::messages::Reply;

const PHASES: [Phase; 5] = [Phase::Intent, Phase::Done, Phase::Fail, Phase::Deny, Phase::Recovered];

impl Rpc for QueryRequest {
    const METHOD: Method = Method::AuditQuery;
    type Response = AuditRecord;

    fn operation(self) -> Result<Operation, Failure> {
        filter(self.filter).map(Operation::AuditQuery)
    }

    fn response(outcome: Outcome) -> Option<AuditRecord> {
        record(outcome)
    }
}

impl Rpc for FollowRequest {
    const METHOD: Method = Method::AuditFollow;
    type Response = AuditRecord;

    fn operation(self) -> Result<Operation, Failure> {
        filter(self.filter).map(Operation::AuditFollow)
    }

    fn response(outcome: Outcome) -> Option<AuditRecord> {
        record(outcome)
    }
}

impl Rpc for VerifyRequest {
    const METHOD: Method = Method::AuditVerify;
    type Response = VerifyResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::AuditVerify)
    }

    fn response(outcome: Outcome) -> Option<VerifyResponse> {
        let Outcome::Reply(Reply::Verified { records, files, broken }) = outcome else { return None };
        let broken = broken.map(|(file, line, what)| BrokenLink { file, line, what });
        Some(VerifyResponse { records, files, broken })
    }
}

fn record(outcome: Outcome) -> Option<AuditRecord> {
    let Outcome::Reply(Reply::Record(json)) = outcome else { return None };
    Some(AuditRecord { json })
}

/// A filter that can match nothing is a mistake, and is said to be one: an empty answer would read as "nothing
/// happened".
fn filter(filter: Option<AuditFilter>) -> Result<Filter, Failure> {
    let filter = filter.unwrap_or_default();
    let bad = |detail: &str| Failure::new(Reason::BadArgument, detail);
    let op = Some(filter.operation).filter(|op| !op.is_empty());
    if let Some(op) = &op {
        let mut names = RULES.iter().map(|rule| rule.method.name());
        if !names.any(|name| name == op || name.rsplit('/').next() == Some(op)) {
            return Err(bad(
                "filter.operation: no such operation; an example is NamespaceService/Enter, or Enter alone",
            ));
        }
    }
    let phase = match filter.phase.as_str() {
        "" => None,
        name => Some(
            PHASES
                .into_iter()
                .find(|phase| phase.name() == name)
                .ok_or_else(|| bad("filter.phase: not one of intent, done, fail, deny and recovered"))?,
        ),
    };
    let bound = |time: u64| Some(time).filter(|&time| time != 0);
    let (since, until) = (bound(filter.since), bound(filter.until));
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        return Err(bad("filter.until: not after filter.since"));
    }
    Ok(Filter { uid: filter.uid, op, phase, since, until, last: Some(filter.last).filter(|&last| last != 0) })
}
