//! The closed list of what podsecd does. Every field is a validated type, checked again when read from a frame.

use crate::audit::Filter;
use crate::enter::{Enter, Program};
use crate::finding::Check;
use crate::name::AccountName;
use crate::port::PortSpec;
use crate::secret::Password;
use crate::trust::{
    BundleUrl, DeployService, GrantSigner, InitTrust, RemoveService, RevokeSigner, RollbackTrust, Settings,
    ShowTrust, SubmitSignature, SyncTrust, TrustReason,
};
use crate::user::{Fingerprint, NewUser, PublicKey, Scope};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

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
    /// Make a user, or complete him.
    CreateUser(Box<NewUser>),
    /// All of podsec's users, or one.
    ListUsers(Option<AccountName>),
    /// A user's password.
    SetPassword(AccountName, Password),
    /// No login any more.
    LockUser(UserChange),
    /// The reverse.
    UnlockUser(UserChange),
    /// Remove a user.
    DeleteUser(UserChange),
    /// Is a user as he was made, and what is open to him?
    VerifyUser(AccountName),
    /// Who may use newuidmap(1).
    RestrictIdMaps {
        /// `None`: only look.
        restrict: Option<bool>,
        /// Change nothing.
        dry_run: bool,
    },
    /// A creator's first public key.
    PublishKey(Box<NewPublicKey>),
    /// A new one beside the old.
    RotateKey(Box<NewPublicKey>),
    /// A key that is trusted no more.
    RevokeKey(KeyRevocation),
    /// Published keys of one creator, or of all.
    ListKeys(Option<AccountName>),
    /// From now on only signed images run; or other settings.
    InitTrust(Box<InitTrust>),
    /// Whose signatures are demanded of what.
    ShowTrust(ShowTrust),
    /// All revisions.
    TrustHistory,
    /// The contents of an old one again.
    RollbackTrust(RollbackTrust),
    /// A creator signs in more scopes.
    GrantSigner(Box<GrantSigner>),
    /// Or in fewer.
    RevokeSigner(Box<RevokeSigner>),
    /// For other hosts.
    ExportTrust,
    /// Another host's.
    SyncTrust(Box<SyncTrust>),
    /// A signature of an image, to be kept for verifiers.
    SubmitSignature(Box<SubmitSignature>),
    /// What was submitted, by one creator or all.
    ListSignatures(Option<AccountName>),
    /// Set up a server.
    DeployService(DeployService),
    /// The reverse.
    RemoveService(RemoveService),
    /// How the servers are.
    ServiceStatus,
    /// A new password for the registry, the caller's own.
    NewCredential,
    /// Look for violations now.
    RunCheck(Check),
    /// What was found, by one check or all.
    Findings(Option<Check>),
    /// The same, and changes as they come.
    WatchFindings(Option<Check>),
}

/// A user, and what about him.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// Who.
    pub name: AccountName,
    /// With his home, for a deletion.
    pub remove_home: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// A public key to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewPublicKey {
    /// `None`: the caller himself.
    pub creator: Option<AccountName>,
    /// As it came.
    pub key: PublicKey,
    /// Change nothing.
    pub dry_run: bool,
}

/// A key to be trusted no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRevocation {
    /// `None`: the caller himself.
    pub creator: Option<AccountName>,
    /// Which.
    pub fingerprint: Fingerprint,
    /// Change nothing.
    pub dry_run: bool,
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
    CreateUser,
    ListUsers,
    SetPassword,
    LockUser,
    UnlockUser,
    DeleteUser,
    VerifyUser,
    RestrictIdMaps,
    PublishKey,
    RotateKey,
    RevokeKey,
    ListKeys,
    InitTrust,
    ShowTrust,
    TrustHistory,
    RollbackTrust,
    GrantSigner,
    RevokeSigner,
    ExportTrust,
    SyncTrust,
    SubmitSignature,
    ListSignatures,
    DeployService,
    RemoveService,
    ServiceStatus,
    NewCredential,
    RunCheck,
    Findings,
    WatchFindings,
}

impl Method {
    /// How long a worker may take for it; `None`: as long as the caller reads.
    #[must_use]
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Self::AuditQuery
            | Self::AuditFollow
            | Self::AuditVerify
            | Self::ListUsers
            | Self::ListKeys
            | Self::ShowTrust
            | Self::TrustHistory
            | Self::ExportTrust
            | Self::ListSignatures
            | Self::Findings
            | Self::WatchFindings => None,
            // One after the other, each with programs that may wait for the locks of others (lckpwdf(3): 15 s).
            Self::CreateUser
            | Self::SetPassword
            | Self::LockUser
            | Self::UnlockUser
            | Self::DeleteUser
            | Self::RestrictIdMaps
            | Self::PublishKey
            | Self::RotateKey
            | Self::RevokeKey
            | Self::VerifyUser
            | Self::InitTrust
            | Self::RollbackTrust
            | Self::GrantSigner
            | Self::RevokeSigner
            | Self::SyncTrust
            | Self::SubmitSignature
            | Self::DeployService
            | Self::RemoveService
            | Self::NewCredential => Some(Duration::from_secs(120)),
            // Thousands of homes, or images for trivy to look through.
            Self::RunCheck => Some(Duration::from_secs(3600)),
            _ => Some(Duration::from_secs(10)),
        }
    }
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
            Self::CreateUser(_) => Method::CreateUser,
            Self::ListUsers(_) => Method::ListUsers,
            Self::SetPassword(..) => Method::SetPassword,
            Self::LockUser(_) => Method::LockUser,
            Self::UnlockUser(_) => Method::UnlockUser,
            Self::DeleteUser(_) => Method::DeleteUser,
            Self::VerifyUser(_) => Method::VerifyUser,
            Self::RestrictIdMaps { .. } => Method::RestrictIdMaps,
            Self::PublishKey(_) => Method::PublishKey,
            Self::RotateKey(_) => Method::RotateKey,
            Self::RevokeKey(_) => Method::RevokeKey,
            Self::ListKeys(_) => Method::ListKeys,
            Self::InitTrust(_) => Method::InitTrust,
            Self::ShowTrust(_) => Method::ShowTrust,
            Self::TrustHistory => Method::TrustHistory,
            Self::RollbackTrust(_) => Method::RollbackTrust,
            Self::GrantSigner(_) => Method::GrantSigner,
            Self::RevokeSigner(_) => Method::RevokeSigner,
            Self::ExportTrust => Method::ExportTrust,
            Self::SyncTrust(_) => Method::SyncTrust,
            Self::SubmitSignature(_) => Method::SubmitSignature,
            Self::ListSignatures(_) => Method::ListSignatures,
            Self::DeployService(_) => Method::DeployService,
            Self::RemoveService(_) => Method::RemoveService,
            Self::ServiceStatus => Method::ServiceStatus,
            Self::NewCredential => Method::NewCredential,
            Self::RunCheck(_) => Method::RunCheck,
            Self::Findings(_) => Method::Findings,
            Self::WatchFindings(_) => Method::WatchFindings,
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
                format!("{}{}", change.port, dry(change.dry_run)).into_bytes()
            }
            Self::CreateUser(user) => {
                let (key, linger) = (user.key.is_some(), user.linger);
                let scopes = user.category.scopes().iter().map(|scope| format!(" {scope}"));
                let extras = [(key, " with a key"), (linger, " lingering"), (user.dry_run, DRY)];
                let extras = extras.into_iter().filter_map(|(is, text)| is.then_some(text.to_owned()));
                let rest: String = scopes.chain(extras).collect();
                format!("{} {}{rest}", user.category.name(), user.name).into_bytes()
            }
            Self::LockUser(change) | Self::UnlockUser(change) => {
                format!("{}{}", change.name, dry(change.dry_run)).into_bytes()
            }
            Self::DeleteUser(change) => {
                let home = if change.remove_home { " and his home" } else { "" };
                format!("{}{home}{}", change.name, dry(change.dry_run)).into_bytes()
            }
            Self::SetPassword(name, _)
            | Self::VerifyUser(name)
            | Self::ListUsers(Some(name))
            | Self::ListKeys(Some(name))
            | Self::ListSignatures(Some(name)) => name.as_str().into(),
            Self::RestrictIdMaps { restrict, dry_run } => {
                let what = match restrict {
                    None => "show",
                    Some(true) => "image users only",
                    Some(false) => "everybody",
                };
                format!("{what}{}", dry(*dry_run)).into_bytes()
            }
            Self::PublishKey(key) | Self::RotateKey(key) => {
                let creator = key.creator.as_ref().map_or("own", AccountName::as_str);
                let hash = crate::audit::hex(&Sha256::digest(key.key.bytes()));
                format!("{creator}, sha256 {hash}{}", dry(key.dry_run)).into_bytes()
            }
            Self::RevokeKey(revocation) => {
                let creator = revocation.creator.as_ref().map_or("own", AccountName::as_str);
                format!("{creator}, {}{}", revocation.fingerprint, dry(revocation.dry_run)).into_bytes()
            }
            Self::InitTrust(init) => {
                let Settings { registry, signatures, plain_http, address, names } = &init.settings;
                let http = if *plain_http { " over plain HTTP" } else { "" };
                let names: String = names.iter().map(|name| format!(" {name}")).collect();
                let address = address.map(|address| format!(" at {address}")).unwrap_or_default();
                let (registry, signatures) = (registry.as_str(), signatures.as_str());
                format!("{registry}, signatures {signatures}{names}{address}{http}{}", changed(&init.reason))
                    .into_bytes()
            }
            Self::ShowTrust(show) => {
                show.revision.map(|number| number.to_string().into_bytes()).unwrap_or_default()
            }
            Self::RollbackTrust(to) => format!("to {}{}", to.revision, changed(&to.reason)).into_bytes(),
            Self::GrantSigner(grant) => {
                let shared = if grant.shared { ", shared" } else { "" };
                format!("{}{}{shared}{}", grant.creator, list(&grant.scopes), changed(&grant.reason))
                    .into_bytes()
            }
            Self::RevokeSigner(revoke) => {
                let distrust = if revoke.distrust { ", and what he signed" } else { "" };
                format!("{}{}{distrust}{}", revoke.creator, list(&revoke.scopes), changed(&revoke.reason))
                    .into_bytes()
            }
            Self::SyncTrust(sync) => {
                let url = sync.url.as_ref().map_or("from a file", BundleUrl::as_str);
                let by = sync.fingerprint.as_ref().map(|key| format!(", by {key}")).unwrap_or_default();
                format!("{url}{by}{}", changed(&sync.reason)).into_bytes()
            }
            Self::SubmitSignature(submit) => {
                let hash = crate::audit::hex(&Sha256::digest(submit.signature.bytes()));
                format!("{}@{}, sha256 {hash}", submit.repository, submit.digest).into_bytes()
            }
            Self::DeployService(deploy) => {
                let address = deploy.address.map(|address| format!(" {address}")).unwrap_or_default();
                let port = deploy.port.map(|port| format!(" port {port}")).unwrap_or_default();
                format!("{}{address}{port}{}", deploy.kind.name(), dry(deploy.dry_run)).into_bytes()
            }
            Self::RemoveService(remove) => {
                let data = if remove.remove_data { " and its store" } else { "" };
                format!("{}{data}{}", remove.kind.name(), dry(remove.dry_run)).into_bytes()
            }
            Self::RunCheck(check) | Self::Findings(Some(check)) | Self::WatchFindings(Some(check)) => {
                check.name().into()
            }
            Self::AuditQuery(_)
            | Self::AuditFollow(_)
            | Self::AuditVerify
            | Self::Findings(None)
            | Self::WatchFindings(None)
            | Self::TrustHistory
            | Self::ExportTrust
            | Self::ListSignatures(None)
            | Self::ServiceStatus
            | Self::NewCredential
            | Self::WhoAmI
            | Self::Health
            | Self::Inspect
            | Self::ListUsers(None)
            | Self::ListKeys(None)
            | Self::ListPorts => Vec::new(),
        }
    }
}

const DRY: &str = " (dry run)";

fn dry(run: bool) -> &'static str {
    if run { DRY } else { "" }
}

fn list(scopes: &[Scope]) -> String {
    scopes.iter().map(|scope| format!(" {scope}")).collect()
}

fn changed(reason: &TrustReason) -> String {
    let overwrite = if reason.overwrite { ", overwriting" } else { "" };
    let why = reason.why.as_str();
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{overwrite}{}{why}", dry(reason.dry_run))
}
