//! What can be wrong with images that are there.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[Kind {
    code: "image-unsigned",
    check: Check::Images,
    severity: Severity::Critical,
    weight: 102,
    title: "an image without a good signature",
    explanation: "No signature of this image verifies against what this host trusts today.",
    remedy: "Have its creator sign it (podsecctl image sign), or remove it: podman rmi",
}];
