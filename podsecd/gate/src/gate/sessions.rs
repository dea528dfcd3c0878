//! Sessions: fetching one by its ticket, and those that an earlier podsecd started.

use super::*;

impl Gate {
    pub(super) fn accept_attach(&mut self) {
        for _ in 0..BATCH {
            let Some(connection) = self.accept(|listeners| Some(&listeners.attach)) else { return };
            let Some((connection, caller)) = self.admit(connection, true) else { continue };
            let (connection, token) = (Channel::from(connection), self.token());
            if connection.set_nonblocking().and_then(|()| self.watch(&connection, token)).is_ok() {
                let expires = Instant::now() + TICKET;
                self.attaching.insert(token, Attaching { connection, caller, expires, reserved: None });
            }
        }
    }

    pub(super) fn hear_attaching(&mut self, token: Token) {
        let Some(attaching) = self.attaching.remove(&token) else { return };
        let mut sent = [0; 32];
        let length = match socket::receive(&attaching.connection, &mut sent) {
            Ok((0, _)) => return,
            Ok((length, descriptors)) if descriptors.is_empty() => length,
            _ => usize::MAX,
        };
        if let (8, Some(number), None) = (length, sent.first_chunk(), attaching.reserved) {
            return self.reserve(token, attaching, u64::from_le_bytes(*number));
        }
        let (connection, caller, whole) = (attaching.connection, attaching.caller, length == sent.len());
        // Looked at before it is taken: a wrong caller must not use up the right one's ticket.
        let fits =
            whole && self.tickets.get(&sent).is_some_and(|ticket| ticket.caller.is_same_process(&caller));
        match fits.then(|| self.tickets.remove(&sent)).flatten() {
            Some(ticket) => _ = ticket.give(&connection),
            // It failed while the ticket was on its way; the answer to the request says why. No theft to record.
            None if self.void.contains(&sent) => {}
            None => {
                let _ = connection.send(&Attached::Refused, &[]);
                self.deny(&caller, "attach", String::new(), Reason::BadTicket);
            }
        }
    }

    /// He is about to ask for a session. While he writes the request, a worker sees whether he still is a member, and goes
    /// in: it knows nothing of what he will ask, and nothing is begun.
    fn reserve(&mut self, token: Token, attaching: Attaching, number: u64) {
        let caller = attaching.caller.identify(&self.own, None);
        let allowed = rule(Method::Enter).map_or(Roles::NONE, |rule| rule.roles);
        let roles = caller.roles(self.accounts.roster()).intersection(allowed);
        let worker = self.warm_worker().filter(|_| roles != Roles::NONE && caller.verdict().is_ok());
        if let Some(worker) = worker {
            self.question(worker, caller.peer.uid, roles, Method::Enter, Task::Reserved(roles, false));
        }
        self.attaching.insert(token, Attaching { caller, reserved: Some((number, worker)), ..attaching });
    }

    /// The connection on which this very process waits for this very session.
    pub(super) fn reservation(&self, operation: &Operation, caller: &Caller) -> Option<Token> {
        let Operation::Enter(enter) = operation else { return None };
        let number = Some(enter.reservation()).filter(|&number| number != 0)?;
        let fits = |waiting: &Attaching| {
            waiting.reserved.is_some_and(|(its, _)| its == number) && waiting.caller.is_same_process(caller)
        };
        self.attaching.iter().find(|(_, waiting)| fits(waiting)).map(|(&token, _)| token)
    }

    pub(super) fn orphan_ended(&mut self, token: Token) {
        if !self.orphans.get(&token).is_some_and(|orphan| process::has_ended(&orphan.process)) {
            return;
        }
        if let Some(Orphan { open, .. }) = self.orphans.remove(&token) {
            // Its exit status went to its client only.
            self.record_end(&open, Ok(()), Step::Run, None);
        }
    }
}

impl Ticket {
    /// Hands the session over.
    pub(super) fn give(&self, connection: &Channel) -> bool {
        connection.send(&Attached::Session, &[self.client.as_fd()]).is_ok()
    }
}
