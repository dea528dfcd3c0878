//! `podsecctl`: what people and scripts type to ask podsecd for something.
//!
//! Owns the command line ([`cli`]), the connection to podsecd, the client's end of a session, and everything that is
//! printed. Must not have or need any privilege, decide who may do what, or print a byte that came from elsewhere
//! as it came, the session's own bytes apart.

#![forbid(unsafe_code)]

mod audit;
mod check;
pub mod cli;
mod connect;
mod enter;
mod failure;
mod image;
mod input;
mod key;
mod many;
mod namespace;
mod output;
mod port;
mod service;
mod session;
mod spec;
mod status;
mod time;
mod trust;
mod user;
mod users;
mod whoami;

use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};
use failure::Failure;
use output::Output;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The name under which scripts of old call `podsecctl enter`.
const OLD_NAME: &str = "nsenter_u7s";

/// What every command needs to know.
struct Context {
    socket: PathBuf,
    output: Output,
}

/// Runs a command line and gives the exit status.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> u8 {
    // execve(2) allows no argv at all, and programs that did not expect it were holes (CVE-2021-4034).
    let Some(name) = arguments.first() else {
        complain(&Failure::Usage("started without even a name for itself".into()), "podsecctl", false);
        return cli::USAGE;
    };
    let old = Path::new(name).file_name().is_some_and(|name| name == OLD_NAME);
    let plain = if old { Some(arguments.iter().skip(1).cloned().collect()) } else { plain_entry(&arguments) };
    if let Some(command) = plain {
        let context = Context { socket: socket(None), output: Output::plain() };
        let result = enter::run(&context, cli::Enter { command, ..cli::Enter::default() });
        return finish(result, if old { OLD_NAME } else { "podsecctl" }, false);
    }
    let json = wants_json(&arguments);
    let is_plugin = check::nagios::is_asked(&arguments);
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if is_plugin => return check::nagios::usage(&error),
        Err(error) if json && error.use_stderr() => {
            // "error: what is wrong", and then paragraphs for people.
            let text = error.to_string();
            let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
            complain(&Failure::Usage(what.to_owned()), "podsecctl", true);
            return cli::USAGE;
        }
        Err(error) => {
            // Help goes to stdout; a reader who went away has seen enough of it.
            let _ = error.print();
            return if error.use_stderr() { cli::USAGE } else { 0 };
        }
    };
    let context = Context { socket: socket(cli.socket), output: Output::new(cli.json, cli.color) };
    finish(run(&context, cli.command), "podsecctl", cli.json)
}

/// The command of `podsecctl enter -- COMMAND…`, which scripts run in loops: building the parser of the whole command
/// line takes a tenth of the time of an entry.
fn plain_entry(arguments: &[OsString]) -> Option<Vec<OsString>> {
    let [_, enter, dashes, command @ ..] = arguments else { return None };
    (enter == "enter" && dashes == "--" && !command.is_empty()).then(|| command.to_vec())
}

fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Whoami => whoami::run(context),
        Command::Enter(arguments) => enter::run(context, arguments),
        Command::Namespace(cli::Namespace::Show) => namespace::run(context),
        Command::Port(command) => port::run(context, command),
        Command::User(command) => user::run(context, *command),
        Command::Key(command) => key::run(context, command),
        Command::Trust(command) => trust::run(context, *command),
        Command::Image(command) => image::run(context, *command),
        Command::Service(command) => service::run(context, command),
        Command::Check(command) => check::run(context, *command),
        Command::Audit(arguments) => audit::run(context, arguments),
        Command::Status => status::run(context),
        Command::Completion { shell } => completion(context, shell),
    }
}

fn completion(context: &Context, shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "podsecctl", &mut script);
    context.output.bytes(&script)
}

/// `--socket`, `PODSEC_SOCKET`, or the usual one. A program that runs with more than its caller's rights must not be
/// led to the caller's own socket by his environment.
fn socket(option: Option<PathBuf>) -> PathBuf {
    option
        .or_else(|| {
            let variable = std::env::var_os("PODSEC_SOCKET").filter(|path| !path.is_empty());
            variable.filter(|_| podsec_sys::process::environment_is_trusted()).map(PathBuf::from)
        })
        .unwrap_or_else(|| podsec_policy::config::SOCKET_PATH.into())
}

/// Is `--json` among podsecctl's own arguments? Needed where the command line could not be read.
fn wants_json(arguments: &[OsString]) -> bool {
    let own = arguments.iter().take_while(|argument| *argument != "--" && *argument != "enter");
    own.into_iter().any(|argument| argument == "--json")
}

fn finish(result: Result<u8, Failure>, name: &str, json: bool) -> u8 {
    result.unwrap_or_else(|failure| {
        if !failure.is_quiet() {
            complain(&failure, name, json);
        }
        failure.exit_status()
    })
}

fn complain(failure: &Failure, name: &str, json: bool) {
    output::aside(&if json {
        serde_json::json!({ "error": failure.object() }).to_string()
    } else {
        format!("{name}: {failure}")
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn no_argv_at_all_is_a_usage_error() {
        assert_eq!(main(vec![]), cli::USAGE);
        assert_eq!(main(vec!["".into()]), cli::USAGE);
    }

    #[test]
    fn json_is_ours_only_before_a_command_line_of_somebody_else() {
        assert!(wants_json(&words("podsecctl --json nonsense")));
        assert!(wants_json(&words("podsecctl port add x --json")));
        assert!(!wants_json(&words("podsecctl enter --bad -- kubectl --json")));
        assert!(!wants_json(&words("podsecctl enter jq --json")));
    }

    #[test]
    fn the_short_way_reads_what_the_long_one_does() {
        for line in ["podsecctl enter -- true", "podsecctl enter -- ls -- -l --json --socket /x"] {
            let cli = Cli::try_parse_from(words(line)).unwrap();
            let Command::Enter(enter) = cli.command else { panic!("{line}") };
            assert_eq!(plain_entry(&words(line)), Some(enter.command), "{line}");
            assert!(cli.socket.is_none() && !cli.json && matches!(cli.color, cli::Color::Auto), "{line}");
            assert!(!enter.tty && !enter.no_tty && enter.cwd.is_none() && enter.env.is_empty(), "{line}");
        }
        for line in [
            "podsecctl",
            "podsecctl enter --",
            "podsecctl enter true",
            "podsecctl enter -t -- true",
            "podsecctl --json enter -- true",
            "podsecctl status -- x",
        ] {
            assert_eq!(plain_entry(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn the_option_beats_everything() {
        assert_eq!(socket(Some("/x".into())), PathBuf::from("/x"));
    }
}
