//! The connection to podsecd: one HTTP/2 connection over the unix socket, without the balancing, buffering and
//! reconnecting of tonic's own channel, which a program that asks one thing and ends would only pay for.

use crate::failure::Failure;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use podsec_proto::client::audit_service_client::AuditServiceClient;
use podsec_proto::client::check_service_client::CheckServiceClient;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::client::key_service_client::KeyServiceClient;
use podsec_proto::client::namespace_service_client::NamespaceServiceClient;
use podsec_proto::client::service_service_client::ServiceServiceClient;
use podsec_proto::client::signature_service_client::SignatureServiceClient;
use podsec_proto::client::trust_service_client::TrustServiceClient;
use podsec_proto::client::user_service_client::UserServiceClient;
use podsec_sys::socket::{self, Kind};
use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::{Status, codegen::Service};

/// Seconds that a single answer may take. The longest deadline of podsecd's own is shorter
/// (`podsec_policy::operation::Method::deadline`), but that of a check, for which `check run` waits without one.
const PATIENCE: u64 = 150;
/// Requests under way of [`Daemon::ask_each`]: below the streams that podsecd takes on one connection, and far below
/// the requests that it takes from one user.
const AT_ONCE: usize = 10;
/// How often [`Daemon::ask_each`] says that it still waits.
const TICK: Duration = Duration::from_secs(1);

/// What the generated clients give for a call.
type Answer<T> = Result<tonic::Response<T>, Status>;

/// podsecd, connected.
pub struct Daemon {
    runtime: Runtime,
    link: Link,
}

impl Daemon {
    /// Connects, and makes sure that root is at the other end: whoever could put a socket there would otherwise learn
    /// what people ask, and answer it.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let socket = socket::connect(path, Kind::Stream).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Absent(path.into()),
            io::ErrorKind::ConnectionRefused => Failure::Refused(path.into()),
            io::ErrorKind::PermissionDenied => Failure::Permission(path.into()),
            _ => Failure::Connect(path.into(), error),
        })?;
        let failed = |error| Failure::Connect(path.into(), error);
        let uid = socket::peer_credentials(&socket).map_err(failed)?.uid;
        if uid != 0 {
            return Err(Failure::NotRoots { socket: path.into(), uid });
        }
        socket::set_nonblocking(&socket, true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(failed)?;
        let link = runtime.block_on(async {
            let stream = tokio::net::UnixStream::from_std(socket.into()).map_err(failed)?;
            let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
            let (sender, connection) = handshake.await.map_err(|_| Failure::Closed)?;
            // Its error reaches whoever waits for an answer.
            tokio::spawn(connection);
            Ok(Link(sender))
        })?;
        Ok(Self { runtime, link })
    }

    /// Waits for an answer, not forever.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn ask<T>(&self, call: impl Future<Output = Answer<T>>) -> Result<T, Failure> {
        self.runtime.block_on(answer(call))
    }

    /// Waits for all that a stream gives, as long as it takes.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn ask_all<T>(
        &self,
        call: impl Future<Output = Answer<tonic::Streaming<T>>>,
    ) -> Result<Vec<T>, Failure> {
        let mut stream = self.ask(call)?;
        let mut all = Vec::new();
        while let Some(one) = self.wait(stream.message())? {
            all.push(one);
        }
        Ok(all)
    }

    /// Asks many questions, some at once, and hands over each answer with the question's number as it comes; nothing,
    /// once a second while none comes.
    ///
    /// # Errors
    /// What `heard` says; no more is asked then.
    pub fn ask_each<T, F>(
        &self,
        questions: impl IntoIterator<Item = F>,
        mut heard: impl FnMut(Option<(usize, Result<T, Failure>)>) -> Result<(), Failure>,
    ) -> Result<(), Failure>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let mut waiting = questions.into_iter().enumerate();
        self.runtime.block_on(async {
            let mut asked = JoinSet::new();
            loop {
                while asked.len() < AT_ONCE
                    && let Some((index, question)) = waiting.next()
                {
                    asked.spawn(async move { (index, answer(question).await) });
                }
                match tokio::time::timeout(TICK, asked.join_next()).await {
                    Ok(None) => return Ok(()),
                    Ok(Some(answered)) => heard(Some(answered.map_err(|_| Failure::Closed)?))?,
                    Err(_) => heard(None)?,
                }
            }
        })
    }

    /// Waits for an answer, or until the descriptor has something to read; `None` when that is first.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn ask_beside<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Option<T>, Failure> {
        let failed = |error| Failure::Local("podsecd's other socket", error);
        self.runtime.block_on(async {
            let watched = descriptor.map(watch).transpose().map_err(failed)?;
            let readable = async {
                match &watched {
                    Some(watched) => watched.readable().await.map(drop),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                answer = patient(answer) => answer?.map(Some).map_err(|status| Failure::from_status(&status)),
                ready = readable => ready.map(|()| None).map_err(failed),
            }
        })
    }

    /// Waits for an answer as long as it takes.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn wait<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Failure> {
        self.runtime.block_on(answer).map_err(|status| Failure::from_status(&status))
    }

    /// `IdentityService`
    #[must_use]
    pub fn identity(&self) -> IdentityServiceClient<Link> {
        IdentityServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `NamespaceService`
    #[must_use]
    pub fn namespace(&self) -> NamespaceServiceClient<Link> {
        NamespaceServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `UserService`
    #[must_use]
    pub fn users(&self) -> UserServiceClient<Link> {
        UserServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `KeyService`
    #[must_use]
    pub fn keys(&self) -> KeyServiceClient<Link> {
        KeyServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `TrustService`
    #[must_use]
    pub fn trust(&self) -> TrustServiceClient<Link> {
        TrustServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `SignatureService`
    #[must_use]
    pub fn signatures(&self) -> SignatureServiceClient<Link> {
        SignatureServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `ServiceService`
    #[must_use]
    pub fn services(&self) -> ServiceServiceClient<Link> {
        ServiceServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `CheckService`
    #[must_use]
    pub fn checks(&self) -> CheckServiceClient<Link> {
        CheckServiceClient::with_origin(self.link.clone(), origin())
    }

    /// `AuditService`
    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Link> {
        AuditServiceClient::with_origin(self.link.clone(), origin())
    }
}

#[expect(
    deprecated,
    reason = "newer tokio has an unsafe name for this, since a type may give another descriptor each time it is asked"
)]
fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

async fn answer<T>(call: impl Future<Output = Answer<T>>) -> Result<T, Failure> {
    let answer = patient(call).await?;
    answer.map(tonic::Response::into_inner).map_err(|status| Failure::from_status(&status))
}

/// Not forever.
async fn patient<T>(answer: impl Future<Output = T>) -> Result<T, Failure> {
    let answer = tokio::time::timeout(Duration::from_secs(PATIENCE), answer).await;
    answer.map_err(|_| Failure::Silent(PATIENCE))
}

/// HTTP/2 demands an authority (RFC 9113 §8.3.1); on a unix socket it means nothing.
fn origin() -> Uri {
    Uri::from_static("http://podsecd")
}

/// The sending end, as the generated clients want it.
#[derive(Clone)]
pub struct Link(SendRequest<Body>);

impl Service<Request<Body>> for Link {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    /// Always: a closed connection is the call's error, which keeps its cause.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::PathBuf;

    fn failure(path: &Path) -> Failure {
        Daemon::connect(path).err().unwrap()
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("podsecctl-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_way_of_not_getting_through_says_what_to_do() {
        let directory = Directory::new("connect");
        let path = directory.0.join("sock");
        assert!(failure(&path).to_string().contains("systemctl start podsecd.socket"));
        drop(socket::listen(&path, Kind::Stream, 0o666).unwrap());
        assert!(matches!(failure(&path), Failure::Refused(_)));
        let plain = directory.0.join("plain");
        std::fs::File::create(&plain).unwrap();
        assert!(matches!(failure(&plain), Failure::Refused(_)));
        assert!(matches!(failure(&directory.0.join("x".repeat(200))), Failure::Connect(..)));
        let root = podsec_sys::nix::unistd::geteuid().is_root();
        if !root {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
            assert!(matches!(failure(&path), Failure::Permission(_)));
        }
    }

    #[test]
    fn a_connection_that_is_closed_at_once_is_a_sentence() {
        let directory = Directory::new("closed");
        let path = directory.0.join("sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let closer = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let failed = Daemon::connect(&path)
            .and_then(|daemon| daemon.ask(daemon.identity().who_am_i(podsec_proto::v1::WhoAmIRequest {})));
        let failed = failed.unwrap_err();
        if podsec_sys::nix::unistd::geteuid().is_root() {
            assert!(matches!(failed, Failure::Closed), "{failed:?}");
        } else {
            assert!(matches!(failed, Failure::NotRoots { .. }), "{failed:?}");
        }
        closer.join().unwrap();
    }
}
