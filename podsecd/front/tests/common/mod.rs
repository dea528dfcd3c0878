//! A front between a pretended gate and a real client.
#![allow(dead_code, reason = "each test uses its part")]

use hyper_util::rt::TokioIo;
use podsec_wire::Channel;
use podsec_wire::messages::{Answer, FromFront, Reply, ToFront};
use podsecd_front::gate::Gate;
use podsecd_front::serve::{Limits, serve};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tonic::transport::{Channel as Client, Endpoint};

/// Fast enough for a test, slow enough for a busy machine.
pub fn limits() -> Limits {
    let ms = Duration::from_millis;
    Limits {
        first: ms(600),
        idle: ms(900),
        message: ms(400),
        grace: ms(500),
        linger: ms(300),
        watch: ms(50),
        ..Limits::default()
    }
}

/// The gate's end, the caller's end, and the front between them.
pub struct Stage {
    pub gate: Channel,
    pub caller: UnixStream,
    pub front: JoinHandle<()>,
}

pub fn start(limits: Limits, reflection: bool) -> Stage {
    let (gate, theirs) = Channel::pair().unwrap();
    let (caller, connection) = UnixStream::pair().unwrap();
    let front = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let gate = Gate::new(theirs, limits.grace).unwrap();
            connection.set_nonblocking(true).unwrap();
            serve(tokio::net::UnixStream::from_std(connection).unwrap(), gate, limits, reflection).await;
        });
    });
    Stage { gate, caller, front }
}

/// A gRPC client on the connection.
pub async fn client(caller: UnixStream) -> Client {
    caller.set_nonblocking(true).unwrap();
    let once = Mutex::new(Some(caller));
    let connector = tower::service_fn(move |_| {
        let caller = once.lock().unwrap().take();
        async move {
            let caller = caller.ok_or(std::io::ErrorKind::NotConnected)?;
            Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::from_std(caller)?))
        }
    });
    Endpoint::from_static("http://podsec").connect_with_connector(connector).await.unwrap()
}

/// The next message of the front, which must come soon.
pub fn next(gate: &Channel) -> FromFront {
    gate.receive_within(Duration::from_secs(5)).unwrap().expect("the front has closed its channel").0
}

/// The next request.
pub fn request(gate: &Channel) -> (u32, podsec_policy::Operation) {
    match next(gate) {
        FromFront::Request { id, operation } => (id, operation),
        other => panic!("{other:?}"),
    }
}

pub fn answer(gate: &Channel, id: u32, answer: Answer) {
    gate.send(&ToFront::Answer { id, answer }, &[]).unwrap();
}

/// Accepts; gives the worker's end of the reply channel.
pub fn accept(gate: &Channel, id: u32) -> Channel {
    accept_with(gate, id, None)
}

/// Accepts, with an answer of the gate's own before the worker's.
pub fn accept_with(gate: &Channel, id: u32, first: Option<Reply>) -> Channel {
    let (worker, theirs) = Channel::pair().unwrap();
    gate.send(&ToFront::Accepted { id, first }, &[theirs.as_fd()]).unwrap();
    worker
}

pub fn reply(worker: &Channel, reply: &Reply) {
    worker.send(reply, &[]).unwrap();
}

/// Did the other side hang up, within a few seconds?
pub fn hung_up(channel: &Channel) -> bool {
    matches!(
        channel.receive_within::<FromFront>(Duration::from_secs(5)),
        Ok(None) | Err(podsec_wire::WireError::Io(_))
    )
}

/// Reads to the end of the connection, and says how long that took. The end may be a reset.
pub fn until_closed(caller: &mut UnixStream) -> Duration {
    let start = Instant::now();
    caller.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        match caller.read(&mut buffer) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("{error}"),
        }
    }
}
