//! Mail, by way of sendmail(8), which every mail system has: one text for all that is new.
//!
//! Headers hold nothing that was found. The body is quoted-printable (RFC 2045, 6.7), so that no line of it is too long for
//! a mail system, or anything but text.

use super::Settings;
use super::news::{Event, News, about};
use podsec_policy::audit::Time;
use podsec_policy::finding::Severity;
use podsec_sys::program::{Run, run_with};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

/// Bytes of the text. What does not fit is counted.
const LONGEST: usize = 256 * 1024;
/// sendmail takes a mail and delivers it later, or tries at once.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of one recipient: a user of this host, or one elsewhere. Empty: nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (user, host) = text.split_once('@').unwrap_or((&text, "localhost"));
        let good = |part: &str, more: &str, most: usize| {
            part.len() <= most
                && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let fits = text.is_empty() || (good(user, "._+-", 64) && good(host, ".-", 253));
        fits.then_some(Self(text)).ok_or("not a mail address: `root` or `name@host`")
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

/// Hands it over.
///
/// # Errors
/// what sendmail says
pub fn deliver(settings: &Settings, left_out: u64, news: &mut Vec<News>) -> Result<(), String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mail = compose(&settings.mail, &host, left_out, news);
    let run = Run { input: mail.as_bytes(), deadline: PATIENCE, ..Run::default() };
    // -t: to whom is in the mail. -i: a line with a dot alone is no end.
    run_with(&settings.sendmail, &["-t", "-i"], run).map_err(|error| error.to_string())?;
    news.clear();
    Ok(())
}

fn compose(to: &Address, host: &str, left_out: u64, news: &[News]) -> String {
    let host = host.trim().replace(|c: char| !c.is_ascii_alphanumeric() && !".-_".contains(c), "?");
    let of = |name: &str| news.iter().filter(|news| news.event.name() == name).collect::<Vec<_>>();
    let (new, gone) = (of("new"), of("gone"));
    let worst = new.iter().map(|news| news.event.severity()).max().map_or("none", Severity::name);
    let mut text = format!("podsec on {host}: what changed since the last mail.\n");
    let mut more = left_out;
    let mut section = |title: &str, list: &[&News]| {
        if list.is_empty() {
            return;
        }
        _ = write!(text, "\n{title} ({})\n", list.len());
        for news in list {
            let entry = entry(news);
            if text.len() + entry.len() > LONGEST {
                more += 1;
            } else {
                text += &entry;
            }
        }
    };
    section("New", &new);
    section("About the checks themselves", &[of("blind"), of("sees")].concat());
    section("Gone", &gone);
    if more > 0 {
        _ = write!(text, "\n{more} more were left out here.\n");
    }
    text += "\nAll that is left: podsecctl check list\n";
    format!(
        "To: {}\nSubject: podsec on {host}: {} new, worst {worst}; {} gone\nAuto-Submitted: auto-generated\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{}",
        to.0,
        new.len(),
        gone.len(),
        quoted_printable(&text)
    )
}

/// A finding takes some lines.
fn entry(news: &News) -> String {
    let time = Time(news.time.saturating_mul(1_000_000)).to_string();
    let time = time.get(..19).unwrap_or_default();
    let Some(finding) = news.event.finding() else { return format!("\n{time}Z {}\n", news.event.line()) };
    let severity = finding.severity.name();
    let mut text = format!("\n{time}Z {severity}: {}{}\n", finding.kind.title, about(finding));
    if let Event::New(_) = news.event {
        _ = write!(text, "  {}\n  podsecctl check show {}\n", finding.kind.remedy, finding.id());
    }
    text
}

/// Lines of at most 76 characters of ASCII, whatever the text.
fn quoted_printable(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        let mut width = 0;
        for (at, byte) in line.bytes().enumerate() {
            let is_last = at + 1 == line.len();
            let plain = matches!(byte, b'!'..=b'<' | b'>'..=b'~') || (byte == b' ' && !is_last);
            let piece = if plain { char::from(byte).to_string() } else { format!("={byte:02X}") };
            if width + piece.len() > if is_last { 76 } else { 75 } {
                encoded += "=\n";
                width = 0;
            }
            width += piece.len();
            encoded += &piece;
        }
        encoded.push('\n');
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Check, Finding, Found, Subject, Text, kinds};
    use proptest::prelude::*;

    fn address(text: &str) -> Result<Address, &'static str> {
        Address::try_from(text.to_owned())
    }

    /// RFC 2045, 6.7, without repairing anything.
    fn decode(text: &str) -> Vec<u8> {
        let mut decoded = Vec::new();
        for line in text.split_terminator('\n') {
            assert!(line.len() <= 76 && line.is_ascii() && !line.ends_with(' '), "{line:?}");
            let (line, end) = line.strip_suffix('=').map_or((line, "\n"), |line| (line, ""));
            let mut parts = line.split('=');
            decoded.extend(parts.next().unwrap().bytes());
            for part in parts {
                decoded.push(u8::from_str_radix(&part[..2], 16).unwrap());
                decoded.extend(part[2..].bytes());
            }
            decoded.extend(end.bytes());
        }
        decoded
    }

    fn new(name: &str) -> News {
        let kind = kinds().next().unwrap();
        let finding = Finding::new(kind, Subject::User(Text::of(name)), name, name).of(name);
        News { time: 0, event: Event::New(Box::new(Found { finding, first: 1, last: 1, count: 1 })) }
    }

    #[test]
    fn an_address_is_one_address() {
        for good in ["", "root", "ops+podsec@example.org", "a.b-c@h"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "-t",
            "@host",
            "a@",
            "a@b@c",
            "a b",
            "a,b",
            "root\nBcc: eve",
            "a@-b",
            "|cmd",
            "/etc/x",
            "\"x\"@y",
            "ä",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_found_is_in_the_body_alone() {
        let hostile = "x\nBcc: eve@example.org\n\n.\nFrom y\r\nSubject: z \u{2028}ü";
        let host = "h\nBcc: eve\n";
        let mail = compose(&address("root").unwrap(), host, 7, &[new(hostile), new("y")]);
        let (head, body) = mail.split_once("\n\n").unwrap();
        let names: Vec<_> = head.lines().map(|line| line.split_once(": ").unwrap().0).collect();
        let expected =
            ["To", "Subject", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"];
        assert_eq!(names, expected);
        assert!(head.contains("Subject: podsec on h?Bcc??eve: 2 new, worst "), "{head}");
        let body = String::from_utf8(decode(body)).unwrap();
        assert!(
            body.contains(r"x\x0aBcc: eve@example.org\x0a\x0a.\x0aFrom y\x0d\x0aSubject: z \u{2028}ü"),
            "{body}"
        );
        assert!(
            body.lines().all(|line| !line.starts_with("Bcc") && line != "." && !line.starts_with("From "))
        );
        assert!(body.contains("7 more were left out"), "{body}");
    }

    #[test]
    fn a_mail_is_bounded_and_says_so() {
        let many: Vec<_> = (0..10_000).map(|number| new(&format!("{number}{}", "x".repeat(900)))).collect();
        let mail = compose(&address("root").unwrap(), "h", 0, &many);
        assert!(mail.len() < 2 * LONGEST, "{}", mail.len());
        let body = String::from_utf8(decode(mail.split_once("\n\n").unwrap().1)).unwrap();
        let shown = body.matches("podsecctl check show").count();
        assert!(body.contains(&format!("{} more were left out", 10_000 - shown)), "{shown}");
        let blind = News { time: 0, event: Event::Blind(Check::Policy, Text::of("bob")) };
        assert!(
            compose(&address("root").unwrap(), "h", 0, &[blind]).contains(": 0 new, worst none; 0 gone\n")
        );
    }

    proptest! {
        #[test]
        fn any_text_comes_out_as_it_went_in(text in "(?s)(.{0,90}| {0,3}|=|[ä€😀]{0,40}|\n){0,6}") {
            let text = text.replace('\r', "") + "\n";
            prop_assert_eq!(decode(&quoted_printable(&text)), text.into_bytes());
        }
    }
}
