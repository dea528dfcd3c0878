//! The monitor kubeapi: follows the audit log of the Kubernetes API (audit.k8s.io/v1, one event a line as JSON) and tells what
//! was forbidden or failed.
//!
//! Two processes. The opener ([`opener`]) is the log's owner, and opens the log and what rotation left beside it. The judge
//! ([`judge`]) is podsec-monitor, has no capability and can open nothing but its own report; it gets descriptors of the opener,
//! finds its place in them ([`log`]), reads events ([`lines`], [`event`]) and judges them ([`rules`]). Both are shut in
//! (`crate::cage`) before they see the first byte of a log.

mod event;
mod judge;
mod lines;
mod log;
mod opener;
mod rules;
mod watch;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bytes of memory: a full report as values and as text, and the longest line of each log.
const MEMORY: u64 = 1 << 30;

/// `[kubeapi]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// What is followed.
    pub logs: Vec<Followed>,
    /// Days after which what was seen is forgotten.
    pub keep_days: u32,
    /// What is a violation and how bad: the first that fits decides, what no rule fits is judged as usual.
    pub rules: Vec<rules::Rule>,
}

/// `[[kubeapi.logs]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    /// What kube-apiserver has as `--audit-log-path`, as the host sees it; no symbolic link on the way.
    pub path: PathBuf,
    /// Whose it is: he reads it.
    pub owner: String,
}

impl Default for Settings {
    fn default() -> Self {
        let path = "/etc/kubernetes/audit/audit.log".into();
        Self { logs: vec![Followed { path, owner: "u7s-admin".into() }], keep_days: 7, rules: Vec::new() }
    }
}

/// Runs until it is ended.
///
/// # Errors
/// says why it cannot
pub fn run(settings: &Settings) -> Result<(), String> {
    podsec_sys::process::forbid_inspection().map_err(|error| error.to_string())?;
    match opener::asked() {
        Some(judge) => opener::serve(&judge),
        None => judge::run(settings),
    }
}
