//! Between gate, front and worker.
//!
//! ```text
//! front ── Request ──▶ gate            gate: authorise
//! front ◀─ Answer / Refused ── gate    gate: what it knows itself, or no
//!                      gate ── Check ──▶ worker   is he still a member? (account database)
//!                      gate ◀─ Checked ─ worker
//!                      gate: audit the intent     worker: make ready, inside if that is where the job is
//! front ◀─ Accepted + fd ── gate ── Go + fds ──▶ worker
//! front ◀════════ Reply … ════════ worker         directly, over that fd
//!                      gate ◀─ Finished ─ worker  gate: audit the outcome
//!                      gate ── Recorded ▶ worker  and only now the last Reply is sent
//! ```

use podsec_policy::config::{Accounts, Config};
use podsec_policy::finding::{Found, Ran, Summary};
use podsec_policy::name::AccountName;
use podsec_policy::operation::Method;
use podsec_policy::peer::Roles;
use podsec_policy::port::PortSpec;
use podsec_policy::secret::Secret;
use podsec_policy::trust::{Digest, ServiceKind, Settings, SignatureKind, Why};
use podsec_policy::user::{Category, Fingerprint, FullName, Scope};
use podsec_policy::{Operation, Reason};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// gate → front
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFront {
    /// First of all; the caller's connection comes along as a descriptor.
    Serve {
        /// Offer server reflection.
        reflection: bool,
    },
    /// What the gate knows itself.
    Answer {
        /// Of the request.
        id: u32,
        /// Contents.
        answer: Answer,
    },
    /// A worker will answer on the descriptor that comes along.
    Accepted {
        /// Of the request.
        id: u32,
        /// What the gate itself can answer before the worker does: [`Reply::Entering`].
        first: Option<Reply>,
    },
    /// No.
    Refused {
        /// Of the request.
        id: u32,
        /// For the status; the front tells the caller no more than [`Reason::is_public`] allows.
        reason: Reason,
    },
    /// The worker ended without an answer.
    Lost {
        /// Of the request.
        id: u32,
        /// Why.
        reason: Reason,
    },
}

/// Answers of the gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Who the caller is.
    WhoAmI {
        /// Of the peer.
        uid: u32,
        /// Who logged in.
        login_uid: Option<u32>,
        /// What follows.
        roles: Roles,
    },
    /// How the gate is.
    Health {
        /// Privileged operations are possible.
        audit_writable: bool,
        /// Open now.
        connections: u32,
        /// Open now.
        sessions: u32,
        /// Seconds.
        uptime: u64,
    },
}

/// front → gate
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromFront {
    /// The caller asks. Who he is, is not for the front to say.
    Request {
        /// The front's number for it.
        id: u32,
        /// Checked by decoding.
        operation: Operation,
    },
    /// The caller sent what is no request; for the audit.
    Malformed {
        /// What it seemed to be for.
        method: Option<Method>,
        /// What is wrong with it.
        reason: Reason,
    },
}

/// gate → worker
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Before there is a question: load what looking people up takes.
    WarmUp,
    /// Does the account database of this moment still give this uid one of these roles? The worker has no
    /// descriptor and no operation yet, so it cannot do anything of the caller's before the answer is in. Asked for a
    /// request, or for a reservation before it.
    Check {
        /// Of the peer.
        uid: u32,
        /// Those that would do.
        roles: Roles,
        /// What their accounts are called.
        accounts: Box<Accounts>,
        /// For which the worker makes ready, once he is found to be a member and while the gate records the intent.
        method: Method,
        /// `None` where the host has no cluster user.
        place: Option<Place>,
    },
    /// Do it. Descriptors: the reply channel, and for a session the session's channel.
    Go(Box<Job>),
    /// Before anybody is served: complete or undo what a crash has left half done.
    Recover(Box<Config>),
    /// The outcome is in the audit.
    Recorded,
}

/// A permitted operation and what its worker must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// 128 random bits, in hex: the operation's name in the audit.
    pub id: String,
    /// Who asks.
    pub uid: u32,
    /// What to do; its row in the table says with which capabilities.
    pub operation: Operation,
    /// podsecd's configuration.
    pub config: Box<Config>,
}

/// Whose namespaces, and where they are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Owns them.
    pub user: ClusterUser,
    /// State directory of podsec-u7s.
    pub state: PathBuf,
}

/// The cluster user, as `/etc/passwd` and `/etc/group` have him now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterUser {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// worker → gate
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// Answer to `WarmUp`.
    Ready,
    /// Answer to `Check`.
    Checked(Result<(), Reason>),
    /// It goes on as another process, whose pidfd comes along: born in the session's control group.
    Moved {
        /// Its number.
        pid: i32,
    },
    /// Where it is now, should it be lost.
    Step(Step),
    /// What became of it.
    Finished(Outcome),
    /// Something that a crash had left half done is whole again.
    Recovered(Box<Recovered>),
}

/// A change that a worker began and did not end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// Of the operation, in the audit.
    pub id: String,
    /// What it was.
    pub method: Method,
    /// As [`Operation::target`], escaped.
    pub target: String,
    /// Who had asked.
    pub uid: u32,
    /// Completed, or undone.
    pub completed: bool,
}

/// A step of an operation, as the audit names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Capabilities down to the row's.
    Confine,
    /// Open the process that rootlesskit names.
    Find,
    /// Into its control group.
    Cgroup,
    /// Become the cluster user.
    Become,
    /// Are those his namespaces?
    Judge,
    /// Enter them.
    Join,
    /// Wait for the client and its descriptors.
    Attach,
    /// Terminal, directory, program.
    Start,
    /// The program runs.
    Run,
    /// Talk to rootlesskit.
    Api,
    /// Read the audit, or records of users and keys.
    Read,
    /// Wait for others who change users.
    Lock,
    /// Look whether it can be done.
    Plan,
    /// The account.
    Account,
    /// Its subordinate ids.
    Subids,
    /// The home.
    Home,
    /// What is put into it.
    Skeleton,
    /// The lock on an image user's configuration.
    Guard,
    /// Whether processes outlive the login.
    Linger,
    /// podsec's own record.
    Record,
    /// A signing key.
    Key,
    /// The published keys.
    Publish,
    /// The password.
    Password,
    /// End a user's processes.
    Processes,
    /// Modes of newuidmap and newgidmap.
    Modes,
    /// A new revision of trust.
    Revision,
    /// containers-registries.d(5), containers-registries.conf(5).
    Registries,
    /// `/etc/hosts`.
    Hosts,
    /// containers-policy.json(5).
    Policy,
    /// Another host's bundle.
    Fetch,
    /// Is it by whom it should be?
    Signature,
    /// Put it where verifiers find it.
    Store,
    /// The certificate of a server.
    Certificate,
    /// Its configuration.
    Configuration,
    /// The server's own test of that.
    Test,
    /// Start or stop it.
    Unit,
    /// The password for pushing.
    Credential,
    /// Look for violations.
    Check,
}

impl Step {
    /// As the audit writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Confine => "confine",
            Self::Find => "find",
            Self::Cgroup => "cgroup",
            Self::Become => "become",
            Self::Judge => "judge",
            Self::Join => "join",
            Self::Attach => "attach",
            Self::Start => "start",
            Self::Run => "run",
            Self::Api => "api",
            Self::Read => "read",
            Self::Lock => "lock",
            Self::Plan => "plan",
            Self::Account => "account",
            Self::Subids => "subids",
            Self::Home => "home",
            Self::Skeleton => "skeleton",
            Self::Guard => "guard",
            Self::Linger => "linger",
            Self::Record => "record",
            Self::Key => "key",
            Self::Publish => "publish",
            Self::Password => "password",
            Self::Processes => "processes",
            Self::Modes => "modes",
            Self::Revision => "revision",
            Self::Registries => "registries",
            Self::Hosts => "hosts",
            Self::Policy => "policy",
            Self::Fetch => "fetch",
            Self::Signature => "signature",
            Self::Store => "store",
            Self::Certificate => "certificate",
            Self::Configuration => "configuration",
            Self::Test => "test",
            Self::Unit => "unit",
            Self::Credential => "credential",
            Self::Check => "check",
        }
    }
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Done, or why not.
    pub result: Result<(), Reason>,
    /// Where it ended.
    pub step: Step,
    /// Of a session that ran: 0 to 255, or 128 and the signal.
    pub exit: Option<i32>,
}

/// worker → front
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// State of the namespaces.
    Inspected(Box<Inspection>),
    /// The session is there to be fetched. [`Reply::End`] follows when it is inside.
    Entering {
        /// For [`session::attach`](crate::session::attach); `None` where it was handed over on a reservation.
        ticket: Option<[u8; 32]>,
        /// Path of the socket.
        attach: PathBuf,
        /// In the audit.
        session: String,
    },
    /// Published ports: spec, active now, kept.
    Ports(Vec<(PortSpec, bool, bool)>),
    /// A change was made, or there was nothing to do.
    Changed(bool),
    /// A change to a user or a key.
    Change(Change),
    /// One of a stream.
    User(Box<User>),
    /// One of a stream.
    Key(Box<Key>),
    /// A change of trust: the revision after it, and what it was.
    Trust(u64, Change),
    /// One of a stream.
    TrustPart(Box<TrustPart>),
    /// One of a stream.
    Bytes(Vec<u8>),
    /// Where a signature is, below the root of the server; and whether it is new.
    Submitted(String, bool),
    /// One of a stream.
    Signature(Box<SignatureRecord>),
    /// How the servers are.
    Services(Vec<ServiceState>),
    /// Registry, name and password for pushing.
    Credential(String, AccountName, Secret),
    /// A check has looked.
    Ran(Box<Ran>),
    /// One of a stream: how a check's last run went.
    Summary(Box<Summary>),
    /// One of a stream.
    Found(Box<Found>),
    /// One of a stream: the id of what is there no more.
    Gone(String),
    /// What was found out about a user.
    Findings(Vec<Finding>),
    /// One of a stream.
    Record(String),
    /// A stream's end.
    End,
    /// The audit's chain.
    Verified {
        /// Links that hold.
        records: u64,
        /// Read.
        files: u32,
        /// File, line, what is wrong there.
        broken: Option<(String, u64, String)>,
    },
    /// It failed.
    Failed {
        /// For the status.
        reason: Reason,
        /// For a person, escaped; the reason's own sentence when empty.
        detail: String,
    },
}

/// What a change has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of the key that it was about.
    pub fingerprint: Option<Fingerprint>,
    /// A sentence each; empty: there was nothing to do.
    pub steps: Vec<String>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// A user that podsec made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: AccountName,
    /// User id when he was made.
    pub uid: u32,
    /// What he is.
    pub category: Category,
    /// How he is now.
    pub state: UserState,
    /// As he was made.
    pub full_name: FullName,
    /// First and count.
    pub subids: Option<(u32, u32)>,
    /// Seconds since 1970.
    pub created: u64,
    /// Published keys that are good now.
    pub keys: u32,
}

/// How a user is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum UserState {
    Active,
    NoPassword,
    Locked,
    Gone,
}

/// A published key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Whose.
    pub creator: AccountName,
    /// Which.
    pub fingerprint: Fingerprint,
    /// As gpg names it.
    pub algorithm: String,
    /// Of the first user id, escaped.
    pub user_id: String,
    /// What it is good for.
    pub state: KeyState,
    /// Seconds since 1970.
    pub created: u64,
    /// The same; `None`: never.
    pub expires: Option<u64>,
    /// Seconds since 1970.
    pub published: u64,
    /// OpenPGP, binary.
    pub key: Vec<u8>,
}

/// What a published key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum KeyState {
    Current,
    Previous,
    Revoked,
    Expired,
}

/// One of what a revision consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrustPart {
    /// First of all.
    Revision(Revision),
    /// Once.
    Settings {
        /// Where images and signatures are.
        settings: Settings,
        /// URL of the bundle of the host that is followed.
        follows: Option<String>,
        /// Of the trust key, where there is one.
        fingerprint: Option<Fingerprint>,
    },
    /// One scope.
    Scope {
        /// Which.
        scope: Scope,
        /// How images are signed there.
        kind: SignatureKind,
        /// By whom, and whether he signs no more.
        signers: Vec<(AccountName, bool)>,
    },
    /// One key.
    Key {
        /// Whose.
        creator: AccountName,
        /// Which.
        fingerprint: Fingerprint,
        /// What for.
        kind: SignatureKind,
    },
    /// One file that follows from it; long ones in several parts.
    File {
        /// Where.
        path: String,
        /// As podsec wrote it?
        state: FileState,
        /// What podsec wrote.
        contents: Vec<u8>,
    },
}

/// Head of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1.
    pub revision: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// Who made it.
    pub uid: u32,
    /// His name then.
    pub user: String,
    /// In his words.
    pub why: Why,
    /// What was done: a sentence.
    pub what: String,
    /// How many there are.
    pub scopes: u32,
}

/// How a file is that podsec writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum FileState {
    Same,
    Changed,
    Missing,
}

/// A signature that was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureRecord {
    /// By whom.
    pub creator: AccountName,
    /// By which key.
    pub fingerprint: Fingerprint,
    /// Of what, as signed.
    pub reference: String,
    /// Of what.
    pub digest: Digest,
    /// Seconds since 1970.
    pub time: u64,
    /// Would this host accept an image by it now?
    pub trusted: bool,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Which.
    pub kind: ServiceKind,
    /// In a word.
    pub health: ServiceHealth,
    /// For a person.
    pub detail: String,
    /// Its URL.
    pub address: String,
    /// Bytes in its store.
    pub size: u64,
    /// Of its certificate, seconds since 1970.
    pub certificate_expires: Option<u64>,
    /// Of its configuration.
    pub changed_files: Vec<String>,
}

/// How a server is, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum ServiceHealth {
    NotDeployed,
    Ok,
    Down,
    Foreign,
}

/// One thing that was looked at, or tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// kebab-case, stable.
    pub name: String,
    /// How far it protects.
    pub protection: Protection,
    /// How it is.
    pub state: FindingState,
    /// For a person.
    pub detail: String,
}

/// How far a protection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum Protection {
    Account,
    GuardRail,
    Detection,
    Containment,
}

/// How something that was looked at is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum FindingState {
    Ok,
    Broken,
    Open,
    Unsupported,
    NotTried,
}

/// What Inspect found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Is it up?
    pub state: State,
    /// Why not.
    pub reason: String,
    /// Name of the cluster user.
    pub user: String,
    /// His uid.
    pub uid: u32,
    /// 0: none.
    pub child_pid: u32,
    /// Kind, inode, own.
    pub namespaces: Vec<(String, u64, bool)>,
    /// Inside, outside, count.
    pub uid_map: Vec<(u32, u32, u32)>,
    /// Inside, outside, count.
    pub gid_map: Vec<(u32, u32, u32)>,
    /// Interface and address with prefix length.
    pub addresses: Vec<(String, String)>,
    /// Of rootlesskit.
    pub network_driver: String,
    /// Of rootlesskit.
    pub port_driver: String,
    /// Of rootlesskit.
    pub version: String,
    /// As [`Reply::Ports`].
    pub ports: Vec<(PortSpec, bool, bool)>,
}

/// Is the namespace up?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in the interface")]
pub enum State {
    #[default]
    Down,
    Starting,
    Ready,
    Refused,
}
