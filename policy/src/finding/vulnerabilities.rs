//! What trivy knows of images.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[Kind {
    code: "vulnerability-critical",
    check: Check::Vulnerabilities,
    severity: Severity::Critical,
    weight: 101,
    title: "a critical vulnerability",
    explanation: "trivy knows of a vulnerability in a package of this image.",
    remedy: "Build it anew on a base image that has the fix: podsecctl image build",
}];
