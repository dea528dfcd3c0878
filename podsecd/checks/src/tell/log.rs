//! The log: journald where it is, syslogd elsewhere, with the facility for what concerns security (authpriv, 10) and the
//! severity's priority.
//!
//! Formats: systemd.io/JOURNAL_NATIVE_PROTOCOL; RFC 3164 without a time, which whoever receives it then adds (4.3.3): this
//! process does not know the local one.

use super::news::{Event, News};
use std::fmt::Write as _;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
/// authpriv
const FACILITY: u8 = 10;
/// Bytes of a line for syslogd, RFC 3164 4.1.
const LONGEST: usize = 1024;
/// A logger that does not take a line in this time takes it another time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Logs one after the other, and takes those out of `news`.
///
/// # Errors
/// says which logger cannot be reached
pub fn deliver(left_out: u64, news: &mut Vec<News>) -> Result<(), String> {
    let journal = Path::new(JOURNAL).exists();
    let path = if journal { JOURNAL } else { SYSLOG };
    let connect = || {
        let logger = UnixDatagram::unbound()?;
        logger.set_write_timeout(Some(PATIENCE))?;
        logger.connect(path)?;
        Ok(logger)
    };
    let wrong = |error: io::Error| format!("{path}: {error}");
    let logger = connect().map_err(wrong)?;
    let form = if journal { datagram } else { line };
    let mut done = 0;
    let result = news.iter().try_for_each(|news| {
        logger.send(form(&news.event).as_bytes())?;
        done += 1;
        Ok(())
    });
    news.drain(..done);
    result.map_err(wrong)?;
    if left_out > 0 {
        let text =
            format!("{left_out} findings were not logged: too many; all that are left: podsecctl check list");
        let text = if journal {
            format!(
                "MESSAGE={text}\nPRIORITY=4\nSYSLOG_IDENTIFIER=podsec-check\nSYSLOG_FACILITY={FACILITY}\n"
            )
        } else {
            tagged(4, "podsec-check", &text)
        };
        logger.send(text.as_bytes()).map_err(wrong)?;
    }
    Ok(())
}

/// For journald: what was found as `PODSEC_` fields. No value holds a line break: all that others chose has been escaped.
fn datagram(event: &Event) -> String {
    let check = event.check().name();
    let mut text = format!(
        "MESSAGE={}\nPRIORITY={}\nSYSLOG_IDENTIFIER=podsec-check-{check}\nSYSLOG_FACILITY={FACILITY}\n",
        event.line(),
        event.priority()
    );
    let mut field = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "PODSEC_{name}={value}");
        }
    };
    field("CHECK", check);
    field("EVENT", event.name());
    if let Some(finding) = event.finding() {
        field("ID", &finding.id());
        field("CODE", finding.kind.code);
        field("SEVERITY", finding.severity.name());
        field("WEIGHT", &finding.weight.to_string());
        field("SUBJECT_KIND", finding.subject.kind());
        field("SUBJECT", finding.subject.name());
        field("OWNER", finding.owner.as_str());
        field("PLACE", finding.place.as_str());
        field("DETAIL", finding.detail.as_str());
        field("REMEDY", finding.kind.remedy);
    }
    text
}

/// For syslogd.
fn line(event: &Event) -> String {
    tagged(event.priority(), &format!("podsec-check-{}", event.check().name()), &event.line())
}

fn tagged(priority: u8, tag: &str, text: &str) -> String {
    const CUT: &str = "…";
    let mut line = format!("<{}>{tag}[{}]: {text}", FACILITY * 8 + priority, std::process::id());
    if line.len() > LONGEST {
        let end = (0..=LONGEST - CUT.len()).rev().find(|&end| line.is_char_boundary(end));
        line.truncate(end.unwrap_or(0));
        line += CUT;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Check, Finding, Found, Subject, Text, kinds};

    fn event(name: &[u8]) -> Event {
        let kind = kinds().find(|kind| kind.code == "container-wrote-program").unwrap();
        let finding = Finding::new(kind, Subject::Container(Text::of(name)), name, name).of("amy");
        Event::New(Box::new(Found { finding, first: 1, last: 1, count: 1 }))
    }

    #[test]
    fn nobody_writes_a_field_or_a_line_of_his_own() {
        for name in [&b"x\nPRIORITY=0\n"[..], b"\x1b[31m", &[0xff; 1 << 20], "\u{2028}\u{85}".as_bytes()] {
            let Event::New(found) = event(name) else { panic!() };
            let datagram = datagram(&event(name));
            let names: Vec<_> = datagram.lines().map(|line| line.split_once('=').unwrap().0).collect();
            let expected = "MESSAGE PRIORITY SYSLOG_IDENTIFIER SYSLOG_FACILITY PODSEC_CHECK PODSEC_EVENT PODSEC_ID PODSEC_CODE \
                PODSEC_SEVERITY PODSEC_WEIGHT PODSEC_SUBJECT_KIND PODSEC_SUBJECT PODSEC_OWNER PODSEC_PLACE PODSEC_DETAIL \
                PODSEC_REMEDY";
            assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
            assert!(
                datagram.contains(
                    "\nPRIORITY=2\nSYSLOG_IDENTIFIER=podsec-check-containers\nSYSLOG_FACILITY=10\n"
                )
            );
            let line = line(&event(name));
            assert!(line.len() <= LONGEST && !line.chars().any(char::is_control), "{line}");
            assert!(line.starts_with("<82>podsec-check-containers["), "{line}");
            assert!(line.contains(&found.finding.id()), "{line}");
        }
    }

    #[test]
    fn good_news_are_informational() {
        let gone = Event::Gone(Box::new(event(b"x").finding().unwrap().clone()));
        assert!(line(&gone).starts_with("<86>"));
        assert!(line(&Event::Sees(Check::Policy)).starts_with("<86>podsec-check-policy["));
        assert!(line(&Event::Blind(Check::Policy, Text::of("x"))).starts_with("<84>"));
    }
}
