//! The program itself, in its cage: what the kernel says of it, and that it serves from in there.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says so by ending"
)]

mod common;

use common::{accept, answer, client, next, reply, request};
use podsec_policy::peer::{Role, Roles};
use podsec_proto::client::audit_service_client::AuditServiceClient;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::client::namespace_service_client::NamespaceServiceClient;
use podsec_proto::v1::{EnterRequest, QueryRequest, VerifyRequest, WhoAmIRequest};
use podsec_sys::nix::unistd::geteuid;
use podsec_wire::Channel;
use podsec_wire::messages::{Answer, FromFront, Reply, ToFront};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

const FRONT: &str = env!("CARGO_BIN_EXE_podsecd-front");
/// Nobody's on any distribution: above the ids of people, below those of containers.
const ID: u32 = 64_001;

fn spawn() -> (Child, Channel) {
    let (gate, theirs) = Channel::pair().unwrap();
    let stdin = Stdio::from(OwnedFd::from(theirs));
    let mut command = Command::new(FRONT);
    command.args([ID.to_string(), ID.to_string()]).env_clear().stdin(stdin).stdout(Stdio::null());
    (command.spawn().unwrap(), gate)
}

fn is_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        println!("not root: a front cannot become another user, so this is left out");
    }
    root
}

fn status(child: &Child, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Warm is: everything is dropped, and nothing has been said yet.
fn wait_until_warm(child: &Child) {
    let start = Instant::now();
    while status(child, "Seccomp") != "2" {
        assert!(start.elapsed() < Duration::from_secs(10), "it never became warm");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn serve(gate: &Channel) -> UnixStream {
    let (caller, connection) = UnixStream::pair().unwrap();
    gate.send(&ToFront::Serve { reflection: true }, &[connection.as_fd()]).unwrap();
    caller
}

#[test]
fn everything_is_dropped_before_the_first_byte() {
    if !is_root() {
        return;
    }
    let (mut child, gate) = spawn();
    wait_until_warm(&child);
    let four = [ID; 4].map(|id| id.to_string()).join(" ");
    assert_eq!((status(&child, "Uid"), status(&child, "Gid")), (four.clone(), four));
    assert_eq!(status(&child, "Groups"), "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&child, set), "0000000000000000", "{set}");
    }
    for (key, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "1"), ("Threads", "1")] {
        assert_eq!(status(&child, key), value, "{key}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    for (name, most) in [("Max processes", "0"), ("Max core file size", "0"), ("Max open files", "64")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [most, most], "{name}");
    }
    // Undumpable: the kernel gives its files in /proc to root.
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid(), 0);
    // the channel, /dev/null, standard error, epoll with its waker
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
    assert!(open <= 6, "{open} descriptors are open");
    drop(gate);
    assert!(child.wait().unwrap().success());
}

/// Every way that a call can go, so that no system call is missing in the filter.
#[tokio::test]
async fn serves_from_inside() {
    if !is_root() {
        return;
    }
    let (mut child, gate) = spawn();
    wait_until_warm(&child);
    let caller = serve(&gate);
    let gate = std::thread::spawn(move || {
        for _ in 0..100 {
            let (id, _) = request(&gate);
            let roles = Roles::NONE.with(Role::Anyone);
            answer(&gate, id, Answer::WhoAmI { uid: 7, login_uid: None, roles });
        }
        for _ in 0..100 {
            let (id, _) = request(&gate);
            let worker = accept(&gate, id);
            reply(&worker, &Reply::Record("x".repeat(150_000)));
            reply(&worker, &Reply::End);
        }
        let (id, _) = request(&gate);
        let worker = accept(&gate, id);
        drop(worker);
        assert!(matches!(next(&gate), FromFront::Malformed { .. }));
        let (id, _) = request(&gate);
        answer(&gate, id, Answer::Health { audit_writable: true, connections: 0, sessions: 0, uptime: 0 });
        gate
    });
    let channel = client(caller).await;
    let mut identity = IdentityServiceClient::new(channel.clone());
    for _ in 0..100 {
        assert_eq!(identity.who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().uid, 7);
    }
    let mut audit = AuditServiceClient::new(channel.clone());
    for _ in 0..100 {
        let mut records = audit.query(QueryRequest { filter: None }).await.unwrap().into_inner();
        assert_eq!(records.message().await.unwrap().unwrap().json.len(), 150_000);
        assert!(records.message().await.unwrap().is_none());
    }
    // two seconds for the gate's word, by a timer
    assert_eq!(audit.verify(VerifyRequest {}).await.unwrap_err().code(), tonic::Code::Internal);
    let mut namespace = NamespaceServiceClient::new(channel.clone());
    let bad = namespace.enter(EnterRequest::default()).await.unwrap_err();
    assert_eq!(bad.code(), tonic::Code::InvalidArgument);
    let mut health = HealthClient::new(channel.clone());
    let mut states = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(states.message().await.unwrap().is_some());
    let mut reflection = ServerReflectionClient::new(channel);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap();
    assert!(answers.into_inner().message().await.unwrap().is_some());
    drop((identity, audit, namespace, health, reflection, states));
    let _gate = gate.join().unwrap();
    assert!(tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap().success());
}

#[test]
fn will_not_be_root() {
    for arguments in [&["0", "5"][..], &["5", "0"], &["5"], &["5", "5", "5"], &["x", "5"], &[]] {
        let mut front = Command::new(FRONT);
        let output = front.args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
