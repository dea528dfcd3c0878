//! Another client: Python's grpcio with nothing of ours but the descriptor set, and the bytes of docs/session.md.

use crate::Test;
use podsec_tests::host::{self, Configured};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CLUSTER, MALLORY};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("foreign::asks_who_it_is", asks_who_it_is),
    ("foreign::health", health),
    ("foreign::reflection_is_off_until_it_is_on", reflection_is_off_until_it_is_on),
    ("foreign::enters_by_hand", enters_by_hand),
    ("foreign::a_terminal_by_hand", a_terminal_by_hand),
    ("foreign::what_is_not_known_is_refused", what_is_not_known_is_refused),
];

/// Where everybody can read it.
const DIRECTORY: &str = "/run/podsec-foreign";
const SOCKET: &str = podsec_policy::config::SOCKET_PATH;

/// What it was answered, a line a word.
fn client(user: &str, words: &[&str]) -> Vec<Value> {
    let directory = Path::new(DIRECTORY);
    if !directory.exists() {
        std::fs::create_dir(directory).unwrap();
        std::fs::copy(host::top().join("tests/e2e/tools/foreign_client.py"), directory.join("client"))
            .unwrap();
        std::fs::write(directory.join("descriptors"), podsec_proto::DESCRIPTORS).unwrap();
        for (name, mode) in [(".", 0o755), ("client", 0o755), ("descriptors", 0o644)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.join(name), permissions).unwrap();
        }
    }
    let mut command = people::command(user, "/usr/bin/python3");
    command.arg(directory.join("client")).arg(SOCKET).arg(directory.join("descriptors")).args(words);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn asks_who_it_is(oracle: &mut Oracle) {
    let words = ["call", "IdentityService/WhoAmI", "{}", "call", "NamespaceService/Inspect", "{}"];
    let hers = client(ALICE, &words);
    let who = &hers[0]["answer"][0];
    assert_eq!((&who["uid"], &who["roles"]), (&json!(1101), &json!(["Administrator", "Anyone"])), "{who}");
    let state = &hers[1]["answer"][0];
    assert_eq!(state["state"], "NAMESPACE_STATE_READY", "{state}");
    assert_eq!(state["child_pid"], host::child_pid());
    let records =
        &client(ALICE, &["call", "AuditService/Query", r#"{"filter":{"phase":"done","uid":1101}}"#])[0];
    let last = records["answer"].as_array().unwrap().last().unwrap()["json"].as_str().unwrap();
    assert!(last.contains(r#""op":"NamespaceService/Inspect""#), "{last}");

    let his = client(MALLORY, &words);
    assert_eq!(his[0]["answer"][0]["operations"].as_array().unwrap().len(), 2, "{his:?}");
    let refusal = json!({
        "code": 7, "reason": "not-authorised", "domain": "podsec",
        "message": "not authorised: NamespaceService/Inspect is for Administrator or ClusterAdmin"
    });
    assert_eq!(his[1], refusal);
    assert_eq!(podsec_tests::oracle::the_denial(oracle)["reason"], "not-member");
}

fn health(oracle: &mut Oracle) {
    // SERVING is 1 (grpc/health/v1/health.proto); whoever it is may ask.
    let words = [
        "health",
        "",
        "health",
        "podsec.v1.NamespaceService",
        "health",
        "watch",
        "health",
        "no.such.Service",
    ];
    let answers = client(MALLORY, &words);
    let serving = json!({ "code": 0, "answer": "0801" });
    assert_eq!(answers[..3], [serving.clone(), serving.clone(), serving]);
    assert_eq!((&answers[3]["code"], &answers[3]["reason"]), (&json!(5), &json!("unknown-service")));
    assert_eq!(oracle.audit(), [] as [Value; 0]);
}

fn reflection_is_off_until_it_is_on(oracle: &mut Oracle) {
    // list_services is field 7 of the request, file_containing_symbol field 4 (grpc/reflection/v1/reflection.proto).
    let symbol = "podsec.v1.NamespaceService";
    let file: String = symbol.bytes().map(|byte| format!("{byte:02x}")).collect();
    let file = format!("22{:02x}{file}", symbol.len());
    let words = ["reflect", "3a00", "reflect", &file];
    for refusal in client(ALICE, &words) {
        assert_eq!(
            (&refusal["code"], &refusal["reason"]),
            (&json!(12), &json!("unknown-method")),
            "{refusal}"
        );
    }
    let denials: Vec<_> = oracle.audit().iter().map(|record| record["reason"].clone()).collect();
    assert_eq!(denials, ["unknown-method"; 2]);
    {
        let _on = Configured::with("reflection = true\n");
        let answers = client(ALICE, &words);
        let text = |answer: &Value| {
            let hex = answer["answer"][0].as_str().unwrap_or_else(|| panic!("{answer}"));
            let bytes = hex
                .as_bytes()
                .chunks(2)
                .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
            String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
        };
        let services = text(&answers[0]);
        for rule in podsec_policy::rules::RULES {
            assert!(services.contains(rule.path.split('/').next().unwrap()), "{services}");
        }
        assert!(text(&answers[1]).contains("EnterRequest"), "{answers:?}");
    }
    oracle.expect_new_daemon();
}

/// A request to enter in protobuf's JSON mapping, where bytes are base64.
fn request(script: &str, rest: Value) -> String {
    let argv: Vec<_> = ["sh", "-c", script].into_iter().map(base64).collect();
    let mut request = json!({ "command": { "argv": argv }, "cwd": base64("/") });
    request.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    request.to_string()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.as_bytes().chunks(3).map(|three| {
        let bits = three.iter().fold(0_usize, |bits, &byte| bits << 8 | usize::from(byte))
            << (8 * (3 - three.len()));
        let digit =
            |at: usize| if at > three.len() { '=' } else { DIGITS[bits >> (18 - 6 * at) & 63].into() };
        (0..4).map(digit).collect::<String>()
    });
    digits.collect()
}

fn enters_by_hand(oracle: &mut Oracle) {
    let script = "cat; id -u; readlink /proc/self/ns/user >&2; echo $WORD; exit 7";
    let env = json!({ "env": [{ "name": "WORD", "value": base64("from outside") }] });
    for person in [ALICE, CLUSTER] {
        let words = ["enter", &request(script, env.clone()), "in", "typed\n", "end"];
        let session = &client(person, &words)[0]["answer"];
        // Started; exited with code 7.
        assert_eq!(session["frames"], json!(["01", "030007"]), "{session}");
        assert_eq!(session["out"], "typed\n0\nfrom outside\n", "{session}");
        let host = std::fs::read_link("/proc/self/ns/user").unwrap();
        assert_ne!(session["err"].as_str().unwrap().trim_end(), host.to_str().unwrap());
    }
    // TERM (our number 3, the system's 15) for the program; and nothing of that name.
    let words = ["enter", &request("echo here; exec sleep 1000", json!({})), "signal", "3", "end"];
    let session = &client(ALICE, &words)[0]["answer"];
    assert_eq!(
        (&session["frames"], &session["out"]),
        (&json!(["01", "03010f"]), &json!("here\n")),
        "{session}"
    );
    let mut nothing: Value = serde_json::from_str(&request("", json!({}))).unwrap();
    nothing["command"]["argv"] = json!([base64("no-such-program")]);
    let words = ["enter", &nothing.to_string(), "end"];
    let session = &client(ALICE, &words)[0]["answer"];
    assert!(session["frames"][0].as_str().unwrap().starts_with("02"), "{session}");
    let outcomes: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] != "intent").collect();
    let told: Vec<_> =
        outcomes.iter().map(|record| (&record["phase"], &record["exit"], &record["reason"])).collect();
    let expected = json!([["done", 7, null], ["done", 7, null], ["done", 143, null], ["fail", null, "exec"]]);
    assert_eq!(json!(told), expected);
}

fn a_terminal_by_hand(oracle: &mut Oracle) {
    let terminal = json!({ "terminal": { "rows": 33, "columns": 111 } });
    let script = "stty size; tty; read line; echo \"got $line\"; exit 3";
    let words = ["enter", &request(script, terminal), "in", "typed\n", "end"];
    let session = &client(ALICE, &words)[0]["answer"];
    // Terminal, Started, exited with code 3.
    assert_eq!(session["frames"], json!(["00", "01", "030003"]), "{session}");
    let out = session["out"].as_str().unwrap();
    assert!(out.contains("33 111\r\n") && out.ends_with("got typed\r\n"), "{out:?}");
    assert_eq!(oracle.audit().last().unwrap()["exit"], 3);
}

fn what_is_not_known_is_refused(oracle: &mut Oracle) {
    const ENTER: &str = "podsec.v1.NamespaceService/Enter";
    // A valid one: command { argv: "true" }.
    let valid = "0a060a0474727565";
    let requests = [
        ("a field of tomorrow", ENTER, format!("{valid}7801")),
        ("one of the inside", ENTER, "0a080a04747275657801".to_owned()),
        ("the directory twice", ENTER, format!("{valid}1a012f1a012f")),
        ("both kinds of program", ENTER, format!("{valid}1200")),
        ("a number that is too long", ENTER, format!("{valid}7aff")),
        ("no protobuf", ENTER, "ffffff".to_owned()),
        ("half of it", ENTER, valid[..10].to_owned()),
        ("a field of another request", "podsec.v1.IdentityService/WhoAmI", "0a00".to_owned()),
        ("who I would like to be", "podsec.v1.IdentityService/WhoAmI", "0800".to_owned()),
        ("unknown to a check of health", "grpc.health.v1.Health/Check", "7801".to_owned()),
    ];
    let words: Vec<&str> =
        requests.iter().flat_map(|(_, method, hex)| ["bytes", *method, hex.as_str()]).collect();
    for ((what, ..), refusal) in requests.iter().zip(client(ALICE, &words)) {
        assert_eq!(
            (&refusal["code"], &refusal["reason"]),
            (&json!(3), &json!("protocol")),
            "{what}: {refusal}"
        );
        assert_eq!(refusal["domain"], "podsec");
    }
    let records = oracle.audit();
    assert_eq!(records.len(), requests.len(), "{records:#?}");
    for (record, (what, method, _)) in records.iter().zip(&requests) {
        assert_eq!((&record["phase"], &record["reason"]), (&json!("deny"), &json!("protocol")), "{what}");
        let op = if method.starts_with("grpc.") {
            "IdentityService/Health"
        } else {
            &method["podsec.v1.".len()..]
        };
        assert_eq!(record["op"], op, "{what}: {record}");
    }
}
