//! A client of our own, below podsecctl: for requests that podsecctl would never send.

use hyper_util::rt::TokioIo;
use podsec_proto::client::audit_service_client::AuditServiceClient;
use podsec_proto::client::check_service_client::CheckServiceClient;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::client::key_service_client::KeyServiceClient;
use podsec_proto::client::namespace_service_client::NamespaceServiceClient;
use podsec_proto::client::service_service_client::ServiceServiceClient;
use podsec_proto::client::signature_service_client::SignatureServiceClient;
use podsec_proto::client::trust_service_client::TrustServiceClient;
use podsec_proto::client::user_service_client::UserServiceClient;
use std::future::Future;
use tonic::transport::{Channel, Endpoint};

/// Where podsecd listens.
pub const SOCKET: &str = podsec_policy::config::SOCKET_PATH;

/// Runs a future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A connection to podsecd as whoever this process is.
pub async fn connect() -> Result<Channel, tonic::transport::Error> {
    connect_to(SOCKET).await
}

/// A connection to whatever listens there.
pub async fn connect_to(path: &'static str) -> Result<Channel, tonic::transport::Error> {
    let connector =
        tower::service_fn(
            move |_| async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) },
        );
    Endpoint::from_static("http://podsecd").connect_with_connector(connector).await
}

/// A client's side of a connection that is there already.
pub async fn over(stream: std::os::unix::net::UnixStream) -> Channel {
    stream.set_nonblocking(true).expect("non-blocking");
    let mut stream = Some(TokioIo::new(tokio::net::UnixStream::from_std(stream).expect("a socket")));
    let connector = tower::service_fn(move |_| {
        let stream = stream.take();
        async { stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    let endpoint = Endpoint::from_static("http://podsecd");
    endpoint.connect_with_connector(connector).await.expect("podsecd")
}

/// Who am I?
pub async fn identity() -> IdentityServiceClient<Channel> {
    IdentityServiceClient::new(connect().await.expect("podsecd"))
}

/// Namespaces.
pub async fn namespace() -> NamespaceServiceClient<Channel> {
    NamespaceServiceClient::new(connect().await.expect("podsecd"))
}

/// The audit.
pub async fn audit() -> AuditServiceClient<Channel> {
    AuditServiceClient::new(connect().await.expect("podsecd"))
}

/// Users.
pub async fn users() -> UserServiceClient<Channel> {
    UserServiceClient::new(connect().await.expect("podsecd"))
}

/// Signing keys.
pub async fn keys() -> KeyServiceClient<Channel> {
    KeyServiceClient::new(connect().await.expect("podsecd"))
}

/// Trust in images.
pub async fn trust() -> TrustServiceClient<Channel> {
    TrustServiceClient::new(connect().await.expect("podsecd"))
}

/// Signatures of images.
pub async fn signatures() -> SignatureServiceClient<Channel> {
    SignatureServiceClient::new(connect().await.expect("podsecd"))
}

/// The monitors.
pub async fn checks() -> CheckServiceClient<Channel> {
    CheckServiceClient::new(connect().await.expect("podsecd"))
}

/// The servers behind trust.
pub async fn services() -> ServiceServiceClient<Channel> {
    ServiceServiceClient::new(connect().await.expect("podsecd"))
}

/// `google.rpc.ErrorInfo.reason` of a refusal.
pub fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
