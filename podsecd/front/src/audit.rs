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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(change: impl FnOnce(&mut AuditFilter)) -> Result<Filter, Failure> {
        let mut given = AuditFilter::default();
        change(&mut given);
        filter(Some(given))
    }

    #[test]
    fn nothing_given_is_everything() {
        assert_eq!(filter(None).unwrap(), Filter::default());
        assert_eq!(given(|_| ()).unwrap(), Filter::default());
    }

    #[test]
    fn every_field_arrives() {
        for phase in PHASES {
            assert_eq!(given(|f| f.phase = phase.name().into()).unwrap().phase, Some(phase));
        }
        for name in ["NamespaceService/Enter", "Enter", "AuditService/Verify"] {
            assert_eq!(given(|f| f.operation = name.into()).unwrap().op.as_deref(), Some(name));
        }
        // uid 0 is root and not "any"
        assert_eq!(given(|f| f.uid = Some(0)).unwrap().uid, Some(0));
        let all = given(|f| (f.since, f.until, f.last) = (5, 6, 7)).unwrap();
        assert_eq!((all.since, all.until, all.last), (Some(5), Some(6), Some(7)));
    }

    #[test]
    fn what_can_match_nothing_is_named() {
        type Change = fn(&mut AuditFilter);
        let wrong: [(Change, &str); 5] = [
            (|f| f.operation = "enter".into(), "filter.operation"),
            (|f| f.operation = "NamespaceService".into(), "filter.operation"),
            (|f| f.phase = "Deny".into(), "filter.phase"),
            (|f| (f.since, f.until) = (6, 5), "filter.until"),
            (|f| (f.since, f.until) = (5, 5), "filter.until"),
        ];
        for (change, field) in wrong {
            let failure = given(change).unwrap_err();
            assert_eq!(failure.reason, Reason::BadArgument);
            assert!(failure.detail.starts_with(field), "{}", failure.detail);
        }
    }

    #[test]
    fn a_chain_that_holds_has_no_broken_link() {
        let verified = |broken| Outcome::Reply(Reply::Verified { records: 9, files: 2, broken });
        let whole = VerifyRequest::response(verified(None)).unwrap();
        assert_eq!((whole.records, whole.files, whole.broken), (9, 2, None));
        let broken = VerifyRequest::response(verified(Some(("a".into(), 3, "b".into())))).unwrap();
        assert_eq!(broken.broken, Some(BrokenLink { file: "a".into(), line: 3, what: "b".into() }));
        assert!(QueryRequest::response(Outcome::Reply(Reply::Changed(true))).is_none());
    }

    proptest! {
        #[test]
        fn no_text_of_a_caller_comes_back(operation in "\\PC{0,40}", phase in "\\PC{0,20}") {
            let given = given(|f| (f.operation, f.phase) = (operation, phase));
            let constant = given.as_ref().err().is_none_or(|failure| {
                failure.detail.starts_with("filter.operation: no such") || failure.detail.starts_with("filter.phase: not one")
            });
            prop_assert!(constant);
        }
    }
}
