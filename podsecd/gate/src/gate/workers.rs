//! Workers: what they report, and the records that open and close each operation.

use super::*;

/// For the worker its job and what goes along with it; for the front where the worker will answer, and what can be
/// answered at once.
type Begun = (Box<Job>, Vec<Channel>, Channel, Option<Reply>);

impl Gate {
    pub(super) fn hear_worker(&mut self, token: Token) {
        let Some(worker) = self.workers.get(&token) else { return };
        match worker.child.channel.receive::<FromWorker>() {
            Ok(Some((FromWorker::Ready, _))) => {
                if let Some(Worker { task: task @ Task::Starting, deadline, .. }) =
                    self.workers.get_mut(&token)
                {
                    (*task, *deadline) = (Task::Warm, None);
                }
            }
            Ok(Some((FromWorker::Checked(verdict), _))) => self.checked(token, verdict),
            Ok(Some((FromWorker::Moved { pid }, descriptors))) => self.moved(token, pid, descriptors),
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
            Ok(Some((FromWorker::Recovered(change), _))) => self.recovered(*change),
            Err(error) if error.would_block() => {}
            Ok(None) | Err(_) => self.lost(token, Reason::HelperLost),
        }
    }

    /// A later podsecd has to find the session where it is now.
    fn moved(&mut self, token: Token, pid: i32, descriptors: Vec<OwnedFd>) {
        let (Some(worker), Some(process)) = (self.workers.get_mut(&token), descriptors.into_iter().next())
        else {
            return;
        };
        worker.child.moved(pid, process);
        if let Task::Running { open, .. } = &mut worker.task {
            open.worker = worker.child.trace;
            if let Err(error) = self.audit.moved(open) {
                eprintln!("podsecd: where {} goes on could not be noted: {error}", open.id);
            }
        }
    }

    pub(super) fn checked(&mut self, token: Token, verdict: Result<(), Reason>) {
        if let Some(Worker { task: Task::Reserved(_, member), .. }) = self.workers.get_mut(&token) {
            *member = verdict.is_ok();
            if verdict.is_err() {
                // Who is none any more is refused when he asks, by the answer of then.
                self.workers.remove(&token);
            }
            return;
        }
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
        let operation = permit.operation();
        let (op, target) = (operation.method().name(), escape(&operation.target()));
        let result = verdict.and_then(|()| front.caller.verdict());
        let result = result.and_then(|()| self.begin(token, worker, request, permit, &front.caller));
        if let Err(reason) = &result {
            self.deny(&front.caller, op, target, *reason);
        }
        self.fronts.insert(front_token, front);
        let (job, given, replies, first) = match result {
            Ok(begun) => begun,
            Err(reason) => return self.tell_front(front_token, &ToFront::Refused { id, reason }, &[]),
        };
        // First the caller, who has the longer way to where they meet.
        self.tell_front(front_token, &ToFront::Accepted { id, first }, &[replies.as_fd()]);
        let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
        let Some(worker) = self.workers.get(&token) else { return };
        if worker.child.channel.send(&ToWorker::Go(job), &given).is_err() {
            self.lost(token, Reason::HelperLost);
        }
    }

    /// Records the intent. From here on the worker may act.
    pub(super) fn begin(
        &mut self,
        token: Token,
        mut worker: Worker,
        request: Request,
        permit: Permit,
        caller: &Caller,
    ) -> Result<Begun, Reason> {
        let method = permit.operation().method();
        let id = hex(&process::random::<16>().map_err(|_| Reason::Resources)?);
        let open = Open {
            id: id.clone(),
            op: method.name().to_owned(),
            uid: caller.peer.uid,
            login_uid: caller.peer.login_uid,
            pid: caller.peer.pid,
            roles: caller.roles(self.accounts.roster()),
            target: escape(&permit.operation().target()),
            micros: now(),
            worker: worker.child.trace,
        };
        let (replies, theirs) = Channel::pair().map_err(|_| Reason::Resources)?;
        let mut given = vec![theirs];
        let mut session = None;
        if method == Method::Enter {
            let secret = process::random::<32>().map_err(|_| Reason::Resources)?;
            let (client, workers) = Channel::pair().map_err(|_| Reason::Resources)?;
            let caller = caller.try_clone().map_err(|_| Reason::Resources)?;
            given.push(workers);
            session =
                Some((secret, Ticket { worker: token, caller, client, expires: Instant::now() + TICKET }));
        }
        // From here on something may be done, so from here on it is in the record; and not at all otherwise.
        self.audit.begin(&open).map_err(|error| {
            eprintln!("podsecd: the audit cannot be written: {error}");
            if process::is_starved(&error) { Reason::Resources } else { Reason::AuditUnavailable }
        })?;
        let reserved = self.reservation(permit.operation(), caller);
        let job = Box::new(Job {
            id: id.clone(),
            uid: caller.peer.uid,
            operation: permit.into_operation(),
            config: Box::new(self.config.clone()),
        });
        worker.deadline = method.deadline().map(|time| Instant::now() + time);
        worker.task = Task::Running { request, open, session: session.is_some(), step: Step::Confine };
        self.workers.insert(token, worker);
        let first = session.map(|(secret, ticket)| {
            let waiting = reserved.and_then(|token| self.attaching.remove(&token));
            let fetched = waiting.is_some_and(|waiting| ticket.give(&waiting.connection));
            let ticket = (!fetched).then(|| self.tickets.insert(secret, ticket)).map(|_| secret);
            Reply::Entering { ticket, attach: self.config.socket.attach.clone(), session: id }
        });
        Ok((job, given, replies, first))
    }

    pub(super) fn finished(&mut self, token: Token, outcome: Outcome) {
        let Some(mut worker) = self.workers.remove(&token) else { return };
        // Its client may be on his way with it.
        let unfetched = self.tickets.iter().find(|(_, ticket)| ticket.worker == token);
        if let Some(secret) = unfetched.map(|(&secret, _)| secret) {
            self.tickets.remove(&secret);
            self.void.push_front(secret);
            self.void.truncate(VOID);
        }
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
    pub(super) fn lost(&mut self, token: Token, reason: Reason) {
        let Some(worker) = self.workers.remove(&token) else { return };
        worker.child.kill();
        let tickets = self.tickets.len();
        self.tickets.retain(|_, ticket| ticket.worker != token);
        let unfetched = self.tickets.len() < tickets;
        match worker.task {
            // Its program cannot be run, or the account database hangs or took it down: not again at once.
            Task::Starting => self.make_up_after = Instant::now() + Duration::from_secs(1),
            Task::Warm | Task::Reserved(..) | Task::Ending { .. } => {}
            Task::Checking { request, permit } => {
                // The account database did not answer in time, or took the worker down: no answer is no right.
                let reason = if reason == Reason::Deadline { Reason::NssTimeout } else { reason };
                self.refuse(&request, permit.operation(), reason);
            }
            Task::Running { request, open, step, session } => {
                let waited_in_vain = reason == Reason::Deadline && step == Step::Attach && unfetched;
                let reason = if waited_in_vain { Reason::NotAttached } else { reason };
                self.record_end(&open, Err(reason), step, None);
                self.tell_front(request.front, &ToFront::Lost { id: request.id, reason }, &[]);
                if !session && let Err(error) = self.recover_later() {
                    eprintln!("podsecd: what {} left half done waits for the next change: {error}", open.id);
                }
            }
        }
    }

    /// As [`Gate::recover_changes`], while others are served.
    fn recover_later(&mut self) -> io::Result<()> {
        let token = self.start_worker()?;
        let Some(worker) = self.workers.get_mut(&token) else { return Ok(()) };
        worker.task = Task::Ending { session: false, uid: 0 };
        worker.deadline = Some(Instant::now() + RECOVERY);
        let recover = ToWorker::Recover(Box::new(self.config.clone()));
        worker.child.channel.send(&recover, &[]).map_err(io::Error::other)
    }

    /// A change that somebody else began is whole again.
    pub(super) fn recovered(&mut self, change: Recovered) {
        let Recovered { id, method, target, uid, completed } = change;
        let op = method.name().to_owned();
        let open = Open { id, op, uid, target, micros: now(), ..Open::default() };
        let reason = Some(if completed { "completed" } else { "undone" }.to_owned());
        if let Err(error) = self.audit.end(&open, &Record { reason, ..open.record(Phase::Recovered) }) {
            eprintln!("podsecd: that {} is whole again could not be recorded: {error}", open.id);
        }
    }

    pub(super) fn record_end(
        &mut self,
        open: &Open,
        result: Result<(), Reason>,
        step: Step,
        exit: Option<i32>,
    ) {
        // A worker knows whose things are whose, and may have to refuse what the table allows.
        let phase = match result {
            Ok(()) => Phase::Done,
            Err(reason) if reason.code() == Code::PermissionDenied => Phase::Deny,
            Err(_) => Phase::Fail,
        };
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
}
