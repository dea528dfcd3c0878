//! What the audit of the Kubernetes API shows.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[Kind {
    code: "api-forbidden",
    check: Check::KubeApi,
    severity: Severity::Critical,
    weight: 101,
    title: "a forbidden request",
    explanation: "Somebody asked the Kubernetes API for what his roles do not allow.",
    remedy: "Ask him what it was for; his roles: kubectl auth can-i --list --as NAME",
}];
