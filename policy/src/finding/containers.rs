//! What running containers do to their files.

use super::{Check, Kind, Severity};

/// All of them.
pub const KINDS: &[Kind] = &[
    Kind {
        code: "container-wrote-program",
        check: Check::Containers,
        severity: Severity::Critical,
        weight: 101,
        title: "a container changed its programs",
        explanation: "A file outside the directories for data was made, changed or removed in a running container. Images bring their programs with them, so nothing but an update by hand or an intruder does that.",
        remedy: "See what runs there (podman top, podman diff); a container that was tampered with is replaced, not cleaned. What it may write is a rule in [containers] of /etc/podsec/monitor.toml",
    },
    Kind {
        code: "container-wrote-data",
        check: Check::Containers,
        severity: Severity::Warning,
        weight: 10,
        title: "a container changed settings or somebody's files",
        explanation: "A file in /etc, /home or /root was made, changed or removed in a running container. Some programs do that when they start; users, keys and scheduled jobs of an intruder are there, too.",
        remedy: "Compare it with the image (podman diff); what it may write is a rule in [containers] of /etc/podsec/monitor.toml",
    },
    Kind {
        code: "container-events-lost",
        check: Check::Containers,
        severity: Severity::Medium,
        weight: 50,
        title: "events of containers were lost",
        explanation: "More happened to files at once than could be looked at, so something that a container did may not be among the findings. Somebody may have wanted that.",
        remedy: "See what wrote so much (iotop, podman stats); a longer queue is sysctl fs.fanotify.max_queued_events. What is in a container that was not in its image: podman diff",
    },
];
