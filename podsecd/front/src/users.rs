//! `podsec.v1.UserService`: its messages as operations on podsec's users, and what workers found as its messages.
//!
//! Must not keep, copy or repeat a password or passphrase: its bytes become a [`Secret`] before anything else of
//! their request can be wrong, so that they are overwritten whatever comes of it.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::name::AccountName;
use podsec_policy::operation::{self, Method};
use podsec_policy::secret::{Password, Secret};
use podsec_policy::user::{self, Category, FullName, KeyDays, NewKey, NewUser, Scope, Scopes};
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    self, CreateUserRequest, DeleteUserRequest, ListUsersRequest, LockUserRequest, RestrictIdMapsRequest,
    SetPasswordRequest, UnlockUserRequest, VerifyUserRequest, VerifyUserResponse, create_user_request,
};
use podsec_wire::messages::{Finding, FindingState, Protection, Reply, User, UserState};

impl Rpc for CreateUserRequest {
    const METHOD: Method = Method::CreateUser;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        // has the passphrase, so it comes first
        let (category, key) = category(self.category)?;
        let full_name = FullName::new(self.full_name);
        Ok(Operation::CreateUser(Box::new(NewUser {
            name: account("name", self.name)?,
            category,
            full_name: full_name.map_err(|error| Failure::at("full_name", Reason::BadFullName, error))?,
            linger: self.linger,
            key,
            dry_run: self.dry_run,
        })))
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

fn category(category: Option<create_user_request::Category>) -> Result<(Category, Option<NewKey>), Failure> {
    use create_user_request::Category as Given;
    match category {
        Some(Given::ImageCreator(creator)) => {
            let key = creator.key.map(new_key).transpose()?;
            let scopes = scopes(creator.scopes)?;
            Ok((Category::ImageCreator { scopes, shared: creator.shared }, key))
        }
        Some(Given::ImageUser(_)) => Ok((Category::ImageUser, None)),
        Some(Given::ClusterUser(_)) => Ok((Category::ClusterUser, None)),
        Some(Given::ClusterAdmin(_)) => Ok((Category::ClusterAdmin, None)),
        None => Err(Failure::at("category", Reason::BadArgument, "missing")),
    }
}

fn scopes(texts: Vec<String>) -> Result<Scopes, Failure> {
    let scopes = texts.into_iter().take(Scopes::MOST + 1).enumerate().map(|(index, text)| {
        let field = format!("image_creator.scopes[{index}]");
        Scope::new(text).map_err(|error| Failure::at(&field, Reason::BadScope, error))
    });
    let scopes = Scopes::new(scopes.collect::<Result<_, _>>()?);
    scopes.map_err(|error| Failure::at("image_creator.scopes", Reason::BadScope, error))
}

fn new_key(key: v1::SigningKey) -> Result<NewKey, Failure> {
    let passphrase = match key.passphrase {
        none if none.is_empty() => None,
        bytes => Some(password("image_creator.key.passphrase", bytes)?),
    };
    let bad = |field: &str, error: String| Failure::at(field, Reason::BadArgument, error);
    let algorithm = match v1::KeyAlgorithm::try_from(key.algorithm) {
        Ok(v1::KeyAlgorithm::Unspecified | v1::KeyAlgorithm::Ed25519) => user::KeyAlgorithm::Ed25519,
        Ok(v1::KeyAlgorithm::Rsa3072) => user::KeyAlgorithm::Rsa3072,
        Ok(v1::KeyAlgorithm::Rsa4096) => user::KeyAlgorithm::Rsa4096,
        Err(_) => {
            let error = format!("{} is none of ed25519 (1), rsa3072 (2) and rsa4096 (3)", key.algorithm);
            return Err(bad("image_creator.key.algorithm", error));
        }
    };
    let days = match key.days {
        0 => KeyDays::default(),
        days => KeyDays::new(days).map_err(|error| bad("image_creator.key.days", error.to_string()))?,
    };
    Ok(NewKey { algorithm, days, passphrase })
}

fn password(field: &str, bytes: Vec<u8>) -> Result<Password, Failure> {
    let password = Password::new(Secret::new(bytes));
    password.map_err(|error| Failure::at(field, Reason::BadSecret, error))
}

/// The name of an account in this field.
pub(crate) fn account(field: &str, name: String) -> Result<AccountName, Failure> {
    AccountName::new(name).map_err(|error| Failure::at(field, Reason::BadName, error))
}

/// As [`account`], where nothing is an answer too.
pub(crate) fn account_or_none(field: &str, name: String) -> Result<Option<AccountName>, Failure> {
    Some(name).filter(|name| !name.is_empty()).map(|name| account(field, name)).transpose()
}

impl Rpc for ListUsersRequest {
    const METHOD: Method = Method::ListUsers;
    type Response = v1::User;

    fn operation(self) -> Result<Operation, Failure> {
        account_or_none("name", self.name).map(Operation::ListUsers)
    }

    fn response(outcome: Outcome) -> Option<v1::User> {
        let Outcome::Reply(Reply::User(user)) = outcome else { return None };
        Some(shown(*user))
    }
}

fn shown(user: User) -> v1::User {
    let category = user.category.name().to_owned();
    let state = match user.state {
        UserState::Active => v1::UserState::Active,
        UserState::NoPassword => v1::UserState::NoPassword,
        UserState::Locked => v1::UserState::Locked,
        UserState::Gone => v1::UserState::Gone,
    };
    let (scopes, shared) = match user.category {
        Category::ImageCreator { scopes, shared } => (scopes.into(), shared),
        Category::ImageUser | Category::ClusterUser | Category::ClusterAdmin => (Vec::new(), false),
    };
    let (first_subid, subids) = user.subids.unwrap_or_default();
    v1::User {
        name: user.name.into(),
        uid: user.uid,
        category,
        state: state.into(),
        full_name: user.full_name.into(),
        scopes: scopes.into_iter().map(String::from).collect(),
        shared,
        first_subid,
        subids,
        created: user.created,
        keys: user.keys,
    }
}

impl Rpc for SetPasswordRequest {
    const METHOD: Method = Method::SetPassword;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        let password = password("password", self.password)?;
        Ok(Operation::SetPassword(account("name", self.name)?, password))
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

impl Rpc for LockUserRequest {
    const METHOD: Method = Method::LockUser;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        to_change(self.name, false, self.dry_run).map(Operation::LockUser)
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

impl Rpc for UnlockUserRequest {
    const METHOD: Method = Method::UnlockUser;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        to_change(self.name, false, self.dry_run).map(Operation::UnlockUser)
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

impl Rpc for DeleteUserRequest {
    const METHOD: Method = Method::DeleteUser;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        to_change(self.name, self.remove_home, self.dry_run).map(Operation::DeleteUser)
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

fn to_change(name: String, remove_home: bool, dry_run: bool) -> Result<operation::UserChange, Failure> {
    Ok(operation::UserChange { name: account("name", name)?, remove_home, dry_run })
}

/// What every change of a user answers. A key made with one is among its steps.
fn change(outcome: Outcome) -> Option<v1::UserChange> {
    let Outcome::Reply(Reply::Change(change)) = outcome else { return None };
    let changed = !change.steps.is_empty();
    let fingerprint = change.fingerprint.map(String::from).unwrap_or_default();
    Some(v1::UserChange { changed, steps: change.steps, warnings: change.warnings, fingerprint })
}

impl Rpc for VerifyUserRequest {
    const METHOD: Method = Method::VerifyUser;
    type Response = VerifyUserResponse;

    fn operation(self) -> Result<Operation, Failure> {
        account("name", self.name).map(Operation::VerifyUser)
    }

    fn response(outcome: Outcome) -> Option<VerifyUserResponse> {
        let Outcome::Reply(Reply::Findings(findings)) = outcome else { return None };
        Some(VerifyUserResponse { findings: findings.into_iter().map(found).collect() })
    }
}

fn found(finding: Finding) -> v1::Finding {
    let protection = match finding.protection {
        Protection::Account => v1::Protection::Account,
        Protection::GuardRail => v1::Protection::GuardRail,
        Protection::Detection => v1::Protection::Detection,
        Protection::Containment => v1::Protection::Containment,
    };
    let state = match finding.state {
        FindingState::Ok => v1::FindingState::Ok,
        FindingState::Broken => v1::FindingState::Broken,
        FindingState::Open => v1::FindingState::Open,
        FindingState::Unsupported => v1::FindingState::Unsupported,
        FindingState::NotTried => v1::FindingState::NotTried,
    };
    v1::Finding {
        name: finding.name,
        protection: protection.into(),
        state: state.into(),
        detail: finding.detail,
    }
}

impl Rpc for RestrictIdMapsRequest {
    const METHOD: Method = Method::RestrictIdMaps;
    type Response = v1::UserChange;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::RestrictIdMaps { restrict: self.restrict, dry_run: self.dry_run })
    }

    fn response(outcome: Outcome) -> Option<v1::UserChange> {
        change(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_wire::messages::Change;
    use proptest::prelude::*;

    const PASSPHRASE: &[u8] = b"hunter2 hunter2";

    fn creator(scopes: &[&str], key: Option<v1::SigningKey>) -> CreateUserRequest {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let creator = v1::ImageCreator { scopes, shared: true, key };
        CreateUserRequest {
            category: Some(create_user_request::Category::ImageCreator(creator)),
            ..image_user("carol")
        }
    }

    fn image_user(name: &str) -> CreateUserRequest {
        CreateUserRequest {
            name: name.into(),
            category: Some(create_user_request::Category::ImageUser(v1::ImageUser {})),
            ..CreateUserRequest::default()
        }
    }

    fn key(algorithm: i32, days: u32, passphrase: &[u8]) -> v1::SigningKey {
        v1::SigningKey { algorithm, days, passphrase: passphrase.to_vec() }
    }

    fn with_key(algorithm: i32, days: u32, passphrase: &[u8]) -> CreateUserRequest {
        creator(&["a.b"], Some(key(algorithm, days, passphrase)))
    }

    fn new_user(request: CreateUserRequest) -> NewUser {
        let Operation::CreateUser(user) = request.operation().unwrap() else { panic!("another operation") };
        *user
    }

    fn name(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    fn some_scopes(texts: &[&str]) -> Scopes {
        Scopes::new(texts.iter().map(|&text| Scope::new(text).unwrap()).collect()).unwrap()
    }

    fn secret(bytes: &[u8]) -> Password {
        Password::new(Secret::new(bytes.to_vec())).unwrap()
    }

    #[test]
    fn a_whole_creator_arrives() {
        let request = CreateUserRequest {
            full_name: "Carol O'Neill".into(),
            linger: true,
            dry_run: true,
            ..creator(&["registry.local/team", "registry.local:5000", "a.b"], Some(key(2, 30, PASSPHRASE)))
        };
        let scopes = ["a.b", "registry.local/team", "registry.local:5000"];
        let expected = NewUser {
            name: name("carol"),
            category: Category::ImageCreator { scopes: some_scopes(&scopes), shared: true },
            full_name: FullName::new("Carol O'Neill").unwrap(),
            linger: true,
            key: Some(NewKey {
                algorithm: user::KeyAlgorithm::Rsa3072,
                days: KeyDays::new(30).unwrap(),
                passphrase: Some(secret(PASSPHRASE)),
            }),
            dry_run: true,
        };
        let user = new_user(request);
        assert_eq!(user, expected);
        assert_eq!(user.category.scopes().iter().map(Scope::as_str).collect::<Vec<_>>(), scopes);
    }

    #[test]
    fn categories() {
        use create_user_request::Category as Given;
        for (given, category) in [
            (Given::ImageUser(v1::ImageUser {}), Category::ImageUser),
            (Given::ClusterUser(v1::ClusterUser {}), Category::ClusterUser),
            (Given::ClusterAdmin(v1::ClusterAdmin {}), Category::ClusterAdmin),
        ] {
            let user = new_user(CreateUserRequest { category: Some(given), ..image_user("_a-1") });
            assert_eq!((user.name, user.category), (name("_a-1"), category));
            assert_eq!((user.full_name, user.key), (FullName::default(), None));
            assert!(!user.linger && !user.dry_run);
        }
        assert_eq!(new_user(creator(&["a.b"], None)).key, None);
        let most: Vec<_> = (0..16).map(|number| format!("a.b/{number}")).collect();
        let most = creator(&most.iter().map(String::as_str).collect::<Vec<_>>(), None);
        assert_eq!(new_user(most).category.scopes().len(), 16);
    }

    #[test]
    fn keys() {
        use user::KeyAlgorithm::{Ed25519, Rsa3072, Rsa4096};
        for (algorithm, days, expected) in
            [(0, 0, (Ed25519, 730)), (1, 1, (Ed25519, 1)), (2, 1826, (Rsa3072, 1826)), (3, 0, (Rsa4096, 730))]
        {
            let key = new_user(with_key(algorithm, days, b"")).key.unwrap();
            assert_eq!(((key.algorithm, key.days.get()), key.passphrase), (expected, None));
        }
        let key = new_user(with_key(0, 0, PASSPHRASE)).key.unwrap();
        assert_eq!(key.passphrase.unwrap().expose(), PASSPHRASE);
    }

    #[test]
    fn every_mistake_of_a_new_user_names_its_field() {
        let with = |change: fn(&mut CreateUserRequest)| {
            let mut request = image_user("carol");
            change(&mut request);
            request
        };
        let wrong = [
            (with(|r| r.category = None), "category: missing", Reason::BadArgument),
            (CreateUserRequest::default(), "category: missing", Reason::BadArgument),
            (image_user(""), "name: a name has 1 to 32 characters", Reason::BadName),
            (image_user("-rf"), "name: character 1 ", Reason::BadName),
            (image_user("a:b"), "name: character 2 ", Reason::BadName),
            (with(|r| r.full_name = "ab:".into()), "full_name: character 3 ", Reason::BadFullName),
            (with(|r| r.full_name = "x\nroot2:x:0:0".into()), "full_name: ", Reason::BadFullName),
            (creator(&[], None), "image_creator.scopes: an image creator has 1 to 16 ", Reason::BadScope),
            (creator(&["a.b"; 17], None), "image_creator.scopes: an image creator has ", Reason::BadScope),
            (creator(&["a.b"; 99], None), "image_creator.scopes: an image creator has ", Reason::BadScope),
            (creator(&[""], None), "image_creator.scopes[0]: ", Reason::BadScope),
            (creator(&["a.b", "team"], None), "image_creator.scopes[1]: a scope begins", Reason::BadScope),
            (creator(&["a.b", "c.d/X"], None), "image_creator.scopes[1]: part 1 ", Reason::BadScope),
            // positions as they were sent, and not as they would be sorted
            (
                creator(&["c.d/e", "a.b", "c.d"], None),
                "image_creator.scopes: number 2 overlaps with number 0",
                Reason::BadScope,
            ),
            (
                creator(&["a.b", "a.b"], None),
                "image_creator.scopes: number 1 overlaps with number 0",
                Reason::BadScope,
            ),
            (with_key(4, 0, b""), "image_creator.key.algorithm: 4 ", Reason::BadArgument),
            (with_key(-1, 0, b""), "image_creator.key.algorithm: -1 ", Reason::BadArgument),
            (
                with_key(0, 1827, b""),
                "image_creator.key.days: a key is good for 1 to 1826 days",
                Reason::BadArgument,
            ),
            (with_key(0, 65_536, b""), "image_creator.key.days: a key ", Reason::BadArgument),
            (with_key(0, u32::MAX, b""), "image_creator.key.days: a key ", Reason::BadArgument),
            (with_key(0, 0, b"short"), "image_creator.key.passphrase: ", Reason::BadSecret),
            (with_key(0, 0, b"longenough\n"), "image_creator.key.passphrase: ", Reason::BadSecret),
            (with_key(0, 0, b"longenough\xff"), "image_creator.key.passphrase: ", Reason::BadSecret),
        ];
        for (request, start, reason) in wrong {
            let failure = request.operation().unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    fn set_password(name: &str, password: &[u8]) -> SetPasswordRequest {
        SetPasswordRequest { name: name.into(), password: password.to_vec() }
    }

    #[test]
    fn requests_about_a_user() {
        let change =
            |remove_home, dry_run| operation::UserChange { name: name("carol"), remove_home, dry_run };
        let carol = || "carol".to_owned();
        for (given, expected) in [
            (ListUsersRequest { name: carol() }.operation(), Operation::ListUsers(Some(name("carol")))),
            (ListUsersRequest::default().operation(), Operation::ListUsers(None)),
            (
                set_password("carol", PASSPHRASE).operation(),
                Operation::SetPassword(name("carol"), secret(PASSPHRASE)),
            ),
            (
                LockUserRequest { name: carol(), dry_run: true }.operation(),
                Operation::LockUser(change(false, true)),
            ),
            (
                UnlockUserRequest { name: carol(), dry_run: false }.operation(),
                Operation::UnlockUser(change(false, false)),
            ),
            (
                DeleteUserRequest { name: carol(), remove_home: true, dry_run: false }.operation(),
                Operation::DeleteUser(change(true, false)),
            ),
            (
                DeleteUserRequest { name: carol(), remove_home: false, dry_run: true }.operation(),
                Operation::DeleteUser(change(false, true)),
            ),
            (VerifyUserRequest { name: carol() }.operation(), Operation::VerifyUser(name("carol"))),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
        for (restrict, dry_run) in [(None, false), (Some(false), true), (Some(true), false)] {
            let given = RestrictIdMapsRequest { restrict, dry_run }.operation().unwrap();
            assert_eq!(given, Operation::RestrictIdMaps { restrict, dry_run });
        }
    }

    #[test]
    fn mistakes_about_a_user_name_their_field() {
        let root = || "Root".to_owned();
        for (given, start, reason) in [
            (ListUsersRequest { name: root() }.operation(), "name: character 1 ", Reason::BadName),
            (LockUserRequest { name: root(), dry_run: true }.operation(), "name: ", Reason::BadName),
            (LockUserRequest::default().operation(), "name: a name has 1 to 32 ", Reason::BadName),
            (UnlockUserRequest::default().operation(), "name: ", Reason::BadName),
            (DeleteUserRequest::default().operation(), "name: ", Reason::BadName),
            (VerifyUserRequest::default().operation(), "name: ", Reason::BadName),
            (set_password("", PASSPHRASE).operation(), "name: ", Reason::BadName),
            (set_password("carol", b"").operation(), "password: ", Reason::BadSecret),
            (set_password("carol", &[b'x'; 256]).operation(), "password: ", Reason::BadSecret),
            (set_password("carol", b"x\nroot:longenough").operation(), "password: ", Reason::BadSecret),
            (set_password("carol", b"longenough\xff").operation(), "password: ", Reason::BadSecret),
        ] {
            let failure = given.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let printed = [
            format!("{:?}", set_password("carol", PASSPHRASE)),
            format!("{:#?}", set_password("carol", PASSPHRASE)),
            format!("{:?}", with_key(1, 9, PASSPHRASE)),
            format!("{:#?}", with_key(1, 9, PASSPHRASE)),
            format!("{:?}", set_password("carol", PASSPHRASE).operation()),
            format!("{:?}", with_key(1, 9, PASSPHRASE).operation()),
            format!("{:?}", set_password("Carol", PASSPHRASE).operation()),
            format!(
                "{:?}",
                CreateUserRequest { name: String::new(), ..with_key(1, 9, PASSPHRASE) }.operation()
            ),
        ];
        for printed in printed {
            // as text, and as the numbers that bytes are printed as
            assert!(!printed.contains("hunter") && !printed.contains("104, 117"), "{printed}");
            assert!(!printed.replace([' ', '\n'], "").contains("104,117"), "{printed}");
        }
    }

    #[test]
    fn changes_are_shown() {
        let outcome = |steps: &[&str]| {
            let steps = steps.iter().map(|&step| step.to_owned()).collect();
            Outcome::Reply(Reply::Change(Change { fingerprint: None, steps, warnings: vec!["w".into()] }))
        };
        let shown: [fn(Outcome) -> Option<v1::UserChange>; 6] = [
            CreateUserRequest::response,
            SetPasswordRequest::response,
            LockUserRequest::response,
            UnlockUserRequest::response,
            DeleteUserRequest::response,
            RestrictIdMapsRequest::response,
        ];
        for shown in shown {
            let change = shown(outcome(&["a", "b"])).unwrap();
            assert!(change.changed && change.steps == ["a", "b"] && change.warnings == ["w"]);
            assert!(!shown(outcome(&[])).unwrap().changed);
            assert_eq!(shown(Outcome::Reply(Reply::Changed(true))), None);
        }
    }

    #[test]
    fn users_are_shown() {
        let user = |category, state| User {
            name: name("carol"),
            uid: 1000,
            category,
            state,
            full_name: FullName::new("Carol").unwrap(),
            subids: Some((100_000, 65_536)),
            created: 5,
            keys: 6,
        };
        let response =
            |user| ListUsersRequest::response(Outcome::Reply(Reply::User(Box::new(user)))).unwrap();
        let scopes = some_scopes(&["a.b", "c.d/e"]);
        let carol = user(Category::ImageCreator { scopes, shared: true }, UserState::Active);
        let expected = v1::User {
            name: "carol".into(),
            uid: 1000,
            category: "image-creator".into(),
            state: v1::UserState::Active.into(),
            full_name: "Carol".into(),
            scopes: vec!["a.b".into(), "c.d/e".into()],
            shared: true,
            first_subid: 100_000,
            subids: 65_536,
            created: 5,
            keys: 6,
        };
        assert_eq!(response(carol), expected);
        for (category, state, name, shown) in [
            (Category::ImageUser, UserState::NoPassword, "image-user", v1::UserState::NoPassword),
            (Category::ClusterUser, UserState::Locked, "cluster-user", v1::UserState::Locked),
            (Category::ClusterAdmin, UserState::Gone, "cluster-admin", v1::UserState::Gone),
        ] {
            let user = response(User { subids: None, ..user(category, state) });
            assert_eq!((user.category.as_str(), user.state()), (name, shown));
            assert_eq!((user.scopes.len(), user.shared, user.first_subid, user.subids), (0, false, 0, 0));
        }
        assert_eq!(ListUsersRequest::response(Outcome::Reply(Reply::End)), None);
    }

    #[test]
    fn findings_are_shown() {
        let states = [
            (FindingState::Ok, v1::FindingState::Ok),
            (FindingState::Broken, v1::FindingState::Broken),
            (FindingState::Open, v1::FindingState::Open),
            (FindingState::Unsupported, v1::FindingState::Unsupported),
            (FindingState::NotTried, v1::FindingState::NotTried),
        ];
        let protections = [
            (Protection::Account, v1::Protection::Account),
            (Protection::GuardRail, v1::Protection::GuardRail),
            (Protection::Detection, v1::Protection::Detection),
            (Protection::Containment, v1::Protection::Containment),
        ];
        let both =
            protections.iter().flat_map(|protection| states.iter().map(move |state| (protection, state)));
        let (mut findings, mut expected) = (Vec::new(), Vec::new());
        for ((protection, shown_protection), (state, shown_state)) in both {
            let (name, detail) = (format!("f{}", findings.len()), format!("{state:?}"));
            findings.push(Finding {
                name: name.clone(),
                protection: *protection,
                state: *state,
                detail: detail.clone(),
            });
            let (protection, state) = ((*shown_protection).into(), (*shown_state).into());
            expected.push(v1::Finding { name, protection, state, detail });
        }
        let shown = VerifyUserRequest::response(Outcome::Reply(Reply::Findings(findings))).unwrap();
        assert_eq!(shown.findings, expected);
        assert_eq!(VerifyUserRequest::response(Outcome::Reply(Reply::Changed(true))), None);
    }

    proptest! {
        /// Each text is made of characters that no sentence of ours has, so one of them in a detail is the caller's.
        #[test]
        fn no_text_of_a_caller_comes_back(texts in proptest::collection::vec("[\u{2600}-\u{26ff}\u{1b}\u{202e}]{0,9}", 5),
                                          wrong in 0_usize..5) {
            let good = ["carol", "Carol", "a.b", "c.d", "hunter2 hunter2"];
            // one field at a time, and all at once: the first that is wrong hides the others
            for only in [Some(wrong), None] {
                let text = |index: usize| match only {
                    Some(only) if only != index => good[index],
                    _ => texts[index].as_str(),
                };
                let request = CreateUserRequest {
                    name: text(0).into(),
                    full_name: text(1).into(),
                    ..creator(&[text(2), text(3)], Some(key(0, 0, text(4).as_bytes())))
                };
                let about = [
                    ListUsersRequest { name: text(0).into() }.operation(),
                    LockUserRequest { name: text(0).into(), dry_run: false }.operation(),
                    set_password(text(0), text(4).as_bytes()).operation(),
                    request.operation(),
                ];
                for failure in about.into_iter().filter_map(Result::err) {
                    let ours = failure.detail.chars().all(|c| c == ' ' || c.is_ascii_graphic());
                    prop_assert!(ours, "{}", failure.detail);
                }
            }
        }

        /// What goes on to the gate is what policy makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(bytes in proptest::collection::vec(any::<u8>(), 0..40),
                               text in "[a-zA-Z_0-9-]{0,34}|\\PC{0,9}") {
            let name = AccountName::new(text.clone());
            let password = Password::new(Secret::new(bytes.clone()));
            match (set_password(&text, &bytes).operation(), name, password) {
                (Ok(operation), Ok(name), Ok(password)) => {
                    prop_assert_eq!(operation, Operation::SetPassword(name, password));
                }
                (operation, name, password) => {
                    prop_assert!(operation.is_err() && (name.is_err() || password.is_err()));
                }
            }
            let key = with_key(0, 0, &bytes).operation();
            let fits = bytes.is_empty() || Password::new(Secret::new(bytes)).is_ok();
            prop_assert_eq!(key.is_ok(), fits);
        }
    }
}
