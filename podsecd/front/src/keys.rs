//! `podsec.v1.KeyService`: public keys of image creators as operations, and what workers found as its messages.
//!
//! Must not look into a key: what a stranger's OpenPGP is worth is for a process with less to lose.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use crate::users::account_or_none;
use podsec_policy::operation::{KeyRevocation, Method, NewPublicKey};
use podsec_policy::user::{Fingerprint, PublicKey};
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    self, KeyChange, ListKeysRequest, PublishKeyRequest, PublishedKey, RevokeKeyRequest, RotateKeyRequest,
};
use podsec_wire::messages::{Key, KeyState, Reply};

impl Rpc for PublishKeyRequest {
    const METHOD: Method = Method::PublishKey;
    type Response = KeyChange;

    fn operation(self) -> Result<Operation, Failure> {
        public_key(self.creator, self.key, self.dry_run).map(Operation::PublishKey)
    }

    fn response(outcome: Outcome) -> Option<KeyChange> {
        change(outcome)
    }
}

impl Rpc for RotateKeyRequest {
    const METHOD: Method = Method::RotateKey;
    type Response = KeyChange;

    fn operation(self) -> Result<Operation, Failure> {
        public_key(self.creator, self.key, self.dry_run).map(Operation::RotateKey)
    }

    fn response(outcome: Outcome) -> Option<KeyChange> {
        change(outcome)
    }
}

fn public_key(creator: String, key: Vec<u8>, dry_run: bool) -> Result<Box<NewPublicKey>, Failure> {
    let creator = account_or_none("creator", creator)?;
    let key = PublicKey::new(key).map_err(|error| Failure::at("key", Reason::BadKey, error))?;
    Ok(Box::new(NewPublicKey { creator, key, dry_run }))
}

impl Rpc for RevokeKeyRequest {
    const METHOD: Method = Method::RevokeKey;
    type Response = KeyChange;

    fn operation(self) -> Result<Operation, Failure> {
        let fingerprint = Fingerprint::new(&self.fingerprint);
        Ok(Operation::RevokeKey(KeyRevocation {
            creator: account_or_none("creator", self.creator)?,
            fingerprint: fingerprint
                .map_err(|error| Failure::at("fingerprint", Reason::BadArgument, error))?,
            dry_run: self.dry_run,
        }))
    }

    fn response(outcome: Outcome) -> Option<KeyChange> {
        change(outcome)
    }
}

/// What every change of a key answers.
fn change(outcome: Outcome) -> Option<KeyChange> {
    let Outcome::Reply(Reply::Change(change)) = outcome else { return None };
    Some(KeyChange {
        changed: !change.steps.is_empty(),
        fingerprint: change.fingerprint.map(String::from).unwrap_or_default(),
        steps: change.steps,
        warnings: change.warnings,
    })
}

impl Rpc for ListKeysRequest {
    const METHOD: Method = Method::ListKeys;
    type Response = PublishedKey;

    fn operation(self) -> Result<Operation, Failure> {
        account_or_none("creator", self.creator).map(Operation::ListKeys)
    }

    fn response(outcome: Outcome) -> Option<PublishedKey> {
        let Outcome::Reply(Reply::Key(key)) = outcome else { return None };
        Some(published(*key))
    }
}

fn published(key: Key) -> PublishedKey {
    let state = match key.state {
        KeyState::Current => v1::KeyState::Current,
        KeyState::Previous => v1::KeyState::Previous,
        KeyState::Revoked => v1::KeyState::Revoked,
        KeyState::Expired => v1::KeyState::Expired,
    };
    PublishedKey {
        creator: key.creator.into(),
        fingerprint: key.fingerprint.into(),
        algorithm: key.algorithm,
        user_id: key.user_id,
        state: state.into(),
        created: key.created,
        expires: key.expires.unwrap_or_default(),
        published: key.published,
        key: key.key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::name::AccountName;
    use podsec_wire::messages::Change;
    use proptest::prelude::*;

    const DIGITS: &str = "0123456789abcdefABCD0123456789abcdefABCD";

    fn fingerprint() -> Fingerprint {
        Fingerprint::new(DIGITS).unwrap()
    }

    fn carol() -> Option<AccountName> {
        Some(AccountName::new("carol").unwrap())
    }

    fn publish(creator: &str, key: Vec<u8>, dry_run: bool) -> Result<Operation, Failure> {
        PublishKeyRequest { creator: creator.into(), key, dry_run }.operation()
    }

    fn rotate(creator: &str, key: Vec<u8>, dry_run: bool) -> Result<Operation, Failure> {
        RotateKeyRequest { creator: creator.into(), key, dry_run }.operation()
    }

    fn revoke(creator: &str, fingerprint: &str) -> Result<Operation, Failure> {
        RevokeKeyRequest { creator: creator.into(), fingerprint: fingerprint.into(), dry_run: true }
            .operation()
    }

    fn list(creator: &str) -> Result<Operation, Failure> {
        ListKeysRequest { creator: creator.into() }.operation()
    }

    #[test]
    fn every_field_arrives() {
        let new = |creator, key, dry_run| {
            Box::new(NewPublicKey { creator, key: PublicKey::new(key).unwrap(), dry_run })
        };
        let revocation = |creator| {
            Operation::RevokeKey(KeyRevocation { creator, fingerprint: fingerprint(), dry_run: true })
        };
        // any bytes: the key is not looked into here
        let (least, most) = (vec![0xff], vec![b'x'; PublicKey::LONGEST]);
        for (given, expected) in [
            (publish("carol", least.clone(), true), Operation::PublishKey(new(carol(), least.clone(), true))),
            (publish("", most.clone(), false), Operation::PublishKey(new(None, most.clone(), false))),
            (rotate("carol", most.clone(), false), Operation::RotateKey(new(carol(), most, false))),
            (rotate("", least.clone(), true), Operation::RotateKey(new(None, least, true))),
            (revoke("carol", DIGITS), revocation(carol())),
            (revoke("", &DIGITS.to_lowercase()), revocation(None)),
            (list("carol"), Operation::ListKeys(carol())),
            (list(""), Operation::ListKeys(None)),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
    }

    #[test]
    fn every_mistake_names_its_field() {
        let (empty, long) = (Vec::new, || vec![0; PublicKey::LONGEST + 1]);
        for (given, start, reason) in [
            (publish("Carol", vec![0], false), "creator: character 1 ", Reason::BadName),
            (
                publish("carol", empty(), false),
                "key: a public key has 1 to 65536 bytes, this one has 0",
                Reason::BadKey,
            ),
            (
                publish("", long(), true),
                "key: a public key has 1 to 65536 bytes, this one has 65537",
                Reason::BadKey,
            ),
            (rotate("a:b", vec![0], false), "creator: character 2 ", Reason::BadName),
            (rotate("carol", empty(), false), "key: ", Reason::BadKey),
            (rotate("", long(), true), "key: ", Reason::BadKey),
            (revoke(&"a".repeat(33), DIGITS), "creator: a name has 1 to 32 ", Reason::BadName),
            (revoke("", ""), "fingerprint: a fingerprint has 40 ", Reason::BadArgument),
            (revoke("carol", "DEADBEEF"), "fingerprint: ", Reason::BadArgument),
            (revoke("", &format!("{DIGITS}\n")), "fingerprint: ", Reason::BadArgument),
            (list("-a"), "creator: character 1 ", Reason::BadName),
        ] {
            let failure = given.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn changes_are_shown() {
        let shown: [fn(Outcome) -> Option<KeyChange>; 3] =
            [PublishKeyRequest::response, RotateKeyRequest::response, RevokeKeyRequest::response];
        for shown in shown {
            let made = Change {
                fingerprint: Some(fingerprint()),
                steps: vec!["a".into()],
                warnings: vec!["w".into()],
            };
            let change = shown(Outcome::Reply(Reply::Change(made))).unwrap();
            assert_eq!(change.fingerprint, DIGITS.to_uppercase());
            assert!(change.changed && change.steps == ["a"] && change.warnings == ["w"]);
            let nothing = shown(Outcome::Reply(Reply::Change(Change::default()))).unwrap();
            assert_eq!(nothing, KeyChange::default());
            assert_eq!(shown(Outcome::Reply(Reply::End)), None);
        }
    }

    #[test]
    fn keys_are_shown() {
        for (state, shown, expires) in [
            (KeyState::Current, v1::KeyState::Current, None),
            (KeyState::Previous, v1::KeyState::Previous, Some(7)),
            (KeyState::Revoked, v1::KeyState::Revoked, Some(7)),
            (KeyState::Expired, v1::KeyState::Expired, Some(7)),
        ] {
            let key = Key {
                creator: carol().unwrap(),
                fingerprint: fingerprint(),
                algorithm: "ed25519".into(),
                user_id: "Carol <carol@a.b>".into(),
                state,
                created: 5,
                expires,
                published: 6,
                key: vec![0xff, 0],
            };
            let expected = PublishedKey {
                creator: "carol".into(),
                fingerprint: DIGITS.to_uppercase(),
                algorithm: "ed25519".into(),
                user_id: "Carol <carol@a.b>".into(),
                state: shown.into(),
                created: 5,
                expires: expires.unwrap_or(0),
                published: 6,
                key: vec![0xff, 0],
            };
            let shown = ListKeysRequest::response(Outcome::Reply(Reply::Key(Box::new(key))));
            assert_eq!(shown, Some(expected));
        }
        assert_eq!(ListKeysRequest::response(Outcome::Reply(Reply::End)), None);
    }

    proptest! {
        /// Each text is made of characters that no sentence of ours has, so one of them in a detail is the caller's.
        #[test]
        fn no_text_of_a_caller_comes_back(text in "[\u{2600}-\u{26ff}\u{1b}\u{202e}]{1,50}") {
            let bytes = text.repeat(PublicKey::LONGEST / text.len() + 1).into_bytes();
            for failed in [publish(&text, vec![0], true), rotate("", bytes, true), revoke("", &text), list(&text)] {
                let detail = failed.unwrap_err().detail;
                prop_assert!(detail.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{}", detail);
            }
        }

        /// What goes on to the gate is what policy makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(creator in "[a-zA-Z_0-9-]{0,34}", digits in "[0-9a-fA-F]{38,41}|\\PC{0,40}") {
            let name = (!creator.is_empty()).then(|| AccountName::new(creator.clone())).transpose();
            match (revoke(&creator, &digits), name, Fingerprint::new(&digits)) {
                (Ok(operation), Ok(creator), Ok(fingerprint)) => {
                    let revocation = KeyRevocation { creator, fingerprint, dry_run: true };
                    prop_assert_eq!(operation, Operation::RevokeKey(revocation));
                }
                (operation, creator, fingerprint) => {
                    prop_assert!(operation.is_err() && (creator.is_err() || fingerprint.is_err()));
                }
            }
        }
    }
}
