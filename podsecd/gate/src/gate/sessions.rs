//! Sessions: fetching one by its ticket, and those that an earlier podsecd started.

use super::*;

impl Gate {
    pub(super) fn accept_attach(&mut self) {
        for _ in 0..BATCH {
            let Some(connection) = self.accept(|listeners| Some(&listeners.attach)) else { return };
            let caller = Caller::glance(&connection, self.config.pidfd);
            let limits = &self.config.limits;
            if self.connections_of(caller.peer.uid) >= limits.connections_per_uid
                || self.attaching.len() >= limits.connections
            {
                self.deny(&caller, "attach", String::new(), Reason::ConnectionLimit);
                continue;
            }
            let caller = caller.hold(&connection);
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

    pub(super) fn hear_attaching(&mut self, token: Token) {
        let Some(Attaching { connection, caller, .. }) = self.attaching.remove(&token) else { return };
        let mut sent = [0; 32];
        let received = socket::receive(&connection, &mut sent);
        if matches!(received, Ok((0, _))) {
            return;
        }
        let whole = matches!(&received, Ok((32, descriptors)) if descriptors.is_empty());
        // Looked at before it is taken: a wrong caller must not use up the right one's ticket.
        let fits =
            whole && self.tickets.get(&sent).is_some_and(|ticket| ticket.caller.is_same_process(&caller));
        match fits.then(|| self.tickets.remove(&sent)).flatten() {
            Some(ticket) => _ = connection.send(&Attached::Session, &[ticket.client.as_fd()]),
            // It failed while the ticket was on its way; the answer to the request says why. No theft to record.
            None if self.void.contains(&sent) => {}
            None => {
                let _ = connection.send(&Attached::Refused, &[]);
                self.deny(&caller, "attach", String::new(), Reason::BadTicket);
            }
        }
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
