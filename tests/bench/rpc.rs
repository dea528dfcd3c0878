//! WhoAmI over a warm connection, beside the same service in one process that both parses and answers, and beside
//! what a byte there and back costs. The difference to the first is the price of the split.

use crate::figure::{Bound, Figure, Samples};
use crate::helper::Helper;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use podsec_policy::peer::{Role, Roles};
use podsec_policy::rules::RULES;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use podsec_proto::v1::{HealthRequest, HealthResponse, WhoAmIRequest, WhoAmIResponse};
use podsec_tests::client;
use podsec_tests::people::ROOT;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;
use tonic::{Request, Response, Status};

const ONE_PROCESS: &str = "/run/podsec-bench-one-process.sock";
const ECHO: &str = "/run/podsec-bench-echo.sock";
/// Calls of one kind before those of the next kind have their turn.
const TURN: usize = 100;

pub fn run(rounds: usize) -> Vec<Figure> {
    let [_one_process, _echo] = [("one-process", ONE_PROCESS), ("echo", ECHO)].map(|(kind, path)| {
        let mut helper = Helper::start(ROOT, kind, &[path.to_owned()]);
        assert_eq!(helper.hear(), "listening");
        helper
    });
    let mut echo = UnixStream::connect(ECHO).expect(ECHO);
    let mut samples = [const { Samples::new() }; 3];
    client::block_on(async {
        let service = async |path| IdentityServiceClient::new(client::connect_to(path).await.expect(path));
        let mut services = [service(client::SOCKET).await, service(ONE_PROCESS).await];
        let answers = [&services[0], &services[1]].map(|service| service.clone());
        let [ours, theirs] = answers.map(async |mut service| service.who_am_i(WhoAmIRequest {}).await);
        assert_eq!(ours.await.expect("WhoAmI").into_inner(), theirs.await.expect("WhoAmI").into_inner());
        for round in 0..=rounds {
            for (service, samples) in services.iter_mut().zip(&mut samples) {
                for _ in 0..TURN {
                    let start = Instant::now();
                    service.who_am_i(WhoAmIRequest {}).await.expect("WhoAmI");
                    samples.push(micros(start));
                }
            }
            for _ in 0..TURN {
                let start = Instant::now();
                echo.write_all(b"?").and_then(|()| echo.read_exact(&mut [0])).expect("echo");
                samples[2].push(micros(start));
            }
            if round == 0 {
                samples = [const { Samples::new() }; 3]; // not counted: everything was cold
            }
        }
    });
    let [podsec, one, echo] = samples;
    eprintln!("  WhoAmI: {}", podsec.spread(&one));
    let against = |share: f64| {
        Figure::new("rpc", format!("WhoAmI p{:.0}", share * 100.0), "us", podsec.quantile(share))
            .against("in one process", one.quantile(share))
    };
    vec![
        against(0.5).bound(Bound::RatioAtMost(2.5)),
        against(0.99),
        Figure::new("rpc", "a byte there and back, p50", "us", echo.median()),
    ]
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// Sends back every byte of one connection.
pub fn echo(path: &str) {
    let listener = UnixListener::bind(path).expect(path);
    println!("listening");
    let (mut connection, _) = listener.accept().expect(path);
    let mut byte = [0];
    while connection.read_exact(&mut byte).and_then(|()| connection.write_all(&byte)).is_ok() {}
}

/// The service as one would write it without podsec's split: gRPC and the decision in one process, which is root.
pub fn one_process(path: &str) {
    client::block_on(async {
        let listener = tokio::net::UnixListener::bind(path).expect(path);
        println!("listening");
        loop {
            let (stream, _) = listener.accept().await.expect(path);
            let peer = stream.peer_cred().expect("SO_PEERCRED");
            let login = std::fs::read_to_string(format!("/proc/{}/loginuid", peer.pid().expect("pid")));
            let login_uid = login.unwrap_or_default().trim().parse().ok().filter(|&uid| uid != u32::MAX);
            let service = IdentityServiceServer::new(Answers { uid: peer.uid(), login_uid });
            tokio::spawn(
                http2::Builder::new(TokioExecutor::new())
                    .auto_date_header(false)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)),
            );
        }
    });
}

/// For one connection.
struct Answers {
    uid: u32,
    login_uid: Option<u32>,
}

#[tonic::async_trait]
impl IdentityService for Answers {
    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let anyone = Roles::NONE.with(Role::Anyone);
        let roles = if self.uid == 0 { anyone.with(Role::Administrator) } else { anyone };
        let may = RULES.iter().filter(|rule| rule.roles.intersection(roles) != Roles::NONE);
        Ok(Response::new(WhoAmIResponse {
            uid: self.uid,
            login_uid: self.login_uid,
            roles: roles.names(),
            operations: may.map(|rule| rule.path.to_owned()).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<HealthResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
