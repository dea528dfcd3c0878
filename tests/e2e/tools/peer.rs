//! Somebody who calls podsecd, for the attacks: with any ids, from any address, on a connection of his own or of
//! somebody else's, with a change of mind in between. What he does he does in the order of his words:
//!
//! ```text
//! podsec-peer [OPTION…] WORD…
//!   --login-uid N  --groups N,N…  --fill-groups N   (so many in all)  --gid N  --uid N      in this order
//!   --bind HEX     bind the socket to this address first    --stdin        the connection is descriptor 0
//!   --metadata K=V send it with every call
//! connect         now, and not with the first call
//! call METHOD     a valid request; prints the answer as a line of JSON; a session is fetched and run
//! reserve N       a session under that number, for calls of Enter from now on
//! handed          prints {"handed":…}: has that session come, within a third of a second?
//! pause           prints {"paused":true} and waits for a line
//! uids R E S      setresuid(2)
//! give PATH       sends the connection to whoever listens there
//! exec PROGRAM …  becomes that program; the rest is its arguments
//! die METHOD N US N processes in a row call, and are killed 0 to US microseconds after
//! ```

#![forbid(unsafe_code)]

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper_util::rt::TokioIo;
use podsec_policy::config::ATTACH_PATH;
use podsec_proto::v1;
use podsec_sys::nix::sys::signal::{Signal, kill};
use podsec_sys::nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect as connect_to, socket,
};
use podsec_sys::nix::unistd::{Gid, Pid, Uid, pipe, setgroups, setresgid, setresuid};
use podsec_sys::process;
use podsec_sys::socket as sys;
use podsec_tests::client::{self, SOCKET};
use podsec_wire::session::{self, FromClient, ToClient};
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

fn main() {
    let mut peer = Peer::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_else(|| panic!("{word} wants more"));
        match word.as_str() {
            "--login-uid" => std::fs::write("/proc/self/loginuid", next()).expect("loginuid"),
            "--groups" => {
                peer.groups = next().split(',').map(|gid| Gid::from_raw(number(gid))).collect();
                setgroups(&peer.groups).expect("setgroups");
            }
            "--fill-groups" => {
                // Before and behind those that count, so that they are neither first nor last.
                let missing = number(&next()) as usize - peer.groups.len();
                let filler = (0..).map(|number| Gid::from_raw(1_000_000 + number)).take(missing);
                peer.groups.extend(filler);
                peer.groups.rotate_right(missing / 2);
                setgroups(&peer.groups).expect("setgroups");
            }
            "--gid" => {
                let gid = Gid::from_raw(number(&next()));
                setresgid(gid, gid, gid).expect("setresgid");
            }
            "--uid" => {
                let uid = Uid::from_raw(number(&next()));
                setresuid(uid, uid, uid).expect("setresuid");
            }
            "--bind" => peer.address = Some(unhex(&next())),
            "--stdin" => peer.link = Some(process::take_stdin()),
            "--metadata" => peer.metadata.push(next()),
            "connect" => peer.link = Some(peer.connect()),
            "call" => {
                let answer = peer.call(&next());
                println!("{answer}");
            }
            "reserve" => {
                let number = next().parse().expect("a number");
                let gate = session::reserve(Path::new(ATTACH_PATH), number).expect("reserved");
                peer.reservation = Some((number, gate));
            }
            "handed" => {
                let (_, gate) = peer.reservation.as_ref().expect("reserve comes first");
                let come = process::wait_readable(&[gate.as_fd()], Some(Duration::from_millis(333)));
                let handed = come.expect("poll") && session::receive(gate).is_ok();
                println!("{}", json!({ "handed": handed }));
            }
            "pause" => {
                println!("{}", json!({ "paused": true }));
                _ = std::io::stdin().read_line(&mut String::new());
            }
            "exec" => {
                let program = next();
                panic!("{program}: {}", Command::new(&program).args(words).exec());
            }
            "uids" => {
                let [real, effective, saved] =
                    [next(), next(), next()].map(|uid| Uid::from_raw(number(&uid)));
                setresuid(real, effective, saved).expect("setresuid");
            }
            "give" => {
                let to = UnixStream::connect(next()).expect("somebody to give it to");
                let link = peer.link.take().expect("connect comes first");
                sys::send(&to, b"x", &[link.as_fd()]).expect("sent");
            }
            "die" => {
                let (method, count, span) = (next(), number(&next()), number(&next()));
                die(&method, count, span);
            }
            "die-after" => {
                let (method, delay) = (next(), number(&next()));
                peer.die_after(&method, Duration::from_micros(delay.into()));
            }
            _ => panic!("{word}: no such word"),
        }
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("{text}: not a number"))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

#[derive(Default)]
struct Peer {
    groups: Vec<Gid>,
    address: Option<Vec<u8>>,
    metadata: Vec<String>,
    reservation: Option<(u64, podsec_wire::Channel)>,
    /// Not spoken on yet.
    link: Option<OwnedFd>,
    /// Spoken on.
    spoken: Option<(tokio::runtime::Runtime, Grpc<Channel>)>,
}

impl Peer {
    fn connect(&self) -> OwnedFd {
        let link =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("socket");
        if let Some(address) = &self.address {
            let address = match address.split_first() {
                Some((0, name)) => UnixAddr::new_abstract(name),
                _ => UnixAddr::new(&address[..]),
            };
            bind(link.as_raw_fd(), &address.expect("an address")).expect("bind");
        }
        if let Err(error) = connect_to(link.as_raw_fd(), &UnixAddr::new(SOCKET).expect("an address")) {
            println!("{}", json!({ "call": "connect", "code": -1, "message": error.to_string() }));
            std::process::exit(1);
        }
        link
    }

    fn call(&mut self, method: &str) -> Value {
        let start = Instant::now();
        let (mut runtime, mut grpc) = match self.spoken.take() {
            Some(spoken) => spoken,
            None => speak(self.link.take().unwrap_or_else(|| self.connect())),
        };
        let reservation = self.reservation.as_ref().map_or(0, |&(number, _)| number);
        let answer = runtime.block_on(ask(&mut grpc, request(method, reservation), method, &self.metadata));
        let gate = self.reservation.as_ref().map(|(_, gate)| gate);
        let mut told = match answer {
            Ok(bytes) => json!({ "code": 0, "answer": understand(&mut runtime, method, bytes, gate) }),
            Err(status) => json!({
                "code": status.code() as i32, "reason": client::reason(&status), "message": status.message()
            }),
        };
        told["call"] = method.into();
        told["ms"] = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX).into();
        self.spoken = Some((runtime, grpc));
        told
    }

    /// Calls, and is gone.
    fn die_after(&self, method: &str, delay: Duration) {
        let (runtime, mut grpc) = speak(self.connect());
        let call = ask(&mut grpc, request(method, 0), method, &self.metadata);
        _ = runtime.block_on(async { tokio::time::timeout(delay, call).await });
        _ = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Others do, one after the other but a few at once.
fn die(method: &str, count: u32, span: u32) {
    const AT_ONCE: usize = 4;
    let mut dying = VecDeque::new();
    for index in 0..count {
        let delay = u64::from(span) * u64::from(index) / u64::from(count);
        let own = std::env::current_exe().expect("own path");
        let child = Command::new(own).args(["die-after", method, &delay.to_string()]).spawn();
        dying.push_back(child.expect("another"));
        while dying.len() > if index + 1 == count { 0 } else { AT_ONCE } {
            dying.pop_front().map(|mut child| child.wait());
        }
    }
}

fn speak(link: OwnedFd) -> (tokio::runtime::Runtime, Grpc<Channel>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut link = Some(UnixStream::from(link));
    let connector = tower::service_fn(move |_| {
        let link = link.take().ok_or_else(|| std::io::Error::other("one connection is all there is"));
        async {
            let link = link?;
            link.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(link).map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://root@podsecd");
    let channel = runtime.block_on(endpoint.connect_with_connector(connector)).expect("a connection");
    (runtime, Grpc::new(channel))
}

async fn ask(
    grpc: &mut Grpc<Channel>,
    message: Bytes,
    method: &str,
    metadata: &[String],
) -> Result<Bytes, Status> {
    let mut request = Request::new(message);
    for pair in metadata {
        let (key, value) = pair.split_once('=').expect("K=V");
        let key = tonic::metadata::MetadataKey::from_bytes(key.as_bytes()).expect("a key");
        request.metadata_mut().append(key, value.parse().expect("a value"));
    }
    let path = if method.contains('.') { format!("/{method}") } else { format!("/podsec.v1.{method}") };
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    // The first message of whatever it is: to the wire a single answer is a stream of one.
    let answer = grpc.server_streaming(request, path.parse().expect("a path"), Raw).await?;
    let mut messages = answer.into_inner();
    let first = messages.message().await?;
    if method == "NamespaceService/Enter" {
        // Then it waits until podsecd is inside, or says why not.
        messages.message().await?;
    }
    first.ok_or_else(|| Status::out_of_range("an answer without a message"))
}

/// A valid request that changes nothing. Every method has one here, so a new one is not forgotten.
fn request(method: &str, reservation: u64) -> Bytes {
    let port = || Some(v1::Port { host_port: 18_080, child_port: 80, protocol: 1, ..v1::Port::default() });
    let newest = || Some(v1::AuditFilter { last: 1, ..v1::AuditFilter::default() });
    let bytes = match method {
        "IdentityService/WhoAmI" => v1::WhoAmIRequest {}.encode_to_vec(),
        "IdentityService/Health" => v1::HealthRequest {}.encode_to_vec(),
        "NamespaceService/Inspect" => v1::InspectRequest {}.encode_to_vec(),
        "NamespaceService/Enter" => {
            let argv = [&b"readlink"[..], b"/proc/self/ns/user"].map(<[u8]>::to_vec).to_vec();
            let program = Some(v1::enter_request::Program::Command(v1::Command { argv }));
            let cwd = b"/".to_vec();
            v1::EnterRequest { program, cwd, reservation, ..v1::EnterRequest::default() }.encode_to_vec()
        }
        "NamespaceService/ListPorts" => v1::ListPortsRequest {}.encode_to_vec(),
        "NamespaceService/AddPort" => v1::AddPortRequest { port: port(), dry_run: true }.encode_to_vec(),
        "NamespaceService/RemovePort" => {
            v1::RemovePortRequest { port: port(), dry_run: true }.encode_to_vec()
        }
        "AuditService/Query" => v1::QueryRequest { filter: newest() }.encode_to_vec(),
        "AuditService/Follow" => v1::FollowRequest { filter: newest() }.encode_to_vec(),
        "AuditService/Verify" => v1::VerifyRequest {}.encode_to_vec(),
        // About somebody who does not exist, so that whoever may ask changes nothing.
        "UserService/Create" => {
            let category = Some(v1::create_user_request::Category::ClusterUser(v1::ClusterUser {}));
            let request =
                v1::CreateUserRequest { name: nobody(), category, dry_run: true, ..Default::default() };
            request.encode_to_vec()
        }
        "UserService/List" => v1::ListUsersRequest::default().encode_to_vec(),
        "UserService/SetPassword" => {
            v1::SetPasswordRequest { name: nobody(), password: b"long enough".to_vec() }.encode_to_vec()
        }
        "UserService/Lock" => v1::LockUserRequest { name: nobody(), dry_run: true }.encode_to_vec(),
        "UserService/Unlock" => v1::UnlockUserRequest { name: nobody(), dry_run: true }.encode_to_vec(),
        "UserService/Delete" => {
            v1::DeleteUserRequest { name: nobody(), remove_home: false, dry_run: true }.encode_to_vec()
        }
        "UserService/Verify" => v1::VerifyUserRequest { name: nobody() }.encode_to_vec(),
        "UserService/RestrictIdMaps" => v1::RestrictIdMapsRequest::default().encode_to_vec(),
        "KeyService/Publish" => {
            let (creator, key) = (String::new(), b"none".to_vec());
            v1::PublishKeyRequest { creator, key, dry_run: true }.encode_to_vec()
        }
        "KeyService/Rotate" => {
            let (creator, key) = (String::new(), b"none".to_vec());
            v1::RotateKeyRequest { creator, key, dry_run: true }.encode_to_vec()
        }
        "KeyService/Revoke" => {
            let (creator, fingerprint) = (String::new(), "0".repeat(40));
            v1::RevokeKeyRequest { creator, fingerprint, dry_run: true }.encode_to_vec()
        }
        "KeyService/List" => v1::ListKeysRequest::default().encode_to_vec(),
        "TrustService/Init" => {
            let (registry, signatures) = ("registry.local".into(), "sigstore.local".into());
            v1::InitTrustRequest { registry, signatures, reason: dry(), ..Default::default() }.encode_to_vec()
        }
        "TrustService/Show" => v1::ShowTrustRequest::default().encode_to_vec(),
        "TrustService/History" => v1::TrustHistoryRequest {}.encode_to_vec(),
        "TrustService/Rollback" => v1::RollbackTrustRequest { revision: 1, reason: dry() }.encode_to_vec(),
        "TrustService/Grant" => {
            let (scopes, kind) = (vec!["registry.local/x".into()], v1::SignatureKind::Gpg.into());
            v1::GrantSignerRequest { creator: nobody(), scopes, kind, shared: false, reason: dry() }
                .encode_to_vec()
        }
        "TrustService/Revoke" => {
            v1::RevokeSignerRequest { creator: nobody(), reason: dry(), ..Default::default() }.encode_to_vec()
        }
        "TrustService/Export" => v1::ExportTrustRequest {}.encode_to_vec(),
        "TrustService/Sync" => {
            v1::SyncTrustRequest { bundle: b"none".to_vec(), reason: dry(), ..Default::default() }
                .encode_to_vec()
        }
        "SignatureService/Submit" => {
            let (repository, digest) = ("registry.local/x".into(), format!("sha256:{}", "0".repeat(64)));
            v1::SubmitSignatureRequest { repository, digest, signature: b"none".to_vec() }.encode_to_vec()
        }
        "SignatureService/List" => v1::ListSignaturesRequest::default().encode_to_vec(),
        "ServiceService/Deploy" => {
            let kind = v1::ServiceKind::Registry.into();
            v1::DeployServiceRequest { kind, dry_run: true, ..Default::default() }.encode_to_vec()
        }
        "ServiceService/Remove" => {
            let kind = v1::ServiceKind::Registry.into();
            v1::RemoveServiceRequest { kind, remove_data: false, dry_run: true }.encode_to_vec()
        }
        "ServiceService/Status" => v1::ServiceStatusRequest {}.encode_to_vec(),
        "CheckService/Run" => v1::RunCheckRequest { check: "policy".into() }.encode_to_vec(),
        "CheckService/Findings" => v1::FindingsRequest::default().encode_to_vec(),
        "CheckService/Watch" => v1::WatchFindingsRequest::default().encode_to_vec(),
        "ServiceService/NewCredential" => v1::NewCredentialRequest {}.encode_to_vec(),
        // list_services
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => vec![0x3a, 0],
        _ if method.contains('.') => vec![],
        _ => panic!("{method}: say here what a valid request is"),
    };
    bytes.into()
}

fn dry() -> Option<v1::TrustReason> {
    Some(v1::TrustReason { dry_run: true, ..Default::default() })
}

fn nobody() -> String {
    "nobody-at-all".to_owned()
}

fn understand(
    runtime: &mut tokio::runtime::Runtime,
    method: &str,
    bytes: Bytes,
    gate: Option<&podsec_wire::Channel>,
) -> Value {
    match method {
        "IdentityService/WhoAmI" => {
            let who = v1::WhoAmIResponse::decode(bytes).expect("an answer");
            json!({ "uid": who.uid, "login_uid": who.login_uid, "roles": who.roles, "operations": who.operations })
        }
        "NamespaceService/Enter" => {
            let entered = v1::EnterResponse::decode(bytes).expect("an answer");
            let _guard = runtime.enter();
            enter(&entered, gate)
        }
        _ => json!({ "bytes": bytes.len() }),
    }
}

fn enter(entered: &v1::EnterResponse, gate: Option<&podsec_wire::Channel>) -> Value {
    let come = match gate.filter(|_| entered.ticket.is_empty()) {
        Some(gate) => session::receive(gate),
        None => {
            let ticket = entered.ticket.as_slice().try_into().expect("32 bytes");
            session::attach(Path::new(&entered.attach_socket), &ticket)
        }
    };
    let session = match come {
        Ok(session) => session,
        Err(error) => return json!({ "attach": error.to_string() }),
    };
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let (reader, writer) = pipe().expect("pipe");
    session.send(&FromClient::Open, &[null.as_fd(), writer.as_fd(), writer.as_fd()]).expect("opened");
    drop(writer);
    let mut out = String::new();
    std::fs::File::from(reader).read_to_string(&mut out).expect("text");
    while let Ok(Some((message, _))) = session.receive::<ToClient>() {
        match message {
            ToClient::Exited(exit) => return json!({ "exit": exit.status(), "out": out.trim_end() }),
            ToClient::Failed { reason, detail } => {
                return json!({ "failed": reason.name(), "detail": detail });
            }
            ToClient::Started | ToClient::Terminal => {}
        }
    }
    json!({ "lost": true })
}

/// Messages as bytes.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
