//! What a signature of an image signs: containers-signature(5), "Signature payload", which sigstore has taken over
//! (github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md).

use podsec_policy::trust::SignatureKind;
use serde::{Deserialize, Serialize};

/// As far as it is of use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// `docker-manifest-digest`, as it is written there.
    pub digest: String,
    /// `docker-reference`, as it is written there.
    pub reference: String,
}

#[derive(Deserialize)]
struct Document {
    critical: Critical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Payload {
    /// # Errors
    /// says why it is none
    pub fn read(said: &[u8], kind: SignatureKind) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(said).map_err(|error| format!("what it signs is no image: {error}"))?;
        let Critical { kind: written, image, identity } = document.critical;
        let wanted = match kind {
            SignatureKind::Gpg => "atomic container signature",
            SignatureKind::Sigstore => "cosign container image signature",
        };
        if written != wanted {
            return Err("what it signs is no image".into());
        }
        Ok(Self { digest: image.digest, reference: identity.reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"critical":{"identity":{"docker-reference":"registry.local/team/app:1"},"image":{"docker-manifest-digest":"sha256:ab"},"type":"atomic container signature"},"optional":{"creator":"x","timestamp":1}}"#;

    #[test]
    fn other_documents_are_no_signatures() {
        let read = |text: &str| Payload::read(text.as_bytes(), SignatureKind::Gpg);
        let good = read(GOOD).unwrap();
        assert_eq!((&*good.digest, &*good.reference), ("sha256:ab", "registry.local/team/app:1"));
        for (from, to) in [
            ("atomic container signature", "cosign container image signature"),
            ("\"critical\"", "\"uncritical\""),
            ("\"type\"", "\"more\":1,\"type\""),
            ("docker-reference", "docker-references"),
            ("{", "["),
        ] {
            assert!(read(&GOOD.replacen(from, to, 1)).is_err(), "{from}");
        }
        assert!(read("").is_err());
        // Each way of signing has its own word, so that one is never taken for the other.
        let other = GOOD.replace("atomic container signature", "cosign container image signature");
        assert_eq!(Payload::read(other.as_bytes(), SignatureKind::Sigstore), Ok(good));
        assert!(Payload::read(GOOD.as_bytes(), SignatureKind::Sigstore).is_err());
    }
}
