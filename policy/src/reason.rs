//! Why something was refused or failed: one closed list for the audit, the interface and the messages.

use serde::{Deserialize, Serialize};

/// The gRPC status that a reason becomes (grpc/doc/statuscodes.md). Only the codes that podsec uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 3
    InvalidArgument,
    /// 4
    DeadlineExceeded,
    /// 5
    NotFound,
    /// 7
    PermissionDenied,
    /// 8
    ResourceExhausted,
    /// 9
    FailedPrecondition,
    /// 12
    Unimplemented,
    /// 13
    Internal,
    /// 14
    Unavailable,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident, $sentence:literal;)*) => {
        /// A stable reason. Its name goes to the audit; the caller sees it only where [`Reason::is_public`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// `kebab-case`, stable between versions.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// The status that a caller gets.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
            /// What happened and what to do, for a person.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

reasons! {
    // Who is asking. The caller learns only that he may not; these go to the audit.
    /// No role that the rule allows.
    NotMember = "not-member", PermissionDenied, "not authorised";
    /// The account database no longer confirms the role.
    Revoked = "revoked", PermissionDenied, "not authorised";
    /// The account database did not answer in time; no answer is no right.
    NssTimeout = "nss-timeout", PermissionDenied, "not authorised";
    /// Lives in another user or pid namespace than podsecd: a container, where uid numbers mean someone else.
    ForeignUserns = "foreign-userns", PermissionDenied, "not authorised";
    /// 2³¹ or above, or the overflow id.
    BadUid = "bad-uid", PermissionDenied, "not authorised";
    /// The process that connected is gone.
    PeerGone = "peer-gone", PermissionDenied, "not authorised";
    /// The process that connected runs under another uid now.
    UidChanged = "uid-changed", PermissionDenied, "not authorised";
    /// The kernel would not tell who connected.
    Unidentified = "unidentified", PermissionDenied, "not authorised";
    /// A ticket that is unknown, used, too old, or another process's.
    BadTicket = "bad-ticket", PermissionDenied, "not authorised";

    // How much is asked.
    /// Connections of this uid, or of all.
    ConnectionLimit = "connection-limit", ResourceExhausted, "too many connections are open; close some and try again";
    /// Requests of this uid at once.
    RequestLimit = "request-limit", ResourceExhausted, "too many requests of yours are under way; try again when one has ended";
    /// Sessions of this uid, or of all.
    SessionLimit = "session-limit", ResourceExhausted, "too many sessions are open; end one and try again";
    /// No descriptor, process or memory for it.
    Resources = "resources", ResourceExhausted, "the host has no descriptors, processes or memory left for this; try again";

    // What is asked.
    /// Not HTTP/2, not gRPC, or not our messages.
    Protocol = "protocol", InvalidArgument, "not a valid request";
    /// No such method.
    UnknownMethod = "unknown-method", Unimplemented, "this podsecd has no such method";
    /// A field is missing or malformed.
    BadArgument = "bad-argument", InvalidArgument, "not a valid request";
    /// argv has no program.
    EmptyArgv = "empty-argv", InvalidArgument, "the command is empty";
    /// An environment variable is malformed or changes how programs load.
    BadEnvironment = "bad-env", InvalidArgument, "not a valid variable for a session";
    /// The working directory is malformed, absent, or leads out.
    BadDirectory = "bad-cwd", InvalidArgument, "not a valid working directory";
    /// A descriptor that a session must not have: a terminal, a directory, a device.
    BadDescriptor = "bad-descriptor", InvalidArgument, "standard input, output and error must be files, pipes or sockets";

    // What stands in the way.
    /// No rootlesskit runs.
    NamespaceDown = "namespace-down", FailedPrecondition, "the rootless namespace is not up; start it: systemctl start podsec-u7s";
    /// It runs, but has not said that it is ready.
    NamespaceStarting = "namespace-starting", Unavailable, "the rootless namespace is coming up; try again in a moment";
    /// It went away under the request.
    NamespaceGone = "namespace-gone", Unavailable, "the rootless namespace went down meanwhile; try again when it is up";
    /// `child_pid` is not a file with a pid.
    BadPidfile = "bad-pidfile", FailedPrecondition, "rootlesskit's child_pid does not hold a process id";
    /// The process does not live in namespaces of the cluster user.
    OwnerMismatch = "owner-mismatch", FailedPrecondition, "rootlesskit's child_pid names a process outside the cluster user's namespaces";
    /// Some of its namespaces are the host's or somebody else's.
    NamespaceMixed = "ns-mixed", FailedPrecondition, "the process named by rootlesskit's child_pid does not have all the namespaces of its own";
    /// The session has no place in the cluster user's control group.
    Cgroup = "cgroup", FailedPrecondition, "the session cannot be placed in the cluster user's control group; restart it: systemctl restart podsec-u7s";
    /// setns(2) refused.
    Setns = "setns", FailedPrecondition, "the kernel refused entry to the namespaces";
    /// Program not found or not executable inside.
    Exec = "exec", FailedPrecondition, "the program cannot be run inside the namespace";
    /// The terminal could not be made.
    Terminal = "terminal", Unavailable, "no terminal could be made for the session";
    /// The client did not come for its session.
    NotAttached = "not-attached", DeadlineExceeded, "nobody came for the session";
    /// Somebody listens there.
    PortInUse = "port-in-use", FailedPrecondition, "the port is in use on the host; choose another, or stop what listens there";
    /// rootlesskit said no.
    PortRefused = "port-refused", FailedPrecondition, "rootlesskit refused the port";
    /// rootlesskit's API did not make sense or did not answer.
    Rootlesskit = "rootlesskit", Unavailable, "rootlesskit does not answer";
    /// The cluster user does not exist.
    NoClusterUser = "no-cluster-user", FailedPrecondition, "the cluster user has no account on this host; systemd-sysusers makes it";
    /// The audit cannot be written, so nothing privileged is done.
    AuditUnavailable = "audit-unavailable", FailedPrecondition, "the audit cannot be written, so nothing privileged is done; is the disk full?";

    // People and keys.
    /// No such user, or none that podsec made.
    UnmanagedUser = "unmanaged-user", PermissionDenied, "not one of podsec's users";
    /// Not his own, and he is no Administrator.
    NotOwner = "not-owner", PermissionDenied, "that is somebody else's";
    /// A name that no user may have.
    BadName = "bad-name", InvalidArgument, "not a valid user name";
    /// A full name with what passwd(5) cannot hold.
    BadFullName = "bad-full-name", InvalidArgument, "not a valid full name";
    /// A password or passphrase that no program would take.
    BadSecret = "bad-secret", InvalidArgument, "not a valid password";
    /// A repository that is not one.
    BadScope = "bad-scope", InvalidArgument, "not a valid scope";
    /// Not one good public key.
    BadKey = "bad-key", InvalidArgument, "not a public key that podsec publishes";
    /// An account of that name that podsec did not make.
    UserExists = "user-exists", FailedPrecondition, "there is a user of that name that podsec did not make; choose another name";
    /// He is of another category.
    OtherCategory = "other-category", FailedPrecondition, "the user is of another category; delete him first";
    /// Somebody else signs there.
    ScopeTaken = "scope-taken", FailedPrecondition, "the scope belongs to another creator; both have to be shared";
    /// Something is where his home would be.
    HomeExists = "home-exists", FailedPrecondition, "there is something in the place of the home already";
    /// No range of subordinate ids is free.
    SubidRange = "subid-range", ResourceExhausted, "no range of subordinate ids is free; see /etc/subuid, /etc/subgid and [users] in podsecd.toml";
    /// A group of the configuration is not there.
    NoGroup = "no-group", FailedPrecondition, "a group of podsec is not on this host; systemd-sysusers makes it";
    /// A key is published already.
    KeyExists = "key-exists", FailedPrecondition, "the creator has another key already; rotate to the new one";
    /// There is none to rotate or revoke.
    NoKey = "no-key", NotFound, "the creator has no such key";
    /// A program of the distribution failed.
    Program = "program", FailedPrecondition, "a program of this host failed";
    /// What is in the user's home is not as expected.
    HomeTrap = "home-trap", FailedPrecondition, "the user's home holds something unexpected";
    /// The host cannot do it.
    Unsupported = "unsupported", FailedPrecondition, "this host cannot do that";

    // Trust, signatures, servers.
    /// No revision yet.
    NoTrust = "no-trust", FailedPrecondition, "no trust is set up on this host; podsecctl trust init";
    /// A file that follows from the revision is not as podsec wrote it.
    TrustDrift = "trust-drift", FailedPrecondition, "files of trust were changed by hand; podsecctl trust diff shows how, --overwrite writes them anew";
    /// Trust comes from another host.
    TrustFollows = "trust-follows", FailedPrecondition, "this host follows another one's trust; change it there, then podsecctl trust sync";
    /// Trust is this host's own, and another's was to be followed.
    OwnTrust = "own-trust", FailedPrecondition, "this host has trust of its own";
    /// No such revision.
    NoRevision = "no-revision", NotFound, "there is no such revision; podsecctl trust history";
    /// A host, endpoint, address or name that is not one.
    BadHost = "bad-host", InvalidArgument, "not a valid host";
    /// `/etc/hosts` has a name for another address, or podsec's block in it is damaged.
    HostsConflict = "hosts-conflict", FailedPrecondition, "/etc/hosts says otherwise";
    /// Not a signature by a key of the caller's, or not of what he says.
    BadSignature = "bad-signature", InvalidArgument, "not a signature that podsec keeps";
    /// In somebody else's repository.
    OutOfScope = "out-of-scope", FailedPrecondition, "the repository is in none of your scopes; an Administrator grants them: podsecctl trust grant";
    /// Many signatures for one image.
    SignatureLimit = "signature-limit", ResourceExhausted, "the image has as many signatures as podsec keeps for one";
    /// It could not be fetched.
    Fetch = "fetch", Unavailable, "the bundle could not be fetched";
    /// Not signed by the pinned key, or not a bundle.
    BadBundle = "bad-bundle", FailedPrecondition, "the bundle is not by the host that this one follows";
    /// An older revision than the one that is there.
    OldBundle = "old-bundle", FailedPrecondition, "the bundle is older than what this host has";
    /// The servers are not podsec's, or not there.
    NotDeployed = "not-deployed", FailedPrecondition, "the server is not deployed on this host; podsecctl service deploy";
    /// A server's own test refused its configuration.
    ServiceConfig = "service-config", FailedPrecondition, "the server refuses its configuration";

    // What broke.
    /// The worker died, or was killed by its deadline.
    HelperLost = "helper-lost", Internal, "the worker of this request was lost; the audit has its last step";
    /// The request took longer than it may.
    Deadline = "deadline", DeadlineExceeded, "took longer than it may; nothing of it goes on";
    /// podsecd is going down.
    ShuttingDown = "shutting-down", Unavailable, "podsecd is restarting; try again";
    /// A bug of ours.
    Bug = "internal", Internal, "podsecd could not do this; its log says more";
}

impl Reason {
    /// May the caller be told? Who he is not, and why, is nobody's business but the administrator's. What a thing is not
    /// is another matter: who may ask for the operation may know it.
    #[must_use]
    pub fn is_public(self) -> bool {
        self.code() != Code::PermissionDenied || matches!(self, Self::UnmanagedUser | Self::NotOwner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stable_in_form() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn refusals_of_a_person_all_read_the_same() {
        let refusals: Vec<_> = Reason::ALL.iter().filter(|reason| !reason.is_public()).collect();
        assert!(refusals.len() >= 9);
        assert!(refusals.iter().all(|reason| reason.sentence() == "not authorised"));
    }
}
