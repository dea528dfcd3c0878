//! One connection: HTTP/2 with every limit set, and an end for whoever says nothing.

use crate::dispatch::Front;
use crate::gate::Gate;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use podsec_policy::Reason;
use podsec_policy::config::MAX_STREAMS;
use std::error::Error as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

/// How long of everything.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the connection to the first complete request.
    pub first: Duration,
    /// From the end of the last request under way to the end of the connection.
    pub idle: Duration,
    /// From a request's headers to its last byte.
    pub message: Duration,
    /// For the gate's word on a lost worker, and for calls under way when the gate itself is gone.
    pub grace: Duration,
    /// For a caller to take note that the connection ends.
    pub linger: Duration,
    /// Between two looks of a health watch.
    pub watch: Duration,
    /// HTTP/2 PING (RFC 9113 §6.7) after this much silence.
    pub ping: Duration,
    /// For its answer.
    pub pong: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            message: Duration::from_secs(5),
            grace: Duration::from_secs(2),
            linger: Duration::from_secs(1),
            watch: Duration::from_secs(5),
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(10),
        }
    }
}

/// Longest header list, RFC 9113 §6.5.2: gRPC needs a few hundred bytes. Bounds CONTINUATION floods too.
const MAX_HEADERS: u32 = 8 * 1024;
/// Receive windows: what a caller may send before anybody reads it, in a stream and in all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// What may wait to be sent, a stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that the caller reset before we looked at them (CVE-2023-44487), and streams that we reset for a
/// caller's errors (RUSTSEC-2024-0003): beyond this the connection ends.
const MAX_RESETS: usize = 2 * MAX_STREAMS as usize;

/// Serves the connection until it ends, for whatever reason.
pub async fn serve(stream: UnixStream, gate: Arc<Gate>, limits: Limits, reflection: bool) {
    let activity = Arc::new(Activity::new(Instant::now() + limits.first));
    let front = Arc::new(Front::new(Arc::clone(&gate), Arc::clone(&activity), limits, reflection));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.pong)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| Arc::clone(&front).call(request)));
    let mut connection = pin!(connection);
    let mut listening = pin!(gate.listen());
    let mut timer = pin!(sleep_until(activity.deadline(limits.idle)));
    let (mut gate_is_there, mut closing) = (true, false);
    let result = loop {
        tokio::select! {
            biased;
            () = listening.as_mut(), if gate_is_there => {
                gate_is_there = false;
                closing = true;
                timer.as_mut().reset(Instant::now() + limits.grace + limits.linger);
                connection.as_mut().graceful_shutdown();
            }
            result = connection.as_mut() => break result,
            () = timer.as_mut() => {
                let (now, deadline) = (Instant::now(), activity.deadline(limits.idle));
                // A request that came just before the caller took note is still answered.
                if closing && (deadline <= now || !gate_is_there) {
                    return;
                }
                if !closing && deadline <= now {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                timer.as_mut().reset(if closing { now + limits.linger } else { deadline });
            }
        }
    };
    if result.is_err_and(|error| is_callers_fault(&error)) {
        let _ = timeout(limits.linger, gate.malformed(None, Reason::Protocol)).await;
    }
}

/// Did he send what is not HTTP/2, or broke its rules? One who hangs up, or says himself that he gives up, did not.
fn is_callers_fault(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| !cause.is_io() && !cause.is_remote())
}

/// When requests were under way.
#[derive(Debug)]
pub struct Activity(Mutex<Times>);

#[derive(Debug)]
struct Times {
    under_way: usize,
    first: Instant,
    last: Option<Instant>,
}

impl Activity {
    /// The first request must be complete by then.
    #[must_use]
    pub fn new(first: Instant) -> Self {
        Self(Mutex::new(Times { under_way: 0, first, last: None }))
    }

    /// A request is complete, and is under way until the [`Busy`] is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.times().under_way += 1;
        Busy(Arc::clone(self))
    }

    /// Not before then is the connection to be closed.
    #[must_use]
    pub fn deadline(&self, idle: Duration) -> Instant {
        let times = self.times();
        match times.last {
            _ if times.under_way > 0 => Instant::now() + idle,
            Some(last) => last + idle,
            None => times.first,
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request is under way.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut times = self.0.times();
        times.under_way -= 1;
        times.last = Some(Instant::now());
    }
}
