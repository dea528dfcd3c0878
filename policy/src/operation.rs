//! The closed list of what podsecd does. Every field is a validated type, checked again when read from a frame.

use crate::audit::Filter;
use crate::enter::{Enter, Program};
use crate::port::PortSpec;
use serde::{Deserialize, Serialize};

/// One request, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Facts about the caller.
    WhoAmI,
    /// Is podsecd well?
    Health,
    /// State of the rootless namespaces.
    Inspect,
    /// A session inside them.
    Enter(Box<Enter>),
    /// Published ports.
    ListPorts,
    /// Publish one and keep it.
    AddPort(PortChange),
    /// The reverse.
    RemovePort(PortChange),
    /// Read the audit.
    AuditQuery(Filter),
    /// Read it and wait for more.
    AuditFollow(Filter),
    /// Check its chain.
    AuditVerify,
}

/// A port, and whether to only say what would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortChange {
    /// Which.
    pub port: PortSpec,
    /// Change nothing.
    pub dry_run: bool,
}

/// The kind of an [`Operation`], without its contents: a row of [`crate::rules::RULES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the operation of the same name")]
pub enum Method {
    WhoAmI,
    Health,
    Inspect,
    Enter,
    ListPorts,
    AddPort,
    RemovePort,
    AuditQuery,
    AuditFollow,
    AuditVerify,
}

impl Operation {
    /// Its kind.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::WhoAmI => Method::WhoAmI,
            Self::Health => Method::Health,
            Self::Inspect => Method::Inspect,
            Self::Enter(_) => Method::Enter,
            Self::ListPorts => Method::ListPorts,
            Self::AddPort(_) => Method::AddPort,
            Self::RemovePort(_) => Method::RemovePort,
            Self::AuditQuery(_) => Method::AuditQuery,
            Self::AuditFollow(_) => Method::AuditFollow,
            Self::AuditVerify => Method::AuditVerify,
        }
    }

    /// What it is done to, in bytes for the audit, which escapes and shortens them. Environment values are left
    /// out: people put secrets there.
    #[must_use]
    pub fn target(&self) -> Vec<u8> {
        match self {
            Self::Enter(enter) => {
                let mut target = match enter.program() {
                    Program::LoginShell => b"(login shell)".to_vec(),
                    Program::Command(argv) => argv.join(&b' '),
                };
                if let Some(directory) = enter.directory() {
                    target = [b"cd ", directory, b"; ", &target].concat();
                }
                target
            }
            Self::AddPort(change) | Self::RemovePort(change) => {
                let dry = if change.dry_run { " (dry run)" } else { "" };
                format!("{}{dry}", change.port).into_bytes()
            }
            Self::AuditQuery(_)
            | Self::AuditFollow(_)
            | Self::AuditVerify
            | Self::WhoAmI
            | Self::Health
            | Self::Inspect
            | Self::ListPorts => Vec::new(),
        }
    }
}
