//! policy

use super::{findings, run};
use crate::Test;
use podsec_tests::oracle::Oracle;

pub const TESTS: &[Test] = &[("checks::policy::a_clean_host_has_nothing", a_clean_host_has_nothing)];

fn a_clean_host_has_nothing(_: &mut Oracle) {
    let before = findings("policy");
    assert_eq!((before.0.state.as_str(), before.1.len()), ("never", 0));
    let ran = run("policy").summary.unwrap();
    assert_eq!((ran.state.as_str(), ran.findings), ("complete", 0), "{ran:?}");
    assert_eq!(findings("policy"), (ran, vec![]));
}
