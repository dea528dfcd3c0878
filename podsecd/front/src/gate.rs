//! The channel to the gate: a number for every request, and the answer back to whoever asked under it.
//!
//! Must not keep anything of a request that its caller has given up: then the number is forgotten, and a
//! descriptor that still comes for it is closed, so that the worker at its other end sees the hang-up.

use crate::status::Failure;
use podsec_policy::operation::Method;
use podsec_policy::{Operation, Reason};
use podsec_wire::messages::{Answer, FromFront, Reply, ToFront};
use podsec_wire::{Channel, WireError};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// When a channel is full, which takes more than one of the longest requests, how long until the next try.
const AGAIN: Duration = Duration::from_millis(2);

/// The gate, as seen by one front.
#[derive(Debug)]
pub struct Gate {
    channel: AsyncFd<Channel>,
    calls: Mutex<Calls>,
    /// How long a call whose worker is gone waits for the gate's word on why.
    grace: Duration,
}

#[derive(Debug, Default)]
struct Calls {
    next: u32,
    open: BTreeMap<u32, Stage>,
    closed: bool,
}

impl Calls {
    /// Tells whoever waits for `id`. Was there somebody who waited for a verdict?
    fn settle(&mut self, id: u32, verdict: Result<Verdict, Reason>) -> bool {
        match (self.open.remove(&id), verdict) {
            (Some(Stage::Asked(waiting)), verdict) => waiting.send(verdict).is_ok(),
            (Some(Stage::Accepted(waiting)), Err(reason)) => {
                let _ = waiting.send(reason);
                false
            }
            (Some(Stage::Accepted(_)) | None, _) => false,
        }
    }
}

/// Who waits for what. Dropping the sender tells him that the gate is gone.
#[derive(Debug)]
enum Stage {
    Asked(oneshot::Sender<Result<Verdict, Reason>>),
    Accepted(oneshot::Sender<Reason>),
}

/// What the gate said to a request that it did not refuse.
#[derive(Debug)]
pub enum Verdict {
    /// What it knows itself.
    Answer(Answer),
    /// A worker answers.
    Accepted(Replies),
}

impl Gate {
    /// Takes the channel over. Needs a runtime.
    ///
    /// # Errors
    /// fcntl(2), epoll_ctl(2)
    pub fn new(channel: Channel, grace: Duration) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { channel: watch(channel)?, calls: Mutex::default(), grace }))
    }

    /// Asks, and waits for the verdict.
    ///
    /// # Errors
    /// A refusal; [`Reason::ShuttingDown`] when there is no gate any more.
    pub async fn ask(self: &Arc<Self>, operation: Operation) -> Result<Verdict, Failure> {
        let (verdict, word) = oneshot::channel();
        let call = self.open(verdict).ok_or(Reason::ShuttingDown)?;
        let request = FromFront::Request { id: call.id, operation };
        self.send(&request).await.map_err(|_| Reason::ShuttingDown)?;
        let mut verdict = word.await.unwrap_or(Err(Reason::ShuttingDown))?;
        if let Verdict::Accepted(replies) = &mut verdict {
            replies.call = Some(call);
        }
        Ok(verdict)
    }

    /// Tells of something that was no request, for the audit.
    pub async fn malformed(&self, method: Option<Method>, reason: Reason) {
        // Without a gate there is no audit to write it to, and the connection is ending.
        let _ = self.send(&FromFront::Malformed { method, reason }).await;
    }

    async fn send(&self, message: &FromFront) -> Result<(), WireError> {
        loop {
            match self.channel.get_ref().send(message, &[]) {
                Err(error) if error.would_block() => tokio::time::sleep(AGAIN).await,
                result => return result,
            }
        }
    }

    /// Hands what the gate says to those who wait for it, until there is no gate any more. Then nobody waits.
    pub async fn listen(&self) {
        while let Ok(Some((message, descriptors))) = poll_fn(|cx| poll_receive(&self.channel, cx)).await {
            self.deliver(message, descriptors);
        }
        let mut calls = self.calls();
        calls.closed = true;
        calls.open.clear();
    }

    fn deliver(&self, message: ToFront, descriptors: Vec<OwnedFd>) {
        let mut calls = self.calls();
        match message {
            ToFront::Answer { id, answer } => _ = calls.settle(id, Ok(Verdict::Answer(answer))),
            ToFront::Refused { id, reason } | ToFront::Lost { id, reason } => {
                _ = calls.settle(id, Err(reason))
            }
            ToFront::Accepted { id, first } => {
                let (lost, word) = oneshot::channel();
                let replies = Replies::new(descriptors, first, word, self.grace);
                // Where there is no place for another descriptor, the worker sees the end of the one dropped here.
                let verdict = replies.map(Verdict::Accepted).map_err(|_| Reason::Resources);
                if calls.settle(id, verdict) {
                    calls.open.insert(id, Stage::Accepted(lost));
                }
            }
            // Once only, and main has taken it.
            ToFront::Serve { .. } => {}
        }
    }

    fn open(self: &Arc<Self>, verdict: oneshot::Sender<Result<Verdict, Reason>>) -> Option<Call> {
        let mut calls = self.calls();
        if calls.closed {
            return None;
        }
        let id = calls.next;
        calls.next = id.wrapping_add(1);
        calls.open.insert(id, Stage::Asked(verdict));
        Some(Call { gate: Arc::clone(self), id })
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number in use.
#[derive(Debug)]
struct Call {
    gate: Arc<Gate>,
    id: u32,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.gate.calls().open.remove(&self.id);
    }
}

/// What a worker sends. A packet is taken only when somebody wants it, so a caller who does not read holds the
/// worker up and not this process's memory.
#[derive(Debug)]
pub struct Replies {
    /// Of the gate's, before the worker's.
    first: Option<Reply>,
    channel: AsyncFd<Channel>,
    ended: bool,
    lost: oneshot::Receiver<Reason>,
    word: Option<Reason>,
    patience: Option<Pin<Box<Sleep>>>,
    grace: Duration,
    call: Option<Call>,
}

impl Replies {
    fn new(
        descriptors: Vec<OwnedFd>,
        first: Option<Reply>,
        lost: oneshot::Receiver<Reason>,
        grace: Duration,
    ) -> io::Result<Self> {
        let channel = descriptors.into_iter().next().ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
        let channel = watch(channel.into())?;
        Ok(Self { first, channel, ended: false, lost, word: None, patience: None, grace, call: None })
    }

    /// The next one.
    ///
    /// # Errors
    /// What the worker says, or else the gate about a lost worker.
    pub async fn next(&mut self) -> Result<Reply, Failure> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// As [`Replies::next`].
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, Failure>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Ok(first));
        }
        if !self.ended {
            match poll_receive(&self.channel, cx) {
                Poll::Ready(Ok(Some((Reply::Failed { reason, detail }, _)))) => {
                    return Poll::Ready(Err(Failure { reason, detail }));
                }
                Poll::Ready(Ok(Some((reply, _)))) => return Poll::Ready(Ok(reply)),
                Poll::Ready(Ok(None) | Err(_)) => self.ended = true,
                Poll::Pending => {}
            }
        }
        if self.word.is_none()
            && let Poll::Ready(word) = Pin::new(&mut self.lost).poll(cx)
        {
            self.word = Some(word.unwrap_or(Reason::ShuttingDown));
        }
        match (self.ended, self.word) {
            (false, None) => return Poll::Pending,
            (true, Some(reason)) => return Poll::Ready(Err(reason.into())),
            // One of the two is gone, and the other has the rest of the story.
            (true, None) | (false, Some(_)) => {}
        }
        let grace = self.grace;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(grace)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Err(self.word.unwrap_or(Reason::Bug).into()))
    }
}

/// Registers the channel with the runtime's epoll instance: for reading only, since to be told of room for writing
/// would wake this process each time that the other side has taken a packet.
#[allow(
    deprecated,
    reason = "newer tokio has an unsafe name for this, since a type may give another descriptor each time it is asked; a Channel has one"
)]
fn watch(channel: Channel) -> io::Result<AsyncFd<Channel>> {
    channel.set_nonblocking()?;
    AsyncFd::with_interest(channel, Interest::READABLE)
}

type Packet<T> = (T, Vec<OwnedFd>);

fn poll_receive<T: DeserializeOwned>(
    fd: &AsyncFd<Channel>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Packet<T>>, WireError>> {
    loop {
        let mut ready = ready!(fd.poll_read_ready(cx))?;
        match fd.get_ref().receive() {
            Err(error) if error.would_block() => ready.clear_ready(),
            result => return Poll::Ready(result),
        }
    }
}
