//! The client's end of a session (docs/session.md): frames, signals and the caller's terminal, in one loop.
//!
//! Without a terminal the program inside has the caller's own descriptors, and nothing is copied. A terminal of the
//! caller's is never given away: whoever holds it could type into it (`TIOCSTI`, ioctl_tty(2)), so its bytes are
//! copied, to and from the session's own terminal, or pipes where the session has none.

mod pump;
mod raw;

use crate::enter::Asked;
use crate::failure::Failure;
use crate::output::clean;
use podsec_policy::enter::Window;
use podsec_sys::nix::errno::Errno;
use podsec_sys::nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use podsec_sys::nix::sys::signal::{self, Signal};
use podsec_sys::nix::sys::signalfd::SignalFd;
use podsec_wire::session::{self as wire, FromClient, ToClient};
use podsec_wire::{Channel, WireError};
use pump::Pump;
use raw::Raw;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Signals that are answered here instead of ending or stopping the program.
const SIGNALS: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// How long the connection is kept once the program runs: most programs are over sooner, and taking it down would only
/// compete with them for a processor.
const LINGER: Duration = Duration::from_millis(100);

/// Size of the caller's window; 24 × 80 where no terminal says its own.
#[must_use]
pub fn window() -> Option<Window> {
    fn of(fd: &(impl AsFd + IsTerminal)) -> Option<Window> {
        let (rows, columns) = podsec_sys::terminal::size(fd).ok().filter(|_| fd.is_terminal())?;
        Window::new(rows.into(), columns.into()).ok()
    }
    let known = of(&io::stdout()).or_else(|| of(&io::stdin())).or_else(|| of(&io::stderr()));
    known.or_else(|| Window::new(24, 80).ok())
}

/// A session that was fetched.
pub struct Session {
    channel: Channel,
    /// Until the program runs; a connection is of no more use then, and counts.
    asked: Option<Asked>,
    /// When it goes, once the program runs.
    hang_up: Option<Instant>,
    signals: SignalFd,
    has_terminal: bool,
    /// Of the session's terminal.
    leader: Option<OwnedFd>,
    raw: Option<Raw>,
    input: Option<Pump>,
    outputs: Vec<Pump>,
    /// Reads still made after the program's end: more than any pipe or terminal holds, but not what a program that
    /// it left behind goes on writing.
    left_over: usize,
}

/// What poll(2) can be about.
#[derive(Clone, Copy)]
enum Ready {
    Frame,
    Signal,
    Input,
    Output(usize),
}

fn local(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Local(what, error)
}

impl Session {
    /// Asks the worker to start: with the caller's descriptors, or for a terminal.
    ///
    /// # Errors
    /// [`Failure::Local`], [`Failure::Lost`]
    pub fn open(channel: Channel, has_terminal: bool, asked: Asked) -> Result<Self, Failure> {
        let signals = podsec_sys::process::signals(&SIGNALS).map_err(local("signals"))?;
        let mut session = Self {
            channel,
            asked: Some(asked),
            hang_up: None,
            signals,
            has_terminal,
            leader: None,
            raw: None,
            input: None,
            outputs: Vec::new(),
            left_over: 1024,
        };
        let opened = if has_terminal {
            session.say_open(&[])
        } else {
            session.open_with_own().map_err(local("standard input, output and error"))?
        };
        opened.map_err(|failure| session.why(failure))?;
        session.channel.set_nonblocking().map_err(local("the session"))?;
        Ok(session)
    }

    fn say_open(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        self.channel.send(&FromClient::Open, descriptors).map_err(|error| lost(&error))
    }

    fn open_with_own(&mut self) -> io::Result<Result<(), Failure>> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        // The ends that go away; ours are closed at the end of this function, so that end of file gets through.
        let mut given: [Option<OwnedFd>; 3] = [None, None, None];
        let [input, output, error] = &mut given;
        if stdin.is_terminal() {
            let (reader, writer) = io::pipe()?;
            *input = Some(reader.into());
            self.input = Some(Pump::new(pump::standard(&stdin, false)?, pump::nonblocking(writer.into())?));
        }
        let mut copied = |terminal: io::Result<std::fs::File>| -> io::Result<Option<OwnedFd>> {
            let (reader, writer) = io::pipe()?;
            self.outputs.push(Pump::new(pump::nonblocking(reader.into())?, terminal?));
            Ok(Some(writer.into()))
        };
        if stdout.is_terminal() {
            *output = copied(pump::standard(&stdout, true))?;
        }
        if stderr.is_terminal() {
            *error = copied(pump::standard(&stderr, true))?;
        }
        fn or<'a>(given: &'a Option<OwnedFd>, own: BorrowedFd<'a>) -> BorrowedFd<'a> {
            given.as_ref().map_or(own, OwnedFd::as_fd)
        }
        Ok(self.say_open(&[or(input, stdin.as_fd()), or(output, stdout.as_fd()), or(error, stderr.as_fd())]))
    }

    /// Serves the session until it ends, and gives its exit status.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn run(mut self) -> Result<u8, Failure> {
        let ended = self.serve().map_err(|failure| self.why(failure));
        // The end of this process takes the connection down sooner.
        std::mem::forget(self.asked.take());
        ended
    }

    /// A worker that ends before the program runs has told podsecd why.
    fn why(&mut self, failure: Failure) -> Failure {
        match (failure, self.asked.take()) {
            (Failure::Lost, Some(mut asked)) if self.hang_up.is_none() => asked.why(Failure::Lost),
            (failure, _) => failure,
        }
    }

    fn serve(&mut self) -> Result<u8, Failure> {
        let mut ended = None;
        loop {
            let ready = self.wait(ended.is_some())?;
            if let (Some(status), true) = (ended, ready.is_empty()) {
                return Ok(status);
            }
            if self.hang_up.is_some_and(|at| at <= Instant::now()) {
                (self.asked, self.hang_up) = (None, None);
            }
            for what in ready {
                match what {
                    Ready::Frame => ended = self.frame()?,
                    Ready::Signal => {
                        if let Some(status) = self.signal()? {
                            return Ok(ended.unwrap_or(status));
                        }
                    }
                    Ready::Input => {
                        if let Some(status) = self.input() {
                            return Ok(status);
                        }
                    }
                    Ready::Output(index) => self.output(index, ended.is_some())?,
                }
            }
        }
    }

    /// Waits for something to do. After the program's end only what it left in pipe or terminal is still copied:
    /// programs that it left behind may hold them open for ever.
    fn wait(&self, ended: bool) -> Result<Vec<Ready>, Failure> {
        let mut what = vec![Ready::Signal];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let mut add = |ready, (fd, flags)| {
            what.push(ready);
            fds.push(PollFd::new(fd, flags));
        };
        if !ended {
            add(Ready::Frame, (self.channel.as_fd(), PollFlags::POLLIN));
            if let Some(waits) = self.input.as_ref().and_then(Pump::waits_for) {
                add(Ready::Input, waits);
            }
        }
        for (index, pump) in self.outputs.iter().enumerate() {
            let enough = ended && self.left_over == 0 && !pump.holds_some();
            if let Some(waits) = pump.waits_for().filter(|_| !enough) {
                add(Ready::Output(index), waits);
            }
        }
        let drained = ended && !self.outputs.iter().any(Pump::holds_some);
        let left =
            self.hang_up.map(|at| at.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = match left {
            _ if drained => PollTimeout::ZERO,
            Some(left) => left.try_into().unwrap_or(PollTimeout::ZERO),
            None => PollTimeout::NONE,
        };
        while let Err(error) = poll(&mut fds, timeout) {
            if error != Errno::EINTR {
                return Err(Failure::Local("poll", error.into()));
            }
        }
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(what.into_iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|(what, _)| what).collect())
    }

    /// Takes a frame of the worker's; the exit status when it was the last one.
    fn frame(&mut self) -> Result<Option<u8>, Failure> {
        let (frame, descriptors) = match self.channel.receive() {
            Ok(Some(received)) => received,
            Ok(None) => return Err(Failure::Lost),
            Err(error) if error.would_block() => return Ok(None),
            Err(error) => return Err(lost(&error)),
        };
        match frame {
            ToClient::Terminal => {
                self.leader = descriptors.into_iter().next();
                Ok(None)
            }
            ToClient::Started => {
                self.hang_up = Some(Instant::now() + LINGER);
                if self.has_terminal {
                    let leader =
                        self.leader.as_ref().ok_or(Failure::Nonsense("a session without its terminal"))?;
                    let copy = leader.try_clone().map_err(local("the terminal"))?;
                    self.use_terminal(copy).map_err(local("the terminal"))?;
                }
                Ok(None)
            }
            ToClient::Failed { reason, detail } => Err(Failure::Known { reason, detail: clean(&detail) }),
            ToClient::Exited(exit) => Ok(Some(u8::try_from(exit.status()).unwrap_or(u8::MAX))),
        }
    }

    fn use_terminal(&mut self, leader: OwnedFd) -> io::Result<()> {
        let stdin = io::stdin();
        let from_leader = pump::nonblocking(leader)?;
        let to_leader = from_leader.try_clone()?;
        let typed = pump::standard(&stdin, false)?;
        if stdin.is_terminal() {
            self.raw = Some(Raw::enter(&stdin)?);
            self.input = Some(Pump::new(typed, to_leader));
        } else {
            self.input = Some(Pump::typing_end(typed, to_leader));
        }
        self.outputs.push(Pump::new(from_leader, pump::standard(&io::stdout(), true)?));
        // It may have changed since it was asked for, when nobody listened to SIGWINCH yet.
        self.resize();
        Ok(())
    }

    /// Gives the session's terminal the size of the caller's; its kernel tells the programs on it.
    fn resize(&self) {
        if let (Some(leader), Some(window)) = (&self.leader, window()) {
            // Of no consequence: the next change tries again.
            let _ = podsec_sys::terminal::resize(leader, window.rows(), window.columns());
        }
    }

    fn send(&self, signal: wire::Signal) {
        // If it cannot be told, the session is about to be seen as lost.
        let _ = self.channel.send(&FromClient::Signal(signal), &[]);
    }

    /// Copies what was typed; an exit status when the caller's terminal is gone.
    fn input(&mut self) -> Option<u8> {
        let pump = self.input.as_mut()?;
        pump.step();
        if pump.waits_for().is_some() {
            return None;
        }
        // A raw terminal has no end of file: it hung up, and not every program gets a SIGHUP for that.
        let hung_up = self.raw.is_some() && pump.take_broken().is_none();
        self.input = None;
        hung_up.then_some(128 + Signal::SIGHUP as u8)
    }

    fn output(&mut self, index: usize, ended: bool) -> Result<(), Failure> {
        let Some(pump) = self.outputs.get_mut(index) else { return Ok(()) };
        if ended && !pump.holds_some() {
            self.left_over = self.left_over.saturating_sub(1);
        }
        pump.step();
        match pump.take_broken() {
            // Nobody sees the session's terminal any more. A pipe's end the program itself is told of.
            Some(error) if self.has_terminal => Err(Failure::Output(error)),
            _ => Ok(()),
        }
    }

    /// Answers a signal; an exit status when it ends the program.
    fn signal(&mut self) -> Result<Option<u8>, Failure> {
        let failed = |error: Errno| Failure::Local("signals", error.into());
        while let Some(info) = self.signals.read_signal().map_err(failed)? {
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            let Ok(signal) = Signal::try_from(number) else { continue };
            // On a terminal the keys for them go to the session as bytes; what comes as a signal is meant for us. Also
            // before Started is read: the program may run already, and the worker takes them in their order.
            let forwards = !self.has_terminal;
            match signal {
                Signal::SIGWINCH => self.resize(),
                Signal::SIGTSTP => {
                    if forwards {
                        self.send(wire::Signal::Tstp);
                    }
                    self.raw = None;
                    signal::raise(Signal::SIGSTOP).map_err(failed)?;
                }
                Signal::SIGCONT if forwards => self.send(wire::Signal::Cont),
                Signal::SIGCONT => {
                    // Whoever had the terminal meanwhile may have set it as he needed it.
                    let runs = !self.outputs.is_empty();
                    if runs && io::stdin().is_terminal() {
                        self.raw = None;
                        self.raw = Some(Raw::enter(&io::stdin()).map_err(local("the terminal"))?);
                    }
                    self.resize();
                }
                _ => match sendable(signal) {
                    Some(signal) if forwards => self.send(signal),
                    _ => return Ok(Some(u8::try_from(128 + number).unwrap_or(u8::MAX))),
                },
            }
        }
        Ok(None)
    }
}

fn sendable(signal: Signal) -> Option<wire::Signal> {
    match signal {
        Signal::SIGHUP => Some(wire::Signal::Hup),
        Signal::SIGINT => Some(wire::Signal::Int),
        Signal::SIGQUIT => Some(wire::Signal::Quit),
        Signal::SIGTERM => Some(wire::Signal::Term),
        Signal::SIGUSR1 => Some(wire::Signal::Usr1),
        Signal::SIGUSR2 => Some(wire::Signal::Usr2),
        _ => None,
    }
}

fn lost(error: &WireError) -> Failure {
    match error {
        WireError::Io(_) => Failure::Lost,
        WireError::Form(_) | WireError::Length(_) => Failure::Nonsense("a frame of the session"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::Reason;
    use podsec_wire::session::{Attached, Exit};

    /// The bytes of a frame, as the documentation writes them.
    fn bytes(frame: &impl serde::Serialize) -> String {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(frame, &[]).unwrap();
        let mut buffer = [0; 64];
        let (length, _) = podsec_sys::socket::receive(&theirs, &mut buffer).unwrap();
        buffer[..length].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn frames_are_as_documented() {
        let document = include_str!("../../../docs/session.md");
        let says = |text: String| assert!(document.contains(&text), "docs/session.md does not say: {text}");
        says(format!("| client | `{}` | Open", bytes(&FromClient::Open)));
        says(format!("| worker | `{}` | Terminal", bytes(&ToClient::Terminal)));
        says(format!("| worker | `{}` | Started", bytes(&ToClient::Started)));
        let code = bytes(&ToClient::Exited(Exit::Code(0xcc)));
        says(format!("| worker | `{}` | Exited with code", code.to_uppercase()));
        let signal = bytes(&ToClient::Exited(Exit::Signal(9)));
        says(format!("| worker | `{}` | Exited by signal", signal.replace("09", "NN")));
        let failed = bytes(&ToClient::Failed { reason: Reason::ALL[9], detail: "ab".into() });
        assert_eq!(failed, "02 09 02 61 62", "02 RR LL …");
        for (index, name) in
            ["HUP", "INT", "QUIT", "TERM", "KILL", "USR1", "USR2", "TSTP", "CONT"].iter().enumerate()
        {
            says(format!("`01 {index:02x}` {name}"));
        }
        assert_eq!(bytes(&FromClient::Signal(wire::Signal::Hup)), "01 00");
        assert_eq!(bytes(&FromClient::Signal(wire::Signal::Cont)), "01 08");
        says(format!("`{}`: the session's own socket", bytes(&Attached::Session)));
        says(format!("`{}`: refused", bytes(&Attached::Refused)));
    }

    #[test]
    fn signals_have_their_names() {
        for signal in SIGNALS {
            let by_name = sendable(signal).map(|sent| format!("SIG{}", format!("{sent:?}").to_uppercase()));
            let handled_apart = matches!(signal, Signal::SIGTSTP | Signal::SIGCONT | Signal::SIGWINCH);
            assert_eq!(by_name, (!handled_apart).then(|| signal.as_str().to_owned()));
        }
    }
}
