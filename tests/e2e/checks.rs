//! The monitors: what is planted is found once, with its severity and what to do; what is mended is gone; a clean host has
//! nothing; and what the planted thing is called does nothing to anybody.

mod containers;
mod images;
mod kubeapi;
mod nagios;
mod policy;
mod tell;
mod vulnerabilities;

use crate::Test;
use podsec_proto::v1::check_event::Event;
use podsec_proto::v1::{CheckFinding, CheckSummary, FindingsRequest, RunCheckRequest, RunCheckResponse};
use podsec_tests::client::{self, block_on};
use podsec_tests::host::Edited;

pub fn tests() -> Vec<Test> {
    [
        containers::TESTS,
        images::TESTS,
        kubeapi::TESTS,
        nagios::TESTS,
        policy::TESTS,
        tell::TESTS,
        vulnerabilities::TESTS,
    ]
    .concat()
}

/// What is to be chosen about monitors.
pub const SETTINGS: &str = "/etc/podsec/monitor.toml";

/// This, until it is dropped.
pub fn settings(text: &str) -> Edited {
    Edited::with(SETTINGS, |_| text.to_owned())
}

/// Looks now.
pub fn run(check: &str) -> RunCheckResponse {
    let request = RunCheckRequest { check: check.into() };
    let ran = block_on(async { client::checks().await.run(request).await });
    ran.unwrap_or_else(|status| panic!("{check}: {status:?}")).into_inner()
}

/// What is known of a check.
pub fn findings(check: &str) -> (CheckSummary, Vec<CheckFinding>) {
    let request = FindingsRequest { check: check.into() };
    let (mut summaries, mut all) = (Vec::new(), Vec::new());
    block_on(async {
        let mut events = client::checks().await.findings(request).await.expect(check).into_inner();
        while let Some(event) = events.message().await.expect(check) {
            match event.event.expect("an event") {
                Event::Summary(summary) => summaries.push(summary),
                Event::Finding(finding) => all.push(finding),
                Event::Gone(id) => panic!("{id} is gone in what does not watch"),
            }
        }
    });
    assert_eq!(summaries.len(), 1, "{summaries:?}");
    (summaries.remove(0), all)
}
