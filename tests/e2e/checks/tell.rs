//! Telling people: real podsec-monitor, on the ways that people have. Mail goes through the sendmail of the distribution's dma
//! into a mailbox; a web server and a logger are a few lines here.

use super::{SETTINGS, settings};
use crate::Test;
use podsec_policy::finding::{Check, Finding, Kind, Outcome, Report, Subject, Text, kinds};
use podsec_tests::host::{self, Edited, wait_for, within};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::command;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("checks::tell::the_log_has_each_finding_once", the_log_has_each_finding_once),
    ("checks::tell::a_logger_that_is_away_loses_nothing", a_logger_that_is_away_loses_nothing),
    ("checks::tell::the_journal_has_fields", the_journal_has_fields),
    ("checks::tell::a_mail_is_delivered_and_holds_no_header_of_others", a_mail_is_delivered),
    ("checks::tell::mail_that_fails_is_kept", mail_that_fails_is_kept),
    ("checks::tell::a_webhook_gets_all_and_no_secret_shows", a_webhook_gets_all),
    ("checks::tell::metrics_are_whole_at_every_moment", metrics_are_whole),
    ("checks::tell::news_are_told_while_it_follows", news_are_told_while_it_follows),
    ("checks::tell::it_is_one_user_who_tells", it_is_one_user_who_tells),
];

const MONITOR: &str = "podsec-monitor";
const PROGRAM: &str = "/usr/libexec/podsec/podsec-monitor";
const STATE: &str = "/var/lib/podsec-monitor";
const HOSTILE: &str =
    "x\nBcc: eve@example.org\n\n.\nFrom eve\r\x1b[31m\"} 1 $(touch /root/pwn) `id`\u{202e}ü";

/// No report and nothing told, before and after.
struct Monitored {
    _settings: Edited,
}

impl Monitored {
    fn with(text: &str) -> Self {
        clear();
        Self { _settings: settings(text) }
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        clear();
    }
}

fn clear() {
    for check in Check::ALL {
        let _ = fs::remove_file(format!("{STATE}/{}/report.json", check.name()));
    }
    for entry in fs::read_dir(format!("{STATE}/tell")).expect("tell").flatten() {
        fs::remove_file(entry.path()).expect("state");
    }
}

fn the_kind(check: Check) -> &'static Kind {
    kinds()
        .find(|kind| kind.check == check && kind.severity == podsec_policy::finding::Severity::Critical)
        .expect("a kind")
}

fn finding(check: Check, name: &str) -> Finding {
    Finding::new(the_kind(check), Subject::Container(Text::of(name)), name, name).of(name)
}

/// Puts a report where a check does, as the user who does.
fn put(report: &Report) {
    let path = format!("{STATE}/{}/report.json", report.check.name());
    let mut child = command(MONITOR, "/bin/sh")
        .args(["-c", "cat >\"$0.put\" && mv \"$0.put\" \"$0\"", &path])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    let written = serde_json::to_vec(report).expect("JSON");
    child.stdin.take().expect("a pipe").write_all(&written).expect("written");
    assert!(child.wait().expect("sh").success());
}

/// A report with these findings; each time is another one.
fn found(check: Check, names: &[&str]) -> Report {
    let mut report = Report::new(check);
    report.replace(1_700_000_000, Outcome::Complete, names.iter().map(|name| finding(check, name)));
    report
}

fn tell(channels: &[&str]) -> Output {
    Command::new(PROGRAM).arg("tell").args(channels).stdin(Stdio::null()).output().expect(PROGRAM)
}

fn told(channels: &[&str]) {
    let output = tell(channels);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn not_told(channels: &[&str]) -> String {
    let output = tell(channels);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The pause after a mail or a failure is over.
fn later(channel: &str) {
    let path = format!("{STATE}/tell/{channel}.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).expect(&path)).expect("JSON");
    state["pause"] = serde_json::json!([0, 0]);
    fs::write(&path, state.to_string()).expect(&path);
}

/// Listens where a logger does, for as long as this lives.
struct Logger(UnixDatagram, &'static str);

impl Logger {
    fn at(path: &'static str) -> Self {
        fs::create_dir_all(Path::new(path).parent().expect("a parent")).expect(path);
        let socket = UnixDatagram::bind(path).expect(path);
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect(path);
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        Self(socket, path)
    }

    /// All that came until now.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = [0; 65536];
        while let Ok(length) = self.0.recv(&mut line) {
            lines.push(String::from_utf8(line[..length].to_vec()).expect("UTF-8"));
        }
        lines
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        fs::remove_file(self.1).expect(self.1);
    }
}

fn the_log_has_each_finding_once(_: &mut Oracle) {
    let _settings = Monitored::with("");
    let logger = Logger::at("/dev/log");
    told(&[]);
    assert_eq!(logger.lines(), [""; 0]);
    put(&found(Check::Containers, &[HOSTILE, "web"]));
    told(&[]);
    let lines = logger.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for line in &lines {
        // authpriv (10) and critical (2)
        assert!(line.starts_with("<82>podsec-check-containers["), "{line}");
        assert!(
            line.len() <= 1024 && !line.chars().any(char::is_control) && !line.contains('\u{202e}'),
            "{line}"
        );
    }
    told(&[]);
    put(&found(Check::Containers, &["web", HOSTILE]));
    told(&[]);
    assert_eq!(logger.lines(), [""; 0]);
    put(&found(Check::Containers, &["web"]));
    told(&[]);
    let lines = logger.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(
        lines[0].starts_with("<86>podsec-check-containers[") && lines[0].contains("]: gone: "),
        "{lines:?}"
    );
    // A check that sees nothing has not found that all is well.
    let mut unknown = found(Check::Containers, &["web"]);
    unknown.replace(1_700_000_001, Outcome::Unknown { why: Text::of("no database") }, []);
    put(&unknown);
    told(&[]);
    let lines = logger.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("<84>") && lines[0].ends_with("does not see all: no database"), "{lines:?}");
    // Nor one whose report nobody can read.
    fs::write(format!("{STATE}/containers/report.json"), "{").expect("a report");
    assert!(not_told(&[]).contains("/containers/report.json: "));
    assert_eq!(logger.lines().len(), 1);
}

fn a_logger_that_is_away_loses_nothing(_: &mut Oracle) {
    let _settings = Monitored::with("");
    let names: Vec<_> = (0..1000).map(|number| format!("c{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    put(&found(Check::Containers, &names));
    assert!(not_told(&[]).contains("/dev/log: "));
    put(&found(Check::Containers, &[]));
    let mut lines = Vec::new();
    {
        // It comes back, and goes again in the middle.
        let logger = Logger::at("/dev/log");
        logger.0.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        later("log");
        let mut teller = Command::new(PROGRAM);
        let mut teller =
            teller.arg("tell").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect(PROGRAM);
        let mut line = [0; 4096];
        let mut take = || {
            let length = logger.0.recv(&mut line).expect("a line");
            String::from_utf8_lossy(&line[..length]).into_owned()
        };
        lines.extend(std::iter::repeat_with(&mut take).take(500));
        logger.0.shutdown(Shutdown::Read).expect("shut");
        lines.extend(std::iter::repeat_with(&mut take).take_while(|line| !line.is_empty()));
        let mut said = String::new();
        teller.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
        assert!(!teller.wait().expect("an end").success());
        assert!(
            lines.len() < 2000 && said.contains(&format!("{} wait", 2000 - lines.len())),
            "{}: {said}",
            lines.len()
        );
    }
    let logger = Logger::at("/dev/log");
    later("log");
    std::thread::scope(|scope| {
        let all = scope.spawn(|| logger.lines());
        told(&[]);
        lines.extend(all.join().expect("lines"));
    });
    let start = |line: &String| line.split_once("]: ").map(|(_, text)| text.to_owned());
    let all: BTreeSet<_> = lines.iter().filter_map(start).collect();
    let gone = all.iter().filter(|text| text.starts_with("gone: ")).count();
    assert_eq!((gone, all.len(), lines.len()), (1000, 2000, 2000));
}

fn the_journal_has_fields(_: &mut Oracle) {
    let _settings = Monitored::with("");
    {
        let journal = Logger::at("/run/systemd/journal/socket");
        let report = found(Check::Containers, &[HOSTILE]);
        put(&report);
        told(&[]);
        let lines = journal.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let fields: Vec<_> = lines[0].lines().map(|line| line.split_once('=').expect("a field")).collect();
        let names: BTreeSet<_> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), fields.len(), "{fields:#?}");
        let id = report.findings.keys().next().expect("a finding").as_str();
        for field in [
            ("PRIORITY", "2"),
            ("SYSLOG_FACILITY", "10"),
            ("SYSLOG_IDENTIFIER", "podsec-check-containers"),
            ("PODSEC_ID", id),
            ("PODSEC_EVENT", "new"),
            ("PODSEC_SEVERITY", "critical"),
            ("PODSEC_SUBJECT", Text::of(HOSTILE).as_str()),
        ] {
            assert!(fields.contains(&field), "{field:?} in {fields:#?}");
        }
    }
    fs::remove_dir("/run/systemd/journal").expect("the directory");
}

/// dma's, into a file of the distribution's.
const MAILBOX: &str = "/var/mail/root";

fn a_mail_is_delivered(_: &mut Oracle) {
    if !Path::new("/usr/sbin/sendmail").exists() {
        println!("left out: no sendmail here (tests/host/deps check)");
        return;
    }
    let _ = fs::remove_file(MAILBOX);
    let _settings = Monitored::with("[tell]\nmail = \"root\"\n");
    put(&found(Check::Containers, &[HOSTILE]));
    told(&["mail"]);
    let mailbox = || fs::read_to_string(MAILBOX).unwrap_or_default();
    within(Duration::from_secs(20), "a mail", || mailbox().contains("podsecctl check list"));
    let text = mailbox();
    let (head, body) = text.split_once("\n\n").expect("a head");
    let names: BTreeSet<_> =
        head.lines().filter_map(|line| line.split_once(": ").map(|(name, _)| name)).collect();
    let others: Vec<_> = names
        .iter()
        .filter(|name| {
            !["Received", "Date", "Message-Id", "From"].contains(name) && !name.starts_with("From ")
        })
        .collect();
    let ours =
        ["Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "MIME-Version", "Subject", "To"];
    assert_eq!(others, ours.iter().collect::<Vec<_>>(), "{head}");
    assert!(head.contains("\nSubject: podsec on throwaway: 1 new, worst critical; 0 gone\n"), "{head}");
    // One mail, to one.
    assert_eq!(text.lines().filter(|line| line.starts_with("From ")).count(), 1, "{text}");
    assert!(body.is_ascii() && body.lines().all(|line| line.len() <= 76), "{body}");
    assert!(
        body.replace("=\n", "").contains(r"x\x0aBcc: eve@example.org\x0a\x0a.\x0aFrom eve\x0d\x1b[31m"),
        "{body}"
    );
    // The next one an hour later, with all that came in between.
    put(&found(Check::Images, &["one"]));
    told(&["mail"]);
    put(&found(Check::Images, &["one", "two"]));
    told(&["mail"]);
    assert_eq!(mailbox(), text);
    later("mail");
    told(&["mail"]);
    within(Duration::from_secs(20), "a second mail", || {
        mailbox().contains(": 2 new, worst critical; 0 gone\n")
    });
    later("mail");
    told(&["mail"]);
    assert_eq!(mailbox().lines().filter(|line| line.starts_with("From ")).count(), 2);
    wait_for("dma to end", || {
        host::run(Command::new("/bin/sh").args(["-c", "pgrep -x dma || true"])).is_empty()
    });
    fs::remove_file(MAILBOX).expect(MAILBOX);
}

fn mail_that_fails_is_kept(_: &mut Oracle) {
    let directory = "/run/podsec-tests/mail";
    host::everybodys_directory(directory);
    // No mail system, but what it can do wrong.
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = '-t -i' ] || exit 64\n[ -e {directory}/up ] || exit 75\ncat >{directory}/mail\n"
    );
    let sendmail = host::shared(directory, "sendmail", script.as_bytes());
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).expect("mode");
    let _settings = Monitored::with(&format!(
        "[tell]\nmail = \"ops@example.org\"\nsendmail = \"{sendmail}\"\nmail_severity = \"high\"\n"
    ));
    put(&found(Check::Containers, &["first"]));
    let said = not_told(&["mail"]);
    assert!(said.contains("exit status 75") && said.contains("; 1 wait"), "{said}");
    // Not before the pause is over.
    fs::write(format!("{directory}/up"), "").expect("up");
    told(&["mail"]);
    assert!(!Path::new(&format!("{directory}/mail")).exists());
    put(&found(Check::Containers, &["second"]));
    later("mail");
    told(&["mail"]);
    let mail = fs::read_to_string(format!("{directory}/mail")).expect("a mail");
    for part in
        ["To: ops@example.org\n", ": 2 new, worst critical; 1 gone\n", "container first", "container second"]
    {
        assert!(mail.replace("=\n", "").contains(part), "{part}: {mail}");
    }
    fs::remove_dir_all(directory).expect(directory);
}

/// One request: its head, and its body; answered with that status.
fn serve(listener: &TcpListener, status: &str) -> (String, String) {
    let (stream, _) = listener.accept().expect("a connection");
    let mut reader = BufReader::new(stream);
    let (mut head, mut body) = (String::new(), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "{head}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let length = length.parse().expect("a number");
    if head.contains("Expect: 100-continue") {
        reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("sent");
    }
    reader.by_ref().take(length).read_to_string(&mut body).expect("a body");
    // curl waits, for everybody to see.
    let all = arguments_of_all();
    assert!(all.contains("/hook") && !all.contains("s3cret") && !all.contains("Bcc"), "{all}");
    let location = "Location: http://127.0.0.1:1/\r\n";
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{location}\r\n");
    reader.get_mut().write_all(answer.as_bytes()).expect("sent");
    (head, body)
}

fn arguments_of_all() -> String {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
}

fn a_webhook_gets_all(_: &mut Oracle) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let headers = "/etc/podsec/webhook.headers";
    fs::write(headers, "Authorization: Bearer s3cret\n").expect(headers);
    let _settings = Monitored::with(&format!(
        "[tell]\nwebhook = \"http://{address}/hook\"\nwebhook_headers = \"{headers}\"\n"
    ));
    let names: Vec<_> = (0..700).map(|number| format!("c{number}")).collect();
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    names.push(HOSTILE);
    put(&found(Check::Containers, &names));
    let serving = std::thread::spawn(move || {
        let answers = ["500 No", "302 Found", "204 Fine", "503 Busy", "200 Fine"];
        answers.map(|status| serve(&listener, status))
    });
    for why in ["500", "redirects", "503"] {
        let said = not_told(&["webhook"]);
        assert!(said.contains(why) && said.contains(" wait"), "{said}");
        told(&["webhook"]); // It waits.
        later("webhook");
    }
    told(&["webhook"]);
    let requests = serving.join().expect("five requests");
    for (head, _) in &requests {
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    }
    let events = |body: &String| {
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&body["host"], &body["left_out"]), (&"throwaway".into(), &0.into()));
        body["events"].as_array().expect("events").clone()
    };
    let batches: Vec<_> = requests.iter().map(|(_, body)| events(body)).collect();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500, 500, 201, 201]);
    let arrived: Vec<_> = [&batches[2][..], &batches[4][..]].concat();
    let subjects: BTreeSet<_> =
        arrived.iter().filter_map(|event| event["subject"]["name"].as_str()).collect();
    assert_eq!(subjects.len(), 701);
    assert!(subjects.contains(Text::of(HOSTILE).as_str()));
    assert!(arrived.iter().all(|event| event["event"] == "new" && event["severity"] == "critical"));
    // Without its token nothing is sent.
    fs::set_permissions(headers, fs::Permissions::from_mode(0o600)).expect("mode");
    put(&found(Check::Containers, &[]));
    assert!(not_told(&["webhook"]).contains("webhook.headers: Permission denied"));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    fs::remove_file(headers).expect(headers);
}

/// Strictly by the text format: its metrics with their values.
fn parse(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'), "torn: {text}");
    let mut of = String::new();
    let mut values = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            of = rest.split_once(' ').expect("a help").0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(name == of && ["gauge", "counter"].contains(&kind), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').expect("labels");
            assert_eq!(name, of, "{line}");
            for label in labels.strip_suffix('}').expect("an end").split(',') {
                let (name, value) = label.split_once("=\"").expect("a label");
                let value = value.strip_suffix('"').expect("quotes");
                let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase());
                assert!(plain(name) && plain(value), "{line}");
            }
            values.push((series.to_owned(), value.parse().expect("a number")));
        }
    }
    let series: BTreeSet<_> = values.iter().map(|(series, _)| series).collect();
    assert_eq!(series.len(), values.len(), "twice the same");
    values
}

fn metrics_are_whole(_: &mut Oracle) {
    let directory = "/run/podsec-tests/prometheus";
    fs::create_dir_all(directory).expect(directory);
    let _settings = Monitored::with(&format!("[tell]\nprometheus = \"{directory}\"\n"));
    put(&found(Check::Containers, &[HOSTILE]));
    assert!(not_told(&["prometheus"]).contains("podsec.prom: Permission denied"));
    host::run(Command::new("/bin/chown").args([MONITOR, directory]));
    told(&["prometheus"]);
    let path = format!("{directory}/podsec.prom");
    let mode = fs::metadata(&path).expect(&path).permissions().mode() & 0o777;
    assert_eq!(mode, 0o644);
    let read = || parse(&fs::read_to_string(&path).expect(&path));
    let count = read().len();
    let (done, read_in_between) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(read().len(), count);
                read_in_between.fetch_add(1, Ordering::Relaxed);
            }
        });
        for number in 0..20 {
            let name = number.to_string();
            put(&found(Check::Containers, &[&name, HOSTILE][..1 + number % 2]));
            told(&["prometheus"]);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().expect("whole files");
    });
    assert!(read_in_between.into_inner() > 20);
    let values = read();
    let value = |series: &str| values.iter().find(|(name, _)| name == series).map(|(_, value)| *value);
    assert_eq!(value(r#"podsec_findings{check="containers",severity="critical"}"#), Some(2.0));
    assert_eq!(value(r#"podsec_findings{check="containers",severity="high"}"#), Some(0.0));
    assert_eq!(
        value(r#"podsec_check_last_run_timestamp_seconds{check="containers"}"#),
        Some(1_700_000_000.0)
    );
    assert_eq!(value(r#"podsec_check_state{check="containers",state="complete"}"#), Some(1.0));
    assert_eq!(value(r#"podsec_check_state{check="policy",state="never"}"#), Some(1.0));
    let names: Vec<_> =
        fs::read_dir(directory).expect(directory).flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["podsec.prom"]);
    fs::remove_dir_all(directory).expect(directory);
}

fn news_are_told_while_it_follows(_: &mut Oracle) {
    let _settings = Monitored::with("");
    let logger = Logger::at("/dev/log");
    let mut teller =
        Command::new(PROGRAM).args(["tell", "--follow", "log"]).stdin(Stdio::null()).spawn().expect(PROGRAM);
    let mut lines = Vec::new();
    for names in [&["one"][..], &["one", "two"], &[]] {
        put(&found(Check::KubeApi, names));
        let before = lines.len();
        wait_for("a line", || {
            lines.extend(logger.lines());
            lines.len() > before
        });
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
    // What it uses between two looks.
    let statm = fs::read_to_string(format!("/proc/{}/statm", teller.id())).expect("statm");
    println!("{} pages are resident", statm.split(' ').nth(1).expect("a number"));
    teller.kill().expect("killed");
    teller.wait().expect("an end");
}

fn it_is_one_user_who_tells(_: &mut Oracle) {
    let _settings = Monitored::with("");
    let _logger = Logger::at("/dev/log");
    let output = command("mallory", PROGRAM).arg("tell").output().expect(PROGRAM);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("podsec-monitor or root"), "{output:?}");
    let output = command(MONITOR, PROGRAM).arg("tell").output().expect(PROGRAM);
    assert!(output.status.success(), "{output:?}");
    assert!(
        command("mallory", "/bin/ls")
            .arg(format!("{STATE}/tell"))
            .output()
            .is_ok_and(|output| !output.status.success())
    );
    // What root starts is not root, and leaves nothing of root's.
    told(&[]);
    let states = fs::read_dir(format!("{STATE}/tell")).expect("tell").flatten();
    assert!(states.map(|entry| entry.metadata().expect("a state").uid()).all(|uid| uid != 0));
    assert!(not_told(&["fax"]).contains("fax: no way to tell people"));
    // Settings with a mistake tell nobody that all is well.
    fs::write(SETTINGS, "[tell]\nmail = \"root, eve\"\n").expect(SETTINGS);
    assert!(not_told(&[]).contains("monitor.toml"));
}
