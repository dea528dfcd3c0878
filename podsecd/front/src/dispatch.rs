//! From a path to its row in the table, from bytes to an [`Operation`], and from what came of it to a response
//! (grpc/doc/PROTOCOL-HTTP2.md).
//!
//! Must not decide who may: every request that is well-formed goes to the gate, and every one that is not is told
//! to it.

use crate::gate::{Gate, Replies, Verdict};
use crate::health;
use crate::serve::{Activity, Busy, Limits};
use crate::status::{self, Failure};
use http::{Method as Verb, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::Frame;
use hyper::body::Incoming;
use podsec_policy::config::MAX_MESSAGE;
use podsec_policy::operation::Method;
use podsec_policy::rules::RULES;
use podsec_policy::{Operation, Reason};
use podsec_proto::{DESCRIPTORS, StrictCodec, v1};
use podsec_wire::messages::{Answer, Reply};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride, Streaming};
use tonic::codegen::Service as _;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_reflection::server::Builder as Reflection;

/// One method: its request as an operation, and what came of it as its response.
pub trait Rpc: prost::Message + Default + 'static {
    /// Its row in the table.
    const METHOD: Method;
    /// What it answers, once or as a stream.
    type Response: prost::Message + 'static;
    /// Checks every field.
    ///
    /// # Errors
    /// names the field
    fn operation(self) -> Result<Operation, Failure>;
    /// `None`: this is no answer to such a request.
    fn response(outcome: Outcome) -> Option<Self::Response>;
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    /// From the gate.
    Answer(Answer),
    /// From a worker.
    Reply(Reply),
}

/// All that a call needs.
#[derive(Debug)]
pub struct Front {
    gate: Arc<Gate>,
    activity: Arc<Activity>,
    limits: Limits,
    reflection: bool,
}

impl Front {
    /// For one connection.
    #[must_use]
    pub fn new(gate: Arc<Gate>, activity: Arc<Activity>, limits: Limits, reflection: bool) -> Self {
        Self { gate, activity, limits, reflection }
    }

    /// Answers one call.
    ///
    /// # Errors
    /// never: errors are answers
    pub async fn call(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        if !is_grpc(&request) {
            self.gate.malformed(None, Reason::Protocol).await;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Ok(response);
        }
        let path = request.uri().path().strip_prefix('/').unwrap_or_default().to_owned();
        let rule = RULES.iter().find(|rule| rule.path == path);
        let Some(rule) = rule else { return Ok(self.call_foreign(&path, request).await) };
        let body = request.into_body();
        Ok(match rule.method {
            Method::WhoAmI => self.unary::<v1::WhoAmIRequest>(body).await,
            Method::Health => self.unary::<v1::HealthRequest>(body).await,
            Method::Inspect => self.unary::<v1::InspectRequest>(body).await,
            Method::Enter => self.stream::<v1::EnterRequest>(body).await,
            Method::ListPorts => self.unary::<v1::ListPortsRequest>(body).await,
            Method::AddPort => self.unary::<v1::AddPortRequest>(body).await,
            Method::RemovePort => self.unary::<v1::RemovePortRequest>(body).await,
            Method::AuditQuery => self.stream::<v1::QueryRequest>(body).await,
            Method::AuditFollow => self.stream::<v1::FollowRequest>(body).await,
            Method::AuditVerify => self.unary::<v1::VerifyRequest>(body).await,
            Method::CreateUser => self.unary::<v1::CreateUserRequest>(body).await,
            Method::ListUsers => self.stream::<v1::ListUsersRequest>(body).await,
            Method::SetPassword => self.unary::<v1::SetPasswordRequest>(body).await,
            Method::LockUser => self.unary::<v1::LockUserRequest>(body).await,
            Method::UnlockUser => self.unary::<v1::UnlockUserRequest>(body).await,
            Method::DeleteUser => self.unary::<v1::DeleteUserRequest>(body).await,
            Method::VerifyUser => self.unary::<v1::VerifyUserRequest>(body).await,
            Method::RestrictIdMaps => self.unary::<v1::RestrictIdMapsRequest>(body).await,
            Method::PublishKey => self.unary::<v1::PublishKeyRequest>(body).await,
            Method::RotateKey => self.unary::<v1::RotateKeyRequest>(body).await,
            Method::RevokeKey => self.unary::<v1::RevokeKeyRequest>(body).await,
            Method::ListKeys => self.stream::<v1::ListKeysRequest>(body).await,
            Method::InitTrust => self.unary::<v1::InitTrustRequest>(body).await,
            Method::ShowTrust => self.stream::<v1::ShowTrustRequest>(body).await,
            Method::TrustHistory => self.stream::<v1::TrustHistoryRequest>(body).await,
            Method::RollbackTrust => self.unary::<v1::RollbackTrustRequest>(body).await,
            Method::GrantSigner => self.unary::<v1::GrantSignerRequest>(body).await,
            Method::RevokeSigner => self.unary::<v1::RevokeSignerRequest>(body).await,
            Method::ExportTrust => self.stream::<v1::ExportTrustRequest>(body).await,
            Method::SyncTrust => self.unary::<v1::SyncTrustRequest>(body).await,
            Method::SubmitSignature => self.unary::<v1::SubmitSignatureRequest>(body).await,
            Method::ListSignatures => self.stream::<v1::ListSignaturesRequest>(body).await,
            Method::DeployService => self.unary::<v1::DeployServiceRequest>(body).await,
            Method::RemoveService => self.unary::<v1::RemoveServiceRequest>(body).await,
            Method::ServiceStatus => self.unary::<v1::ServiceStatusRequest>(body).await,
            Method::NewCredential => self.unary::<v1::NewCredentialRequest>(body).await,
            Method::RunCheck => self.unary::<v1::RunCheckRequest>(body).await,
            Method::Findings => self.stream::<v1::FindingsRequest>(body).await,
            Method::WatchFindings => self.stream::<v1::WatchFindingsRequest>(body).await,
        })
    }

    /// What gRPC itself knows, beside podsec's own services.
    async fn call_foreign(&self, path: &str, request: Request<Incoming>) -> Response<Body> {
        match path {
            health::CHECK => self.check(request.into_body()).await,
            health::WATCH => self.watch(request.into_body()).await,
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" if self.reflection => {
                let descriptors = Reflection::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
                match descriptors.build_v1() {
                    Ok(server) => {
                        infallible(server.max_decoding_message_size(MAX_MESSAGE).call(request).await)
                    }
                    Err(_) => Failure::from(Reason::Bug).status(None).into_http(),
                }
            }
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" if self.reflection => {
                let descriptors = Reflection::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
                match descriptors.build_v1alpha() {
                    Ok(server) => {
                        infallible(server.max_decoding_message_size(MAX_MESSAGE).call(request).await)
                    }
                    Err(_) => Failure::from(Reason::Bug).status(None).into_http(),
                }
            }
            _ => {
                self.gate.malformed(None, Reason::UnknownMethod).await;
                Failure::from(Reason::UnknownMethod).status(None).into_http()
            }
        }
    }

    async fn unary<R: Rpc>(&self, body: Incoming) -> Response<Body> {
        match self.answer::<R>(body).await {
            Ok(response) => once::<R>(response),
            Err(failure) => failure.status(Some(R::METHOD)).into_http(),
        }
    }

    async fn answer<R: Rpc>(&self, body: Incoming) -> Result<R::Response, Failure> {
        let request = self.read::<R>(body).await?;
        let _busy = self.activity.begin();
        self.ask::<R>(request).await
    }

    async fn ask<R: Rpc>(&self, request: R) -> Result<R::Response, Failure> {
        let outcome = match self.gate.ask(self.operation(request).await?).await? {
            Verdict::Answer(answer) => Outcome::Answer(answer),
            Verdict::Accepted(mut replies) => Outcome::Reply(replies.next().await?),
        };
        R::response(outcome).ok_or_else(|| Reason::Bug.into())
    }

    async fn stream<R: Rpc>(&self, body: Incoming) -> Response<Body> {
        match self.messages::<R>(body).await {
            Ok(messages) => respond::<R>(messages),
            Err(failure) => failure.status(Some(R::METHOD)).into_http(),
        }
    }

    async fn messages<R: Rpc>(&self, body: Incoming) -> Result<Messages<R>, Failure> {
        let request = self.read::<R>(body).await?;
        let busy = self.activity.begin();
        match self.gate.ask(self.operation(request).await?).await? {
            Verdict::Accepted(replies) => {
                Ok(Messages { replies, _busy: busy, rpc: std::marker::PhantomData })
            }
            Verdict::Answer(_) => Err(Reason::Bug.into()),
        }
    }

    async fn check(&self, body: Incoming) -> Response<Body> {
        let request = match self.read::<HealthCheckRequest>(body).await {
            Ok(request) => request,
            Err(failure) => return failure.status(Some(Method::Health)).into_http(),
        };
        let _busy = self.activity.begin();
        if !health::is_known(&request.service) {
            return status::no_such_service().into_http();
        }
        match self.ask(request).await {
            Ok(response) => once::<HealthCheckRequest>(response),
            Err(failure) => failure.status(Some(Method::Health)).into_http(),
        }
    }

    async fn watch(&self, body: Incoming) -> Response<Body> {
        let request = match self.read::<HealthCheckRequest>(body).await {
            Ok(request) => request,
            Err(failure) => return failure.status(Some(Method::Health)).into_http(),
        };
        let busy = self.activity.begin();
        let (sender, receiver) = mpsc::channel(1);
        let (gate, every) = (Arc::clone(&self.gate), self.limits.watch);
        tokio::spawn(async move {
            let _busy = busy;
            let mut last = None;
            loop {
                let now = if health::is_known(&request.service) {
                    match gate.ask(Operation::Health).await {
                        Ok(Verdict::Answer(answer)) => HealthCheckRequest::response(Outcome::Answer(answer)),
                        Ok(_) => None,
                        Err(failure) => {
                            let _ = sender.send(Err(failure.status(Some(Method::Health)))).await;
                            return;
                        }
                    }
                } else {
                    Some(health::state(ServingStatus::ServiceUnknown))
                };
                if let Some(state) = now.filter(|_| now != last) {
                    last = now;
                    if sender.send(Ok(state)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
        respond::<HealthCheckRequest>(ReceiverStream::new(receiver))
    }

    /// The one message of a request, complete within the time for it.
    async fn read<R: Rpc>(&self, body: Incoming) -> Result<R, Failure> {
        let body = Timed { body, end: Instant::now() + self.limits.message, sleep: None };
        let decoder = StrictCodec::<R::Response, R>::default().decoder();
        let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE));
        let read = async {
            let message = messages.message().await?;
            let message = message.ok_or_else(|| Status::invalid_argument("the request has no message"))?;
            match messages.message().await? {
                None => Ok(message),
                Some(_) => Err(Status::invalid_argument("the request has more than one message")),
            }
        };
        match read.await {
            Ok(message) => Ok(message),
            Err(error) => {
                let late = error.code() == Code::DeadlineExceeded;
                let reason = if late { Reason::Deadline } else { Reason::Protocol };
                self.gate.malformed(Some(R::METHOD), reason).await;
                Err(Failure::new(reason, error.message()))
            }
        }
    }

    async fn operation<R: Rpc>(&self, request: R) -> Result<Operation, Failure> {
        let operation = request.operation();
        if let Err(failure) = &operation {
            self.gate.malformed(Some(R::METHOD), failure.reason).await;
        }
        operation
    }
}

/// Is it a gRPC call at all? `application/grpc`, with the message format or parameters behind it.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    request.method() == Verb::POST
        && kind.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn once<R: Rpc>(response: R::Response) -> Response<Body> {
    respond::<R>(tokio_stream::once(Ok(response)))
}

fn respond<R: Rpc>(
    messages: impl Stream<Item = Result<R::Response, Status>> + Send + 'static,
) -> Response<Body> {
    let encoder = StrictCodec::<R::Response, R>::default().encoder();
    let body =
        EncodeBody::new_server(encoder, messages, None, SingleMessageCompressionOverride::default(), None);
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

fn infallible(result: Result<Response<Body>, Infallible>) -> Response<Body> {
    match result {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A worker's replies as a stream, up to its end or failure.
struct Messages<R> {
    replies: Replies,
    _busy: Busy,
    rpc: std::marker::PhantomData<fn() -> R>,
}

impl<R: Rpc> Stream for Messages<R> {
    type Item = Result<R::Response, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = match ready!(self.replies.poll(cx)) {
            Ok(Reply::End) => None,
            Ok(reply) => Some(R::response(Outcome::Reply(reply)).ok_or_else(|| Reason::Bug.into())),
            Err(failure) => Some(Err(failure)),
        };
        Poll::Ready(item.map(|item| item.map_err(|failure: Failure| failure.status(Some(R::METHOD)))))
    }
}

/// A body that must be here in time: half a request, a byte a minute, or frames without a byte in them
/// (RUSTSEC-2026-0258), would hold a stream for ever.
struct Timed {
    body: Incoming,
    end: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Timed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let end = self.end;
        if Instant::now() < end {
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                return Poll::Ready(
                    frame.map(|frame| frame.map_err(|error| Status::from_error(error.into()))),
                );
            }
            ready!(self.sleep.get_or_insert_with(|| Box::pin(sleep_until(end))).as_mut().poll(cx));
        }
        Poll::Ready(Some(Err(Status::deadline_exceeded("the request did not arrive in time"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
