//! `podsecctl enter`: asks for a session, fetches it, and hands over to [`crate::session`].

use crate::Context;
use crate::cli;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::session::{self, Session};
use podsec_policy::enter::{Enter, EnvVar, Program, Window};
use podsec_proto::v1::{self, enter_request};
use podsec_wire::Channel;
use podsec_wire::session as wire;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::pin::Pin;
use tonic::Status;

pub fn run(context: &Context, arguments: cli::Enter) -> Result<u8, Failure> {
    // First of all: podsecd makes ready while the request is written.
    let reserved = reserve(&context.socket);
    let both = || std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let window = (arguments.tty || (!arguments.no_tty && both())).then(session::window).flatten();
    let request = request(arguments, window, |name| std::env::var_os(name), std::env::vars_os())?;
    let reservation = if reserved.is_some() { NUMBER } else { 0 };
    let daemon = Daemon::connect(&context.socket)?;
    let mut service = daemon.namespace();
    let call = async move { service.enter(v1::EnterRequest { reservation, ..request }).await };
    let mut asked = Asked { daemon, answers: Answers::Coming(Box::pin(call)) };
    let channel = asked.fetch(reserved)?;
    Session::open(channel, window.is_some(), asked)?.run()
}

/// The one session that this process asks for.
const NUMBER: u64 = 1;

/// Tells podsecd that a request is coming. Only where its other socket is beside the one that was named, and root's; else
/// the request's answer says where the session is to be fetched.
fn reserve(socket: &Path) -> Option<Channel> {
    let gate = wire::reserve(&socket.with_file_name("attach.sock"), NUMBER).ok()?;
    podsec_sys::socket::peer_credentials(&gate).is_ok_and(|peer| peer.uid == 0).then_some(gate)
}

/// The request, to which podsecd tells what goes wrong until the program runs.
pub struct Asked {
    daemon: Daemon,
    answers: Answers,
}

type Stream = tonic::Streaming<v1::EnterResponse>;

enum Answers {
    Coming(Pin<Box<dyn Future<Output = Result<tonic::Response<Stream>, Status>>>>),
    Come(Box<Stream>),
}

impl Answers {
    /// The next one; not to be asked again after an error.
    async fn next(&mut self) -> Result<Option<v1::EnterResponse>, Status> {
        if let Self::Coming(call) = self {
            *self = Self::Come(Box::new(call.await?.into_inner()));
        }
        match self {
            Self::Come(stream) => stream.message().await,
            Self::Coming(_) => Ok(None),
        }
    }
}

impl Asked {
    /// The session: on the reservation, or by the ticket of the answer where podsecd had no use for that.
    fn fetch(&mut self, mut reserved: Option<Channel>) -> Result<Channel, Failure> {
        let nonsense = Failure::Nonsense("an answer without a ticket");
        let came = loop {
            let gate = reserved.as_ref().map(AsFd::as_fd);
            match (self.daemon.ask_beside(self.answers.next(), gate)?, &reserved) {
                (None, Some(gate)) => match wire::receive(gate) {
                    Ok(session) => return Ok(session),
                    Err(_) => reserved = None,
                },
                (Some(Some(answer)), _) if !answer.ticket.is_empty() => {
                    let ticket = answer.ticket.as_slice().try_into();
                    let ticket = ticket.map_err(|_| Failure::Nonsense("a ticket of another length"))?;
                    break wire::attach(Path::new(&answer.attach_socket), ticket);
                }
                (Some(Some(_)), Some(gate)) => break wire::receive(gate),
                _ => return Err(nonsense),
            }
        };
        came.map_err(|_| self.why(Failure::Ticket))
    }

    /// Why there is no session, if podsecd knows better.
    pub fn why(&mut self, seen: Failure) -> Failure {
        loop {
            match self.daemon.wait(self.answers.next()) {
                // The ticket, or that there is none.
                Ok(Some(_)) => {}
                Ok(None) => return seen,
                Err(why) => return why,
            }
        }
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
        reservation: enter.reservation(),
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
