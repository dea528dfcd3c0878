//! What became of each image: a table for people, an object for programs.

use super::progress::size;
use super::{Trouble, clean};
use crate::failure::Failure;
use crate::output::{Output, Style, aside};
use podsec_policy::trust::Digest;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// One image.
#[derive(Debug)]
pub struct Row {
    /// What it is called.
    pub name: String,
    /// For which machines.
    pub architecture: String,
    /// Where it came from or went to; what that is called in JSON.
    pub place: (&'static str, String),
    /// What came of it.
    pub result: Result<Got, Trouble>,
    /// Took so long.
    pub time: Duration,
}

/// An image that is there.
#[derive(Clone, Debug)]
pub struct Got {
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes; 0 is unknown.
    pub size: u64,
    /// What was done.
    pub done: &'static str,
}

/// Prints them, and what else a program should know; the exit status of it all.
///
/// # Errors
/// write(2)
pub fn print(
    output: &Output,
    rows: &[Row],
    more: Map<String, Value>,
    last: &[String],
) -> Result<u8, Failure> {
    let failed: Vec<_> = rows.iter().filter_map(|row| Some((row, row.result.as_ref().err()?))).collect();
    if output.is_json() {
        let mut object = more;
        object.insert("images".into(), rows.iter().map(object_of).collect());
        output.object(&object.into())?;
    } else {
        let text = output.table(
            &["IMAGE", "ARCH", "RESULT", "SIZE", "TIME", "DIGEST"],
            &rows.iter().map(|row| cells(output, row)).collect::<Vec<_>>(),
        );
        output.bytes(text.as_bytes())?;
        for (row, trouble) in &failed {
            aside(&format!("podsecctl: {} ({}): {trouble}", clean(&row.name), row.architecture));
        }
        if !last.is_empty() {
            output.bytes((last.join("\n") + "\n").as_bytes())?;
        }
    }
    Ok(failed.first().map_or(0, |(_, trouble)| trouble.exit_status()))
}

fn cells(output: &Output, row: &Row) -> Vec<String> {
    let (result, bytes, digest) = match &row.result {
        Ok(got) => (output.paint(Style::Good, got.done), got.size, got.digest.to_string()),
        Err(_) => (output.paint(Style::Bad, "failed"), 0, String::new()),
    };
    let bytes = if bytes == 0 { String::new() } else { size(bytes) };
    let time = format!("{}.{} s", row.time.as_secs(), row.time.subsec_millis() / 100);
    vec![clean(&row.name), row.architecture.clone(), result, bytes, time, digest]
}

fn object_of(row: &Row) -> Value {
    let mut object = json!({
        "name": row.name,
        "architecture": row.architecture,
        "milliseconds": u64::try_from(row.time.as_millis()).unwrap_or(u64::MAX),
    });
    let Value::Object(fields) = &mut object else { return object };
    fields.insert(row.place.0.into(), row.place.1.as_str().into());
    match &row.result {
        Ok(got) => {
            fields.insert("result".into(), got.done.into());
            fields.insert("digest".into(), got.digest.as_str().into());
            fields.insert("size".into(), (got.size != 0).then_some(got.size).into());
        }
        Err(trouble) => _ = fields.insert("error".into(), trouble.object()),
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_has_a_row() {
        let digest = super::super::layout::digest(b"").unwrap();
        let row = |result| Row {
            name: "pause:3\x1b".into(),
            architecture: "amd64".into(),
            place: ("source", "docker://pause:3".into()),
            result,
            time: Duration::from_millis(1234),
        };
        let good = row(Ok(Got { digest: digest.clone(), size: 2048, done: "saved" }));
        let bad = row(Err(Trouble::Program { name: "skopeo", said: "says: no".into() }));
        assert_eq!(
            cells(&Output::plain(), &good),
            [r"pause:3\x1b", "amd64", "saved", "2.0 KiB", "1.2 s", digest.as_str()]
        );
        assert_eq!(cells(&Output::plain(), &bad)[2..4], ["failed", ""]);
        let object = object_of(&good);
        assert_eq!((&object["size"], &object["source"]), (&2048.into(), &"docker://pause:3".into()));
        assert_eq!(object_of(&bad)["error"]["message"], "skopeo says: no");
        assert_eq!(print(&Output::plain(), &[good, bad], Map::new(), &[]).unwrap(), 74);
    }
}
