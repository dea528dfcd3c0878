//! The command line of `podsecctl`; manual pages and completions are made from it.
//!
//! Owns: names, texts and the reading of arguments. Must not: do anything.

use crate::{spec, time};
use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podsec_policy::audit::Phase;
use podsec_policy::port::PortSpec;
use podsec_policy::rules::RULES;
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
    ("1", "The answer is bad news: status found something not well, audit verify found a broken chain."),
    ("2", "Wrong usage, or podsecd refused the request as malformed."),
    ("69", "No podsecd to talk to: not running, not reachable, or the socket is not root's."),
    ("70", "podsecd failed; its log says why."),
    ("74", "Reading or writing failed on this side."),
    (
        "75",
        "Not now: too many connections or sessions, no answer in time, or podsecd or the namespace is on its way up or down. Try again.",
    ),
    ("76", "podsecd speaks another version."),
    ("77", "You may not ask for that."),
    (
        "78",
        "The host is not in the state for it: the namespace is down, the port is in use, the audit cannot be written.",
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
];

/// Files that podsecctl touches.
pub const FILES: &[(&str, &str)] = &[
    (podsec_policy::config::SOCKET_PATH, "Where podsecd listens."),
    (podsec_policy::config::ATTACH_PATH, "Where a session is fetched."),
];

/// Asks podsecd: enters the rootless namespaces of this host, publishes their ports, reads the audit.
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
    /// Read the record of what was asked of podsecd, or check it
    Audit(Audit),
    /// Show whether podsecd, the audit and the namespaces are well
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

    #[test]
    fn the_list_of_exit_statuses_is_in_the_long_help() {
        let help = Cli::command().render_long_help().to_string();
        assert!(EXIT_STATUS.iter().all(|(status, _)| help.contains(&format!("\n  {status:>3}  "))), "{help}");
    }
}
