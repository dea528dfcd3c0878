//! What can be wrong with images that are there.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[OUT_OF_POLICY, UNSIGNED, DISTRUSTED, TAMPERED];

/// In no scope.
pub const OUT_OF_POLICY: Kind = Kind {
    code: "image-out-of-policy",
    check: Check::Images,
    severity: Severity::High,
    weight: 103,
    title: "an image that is in no scope of trust",
    explanation: "None of its names is in a scope in which this host trusts somebody, so nobody answers for it. It came from elsewhere, \
        was built here, or was pulled when trust was another.",
    remedy: "Remove it: podman rmi; or have a creator publish it in a scope of his: podsecctl trust show",
};

/// In a scope, and not signed.
pub const UNSIGNED: Kind = Kind {
    code: "image-unsigned",
    check: Check::Images,
    severity: Severity::Critical,
    weight: 102,
    title: "an image that nobody signed, as far as this host knows",
    explanation: "Its name is in a scope in which only signed images run, and there is no signature of it, neither in the store that it \
        is in nor in this host's own store of signatures. Nothing is fetched to find out.",
    remedy: "Remove it and pull it again, if it is signed: podman rmi; if not, its creator signs it: podsecctl image sign",
};

/// Signed, and no signature is good.
pub const DISTRUSTED: Kind = Kind {
    code: "image-distrusted",
    check: Check::Images,
    severity: Severity::Critical,
    weight: 104,
    title: "an image without a signature that is good today",
    explanation: "There are signatures of it, and none is good by the trust of today: broken, of something else, or by a key that does not \
        count any more since it was revoked, has expired, or its owner signs there no longer.",
    remedy: "Remove it: podman rmi; if it shall stay, a creator who is trusted today signs it again: podsecctl image sign",
};

/// Not what it says it is.
pub const TAMPERED: Kind = Kind {
    code: "image-tampered",
    check: Check::Images,
    severity: Severity::Critical,
    weight: 105,
    title: "an image that is not what its store says it is",
    explanation: "A manifest or a configuration in the store does not have the digest by which it is kept, or the store names the image in a \
        way that no program of containers/storage would. Somebody has written to the store by hand, or the disk is broken.",
    remedy: "Remove it and pull it again: podman rmi --force; find out who wrote there",
};
