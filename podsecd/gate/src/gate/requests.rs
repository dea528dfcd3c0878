//! Requests: what a front asks, decided and answered, or given to a worker to check.

use super::*;

impl Gate {
    pub(super) fn hear_front(&mut self, token: Token) {
        let Some(front) = self.fronts.get_mut(&token) else { return };
        front.asked = true;
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

    /// A front that says what no front says, or does not listen, is no front any more. One that has ended had a caller
    /// who hung up.
    pub(super) fn drop_front(&mut self, token: Token, error: &WireError) {
        if let Some(front) = self.fronts.remove(&token).filter(|_| !error.is_end()) {
            self.deny(&front.caller, "", escape(error.to_string().as_bytes()), Reason::Protocol);
            front.child.kill();
        }
    }

    pub(super) fn tell_front(&mut self, token: Token, message: &ToFront, descriptors: &[BorrowedFd<'_>]) {
        let Some(front) = self.fronts.get(&token) else { return };
        if let Err(error) = front.child.channel.send(message, descriptors) {
            self.drop_front(token, &error);
        }
    }

    pub(super) fn request(&mut self, token: Token, id: u32, operation: Operation) {
        // Out and in again: deciding borrows the caller, and the gate with it.
        let Some(front) = self.fronts.remove(&token) else { return };
        let roles = front.caller.roles(self.accounts.roster());
        let decision = self.decide(&front.caller, roles, operation);
        let answer = match decision {
            Ok(permit) if permit.by() == By::Gate => self.answer(id, &permit, &front.caller, roles),
            Ok(permit) => {
                let request = Request { front: token, id, uid: front.caller.peer.uid };
                self.fronts.insert(token, front);
                return self.check(request, permit);
            }
            Err(reason) => ToFront::Refused { id, reason },
        };
        self.fronts.insert(token, front);
        self.tell_front(token, &answer, &[]);
    }

    /// Records that and tells the caller.
    pub(super) fn refuse(&mut self, request: &Request, operation: &Operation, reason: Reason) {
        if let Some(front) = self.fronts.remove(&request.front) {
            self.deny(&front.caller, operation.method().name(), escape(&operation.target()), reason);
            self.fronts.insert(request.front, front);
        }
        self.tell_front(request.front, &ToFront::Refused { id: request.id, reason }, &[]);
    }

    /// From the caller's facts and the table. A refusal is recorded here.
    pub(super) fn decide(
        &mut self,
        caller: &Caller,
        roles: Roles,
        operation: Operation,
    ) -> Result<Permit, Reason> {
        let (method, target) = (operation.method(), operation.target());
        let decision = caller
            .verdict()
            .and_then(|()| authorize(roles, operation).map_err(|denied| denied.reason))
            .and_then(|permit| self.limit(&permit, method, caller.peer.uid).map(|()| permit));
        decision.inspect_err(|&reason| self.deny(caller, method.name(), escape(&target), reason))
    }

    pub(super) fn limit(&self, permit: &Permit, method: Method, uid: u32) -> Result<(), Reason> {
        if permit.by() == By::Gate {
            return Ok(());
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

    pub(super) fn deny(&mut self, caller: &Caller, op: &str, target: String, reason: Reason) {
        let roles = caller.roles(self.accounts.roster());
        let record = Record::denial(now(), &caller.peer, roles, op, target, reason.name());
        let now = Instant::now();
        if let Some(record) = self.denials.admit(record, now)
            && self.audit.append(&record).is_err()
        {
            // Refused all the same, and told when the audit can be written again.
            self.denials.unwritten(record, now);
        }
    }

    pub(super) fn answer(&mut self, id: u32, permit: &Permit, caller: &Caller, roles: Roles) -> ToFront {
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

    /// Asks a worker whether the account database of this moment still agrees with the kernel's groups of then: the one
    /// that the caller's reservation has asked already, one that is ready, or a new one, which takes the question before
    /// it loads anything: while the account database hangs, those who need not be looked up there are served.
    fn check(&mut self, request: Request, permit: Permit) {
        let front = self.fronts.get(&request.front);
        let reserved = front.and_then(|front| self.reservation(permit.operation(), &front.caller));
        if let Some((_, Some(token))) = reserved.and_then(|token| self.attaching.get(&token)?.reserved)
            && let Some(worker) = self.workers.get_mut(&token)
            && let Task::Reserved(roles, member) = worker.task
            && roles == permit.roles()
            && worker.deadline.is_some_and(|deadline| deadline > Instant::now())
        {
            (worker.task, worker.deadline) =
                (Task::Checking { request, permit }, Some(Instant::now() + CHECK));
            if member {
                self.checked(token, Ok(()));
            }
            return;
        }
        let token = match self.warm_worker().map_or_else(|| self.start_worker(), Ok) {
            Ok(token) => token,
            Err(error) => {
                eprintln!("podsecd: a worker cannot be started: {error}");
                return self.refuse(&request, permit.operation(), Reason::Resources);
            }
        };
        let (uid, roles, method) = (request.uid, permit.roles(), permit.operation().method());
        self.question(token, uid, roles, method, Task::Checking { request, permit });
    }

    pub(super) fn warm_worker(&self) -> Option<Token> {
        let warm = self.workers.iter().find(|(_, worker)| matches!(worker.task, Task::Warm));
        warm.map(|(&token, _)| token)
    }

    /// Is he still a member? The worker's answer is for that task.
    pub(super) fn question(&mut self, token: Token, uid: u32, roles: Roles, method: Method, task: Task) {
        let (accounts, place) = (Box::new(self.config.accounts.clone()), self.accounts.place());
        let question = ToWorker::Check { uid, roles, accounts, method, place };
        let Some(worker) = self.workers.get_mut(&token) else { return };
        let time = if matches!(task, Task::Reserved(..)) { FRESH } else { CHECK };
        (worker.task, worker.deadline) = (task, Some(Instant::now() + time));
        if worker.child.channel.send(&question, &[]).is_err() {
            self.lost(token, Reason::HelperLost);
        }
    }
}
