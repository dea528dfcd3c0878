//! Whole conversations of a client, a front and a pretended gate and worker.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says so by ending"
)]

mod common;

use common::{
    Stage, accept, accept_with, answer, client, hung_up, limits, next, reply, request, start, until_closed,
};
use podsec_policy::audit::{Filter, Phase};
use podsec_policy::enter::Program;
use podsec_policy::finding::{Check, Finding, Outcome, Ran, Report, Subject, Text, kinds};
use podsec_policy::name::AccountName;
use podsec_policy::operation::Method;
use podsec_policy::peer::{Role, Roles};
use podsec_policy::rules::RULES;
use podsec_policy::trust::{Bundle, MOST_SCOPES, SignatureBytes, Why};
use podsec_policy::user::PublicKey;
use podsec_policy::user::{Category, Fingerprint, FullName};
use podsec_policy::{Operation, Reason};
use podsec_proto::client::audit_service_client::AuditServiceClient;
use podsec_proto::client::check_service_client::CheckServiceClient;
use podsec_proto::client::identity_service_client::IdentityServiceClient;
use podsec_proto::client::key_service_client::KeyServiceClient;
use podsec_proto::client::namespace_service_client::NamespaceServiceClient;
use podsec_proto::client::service_service_client::ServiceServiceClient;
use podsec_proto::client::signature_service_client::SignatureServiceClient;
use podsec_proto::client::trust_service_client::TrustServiceClient;
use podsec_proto::client::user_service_client::UserServiceClient;
use podsec_proto::v1;
use podsec_wire::Channel;
use podsec_wire::messages::{
    Answer, Change, FileState, FromFront, Key, KeyState, Reply, Revision, ToFront, TrustPart, User, UserState,
};
use std::io::Write as _;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// Plays the gate on a thread of its own.
fn gate<T: Send + 'static>(
    gate: Channel,
    play: impl FnOnce(&Channel) -> T + Send + 'static,
) -> std::thread::JoinHandle<(Channel, T)> {
    std::thread::spawn(move || {
        let result = play(&gate);
        (gate, result)
    })
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every status of podsecd has an ErrorInfo");
    assert_eq!(info.domain, "podsec");
    info.reason
}

fn who_am_i() -> Answer {
    let roles = Roles::NONE.with(Role::Anyone).with(Role::ClusterAdmin);
    Answer::WhoAmI { uid: 400, login_uid: Some(1000), roles }
}

fn healthy(audit_writable: bool) -> Answer {
    Answer::Health { audit_writable, connections: 1, sessions: 2, uptime: 3 }
}

fn malformed(method: Option<Method>, reason: Reason) -> FromFront {
    FromFront::Malformed { method, reason }
}

fn login_shell() -> v1::EnterRequest {
    v1::EnterRequest {
        program: Some(v1::enter_request::Program::LoginShell(v1::LoginShell {})),
        ..v1::EnterRequest::default()
    }
}

#[tokio::test]
async fn who_am_i_twice() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        for _ in 0..2 {
            let (id, operation) = request(gate);
            assert_eq!(operation, Operation::WhoAmI);
            answer(gate, id, who_am_i());
        }
    });
    let mut client = IdentityServiceClient::new(client(stage.caller).await);
    for _ in 0..2 {
        let me = client.who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
        assert_eq!((me.uid, me.login_uid), (400, Some(1000)));
        assert_eq!(me.roles, ["ClusterAdmin", "Anyone"]);
        assert_eq!(me.version, env!("CARGO_PKG_VERSION"));
        assert!(me.operations.iter().any(|path| path == "podsec.v1.NamespaceService/Enter"));
        assert!(me.operations.iter().any(|path| path == "podsec.v1.IdentityService/WhoAmI"));
        assert!(!me.operations.iter().any(|path| path.contains("Audit")));
    }
    drop(client);
    gate.join().unwrap();
    stage.front.join().unwrap();
}

/// Answers may come in any order, and many calls may be open.
#[tokio::test]
async fn calls_do_not_mix() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let mut asked: Vec<_> = (0..16).map(|_| request(gate)).collect();
        asked.reverse();
        for (id, operation) in asked {
            match operation {
                Operation::WhoAmI => answer(gate, id, who_am_i()),
                Operation::Health => answer(gate, id, healthy(true)),
                other => panic!("{other:?}"),
            }
        }
    });
    let client = IdentityServiceClient::new(client(stage.caller).await);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (mut one, mut two) = (client.clone(), client.clone());
            tokio::spawn(async move {
                tokio::join!(one.who_am_i(v1::WhoAmIRequest {}), two.health(v1::HealthRequest {}))
            })
        })
        .collect();
    for call in calls {
        let (me, health) = call.await.unwrap();
        assert_eq!(me.unwrap().into_inner().uid, 400);
        let health = health.unwrap().into_inner();
        assert_eq!((health.audit_writable, health.sessions, health.uptime), (true, 2, 3));
    }
    gate.join().unwrap();
}

/// More than the channel holds, and a gate that is busy with others.
#[tokio::test]
async fn a_slow_gate() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..16 {
            let (id, operation) = request(gate);
            let Operation::Enter(enter) = operation else { panic!("{operation:?}") };
            let Program::Command(argv) = enter.program() else { panic!("{enter:?}") };
            assert_eq!(argv[1].len(), 100_000);
            gate.send(&ToFront::Refused { id, reason: Reason::SessionLimit }, &[]).unwrap();
        }
    });
    let client = NamespaceServiceClient::new(client(stage.caller).await);
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let mut client = client.clone();
            let command = v1::Command { argv: vec![b"a".to_vec(), vec![b'x'; 100_000]] };
            let program = Some(v1::enter_request::Program::Command(command));
            let request = v1::EnterRequest { program, ..v1::EnterRequest::default() };
            tokio::spawn(async move { client.enter(request).await.unwrap_err() })
        })
        .collect();
    for call in calls {
        assert_eq!(reason(&call.await.unwrap()), "session-limit");
    }
    gate.join().unwrap();
}

#[tokio::test]
async fn a_refused_person_learns_nothing() {
    let hidden: Vec<_> = Reason::ALL.iter().copied().filter(|reason| !reason.is_public()).collect();
    let stage = start(limits(), false);
    let reasons = hidden.clone();
    let gate = gate(stage.gate, move |gate| {
        for reason in reasons {
            let (id, _) = request(gate);
            gate.send(&ToFront::Refused { id, reason }, &[]).unwrap();
        }
    });
    let mut client = NamespaceServiceClient::new(client(stage.caller).await);
    let mut seen = Vec::new();
    for _ in &hidden {
        let status = client.enter(login_shell()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(
            status.message(),
            "not authorised: NamespaceService/Enter is for Administrator or ClusterAdmin"
        );
        assert_eq!(reason(&status), "not-authorised");
        seen.push((status.details().to_vec(), status.metadata().len()));
    }
    // byte for byte, apart from the order in which a map is written
    seen.iter_mut().for_each(|(details, _)| details.sort_unstable());
    seen.dedup();
    assert_eq!(seen.len(), 1);
    gate.join().unwrap();
}

#[tokio::test]
async fn enter_brings_a_ticket() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let (id, operation) = request(gate);
        let Operation::Enter(enter) = operation else { panic!("{operation:?}") };
        assert_eq!(enter.program(), &Program::Command(vec![b"id".to_vec(), b"\xff".to_vec()]));
        assert_eq!(enter.directory(), Some(&b"/tmp"[..]));
        assert_eq!(enter.environment()[0].name(), "TERM");
        assert_eq!(enter.terminal().unwrap().rows(), 24);
        assert_eq!(enter.reservation(), 5);
        let first =
            Reply::Entering { ticket: Some([7; 32]), attach: "/run/a.sock".into(), session: "abc".into() };
        let worker = accept_with(gate, id, Some(first));
        reply(&worker, &Reply::Failed { reason: Reason::NamespaceGone, detail: String::new() });
    });
    let mut client = NamespaceServiceClient::new(client(stage.caller).await);
    let request = v1::EnterRequest {
        reservation: 5,
        program: Some(v1::enter_request::Program::Command(v1::Command {
            argv: vec![b"id".to_vec(), b"\xff".to_vec()],
        })),
        cwd: b"/tmp".to_vec(),
        env: vec![v1::EnvVar { name: "TERM".into(), value: b"xterm".to_vec() }],
        terminal: Some(v1::Terminal { rows: 24, columns: 80 }),
    };
    let mut answers = client.enter(request).await.unwrap().into_inner();
    let entered = answers.message().await.unwrap().unwrap();
    assert_eq!((entered.ticket, entered.attach_socket.as_str()), (vec![7; 32], "/run/a.sock"));
    assert_eq!(entered.session, "abc");
    assert_eq!(reason(&answers.message().await.unwrap_err()), "namespace-gone");
    gate.join().unwrap();
}

#[tokio::test]
async fn a_worker_says_why_not() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        for detail in ["", "the rootless namespace of u7s-admin is not up"] {
            let (id, _) = request(gate);
            let worker = accept(gate, id);
            reply(&worker, &Reply::Failed { reason: Reason::NamespaceDown, detail: detail.into() });
        }
        // an answer to another question is a bug, and not an answer
        let (id, _) = request(gate);
        reply(&accept(gate, id), &Reply::Changed(true));
    });
    let mut client = NamespaceServiceClient::new(client(stage.caller).await);
    for message in [Reason::NamespaceDown.sentence(), "the rootless namespace of u7s-admin is not up"] {
        let status = client.inspect(v1::InspectRequest {}).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, message));
        assert_eq!(reason(&status), "namespace-down");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["method"], "NamespaceService/Inspect");
        assert_eq!(info.metadata["roles"], "Administrator or ClusterAdmin");
    }
    let status = client.inspect(v1::InspectRequest {}).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Internal, "internal"));
    gate.join().unwrap();
}

#[tokio::test]
async fn a_lost_worker() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        // the end of the channel first, the gate's word later
        let (id, _) = request(gate);
        drop(accept(gate, id));
        std::thread::sleep(Duration::from_millis(100));
        gate.send(&ToFront::Lost { id, reason: Reason::HelperLost }, &[]).unwrap();
        // before it was accepted
        let (id, _) = request(gate);
        gate.send(&ToFront::Lost { id, reason: Reason::Deadline }, &[]).unwrap();
        // a word, and a worker that hangs
        let (id, _) = request(gate);
        let hanging = accept(gate, id);
        gate.send(&ToFront::Lost { id, reason: Reason::HelperLost }, &[]).unwrap();
        // an end without a word
        let (id, _) = request(gate);
        drop(accept(gate, id));
        assert!(hung_up(&hanging));
        // no descriptor where there should be one
        let (id, _) = request(gate);
        gate.send(&ToFront::Accepted { id, first: None }, &[]).unwrap();
    });
    let mut client = NamespaceServiceClient::new(client(stage.caller).await);
    for (code, name) in [
        (Code::Internal, "helper-lost"),
        (Code::DeadlineExceeded, "deadline"),
        (Code::Internal, "helper-lost"),
        (Code::Internal, "internal"),
        (Code::ResourceExhausted, "resources"),
    ] {
        let status = client.inspect(v1::InspectRequest {}).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (code, name));
    }
    gate.join().unwrap();
}

#[tokio::test]
async fn a_stream_of_records() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let (id, operation) = request(gate);
        let filter = Filter { uid: Some(0), phase: Some(Phase::Deny), last: Some(3), ..Filter::default() };
        assert_eq!(operation, Operation::AuditQuery(filter));
        let worker = accept(gate, id);
        for number in 0..1000 {
            reply(&worker, &Reply::Record(format!("{{\"seq\":{number}}}")));
        }
        reply(&worker, &Reply::End);
        assert!(hung_up(&worker));
        // one that breaks in the middle
        let (id, _) = request(gate);
        let worker = accept(gate, id);
        reply(&worker, &Reply::Record("{}".into()));
        reply(&worker, &Reply::Failed { reason: Reason::Bug, detail: String::new() });
    });
    let mut client = AuditServiceClient::new(client(stage.caller).await);
    let filter =
        v1::AuditFilter { uid: Some(0), phase: "deny".into(), last: 3, ..v1::AuditFilter::default() };
    let mut records = client.query(v1::QueryRequest { filter: Some(filter) }).await.unwrap().into_inner();
    for number in 0..1000 {
        assert_eq!(records.message().await.unwrap().unwrap().json, format!("{{\"seq\":{number}}}"));
    }
    assert!(records.message().await.unwrap().is_none());
    let mut records = client.query(v1::QueryRequest { filter: None }).await.unwrap().into_inner();
    assert!(records.message().await.unwrap().is_some());
    assert_eq!(reason(&records.message().await.unwrap_err()), "internal");
    gate.join().unwrap();
}

#[tokio::test]
async fn streams_of_users_and_keys() {
    let name = AccountName::new("carol").unwrap();
    let fingerprint = Fingerprint::new(&"0a".repeat(20)).unwrap();
    let user = User {
        name: name.clone(),
        uid: 1000,
        category: Category::ImageUser,
        state: UserState::Locked,
        full_name: FullName::default(),
        subids: None,
        created: 1,
        keys: 0,
    };
    let key = Key {
        creator: name.clone(),
        fingerprint,
        algorithm: "ed25519".into(),
        user_id: "carol <carol@a.b>".into(),
        state: KeyState::Current,
        created: 1,
        expires: None,
        published: 2,
        // the longest fits into a packet
        key: vec![0xff; PublicKey::LONGEST],
    };
    let stage = start(limits(), false);
    let gate = gate(stage.gate, move |gate| {
        let replies = [Reply::User(Box::new(user)), Reply::Key(Box::new(key))];
        let asked = [Operation::ListUsers(None), Operation::ListKeys(Some(name))];
        for (one, asked) in replies.into_iter().zip(asked) {
            let (id, operation) = request(gate);
            assert_eq!(operation, asked);
            let worker = accept(gate, id);
            for _ in 0..20 {
                reply(&worker, &one);
            }
            reply(&worker, &Reply::End);
            assert!(hung_up(&worker));
        }
    });
    let channel = client(stage.caller).await;
    let request = v1::ListUsersRequest { name: String::new() };
    let mut users = UserServiceClient::new(channel.clone()).list(request).await.unwrap().into_inner();
    for _ in 0..20 {
        let user = users.message().await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.state()), ("carol", v1::UserState::Locked));
    }
    assert!(users.message().await.unwrap().is_none());
    let request = v1::ListKeysRequest { creator: "carol".into() };
    let mut keys = KeyServiceClient::new(channel).list(request).await.unwrap().into_inner();
    for _ in 0..20 {
        let key = keys.message().await.unwrap().unwrap();
        assert_eq!((key.creator.as_str(), key.key.len()), ("carol", PublicKey::LONGEST));
    }
    assert!(keys.message().await.unwrap().is_none());
    gate.join().unwrap();
}

/// Lock is not Unlock: each path is its own operation, and says its own name when it is refused.
#[tokio::test]
async fn each_method_of_users_and_keys_is_itself() {
    let rows =
        || RULES.iter().filter(|rule| rule.path.contains("UserService") || rule.path.contains("KeyService"));
    let stage = start(limits(), false);
    let gate = gate(stage.gate, move |gate| {
        for rule in rows() {
            let (id, operation) = request(gate);
            assert_eq!(operation.method(), rule.method);
            gate.send(&ToFront::Refused { id, reason: Reason::RequestLimit }, &[]).unwrap();
        }
    });
    let channel = client(stage.caller).await;
    let (mut users, mut keys) = (UserServiceClient::new(channel.clone()), KeyServiceClient::new(channel));
    let name = || "carol".to_owned();
    let category = v1::create_user_request::Category::ImageUser(v1::ImageUser {});
    let create =
        v1::CreateUserRequest { name: name(), category: Some(category), ..v1::CreateUserRequest::default() };
    let set = v1::SetPasswordRequest { name: name(), password: b"hunter2 hunter2".to_vec() };
    let publish = v1::PublishKeyRequest { key: vec![1], ..v1::PublishKeyRequest::default() };
    let rotate = v1::RotateKeyRequest { key: vec![1], ..v1::RotateKeyRequest::default() };
    let revoke = v1::RevokeKeyRequest { fingerprint: "0a".repeat(20), ..v1::RevokeKeyRequest::default() };
    // in the order of the table
    let refused = [
        users.create(create).await.unwrap_err(),
        users.list(v1::ListUsersRequest::default()).await.unwrap_err(),
        users.set_password(set).await.unwrap_err(),
        users.lock(v1::LockUserRequest { name: name(), dry_run: false }).await.unwrap_err(),
        users.unlock(v1::UnlockUserRequest { name: name(), dry_run: false }).await.unwrap_err(),
        users
            .delete(v1::DeleteUserRequest { name: name(), ..v1::DeleteUserRequest::default() })
            .await
            .unwrap_err(),
        users.verify(v1::VerifyUserRequest { name: name() }).await.unwrap_err(),
        users.restrict_id_maps(v1::RestrictIdMapsRequest::default()).await.unwrap_err(),
        keys.publish(publish).await.unwrap_err(),
        keys.rotate(rotate).await.unwrap_err(),
        keys.revoke(revoke).await.unwrap_err(),
        keys.list(v1::ListKeysRequest::default()).await.unwrap_err(),
    ];
    assert_eq!(refused.len(), rows().count());
    for (status, rule) in refused.iter().zip(rows()) {
        assert_eq!(reason(status), "request-limit");
        assert_eq!(status.get_details_error_info().unwrap().metadata["method"], rule.method.name());
    }
    gate.join().unwrap();
}

/// As for users: Grant is not Revoke, and Deploy is not Remove.
#[tokio::test]
async fn each_method_of_trust_and_its_servers_is_itself() {
    let services = ["TrustService", "SignatureService", "ServiceService"];
    let rows =
        move || RULES.iter().filter(move |rule| services.iter().any(|service| rule.path.contains(service)));
    let stage = start(limits(), false);
    let gate = gate(stage.gate, move |gate| {
        for rule in rows() {
            let (id, operation) = request(gate);
            assert_eq!(operation.method(), rule.method);
            gate.send(&ToFront::Refused { id, reason: Reason::RequestLimit }, &[]).unwrap();
        }
    });
    let channel = client(stage.caller).await;
    let mut trust = TrustServiceClient::new(channel.clone());
    let (mut signatures, mut servers) =
        (SignatureServiceClient::new(channel.clone()), ServiceServiceClient::new(channel));
    let (creator, registry) = ("carol".to_owned(), "registry.local".to_owned());
    let init = v1::InitTrustRequest {
        registry: registry.clone(),
        signatures: "sigstore.local".into(),
        ..v1::InitTrustRequest::default()
    };
    let rollback = v1::RollbackTrustRequest { revision: 1, reason: None };
    let grant = v1::GrantSignerRequest {
        creator: creator.clone(),
        scopes: vec![registry.clone()],
        kind: 1,
        ..v1::GrantSignerRequest::default()
    };
    let revoke = v1::RevokeSignerRequest { creator, ..v1::RevokeSignerRequest::default() };
    let sync = v1::SyncTrustRequest { bundle: vec![1], ..v1::SyncTrustRequest::default() };
    let submit = v1::SubmitSignatureRequest {
        repository: format!("{registry}/team/app"),
        digest: format!("sha256:{}", "0a".repeat(32)),
        signature: vec![1],
    };
    let deploy = v1::DeployServiceRequest { kind: 1, ..v1::DeployServiceRequest::default() };
    let remove = v1::RemoveServiceRequest { kind: 1, ..v1::RemoveServiceRequest::default() };
    // in the order of the table
    let refused = [
        trust.init(init).await.unwrap_err(),
        trust.show(v1::ShowTrustRequest::default()).await.unwrap_err(),
        trust.history(v1::TrustHistoryRequest {}).await.unwrap_err(),
        trust.rollback(rollback).await.unwrap_err(),
        trust.grant(grant).await.unwrap_err(),
        trust.revoke(revoke).await.unwrap_err(),
        trust.export(v1::ExportTrustRequest {}).await.unwrap_err(),
        trust.sync(sync).await.unwrap_err(),
        signatures.submit(submit).await.unwrap_err(),
        signatures.list(v1::ListSignaturesRequest::default()).await.unwrap_err(),
        servers.deploy(deploy).await.unwrap_err(),
        servers.remove(remove).await.unwrap_err(),
        servers.status(v1::ServiceStatusRequest {}).await.unwrap_err(),
        servers.new_credential(v1::NewCredentialRequest {}).await.unwrap_err(),
    ];
    assert_eq!(refused.len(), rows().count());
    for (status, rule) in refused.iter().zip(rows()) {
        assert_eq!(reason(status), "request-limit");
        assert_eq!(status.get_details_error_info().unwrap().metadata["method"], rule.method.name());
    }
    gate.join().unwrap();
}

/// Findings is not Watch, and all are for those who administer or monitor.
#[tokio::test]
async fn each_method_of_the_monitors_is_itself() {
    let rows = || RULES.iter().filter(|rule| rule.path.contains("CheckService"));
    let stage = start(limits(), false);
    let gate = gate(stage.gate, move |gate| {
        for rule in rows() {
            let (id, operation) = request(gate);
            assert_eq!(operation.method(), rule.method);
            gate.send(&ToFront::Refused { id, reason: Reason::NotMember }, &[]).unwrap();
        }
        // what is no check is no request
        for method in [Method::RunCheck, Method::Findings] {
            assert_eq!(next(gate), malformed(Some(method), Reason::BadArgument));
        }
    });
    let mut checks = CheckServiceClient::new(client(stage.caller).await);
    // in the order of the table
    let refused = [
        checks.run(v1::RunCheckRequest { check: "policy".into() }).await.unwrap_err(),
        checks.findings(v1::FindingsRequest::default()).await.unwrap_err(),
        checks.watch(v1::WatchFindingsRequest { check: "kubeapi".into() }).await.unwrap_err(),
    ];
    assert_eq!(refused.len(), rows().count());
    for (status, rule) in refused.iter().zip(rows()) {
        assert_eq!((status.code(), reason(status).as_str()), (Code::PermissionDenied, "not-authorised"));
        let said = format!("not authorised: {} is for Administrator or Monitor", rule.method.name());
        assert_eq!(status.message(), said);
    }
    for status in [
        checks.run(v1::RunCheckRequest { check: "kubeapi".into() }).await.unwrap_err(),
        checks.findings(v1::FindingsRequest { check: "Policy".into() }).await.unwrap_err(),
    ] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "bad-argument"));
    }
    gate.join().unwrap();
}

/// A report with the longest texts there are.
fn report(check: Check, findings: usize) -> Report {
    let text = vec![0xff; 1 << 16];
    let kind = kinds().find(|kind| kind.check == check).unwrap();
    let finding = |number: usize| {
        let place = [number.to_string().as_bytes(), &text].concat();
        Finding::new(kind, Subject::Image(Text::of(&text)), place, &text).of(&text)
    };
    let mut report = Report::new(check);
    report.replace(7, Outcome::Unknown { why: Text::of(&text) }, (0..findings).map(finding));
    report
}

/// The client's side of [`report`].
async fn all_of(events: &mut tonic::Streaming<v1::CheckEvent>) {
    let mut next = async || events.message().await.unwrap().and_then(|event| event.event);
    let Some(v1::check_event::Event::Summary(summary)) = next().await else { panic!("no summary") };
    assert_eq!((summary.check.as_str(), summary.findings, summary.time), ("policy", 500, 7));
    for _ in 0..500 {
        let Some(v1::check_event::Event::Finding(one)) = next().await else { panic!("no finding") };
        assert!(one.id.len() == 16 && one.place.contains("\\xff") && one.check == "policy");
    }
}

#[tokio::test]
async fn what_the_monitors_found() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let (id, operation) = request(gate);
        assert_eq!(operation, Operation::RunCheck(Check::Images));
        let ran = Ran { summary: report(Check::Images, 3).summary(), new: 3, gone: 1 };
        reply(&accept(gate, id), &Reply::Ran(Box::new(ran)));
        for asked in [Operation::Findings(None), Operation::WatchFindings(Some(Check::Policy))] {
            let (id, operation) = request(gate);
            assert_eq!(operation, asked);
            let worker = accept(gate, id);
            let report = report(Check::Policy, 500);
            reply(&worker, &Reply::Summary(Box::new(report.summary())));
            for found in report.findings.into_values() {
                reply(&worker, &Reply::Found(Box::new(found)));
            }
            if asked == Operation::Findings(None) {
                reply(&worker, &Reply::End);
            } else {
                reply(&worker, &Reply::Gone("0123456789abcdef".into()));
            }
            // who reads no more is told to the worker
            assert!(hung_up(&worker));
        }
        let (id, _) = request(gate);
        let detail = "the report: not a report".to_owned();
        reply(&accept(gate, id), &Reply::Failed { reason: Reason::Resources, detail });
    });
    let mut checks = CheckServiceClient::new(client(stage.caller).await);
    let ran = checks.run(v1::RunCheckRequest { check: "images".into() }).await.unwrap().into_inner();
    assert_eq!((ran.new, ran.gone, ran.summary.unwrap().state.as_str()), (3, 1, "unknown"));
    let mut whole = checks.findings(v1::FindingsRequest::default()).await.unwrap().into_inner();
    all_of(&mut whole).await;
    assert!(whole.message().await.unwrap().is_none());
    let watch = v1::WatchFindingsRequest { check: "policy".into() };
    let mut watched = checks.watch(watch).await.unwrap().into_inner();
    all_of(&mut watched).await;
    let gone = watched.message().await.unwrap().unwrap().event;
    assert_eq!(gone, Some(v1::check_event::Event::Gone("0123456789abcdef".into())));
    drop(watched);
    let mut events = checks.findings(v1::FindingsRequest::default()).await.unwrap().into_inner();
    let status = events.message().await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.message()), ("resources", "the report: not a report"));
    gate.join().unwrap();
}

/// As long as everything in them may be: they fit a message and a packet, and so do a step each for what they ask.
#[tokio::test]
async fn the_longest_requests_about_trust_arrive() {
    let path = "x".repeat(247);
    let scopes: Vec<_> = (100..100 + MOST_SCOPES).map(|number| format!("a.b{number}/{path}")).collect();
    let steps: Vec<_> = scopes.iter().map(|scope| format!("let carol sign in {scope}, by 1 key")).collect();
    let stage = start(limits(), false);
    let (wanted, done) = (scopes.clone(), steps.clone());
    let gate = gate(stage.gate, move |gate| {
        for _ in 0..3 {
            let (id, operation) = request(gate);
            let answer = match operation {
                Operation::GrantSigner(grant) => {
                    assert!(grant.scopes.iter().map(|scope| scope.as_str()).eq(wanted.iter()));
                    Reply::Trust(2, Change { steps: done.clone(), ..Change::default() })
                }
                Operation::SubmitSignature(submit) => {
                    assert_eq!(submit.signature.bytes(), vec![0xff; SignatureBytes::LONGEST]);
                    Reply::Submitted("x".into(), true)
                }
                Operation::SyncTrust(sync) => {
                    assert_eq!(sync.bundle.bytes(), vec![0xff; Bundle::LONGEST]);
                    assert_eq!(sync.reason.why.as_str().len(), 800);
                    Reply::Trust(3, Change::default())
                }
                other => panic!("{other:?}"),
            };
            reply(&accept(gate, id), &answer);
        }
    });
    let channel = client(stage.caller).await;
    let (mut trust, mut signatures) =
        (TrustServiceClient::new(channel.clone()), SignatureServiceClient::new(channel));
    let because = || Some(v1::TrustReason { why: "\u{10348}".repeat(200), ..v1::TrustReason::default() });
    let grant =
        v1::GrantSignerRequest { creator: "c".repeat(32), scopes, kind: 2, shared: true, reason: because() };
    let answer = trust.grant(grant).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.steps), (2, steps));
    let submit = v1::SubmitSignatureRequest {
        repository: format!("registry.local/{}", "x".repeat(240)),
        digest: format!("sha256:{}", "0a".repeat(32)),
        signature: vec![0xff; SignatureBytes::LONGEST],
    };
    assert!(signatures.submit(submit).await.unwrap().into_inner().changed);
    let sync = v1::SyncTrustRequest {
        bundle: vec![0xff; Bundle::LONGEST],
        url: format!("https://sigstore.local/{}", "x".repeat(477)),
        fingerprint: "0a".repeat(20),
        reason: because(),
    };
    assert_eq!(trust.sync(sync).await.unwrap().into_inner().revision, 3);
    gate.join().unwrap();
}

#[tokio::test]
async fn streams_of_trust() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let head = |revision| {
            let why = Why::default();
            let (user, what) = ("alice".into(), "carol signs in a.b".into());
            Revision { revision, time: 1, uid: 1000, user, why, what, scopes: 1 }
        };
        let revision = |number| Reply::TrustPart(Box::new(TrustPart::Revision(head(number))));
        let file = |contents| {
            let (path, state) = ("/etc/containers/policy.json".into(), FileState::Same);
            Reply::TrustPart(Box::new(TrustPart::File { path, state, contents }))
        };
        let answers = [
            vec![revision(7), file(vec![b'a'; 100_000]), file(vec![b'b'; 100_000])],
            vec![revision(7), revision(6)],
            vec![Reply::Bytes(vec![0xff; 100_000]), Reply::Bytes(vec![0; 28_000])],
            Vec::new(),
        ];
        for replies in answers {
            let (id, _) = request(gate);
            let worker = accept(gate, id);
            for one in replies {
                reply(&worker, &one);
            }
            reply(&worker, &Reply::End);
            assert!(hung_up(&worker));
        }
    });
    let channel = client(stage.caller).await;
    let mut trust = TrustServiceClient::new(channel.clone());
    let request = v1::ShowTrustRequest { revision: 7, files: true };
    let mut parts = trust.show(request).await.unwrap().into_inner();
    let mut part = async || parts.message().await.unwrap().map(|part| part.part.unwrap());
    assert!(matches!(part().await, Some(v1::trust_part::Part::Revision(head)) if head.revision == 7));
    for byte in *b"ab" {
        let Some(v1::trust_part::Part::File(file)) = part().await else { panic!("no file") };
        assert_eq!(file.contents, vec![byte; 100_000]);
    }
    assert_eq!(part().await, None);
    let mut heads = trust.history(v1::TrustHistoryRequest {}).await.unwrap().into_inner();
    for number in [7, 6] {
        assert_eq!(heads.message().await.unwrap().unwrap().revision, number);
    }
    assert_eq!(heads.message().await.unwrap(), None);
    let mut bundle = trust.export(v1::ExportTrustRequest {}).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = bundle.message().await.unwrap() {
        bytes.extend(part.data);
    }
    assert_eq!(bytes, [vec![0xff; 100_000], vec![0; 28_000]].concat());
    let request = v1::ListSignaturesRequest { creator: "carol".into() };
    let mut records = SignatureServiceClient::new(channel).list(request).await.unwrap().into_inner();
    assert_eq!(records.message().await.unwrap(), None);
    gate.join().unwrap();
}

/// A password that is none is named, reported, and in nothing that is said.
#[tokio::test]
async fn a_bad_password_is_not_repeated() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, next);
    let mut client = UserServiceClient::new(client(stage.caller).await);
    let request = v1::SetPasswordRequest { name: "carol".into(), password: b"hunter2\nroot:x".to_vec() };
    let status = client.set_password(request).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "bad-secret"));
    assert_eq!(status.message(), "password: a password or passphrase has no control characters");
    assert!(!String::from_utf8_lossy(status.details()).contains("hunter"));
    let reported = gate.join().unwrap().1;
    assert_eq!(reported, malformed(Some(Method::SetPassword), Reason::BadSecret));
}

/// A caller who does not read stops the worker, and not after long; one who goes away ends it.
#[tokio::test]
async fn a_stream_waits_for_its_reader() {
    let stage = start(limits(), false);
    let (stalled, waiting) = tokio::sync::oneshot::channel();
    let gate = gate(stage.gate, |gate| {
        let (id, _) = request(gate);
        let worker = accept(gate, id);
        worker.set_nonblocking().unwrap();
        let record = Reply::Record("x".repeat(4000));
        let (mut bytes, mut last) = (0, Instant::now());
        while last.elapsed() < Duration::from_millis(700) {
            match worker.send(&record, &[]) {
                Ok(()) => (bytes, last) = (bytes + 4000, Instant::now()),
                Err(error) if error.would_block() => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error}"),
            }
            assert!(bytes < 64 << 20, "the front reads on and on");
        }
        stalled.send(bytes).unwrap();
        assert!(hung_up(&worker));
    });
    let mut client = AuditServiceClient::new(client(stage.caller).await);
    let records = client.follow(v1::FollowRequest { filter: None }).await.unwrap();
    let bytes = waiting.await.unwrap();
    println!("{bytes} bytes were under way");
    assert!(bytes < 4 << 20, "{bytes}");
    // gone is gone, also while the connection goes on
    drop(records);
    tokio::task::spawn_blocking(|| gate.join().unwrap()).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn a_caller_who_gives_up_is_forgotten() {
    let stage = start(limits(), false);
    let (given_up, gone) = std::sync::mpsc::channel();
    let gate = gate(stage.gate, move |gate| {
        let (id, _) = request(gate);
        gone.recv().unwrap();
        let late = accept(gate, id);
        assert!(hung_up(&late));
        let (id, _) = request(gate);
        answer(gate, id, who_am_i());
    });
    let channel = client(stage.caller).await;
    let mut namespace = NamespaceServiceClient::new(channel.clone());
    let call = tokio::time::timeout(Duration::from_millis(200), namespace.inspect(v1::InspectRequest {}));
    assert!(call.await.is_err());
    tokio::time::sleep(Duration::from_millis(50)).await;
    given_up.send(()).unwrap();
    let mut identity = IdentityServiceClient::new(channel);
    identity.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    gate.join().unwrap();
}

#[tokio::test]
async fn the_gate_goes() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        // in whichever order the two come
        let asked = [request(gate), request(gate)];
        let follow = asked.iter().find(|(_, operation)| matches!(operation, Operation::AuditFollow(_)));
        accept(gate, follow.unwrap().0)
    });
    let channel = client(stage.caller).await;
    let (mut one, mut two) = (NamespaceServiceClient::new(channel.clone()), AuditServiceClient::new(channel));
    let asked = tokio::spawn(async move { one.inspect(v1::InspectRequest {}).await.unwrap_err() });
    let mut records = two.follow(v1::FollowRequest { filter: None }).await.unwrap().into_inner();
    let (channel, worker) = gate.join().unwrap();
    reply(&worker, &Reply::Record("{}".into()));
    drop(channel);
    assert!(records.message().await.unwrap().is_some());
    for status in [asked.await.unwrap(), records.message().await.unwrap_err()] {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "shutting-down"));
    }
    assert!(hung_up(&worker));
    let again = two.verify(v1::VerifyRequest {}).await.unwrap_err();
    assert_eq!(again.code(), Code::Unavailable);
    tokio::task::spawn_blocking(|| stage.front.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn bad_arguments_are_named_and_reported() {
    let stage = start(limits(), false);
    let enter = |request: v1::EnterRequest| {
        move |mut client: NamespaceServiceClient<_>| async move { client.enter(request).await.unwrap_err() }
    };
    let gate = gate(stage.gate, |gate| [next(gate), next(gate), next(gate)]);
    let client = NamespaceServiceClient::new(client(stage.caller).await);

    let status = enter(v1::EnterRequest::default())(client.clone()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "empty-argv"));
    assert!(status.message().starts_with("program:"), "{}", status.message());

    let variable = v1::EnvVar { name: "LD_PRELOAD".into(), value: vec![] };
    let status = enter(v1::EnterRequest { env: vec![variable], ..login_shell() })(client.clone()).await;
    assert_eq!(reason(&status), "bad-env");
    assert!(status.message().starts_with("env[0]: variable \"LD_PRELOAD\""), "{}", status.message());

    let status = client.clone().add_port(v1::AddPortRequest::default()).await.unwrap_err();
    assert_eq!((reason(&status).as_str(), status.message()), ("bad-argument", "port: missing"));

    let (_, reported) = gate.join().unwrap();
    assert_eq!(reported[0], malformed(Some(Method::Enter), Reason::EmptyArgv));
    assert_eq!(reported[1], malformed(Some(Method::Enter), Reason::BadEnvironment));
    assert_eq!(reported[2], malformed(Some(Method::AddPort), Reason::BadArgument));
}

/// One gRPC call in raw bytes: what came back, as a status.
async fn raw(
    caller: std::os::unix::net::UnixStream,
    path: &str,
    kind: &str,
    body: &[u8],
) -> (u16, Option<Status>) {
    caller.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(caller).unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://podsec{path}")).header("content-type", kind);
    let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
    stream.reserve_capacity(body.len());
    for part in body.chunks(16 * 1024) {
        // refused before all of it was read is an answer too
        if stream.send_data(part.to_vec().into(), false).is_err() {
            break;
        }
    }
    let _ = stream.send_data(bytes::Bytes::new(), true);
    let response = response.await.unwrap();
    (response.status().as_u16(), Status::from_header_map(response.headers()))
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

#[tokio::test]
async fn bytes_that_are_no_request() {
    let path = "/podsec.v1.IdentityService/WhoAmI";
    let unknown_field = frame(&[0x48, 1]);
    let twice = [frame(&[]), frame(&[])].concat();
    let compressed = [1, 0, 0, 0, 0];
    let too_long = frame(&vec![0; podsec_policy::config::MAX_MESSAGE + 1]);
    let short = [0, 0, 0, 0, 9, 1];
    for body in [&unknown_field[..], &frame(&[0xff; 9]), &twice, &compressed, &too_long, &short, &[]] {
        let stage = start(limits(), false);
        let gate = gate(stage.gate, next);
        let (http, status) = raw(stage.caller, path, "application/grpc", body).await;
        let status = status.unwrap();
        assert_eq!((http, status.code()), (200, Code::InvalidArgument), "{body:?}: {status}");
        assert_eq!(reason(&status), "protocol");
        assert_eq!(gate.join().unwrap().1, malformed(Some(Method::WhoAmI), Reason::Protocol));
    }
}

#[tokio::test]
async fn methods_that_are_not_there() {
    for path in [
        "/podsec.v1.IdentityService/Whoami",
        "//podsec.v1.IdentityService/WhoAmI",
        "/podsec.v1.IdentityService/WhoAmI/",
        "/podsec.v1.IdentityService/WhoAmI%00",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/",
    ] {
        let stage = start(limits(), false);
        let gate = gate(stage.gate, next);
        let (_, status) = raw(stage.caller, path, "application/grpc", &frame(&[])).await;
        let status = status.unwrap();
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unimplemented, "unknown-method"),
            "{path}"
        );
        assert_eq!(gate.join().unwrap().1, malformed(None, Reason::UnknownMethod));
    }
}

#[tokio::test]
async fn http_2_that_is_not_grpc() {
    for kind in ["text/plain", "application/grpc-web", "application/grpcx", ""] {
        let stage = start(limits(), false);
        let gate = gate(stage.gate, next);
        let (http, status) = raw(stage.caller, "/podsec.v1.IdentityService/WhoAmI", kind, &frame(&[])).await;
        assert_eq!((http, status.is_none()), (415, true), "{kind}");
        assert_eq!(gate.join().unwrap().1, malformed(None, Reason::Protocol));
    }
}

#[test]
fn what_is_not_http_2() {
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(30);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let bad_settings = [&preface[..], b"\0\0\x05\x04\0\0\0\0\0hello"].concat();
    let huge_frame = [&preface[..], b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\x01\x05\0\0\0\x01"].concat();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: podsec\r\n\r\n"[..],
        &hello,
        b"\0",
        b"hello\n",
        &[0xff; 5000],
        &bad_settings,
        &huge_frame,
    ] {
        let Stage { gate, mut caller, front } = start(limits(), false);
        caller.write_all(bytes).unwrap();
        assert!(
            until_closed(&mut caller) < limits().first,
            "{}",
            bytes[..bytes.len().min(40)].escape_ascii()
        );
        assert_eq!(next(&gate), malformed(None, Reason::Protocol));
        front.join().unwrap();
        assert!(gate.receive::<FromFront>().unwrap().is_none());
    }
}

/// CONTINUATION frames without end (RUSTSEC-2024-0332).
#[test]
fn endless_headers() {
    let Stage { gate, mut caller, front } = start(limits(), false);
    caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    caller.write_all(b"\0\0\0\x01\0\0\0\0\x01").unwrap();
    // a literal header without indexing: name "x", value of 119 bytes
    let header = [&b"\0\x01x\x77"[..], &[b'a'; 119]].concat();
    let part = [&b"\0\0\x7b\x09\0\0\0\0\x01"[..], &header].concat();
    let sent = (0..100_000).take_while(|_| caller.write_all(&part).is_ok()).count();
    assert!(sent < 100_000, "all of it was taken");
    until_closed(&mut caller);
    assert_eq!(next(&gate), malformed(None, Reason::Protocol));
    front.join().unwrap();
}

/// A request of frames without a byte in them (RUSTSEC-2026-0258).
#[test]
fn endless_empty_frames() {
    let Stage { gate, mut caller, front } = start(limits(), false);
    caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // HPACK (RFC 7541 §6): POST, http, and path and content-type as literals
    let path = b"/podsec.v1.IdentityService/WhoAmI";
    let kind = b"application/grpc";
    let header = [
        &b"\x83\x86\x04"[..],
        &[u8::try_from(path.len()).unwrap()],
        path,
        b"\x0f\x10",
        &[u8::try_from(kind.len()).unwrap()],
        kind,
    ]
    .concat();
    let length = u8::try_from(header.len()).unwrap();
    let headers = |stream: u8| [&[0, 0, length][..], b"\x01\x04\0\0\0", &[stream], &header].concat();
    // These headers are a request where a message follows.
    caller.write_all(&[&headers(1)[..], b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0"].concat()).unwrap();
    assert_eq!(request(&gate).1, Operation::WhoAmI);
    caller.write_all(&headers(3)).unwrap();
    let empty = b"\0\0\0\0\0\0\0\0\x03".repeat(1000);
    let start = Instant::now();
    while caller.write_all(&empty).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "they are taken on and on");
    }
    assert_eq!(next(&gate), malformed(None, Reason::Protocol));
    front.join().unwrap();
}

/// CVE-2023-44487.
#[tokio::test]
async fn rapid_resets() {
    let Stage { gate, caller, front } = start(limits(), false);
    let drain = std::thread::spawn(move || {
        let mut last = None;
        while let Ok(Some((message, _))) = gate.receive_within::<FromFront>(Duration::from_secs(5)) {
            last = Some(message);
        }
        last
    });
    caller.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(caller).unwrap();
    let (mut sender, connection) = h2::client::Builder::new()
        .initial_max_send_streams(1 << 20)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let mut ended = false;
    for _ in 0..100_000 {
        let request = http::Request::post("http://podsec/podsec.v1.IdentityService/WhoAmI");
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let Ok((_, mut stream)) = sender.send_request(request, false) else {
            ended = true;
            break;
        };
        stream.send_reset(h2::Reason::CANCEL);
        tokio::task::yield_now().await;
    }
    let _ = connection.await.unwrap();
    assert!(ended, "all of it was taken");
    tokio::task::spawn_blocking(|| front.join().unwrap()).await.unwrap();
    assert_eq!(drain.join().unwrap(), Some(malformed(None, Reason::Protocol)));
}

#[tokio::test]
async fn silence_ends_the_connection() {
    // nothing at all, and half a preface
    for bytes in [&b""[..], b"PRI * HTTP/2.0"] {
        let Stage { gate, mut caller, front } = start(limits(), false);
        caller.write_all(bytes).unwrap();
        let took = until_closed(&mut caller);
        assert!(took >= limits().first - Duration::from_millis(50) && took < 3 * limits().first, "{took:?}");
        front.join().unwrap();
        // silence is no attack
        assert!(gate.receive::<FromFront>().unwrap().is_none());
    }
    // a request, and nothing after it; an open stream counts as something
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        let (id, _) = request(gate);
        let worker = accept(gate, id);
        std::thread::sleep(2 * limits().idle);
        reply(&worker, &Reply::Record("{}".into()));
        reply(&worker, &Reply::End);
    });
    let mut client = AuditServiceClient::new(client(stage.caller).await);
    let mut records = client.follow(v1::FollowRequest { filter: None }).await.unwrap().into_inner();
    assert!(records.message().await.unwrap().is_some());
    assert!(records.message().await.unwrap().is_none());
    let _gate = gate.join().unwrap();
    let start = Instant::now();
    tokio::task::spawn_blocking(|| stage.front.join().unwrap()).await.unwrap();
    let took = start.elapsed();
    assert!(took >= limits().idle - Duration::from_millis(100) && took < 3 * limits().idle, "{took:?}");
}

/// Headers, and a body that never comes.
#[tokio::test]
async fn half_a_request() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, next);
    stage.caller.set_nonblocking(true).unwrap();
    let stream = tokio::net::UnixStream::from_std(stage.caller).unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://podsec/podsec.v1.NamespaceService/Enter");
    let request = request.header("content-type", "application/grpc").body(()).unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    let start = Instant::now();
    stream.send_data(vec![0_u8].into(), false).unwrap();
    let status = Status::from_header_map(response.await.unwrap().headers()).unwrap();
    assert!(start.elapsed() >= limits().message - Duration::from_millis(50));
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "deadline"));
    assert_eq!(gate.join().unwrap().1, malformed(Some(Method::Enter), Reason::Deadline));
    // and since no request was ever complete, that is the end
    tokio::task::spawn_blocking(|| stage.front.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn health_for_strangers() {
    let stage = start(limits(), false);
    let gate = gate(stage.gate, |gate| {
        for writable in [true, false, true, true, true, false] {
            let (id, operation) = request(gate);
            assert_eq!(operation, Operation::Health);
            answer(gate, id, healthy(writable));
        }
        // Watch goes on asking until nobody listens.
        while let Ok(Some((FromFront::Request { id, .. }, _))) =
            gate.receive_within::<FromFront>(Duration::from_secs(5))
        {
            answer(gate, id, healthy(false));
        }
    });
    let mut client = HealthClient::new(client(stage.caller).await);
    let service = |name: &str| HealthCheckRequest { service: name.to_owned() };
    for (name, status) in
        [("", ServingStatus::Serving), ("podsec.v1.AuditService", ServingStatus::NotServing)]
    {
        assert_eq!(client.check(service(name)).await.unwrap().into_inner().status(), status);
    }
    let status = client.check(service("podsec.v1.NoService")).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "unknown-service"));

    let mut states = client.watch(service("")).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // three times the same is said once
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(states);
    let mut states = client.watch(service("podsec.v1.NoService")).await.unwrap().into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    drop((states, client));
    tokio::task::spawn_blocking(|| gate.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn reflection_where_it_is_wanted() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let stage = start(limits(), true);
    let mut client = ServerReflectionClient::new(client(stage.caller).await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = client.server_reflection_info(tokio_stream::once(list)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "grpc.reflection.v1.ServerReflection",
            "podsec.v1.AuditService",
            "podsec.v1.CheckService",
            "podsec.v1.IdentityService",
            "podsec.v1.KeyService",
            "podsec.v1.NamespaceService",
            "podsec.v1.ServiceService",
            "podsec.v1.SignatureService",
            "podsec.v1.TrustService",
            "podsec.v1.UserService"
        ]
    );
}
