//! The loop: accept → identify → authorise → audit → spawn → reap.

use crate::accounts::Accounts;
use crate::audit::{Audit, Open, denial, now};
use crate::child::{self, Child};
use crate::denials::Denials;
use crate::identify::{Caller, Own};
use crate::notify::Listeners;
use podsec_policy::audit::{Phase, Record, escape, hex};
use podsec_policy::config::Config;
use podsec_policy::operation::Method;
use podsec_policy::peer::Roles;
use podsec_policy::reason::Reason;
use podsec_policy::rules::{By, Permit, authorize};
use podsec_policy::{Operation, Role};
use podsec_sys::nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use podsec_sys::nix::sys::signal::Signal;
use podsec_sys::nix::sys::signalfd::SignalFd;
use podsec_sys::{process, socket};
use podsec_wire::messages::{
    Answer, FromFront, FromWorker, Job, Outcome, SessionJob, Step, ToFront, ToWorker,
};
use podsec_wire::session::Attached;
use podsec_wire::{Channel, WireError};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Fronts and workers kept started and waiting, each.
const WARM: usize = 2;
/// Quiet after which the warm ones are made up: a fork in the middle of a request would be that request's delay.
const QUIET: Duration = Duration::from_millis(3);
/// For NSS to say whether somebody still is a member; then he is not.
const CHECK: Duration = Duration::from_secs(2);
/// For an operation, and for a session until its program runs.
const OPERATION: Duration = Duration::from_secs(10);
/// For a worker that has reported its outcome to end.
const ENDING: Duration = Duration::from_secs(5);
/// For a client to fetch its session, and to send the ticket once connected.
const TICKET: Duration = Duration::from_secs(10);
/// For operations to end when podsecd is told to.
const DRAIN: Duration = Duration::from_secs(5);
/// Accepted at once, before anybody is served.
const BATCH: usize = 128;

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
    Warm,
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
    caller: Caller,
    client: Channel,
    expires: Instant,
}

/// A connection to the attach socket that has not sent its ticket.
#[derive(Debug)]
struct Attaching {
    connection: Channel,
    caller: Caller,
    expires: Instant,
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
    listeners: Option<Listeners>,
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
            accounts: Accounts::new(config.accounts.clone()),
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
            attaching: BTreeMap::new(),
            orphans: BTreeMap::new(),
            draining: None,
            listeners: None,
            config,
        };
        gate.watch(&listeners.requests, REQUESTS)?;
        gate.watch(&listeners.attach, ATTACH)?;
        gate.watch(&gate.signals, SIGNALS)?;
        Ok(Self { listeners: Some(listeners), ..gate })
    }

    /// Closes the intents that the last podsecd left open: as recovered, or, for a session that goes on, when it
    /// ends.
    ///
    /// # Errors
    /// when the state directory cannot be read or the audit cannot be written
    pub fn recover(&mut self) -> io::Result<()> {
        for open in self.audit.left_open()? {
            match child::find(open.worker) {
                Some(process) => {
                    let token = self.token();
                    self.watch(&process, token)?;
                    self.orphans.insert(token, Orphan { open, process });
                }
                None => self.audit.end(&open, &open.record(Phase::Recovered))?,
            }
        }
        Ok(())
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

    // ---- connections

    fn accept_requests(&mut self) {
        for _ in 0..BATCH {
            let Some((connection, caller)) = self.accept(|listeners| &listeners.requests) else { return };
            let of_uid = self.connections_of(caller.peer.uid);
            let all = self.fronts.len() + self.waiting.len();
            if of_uid >= self.config.limits.connections_per_uid || all >= self.config.limits.connections {
                // Closed without a word: a word would cost a front. The client knows what this means.
                self.deny(&caller, "", String::new(), Reason::ConnectionLimit);
                continue;
            }
            self.waiting.push_back((connection, caller));
        }
    }

    fn accept(&mut self, which: impl FnOnce(&Listeners) -> &OwnedFd) -> Option<(OwnedFd, Caller)> {
        match socket::accept(which(self.listeners.as_ref()?)) {
            Ok(connection) => {
                let caller = Caller::identify(&connection, &self.own, self.config.pidfd);
                Some((connection, caller))
            }
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) {
                    // EMFILE, ENFILE, ENOMEM: whoever waits goes on waiting, and the loop must not spin meanwhile.
                    eprintln!("podsecd: a connection cannot be accepted: {error}");
                    std::thread::sleep(Duration::from_millis(20));
                }
                None
            }
        }
    }

    fn connections_of(&self, uid: u32) -> usize {
        let callers = self.fronts.values().map(|front| &front.caller);
        let waiting = self.waiting.iter().map(|(_, caller)| caller);
        let attaching = self.attaching.values().map(|attaching| &attaching.caller);
        callers.chain(waiting).chain(attaching).filter(|caller| caller.peer.uid == uid).count()
    }

    /// Gives waiting connections their fronts; first to whom has the fewest, so that nobody waits behind a flood.
    fn serve_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let cold = self.warm_fronts.is_empty();
            let front = match self.warm_fronts.pop() {
                Some(front) => front,
                None => match self.start_front() {
                    Ok(front) => front,
                    Err(error) => {
                        eprintln!("podsecd: a front cannot be started: {error}");
                        self.waiting.pop_front();
                        return;
                    }
                },
            };
            let fronts_of = |uid| self.fronts.values().filter(|front| front.caller.peer.uid == uid).count();
            let next = (0..self.waiting.len()).min_by_key(|&index| {
                self.waiting.get(index).map_or(usize::MAX, |(_, caller)| fronts_of(caller.peer.uid))
            });
            let Some((connection, caller)) = next.and_then(|index| self.waiting.remove(index)) else {
                return;
            };
            let serve = ToFront::Serve { reflection: self.config.reflection };
            let token = self.token();
            let served = front.channel.send(&serve, &[connection.as_fd()]).map_err(io::Error::other);
            match served.and_then(|()| self.watch(&front.channel, token)) {
                Ok(()) => _ = self.fronts.insert(token, Front { child: front, caller }),
                // Died while it waited; the next one may do better.
                Err(_) if !cold => self.waiting.push_front((connection, caller)),
                Err(error) => eprintln!("podsecd: a front ended at once: {error}"),
            }
            if cold {
                // Starting one took a while: look at events before the next.
                return;
            }
        }
    }

    fn start_front(&mut self) -> io::Result<Child> {
        let Some((uid, gid)) = self.accounts.front() else {
            let name = &self.config.accounts.front;
            return Err(io::Error::other(format!("no user {name} on this host; systemd-sysusers makes it")));
        };
        Child::start("podsecd-front", &[uid.to_string(), gid.to_string()])
    }

    fn make_up_warm(&mut self) {
        let now = Instant::now();
        if self.draining.is_some() || now < self.make_up_after {
            return;
        }
        let made = if self.warm_fronts.len() < WARM {
            self.start_front().map(|front| self.warm_fronts.push(front))
        } else if self.warm_workers() < WARM {
            self.start_worker().map(drop)
        } else {
            Ok(())
        };
        if let Err(error) = made {
            eprintln!("podsecd: no front or worker can be kept ready: {error}");
            self.make_up_after = now + Duration::from_secs(1);
        }
    }

    fn warm_workers(&self) -> usize {
        self.workers.values().filter(|worker| matches!(worker.task, Task::Warm)).count()
    }

    fn start_worker(&mut self) -> io::Result<Token> {
        let child = Child::start("podsecd-worker", &[])?;
        let token = self.token();
        self.watch(&child.channel, token)?;
        self.workers.insert(token, Worker { child, task: Task::Warm, deadline: None });
        Ok(token)
    }

    // ---- requests

    fn hear_front(&mut self, token: Token) {
        let Some(front) = self.fronts.get(&token) else { return };
        match front.child.channel.receive::<FromFront>() {
            Ok(Some((FromFront::Request { id, operation }, _))) => self.request(token, id, operation),
            Ok(Some((FromFront::Malformed { method, reason }, _))) => {
                if let Some(front) = self.fronts.remove(&token) {
                    self.deny(&front.caller, method.map_or("", Method::name), String::new(), reason);
                    self.fronts.insert(token, front);
                }
            }
            Err(error) if error.would_block() => {}
            Ok(None) => _ = self.fronts.remove(&token),
            Err(error) => self.drop_front(token, &error),
        }
    }

    /// A front that says what no front says, or does not listen, is no front any more.
    fn drop_front(&mut self, token: Token, error: &WireError) {
        if let Some(front) = self.fronts.remove(&token) {
            self.deny(&front.caller, "", escape(error.to_string().as_bytes()), Reason::Protocol);
            front.child.kill();
        }
    }

    fn tell_front(&mut self, token: Token, message: &ToFront, descriptors: &[std::os::fd::BorrowedFd<'_>]) {
        let Some(front) = self.fronts.get(&token) else { return };
        if let Err(error) = front.child.channel.send(message, descriptors) {
            self.drop_front(token, &error);
        }
    }

    fn request(&mut self, token: Token, id: u32, operation: Operation) {
        // Out and in again: deciding borrows the caller, and the gate with it.
        let Some(front) = self.fronts.remove(&token) else { return };
        let decision = self.decide(&front.caller, operation);
        let request = Request { front: token, id, uid: front.caller.peer.uid };
        let roles = front.caller.peer.roles(self.accounts.roster());
        let answer = match decision {
            Ok(permit) => match permit.by() {
                By::Gate => Some(self.answer(id, &permit, &front.caller, roles)),
                By::Worker(_) => self.check(request, permit, roles),
            },
            Err(reason) => Some(ToFront::Refused { id, reason }),
        };
        self.fronts.insert(token, front);
        if let Some(answer) = answer {
            self.tell_front(token, &answer, &[]);
        }
    }

    /// From the caller's facts and the table. A refusal is recorded here.
    fn decide(&mut self, caller: &Caller, operation: Operation) -> Result<Permit, Reason> {
        let (op, target) = (operation.method().name(), operation.target());
        let method = operation.method();
        let decision = caller.verdict().and_then(|()| {
            let permit = authorize(caller.peer.roles(self.accounts.roster()), operation);
            permit.map_err(|denied| denied.reason)
        });
        let decision =
            decision.and_then(|permit| self.limit(&permit, method, caller.peer.uid).map(|()| permit));
        decision.inspect_err(|&reason| self.deny(caller, op, escape(&target), reason))
    }

    fn limit(&self, permit: &Permit, method: Method, uid: u32) -> Result<(), Reason> {
        if permit.by() == By::Gate {
            return Ok(());
        }
        if self.draining.is_some() {
            return Err(Reason::ShuttingDown);
        }
        let limits = &self.config.limits;
        let count = |sessions: bool, of: Option<u32>| {
            let busy = self.workers.values().filter_map(|worker| worker.task.load());
            busy.filter(|&(session, uid)| session == sessions && of.is_none_or(|of| of == uid)).count()
        };
        if method == Method::Enter {
            let orphans = self.orphans.values();
            let orphans_of = orphans.clone().filter(|orphan| orphan.open.uid == uid).count();
            if count(true, None) + orphans.count() >= limits.sessions
                || count(true, Some(uid)) + orphans_of >= limits.sessions_per_uid
            {
                return Err(Reason::SessionLimit);
            }
        } else if count(false, Some(uid)) >= limits.requests_per_uid {
            return Err(Reason::RequestLimit);
        }
        Ok(())
    }

    fn deny(&mut self, caller: &Caller, op: &str, target: String, reason: Reason) {
        let roles = caller.peer.roles(self.accounts.roster());
        let record = denial(&caller.peer, roles, op, target, reason.name());
        if let Some(record) = self.denials.admit(record, Instant::now()) {
            // Refused either way; without a record if the audit is full.
            let _ = self.audit.append(&record);
        }
    }

    fn answer(&mut self, id: u32, permit: &Permit, caller: &Caller, roles: Roles) -> ToFront {
        let answer = match permit.operation() {
            Operation::WhoAmI => {
                Answer::WhoAmI { uid: caller.peer.uid, login_uid: caller.peer.login_uid, roles }
            }
            Operation::Health => {
                let sessions =
                    self.workers.values().filter(|worker| matches!(worker.task.load(), Some((true, _))));
                let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                Answer::Health {
                    audit_writable: self.audit.is_writable(),
                    // Beside the one that asks, which is out of the map just now.
                    connections: number(self.fronts.len() + 1),
                    sessions: number(sessions.count() + self.orphans.len()),
                    uptime: self.started.elapsed().as_secs(),
                }
            }
            // The table says which these are; a row that is wrong must not be an answer.
            _ => return ToFront::Refused { id, reason: Reason::Bug },
        };
        ToFront::Answer { id, answer }
    }

    /// Asks a worker whether the account database of this moment still agrees with the kernel's groups of then.
    fn check(&mut self, request: Request, permit: Permit, roles: Roles) -> Option<ToFront> {
        let refuse = |id, reason| Some(ToFront::Refused { id, reason });
        let warm = self
            .workers
            .iter()
            .find(|(_, worker)| matches!(worker.task, Task::Warm))
            .map(|(&token, _)| token);
        let token = match warm.map_or_else(|| self.start_worker(), Ok) {
            Ok(token) => token,
            Err(error) => {
                eprintln!("podsecd: a worker cannot be started: {error}");
                return refuse(request.id, Reason::Resources);
            }
        };
        debug_assert!(roles.has(Role::Anyone), "every caller that is somebody is anyone");
        let question = ToWorker::Check {
            uid: request.uid,
            roles: permit.roles(),
            administrators: self.config.accounts.administrators.clone(),
            cluster_user: self.config.accounts.cluster_user.clone(),
        };
        let worker = self.workers.get_mut(&token)?;
        if worker.child.channel.send(&question, &[]).is_err() {
            worker.child.kill();
            self.workers.remove(&token);
            return refuse(request.id, Reason::HelperLost);
        }
        worker.deadline = Some(Instant::now() + CHECK);
        worker.task = Task::Checking { request, permit };
        None
    }

    // ---- workers

    fn hear_worker(&mut self, token: Token) {
        let Some(worker) = self.workers.get(&token) else { return };
        match worker.child.channel.receive::<FromWorker>() {
            Ok(Some((FromWorker::Checked(verdict), _))) => self.checked(token, verdict),
            Ok(Some((FromWorker::Step(now), _))) => {
                if let Some(Worker { task: Task::Running { step, .. }, deadline, .. }) =
                    self.workers.get_mut(&token)
                {
                    *step = now;
                    if now == Step::Run {
                        *deadline = None;
                    }
                }
            }
            Ok(Some((FromWorker::Finished(outcome), _))) => self.finished(token, outcome),
            Err(error) if error.would_block() => {}
            Ok(None) | Err(_) => self.lost(token, Reason::HelperLost),
        }
    }

    fn checked(&mut self, token: Token, verdict: Result<(), Reason>) {
        let Some(mut worker) = self.workers.remove(&token) else { return };
        let Task::Checking { request, permit } = std::mem::replace(&mut worker.task, Task::Warm) else {
            // A worker that speaks unasked; dropping its channel ends it.
            return worker.child.kill();
        };
        let Some(front) = self.fronts.remove(&request.front) else {
            // Nobody waits any more, and nothing was begun (CVE-2021-3560: a caller who dies while he is judged).
            return worker.child.kill();
        };
        let (front_token, id) = (request.front, request.id);
        let result = verdict.and_then(|()| front.caller.verdict()).inspect_err(|&reason| {
            let operation = permit.operation();
            self.deny(&front.caller, operation.method().name(), escape(&operation.target()), reason);
        });
        let result = result.and_then(|()| self.go(token, worker, request, permit, &front.caller));
        self.fronts.insert(front_token, front);
        match result {
            Ok(reply) => self.tell_front(front_token, &ToFront::Accepted { id }, &[reply.as_fd()]),
            Err(reason) => self.tell_front(front_token, &ToFront::Refused { id, reason }, &[]),
        }
    }

    /// Records the intent and lets the worker act. Gives the end on which it will answer.
    fn go(
        &mut self,
        token: Token,
        mut worker: Worker,
        request: Request,
        permit: Permit,
        caller: &Caller,
    ) -> Result<Channel, Reason> {
        let method = permit.operation().method();
        let id = hex(&random::<16>().map_err(|_| Reason::Resources)?);
        let open = Open {
            id: id.clone(),
            op: method.name().to_owned(),
            uid: caller.peer.uid,
            login_uid: caller.peer.login_uid,
            pid: caller.peer.pid,
            roles: caller.peer.roles(self.accounts.roster()),
            target: escape(&permit.operation().target()),
            micros: now(),
            worker: worker.child.trace(),
        };
        let (ours, theirs) = Channel::pair().map_err(|_| Reason::Resources)?;
        let mut session = None;
        if method == Method::Enter {
            let ticket = random::<32>().map_err(|_| Reason::Resources)?;
            let pair = Channel::pair().map_err(|_| Reason::Resources)?;
            let caller = caller.try_clone().map_err(|_| Reason::Resources)?;
            session = Some((ticket, pair, caller));
        }
        // From here on something may be done, so from here on it is in the record; and not at all otherwise.
        self.audit.begin(&open).map_err(|error| {
            eprintln!("podsecd: the audit cannot be written: {error}");
            Reason::AuditUnavailable
        })?;
        let attach = self.config.socket.attach.clone();
        let hangup_grace = self.config.limits.hangup_grace;
        let job = ToWorker::Go(Box::new(Job {
            id,
            operation: permit.into_operation(),
            cluster_user: self.config.accounts.cluster_user.clone(),
            namespace_state: self.config.namespace.state.clone(),
            audit: self.config.audit.path.clone(),
            session: session.as_ref().map(|&(ticket, ..)| SessionJob { ticket, attach, hangup_grace }),
        }));
        let mut descriptors = vec![theirs.as_fd()];
        if let Some((_, (_, workers), _)) = &session {
            descriptors.push(workers.as_fd());
        }
        if worker.child.channel.send(&job, &descriptors).is_err() {
            worker.child.kill();
            self.record_end(&open, Err(Reason::HelperLost), Step::Confine, None);
            return Err(Reason::HelperLost);
        }
        let now = Instant::now();
        // Reading the audit takes as long as its reader; everything else has its time.
        let reads = matches!(method, Method::AuditQuery | Method::AuditFollow | Method::AuditVerify);
        worker.deadline = (!reads).then_some(now + OPERATION);
        worker.task = Task::Running { request, open, session: session.is_some(), step: Step::Confine };
        self.workers.insert(token, worker);
        if let Some((ticket, (client, _), caller)) = session {
            self.tickets.insert(ticket, Ticket { caller, client, expires: now + TICKET });
        }
        Ok(ours)
    }

    fn finished(&mut self, token: Token, outcome: Outcome) {
        let Some(mut worker) = self.workers.remove(&token) else { return };
        let Task::Running { open, session, .. } = worker.task else { return worker.child.kill() };
        self.record_end(&open, outcome.result, outcome.step, outcome.exit);
        let told = worker.child.channel.send(&ToWorker::Recorded, &[]);
        worker.task = Task::Ending { session, uid: open.uid };
        worker.deadline = Some(Instant::now() + ENDING);
        if told.is_ok() {
            self.workers.insert(token, worker);
        }
    }

    /// A worker is gone, or has had its time.
    fn lost(&mut self, token: Token, reason: Reason) {
        let Some(worker) = self.workers.remove(&token) else { return };
        worker.child.kill();
        match worker.task {
            Task::Warm | Task::Ending { .. } => {}
            Task::Checking { request, permit } => {
                // The account database did not answer in time, or took the worker down: no answer is no right.
                let reason = if reason == Reason::Deadline { Reason::NssTimeout } else { reason };
                if let Some(front) = self.fronts.remove(&request.front) {
                    let operation = permit.operation();
                    self.deny(&front.caller, operation.method().name(), escape(&operation.target()), reason);
                    self.fronts.insert(request.front, front);
                }
                self.tell_front(request.front, &ToFront::Refused { id: request.id, reason }, &[]);
            }
            Task::Running { request, open, step, .. } => {
                self.record_end(&open, Err(reason), step, None);
                self.tell_front(request.front, &ToFront::Lost { id: request.id, reason }, &[]);
            }
        }
    }

    fn record_end(&mut self, open: &Open, result: Result<(), Reason>, step: Step, exit: Option<i32>) {
        let phase = if result.is_ok() { Phase::Done } else { Phase::Fail };
        let record = Record {
            reason: result.err().map(|reason| reason.name().to_owned()),
            step: Some(step.name().to_owned()),
            exit,
            ..open.record(phase)
        };
        if let Err(error) = self.audit.end(open, &record) {
            eprintln!(
                "podsecd: the outcome of {} could not be recorded; the next start will: {error}",
                open.id
            );
        }
    }

    // ---- sessions

    fn accept_attach(&mut self) {
        for _ in 0..BATCH {
            let Some((connection, caller)) = self.accept(|listeners| &listeners.attach) else { return };
            let limits = &self.config.limits;
            if self.connections_of(caller.peer.uid) >= limits.connections_per_uid
                || self.attaching.len() >= limits.connections
            {
                self.deny(&caller, "attach", String::new(), Reason::ConnectionLimit);
                continue;
            }
            let token = self.token();
            if socket::set_nonblocking(&connection, true)
                .and_then(|()| self.watch(&connection, token))
                .is_ok()
            {
                let expires = Instant::now() + TICKET;
                self.attaching.insert(token, Attaching { connection: connection.into(), caller, expires });
            }
        }
    }

    fn hear_attaching(&mut self, token: Token) {
        let Some(Attaching { connection, caller, .. }) = self.attaching.remove(&token) else { return };
        let mut sent = [0; 32];
        let received = socket::receive(&connection, &mut sent);
        if matches!(received, Ok((0, _))) {
            return;
        }
        let whole = matches!(&received, Ok((32, descriptors)) if descriptors.is_empty());
        // Looked at before it is taken: a wrong caller must not use up the right one's ticket.
        let fits = whole
            && caller.verdict().is_ok()
            && self.tickets.get(&sent).is_some_and(|ticket| ticket.caller.is_same_process(&caller));
        match self.tickets.remove(&sent).filter(|_| fits) {
            Some(ticket) => _ = connection.send(&Attached::Session, &[ticket.client.as_fd()]),
            None => {
                let _ = connection.send(&Attached::Refused, &[]);
                self.deny(&caller, "attach", String::new(), Reason::BadTicket);
            }
        }
    }

    fn orphan_ended(&mut self, token: Token) {
        if !self.orphans.get(&token).is_some_and(|orphan| process::has_ended(&orphan.process)) {
            return;
        }
        if let Some(Orphan { open, .. }) = self.orphans.remove(&token) {
            // Its exit status went to its client only.
            self.record_end(&open, Ok(()), Step::Run, None);
        }
    }

    // ---- time and signals

    fn signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map(Signal::try_from) {
                Ok(Ok(Signal::SIGCHLD)) => child::reap(),
                // The audit finds out by itself that its file was renamed.
                Ok(Ok(Signal::SIGHUP)) => {}
                _ => {
                    // No new connection; requests under way may end, sessions go on without us.
                    self.listeners = None;
                    self.waiting.clear();
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
            let _ = self.audit.append(&record);
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
        let warm = self.warm_workers().min(self.warm_fronts.len());
        let make_up = (warm < WARM && self.draining.is_none()).then(|| {
            // None left: the next request would have to wait for one, so do not wait for quiet.
            if warm == 0 { now } else { self.last_event + QUIET }.max(self.make_up_after)
        });
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
            || self.workers.values().any(|worker| !matches!(worker.task, Task::Warm));
        (self.activated && self.config.limits.idle_exit > 0 && !busy).then_some(self.last_event)
    }

    fn is_over(&self) -> bool {
        let now = Instant::now();
        if let Some(deadline) = self.draining {
            let busy = self.workers.values().any(|worker| match &worker.task {
                Task::Warm | Task::Ending { .. } => false,
                Task::Checking { .. } => true,
                Task::Running { session, step, .. } => !session || *step != Step::Run,
            });
            return !busy || deadline <= now;
        }
        let idle = Duration::from_secs(self.config.limits.idle_exit);
        self.idle_since().is_some_and(|since| now.duration_since(since) >= idle)
    }
}

impl Task {
    /// Is it work, is it a session, and whose?
    fn load(&self) -> Option<(bool, u32)> {
        match self {
            Self::Warm => None,
            Self::Checking { request, permit } => {
                Some((permit.operation().method() == Method::Enter, request.uid))
            }
            Self::Running { session, open, .. } => Some((*session, open.uid)),
            Self::Ending { session, uid } => Some((*session, *uid)),
        }
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    podsec_sys::process::random(&mut bytes)?;
    Ok(bytes)
}
