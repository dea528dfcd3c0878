//! The form of the audit: one JSON object (RFC 8259) a line, each bound to the one before by SHA-256.
//!
//! ```text
//! {"seq":7,"time":"2026-01-02T03:04:05.678901Z","phase":"intent","id":"…","op":"NamespaceService/Enter","uid":1000,…,"prev":"<64 hex>","hash":"<64 hex>"}
//! ```
//!
//! `hash` is the SHA-256 of all bytes of the line before `,"hash":`, and so covers `prev`, the hash of the line
//! before. An edited, removed or inserted line shows at that place. Whoever can write the file as root can of
//! course write a whole new chain; the copies in journald are for that.

use crate::peer::{Peer, Roles};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Longest target in a record; the rest is given as length and hash.
pub const MAX_TARGET: usize = 1024;

/// The end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the last record; 0 before the first.
    pub seq: u64,
    /// Hash of the last record; zeros before the first.
    pub hash: [u8; 32],
}

impl Head {
    /// Before the first record.
    pub const GENESIS: Self = Self { seq: 0, hash: [0; 32] };
}

/// What a record says happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A permitted operation is about to act.
    #[default]
    Intent,
    /// It did.
    Done,
    /// It did not; `reason` and `step` say why and where.
    Fail,
    /// It was not permitted.
    Deny,
    /// A crash left its intent open; podsecd found it at its next start.
    Recovered,
}

impl Phase {
    /// As written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Done => "done",
            Self::Fail => "fail",
            Self::Deny => "deny",
            Self::Recovered => "recovered",
        }
    }
}

/// One record, before it has its place in the chain. Serde reads what [`Record::line`] wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Microseconds since 1970-01-01T00:00:00Z, as `time` in RFC 3339.
    #[serde(rename = "time", deserialize_with = "read_time")]
    pub micros: u64,
    /// What happened.
    pub phase: Phase,
    /// 128 random bits in hex, the same in all records of one operation; empty for a denial.
    #[serde(default)]
    pub id: String,
    /// `NamespaceService/Enter`; empty where no operation could be made out.
    #[serde(default)]
    pub op: String,
    /// Of the peer.
    pub uid: u32,
    /// Who logged in.
    #[serde(default)]
    pub login_uid: Option<u32>,
    /// Of the peer, when it connected.
    pub pid: i32,
    /// His roles, in the words of [`crate::Role::name`].
    #[serde(default)]
    pub roles: Vec<String>,
    /// Escaped by [`escape`].
    #[serde(default)]
    pub target: String,
    /// [`crate::Reason::name`].
    #[serde(default)]
    pub reason: Option<String>,
    /// Of the operation, where it ended.
    #[serde(default)]
    pub step: Option<String>,
    /// Milliseconds since the intent.
    #[serde(default)]
    pub ms: Option<u64>,
    /// Of a session: 0 to 255, or 128 and the signal's number.
    #[serde(default)]
    pub exit: Option<i32>,
    /// Refusals like this one that were counted and not written, to keep the record readable.
    #[serde(default)]
    pub suppressed: Option<u64>,
}

fn read_time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_time(&text).ok_or_else(|| serde::de::Error::custom("not a time as podsecd writes it"))
}

impl Record {
    /// Of a refusal.
    #[must_use]
    pub fn denial(micros: u64, peer: &Peer, roles: Roles, op: &str, target: String, reason: &str) -> Self {
        Self {
            micros,
            phase: Phase::Deny,
            op: op.to_owned(),
            uid: peer.uid,
            login_uid: peer.login_uid,
            pid: peer.pid,
            roles: roles.names(),
            target,
            reason: Some(reason.to_owned()),
            ..Self::default()
        }
    }

    /// The line, without its newline, and the new end of the chain.
    #[must_use]
    pub fn line(&self, head: Head) -> (String, Head) {
        let seq = head.seq + 1;
        let mut line = String::with_capacity(384 + self.target.len());
        // Writing to a String cannot fail.
        let _ =
            write!(line, r#"{{"seq":{seq},"time":"{}","phase":"{}""#, Time(self.micros), self.phase.name());
        let text = |line: &mut String, key: &str, value: &str| {
            let _ = write!(line, r#","{key}":"{}""#, Quoted(value));
        };
        let number = |line: &mut String, key: &str, value: Option<u64>| {
            if let Some(value) = value {
                let _ = write!(line, r#","{key}":{value}"#);
            }
        };
        for (key, value) in [("id", &self.id), ("op", &self.op)] {
            if !value.is_empty() {
                text(&mut line, key, value);
            }
        }
        number(&mut line, "uid", Some(self.uid.into()));
        number(&mut line, "login_uid", self.login_uid.map(u64::from));
        let _ = write!(line, r#","pid":{}"#, self.pid);
        for (index, role) in self.roles.iter().enumerate() {
            let _ = write!(line, r#"{}"{}""#, if index == 0 { r#","roles":["# } else { "," }, Quoted(role));
        }
        if !self.roles.is_empty() {
            line.push(']');
        }
        if !self.target.is_empty() {
            text(&mut line, "target", &self.target);
        }
        for (key, value) in [("reason", &self.reason), ("step", &self.step)] {
            if let Some(value) = value {
                text(&mut line, key, value);
            }
        }
        number(&mut line, "ms", self.ms);
        if let Some(exit) = self.exit {
            let _ = write!(line, r#","exit":{exit}"#);
        }
        number(&mut line, "suppressed", self.suppressed);
        let _ = write!(line, r#","prev":"{}""#, Hex(&head.hash));
        let hash: [u8; 32] = Sha256::digest(line.as_bytes()).into();
        let _ = write!(line, r#","hash":"{}"}}"#, Hex(&hash));
        (line, Head { seq, hash })
    }

    /// For journald, by its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): `NAME=value` lines, the record's own
    /// fields as `PODSEC_` and the upper-case name. Values never hold a line break: all that callers chose has been
    /// escaped.
    #[must_use]
    pub fn datagram(&self) -> String {
        let verb = self.phase.name();
        let priority = if matches!(self.phase, Phase::Deny | Phase::Fail | Phase::Recovered) { 4 } else { 6 };
        let mut text = format!(
            "MESSAGE={verb} {} uid={} {}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=podsecd\nSYSLOG_FACILITY=10\n",
            self.op, self.uid, self.target
        );
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        for (name, value) in [
            ("PHASE", self.phase.name().to_owned()),
            ("ID", self.id.clone()),
            ("OP", self.op.clone()),
            ("UID", self.uid.to_string()),
            ("LOGIN_UID", number(self.login_uid.map(u64::from))),
            ("PID", self.pid.to_string()),
            ("ROLES", self.roles.join(",")),
            ("TARGET", self.target.clone()),
            ("REASON", self.reason.clone().unwrap_or_default()),
            ("STEP", self.step.clone().unwrap_or_default()),
            ("MS", number(self.ms)),
            ("EXIT", self.exit.map(|exit| exit.to_string()).unwrap_or_default()),
            ("SUPPRESSED", number(self.suppressed)),
        ] {
            if !value.is_empty() {
                let _ = writeln!(text, "PODSEC_{name}={value}");
            }
        }
        text
    }
}

/// Why a line is not the next link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not of the form above.
    #[error("not a record of podsecd")]
    Form,
    /// Its own hash does not fit its text.
    #[error("the record was edited: its hash does not fit its text")]
    Edited,
    /// Records before it are missing, or do not belong to it.
    #[error("records are missing or were exchanged before this one")]
    Missing,
}

const HASH_TAIL: usize = r#","hash":""}"#.len() + 64;
const PREV_TAIL: usize = r#","prev":"""#.len() + 64;

/// Takes a line apart without interpreting it: its number, the hash it follows, and its own hash if that fits.
///
/// # Errors
/// [`LinkError::Form`] or [`LinkError::Edited`].
pub fn link(line: &[u8]) -> Result<(Head, [u8; 32]), LinkError> {
    let parts = || {
        let (body, tail) = line.split_at_checked(line.len().checked_sub(HASH_TAIL)?)?;
        let hash = unhex(tail.strip_prefix(br#","hash":""#)?.strip_suffix(br#""}"#)?)?;
        let (_, tail) = body.split_at_checked(body.len().checked_sub(PREV_TAIL)?)?;
        let prev = unhex(tail.strip_prefix(br#","prev":""#)?.strip_suffix(br#"""#)?)?;
        let digits = body.strip_prefix(br#"{"seq":"#)?.split(|&byte| byte == b',').next()?;
        let seq = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some((body, Head { seq, hash }, prev))
    };
    let (body, head, prev) = parts().ok_or(LinkError::Form)?;
    if <[u8; 32]>::from(Sha256::digest(body)) != head.hash {
        return Err(LinkError::Edited);
    }
    Ok((head, prev))
}

/// Is this line the one that follows `head`? Gives the new end of the chain.
///
/// # Errors
/// [`LinkError`] says what is wrong with it.
pub fn verify(head: Head, line: &[u8]) -> Result<Head, LinkError> {
    let (next, prev) = link(line)?;
    if prev != head.hash || next.seq != head.seq + 1 {
        return Err(LinkError::Missing);
    }
    Ok(next)
}

/// The id of the operation whose outcome this line is; the order of its fields is that of [`Record::line`].
#[must_use]
pub fn ended(line: &[u8]) -> Option<&str> {
    let (_, rest) = std::str::from_utf8(line).ok()?.split_once(r#","phase":""#)?;
    let (phase, rest) = rest.split_once('"')?;
    rest.strip_prefix(r#","id":""#)?.split('"').next().filter(|_| phase != Phase::Intent.name())
}

/// Which records somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Of the peer.
    pub uid: Option<u32>,
    /// `NamespaceService/Enter`, or its last part alone.
    pub op: Option<String>,
    /// What happened.
    pub phase: Option<Phase>,
    /// Microseconds since 1970, inclusive.
    pub since: Option<u64>,
    /// Microseconds since 1970, exclusive.
    pub until: Option<u64>,
    /// Only the newest so many.
    pub last: Option<u32>,
}

impl Filter {
    /// Does the record pass all but `last`?
    #[must_use]
    pub fn passes(&self, record: &Record) -> bool {
        self.uid.is_none_or(|uid| uid == record.uid)
            && self.op.as_deref().is_none_or(|op| record.op == op || record.op.rsplit('/').next() == Some(op))
            && self.phase.is_none_or(|phase| phase == record.phase)
            && self.since.is_none_or(|since| record.micros >= since)
            && self.until.is_none_or(|until| record.micros < until)
    }
}

/// Makes any bytes safe to print on one line of a terminal or a log: printable characters stay, everything else
/// becomes `\xNN` or `\u{…}`. That covers line breaks, escape sequences, the C1 controls that some terminals obey,
/// and the bidirectional controls that make a line read other than it is. A target over [`MAX_TARGET`] ends in its
/// length and SHA-256.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().min(MAX_TARGET) + 8);
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                ' ' => text.push(' '),
                c if c.is_ascii_control() => _ = write!(text, r"\x{:02x}", u32::from(c)),
                c if is_unprintable(c) => {
                    _ = write!(text, r"\u{{{:x}}}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, r"\x{byte:02x}");
        }
        if text.len() > MAX_TARGET {
            let mut end = MAX_TARGET;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            let hash: [u8; 32] = Sha256::digest(bytes).into();
            let _ = write!(text, "… ({} bytes, sha256 {})", bytes.len(), Hex(&hash));
            break;
        }
    }
    text
}

/// Format characters (Unicode general category Cf) and separators that a terminal shows as nothing, or obeys:
/// soft hyphen, zero-width and bidirectional controls, tags, the byte order mark.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What [`escape`] never leaves.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    c != ' ' && (c.is_control() || c.is_whitespace() || is_invisible(c))
}

/// JSON string contents: only what RFC 8259 §7 demands. Controls can't occur after [`escape`], but a name from
/// elsewhere must not break the line either.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

struct Hex<'a>(&'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// The reverse of [`hex`] for a SHA-256; `None` unless it is exactly 64 lower-case digits.
#[must_use]
pub fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    unhex_bytes(std::str::from_utf8(text).ok()?)?.try_into().ok()
}

/// The same, of any length.
#[must_use]
pub fn unhex_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let &[high, low] = pair else { return None };
        Some(digit(high)? << 4 | digit(low)?)
    });
    pairs.collect()
}

/// RFC 3339 in UTC with microseconds.
pub struct Time(pub u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0 / 1_000_000;
        let (year, month, day) = civil(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let micros = self.0 % 1_000_000;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// Day number since 1970-01-01 to the proleptic Gregorian date, by 400-year eras that start on 1 March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era_day = shifted % 146_097;
    let era_year = (era_day - era_day / 1460 + era_day / 36_524 - era_day / 146_096) / 365;
    let year_day = era_day - (365 * era_year + era_year / 4 - era_year / 100);
    let shifted_month = (5 * year_day + 2) / 153;
    let day = year_day - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = shifted / 146_097 * 400 + era_year + u64::from(month <= 2);
    (year, month, day)
}

/// The reverse of [`Time`]; `None` for anything that it does not write.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second, micros) = (number(11..13)?, number(14..16)?, number(17..19)?, number(20..26)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted_month = (month + 9) % 12;
    let shifted_year = year - u64::from(month <= 2);
    let era_year = shifted_year % 400;
    let era_day = era_year * 365 + era_year / 4 - era_year / 100 + (153 * shifted_month + 2) / 5 + day - 1;
    let days = shifted_year / 400 * 146_097 + era_day - 719_468;
    let total = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros;
    (Time(total).to_string() == text).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(target: &[u8]) -> Record {
        Record {
            micros: 1_767_322_845_678_901,
            phase: Phase::Intent,
            id: "0123".into(),
            op: "NamespaceService/Enter".into(),
            uid: 1000,
            login_uid: Some(1001),
            pid: 77,
            roles: vec!["Administrator".into(), "Anyone".into()],
            target: escape(target),
            reason: None,
            step: None,
            ms: Some(3),
            exit: Some(-1),
            suppressed: None,
        }
    }

    #[test]
    fn line_is_as_documented() {
        let (line, head) = record(b"id -u").line(Head::GENESIS);
        insta::assert_snapshot!(line);
        assert_eq!(head.seq, 1);
        assert_eq!(verify(Head::GENESIS, line.as_bytes()), Ok(head));
    }

    #[test]
    fn chain_shows_every_tampering() {
        let mut head = Head::GENESIS;
        let lines: Vec<String> = (0..4)
            .map(|number| {
                let (line, next) = record(format!("{number}").as_bytes()).line(head);
                head = next;
                line
            })
            .collect();
        let check = |lines: &[&String]| {
            lines.iter().try_fold(Head::GENESIS, |head, line| verify(head, line.as_bytes())).map(|_| ())
        };
        let [a, b, c, d] = &lines[..] else { panic!() };
        assert_eq!(check(&[a, b, c, d]), Ok(()));
        assert_eq!(check(&[a, c, d]), Err(LinkError::Missing));
        assert_eq!(check(&[b, c, d]), Err(LinkError::Missing));
        assert_eq!(check(&[a, c, b, d]), Err(LinkError::Missing));
        assert_eq!(check(&[a, &b.replace("1000", "1002"), c]), Err(LinkError::Edited));
        // Edited, and its own hash made anew: the next one does not follow it any more.
        let forged = {
            let (body, _) = b.rsplit_once(r#","hash":""#).unwrap();
            let body = body.replace("1000", "1002");
            let hash: [u8; 32] = Sha256::digest(body.as_bytes()).into();
            format!(r#"{body},"hash":"{}"}}"#, hex(&hash))
        };
        assert!(link(forged.as_bytes()).is_ok());
        assert_eq!(check(&[a, &forged, c]), Err(LinkError::Missing));
        assert_eq!(check(&[a, &b[..b.len() - 1].to_owned()]), Err(LinkError::Form));
        assert_eq!(check(&[&String::new()]), Err(LinkError::Form));
    }

    #[test]
    fn filters() {
        let record = record(b"");
        let base = Filter::default();
        assert!(base.passes(&record));
        assert!(Filter { op: Some("Enter".into()), ..base.clone() }.passes(&record));
        assert!(!Filter { op: Some("ter".into()), ..base.clone() }.passes(&record));
        assert!(!Filter { uid: Some(0), ..base.clone() }.passes(&record));
        assert!(!Filter { phase: Some(Phase::Deny), ..base.clone() }.passes(&record));
        assert!(!Filter { since: Some(record.micros + 1), ..base.clone() }.passes(&record));
        assert!(!Filter { until: Some(record.micros), ..base }.passes(&record));
    }

    #[test]
    fn escapes() {
        assert_eq!(escape(b"a b\n\x1b[2J\r\x9b\\\xff\""), r#"a b\x0a\x1b[2J\x0d\x9b\\\xff""#);
        assert_eq!(escape("ü\u{85}\u{202e}\u{2028}\u{a0}".as_bytes()), r"ü\u{85}\u{202e}\u{2028}\u{a0}");
        let long = escape(&vec![b'\n'; 1 << 20]);
        assert!(long.len() < MAX_TARGET + 120 && long.contains("1048576 bytes, sha256 "), "{}", long.len());
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_line_that_json_reads_back(target in proptest::collection::vec(any::<u8>(), 0..200)) {
            let record = record(&target);
            let (line, head) = record.line(Head { seq: 41, hash: [7; 32] });
            prop_assert!(line.chars().all(|c| !c.is_control() && !is_invisible(c)));
            prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
            prop_assert_eq!(verify(Head { seq: 41, hash: [7; 32] }, line.as_bytes()), Ok(head));
        }

        #[test]
        fn escape_tells_different_bytes_apart(a in proptest::collection::vec(any::<u8>(), 0..12),
                                              b in proptest::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(escape(&a) == escape(&b), a == b);
        }

        #[test]
        fn time_reads_back(micros in 0..253_402_300_800_000_000_u64) {
            prop_assert_eq!(parse_time(&Time(micros).to_string()), Some(micros));
        }

        #[test]
        fn link_survives_anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = link(&bytes);
        }
    }

    #[test]
    fn journal_fields_are_lines() {
        let record = Record { target: escape(b"x\nPRIORITY=0"), ..Record::default() };
        let text = record.datagram();
        assert_eq!(text.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1, "{text}");
        assert!(text.contains("PODSEC_TARGET=x\\x0aPRIORITY=0\n"), "{text}");
    }
}
