//! What can be wrong with who decides which images run.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[Kind {
    code: "policy-accepts-unsigned",
    check: Check::Policy,
    severity: Severity::Critical,
    weight: 102,
    title: "unsigned images are accepted",
    explanation: "The policy that this user's programs read accepts images that nobody signed, and he is no creator of images.",
    remedy: "Place the guard again: podsecctl user create; for root: podsecctl trust init",
}];
