//! What running containers do to their files.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[Kind {
    code: "container-wrote-program",
    check: Check::Containers,
    severity: Severity::Critical,
    weight: 101,
    title: "a container changed its programs",
    explanation: "A file outside the directories for data was made, changed or removed in a running container.",
    remedy: "See what runs there: podman top; a container that was tampered with is best replaced",
}];
