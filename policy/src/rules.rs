//! THE table: which role may ask for which operation, and which capabilities its worker keeps.
//!
//! `tests/rules.rs` holds the table against the protobuf descriptors, both ways, and prints it as the snapshot
//! that a reviewer reads.

use crate::operation::{Method, Operation};
use crate::peer::{Role, Roles};
use crate::reason::Reason;
use serde::{Deserialize, Serialize};

/// A capability(7) that a worker may keep. The list of all that any worker ever holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// `CAP_SETUID`: become the cluster user.
    SetUid,
    /// `CAP_SETGID`: take his groups.
    SetGid,
    /// `CAP_CHOWN`: give a new home to its user; what useradd(8) does with its own files.
    Chown,
    /// `CAP_DAC_OVERRIDE`: go through a home that is closed to all but its user; /etc/shadow without a mode bit.
    DacOverride,
    /// `CAP_FOWNER`: modes of files that are a user's.
    Fowner,
    /// `CAP_KILL`: end what runs as a user who is removed, and what acted as him and was stopped by him.
    Kill,
    /// `CAP_AUDIT_WRITE`: the records of shadow's tools and PAM in the kernel's audit.
    AuditWrite,
    /// `CAP_LINUX_IMMUTABLE`: the lock on an image user's configuration (chattr(1), i).
    LinuxImmutable,
}

/// Who carries an operation out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The gate itself, from what it knows: nothing is done to the host, and no audit is owed.
    Gate,
    /// A worker with these capabilities and no others.
    Worker(&'static [Capability]),
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The operation.
    pub method: Method,
    /// Its full gRPC name, without the leading slash.
    pub path: &'static str,
    /// Any one of these roles is enough.
    pub roles: Roles,
    /// Who does it.
    pub by: By,
}

const ANYONE: Roles = Roles::NONE.with(Role::Anyone);
const ADMINISTRATOR: Roles = Roles::NONE.with(Role::Administrator);
const NAMESPACE: Roles = ADMINISTRATOR.with(Role::ClusterAdmin);
const MONITOR: Roles = ADMINISTRATOR.with(Role::Monitor);
const BECOME: By = By::Worker(&[Capability::SetUid, Capability::SetGid]);
/// Root over accounts and homes.
const ACCOUNTS: By = By::Worker(&[
    Capability::SetUid,
    Capability::SetGid,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Kill,
    Capability::AuditWrite,
    Capability::LinuxImmutable,
]);
/// To give a directory to the parser, and to become it.
const PUBLISH: By = By::Worker(&[Capability::SetUid, Capability::SetGid, Capability::Chown]);
/// Files of root's in directories of root's take no capability.
const NOTHING: By = By::Worker(&[]);
/// To give a server its store, and take that away again. A configuration is tried with sockets in a directory, so not to
/// bind to a port.
const SERVICE: By = By::Worker(&[Capability::Chown, Capability::DacOverride]);
/// About himself alone: what he signs, and by which password he pushes.
const OWN: Roles = Roles::NONE.with(Role::ImageCreator);
const CREATOR: Roles = ADMINISTRATOR.with(Role::ImageCreator);
/// About himself, an Administrator about anyone: the worker looks which.
const SELF: Roles = CREATOR.with(Role::ImageUser).with(Role::ClusterAdmin);

/// Whatever is not here is denied.
pub const RULES: &[Rule] = &[
    Rule { method: Method::WhoAmI, path: "podsec.v1.IdentityService/WhoAmI", roles: ANYONE, by: By::Gate },
    Rule { method: Method::Health, path: "podsec.v1.IdentityService/Health", roles: ANYONE, by: By::Gate },
    Rule {
        method: Method::Inspect,
        path: "podsec.v1.NamespaceService/Inspect",
        roles: NAMESPACE,
        by: BECOME,
    },
    Rule { method: Method::Enter, path: "podsec.v1.NamespaceService/Enter", roles: NAMESPACE, by: BECOME },
    Rule {
        method: Method::ListPorts,
        path: "podsec.v1.NamespaceService/ListPorts",
        roles: NAMESPACE,
        by: BECOME,
    },
    Rule {
        method: Method::AddPort,
        path: "podsec.v1.NamespaceService/AddPort",
        roles: NAMESPACE,
        by: BECOME,
    },
    Rule {
        method: Method::RemovePort,
        path: "podsec.v1.NamespaceService/RemovePort",
        roles: NAMESPACE,
        by: BECOME,
    },
    Rule {
        method: Method::AuditQuery,
        path: "podsec.v1.AuditService/Query",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::AuditFollow,
        path: "podsec.v1.AuditService/Follow",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::AuditVerify,
        path: "podsec.v1.AuditService/Verify",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::CreateUser,
        path: "podsec.v1.UserService/Create",
        roles: ADMINISTRATOR,
        by: ACCOUNTS,
    },
    Rule { method: Method::ListUsers, path: "podsec.v1.UserService/List", roles: SELF, by: NOTHING },
    Rule {
        method: Method::SetPassword,
        path: "podsec.v1.UserService/SetPassword",
        roles: ADMINISTRATOR,
        by: ACCOUNTS,
    },
    Rule { method: Method::LockUser, path: "podsec.v1.UserService/Lock", roles: ADMINISTRATOR, by: ACCOUNTS },
    Rule {
        method: Method::UnlockUser,
        path: "podsec.v1.UserService/Unlock",
        roles: ADMINISTRATOR,
        by: ACCOUNTS,
    },
    Rule {
        method: Method::DeleteUser,
        path: "podsec.v1.UserService/Delete",
        roles: ADMINISTRATOR,
        by: ACCOUNTS,
    },
    Rule { method: Method::VerifyUser, path: "podsec.v1.UserService/Verify", roles: SELF, by: BECOME },
    Rule {
        method: Method::RestrictIdMaps,
        path: "podsec.v1.UserService/RestrictIdMaps",
        roles: ADMINISTRATOR,
        by: ACCOUNTS,
    },
    Rule { method: Method::PublishKey, path: "podsec.v1.KeyService/Publish", roles: CREATOR, by: PUBLISH },
    Rule { method: Method::RotateKey, path: "podsec.v1.KeyService/Rotate", roles: CREATOR, by: PUBLISH },
    Rule { method: Method::RevokeKey, path: "podsec.v1.KeyService/Revoke", roles: CREATOR, by: NOTHING },
    Rule { method: Method::ListKeys, path: "podsec.v1.KeyService/List", roles: CREATOR, by: NOTHING },
    Rule {
        method: Method::InitTrust,
        path: "podsec.v1.TrustService/Init",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule { method: Method::ShowTrust, path: "podsec.v1.TrustService/Show", roles: SELF, by: NOTHING },
    Rule {
        method: Method::TrustHistory,
        path: "podsec.v1.TrustService/History",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::RollbackTrust,
        path: "podsec.v1.TrustService/Rollback",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::GrantSigner,
        path: "podsec.v1.TrustService/Grant",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::RevokeSigner,
        path: "podsec.v1.TrustService/Revoke",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::ExportTrust,
        path: "podsec.v1.TrustService/Export",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::SyncTrust,
        path: "podsec.v1.TrustService/Sync",
        roles: ADMINISTRATOR,
        by: PUBLISH,
    },
    Rule {
        method: Method::SubmitSignature,
        path: "podsec.v1.SignatureService/Submit",
        roles: OWN,
        by: PUBLISH,
    },
    Rule {
        method: Method::ListSignatures,
        path: "podsec.v1.SignatureService/List",
        roles: CREATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::DeployService,
        path: "podsec.v1.ServiceService/Deploy",
        roles: ADMINISTRATOR,
        by: SERVICE,
    },
    Rule {
        method: Method::RemoveService,
        path: "podsec.v1.ServiceService/Remove",
        roles: ADMINISTRATOR,
        by: SERVICE,
    },
    Rule {
        method: Method::ServiceStatus,
        path: "podsec.v1.ServiceService/Status",
        roles: ADMINISTRATOR,
        by: NOTHING,
    },
    Rule {
        method: Method::NewCredential,
        path: "podsec.v1.ServiceService/NewCredential",
        roles: OWN,
        by: NOTHING,
    },
    Rule { method: Method::RunCheck, path: "podsec.v1.CheckService/Run", roles: MONITOR, by: BECOME },
    Rule { method: Method::Findings, path: "podsec.v1.CheckService/Findings", roles: MONITOR, by: BECOME },
    Rule { method: Method::WatchFindings, path: "podsec.v1.CheckService/Watch", roles: MONITOR, by: BECOME },
];

/// The row of a method; `None` denies.
#[must_use]
pub fn rule(method: Method) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.method == method)
}

impl Method {
    /// As people, the audit and refusals write it: `NamespaceService/Enter`.
    #[must_use]
    pub fn name(self) -> &'static str {
        rule(self).and_then(|rule| rule.path.strip_prefix("podsec.v1.")).unwrap_or("unknown")
    }

    /// The roles that may ask for it, as a person reads them.
    #[must_use]
    pub fn allowed(self) -> String {
        let roles = rule(self).map_or(Roles::NONE, |rule| rule.roles);
        roles.iter().map(Role::name).collect::<Vec<_>>().join(" or ")
    }
}

/// The proof that the caller may have this operation. Only [`authorize`] makes one, and nothing is carried out
/// without it. It is for this request alone: it can be neither cloned nor kept.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    operation: Operation,
    by: By,
    roles: Roles,
}

impl Permit {
    /// What is permitted.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.operation
    }
    /// Who carries it out.
    #[must_use]
    pub fn by(&self) -> By {
        self.by
    }
    /// Those of the caller's roles that allow it. One of them must still be his by the account database.
    #[must_use]
    pub fn roles(&self) -> Roles {
        self.roles
    }
    /// Gives the operation away and ends the permit.
    #[must_use]
    pub fn into_operation(self) -> Operation {
        self.operation
    }
}

/// A refusal. The reason is for the audit; the caller is told the method and who may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// What was asked.
    pub method: Method,
    /// Why not.
    pub reason: Reason,
}

/// Decides, from the caller's roles and the table alone.
///
/// # Errors
/// [`Denied`] where the table has no row, or no role of the row is the caller's.
pub fn authorize(held: Roles, operation: Operation) -> Result<Permit, Denied> {
    let method = operation.method();
    let denied = Denied { method, reason: Reason::NotMember };
    let rule = rule(method).ok_or(denied)?;
    let roles = held.intersection(rule.roles);
    if roles == Roles::NONE {
        return Err(denied);
    }
    Ok(Permit { operation, by: rule.by, roles })
}
