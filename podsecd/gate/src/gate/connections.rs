//! Connections: accepting them, and giving each its front.

use super::*;

impl Gate {
    pub(super) fn accept_requests(&mut self) {
        for _ in 0..BATCH {
            let Some(connection) = self.accept(|listeners| listeners.requests.as_ref()) else { return };
            let admitted = self.admit(connection, false);
            self.waiting.extend(admitted);
        }
    }

    /// Who calls, unless he has left or has too many connections. Everybody waits in one queue, so a flood has to be taken
    /// out of it as fast as it comes in.
    pub(super) fn admit(&mut self, connection: OwnedFd, attach: bool) -> Option<(OwnedFd, Caller)> {
        if socket::has_ended(&connection) {
            return None;
        }
        let caller = Caller::glance(&connection, self.config.pidfd);
        let limits = &self.config.limits;
        let his = self.callers(attach).filter(|other| other.peer.uid == caller.peer.uid).count();
        if his >= limits.connections_per_uid || self.callers(attach).count() >= limits.connections {
            // Closed without a word: a word would cost a front. The client knows what this means.
            self.deny(&caller, if attach { "attach" } else { "" }, String::new(), Reason::ConnectionLimit);
            return None;
        }
        let caller = caller.hold(&connection);
        Some((connection, caller))
    }

    pub(super) fn accept(&mut self, which: impl FnOnce(&Listeners) -> Option<&OwnedFd>) -> Option<OwnedFd> {
        match socket::accept(which(&self.listeners)?) {
            Ok(connection) => Some(connection),
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

    /// Of those who are connected to one of the two sockets.
    fn callers(&self, attach: bool) -> impl Iterator<Item = &Caller> {
        let fronts = self.fronts.values().map(|front| &front.caller);
        let requests = fronts.chain(self.waiting.iter().map(|(_, caller)| caller)).filter(move |_| !attach);
        requests.chain(self.attaching.values().map(|other| &other.caller).filter(move |_| attach))
    }

    /// Gives waiting connections their fronts; first to whom has the fewest, so that nobody waits behind a flood.
    pub(super) fn serve_waiting(&mut self) {
        // Nobody reads the answer any more: a front would be started for nothing.
        self.waiting.retain(|(connection, _)| !socket::has_ended(connection));
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
                Ok(()) => {
                    // While the front reads. What it says is heard after this.
                    let mut known = self.attaching.values().filter(|other| other.reserved.is_some());
                    let known = known.find(|other| other.caller.is_same_process(&caller));
                    let caller = caller.identify(&self.own, known.map(|known| &known.caller));
                    self.fronts.insert(token, Front { child: front, caller, asked: false });
                }
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

    pub(super) fn start_front(&mut self) -> io::Result<Child> {
        let Some((uid, gid)) = self.accounts.front() else {
            let name = &self.config.accounts.front;
            return Err(io::Error::other(format!("no user {name} on this host; systemd-sysusers makes it")));
        };
        Child::start("podsecd-front", &[uid.to_string(), gid.to_string()])
    }

    pub(super) fn make_up_warm(&mut self) {
        let now = Instant::now();
        if self.draining.is_some() || now < self.make_up_at().max(self.make_up_after) {
            return;
        }
        let made = if self.warm_fronts.len() < WARM {
            self.start_front().map(|front| self.warm_fronts.push(front))
        } else if self.warm_workers() < WARM {
            self.start_worker().and_then(|token| self.warm_up(token))
        } else {
            Ok(())
        };
        if let Err(error) = made {
            eprintln!("podsecd: no front or worker can be kept ready: {error}");
            self.make_up_after = now + Duration::from_secs(1);
        }
    }

    /// After some quiet; at once where none is left, if nobody's next step is expected within microseconds: a first
    /// request, the verdict on a member, the start of a session.
    pub(super) fn make_up_at(&self) -> Instant {
        let starting = |worker: &Worker| match worker.task {
            Task::Reserved(..) | Task::Checking { .. } => true,
            Task::Running { session, step, .. } => session && step != Step::Run,
            Task::Starting | Task::Warm | Task::Ending { .. } => false,
        };
        let expected = self.workers.values().any(starting) || self.fronts.values().any(|front| !front.asked);
        let none_left = self.warm_fronts.is_empty() || self.warm_workers() == 0;
        if none_left && !expected { self.last_event } else { self.last_event + QUIET }
    }

    pub(super) fn warm_workers(&self) -> usize {
        self.workers.values().filter(|worker| worker.task.is_none()).count()
    }

    pub(super) fn start_worker(&mut self) -> io::Result<Token> {
        let child = Child::start("podsecd-worker", &[])?;
        let token = self.token();
        self.watch(&child.channel, token)?;
        let deadline = Some(Instant::now() + CHECK);
        self.workers.insert(token, Worker { child, task: Task::Starting, deadline });
        Ok(token)
    }

    fn warm_up(&self, token: Token) -> io::Result<()> {
        let worker = self.workers.get(&token).ok_or(io::ErrorKind::NotFound)?;
        worker.child.channel.send(&ToWorker::WarmUp, &[]).map_err(io::Error::other)
    }
}
