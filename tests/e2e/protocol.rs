//! Threats 58 to 61: callers who flood, stall, send what is no HTTP/2, give away descriptors, or use up what the host has.
//! Each as a uid of his own, while another uid is served. HTTP/2 is written by hand here (RFC 9113, RFC 7541), since no
//! library sends such things.

use crate::Test;
use hyper::body::{Body, Frame};
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::client::namespace_service_client::NamespaceServiceClient;
use podsec_proto::v1;
use podsec_sys::socket::{self, Kind};
use podsec_tests::host::Edited;
use podsec_tests::oracle::{Oracle, descriptors};
use podsec_tests::people::{self, ALICE};
use podsec_tests::role::{self, Role};
use podsec_tests::{client, host};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tower::Service as _;

pub const TESTS: &[Test] = &[
    ("protocol::t58_rapid_reset", |oracle| abuse(oracle, "rapid-reset", 7010, "closed, calm down")),
    ("protocol::t58_continuation_flood", |oracle| abuse(oracle, "continuation", 7011, "closed, calm down")),
    ("protocol::t58_empty_data_flood", |oracle| abuse(oracle, "empty-data", 7012, "closed, calm down")),
    ("protocol::t58_settings_flood", |oracle| abuse(oracle, "settings", 7013, "closed, no error")),
    ("protocol::t58_ping_flood", |oracle| abuse(oracle, "ping", 7014, "closed, no error")),
    ("protocol::t58_hpack_bomb", |oracle| abuse(oracle, "hpack-bomb", 7015, "closed, calm down")),
    ("protocol::t58_zero_window", |oracle| abuse(oracle, "zero-window", 7016, "open, no error")),
    ("protocol::t58_http1", |oracle| abuse(oracle, "http1", 7017, "closed")),
    ("protocol::t58_tls_hello", |oracle| abuse(oracle, "tls-hello", 7018, "closed")),
    ("protocol::t58_random_bytes", |oracle| abuse(oracle, "random-bytes", 7019, "closed")),
    ("protocol::t58_request_flood", t58_request_flood),
    ("protocol::t58_cancelled_requests", t58_cancelled_requests),
    ("protocol::t59_slowloris", t59_slowloris),
    ("protocol::t59_connect_and_close", t59_connect_and_close),
    ("protocol::t60_gifts_of_descriptors", t60_gifts_of_descriptors),
    ("protocol::t61_no_descriptors_left", t61_no_descriptors_left),
    ("protocol::t61_no_processes_left", t61_no_processes_left),
    ("protocol::no_request_at_all", no_request_at_all),
];

pub const ROLES: &[Role] = &[
    ("measure", measure),
    ("abuse", play_abuse),
    ("ask", ask),
    ("cancel", cancel),
    ("stall", stall),
    ("knock", knock),
    ("give", give),
    ("use-up-processes", use_up_processes),
    ("say-anything", say_anything),
];

/// What a caller who floods, stalls or sends garbage may add to the p99 of another uid.
const MAY_ADD: Duration = Duration::from_millis(100);
/// What he may add to the memory of the front that hears him, in KiB.
const MAY_GROW: u64 = 20 << 10;

fn seconds(argument: &str) -> Instant {
    Instant::now() + Duration::from_secs_f64(argument.parse().expect("seconds"))
}

/// Refusals recorded of a uid, by reason, those counted included.
fn refusals(oracle: &Oracle, uid: u32) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for record in oracle.audit().iter().filter(|record| record["uid"] == uid) {
        assert_eq!(record["phase"], "deny", "{record}");
        let reason = record["reason"].as_str().unwrap().to_owned();
        *found.entry(reason).or_default() += record["suppressed"].as_u64().unwrap_or(1);
    }
    found
}

// ---- another uid, meanwhile

/// Calls WhoAmI for so many seconds, on a new connection and on a kept one in turn; prints how long it took.
fn measure(arguments: &[String]) {
    let end = seconds(&arguments[0]);
    let (mut fresh, mut kept) = (Vec::new(), Vec::new());
    let ask = async |service: &mut IdentityServiceClient<_>| {
        let call = service.who_am_i(v1::WhoAmIRequest {});
        tokio::time::timeout(Duration::from_secs(10), call).await.expect("an answer").expect("whoami");
    };
    client::block_on(async {
        // As podsecctl connects: waiting for its place in the queue.
        let connect = || UnixStream::connect(client::SOCKET).expect("podsecd");
        let mut service = IdentityServiceClient::new(client::over(connect()).await);
        while Instant::now() < end {
            let begin = Instant::now();
            ask(&mut IdentityServiceClient::new(client::over(connect()).await)).await;
            fresh.push(begin.elapsed());
            let begin = Instant::now();
            ask(&mut service).await;
            kept.push(begin.elapsed());
        }
    });
    for mut times in [fresh, kept] {
        times.sort();
        let at = |share: usize| times[(times.len() * share).div_ceil(100) - 1].as_micros();
        println!("{} {} {} {}", times.len(), at(50), at(99), at(100));
    }
}

/// Of the calls of a bystander.
struct Latency {
    calls: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl std::fmt::Display for Latency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, p50, p99, max } = self;
        write!(f, "{calls} calls, p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}")
    }
}

/// The bystander's calls while something else goes on: on new connections, and on a kept one.
fn bystander(seconds: &str) -> [Latency; 2] {
    let text = role::start("7001", "measure", &[seconds]).finish();
    let latency = |line: &str| {
        let number: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
        let time = |index: usize| Duration::from_micros(number[index]);
        Latency { calls: number[0] as usize, p50: time(1), p99: time(2), max: time(3) }
    };
    let both: Vec<_> = text.lines().map(latency).collect();
    both.try_into().ok().expect("two lines")
}

/// Plays a role, and compares what a bystander has meanwhile with what he has otherwise; gives what the role printed.
/// What else the machine does only ever makes it worse, so a round that is over the bound is repeated, twice at most.
fn others_are_served(what: &str, who: &str, role: &str, arguments: &[&str]) -> Vec<String> {
    // Once for all tests: what he has when nobody disturbs.
    static QUIET: std::sync::OnceLock<[Latency; 2]> = std::sync::OnceLock::new();
    let quiet = QUIET.get_or_init(|| bystander("2"));
    let mut printed = Vec::new();
    for round in 1.. {
        let actor = role::start(who, role, arguments);
        // Until it is under way.
        std::thread::sleep(Duration::from_millis(300));
        let during = bystander("2");
        printed.push(actor.finish());
        let mut late = None;
        for ((kind, with), without) in ["new connections", "one connection"].iter().zip(&during).zip(quiet) {
            println!("{what}, {kind}: {with}; undisturbed: {without}");
            late = late.max(Some(with.p99).filter(|&p99| p99 > without.p99 + MAY_ADD));
        }
        match late {
            None => break,
            Some(p99) => assert!(round < 3, "{what}: another uid's p99 is {p99:?}"),
        }
    }
    printed
}

// ---- HTTP/2 by hand

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal without indexing, new name.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|&length| length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The header block of a call.
fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "podsecd"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

const WHOAMI: &str = "/podsec.v1.IdentityService/WhoAmI";
/// A message of no bytes, not compressed (grpc/doc/PROTOCOL-HTTP2.md).
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// A connection that counts what it sends.
struct Line {
    stream: UnixStream,
    sent: usize,
}

/// How the other side took it.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It closed.
    Closed,
    /// It has not read for a second: no memory of its own is used up.
    Blocked,
    /// All was taken.
    Open,
}

impl Line {
    fn connect() -> Self {
        let stream = UnixStream::connect(client::SOCKET).expect("podsecd");
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { stream, sent: 0 }
    }

    /// After preface and settings.
    fn open(settings: &[u8]) -> Self {
        let mut line = Self::connect();
        line.send(&[PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        line
    }

    fn send(&mut self, bytes: &[u8]) -> End {
        let mut left = bytes;
        while !left.is_empty() {
            match self.stream.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return End::Blocked,
                Err(_) => return End::Closed,
            }
        }
        self.sent += 1;
        End::Open
    }

    /// Sends the same again and again.
    fn flood(&mut self, times: usize, mut piece: impl FnMut(usize) -> Vec<u8>) -> End {
        for index in 0..times {
            match self.send(&piece(index)) {
                End::Open => {}
                end => return end,
            }
        }
        End::Open
    }

    /// Reads until the other side closes, or for so long.
    fn read(&mut self, within: Duration) -> (Vec<u8>, bool) {
        let (mut bytes, mut piece, end) = (Vec::new(), [0; 65536], Instant::now() + within);
        while Instant::now() < end {
            match self.stream.read(&mut piece) {
                Ok(0) => return (bytes, true),
                Ok(count) => bytes.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return (bytes, true),
            }
        }
        (bytes, false)
    }
}

/// Kind, stream and payload of each whole frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        found.push((head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload));
        bytes = rest;
    }
    found
}

/// Does one kind of abuse again and again until the time is over, on new connections and four at once; prints what
/// became of each.
fn play_abuse(arguments: &[String]) {
    let end = seconds(&arguments[1]);
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            let kind = &arguments[0];
            scope.spawn(move || {
                let mut random = seed;
                while Instant::now() < end {
                    println!("{}", one_abuse(kind, &mut random, end));
                }
            });
        }
    });
}

fn one_abuse(kind: &str, random: &mut u64, end: Instant) -> String {
    let headers = |stream: u32, flags| frame(HEADERS, flags, stream, &call(WHOAMI));
    let odd = |index: usize| u32::try_from(2 * index + 1).unwrap();
    let times = 100_000;
    let mut line = match kind {
        "http1" | "tls-hello" | "random-bytes" => Line::connect(),
        // SETTINGS_INITIAL_WINDOW_SIZE 0
        "zero-window" => Line::open(&[0, 4, 0, 0, 0, 0]),
        _ => Line::open(&[]),
    };
    let mut patience = Duration::from_secs(8);
    match kind {
        // CVE-2023-44487
        "rapid-reset" => line.flood(times, |index| {
            let reset = frame(RST_STREAM, 0, odd(index), &[0, 0, 0, 8]);
            [headers(odd(index), END_HEADERS), reset].concat()
        }),
        // CVE-2024-27316, RUSTSEC-2024-0332
        "continuation" => {
            line.send(&headers(1, 0));
            line.flood(times, |_| frame(CONTINUATION, 0, 1, &field("x-more", "and more")))
        }
        // RUSTSEC-2026-0258
        "empty-data" => {
            line.send(&headers(1, END_HEADERS));
            line.flood(times, |_| frame(DATA, 0, 1, &[]).repeat(10))
        }
        // Without reading the answers: sooner or later nobody reads any more of these either.
        "settings" => line.flood(times, |_| frame(SETTINGS, 0, 0, &[]).repeat(10)),
        "ping" => line.flood(times, |_| frame(PING, 0, 0, b"are you?").repeat(10)),
        // One long field goes into the table, and is then named by one byte again and again.
        "hpack-bomb" => line.flood(1000, |index| {
            let bomb = [&[0x40, 1, b'x', 0x7f, 0x81, 0x1e][..], &[b'y'; 4000], &[0xbe; 8000]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM, odd(index), &[call(WHOAMI), bomb].concat())
        }),
        // As many calls as one connection may have, and no window for any answer.
        "zero-window" => {
            patience = end.saturating_duration_since(Instant::now());
            line.flood(podsec_policy::config::MAX_STREAMS as usize, |index| {
                let message = frame(DATA, END_STREAM, odd(index), EMPTY_MESSAGE);
                [headers(odd(index), END_HEADERS), message].concat()
            })
        }
        "http1" => line.send(b"POST /podsec.v1.IdentityService/WhoAmI HTTP/1.1\r\nHost: podsecd\r\n\r\n"),
        // Type handshake, TLS 1.0, ClientHello.
        "tls-hello" => line.send(&[&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 505]].concat()),
        "random-bytes" => line.flood(16, |_| {
            let byte = |_| {
                *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (*random >> 56) as u8
            };
            (0..4096).map(byte).collect()
        }),
        _ => panic!("no abuse {kind}"),
    };
    let (bytes, closed) = line.read(patience);
    // RFC 9113 §7; what the answer to the first frames of HTTP/1 says is a GOAWAY only by chance.
    let goaway = frames(&bytes).iter().find(|(kind, ..)| *kind == GOAWAY).map(|(.., payload)| payload[7]);
    let error = match goaway {
        None if closed => "",
        None | Some(0) => ", no error",
        Some(11) => ", calm down",
        Some(_) => ", another error",
    };
    format!("{}{error}", if closed { "closed" } else { "open" })
}

/// The fronts of this moment.
fn fronts() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_front = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "podsecd-front\n")
    };
    pids.filter(is_front).collect()
}

/// A line of `/proc/PID/status`, in KiB.
fn memory(pid: i32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Does something, and gives the most that `look` saw meanwhile.
fn watch<T>(look: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut most = look();
            while !over.load(Ordering::Relaxed) {
                most = most.max(look());
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        (done, looking.join().unwrap())
    })
}

fn abuse(oracle: &mut Oracle, kind: &str, uid: u32, expected: &str) {
    let highest = || fronts().into_iter().map(|pid| memory(pid, "VmHWM")).max().unwrap_or(0);
    let (idle, gate) = (highest(), memory(host::daemon_pid(), "VmHWM"));
    let (text, most) = watch(highest, || others_are_served(kind, &uid.to_string(), "abuse", &[kind, "2.5"]));
    let text = text.concat();
    println!("{} connections; KiB of a front: {idle} before, {most} at most", text.lines().count());
    assert!(most <= idle + MAY_GROW, "a front grew to {most} KiB");
    let gate_now = memory(host::daemon_pid(), "VmHWM");
    assert!(gate_now <= gate + 1024, "podsecd grew from {gate} to {gate_now} KiB");
    for line in text.lines() {
        assert_eq!(line, expected, "{text}");
    }
    let recorded = refusals(oracle, uid);
    let is_breach = !expected.ends_with("no error");
    assert_eq!(recorded.keys().map(String::as_str).collect::<Vec<_>>(), ["protocol"][..is_breach.into()]);
}

// ---- too much of what is allowed

/// Calls WhoAmI on sixty connections, eight calls at once on each, by four threads; prints how many it made.
fn ask(arguments: &[String]) {
    let end = seconds(&arguments[0]);
    let asking = move || {
        let mut lines: Vec<_> = (0..15).map(|_| Line::open(&[])).collect();
        let (mut calls, mut read, mut piece) = (0, Vec::new(), [0; 65536]);
        while Instant::now() < end {
            let call = |stream| {
                let message = frame(DATA, END_STREAM, stream, EMPTY_MESSAGE);
                [frame(HEADERS, END_HEADERS, stream, &call(WHOAMI)), message].concat()
            };
            let window = frame(WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes());
            let eight = [window, (0..8).flat_map(|index| call(2 * (calls + index) + 1)).collect()].concat();
            for line in &mut lines {
                assert_eq!(line.send(&eight), End::Open);
            }
            calls += 8;
            for line in &mut lines {
                line.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                // A header frame before each answer, and one after it.
                while frames(&read).iter().filter(|(kind, ..)| *kind == HEADERS).count() < 16 {
                    let count = line.stream.read(&mut piece).expect("an answer");
                    assert!(count > 0, "closed");
                    read.extend_from_slice(&piece[..count]);
                }
                read.clear();
            }
        }
        calls * 15
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(asking)).collect();
    println!("{}", threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u32>());
}

fn t58_request_flood(oracle: &mut Oracle) {
    let made = others_are_served("480 requests at once", "7020", "ask", &["2.5"]);
    println!("requests on 60 connections: {}", made.concat().trim());
    assert!(oracle.audit().is_empty());
}

/// Asks for a look at the namespaces and gives up at any moment of it, again and again.
fn cancel(arguments: &[String]) {
    client::block_on(async {
        let mut service = client::namespace().await;
        for index in 0..arguments[0].parse().expect("a number") {
            let call = service.inspect(v1::InspectRequest {});
            let _ = tokio::time::timeout(Duration::from_micros(index * 97 % 5000), call).await;
        }
    });
}

fn t58_cancelled_requests(oracle: &mut Oracle) {
    others_are_served("cancelled requests", ALICE, "cancel", &[&host::count(300, 5000).to_string()]);
    // CVE-2020-1712: each was carried out whole, or not begun.
    host::wait_for("every intent to have its outcome", || {
        oracle.audit().last().is_some_and(|record| record["phase"] != "intent")
    });
    let mut begun = BTreeMap::<String, Vec<Value>>::new();
    for record in oracle.audit() {
        if record["phase"] == "deny" {
            // He ended before his last ones were judged.
            assert_eq!(record["reason"], "peer-gone", "{record}");
            continue;
        }
        begun.entry(record["id"].as_str().expect("an operation").into()).or_default().push(record);
    }
    println!("{} were begun", begun.len());
    assert!(!begun.is_empty());
    for records in begun.values() {
        assert!(
            matches!(&records[..], [a, b] if a["phase"] == "intent" && b["phase"] == "done"),
            "{records:#?}"
        );
    }
}

// ---- too many connections

/// Keeps connections open on which nothing is said, or a byte a while; prints how many it had, and for how long.
fn stall(arguments: &[String]) {
    let start = Instant::now();
    let number = |index: usize| arguments[index].parse::<usize>().expect("a number");
    let mut held: Vec<_> = (0..number(0)).map(|_| Line::connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let mut alive = |trickle: Option<usize>| {
        held.retain_mut(|line| {
            if let Some(next) = trickle.filter(|&at| at < PREFACE.len()) {
                line.send(&PREFACE[next..=next]);
            }
            line.stream.set_nonblocking(true).unwrap();
            matches!(line.stream.read(&mut [0; 64]), Ok(1..)) || {
                line.stream.read(&mut [0; 64]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            }
        });
        held.len()
    };
    println!("{}", alive(None));
    for at in 0.. {
        if alive((number(1) == 1).then_some(at)) == 0 || start.elapsed() > Duration::from_secs(20) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("{}", start.elapsed().as_millis());
}

fn t59_slowloris(oracle: &mut Oracle) {
    let (many, mut refused) = (host::count(300, 5000), BTreeMap::new());
    for (trickle, uid) in [("0", 7022), ("1", 7023)] {
        let arguments = [&*many.to_string(), trickle];
        let text = others_are_served("connections without a request", &uid.to_string(), "stall", &arguments);
        for round in &text {
            let numbers: Vec<u64> = round.lines().map(|line| line.parse().unwrap()).collect();
            println!("{many} connections, {} held, all closed after {} ms", numbers[0], numbers[1]);
            assert_eq!(numbers[0], 64, "limits.connections_per_uid");
            // Five seconds for the first request, one for taking note.
            assert!(numbers[1] < 10_000, "{numbers:?}");
        }
        refused.insert(uid, (many - 64) * text.len());
    }
    // What was counted and not written is said in one record: at the end, or every minute.
    oracle.restart_daemon();
    for (uid, count) in refused {
        let counted = BTreeMap::from([("connection-limit".to_owned(), count as u64)]);
        assert_eq!(refusals(oracle, uid), counted);
    }
    assert!(oracle.audit().len() < 150, "every refusal has a record of its own");
}

/// Connects and closes as fast as it can, four at once.
fn knock(arguments: &[String]) {
    let end = seconds(&arguments[0]);
    let knocking = move || {
        let mut count = 0_u64;
        while Instant::now() < end {
            drop(UnixStream::connect(client::SOCKET).expect("podsecd"));
            count += 1;
        }
        count
    };
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(knocking)).collect();
    println!("{}", threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>());
}

fn t59_connect_and_close(oracle: &mut Oracle) {
    let made = others_are_served("connecting and closing", "7024", "knock", &["2.5"]);
    println!("connections: {}", made.concat().trim());
    assert!(refusals(oracle, 7024).keys().all(|reason| reason == "connection-limit"));
}

// ---- descriptors and processes

/// Sends 253 descriptors (SCM_MAX_FD) at a time: with a PING on one connection, and with what might be a ticket.
fn give(arguments: &[String]) {
    let gift = std::fs::File::open("/dev/null").unwrap();
    let gift = vec![gift.as_fd(); 253];
    let mut line = Line::open(&[]);
    line.read(Duration::from_millis(300));
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..arguments[0].parse().expect("a number") {
        socket::send(&line.stream, &frame(PING, 0, 0, b"for you!"), &gift).expect("podsecd takes it");
        answered += usize::from(line.stream.read(&mut [0; 64]).is_ok_and(|count| count >= 17));
        let attach = socket::connect(Path::new(podsec_policy::config::ATTACH_PATH), Kind::Packet).unwrap();
        socket::send(&attach, &[7; 32], &gift).unwrap();
        refused +=
            usize::from(socket::receive(&attach, &mut [0; 64]).is_ok_and(|(_, gifts)| gifts.is_empty()));
    }
    println!("{answered} {refused}");
}

fn t60_gifts_of_descriptors(oracle: &mut Oracle) {
    let (times, daemon) = (host::count(300, 10_000), host::daemon_pid());
    let before = descriptors(daemon);
    let actor = role::start("7025", "give", &[&times.to_string()]);
    let most_of_fronts = || fronts().into_iter().map(descriptors).max().unwrap_or(0) as u64;
    let ((text, front), gate) =
        watch(|| descriptors(daemon) as u64, || watch(most_of_fronts, || actor.finish()));
    println!("descriptors of podsecd: {before} before, {gate} at most; of a front: {front} at most");
    // One connection, one that attaches, and the processes that are kept ready.
    assert!(gate <= before as u64 + 12, "podsecd keeps gifts");
    assert!(front <= 12, "a front keeps gifts");
    assert_eq!(text.trim(), format!("{times} {times}"));
    let recorded = refusals(oracle, 7025);
    assert_eq!(recorded.keys().collect::<Vec<_>>(), ["bad-ticket"]);
}

/// Sets a limit of the running podsecd; gives what it was.
fn limit(resource: &str, to: &str) -> String {
    let pid = host::daemon_pid().to_string();
    let prlimit = |arguments: &[&str]| {
        host::run(std::process::Command::new("/usr/bin/prlimit").args(["--pid", &pid]).args(arguments))
    };
    let was = prlimit(&[&format!("--{resource}"), "--raw", "--noheadings", "--output=SOFT"]);
    prlimit(&[&format!("--{resource}={to}")]);
    format!("{}:", was.trim())
}

fn t61_no_descriptors_left(oracle: &mut Oracle) {
    // The soft limit only: the hard one could not be raised again.
    let (usual, before) = (limit("nofile", "64:"), descriptors(host::daemon_pid()));
    let hog = role::start("7026", "stall", &["63", "0"]);
    let daemon = host::daemon_pid();
    host::wait_for("podsecd to have no descriptors left", || descriptors(daemon) >= 62);
    // Read again while it cannot be read: nobody may lose his role by that for longer than it lasts.
    let group = std::fs::read("/etc/group").unwrap();
    std::fs::write("/etc/group", &group).unwrap();
    let mut outcomes = BTreeMap::<String, usize>::new();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let mut enter = people::command(ALICE, "/usr/bin/timeout");
        let output = enter.args(["1", "podsecctl", "--json", "enter", "--", "true"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_default();
        let reason = told["error"]["reason"].as_str().unwrap_or_default();
        *outcomes.entry(format!("{} {reason}", output.status.code().unwrap())).or_default() += 1;
    }
    drop(hog);
    let start = Instant::now();
    people::enter(ALICE, &["true"]);
    println!("meanwhile: {outcomes:?}; works again after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(1));
    limit("nofile", &usual);
    host::wait_for("what is kept ready", || descriptors(daemon) >= before);
    // Waiting in vain, being sent away, and getting through; but nobody is told that he may not.
    let fine = ["0 ", "124 ", "75 closed", "75 resources"];
    assert!(outcomes.keys().all(|outcome| fine.contains(&&**outcome)), "{outcomes:?}");
    assert!(outcomes.keys().any(|outcome| outcome != "0 "), "{outcomes:?}: nothing was short");
    for record in oracle.audit() {
        let is_fine = record["phase"] != "deny" || record["reason"] == "resources" || record["uid"] == 7026;
        assert!(is_fine && record["reason"] != "audit-unavailable", "{record}");
    }
}

/// Starts threads until the kernel has no number for another one, and takes each that becomes free; ends when killed.
fn use_up_processes(_: &[String]) {
    let sleep = || {
        loop {
            std::thread::park()
        }
    };
    loop {
        while std::thread::Builder::new().stack_size(64 << 10).spawn(sleep).is_ok() {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn t61_no_processes_left(oracle: &mut Oracle) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (version.next(), version.next()) < (Some(6), Some(14)) {
        println!(
            "not run: before Linux 6.14 the number of processes of a pid namespace has no limit of its own"
        );
        return;
    }
    const MOST: &str = "/proc/sys/kernel/pid_max";
    let before = descriptors(host::daemon_pid());
    client::block_on(async {
        let channel = client::connect().await.expect("podsecd");
        let mut service = NamespaceServiceClient::new(channel.clone());
        service.inspect(v1::InspectRequest {}).await.expect("inspect");
        let few = Edited::with(MOST, |_| "400".to_owned());
        let hog = role::start("7027", "use-up-processes", &[]);
        let spawn = || std::process::Command::new("/bin/true").spawn().map(|mut child| child.wait());
        host::wait_for("no process to be possible", || spawn().is_err());
        // Those that were kept ready are used up, and there are no others.
        let _fronts: Vec<_> = (0..3).map(|_| UnixStream::connect(client::SOCKET).expect("podsecd")).collect();
        // Each worker that ends leaves a number, and podsecd may be there for it before the other is.
        let (mut refused, end) = (None, Instant::now() + Duration::from_secs(10));
        while refused.is_none() && Instant::now() < end {
            refused = service.inspect(v1::InspectRequest {}).await.err();
        }
        let refused = refused.expect("a refusal");
        assert_eq!(
            (refused.code(), &*client::reason(&refused)),
            (tonic::Code::ResourceExhausted, "resources")
        );
        let who = IdentityServiceClient::new(channel).who_am_i(v1::WhoAmIRequest {}).await;
        who.expect("what needs no process goes on");
        drop(hog);
        let start = Instant::now();
        host::wait_for("processes to be possible again", || spawn().is_ok());
        service.inspect(v1::InspectRequest {}).await.expect("inspect");
        println!("works again after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1));
        drop(few);
    });
    host::wait_for("what is kept ready", || descriptors(host::daemon_pid()) >= before);
    let denials = oracle.audit().into_iter().filter(|record| record["phase"] == "deny");
    assert!(denials.into_iter().all(|record| record["reason"] == "resources"));
}

// ---- what is no request

/// A body of any bytes.
struct Bytes(Option<bytes::Bytes>);

impl Body for Bytes {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A message as gRPC sends it.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A field of protobuf (protobuf.dev/programming-guides/encoding): wire type 2, bytes.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        field.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    field.push(u8::try_from(length).unwrap());
    [field, bytes.to_vec()].concat()
}

const JSON: &str = "application/json";
const GRPC: &str = "application/grpc";
const ENTER: &str = "/podsec.v1.NamespaceService/Enter";

/// What is sent: path, content type and body; and the reason that comes back, with the operation that the audit names.
fn nonsense() -> Vec<(&'static str, &'static str, Vec<u8>, &'static str, &'static str)> {
    let who = |body: Vec<u8>| (WHOAMI, GRPC, body, "protocol", "IdentityService/WhoAmI");
    let enter = |body: Vec<u8>, reason| (ENTER, GRPC, message(&body), reason, "NamespaceService/Enter");
    let unknown = |path| (path, GRPC, message(&[]), "unknown-method", "");
    let limit = podsec_policy::config::MAX_MESSAGE;
    let argv = bytes_field(1, b"true");
    vec![
        who(message(&vec![0; limit + 1])),
        // What the length says counts, before a byte of it is there.
        who([&[0, 255, 255, 255, 255][..], &[0; 64]].concat()),
        who(message(&[])[..4].to_vec()),
        who([message(&[]), message(&[])].concat()),
        who(Vec::new()),
        // Compressed, without a word about how.
        who(vec![1, 0, 0, 0, 0]),
        // A field that the message does not have: as a number, as bytes, and as groups without end.
        who(message(&[8, 1])),
        who(message(&bytes_field(15, b"claimed uid"))),
        who(message(&[0x0b; 10_000])),
        // A number without an end, and a field without its bytes.
        who(message(&[0xff; 11])),
        who(message(&[0x0a, 200])),
        enter([bytes_field(1, &argv), bytes_field(7, b"root")].concat(), "protocol"),
        enter(bytes_field(1, &[argv.clone(), bytes_field(2, b"root")].concat()), "protocol"),
        // env[0].name in no UTF-8
        enter([bytes_field(1, &argv), bytes_field(4, &bytes_field(1, b"\xff"))].concat(), "protocol"),
        enter(bytes_field(1, &bytes_field(1, b"").repeat(100_000)), "empty-argv"),
        enter(bytes_field(1, &argv.repeat(30_000)), "bad-argument"),
        unknown("/"),
        unknown("//"),
        unknown("/podsec.v1.IdentityService/WhoAmI/"),
        unknown("/podsec.v1.IdentityService/whoami"),
        unknown("/podsec.v1.IdentityService/%57hoAmI"),
        unknown("/podsec.v1.IdentityService"),
        unknown("/podsec.v2.IdentityService/WhoAmI"),
        unknown("/podsec.v1.UserService/CreateClusterUser"),
        unknown("/../../etc/passwd"),
        unknown("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        (WHOAMI, JSON, b"{}".to_vec(), "", ""),
        (WHOAMI, "application/grpcs", message(&[]), "", ""),
    ]
}

/// Sends all of it; prints HTTP status, gRPC code and reason of each answer.
fn say_anything(_: &[String]) {
    client::block_on(async {
        let mut channel = client::connect().await.expect("podsecd");
        for (path, kind, body, ..) in nonsense() {
            let request = http::Request::post(format!("http://podsecd{path}")).header("content-type", kind);
            let request =
                request.header("te", "trailers").body(tonic::body::Body::new(Bytes(Some(body.into()))));
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await.expect("a connection");
            let response = channel.call(request.unwrap()).await.expect("an answer");
            let status = tonic::Status::from_header_map(response.headers());
            let (code, reason) = status
                .map_or((0, String::new()), |status| (i32::from(status.code()), client::reason(&status)));
            println!("{} {code} {reason}", response.status().as_u16());
        }
    });
}

fn no_request_at_all(oracle: &mut Oracle) {
    let text = role::start("7028", "say-anything", &[]).finish();
    assert_eq!(text.lines().count(), nonsense().len(), "{text}");
    for ((path, kind, body, reason, _), answer) in nonsense().into_iter().zip(text.lines()) {
        let expected = match reason {
            "" => "415 0 ".to_owned(),
            "unknown-method" => format!("200 {} {reason}", i32::from(tonic::Code::Unimplemented)),
            _ => format!("200 {} {reason}", i32::from(tonic::Code::InvalidArgument)),
        };
        assert_eq!(answer, expected, "{path} {kind} {:?}", &body[..body.len().min(40)]);
    }
    let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let records = oracle.audit();
    let recorded: Vec<_> = records
        .iter()
        .map(|record| (text(record, "phase"), text(record, "reason"), text(record, "op")))
        .collect();
    let expected: Vec<_> = nonsense()
        .into_iter()
        .map(|(.., reason, op)| {
            ("deny".to_owned(), if reason.is_empty() { "protocol" } else { reason }.to_owned(), op.to_owned())
        })
        .collect();
    assert_eq!(recorded, expected);
}
