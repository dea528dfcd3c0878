//! What trivy knows of images.

use super::{Check, Kind, Severity};

/// One for each of trivy's levels, by its name.
const fn kind(code: &'static str, severity: Severity, weight: u32, title: &'static str) -> Kind {
    Kind {
        code,
        check: Check::Vulnerabilities,
        severity,
        weight,
        title,
        explanation: "trivy knows of vulnerabilities in packages of this image, more than it may have.",
        remedy: "Build it anew on a base image that has the fixes (podsecctl image build), or, where they do no harm, make an exception with a day on which it ends: [[vulnerabilities.exceptions]] in /etc/podsec/monitor.toml",
    }
}

/// All of them.
pub const KINDS: &[Kind] = &[
    kind("vulnerability-critical", Severity::Critical, 101, "an image with critical vulnerabilities"),
    kind("vulnerability-high", Severity::High, 51, "an image with severe vulnerabilities"),
    kind("vulnerability-medium", Severity::Medium, 10, "an image with vulnerabilities"),
    kind("vulnerability-low", Severity::Low, 1, "an image with small vulnerabilities"),
    kind("vulnerability-unknown", Severity::Debug, 0, "an image with vulnerabilities that nobody has rated"),
    Kind {
        code: "vulnerability-unsupported",
        check: Check::Vulnerabilities,
        severity: Severity::Medium,
        weight: 10,
        title: "an image of a distribution that is fixed no more",
        explanation: "This version of the distribution gets no fixes any more, so what is wrong with its packages is not in trivy's database either.",
        remedy: "Build it anew on a version that is supported: podsecctl image build",
    },
    Kind {
        code: "vulnerability-unseen",
        check: Check::Vulnerabilities,
        severity: Severity::Low,
        weight: 1,
        title: "an image of which trivy knows nothing",
        explanation: "trivy found neither packages of a distribution that it knows nor those of a programming language, so nothing can be said of this image.",
        remedy: "Keep the package database of the base image in it, or look after it by hand",
    },
    Kind {
        code: "vulnerability-unread",
        check: Check::Vulnerabilities,
        severity: Severity::Low,
        weight: 1,
        title: "an image that could not be read as a whole",
        explanation: "Files of this image are closed to the owner of the store, so trivy has not seen what is in them.",
        remedy: "Let packages in the image be readable for its root: chmod u+r, in the Containerfile",
    },
    Kind {
        code: "vulnerability-exception",
        check: Check::Vulnerabilities,
        severity: Severity::Low,
        weight: 1,
        title: "an exception that has ended",
        explanation: "The day until which a vulnerability was to pass is over, so it counts again.",
        remedy: "Look at it again, then remove it from /etc/podsec/monitor.toml or give it a new day",
    },
    Kind {
        code: "vulnerability-database",
        check: Check::Vulnerabilities,
        severity: Severity::Medium,
        weight: 10,
        title: "trivy's database is old",
        explanation: "Nothing is known of what was found out since then: images that seem to be good may not be.",
        remedy: "Let podsec-check-vulnerabilities.service reach the network or, with offline = true, bring a new db directory into cache_dir",
    },
];
