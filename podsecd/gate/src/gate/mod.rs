//! The loop: accept → identify → authorise → audit → spawn → reap.

mod connections;
mod requests;
mod sessions;
mod workers;

use crate::accounts::Accounts;
use crate::audit::{Audit, Open, now};
use crate::child::Child;
use crate::identify::{Caller, Own};
use podsec_policy::Operation;
use podsec_policy::audit::{Phase, Record, escape, hex};
use podsec_policy::config::Config;
use podsec_policy::denials::Denials;
use podsec_policy::operation::Method;
use podsec_policy::peer::Roles;
use podsec_policy::reason::{Code, Reason};
use podsec_policy::rules::{By, Permit, authorize, rule};
use podsec_sys::nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use podsec_sys::nix::sys::signal::Signal;
use podsec_sys::nix::sys::signalfd::SignalFd;
use podsec_sys::{process, socket};
use podsec_wire::messages::{
    Answer, FromFront, FromWorker, Job, Outcome, Recovered, Reply, Step, ToFront, ToWorker,
};
use podsec_wire::session::Attached;
use podsec_wire::{Channel, WireError};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Fronts and workers kept started and waiting, each.
const WARM: usize = 2;
/// Quiet after which the warm ones are made up: a fork would be the delay of whoever is served just now.
const QUIET: Duration = Duration::from_millis(5);
/// For NSS to say whether somebody still is a member; then he is not.
const CHECK: Duration = Duration::from_secs(2);
/// The same, where it is asked before the request is there: that long before it at most.
const FRESH: Duration = Duration::from_millis(100);
/// For a worker that has reported its outcome to end.
const ENDING: Duration = Duration::from_secs(5);
/// For a client to fetch its session, and to send the ticket once connected.
const TICKET: Duration = Duration::from_secs(10);
/// For operations to end when podsecd is told to.
const DRAIN: Duration = Duration::from_secs(5);
/// Accepted at once, before anybody is served. Few, so that whoever is connected does not wait for a flood of others.
const BATCH: usize = 64;

/// Tickets remembered after their session has failed.
const VOID: usize = 64;

/// For a worker to complete or undo what a crash has left half done.
const RECOVERY: Duration = Duration::from_secs(60);

/// The listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC; `None` once podsecd is going down.
    pub requests: Option<OwnedFd>,
    /// Sessions.
    pub attach: OwnedFd,
}

impl Listeners {
    /// # Errors
    /// when they are others than one stream and one packet socket
    pub fn from_systemd(passed: Vec<(socket::Kind, OwnedFd)>) -> io::Result<Self> {
        let (requests, attach): (Vec<_>, Vec<_>) =
            passed.into_iter().partition(|(kind, _)| *kind == socket::Kind::Stream);
        match (<[_; 1]>::try_from(requests), <[_; 1]>::try_from(attach)) {
            (Ok([(_, requests)]), Ok([(_, attach)])) => Ok(Self { requests: Some(requests), attach }),
            _ => {
                Err(io::Error::other("podsecd.socket has one stream and one packet socket, and others came"))
            }
        }
    }
}

/// An epoll event says which of the gate's things it is about.
type Token = u64;
const REQUESTS: Token = 0;
const ATTACH: Token = 1;
const SIGNALS: Token = 2;

/// A connection that has its front.
#[derive(Debug)]
struct Front {
    child: Child,
    caller: Caller,
    /// Has its caller asked for anything?
    asked: bool,
}

#[derive(Debug)]
struct Worker {
    child: Child,
    task: Task,
    deadline: Option<Instant>,
}

/// What a worker is doing. It goes down this list, never up.
#[derive(Debug)]
enum Task {
    /// Loading what looking people up takes, which may hang.
    Starting,
    Warm,
    /// For somebody who has said that he will ask for a session, by one of these roles: has he been found to hold it still?
    Reserved(Roles, bool),
    /// Is the caller still a member?
    Checking {
        request: Request,
        permit: Permit,
    },
    /// The intent is in the audit.
    Running {
        request: Request,
        open: Open,
        session: bool,
        step: Step,
    },
    /// The outcome is in the audit.
    Ending {
        session: bool,
        uid: u32,
    },
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
struct Request {
    front: Token,
    id: u32,
    uid: u32,
}

/// A session that its client has not fetched.
#[derive(Debug)]
struct Ticket {
    worker: Token,
    caller: Caller,
    client: Channel,
    expires: Instant,
}

/// A connection to the attach socket that has not sent its ticket, or waits for the session of a coming request.
#[derive(Debug)]
struct Attaching {
    connection: Channel,
    caller: Caller,
    expires: Instant,
    /// Under which number, and the worker that makes ready for it.
    reserved: Option<(u64, Option<Token>)>,
}

/// A session of an earlier podsecd.
#[derive(Debug)]
struct Orphan {
    open: Open,
    process: OwnedFd,
}

/// All that podsecd is.
#[derive(Debug)]
pub struct Gate {
    config: Config,
    own: Own,
    accounts: Accounts,
    audit: Audit,
    denials: Denials,
    listeners: Listeners,
    signals: SignalFd,
    epoll: Epoll,
    activated: bool,
    started: Instant,
    last_event: Instant,
    /// After a failure to start one.
    make_up_after: Instant,
    next_token: Token,
    waiting: VecDeque<(OwnedFd, Caller)>,
    warm_fronts: Vec<Child>,
    fronts: BTreeMap<Token, Front>,
    workers: BTreeMap<Token, Worker>,
    tickets: BTreeMap<[u8; 32], Ticket>,
    /// The last tickets whose session ended before it was fetched.
    void: VecDeque<[u8; 32]>,
    attaching: BTreeMap<Token, Attaching>,
    orphans: BTreeMap<Token, Orphan>,
    draining: Option<Instant>,
}

impl Gate {
    /// With its listening sockets, before the first connection.
    ///
    /// # Errors
    /// when the audit, the signals or `/proc` are not to be had
    pub fn new(config: Config, listeners: Listeners, activated: bool) -> io::Result<Self> {
        let signals = process::signals(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
        let gate = Self {
            own: Own::read()?,
            accounts: Accounts::new(config.accounts.clone(), config.namespace.state.clone()),
            audit: Audit::open(&config.audit)?,
            denials: Denials::new(config.limits.denials_per_minute),
            signals,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            activated,
            started: Instant::now(),
            last_event: Instant::now(),
            make_up_after: Instant::now(),
            next_token: SIGNALS + 1,
            waiting: VecDeque::new(),
            warm_fronts: Vec::new(),
            fronts: BTreeMap::new(),
            workers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            void: VecDeque::new(),
            attaching: BTreeMap::new(),
            orphans: BTreeMap::new(),
            draining: None,
            listeners,
            config,
        };
        if let Some(requests) = &gate.listeners.requests {
            gate.watch(requests, REQUESTS)?;
        }
        gate.watch(&gate.listeners.attach, ATTACH)?;
        gate.watch(&gate.signals, SIGNALS)?;
        Ok(gate)
    }

    /// Closes the intents that the last podsecd left open: as recovered, or, for a session that goes on, when it
    /// ends.
    ///
    /// # Errors
    /// when the state directory cannot be read
    pub fn recover(&mut self) -> io::Result<()> {
        let left_open = self.audit.left_open()?;
        // Waits for workers of the last podsecd that still are at it, too.
        let recovered = self.recover_changes().unwrap_or_else(|error| {
            eprintln!("podsecd: what a crash left half done waits for the next change: {error}");
            Vec::new()
        });
        for open in left_open.into_iter().filter(|open| !recovered.contains(&open.id)) {
            match process::find(open.worker) {
                Some(process) => {
                    let token = self.token();
                    self.watch(&process, token)?;
                    self.orphans.insert(token, Orphan { open, process });
                }
                // Where it cannot be written, it stays open for the next start.
                None => {
                    if let Err(error) = self.audit.end(&open, &open.record(Phase::Recovered)) {
                        eprintln!("podsecd: {} cannot be recorded as recovered: {error}", open.id);
                    }
                }
            }
        }
        Ok(())
    }

    /// Has a worker complete or undo what a crash has left half done, and waits for it. Gives the ids.
    fn recover_changes(&mut self) -> io::Result<Vec<String>> {
        let child = Child::start("podsecd-worker", &[])?;
        child
            .channel
            .send(&ToWorker::Recover(Box::new(self.config.clone())), &[])
            .map_err(io::Error::other)?;
        let mut ids = Vec::new();
        while let Some((message, _)) = child.channel.receive_within(RECOVERY).map_err(io::Error::other)? {
            if let FromWorker::Recovered(change) = message {
                ids.push(change.id.clone());
                self.recovered(*change);
            }
        }
        Ok(ids)
    }

    /// Serves until it is told to end, or has had nothing to do for long enough.
    ///
    /// # Errors
    /// epoll_wait(2)
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Err(podsec_sys::nix::Error::EINTR) => 0,
                result => result?,
            };
            if count > 0 {
                self.last_event = Instant::now();
            }
            for event in events.iter().take(count) {
                self.handle(event.data());
            }
            self.expire();
            self.serve_waiting();
            if count == 0 {
                self.make_up_warm();
            }
            if self.is_over() {
                for record in self.denials.flush() {
                    let _ = self.audit.append(&record);
                }
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        self.next_token
    }

    fn watch(&self, fd: &impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    fn handle(&mut self, token: Token) {
        match token {
            REQUESTS => self.accept_requests(),
            ATTACH => self.accept_attach(),
            SIGNALS => self.signals(),
            _ if self.fronts.contains_key(&token) => self.hear_front(token),
            _ if self.workers.contains_key(&token) => self.hear_worker(token),
            _ if self.attaching.contains_key(&token) => self.hear_attaching(token),
            _ => self.orphan_ended(token),
        }
    }

    // ---- time and signals

    fn signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => process::reap(),
                // The audit finds out by itself that its file was renamed.
                Ok(Ok(Signal::SIGHUP)) => {}
                _ => {
                    // No new connection: who calls now waits for the next podsecd. Those who are in are served to the
                    // end, and sessions go on without us. Not merely closed, since systemd has the socket open too and
                    // epoll would go on reporting it.
                    if let Some(requests) = self.listeners.requests.take() {
                        let _ = self.epoll.delete(requests);
                    }
                    self.draining.get_or_insert(Instant::now() + DRAIN);
                }
            }
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let late: Vec<Token> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.deadline.is_some_and(|deadline| deadline <= now))
            .map(|(&token, _)| token)
            .collect();
        for token in late {
            self.lost(token, Reason::Deadline);
        }
        // Dropping the client's end tells the worker that nobody comes.
        self.tickets.retain(|_, ticket| ticket.expires > now);
        self.attaching.retain(|_, attaching| attaching.expires > now);
        for record in self.denials.due(now) {
            if self.audit.append(&record).is_err() {
                self.denials.unwritten(record, now);
            }
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let now = Instant::now();
        if !self.waiting.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = self.workers.values().filter_map(|worker| worker.deadline);
        let tickets = self.tickets.values().map(|ticket| ticket.expires);
        let attaching = self.attaching.values().map(|attaching| attaching.expires);
        let lacks = self.warm_workers().min(self.warm_fronts.len()) < WARM && self.draining.is_none();
        let make_up = lacks.then(|| self.make_up_at().max(self.make_up_after));
        let idle = self.idle_since().map(|since| since + Duration::from_secs(self.config.limits.idle_exit));
        let others = [make_up, idle, self.draining, self.denials.next()].into_iter().flatten();
        let Some(next) = deadlines.chain(tickets).chain(attaching).chain(others).min() else {
            return EpollTimeout::NONE;
        };
        // Up to the next whole millisecond, so as not to wake before the deadline and spin.
        let left = next.saturating_duration_since(now) + Duration::from_micros(999);
        EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
    }

    /// Since when there has been nothing to do; `None` while there is, or if podsecd must not end by itself.
    fn idle_since(&self) -> Option<Instant> {
        let busy = !self.fronts.is_empty()
            || !self.waiting.is_empty()
            || !self.attaching.is_empty()
            || !self.orphans.is_empty()
            || self.workers.values().any(|worker| !worker.task.is_none());
        (self.activated && self.config.limits.idle_exit > 0 && !busy).then_some(self.last_event)
    }

    fn is_over(&self) -> bool {
        let now = Instant::now();
        if let Some(deadline) = self.draining {
            let busy = self.workers.values().any(|worker| match &worker.task {
                Task::Starting | Task::Warm | Task::Reserved(..) | Task::Ending { .. } => false,
                Task::Checking { .. } => true,
                Task::Running { session, step, .. } => !session || *step != Step::Run,
            });
            let expected = !self.waiting.is_empty()
                || !self.tickets.is_empty()
                || self.fronts.values().any(|front| !front.asked);
            return !(busy || expected) || deadline <= now;
        }
        let idle = Duration::from_secs(self.config.limits.idle_exit);
        self.idle_since().is_some_and(|since| now.duration_since(since) >= idle)
    }
}

impl Task {
    fn is_none(&self) -> bool {
        matches!(self, Self::Starting | Self::Warm)
    }

    /// Is it work, is it a session, and whose?
    fn load(&self) -> Option<(bool, u32)> {
        match self {
            Self::Starting | Self::Warm | Self::Reserved(..) => None,
            Self::Checking { request, permit } => {
                Some((permit.operation().method() == Method::Enter, request.uid))
            }
            Self::Running { session, open, .. } => Some((*session, open.uid)),
            Self::Ending { session, uid } => Some((*session, *uid)),
        }
    }
}
