//! `podsecctl image signatures`

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean};
use crate::time;
use podsec_policy::name::AccountName;
use podsec_proto::v1::{ListSignaturesRequest, SignatureRecord};
use serde_json::{Value, json};

/// Digits of a digest that people compare.
const SHORT: usize = 12;

pub fn run(context: &Context, creator: Option<&AccountName>) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let creator = creator.map(ToString::to_string).unwrap_or_default();
    let records = daemon.ask_all(daemon.signatures().list(ListSignaturesRequest { creator }))?;
    if context.output.is_json() {
        let records = records.iter().map(object).collect::<Value>();
        return context.output.object(&json!({ "signatures": records }));
    }
    if records.is_empty() {
        let text =
            b"no signatures are published; `podsecctl image push --sign` publishes an image with one\n";
        return context.output.bytes(text);
    }
    context.output.bytes(table(&context.output, &records).as_bytes())
}

fn object(record: &SignatureRecord) -> Value {
    let SignatureRecord { creator, fingerprint, reference, digest, time, trusted } = record;
    json!({
        "reference": reference,
        "digest": digest,
        "creator": creator,
        "fingerprint": fingerprint,
        "time": time,
        "trusted": trusted,
    })
}

fn table(output: &Output, records: &[SignatureRecord]) -> String {
    let row = |record: &SignatureRecord| {
        let digits = record.digest.strip_prefix("sha256:").unwrap_or(&record.digest);
        let trusted = if record.trusted {
            output.paint(Style::Good, "trusted")
        } else {
            output.paint(Style::Bad, "not trusted")
        };
        vec![
            clean(&record.reference),
            clean(&digits.chars().take(SHORT).collect::<String>()),
            clean(&record.creator),
            clean(&record.fingerprint),
            time::show(record.time),
            trusted,
        ]
    };
    let rows: Vec<_> = records.iter().map(row).collect();
    output.table(&["IMAGE", "DIGEST", "CREATOR", "KEY", "SIGNED", "NOW"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people_and_programs() {
        let record = SignatureRecord {
            creator: "carol".into(),
            fingerprint: "4B83F0A2A71780556F9AFD23DCB6E4EDD5367651".into(),
            reference: "registry.local/team/app:1\x1b".into(),
            digest: format!("sha256:{}", "0123456789abcdef".repeat(4)),
            time: 1_769_846_400,
            trusted: true,
        };
        let old = SignatureRecord { trusted: false, ..record.clone() };
        let expected = "\
IMAGE                          DIGEST        CREATOR  KEY                                       SIGNED                NOW
registry.local/team/app:1\\x1b  0123456789ab  carol    4B83F0A2A71780556F9AFD23DCB6E4EDD5367651  2026-01-31T08:00:00Z  trusted
registry.local/team/app:1\\x1b  0123456789ab  carol    4B83F0A2A71780556F9AFD23DCB6E4EDD5367651  2026-01-31T08:00:00Z  not trusted
";
        assert_eq!(table(&Output::plain(), &[record.clone(), old]), expected);
        assert_eq!(
            (&object(&record)["trusted"], &object(&record)["digest"]),
            (&true.into(), &record.digest.into())
        );
    }
}
