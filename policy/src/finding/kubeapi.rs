//! What the audit of the Kubernetes API shows.

use super::{Check, Kind, Severity};

/// 403.
pub const FORBIDDEN: Kind = Kind {
    code: "api-forbidden",
    check: Check::KubeApi,
    severity: Severity::Critical,
    weight: 101,
    title: "a forbidden request",
    explanation: "Somebody asked the Kubernetes API for what his roles do not allow.",
    remedy: "Ask him what it was for; his roles: kubectl auth can-i --list --as NAME",
};

/// 401.
pub const UNAUTHORIZED: Kind = Kind {
    code: "api-unauthorized",
    check: Check::KubeApi,
    severity: Severity::High,
    weight: 50,
    title: "a request without good credentials",
    explanation: "Somebody came to the Kubernetes API with no token or certificate, or with one that is not good (any more).",
    remedy: "See where it comes from; a client of your own needs new credentials, another one should not get that far",
};

/// Any other 4xx.
pub const FAILED: Kind = Kind {
    code: "api-failed",
    check: Check::KubeApi,
    severity: Severity::Warning,
    weight: 10,
    title: "a request that was refused",
    explanation: "The Kubernetes API refused a request for another reason than missing rights: it was malformed, invalid, too much, or in conflict.",
    remedy: "See the message; what is usual on this cluster can be ignored by a rule: [[kubeapi.rules]] in /etc/podsec/monitor.toml",
};

/// 5xx.
pub const SERVER_ERROR: Kind = Kind {
    code: "api-server-error",
    check: Check::KubeApi,
    severity: Severity::Medium,
    weight: 20,
    title: "the API server failed",
    explanation: "The Kubernetes API could not answer a request, though it may have been a good one: itself, etcd or a webhook failed.",
    remedy: "Look at the server: podsecctl enter -- crictl logs, for kube-apiserver and etcd",
};

/// Not refused; a rule of the administrator's wants it to be told.
pub const WATCHED: Kind = Kind {
    code: "api-watched",
    check: Check::KubeApi,
    severity: Severity::Warning,
    weight: 10,
    title: "a request that a rule watches for",
    explanation: "The Kubernetes API did what it was asked for, and a rule in /etc/podsec/monitor.toml says that this is to be told.",
    remedy: "Ask whoever did it what it was for",
};

/// Lines that are no events.
pub const MALFORMED: Kind = Kind {
    code: "api-log-malformed",
    check: Check::KubeApi,
    severity: Severity::Medium,
    weight: 20,
    title: "lines of the audit log that cannot be read",
    explanation: "The audit log has lines that are no events of audit.k8s.io/v1: torn by a crash or a full disk, too long, or written by somebody else than the API server. What they would have told is not known.",
    remedy: "Look at the line that is named, and at the disk's room; the log is written by kube-apiserver alone",
};

/// Part of the log was gone.
pub const GAP: Kind = Kind {
    code: "api-log-gap",
    check: Check::KubeApi,
    severity: Severity::High,
    weight: 50,
    title: "part of the audit log is missing",
    explanation: "The audit log was emptied, removed or compressed before it was read to its end: what was asked of the API then is not known.",
    remedy: "Find out who did it; if it was rotation, keep more or larger files: --audit-log-maxbackup, --audit-log-maxsize",
};

/// All of them.
pub const KINDS: &[Kind] = &[FORBIDDEN, UNAUTHORIZED, FAILED, SERVER_ERROR, WATCHED, MALFORMED, GAP];
