//! Ports of the namespace on the host: published, reached, kept, refused.

use crate::Test;
use podsec_proto::v1::{AddPortRequest, Port, Protocol, RemovePortRequest};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CLUSTER, ROOT};
use podsec_tests::{client, host, role};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Child;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("ports::published_ports_are_reached", published_ports_are_reached),
    ("ports::udp_is_published_too", udp_is_published_too),
    ("ports::they_come_back_with_the_namespace", they_come_back_with_the_namespace),
    ("ports::while_the_namespace_is_down", while_the_namespace_is_down),
    ("ports::some_never_leave_the_namespace", some_never_leave_the_namespace),
    ("ports::busy_ports_are_refused", busy_ports_are_refused),
    ("ports::eight_at_once", eight_at_once),
    ("ports::the_kept_list_is_the_cluster_users", the_kept_list_is_the_cluster_users),
    ("ports::are_for_two_roles", are_for_two_roles),
];

const KEPT: &str = "/var/lib/u7s-admin/ports.json";

/// `podsecctl --json port …` as an administrator: whether something was changed.
fn port(arguments: &[&str]) -> bool {
    let told = people::ctl(ALICE, &[&["--json", "port"], arguments].concat());
    serde_json::from_str::<Value>(&told).unwrap()["changed"] == true
}

/// Host port, inside, published now, kept.
fn list() -> Vec<(u64, u64, bool, bool)> {
    let told: Value = serde_json::from_str(&people::ctl(CLUSTER, &["--json", "port", "list"])).unwrap();
    let ports = told["ports"].as_array().unwrap().iter();
    let row = |port: &Value| {
        let number = |key: &str| port[key].as_u64().unwrap();
        (number("host_port"), number("child_port"), port["active"] == true, port["kept"] == true)
    };
    ports.map(row).collect()
}

/// Exit status and reason of a command that fails.
fn fails(who: &str, arguments: &[&str]) -> (i32, String) {
    let output = role::setpriv(who, "/usr/bin/podsecctl").arg("--json").args(arguments).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_default();
    (output.status.code().unwrap(), told["error"]["reason"].as_str().unwrap_or_default().to_owned())
}

/// A Python program inside the namespace, until it is dropped.
struct Inside(Child);

impl Inside {
    fn start(program: &str) -> Self {
        let mut command = people::command(ALICE, "/usr/bin/podsecctl");
        Self(command.args(["enter", "--", "python3", "-c", program]).spawn().unwrap())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        host::kill(self.0.id() as i32, "TERM");
        let _ = self.0.wait();
    }
}

const WEB: &str = r#"
import http.server
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"from inside")
    def log_message(self, *_): pass
http.server.HTTPServer(("0.0.0.0", 8000), Hello).serve_forever()
"#;

const ECHO: &str = r#"
import socket
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", 8053))
while True:
    text, sender = echo.recvfrom(100)
    echo.sendto(text.upper(), sender)
"#;

/// What a web server there says, if somebody listens at all.
fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

fn published_ports_are_reached(oracle: &mut Oracle) {
    let _web = Inside::start(WEB);
    assert!(port(&["add", "--dry-run", "18080:8000"]));
    assert!(list().is_empty() && get("127.0.0.1:18080").is_none(), "a dry run did something");
    assert!(port(&["add", "18080:8000"]));
    host::wait_for("an answer from inside", || get("127.0.0.1:18080").as_deref() == Some("from inside"));
    assert_eq!(list(), [(18080, 8000, true, true)]);
    assert!(!port(&["add", "18080:8000"]), "it was there already");
    assert!(!port(&["add", "--dry-run", "18080:8000"]));
    // On one address only.
    assert!(port(&["add", "127.0.0.1:18081:8000"]));
    host::wait_for("an answer from inside", || get("127.0.0.1:18081").as_deref() == Some("from inside"));
    assert_eq!(get("127.0.0.2:18081"), None);
    let shown = people::ctl(ROOT, &["port", "list"]);
    assert!(shown.contains("127.0.0.1:18081:8000") && shown.contains("active"), "{shown}");
    for spec in ["18080:8000", "127.0.0.1:18081:8000"] {
        assert!(port(&["remove", "--dry-run", spec]) && list().iter().any(|(_, _, active, _)| *active));
        assert!(port(&["remove", spec]));
        assert!(!port(&["remove", spec]), "it was gone already");
    }
    assert_eq!(get("127.0.0.1:18080"), None);
    assert!(list().is_empty());
    let targets: Vec<_> = oracle
        .audit()
        .iter()
        .filter(|record| record["phase"] == "done" && record["op"] == "NamespaceService/AddPort")
        .map(|record| record["target"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        targets[..3],
        ["tcp 0.0.0.0:18080 -> 8000 (dry run)", "tcp 0.0.0.0:18080 -> 8000", "tcp 0.0.0.0:18080 -> 8000"]
    );
}

fn udp_is_published_too(_: &mut Oracle) {
    let _echo = Inside::start(ECHO);
    assert!(port(&["add", "18053:8053/udp"]));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut answer = [0; 100];
    host::wait_for("an answer from inside", || {
        let _ = socket.send_to(b"hello", "127.0.0.1:18053");
        socket.recv(&mut answer).is_ok_and(|length| &answer[..length] == b"HELLO")
    });
    assert!(port(&["remove", "18053:8053/udp"]));
}

fn they_come_back_with_the_namespace(_: &mut Oracle) {
    assert!(port(&["add", "18082:8000"]));
    assert!(port(&["add", "18083:8000"]));
    host::stop_namespace();
    assert_eq!(list(), [(18082, 8000, false, true), (18083, 8000, false, true)]);
    // One that is busy meanwhile does not keep the others back.
    let busy = TcpListener::bind("0.0.0.0:18082").unwrap();
    host::start_namespace();
    assert_eq!(list(), [(18082, 8000, false, true), (18083, 8000, true, true)]);
    drop(busy);
    let _web = Inside::start(WEB);
    host::wait_for("an answer from inside", || get("127.0.0.1:18083").as_deref() == Some("from inside"));
    // And can be published again.
    assert!(port(&["add", "18082:8000"]));
    assert_eq!(list(), [(18082, 8000, true, true), (18083, 8000, true, true)]);
    assert!(port(&["remove", "18082:8000"]) && port(&["remove", "18083:8000"]));
}

fn while_the_namespace_is_down(oracle: &mut Oracle) {
    assert!(port(&["add", "18084:8000"]));
    host::stop_namespace();
    let down = (78, "namespace-down".to_owned());
    assert_eq!(fails(ALICE, &["port", "add", "18085:8000"]), down);
    assert_eq!(fails(ALICE, &["port", "add", "--dry-run", "18085:8000"]), down);
    assert_eq!(list(), [(18084, 8000, false, true)]);
    assert!(port(&["remove", "18084:8000"]), "what is kept is forgotten all the same");
    assert!(list().is_empty());
    host::start_namespace();
    assert!(list().is_empty());
    let failed: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "fail").collect();
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|record| record["reason"] == "namespace-down"), "{failed:#?}");
}

fn some_never_leave_the_namespace(oracle: &mut Oracle) {
    let tcp = i32::from(Protocol::Tcp);
    let port = |host_address: &str, host_port, child_port, protocol| {
        Some(Port { protocol, host_address: host_address.into(), host_port, child_port })
    };
    let mut refused = vec![None, port("", 18086, 80, 0), port("", 18086, 80, 7)];
    for kept_inside in [2379, 2380, 10255] {
        refused.push(port("", kept_inside, 80, tcp));
        refused.push(port("", 18086, kept_inside, i32::from(Protocol::Udp)));
    }
    refused.extend([0, 1, 80, 1023, 65536, u32::MAX].map(|number| port("", number, 80, tcp)));
    refused.extend([0, 65536].map(|number| port("", 18086, number, tcp)));
    let addresses = [
        "localhost",
        "127.0.0.1\n",
        "127.0.0.01",
        "255.255.255.255",
        "224.0.0.1",
        "::ffff:127.0.0.1",
        "0x7f000001",
    ];
    refused.extend(addresses.map(|address| port(address, 18086, 80, tcp)));
    let count = refused.len();
    client::block_on(async {
        let mut service = client::namespace().await;
        for port in refused {
            let dry_run = false;
            let add = service.add_port(AddPortRequest { port: port.clone(), dry_run }).await.unwrap_err();
            let remove = service.remove_port(RemovePortRequest { port, dry_run }).await.unwrap_err();
            for status in [add, remove] {
                assert_eq!(
                    (status.code(), &*client::reason(&status)),
                    (tonic::Code::InvalidArgument, "bad-argument"),
                    "{status:?}"
                );
            }
        }
    });
    let records = oracle.audit();
    assert!(records.iter().all(|record| record["phase"] == "deny" && record["reason"] == "bad-argument"));
    assert_eq!(records.len(), 2 * count);
    // podsecctl says so before it asks anybody.
    for spec in [
        "2379:2379",
        "8080:10255",
        "80:80",
        "0:80",
        "65536:80",
        "8080",
        "x:80",
        "1.2.3.4.5:8080:80",
        "8080:80/sctp",
    ] {
        assert_eq!(fails(ALICE, &["port", "add", spec]), (2, "usage".into()), "{spec}");
    }
    assert_eq!(oracle.audit().len(), 2 * count);
    assert!(list().is_empty());
}

fn busy_ports_are_refused(oracle: &mut Oracle) {
    let busy = TcpListener::bind("0.0.0.0:18087").unwrap();
    assert_eq!(fails(ALICE, &["port", "add", "18087:8000"]), (78, "port-in-use".into()));
    assert!(list().is_empty(), "it is kept though it was refused");
    let record = oracle.audit().into_iter().find(|record| record["phase"] == "fail").expect("a record");
    assert_eq!((&record["reason"], &record["step"]), (&json!("port-in-use"), &json!("api")));
    drop(busy);
    assert!(port(&["add", "18087:8000"]));
    // The same host port to another place is busy by our own.
    assert_eq!(fails(ALICE, &["port", "add", "18087:8001"]), (78, "port-in-use".into()));
    assert_eq!(list(), [(18087, 8000, true, true)]);
    assert!(port(&["remove", "18087:8000"]));
}

fn eight_at_once(_: &mut Oracle) {
    let same: Vec<bool> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| port(&["add", "18090:8000"]))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(same.iter().filter(|&&changed| changed).count(), 1, "{same:?}");
    std::thread::scope(|scope| {
        for number in 18091..=18098 {
            scope.spawn(move || assert!(port(&["add", &format!("{number}:8000")])));
        }
    });
    assert_eq!(list(), (18090..=18098).map(|number| (number, 8000, true, true)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for number in 18090..=18098 {
            scope.spawn(move || assert!(port(&["remove", &format!("{number}:8000")])));
        }
    });
    assert!(list().is_empty());
}

/// The list is a file of the cluster user, who may have made anything of it. It is read and written as him.
fn the_kept_list_is_the_cluster_users(_: &mut Oracle) {
    let shadow = fs::read("/etc/shadow").unwrap();
    let _ = fs::remove_file(KEPT);
    for content in ["", "{", "[1]", "{\"version\":1,\"ports\":[{\"host_port\":2379}]}"] {
        fs::write(KEPT, content).unwrap();
        std::os::unix::fs::chown(KEPT, Some(fs_uid()), Some(fs_uid())).unwrap();
        let (status, _) = fails(ALICE, &["port", "list"]);
        assert_ne!(status, 0, "{content}");
        assert_ne!(fails(ALICE, &["port", "add", "18099:8000"]).0, 0, "{content}");
        assert_eq!(fs::read_to_string(KEPT).unwrap(), content, "damage was painted over");
    }
    fs::remove_file(KEPT).unwrap();
    for target in ["/etc/shadow", "/dev/zero", "/run/podsec-tests"] {
        std::os::unix::fs::symlink(target, KEPT).unwrap();
        let output = people::podsecctl(ALICE, &["port", "list"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !told.contains("root:"), "{told}");
        assert_ne!(fails(ALICE, &["port", "add", "18099:8000"]).0, 0);
        fs::remove_file(KEPT).unwrap();
    }
    assert_eq!(fs::read("/etc/shadow").unwrap(), shadow);
    assert!(list().is_empty());
}

/// The cluster user's uid.
fn fs_uid() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/var/lib/u7s-admin").unwrap().uid()
}

fn are_for_two_roles(oracle: &mut Oracle) {
    for arguments in [&["list"][..], &["add", "18100:8000"], &["remove", "18100:8000"]] {
        for who in ["7050", people::CAROL, people::ERIN] {
            let refused = fails(who, &[&["port"], arguments].concat());
            assert_eq!(refused, (77, "not-authorised".into()), "{who} {arguments:?}");
        }
    }
    let records = oracle.audit();
    assert_eq!(records.len(), 9);
    assert!(records.iter().all(|record| record["phase"] == "deny" && record["reason"] == "not-member"));
    assert!(list().is_empty());
}
