//! `podsec.v1.CheckService`: what to look for as operations, and what was found as its messages.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::finding::{self, Check, Found, Summary};
use podsec_policy::operation::Method;
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    CheckEvent, CheckFinding, CheckSummary, FindingsRequest, MissedOwner, RunCheckRequest, RunCheckResponse,
    WatchFindingsRequest, check_event::Event,
};
use podsec_wire::messages::Reply;

const WHICH: &str = "say policy, images, containers, kubeapi or vulnerabilities";

impl Rpc for RunCheckRequest {
    const METHOD: Method = Method::RunCheck;
    type Response = RunCheckResponse;

    fn operation(self) -> Result<Operation, Failure> {
        let check = check(&self.check)?.ok_or_else(|| bad(WHICH))?;
        if !check.looks() {
            return Err(bad("containers and kubeapi are watched all the time and need not be run"));
        }
        Ok(Operation::RunCheck(check))
    }

    fn response(outcome: Outcome) -> Option<RunCheckResponse> {
        let Outcome::Reply(Reply::Ran(ran)) = outcome else { return None };
        Some(RunCheckResponse { summary: Some(summary(ran.summary)), new: ran.new, gone: ran.gone })
    }
}

impl Rpc for FindingsRequest {
    const METHOD: Method = Method::Findings;
    type Response = CheckEvent;

    fn operation(self) -> Result<Operation, Failure> {
        check(&self.check).map(Operation::Findings)
    }

    fn response(outcome: Outcome) -> Option<CheckEvent> {
        event(outcome)
    }
}

impl Rpc for WatchFindingsRequest {
    const METHOD: Method = Method::WatchFindings;
    type Response = CheckEvent;

    fn operation(self) -> Result<Operation, Failure> {
        check(&self.check).map(Operation::WatchFindings)
    }

    fn response(outcome: Outcome) -> Option<CheckEvent> {
        event(outcome)
    }
}

fn bad(why: &str) -> Failure {
    Failure::at("check", Reason::BadArgument, why)
}

fn check(name: &str) -> Result<Option<Check>, Failure> {
    if name.is_empty() {
        return Ok(None);
    }
    Check::from_name(name).map(Some).ok_or_else(|| bad(WHICH))
}

fn event(outcome: Outcome) -> Option<CheckEvent> {
    let event = match outcome {
        Outcome::Reply(Reply::Summary(of)) => Event::Summary(summary(*of)),
        Outcome::Reply(Reply::Found(found)) => Event::Finding(finding(*found)),
        Outcome::Reply(Reply::Gone(id)) => Event::Gone(id),
        _ => return None,
    };
    Some(CheckEvent { event: Some(event) })
}

fn summary(of: Summary) -> CheckSummary {
    let (state, why, missed) = match of.outcome {
        finding::Outcome::Never => ("never", String::new(), Vec::new()),
        finding::Outcome::Complete => ("complete", String::new(), Vec::new()),
        finding::Outcome::Partial { missed } => {
            let missed =
                missed.into_iter().map(|(owner, why)| MissedOwner { owner: owner.into(), why: why.into() });
            ("partial", String::new(), missed.collect())
        }
        finding::Outcome::Unknown { why } => ("unknown", why.into(), Vec::new()),
    };
    CheckSummary {
        check: of.check.name().into(),
        time: of.time,
        took: of.took,
        state: state.into(),
        why,
        missed,
        looked_at: of.looked_at,
        lost: of.lost,
        findings: of.findings,
        weight: of.weight,
        worst: of.worst.map(|worst| worst.name().into()).unwrap_or_default(),
    }
}

fn finding(found: Found) -> CheckFinding {
    let finding = found.finding;
    CheckFinding {
        id: finding.id(),
        check: finding.kind.check.name().into(),
        code: finding.kind.code.into(),
        severity: finding.severity.name().into(),
        weight: finding.weight,
        subject_type: finding.subject.kind().into(),
        subject: finding.subject.name().into(),
        owner: finding.owner.into(),
        place: finding.place.into(),
        detail: finding.detail.into(),
        first: found.first,
        last: found.last,
        count: found.count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Finding, Ran, Report, Severity, Subject, Text, kinds};
    use std::collections::BTreeMap;

    #[test]
    fn every_check_arrives() {
        for check in Check::ALL {
            let name = check.name().to_owned();
            assert_eq!(
                FindingsRequest { check: name.clone() }.operation().unwrap(),
                Operation::Findings(Some(check))
            );
            assert_eq!(
                WatchFindingsRequest { check: name.clone() }.operation().unwrap(),
                Operation::WatchFindings(Some(check))
            );
            let run = RunCheckRequest { check: name }.operation();
            assert_eq!(run.ok(), check.looks().then_some(Operation::RunCheck(check)));
        }
        assert_eq!(FindingsRequest::default().operation().unwrap(), Operation::Findings(None));
        assert_eq!(WatchFindingsRequest::default().operation().unwrap(), Operation::WatchFindings(None));
    }

    #[test]
    fn others_are_refused() {
        for name in ["", "Policy", "policy ", "all", "kube-api"] {
            let failure = RunCheckRequest { check: name.into() }.operation().unwrap_err();
            assert_eq!(failure.reason, Reason::BadArgument, "{name}");
            assert!(failure.detail.contains("check: say"), "{}", failure.detail);
            if !name.is_empty() {
                assert!(FindingsRequest { check: name.into() }.operation().is_err(), "{name}");
            }
        }
    }

    #[test]
    fn what_was_found_arrives_whole() {
        let kind = kinds().next().unwrap();
        let finding = Finding::new(kind, Subject::User(Text::of("amy")), "/x\n", "why").of("amy");
        let mut report = Report::new(kind.check);
        let missed = BTreeMap::from([(Text::of("bob"), Text::of("hangs"))]);
        report.replace(7, finding::Outcome::Partial { missed }, [finding.clone()]);
        report.took = 5;
        let id = finding.id();
        let found = report.findings[&id].clone();
        let shown = FindingsRequest::response(Outcome::Reply(Reply::Found(Box::new(found)))).unwrap();
        let Some(Event::Finding(shown)) = shown.event else { panic!("{shown:?}") };
        assert_eq!((shown.id, shown.code.as_str(), shown.place.as_str()), (id.clone(), kind.code, "/x\\x0a"));
        assert_eq!((shown.subject_type.as_str(), shown.subject.as_str()), ("user", "amy"));
        assert_eq!((shown.first, shown.last, shown.count), (7, 7, 1));
        assert_eq!(Severity::from_name(&shown.severity), Some(kind.severity));
        let ran = Ran { summary: report.summary(), new: 1, gone: 2 };
        let shown = RunCheckRequest::response(Outcome::Reply(Reply::Ran(Box::new(ran)))).unwrap();
        assert_eq!((shown.new, shown.gone), (1, 2));
        let shown = shown.summary.unwrap();
        assert_eq!((shown.state.as_str(), shown.missed.len(), shown.findings), ("partial", 1, 1));
        assert_eq!((shown.time, shown.took, shown.weight), (7, 5, u64::from(kind.weight)));
        let gone = WatchFindingsRequest::response(Outcome::Reply(Reply::Gone(id.clone()))).unwrap();
        assert_eq!(gone.event, Some(Event::Gone(id)));
        assert!(FindingsRequest::response(Outcome::Reply(Reply::Changed(true))).is_none());
    }
}
