//! Users and keys of the fake, which remembers what it was asked. What it says depends on the name:
//!
//! `taken` cannot be made, `same` need not be, `held` waits for the test, `many…` wait until ten of them are there.

use super::{Answer, Services, Stream, refusal};
use podsec_proto::v1::key_service_server::KeyService;
use podsec_proto::v1::user_service_server::UserService;
use podsec_proto::v1::{self, FindingState, KeyState, Protection, UserChange, UserState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::{Barrier, Notify};
use tonic::{Code, Request, Response, async_trait};

/// A request that changes something.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    Create(v1::CreateUserRequest),
    SetPassword(v1::SetPasswordRequest),
    Lock(v1::LockUserRequest),
    Delete(v1::DeleteUserRequest),
    Restrict(v1::RestrictIdMapsRequest),
    Publish(v1::PublishKeyRequest),
    Rotate(v1::RotateKeyRequest),
    Revoke(v1::RevokeKeyRequest),
}

/// See the module.
pub struct People {
    asked: Mutex<Vec<Asked>>,
    /// Requests to make a user under way now, and the most that were.
    under_way: AtomicUsize,
    /// See `under_way`.
    pub most: AtomicUsize,
    ten: Barrier,
    /// Lets `held` go on.
    pub hold: Notify,
    /// No key is published any more.
    pub refuse: AtomicBool,
    /// Keys of root.
    keys: Mutex<Vec<v1::PublishedKey>>,
}

impl Default for People {
    fn default() -> Self {
        Self {
            asked: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            ten: Barrier::new(10),
            hold: Notify::new(),
            refuse: AtomicBool::new(false),
            keys: Mutex::default(),
        }
    }
}

impl People {
    /// What was asked since the last time.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn note(&self, asked: Asked) {
        self.asked.lock().unwrap().push(asked);
    }

    /// A key of root's, beside those that he has.
    fn publish(&self, key: Vec<u8>) -> Answer<v1::KeyChange> {
        if self.refuse.load(Ordering::Relaxed) {
            return Err(refusal(Code::FailedPrecondition, "not this one", "bad-key", &[]));
        }
        let mut keys = self.keys.lock().unwrap();
        keys.iter_mut().for_each(|key| key.set_state(KeyState::Previous));
        let state = KeyState::Current.into();
        keys.push(v1::PublishedKey {
            creator: "root".into(),
            fingerprint: "0".repeat(40),
            state,
            key,
            ..Default::default()
        });
        key_changed()
    }
}

fn key_changed() -> Answer<v1::KeyChange> {
    let (fingerprint, steps) = ("0".repeat(40), vec!["wrote it".into()]);
    Ok(Response::new(v1::KeyChange { changed: true, fingerprint, steps, warnings: vec![] }))
}

fn changed(changed: bool) -> Answer<UserChange> {
    let steps = if changed { vec!["did it\x1b[2J".into()] } else { vec![] };
    Ok(Response::new(UserChange { changed, steps, ..UserChange::default() }))
}

fn stream<T: Send + 'static>(all: Vec<T>) -> Answer<Stream<T>> {
    Ok(Response::new(Box::pin(tokio_stream::iter(all.into_iter().map(Ok)))))
}

fn user(name: &str, category: &str, state: UserState, scopes: &[&str]) -> v1::User {
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
    v1::User {
        name: name.into(),
        uid: 1107,
        category: category.into(),
        state: state.into(),
        scopes,
        ..Default::default()
    }
}

#[async_trait]
impl UserService for Services {
    type ListStream = Stream<v1::User>;

    async fn create(&self, request: Request<v1::CreateUserRequest>) -> Answer<UserChange> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.people.note(Asked::Create(request));
        let now = self.people.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.people.most.fetch_max(now, Ordering::Relaxed);
        if name.starts_with("many") {
            self.people.ten.wait().await;
        }
        if name == "held" {
            self.people.hold.notified().await;
        }
        self.people.under_way.fetch_sub(1, Ordering::Relaxed);
        if name == "taken" {
            return Err(refusal(Code::FailedPrecondition, "taken is somebody else", "user-exists", &[]));
        }
        changed(name != "same")
    }

    async fn list(&self, request: Request<v1::ListUsersRequest>) -> Answer<Self::ListStream> {
        let name = request.into_inner().name;
        let mut users = vec![
            user("carol", "image-creator", UserState::NoPassword, &["registry.local/team"]),
            user("dave", "image-user", UserState::Active, &[]),
            user("root", "image-creator", UserState::Active, &["registry.local:5000/team"]),
        ];
        users.retain(|user| name.is_empty() || user.name == name);
        stream(users)
    }

    async fn set_password(&self, request: Request<v1::SetPasswordRequest>) -> Answer<UserChange> {
        self.people.note(Asked::SetPassword(request.into_inner()));
        changed(true)
    }

    async fn lock(&self, request: Request<v1::LockUserRequest>) -> Answer<UserChange> {
        let request = request.into_inner();
        let name = request.name.clone();
        self.people.note(Asked::Lock(request));
        changed(name != "same")
    }

    async fn unlock(&self, _: Request<v1::UnlockUserRequest>) -> Answer<UserChange> {
        Err(refusal(Code::FailedPrecondition, "the user has no password yet; set one", "no-password", &[]))
    }

    async fn delete(&self, request: Request<v1::DeleteUserRequest>) -> Answer<UserChange> {
        self.people.note(Asked::Delete(request.into_inner()));
        changed(true)
    }

    async fn verify(&self, request: Request<v1::VerifyUserRequest>) -> Answer<v1::VerifyUserResponse> {
        let name = request.into_inner().name;
        let state = match name.as_str() {
            "carol" => FindingState::Broken,
            "dave" => FindingState::Ok,
            _ => {
                let said = [("method", "UserService/Verify"), ("roles", "Administrator")];
                return Err(refusal(Code::PermissionDenied, "not authorised", "not-authorised", &said));
            }
        };
        let (name, protection) = ("groups".into(), Protection::Account.into());
        let finding = v1::Finding { name, protection, state: state.into(), detail: String::new() };
        Ok(Response::new(v1::VerifyUserResponse { findings: vec![finding] }))
    }

    async fn restrict_id_maps(&self, request: Request<v1::RestrictIdMapsRequest>) -> Answer<UserChange> {
        let request = request.into_inner();
        self.people.note(Asked::Restrict(request));
        let steps = vec!["everybody may use them".into()];
        Ok(Response::new(UserChange { changed: request.restrict.is_some(), steps, ..UserChange::default() }))
    }
}

#[async_trait]
impl KeyService for Services {
    type ListStream = Stream<v1::PublishedKey>;

    async fn publish(&self, request: Request<v1::PublishKeyRequest>) -> Answer<v1::KeyChange> {
        let request = request.into_inner();
        let key = request.key.clone();
        self.people.note(Asked::Publish(request));
        self.people.publish(key)
    }

    async fn rotate(&self, request: Request<v1::RotateKeyRequest>) -> Answer<v1::KeyChange> {
        let request = request.into_inner();
        let key = request.key.clone();
        self.people.note(Asked::Rotate(request));
        self.people.publish(key)
    }

    async fn revoke(&self, request: Request<v1::RevokeKeyRequest>) -> Answer<v1::KeyChange> {
        self.people.note(Asked::Revoke(request.into_inner()));
        key_changed()
    }

    async fn list(&self, request: Request<v1::ListKeysRequest>) -> Answer<Self::ListStream> {
        let creator = request.into_inner().creator;
        let carols = |(state, digit): (KeyState, &str)| v1::PublishedKey {
            creator: "carol".into(),
            fingerprint: digit.repeat(40),
            algorithm: "ed25519".into(),
            user_id: "carol <carol@registry.local>".into(),
            state: state.into(),
            key: digit.repeat(3).into_bytes(),
            ..Default::default()
        };
        let states = [(KeyState::Current, "1"), (KeyState::Previous, "2"), (KeyState::Revoked, "3")];
        let mut keys: Vec<_> = states.into_iter().map(carols).collect();
        keys.extend(self.people.keys.lock().unwrap().iter().cloned());
        keys.retain(|key| creator.is_empty() || key.creator == creator);
        stream(keys)
    }
}
