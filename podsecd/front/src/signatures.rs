//! `podsec.v1.SignatureService`: signatures of images as operations, and what workers found as its messages.
//!
//! Must not look into a signature: what a stranger's OpenPGP is worth is for a process with less to lose.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use crate::users::account_or_none;
use podsec_policy::operation::Method;
use podsec_policy::trust::{Digest, SignatureBytes, SubmitSignature};
use podsec_policy::user::Scope;
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{self, ListSignaturesRequest, SubmitSignatureRequest, SubmittedSignature};
use podsec_wire::messages::{Reply, SignatureRecord};

impl Rpc for SubmitSignatureRequest {
    const METHOD: Method = Method::SubmitSignature;
    type Response = SubmittedSignature;

    fn operation(self) -> Result<Operation, Failure> {
        let (digest, signature) = (Digest::new(self.digest), SignatureBytes::new(self.signature));
        Ok(Operation::SubmitSignature(Box::new(SubmitSignature {
            repository: repository(self.repository)?,
            digest: digest.map_err(|error| Failure::at("digest", Reason::BadArgument, error))?,
            signature: signature.map_err(|error| Failure::at("signature", Reason::BadSignature, error))?,
        })))
    }

    fn response(outcome: Outcome) -> Option<SubmittedSignature> {
        let Outcome::Reply(Reply::Submitted(path, changed)) = outcome else { return None };
        Some(SubmittedSignature { changed, path })
    }
}

/// A scope with a path: a registry alone has no images.
fn repository(text: String) -> Result<Scope, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::at("repository", Reason::BadScope, error);
    let scope = Scope::new(text).map_err(|error| bad(&error))?;
    if scope.as_str().contains('/') {
        Ok(scope)
    } else {
        Err(bad(&"an image has a path after the registry: registry.local/team/app"))
    }
}

impl Rpc for ListSignaturesRequest {
    const METHOD: Method = Method::ListSignatures;
    type Response = v1::SignatureRecord;

    fn operation(self) -> Result<Operation, Failure> {
        account_or_none("creator", self.creator).map(Operation::ListSignatures)
    }

    fn response(outcome: Outcome) -> Option<v1::SignatureRecord> {
        let Outcome::Reply(Reply::Signature(record)) = outcome else { return None };
        Some(submitted(*record))
    }
}

fn submitted(record: SignatureRecord) -> v1::SignatureRecord {
    v1::SignatureRecord {
        creator: record.creator.into(),
        fingerprint: record.fingerprint.into(),
        reference: record.reference,
        digest: record.digest.into(),
        time: record.time,
        trusted: record.trusted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::name::AccountName;
    use podsec_policy::user::Fingerprint;
    use proptest::prelude::*;

    fn digest() -> String {
        format!("sha256:{}", "0a".repeat(32))
    }

    fn submit(repository: &str, digest: &str, signature: Vec<u8>) -> Result<Operation, Failure> {
        let (repository, digest) = (repository.into(), digest.into());
        SubmitSignatureRequest { repository, digest, signature }.operation()
    }

    fn list(creator: &str) -> Result<Operation, Failure> {
        ListSignaturesRequest { creator: creator.into() }.operation()
    }

    fn expected(repository: &str, digest: &str, signature: Vec<u8>) -> Operation {
        Operation::SubmitSignature(Box::new(SubmitSignature {
            repository: Scope::new(repository).unwrap(),
            digest: Digest::new(digest).unwrap(),
            signature: SignatureBytes::new(signature).unwrap(),
        }))
    }

    #[test]
    fn every_field_arrives() {
        // any bytes: the signature is not looked into here
        let (least, most) = (vec![0xff], vec![b'x'; SignatureBytes::LONGEST]);
        let other = format!("sha256:{}", "f0".repeat(32));
        for (repository, digest, signature) in
            [("a.b/c", digest(), least), ("registry.local:5000/team/app", other, most)]
        {
            let given = submit(repository, &digest, signature.clone()).unwrap();
            assert_eq!(given, expected(repository, &digest, signature));
        }
        let carol = AccountName::new("carol").unwrap();
        assert_eq!(list("carol").unwrap(), Operation::ListSignatures(Some(carol)));
        assert_eq!(list("").unwrap(), Operation::ListSignatures(None));
    }

    #[test]
    fn every_mistake_names_its_field() {
        let (good, long) = (digest(), vec![0; SignatureBytes::LONGEST + 1]);
        let one = || vec![0];
        for (given, start, reason) in [
            (submit("", &good, one()), "repository: a scope has 1 to 255 ", Reason::BadScope),
            (submit("team/app", &good, one()), "repository: a scope begins ", Reason::BadScope),
            (submit("a.b", &good, one()), "repository: an image has a path ", Reason::BadScope),
            (submit("a.b:5000", &good, one()), "repository: an image has a path ", Reason::BadScope),
            (submit("a.b/c:latest", &good, one()), "repository: part 1 ", Reason::BadScope),
            (submit(&format!("a.b/c@{good}"), &good, one()), "repository: part 1 ", Reason::BadScope),
            (submit("a.b/../etc", &good, one()), "repository: part 1 ", Reason::BadScope),
            (submit("a.b/c", "", one()), "digest: a digest is sha256: ", Reason::BadArgument),
            (submit("a.b/c", &good[7..], one()), "digest: ", Reason::BadArgument),
            (submit("a.b/c", &good.to_uppercase(), one()), "digest: ", Reason::BadArgument),
            (submit("a.b/c", &good.replace('0', "/"), one()), "digest: ", Reason::BadArgument),
            (submit("a.b/c", &format!("{good}\n"), one()), "digest: ", Reason::BadArgument),
            (
                submit("a.b/c", &good, Vec::new()),
                "signature: a signature has 1 to 65536 bytes, this one has 0",
                Reason::BadSignature,
            ),
            (
                submit("a.b/c", &good, long),
                "signature: a signature has 1 to 65536 bytes, this one has 65537",
                Reason::BadSignature,
            ),
            (list("Carol"), "creator: character 1 ", Reason::BadName),
            (list(&"a".repeat(33)), "creator: a name has 1 to 32 ", Reason::BadName),
        ] {
            let failure = given.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn what_was_submitted_is_shown() {
        for changed in [true, false] {
            let path = || "a.b/c@sha256=0a/signature-1".to_owned();
            let shown = SubmitSignatureRequest::response(Outcome::Reply(Reply::Submitted(path(), changed)));
            assert_eq!(shown, Some(SubmittedSignature { changed, path: path() }));
        }
        assert_eq!(SubmitSignatureRequest::response(Outcome::Reply(Reply::Changed(true))), None);
        for trusted in [true, false] {
            let record = SignatureRecord {
                creator: AccountName::new("carol").unwrap(),
                fingerprint: Fingerprint::new(&"0a".repeat(20)).unwrap(),
                reference: "a.b/c:1".into(),
                digest: Digest::new(digest()).unwrap(),
                time: 5,
                trusted,
            };
            let expected = v1::SignatureRecord {
                creator: "carol".into(),
                fingerprint: "0A".repeat(20),
                reference: "a.b/c:1".into(),
                digest: digest(),
                time: 5,
                trusted,
            };
            let shown = ListSignaturesRequest::response(Outcome::Reply(Reply::Signature(Box::new(record))));
            assert_eq!(shown, Some(expected));
        }
        assert_eq!(ListSignaturesRequest::response(Outcome::Reply(Reply::End)), None);
    }

    proptest! {
        /// Each text is made of characters that no sentence of ours has, so one of them in a detail is the caller's.
        #[test]
        fn no_text_of_a_caller_comes_back(text in "[\u{2600}-\u{26ff}\u{1b}\u{202e}]{1,50}") {
            let bytes = text.repeat(SignatureBytes::LONGEST / text.len() + 1).into_bytes();
            for failed in [
                submit(&text, &digest(), vec![0]),
                submit(&format!("a.b/{text}"), &digest(), vec![0]),
                submit("a.b/c", &text, vec![0]),
                submit("a.b/c", &digest(), bytes),
                list(&text),
            ] {
                let detail = failed.unwrap_err().detail;
                prop_assert!(detail.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{}", detail);
            }
        }

        /// What goes on to the gate is what policy makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(repository in "[a-zA-Z]\\.[a-z]{1,2}(:[0-9]{1,5})?(/[a-z_.-]{0,3}){0,2}",
                               digest in "sha256:[0-9a-f]{64}|[sS]ha(256|512):[0-9a-fA-F]{63,65}") {
            let scope = Scope::new(repository.clone()).ok().filter(|scope| scope.as_str().contains('/'));
            match (submit(&repository, &digest, vec![0]), scope, Digest::new(digest.clone())) {
                (Ok(operation), Some(_), Ok(_)) => {
                    prop_assert_eq!(operation, expected(&repository, &digest, vec![0]));
                }
                (operation, scope, digest) => {
                    prop_assert!(operation.is_err() && (scope.is_none() || digest.is_err()));
                }
            }
        }
    }
}
