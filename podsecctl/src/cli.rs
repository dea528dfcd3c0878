//! The command line of `podsecctl`; manual pages and completions are made from it.
//!
//! Owns: names, texts and the reading of arguments. Must not: do anything.

mod archive;
mod check;
mod image;
mod trust;

pub use archive::{
    Architectures, Compression, LoadImages, MaxSize, MirrorImages, OneArchive, Registry, SaveImages, Saving,
};
pub use check::{Check, CheckName, ListFindings, Looking, Metric, Nagios, SeverityName};
pub use image::{BuildImage, How, Image, PushImage, SignImages};
pub use trust::{
    CheckTrust, DeployService, GrantSigner, InitTrust, Reason, RemoveService, RevokeSigner, RollbackTrust,
    Service, ServiceName, SyncTrust, Trust, bundle_url,
};

use crate::{spec, time};
use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podsec_policy::audit::Phase;
use podsec_policy::name::{AccountName, NameError};
use podsec_policy::port::PortSpec;
use podsec_policy::rules::RULES;
use podsec_policy::user::{
    Fingerprint, FullName, FullNameError, KeyAlgorithm, KeyDays, KeyDaysError, Scope, ScopeError,
};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::PathBuf;

const EVERYWHERE: &str = "Options of every command";

/// Exit status of a wrong command line.
pub const USAGE: u8 = 2;

/// What the exit status says; sysexits(3) names most of them.
pub const EXIT_STATUS: &[(&str, &str)] = &[
    (
        "0",
        "Done. For enter: the status of the program inside, 0 to 255; 128 and the number of the signal that ended it.",
    ),
    (
        "1",
        "The answer is bad news: status found something not well, audit verify a broken chain, user verify something broken or open, trust diff a difference, trust check a policy that is not strict or an image that would not run, service status a server that is down, image verify or load an archive that is damaged or hostile, image build an image with vulnerabilities, check run a violation, or something that could not be looked at. Or yours was: a question was not answered with yes.",
    ),
    ("2", "Wrong usage, or podsecd refused the request as malformed."),
    (
        "0 to 3",
        "For check nagios, whatever happens: OK, WARNING, CRITICAL, UNKNOWN; wrong usage is UNKNOWN, too.",
    ),
    ("69", "No podsecd to talk to: not running, not reachable, or the socket is not root's."),
    ("70", "podsecd failed; its log says why."),
    ("74", "Reading, writing, gpg, skopeo, podman or curl failed on this side."),
    (
        "75",
        "Not now: too many connections or sessions, no answer in time, podsecd or the namespace is on its way up or down, or somebody else saves images to the same directory. Try again.",
    ),
    ("76", "podsecd speaks another version."),
    ("77", "You may not ask for that; images are not handled as root."),
    (
        "78",
        "The host is not in the state for it: the namespace is down, the port is in use, the audit cannot be written, there is no such key, the archive is there already, an image cannot be looked at.",
    ),
    ("127", "The program could not be started inside the namespaces."),
    ("141", "Whoever read the output went away."),
];

/// Variables that podsecctl reads.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PODSEC_SOCKET",
        "Socket of podsecd, where --socket does not name one. Not read in a program that runs with more rights than its caller.",
    ),
    ("NO_COLOR", "With any value: no colour, unless --color says otherwise."),
    ("TERM, COLORTERM", "Sent along by enter with a terminal."),
    ("LANG, LANGUAGE, LC_*", "Sent along by enter."),
    (
        "HOME, GNUPGHOME, GPG_TTY, TERM, DISPLAY, WAYLAND_DISPLAY, XAUTHORITY, DBUS_SESSION_BUS_ADDRESS",
        "Handed to gpg by key generate, publish and rotate, and nothing else is; to skopeo where it signs.",
    ),
    (
        "HOME, TMPDIR, XDG_*, REGISTRY_AUTH_FILE, DOCKER_CONFIG, CONTAINERS_*, STORAGE_*, SSL_CERT_*, *_PROXY",
        "Handed to skopeo by image, trust check and service credential; with BUILDAH_ISOLATION, _FORMAT and _LAYERS to podman by image build.",
    ),
];

/// Files that podsecctl touches.
pub const FILES: &[(&str, &str)] = &[
    (podsec_policy::config::SOCKET_PATH, "Where podsecd listens."),
    (podsec_policy::config::ATTACH_PATH, "Where a session is fetched."),
    (
        "~/.config/containers/policy.json, /etc/containers/policy.json",
        "What trust check reads: the first that is there, as podman and skopeo do.",
    ),
];

/// Asks podsecd: enters the rootless namespaces of this host, publishes their ports, makes users and keys, says
/// whose images run, reads the audit.
#[derive(Debug, Parser)]
#[command(name = "podsecctl", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit status: `podsecctl --help` has the list.", after_long_help = exit_status())]
pub struct Cli {
    /// Socket of podsecd
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Print JSON, one object a line; errors too
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Colour the output
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

fn exit_status() -> String {
    let mut text = "Exit status:".to_owned();
    for (status, meaning) in EXIT_STATUS {
        text += &format!("\n  {status:>3}  {meaning}");
    }
    text
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
// Deferred: the arguments of a command are only built when it is the one called, and `enter` is called in loops. Its
// page then shows the comment of its arguments, so that one is the longer.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Command {
    /// Show who podsecd takes you for, and what you may ask
    Whoami,
    /// Run a command, or a login shell, inside the namespaces
    Enter(Enter),
    /// Look at the namespaces
    #[command(subcommand)]
    Namespace(Namespace),
    /// List, publish and withdraw ports of the namespace
    #[command(subcommand)]
    Port(Port),
    /// Make users of images and of the cluster, and look after them
    ///
    /// Root, system users, administrators and users that podsec did not make are never touched. Whoever is no
    /// administrator may look at himself.
    #[command(subcommand)]
    User(Box<User>),
    /// Make, publish and withdraw the keys that images are signed with
    ///
    /// The private key is made by gpg, as yourself in your own home, and never leaves it; podsecd publishes the public
    /// key, by which the images are verified.
    #[command(subcommand)]
    Key(Key),
    /// Say whose signed images run on this host
    #[command(subcommand)]
    Trust(Box<Trust>),
    /// Publish images, sign them, and see what is signed; carry them to where there is no network
    #[command(subcommand)]
    Image(Box<Image>),
    /// Run the registry and the server of signatures on this host
    #[command(subcommand)]
    Service(Service),
    /// See what the monitors found, and have them look
    ///
    /// For administrators and the group podsec-monitor.
    #[command(subcommand)]
    Check(Box<Check>),
    /// Read the record of what was asked of podsecd, or check it
    Audit(Audit),
    /// Show whether podsecd, the audit and the namespaces are well, and what the monitors found
    Status,
    /// Print a completion script
    Completion {
        /// Which shell's
        shell: clap_complete::Shell,
    },
}

/// Run a command, or a login shell, inside the namespaces
///
/// Everything after the first word that is not an option belongs to the command. Without a command the cluster user's
/// login shell is started. The command runs as the cluster user, who is root inside; who asked for it is in the audit.
///
/// On a terminal the session gets a new one of its own: yours is never handed to it. Otherwise it reads and writes
/// your standard input, output and error directly, and signals that you send to podsecctl are passed on.
#[derive(Debug, Default, Args)]
pub struct Enter {
    /// Make a terminal for the session; the default when stdin and stdout are terminals
    #[arg(short = 't', long, overrides_with = "no_tty")]
    pub tty: bool,
    /// Make none
    #[arg(short = 'T', long, overrides_with = "tty")]
    pub no_tty: bool,
    /// Directory inside to start in; the cluster user's home by default
    #[arg(short = 'C', long, value_name = "DIR")]
    pub cwd: Option<OsString>,
    /// Set a variable; with no value, the value it has here (a secret stays out of `ps` that way)
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Program to run inside and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, value_hint = clap::ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Look at the namespaces
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Namespace {
    /// Show their state, processes, ids, addresses and ports
    Show,
}

/// List, publish and withdraw ports of the namespace
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Port {
    /// List published ports
    List,
    /// Publish a port of the namespace on the host, now and whenever the namespace comes up
    Add(PortChange),
    /// Withdraw a published port
    Remove(PortChange),
}

/// One port, as `port list` prints it.
#[derive(Clone, Copy, Debug, Args)]
pub struct PortChange {
    /// [ADDRESS:]HOST-PORT:PORT[/tcp|/udp], such as 8080:80, 127.0.0.1:8053:53/udp or [::1]:8080:80
    #[arg(value_parser = spec::parse)]
    pub spec: PortSpec,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Make users of images and of the cluster, and look after them
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum User {
    /// Make users, or complete those that lack something
    ///
    /// The accounts are locked until `podsecctl user passwd` sets a password. Asked again for what is there it changes
    /// nothing. A failure with one user does not stop the others.
    ///
    /// FILE is TOML: a table [[user]] for each, with name and category as here, and where there is more to say with
    /// full_name, scopes (a list), and shared, linger and key (true or false).
    Create(CreateUsers),
    /// List podsec's users
    List,
    /// Show a user, by default yourself
    Show {
        /// Who
        #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
        name: Option<AccountName>,
    },
    /// Let nobody log in as a user any more; what runs goes on
    Lock(UserChanges),
    /// Let users log in again
    Unlock(UserChanges),
    /// Set a user's password
    ///
    /// On a terminal it is asked for, twice and unseen. A newline at the end of what is read is not part of it.
    Passwd(Passwd),
    /// End the processes of users and remove their accounts, ids, keys and records
    Delete(DeleteUsers),
    /// Check that users are as they were made, and which ways around signed images are open to them
    Verify {
        /// Who; by default yourself
        #[arg(value_name = "NAME", value_parser = account, value_hint = clap::ValueHint::Username)]
        names: Vec<AccountName>,
    },
    /// Show or set who may use newuidmap(1) and newgidmap(1)
    RestrictIdmaps {
        /// on: image users and the cluster user only; off: everybody; neither: show how it is
        switch: Option<Switch>,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
}

/// Make users, or complete those that lack something.
#[derive(Debug, Args)]
pub struct CreateUsers {
    /// Login names: a-z, 0-9, '_' and '-', a letter or '_' first
    #[arg(value_name = "NAME", value_parser = account, required_unless_present = "from")]
    pub names: Vec<AccountName>,
    /// Read them from a file; - for standard input
    #[arg(
        long, value_name = "FILE", value_hint = clap::ValueHint::FilePath,
        conflicts_with_all = ["names", "category", "scopes", "shared", "full_name", "linger", "with_key"]
    )]
    pub from: Option<PathBuf>,
    /// What they are
    #[arg(long, value_name = "CATEGORY", required_unless_present = "from")]
    pub category: Option<CategoryName>,
    /// Repository, such as registry.local/team, in which an image creator signs; may be given again
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    pub scopes: Vec<Scope>,
    /// Others, made with --shared too, may sign there as well
    #[arg(long)]
    pub shared: bool,
    /// For people to read
    #[arg(long, value_name = "TEXT", value_parser = full_name)]
    pub full_name: Option<FullName>,
    /// Their processes go on after they have logged out
    #[arg(long)]
    pub linger: bool,
    /// Make an image creator's signing key with him; otherwise he does it with `podsecctl key generate`
    #[arg(long)]
    pub with_key: bool,
    /// Kind of signing key
    #[arg(long, value_name = "ALGORITHM", default_value = Algorithm::DEFAULT)]
    pub key_algorithm: Algorithm,
    /// Days until it expires, two years by default
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub key_days: Option<KeyDays>,
    /// Read the passphrase that protects the private key from this descriptor
    #[arg(long, value_name = "FD")]
    pub key_passphrase_fd: Option<u32>,
    /// Let nothing but the home protect the private key
    #[arg(long, conflicts_with = "key_passphrase_fd")]
    pub no_key_passphrase: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Users to change.
#[derive(Debug, Args)]
pub struct UserChanges {
    /// Who
    #[arg(required = true, value_name = "NAME", value_parser = account, value_hint = clap::ValueHint::Username)]
    pub names: Vec<AccountName>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Set a user's password.
#[derive(Debug, Args)]
pub struct Passwd {
    /// Whose
    #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
    pub name: AccountName,
    /// Read it from standard input
    #[arg(long)]
    pub stdin: bool,
    /// Read it from this descriptor
    #[arg(long, value_name = "FD", conflicts_with = "stdin")]
    pub password_fd: Option<u32>,
}

/// Users to remove.
#[derive(Debug, Args)]
pub struct DeleteUsers {
    /// Who, and whether for show.
    #[command(flatten)]
    pub users: UserChanges,
    /// Remove the homes, too; otherwise they stay, for root alone
    #[arg(long)]
    pub remove_home: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Make, publish and withdraw the keys that images are signed with
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Key {
    /// Make your signing key and publish it
    ///
    /// Runs gpg with your keyring. Its pinentry asks for the passphrase that protects the private key, unless an option
    /// says otherwise.
    Generate(GenerateKey),
    /// Publish the first key of a creator, or the same one with a later expiry
    Publish(OfferKey),
    /// Publish a new key beside the old ones, which stay valid for what they signed
    Rotate(OfferKey),
    /// Withdraw a key: nothing that it signed is trusted any more
    Revoke(RevokeKey),
    /// List published keys
    List {
        /// Of this creator
        #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
        name: Option<AccountName>,
    },
    /// Print a creator's keys that verify images now
    Export {
        /// Whose
        #[arg(value_parser = account, value_hint = clap::ValueHint::Username)]
        name: AccountName,
        /// Only this one
        #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::new)]
        fingerprint: Option<Fingerprint>,
        /// As text
        #[arg(long)]
        armor: bool,
    },
}

/// Make your signing key and publish it.
#[derive(Debug, Args)]
pub struct GenerateKey {
    /// Kind of key
    #[arg(long, value_name = "ALGORITHM", default_value = Algorithm::DEFAULT)]
    pub algorithm: Algorithm,
    /// Days until it expires, two years by default
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub days: Option<KeyDays>,
    /// Read the passphrase from this descriptor
    #[arg(long, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
    /// Let nothing but your home protect the private key
    #[arg(long, conflicts_with = "passphrase_fd")]
    pub no_passphrase: bool,
    /// Beside the key that you have published already
    #[arg(long)]
    pub rotate: bool,
}

/// A public key to be published.
#[derive(Debug, Args)]
pub struct OfferKey {
    /// The fingerprint of a key in your keyring, a file, or - for standard input; by default the one key in your
    /// keyring that you can sign with
    #[arg(value_name = "FINGERPRINT|FILE|-", value_hint = clap::ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Whose it is, for administrators; by default yours
    #[arg(long, value_name = "NAME", value_parser = account, value_hint = clap::ValueHint::Username)]
    pub creator: Option<AccountName>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// A key to withdraw.
#[derive(Debug, Args)]
pub struct RevokeKey {
    /// Which, as `key list` prints it
    #[arg(value_parser = Fingerprint::new)]
    pub fingerprint: Fingerprint,
    /// Whose it is, for administrators; by default yours
    #[arg(long, value_name = "NAME", value_parser = account, value_hint = clap::ValueHint::Username)]
    pub creator: Option<AccountName>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

fn account(text: &str) -> Result<AccountName, NameError> {
    AccountName::new(text)
}

fn scope(text: &str) -> Result<Scope, ScopeError> {
    Scope::new(text)
}

fn full_name(text: &str) -> Result<FullName, FullNameError> {
    FullName::new(text)
}

fn days(text: &str) -> Result<KeyDays, KeyDaysError> {
    text.parse().map_err(|_| KeyDaysError).and_then(KeyDays::new)
}

/// What somebody is, without what only some have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CategoryName {
    /// Publishes signed images
    ImageCreator,
    /// Runs signed images
    ImageUser,
    /// A person of the Kubernetes cluster, without containers of his own
    ClusterUser,
    /// The cluster user of podsecd's configuration
    ClusterAdmin,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Image users and the cluster user only
    On,
    /// Everybody
    Off,
}

/// Kind of a key, for the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm(pub KeyAlgorithm);

impl Algorithm {
    const DEFAULT: &str = "ed25519";
}

impl ValueEnum for Algorithm {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(KeyAlgorithm::Ed25519), Self(KeyAlgorithm::Rsa3072), Self(KeyAlgorithm::Rsa4096)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

/// Read the record of what was asked of podsecd, or check it
///
/// Lists records, oldest first, when no command is given.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    /// What to do; list when absent
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// Which ones, without a command.
    #[command(flatten)]
    pub list: AuditList,
}

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print records, oldest first
    List(AuditList),
    /// Check that no record was edited, removed or put in
    Verify,
}

/// Which records. All that are given must fit.
#[derive(Clone, Debug, Default, Args)]
pub struct AuditList {
    /// Of this user: a name or a uid
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    pub user: Option<String>,
    /// Of this operation, such as Enter
    #[arg(long, value_name = "OPERATION", value_parser = operations(), hide_possible_values = true)]
    pub operation: Option<String>,
    /// With this outcome
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Option<Outcome>,
    /// Not before: 10m, 2h, 3d (ago), 2026-01-31, or 2026-01-31T08:00:00Z; UTC unless it says otherwise
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub since: Option<u64>,
    /// Before, in the same form
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    pub until: Option<u64>,
    /// Only the newest so many; with --follow 10 by default
    #[arg(long, value_name = "NUMBER")]
    pub last: Option<u32>,
    /// Go on printing new ones as they come
    #[arg(short, long)]
    pub follow: bool,
}

/// Both names of each operation: the audit's own, and its last part.
fn operations() -> clap::builder::PossibleValuesParser {
    let names = RULES.iter().map(|rule| rule.method.name());
    let short = names.clone().filter_map(|name| name.rsplit('/').next());
    short
        .map(PossibleValue::new)
        .chain(names.map(|name| PossibleValue::new(name).hide(true)))
        .collect::<Vec<_>>()
        .into()
}

/// What a record says happened, for the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub Phase);

impl ValueEnum for Outcome {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self(Phase::Intent),
            Self(Phase::Done),
            Self(Phase::Fail),
            Self(Phase::Deny),
            Self(Phase::Recovered),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(match self.0 {
            Phase::Intent => "permitted, and about to be done",
            Phase::Done => "it was done",
            Phase::Fail => "it was not done",
            Phase::Deny => "it was not permitted",
            Phase::Recovered => "a crash left it open",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &[&str]) -> Result<Command, clap::error::ErrorKind> {
        Cli::try_parse_from([&["podsecctl"], line].concat())
            .map(|cli| cli.command)
            .map_err(|error| error.kind())
    }

    fn enter(line: &[&str]) -> Enter {
        match parse(line) {
            Ok(Command::Enter(enter)) => enter,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        for line in [&["enter", "-T", "ls", "-l", "--json"][..], &["enter", "-T", "--", "ls", "-l", "--json"]]
        {
            let enter = enter(line);
            assert_eq!(enter.command, ["ls", "-l", "--json"]);
            assert!(enter.no_tty && !enter.tty);
        }
        assert_eq!(enter(&["enter", "--", "-t"]).command, ["-t"]);
        assert_eq!(enter(&["enter", "sh", "--", "x"]).command, ["sh", "--", "x"]);
        assert!(enter(&["enter"]).command.is_empty());
        assert!(parse(&["enter", "--nonsense", "ls"]).is_err());
    }

    #[test]
    fn the_last_of_tty_and_no_tty_wins() {
        assert!(enter(&["enter", "-T", "-t"]).tty);
        assert!(!enter(&["enter", "-t", "-T"]).tty);
    }

    #[test]
    fn global_options_go_on_either_side() {
        for line in [&["--socket", "/x", "--json", "whoami"][..], &["whoami", "--json", "--socket", "/x"]] {
            let cli = Cli::try_parse_from([&["podsecctl"], line].concat()).unwrap();
            assert!(cli.json && cli.socket == Some("/x".into()));
        }
    }

    #[test]
    fn audit_lists_with_or_without_the_word() {
        let filter =
            ["--user", "alice", "--operation", "Enter", "--outcome", "deny", "--last", "3", "--follow"];
        for line in [[&["audit"], &filter[..]].concat(), [&["audit", "list"], &filter[..]].concat()] {
            let Ok(Command::Audit(audit)) = parse(&line) else { panic!("{line:?}") };
            let list = match audit.command {
                Some(AuditCommand::List(list)) => list,
                _ => audit.list,
            };
            assert_eq!(list.user.as_deref(), Some("alice"));
            assert_eq!(list.operation.as_deref(), Some("Enter"));
            assert_eq!(list.outcome, Some(Outcome(Phase::Deny)));
            assert!(list.follow && list.last == Some(3));
        }
        assert!(parse(&["audit", "--operation", "NamespaceService/Enter"]).is_ok());
        assert!(parse(&["audit", "--operation", "Nonsense"]).is_err());
        assert!(parse(&["audit", "--outcome", "perhaps"]).is_err());
        assert!(parse(&["audit", "--last", "3", "verify"]).is_err());
        assert!(matches!(
            parse(&["audit", "verify"]),
            Ok(Command::Audit(Audit { command: Some(AuditCommand::Verify), .. }))
        ));
    }

    fn create(line: &str) -> Result<CreateUsers, clap::error::ErrorKind> {
        let words: Vec<_> = line.split_whitespace().collect();
        match *user(&[&["create"], &words[..]].concat())? {
            User::Create(create) => Ok(create),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn user(line: &[&str]) -> Result<Box<User>, clap::error::ErrorKind> {
        match parse(&[&["user"], line].concat())? {
            Command::User(user) => Ok(user),
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn users_are_named_or_read_from_a_file() {
        use clap::error::ErrorKind;
        let made =
            create("carol dave --category image-creator --scope a.b/c --scope a.b/d --shared").unwrap();
        assert_eq!(made.names.iter().map(AccountName::as_str).collect::<Vec<_>>(), ["carol", "dave"]);
        assert_eq!((made.category, made.scopes.len()), (Some(CategoryName::ImageCreator), 2));
        assert_eq!((made.key_algorithm, made.key_days), (Algorithm(KeyAlgorithm::Ed25519), None));
        assert_eq!(create("--from -").unwrap().from, Some("-".into()));
        for (line, kind) in [
            ("carol", ErrorKind::MissingRequiredArgument),
            ("--category image-user", ErrorKind::MissingRequiredArgument),
            ("carol --from x", ErrorKind::ArgumentConflict),
            ("--from x --category image-user", ErrorKind::ArgumentConflict),
            ("--from x --with-key", ErrorKind::ArgumentConflict),
            ("Carol --category image-user", ErrorKind::ValueValidation),
            ("carol --category admin", ErrorKind::InvalidValue),
            ("carol --category image-creator --scope team", ErrorKind::ValueValidation),
            ("carol --category image-user --full-name a:b", ErrorKind::ValueValidation),
            ("carol --category image-user --key-days 0", ErrorKind::ValueValidation),
            ("carol --category image-user --key-days 1827", ErrorKind::ValueValidation),
            ("carol --category image-user --key-algorithm dsa", ErrorKind::InvalidValue),
            (
                "carol --category image-creator --no-key-passphrase --key-passphrase-fd 3",
                ErrorKind::ArgumentConflict,
            ),
        ] {
            assert_eq!(create(line).err(), Some(kind), "{line}");
        }
    }

    #[test]
    fn what_is_done_to_users_and_keys() {
        for line in [
            "user list",
            "user show",
            "user show carol",
            "user lock carol dave --dry-run",
            "user unlock carol",
            "user passwd carol --stdin",
            "user passwd carol --password-fd 7",
            "user delete carol dave --remove-home --yes --dry-run",
            "user verify",
            "user verify carol dave",
            "user restrict-idmaps",
            "user restrict-idmaps on --dry-run",
            "key generate --algorithm rsa4096 --days 365 --passphrase-fd 3 --rotate",
            "key publish",
            "key publish - --creator carol --dry-run",
            "key rotate 0123456789abcdef0123456789abcdef01234567",
            "key revoke 0123456789abcdef0123456789abcdef01234567 --creator carol --yes --dry-run",
            "key list",
            "key list carol",
            "key export carol --fingerprint 0123456789abcdef0123456789abcdef01234567 --armor",
        ] {
            let words: Vec<_> = line.split_whitespace().collect();
            assert!(parse(&words).is_ok(), "{line}: {:?}", parse(&words));
        }
        for line in [
            "user lock",
            "user delete",
            "user passwd",
            "user passwd carol secret",
            "user passwd carol --stdin --password-fd 0",
            "user passwd carol --password-fd -1",
            "user lock -- -rf",
            "user restrict-idmaps perhaps",
            "key generate --passphrase secret",
            "key generate --no-passphrase --passphrase-fd 3",
            "key revoke DEADBEEF",
            "key export",
        ] {
            let words: Vec<_> = line.split_whitespace().collect();
            assert!(parse(&words).is_err(), "{line}");
        }
    }

    #[test]
    fn algorithms_are_policys() {
        assert_eq!(Algorithm::DEFAULT, KeyAlgorithm::default().name());
    }

    #[test]
    fn the_list_of_exit_statuses_is_in_the_long_help() {
        let help = Cli::command().render_long_help().to_string();
        assert!(EXIT_STATUS.iter().all(|(status, _)| help.contains(&format!("\n  {status:>3}  "))), "{help}");
    }
}
