//! `podsecctl enter`: asks for a session, fetches it, and hands over to [`crate::session`].

use crate::Context;
use crate::cli;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::session::{self, Session};
use podsec_policy::enter::{Enter, EnvVar, Program, Window};
use podsec_proto::v1::{self, enter_request};
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

pub fn run(context: &Context, arguments: cli::Enter) -> Result<u8, Failure> {
    let both = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let window = (arguments.tty || (!arguments.no_tty && both())).then(session::window).flatten();
    let request = request(arguments, window, |name| std::env::var_os(name), std::env::vars_os())?;
    let daemon = Daemon::connect(&context.socket)?;
    let mut answers = daemon.ask(daemon.namespace().enter(request))?;
    let answer = daemon.next(&mut answers)?.ok_or(Failure::Nonsense("an answer without a ticket"))?;
    let ticket =
        answer.ticket.as_slice().try_into().map_err(|_| Failure::Nonsense("a ticket of another length"))?;
    let asked = Asked { daemon, answers };
    // The worker goes in while this fetches the session.
    match podsec_wire::session::attach(Path::new(&answer.attach_socket), ticket) {
        Ok(channel) => Session::open(channel, window.is_some(), asked)?.run(),
        Err(_) => Err(asked.why(Failure::Ticket)),
    }
}

/// The request, to which podsecd tells what goes wrong until the program runs.
pub struct Asked {
    daemon: Daemon,
    answers: tonic::Streaming<v1::EnterResponse>,
}

impl Asked {
    /// Why there is no session, if podsecd knows better.
    pub fn why(mut self, seen: Failure) -> Failure {
        self.daemon.next(&mut self.answers).err().unwrap_or(seen)
    }
}

/// Checks with the same types as podsecd, so that what it would refuse fails here, before anything is sent.
fn request(
    arguments: cli::Enter,
    window: Option<Window>,
    variable: impl Fn(&OsStr) -> Option<OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<v1::EnterRequest, Failure> {
    let invalid = |error: podsec_policy::enter::EnterError| Failure::Usage(error.to_string());
    let program = match arguments.command {
        command if command.is_empty() => Program::LoginShell,
        command => Program::Command(command.into_iter().map(OsString::into_vec).collect()),
    };
    let mut variables = Vec::new();
    for option in &arguments.env {
        variables.push(explicit(option, &variable)?);
    }
    let terminal_only = |name: &str| matches!(name, "TERM" | "COLORTERM");
    for (name, value) in environment {
        // One that podsecd would refuse was not asked for, so it is no error; it stays here.
        let Ok(variable) = EnvVar::new(name.into_string().unwrap_or_default(), value.into_vec()) else {
            continue;
        };
        let name = variable.name();
        let wanted = EnvVar::is_customary(name) && (window.is_some() || !terminal_only(name));
        if wanted && variables.iter().all(|other| other.name() != name) {
            variables.push(variable);
        }
    }
    let enter =
        Enter::new(program, arguments.cwd.map(OsString::into_vec), variables, window).map_err(invalid)?;
    Ok(message(&enter))
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
fn explicit(option: &OsStr, variable: impl Fn(&OsStr) -> Option<OsString>) -> Result<EnvVar, Failure> {
    let bytes = option.as_bytes();
    let (name, value) =
        match bytes.iter().position(|&byte| byte == b'=').and_then(|at| bytes.split_at_checked(at)) {
            Some((name, value)) => (name, Some(value.iter().skip(1).copied().collect())),
            None => (bytes, None),
        };
    let text = String::from_utf8_lossy(name).into_owned();
    // A name that is none is told of before the lack of a value.
    EnvVar::new(text.clone(), "").map_err(|error| Failure::Usage(error.to_string()))?;
    let here = || variable(OsStr::from_bytes(name)).map(OsString::into_vec);
    let value: Vec<u8> = value.or_else(here).ok_or_else(|| {
        Failure::Usage(format!("variable {text:?} is not set here; give it a value: --env {text}=VALUE"))
    })?;
    EnvVar::new(text, value).map_err(|error| Failure::Usage(error.to_string()))
}

fn message(enter: &Enter) -> v1::EnterRequest {
    let program = match enter.program() {
        Program::LoginShell => enter_request::Program::LoginShell(v1::LoginShell {}),
        Program::Command(argv) => enter_request::Program::Command(v1::Command { argv: argv.clone() }),
    };
    let variable = |it: &EnvVar| v1::EnvVar { name: it.name().to_owned(), value: it.value().to_vec() };
    v1::EnterRequest {
        program: Some(program),
        cwd: enter.directory().map(<[u8]>::to_vec).unwrap_or_default(),
        env: enter.environment().iter().map(variable).collect(),
        terminal: enter
            .terminal()
            .map(|it| v1::Terminal { rows: it.rows().into(), columns: it.columns().into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        arguments: cli::Enter,
        window: Option<Window>,
        here: &[(&str, &str)],
    ) -> Result<v1::EnterRequest, Failure> {
        let here: Vec<(OsString, OsString)> = here.iter().map(|(n, v)| (n.into(), v.into())).collect();
        let variable =
            |name: &OsStr| here.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
        request(arguments, window, variable, here.clone().into_iter())
    }

    fn with_env(env: &[&str]) -> cli::Enter {
        cli::Enter { env: env.iter().map(OsString::from).collect(), ..cli::Enter::default() }
    }

    fn names(request: &v1::EnterRequest) -> Vec<String> {
        let show = |it: &v1::EnvVar| format!("{}={}", it.name, String::from_utf8_lossy(&it.value));
        request.env.iter().map(show).collect()
    }

    const HERE: &[(&str, &str)] = &[
        ("TERM", "xterm"),
        ("LANG", "C.UTF-8"),
        ("LC_TIME", "de_DE"),
        ("LC_BAD-NAME", "x"),
        ("LD_PRELOAD", "/evil.so"),
        ("SECRET", "hidden"),
    ];

    #[test]
    fn sends_language_always_and_the_kind_of_terminal_with_one() {
        let request = ask(cli::Enter::default(), None, HERE).unwrap();
        assert_eq!(names(&request), ["LANG=C.UTF-8", "LC_TIME=de_DE"]);
        assert!(matches!(request.program, Some(enter_request::Program::LoginShell(_))));
        assert!(request.terminal.is_none() && request.cwd.is_empty());
        let request = ask(cli::Enter::default(), Window::new(24, 80).ok(), HERE).unwrap();
        assert_eq!(names(&request), ["TERM=xterm", "LANG=C.UTF-8", "LC_TIME=de_DE"]);
        assert_eq!(request.terminal, Some(v1::Terminal { rows: 24, columns: 80 }));
    }

    #[test]
    fn explicit_variables_come_first_and_win() {
        let request = ask(with_env(&["LANG=fr_FR", "SECRET", "EMPTY=", "A=b=c"]), None, HERE).unwrap();
        assert_eq!(names(&request), ["LANG=fr_FR", "SECRET=hidden", "EMPTY=", "A=b=c", "LC_TIME=de_DE"]);
    }

    #[test]
    fn refuses_what_podsecd_would_refuse_and_says_what() {
        for (env, part) in [
            (&["NOT_HERE"][..], "not set here"),
            (&["LD_PRELOAD=/x"], "sets or clears this one itself"),
            (&["LD_PRELOAD"], "sets or clears this one itself"),
            (&["=x"], "starts with a letter"),
            (&["A B=x"], "only letters"),
            (&["A=1", "A=2"], "given twice"),
        ] {
            let failure = ask(with_env(env), None, HERE).unwrap_err();
            assert!(failure.to_string().contains(part) && failure.exit_status() == 2, "{env:?}: {failure}");
        }
        let relative = cli::Enter { cwd: Some("tmp".into()), ..cli::Enter::default() };
        assert!(ask(relative, None, &[]).unwrap_err().to_string().contains("not an absolute path"));
        let empty = cli::Enter { command: vec!["".into()], ..cli::Enter::default() };
        assert!(ask(empty, None, &[]).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn arguments_go_as_they_are() {
        let odd = OsString::from_vec(b"\xff\n -".to_vec());
        let arguments =
            cli::Enter { command: vec!["sh".into(), odd], cwd: Some("/tmp".into()), ..cli::Enter::default() };
        let request = ask(arguments, None, &[]).unwrap();
        let expected = v1::Command { argv: vec![b"sh".to_vec(), b"\xff\n -".to_vec()] };
        assert_eq!(request.program, Some(enter_request::Program::Command(expected)));
        assert_eq!(request.cwd, b"/tmp");
    }
}
