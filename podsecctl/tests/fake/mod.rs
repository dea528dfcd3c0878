//! A podsecd without namespaces, gate and rights: it speaks the interface, and its sessions run programs right here.

pub mod people;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use people::People;
use podsec_proto::v1;
use podsec_proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use podsec_proto::v1::check_service_server::{CheckService, CheckServiceServer};
use podsec_proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use podsec_proto::v1::key_service_server::KeyServiceServer;
use podsec_proto::v1::namespace_service_server::{NamespaceService, NamespaceServiceServer};
use podsec_proto::v1::user_service_server::UserServiceServer;
use podsec_sys::nix::sys::signal::{Signal, kill};
use podsec_sys::nix::unistd::Pid;
use podsec_sys::socket::{self, Kind};
use podsec_wire::Channel;
use podsec_wire::session::{self, Attached, Exit, FromClient, ToClient};
use std::collections::HashMap;
use std::convert::Infallible;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Status, async_trait};
use tonic_types::{ErrorDetails, StatusExt as _};

/// A fake that runs until the test ends.
pub struct Fake {
    directory: PathBuf,
    /// What it was asked about users and keys, and what of it is the test's.
    pub people: Arc<People>,
}

impl Fake {
    /// Sessions run what was asked for.
    pub fn start() -> Self {
        Self::with_worker(run_here)
    }

    /// Sessions are the test's.
    pub fn with_worker(worker: fn(v1::EnterRequest, Channel)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("podsecctl-fake-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let attach = directory.join("attach.sock");
        let requests = std::os::unix::net::UnixListener::bind(directory.join("podsecd.sock")).unwrap();
        requests.set_nonblocking(true).unwrap();
        let sessions = socket::listen(&attach, Kind::Packet, 0o600).unwrap();
        socket::set_nonblocking(&sessions, false).unwrap();
        let (asked, entered) = mpsc::channel();
        let people = Arc::new(People::default());
        let services = Services { attach: attach.display().to_string(), asked, people: Arc::clone(&people) };
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(serve(requests, services));
        });
        std::thread::spawn(move || {
            while let Ok(request) = entered.recv() {
                let Some(client) = hand_over(&sessions) else { continue };
                std::thread::spawn(move || worker(request, client));
            }
        });
        Self { directory, people }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("podsecd.sock")
    }

    /// `podsecctl` that asks it.
    pub fn podsecctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podsecctl"));
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, services: Services) {
    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let services = services.clone();
        let dispatch = service_fn(move |request| dispatch(services.clone(), request));
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), dispatch));
    }
}

async fn dispatch(services: Services, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    match request.uri().path().split('/').nth(1) {
        Some("podsec.v1.IdentityService") => IdentityServiceServer::new(services).call(request).await,
        Some("podsec.v1.NamespaceService") => NamespaceServiceServer::new(services).call(request).await,
        Some("podsec.v1.UserService") => UserServiceServer::new(services).call(request).await,
        Some("podsec.v1.KeyService") => KeyServiceServer::new(services).call(request).await,
        Some("podsec.v1.CheckService") => CheckServiceServer::new(services).call(request).await,
        _ => AuditServiceServer::new(services).call(request).await,
    }
}

/// As the gate does it, for any reservation, and any ticket of the right length.
fn hand_over(listener: &std::os::fd::OwnedFd) -> Option<Channel> {
    let connection = socket::accept(listener).ok()?;
    let (length, _) = socket::receive(&connection, &mut [0; 32]).ok()?;
    assert!([8, 32].contains(&length));
    let (ours, clients) = Channel::pair().unwrap();
    Channel::from(connection).send(&Attached::Session, &[clients.as_fd()]).unwrap();
    Some(ours)
}

/// A worker: the program with the client's descriptors, or on a new terminal.
fn run_here(request: v1::EnterRequest, client: Channel) {
    let argv = match request.program {
        Some(v1::enter_request::Program::Command(command)) => command.argv,
        _ => vec![b"/bin/sh".to_vec()],
    };
    let (first, mut descriptors) = client.receive::<FromClient>().unwrap().unwrap();
    assert_eq!(first, FromClient::Open);
    let mut argv = argv.into_iter().map(std::ffi::OsString::from_vec);
    let mut command = match request.terminal {
        None => {
            let mut command = Command::new(argv.next().unwrap());
            command.process_group(0);
            command
        }
        Some(window) => {
            let size = (u16::try_from(window.rows).unwrap(), u16::try_from(window.columns).unwrap());
            let (leader, follower) = podsec_sys::terminal::open(size.0, size.1).unwrap();
            client.send(&ToClient::Terminal, &[leader.as_fd()]).unwrap();
            let copy = || follower.try_clone().unwrap();
            assert!(descriptors.is_empty(), "a session with a terminal gets no descriptor");
            descriptors = vec![copy(), copy(), copy()];
            let mut command = Command::new("/usr/bin/setsid");
            command.arg("--ctty");
            command
        }
    };
    for variable in request.env {
        command.env(variable.name, std::ffi::OsString::from_vec(variable.value));
    }
    let [stdin, stdout, stderr] = <[_; 3]>::try_from(descriptors).unwrap();
    let spawned = command.args(argv).stdin(stdin).stdout(stdout).stderr(stderr).spawn();
    drop(command);
    let Ok(mut child) = spawned else {
        let reason = podsec_policy::Reason::Exec;
        client.send(&ToClient::Failed { reason, detail: "nothing: not found".into() }, &[]).unwrap();
        return;
    };
    client.send(&ToClient::Started, &[]).unwrap();
    let group = Pid::from_raw(-i32::try_from(child.id()).unwrap());
    let client = std::sync::Arc::new(client);
    let frames = std::sync::Arc::clone(&client);
    std::thread::spawn(move || {
        while let Ok(Some((FromClient::Signal(signal), _))) = frames.receive() {
            let _ = kill(group, number(signal));
        }
        let _ = kill(group, Signal::SIGHUP);
    });
    let status = child.wait().unwrap();
    let exit = match status.signal() {
        Some(signal) => Exit::Signal(u8::try_from(signal).unwrap()),
        None => Exit::Code(u8::try_from(status.code().unwrap()).unwrap()),
    };
    let _ = client.send(&ToClient::Exited(exit), &[]);
}

fn number(signal: session::Signal) -> Signal {
    match signal {
        session::Signal::Hup => Signal::SIGHUP,
        session::Signal::Int => Signal::SIGINT,
        session::Signal::Quit => Signal::SIGQUIT,
        session::Signal::Term => Signal::SIGTERM,
        session::Signal::Kill => Signal::SIGKILL,
        session::Signal::Usr1 => Signal::SIGUSR1,
        session::Signal::Usr2 => Signal::SIGUSR2,
        session::Signal::Tstp => Signal::SIGSTOP,
        session::Signal::Cont => Signal::SIGCONT,
    }
}

#[derive(Clone)]
struct Services {
    attach: String,
    asked: mpsc::Sender<v1::EnterRequest>,
    people: Arc<People>,
}

type Answer<T> = Result<tonic::Response<T>, Status>;
type Stream<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// As podsecd refuses.
fn refusal(code: tonic::Code, message: &str, reason: &str, said: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = said.iter().map(|&(k, v)| (k.into(), v.into())).collect();
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "podsec", metadata))
}

#[async_trait]
impl IdentityService for Services {
    async fn who_am_i(&self, _: tonic::Request<v1::WhoAmIRequest>) -> Answer<v1::WhoAmIResponse> {
        Ok(tonic::Response::new(v1::WhoAmIResponse {
            uid: 0,
            login_uid: None,
            roles: vec!["Administrator".into(), "Anyone".into()],
            operations: vec![
                "podsec.v1.IdentityService/WhoAmI".into(),
                "podsec.v1.NamespaceService/Inspect".into(),
            ],
            version: "0\x1b[2J".into(),
        }))
    }

    async fn health(&self, _: tonic::Request<v1::HealthRequest>) -> Answer<v1::HealthResponse> {
        Ok(tonic::Response::new(v1::HealthResponse { audit_writable: true, ..Default::default() }))
    }
}

#[async_trait]
impl NamespaceService for Services {
    type EnterStream = Stream<v1::EnterResponse>;

    async fn inspect(&self, _: tonic::Request<v1::InspectRequest>) -> Answer<v1::InspectResponse> {
        let state = v1::NamespaceState::Down.into();
        Ok(tonic::Response::new(v1::InspectResponse {
            state,
            reason: "start it".into(),
            ..Default::default()
        }))
    }

    async fn enter(&self, request: tonic::Request<v1::EnterRequest>) -> Answer<Self::EnterStream> {
        let request = request.into_inner();
        let ticket = if request.reservation == 0 { vec![7; 32] } else { vec![] };
        self.asked.send(request).unwrap();
        let attach_socket = self.attach.clone();
        let answer = v1::EnterResponse { ticket, attach_socket, session: "s".into() };
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter([Ok(answer)]))))
    }

    async fn list_ports(&self, _: tonic::Request<v1::ListPortsRequest>) -> Answer<v1::ListPortsResponse> {
        let said = [("method", "NamespaceService/ListPorts"), ("roles", "Administrator or ClusterAdmin")];
        Err(refusal(tonic::Code::PermissionDenied, "not authorised", "not-authorised", &said))
    }

    async fn add_port(&self, request: tonic::Request<v1::AddPortRequest>) -> Answer<v1::AddPortResponse> {
        let port = request.into_inner().port.unwrap();
        Ok(tonic::Response::new(v1::AddPortResponse { changed: port.host_port == 8080 }))
    }

    async fn remove_port(&self, _: tonic::Request<v1::RemovePortRequest>) -> Answer<v1::RemovePortResponse> {
        Ok(tonic::Response::new(v1::RemovePortResponse { changed: false }))
    }
}

type Records = Stream<v1::AuditRecord>;

/// Number of records that the fake's audit has.
pub const RECORDS: u32 = 20_000;

#[async_trait]
impl AuditService for Services {
    type QueryStream = Records;
    type FollowStream = Records;

    async fn query(&self, _: tonic::Request<v1::QueryRequest>) -> Answer<Records> {
        let record = |number| {
            let time = "2026-01-02T03:04:05.678901Z";
            let json = format!(
                r#"{{"seq":{number},"time":"{time}","phase":"done","op":"NamespaceService/Enter","uid":0,"pid":7,"target":"id"}}"#
            );
            Ok(v1::AuditRecord { json })
        };
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter((0..RECORDS).map(record)))))
    }

    async fn follow(&self, _: tonic::Request<v1::FollowRequest>) -> Answer<Records> {
        let record = v1::AuditRecord { json: "{\"a\":1}\n{\"b\":2}".into() };
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter([Ok(record)]))))
    }

    async fn verify(&self, _: tonic::Request<v1::VerifyRequest>) -> Answer<v1::VerifyResponse> {
        let broken = Some(v1::BrokenLink { file: "/a".into(), line: 3, what: "edited".into() });
        Ok(tonic::Response::new(v1::VerifyResponse { records: 2, files: 1, broken }))
    }
}

/// Every check has found nothing, just now; vulnerabilities are looked for long, images cannot be.
#[async_trait]
impl CheckService for Services {
    type FindingsStream = Stream<v1::CheckEvent>;
    type WatchStream = Stream<v1::CheckEvent>;

    async fn run(&self, request: tonic::Request<v1::RunCheckRequest>) -> Answer<v1::RunCheckResponse> {
        let check = request.into_inner().check;
        match check.as_str() {
            "images" => return Err(refusal(tonic::Code::Internal, "no gpgv", "program", &[])),
            "vulnerabilities" => tokio::time::sleep(std::time::Duration::from_millis(2500)).await,
            _ => {}
        }
        let summary = Some(nothing_found(&check));
        Ok(tonic::Response::new(v1::RunCheckResponse { summary, new: 0, gone: 0 }))
    }

    async fn findings(&self, request: tonic::Request<v1::FindingsRequest>) -> Answer<Self::FindingsStream> {
        let event = Some(v1::check_event::Event::Summary(nothing_found(&request.into_inner().check)));
        Ok(tonic::Response::new(Box::pin(tokio_stream::iter([Ok(v1::CheckEvent { event })]))))
    }

    async fn watch(&self, _: tonic::Request<v1::WatchFindingsRequest>) -> Answer<Self::WatchStream> {
        Err(Status::unimplemented("not here"))
    }
}

fn nothing_found(check: &str) -> v1::CheckSummary {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    v1::CheckSummary { check: check.into(), time: now, state: "complete".into(), ..Default::default() }
}

/// The fakes are not root's unless the tests are; then the one thing to see is that the client will not have them.
pub fn is_root() -> bool {
    podsec_sys::nix::unistd::geteuid().is_root()
}
