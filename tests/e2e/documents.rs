//! The documents by which images are trusted, judged by those who read them on a host: what podsec-policy takes, skopeo
//! takes; what skopeo refuses, podsec-policy refuses. Where the two differ on purpose, it says so beside the document.

use crate::Test;
use podsec_policy::containers::hosts::{self, Block};
use podsec_policy::containers::policy_json::{Policy, Requirement};
use podsec_policy::containers::registries_conf::{RegistriesConf, Registry};
use podsec_policy::containers::registries_d::{Lookaside, RegistriesD};
use podsec_tests::host::Edited;
use podsec_tests::oracle::Oracle;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("documents::", stringify!($test)), $test),)*];
    };
}

tests! {
    policies
    what_a_policy_decides
    lookasides
    where_signatures_are_looked_for
    registries
    where_images_are_fetched
    names_of_hosts
}

/// Who takes a document.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    Both,
    Neither,
    /// We do, and skopeo since this version.
    Since(u32, u32),
    /// skopeo only, and why we do not.
    Skopeo(&'static str),
}
use Takes::{Both, Neither, Since, Skopeo};

/// A directory for a test, removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let directory = PathBuf::from("/run/podsec-documents");
        fs::create_dir(&directory).unwrap();
        let scratch = Self(directory);
        scratch.registries("");
        scratch
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// As a drop-in of the user whose home this is, who has a registries.conf of his own, which is empty.
    fn registries(&self, text: impl AsRef<[u8]>) {
        let directory = self.0.join(".config/containers/registries.conf.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.with_file_name("registries.conf"), "").unwrap();
        fs::write(directory.join("podsec.conf"), text).unwrap();
    }

    fn empty_directory(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// With none of the host's own documents but those that are given to it.
fn skopeo(scratch: &Scratch) -> Command {
    let mut command = Command::new("/usr/bin/skopeo");
    command.env_clear().env("HOME", &scratch.0);
    command
}

/// Whether it went well, and what was said.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn version() -> (u32, u32) {
    let output = Command::new("/usr/bin/skopeo").arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers =
        text.rsplit(' ').next().unwrap().split('.').map(|number| number.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// `theirs` tells whether skopeo takes a document, `ours` whether podsec-policy does.
fn compare(
    documents: &[(Takes, &str)],
    ours: impl Fn(&str) -> Result<(), String>,
    theirs: impl Fn(&str) -> Result<(), String>,
) {
    let version = version();
    let mut wrong = String::new();
    for (takes, text) in documents {
        let expected = match takes {
            Both => (true, true),
            Neither => (false, false),
            Since(major, minor) => (true, version >= (*major, *minor)),
            Skopeo(why) => (false, !why.is_empty()),
        };
        let (ours, theirs) = (ours(text), theirs(text));
        if (ours.is_ok(), theirs.is_ok()) != expected {
            writeln!(wrong, "{takes:?} {text}\n    podsec: {ours:?}\n    skopeo: {theirs:?}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// In place of words that begin with `$`: requirements and what is in them.
fn filled(text: &str) -> String {
    [
        ("$default", "\"default\":[{\"type\":\"reject\"}]"),
        ("$signed", "\"type\":\"signedBy\",\"keyType\":\"GPGKeys\""),
        ("$sigstore", "\"type\":\"sigstoreSigned\""),
        ("$key", "\"keyData\":\"mQENBA==\""),
        ("$fulcio", "\"fulcio\":{\"caPath\":\"/c\",\"oidcIssuer\":\"https://i\",\"subjectEmail\":\"a@b\"}"),
        ("$rekor", "\"rekorPublicKeyData\":\"AAAA\""),
        ("$digest", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (word, meaning)| text.replace(word, meaning))
}

/// A whole document begins with `{"`, a requirement with `{`, and the rest with a word of its own.
const POLICIES: &[(Takes, &str)] = &[
    // the document
    (Both, r#"{$default}"#),
    (Both, r#"{$default,"transports":{}}"#),
    (Both, r#"{"transports":{"docker":{}},$default}"#),
    (Both, " {\n\t$default }\r\n\n"),
    (Both, r#"{"d\u0065fault":[{"type":"insecureAcceptAnything"}]}"#),
    (Neither, ""),
    (Neither, "\u{feff}{$default}"),
    (Neither, "null"),
    (Neither, "[]"),
    (Neither, "{}"),
    (Neither, r#"{$default"#),
    (Neither, r#"{$default}}"#),
    (Neither, r#"{$default}{$default}"#),
    (Neither, r#"{$default,}"#),
    (Neither, r#"{$default} // comment"#),
    (Neither, r#"{$default,"x":1}"#),
    (Neither, r#"{$default,"Transports":{}}"#),
    (Neither, r#"{"Default":[{"type":"reject"}]}"#),
    (Neither, r#"{$default,"d\u0065fault":[{"type":"insecureAcceptAnything"}]}"#),
    (Neither, r#"{$default,"transports":{},"transports":{}}"#),
    (Neither, r#"{$default,"transports":null}"#),
    (Neither, r#"{$default,"transports":[]}"#),
    (Neither, r#"{$default,"transports":{"docker":null}}"#),
    (Neither, r#"{$default,"transports":{"docker":{},"docker":{}}}"#),
    (Neither, r#"{$default,"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}"#),
    (Neither, r#"{$default,"transports":{"docker":{"":[]}}}"#),
    (Neither, r#"{$default,"transports":{"docker":{"":null}}}"#),
    (Neither, r#"{"transports":{"docker":{"":[{"type":"reject"}]}}}"#),
    (Neither, r#"{"default":{"type":"reject"}}"#),
    (Neither, r#"{"default":"reject"}"#),
    (Neither, r#"{"default":[]}"#),
    (Neither, r#"{"default":null}"#),
    (Neither, r#"{"default":[null]}"#),
    (Neither, r#"{"default":[[]]}"#),
    (Neither, r#"{"default":["reject"]}"#),
    (Skopeo("not JSON (RFC 8259 §8.1)"), r#"{$default,"transports":{"\ud800":{}}}"#),
    // scopes
    (Both, r#"scope docker a.b"#),
    (Both, r#"scope docker *.a.b"#),
    (Both, r#"scope docker a.b:5000/c/d:tag"#),
    (Both, r#"scope docker nothing like/this"#),
    (Both, r#"scope unheard-of /"#),
    (Both, r#"scope dir /a/b"#),
    (Both, r#"scope oci /a:tag"#),
    (Both, r#"scope docker-daemon a.b/c"#),
    (Both, r#"scope atomic h:1/ns/s:tag"#),
    (Neither, r#"scope dir /"#),
    (Neither, r#"scope dir a"#),
    (Neither, r#"scope dir /a/"#),
    (Neither, r#"scope dir /a/../b"#),
    (Neither, r#"scope oci a:tag"#),
    (Neither, r#"scope oci-archive /a//b"#),
    (Neither, r#"scope docker-archive /a"#),
    (Neither, r#"scope tarball /a"#),
    (Neither, r#"scope docker-daemon $digest"#),
    (Skopeo("of no use to podsec"), r#"scope containers-storage [overlay@/var/lib/x]a.b/c"#),
    // requirements
    (Both, r#"{"type":"insecureAcceptAnything"}"#),
    (Both, r#"{"type":"reject"},{"type":"reject"}"#),
    (Neither, r#"{"type":"Reject"}"#),
    (Neither, r#"{"Type":"reject"}"#),
    (Neither, r#"{"type":"reject","type":"reject"}"#),
    (Neither, r#"{"type":"reject","keyPath":"/k"}"#),
    (Neither, r#"{"type":null}"#),
    (Neither, r#"{"type":["reject"]}"#),
    (Neither, r#"{}"#),
    (Neither, r#"{"type":"insecureAcceptAnything"},{"type":"accept"}"#),
    (Skopeo("no image passes it"), r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#),
    // keys of signedBy
    (Both, r#"{$signed,$key}"#),
    (Both, r#"{$signed,"keyPath":"/k"}"#),
    (Both, r#"{$signed,"keyPath":"relative"}"#),
    (Both, r#"{$signed,"keyPaths":["/k","/l"]}"#),
    (Neither, r#"{$signed}"#),
    (Neither, r#"{$signed,$key,"keyPath":"/k"}"#),
    (Neither, r#"{$signed,$key,"keyPath":null}"#),
    (Neither, r#"{$signed,$key,"keyPaths":["/k"]}"#),
    (Neither, r#"{$signed,$key,$key}"#),
    (Neither, r#"{$signed,"keyPath":""}"#),
    (Neither, r#"{$signed,"keyPath":["/k"]}"#),
    (Neither, r#"{$signed,"keyPaths":"/k"}"#),
    (Neither, r#"{$signed,"keyPaths":null}"#),
    (Neither, r#"{$signed,"keyData":"mQENBA"}"#),
    (Neither, r#"{$signed,"keyData":"mQEN-_=="}"#),
    (Neither, r#"{$signed,"keyData":"-----BEGIN PGP PUBLIC KEY BLOCK-----"}"#),
    (Neither, r#"{$signed,"keyData":null}"#),
    (Neither, r#"{$signed,"keyData":1}"#),
    (Neither, r#"{$signed,"keyDatas":["mQENBA=="]}"#),
    (Neither, r#"{$signed,$key,"keyTypes":1}"#),
    (Neither, r#"{"type":"signedBy",$key}"#),
    (Neither, r#"{"type":"signedBy","keyType":"PGP",$key}"#),
    (Neither, r#"{"type":"signedBy","keyType":null,$key}"#),
    (Skopeo("no image passes it"), r#"{"type":"signedBy","keyType":"X509Certificates",$key}"#),
    (Skopeo("no key, no image"), r#"{$signed,"keyPaths":[]}"#),
    (Skopeo("no key, no image"), r#"{$signed,"keyData":""}"#),
    (Skopeo("names no file"), r#"{$signed,"keyPaths":[null]}"#),
    (Skopeo("not canonical (RFC 4648 §3.5)"), r#"{$signed,"keyData":"mQENBB=="}"#),
    (Skopeo("not canonical (RFC 4648 §3.3)"), r#"{$signed,"keyData":"mQEN\nBA=="}"#),
    (Skopeo("a quirk of its JSON reader"), r#"{$signed,"keyData":[1,2]}"#),
    // keys of sigstoreSigned
    (Both, r#"{$sigstore,$key}"#),
    (Both, r#"{$sigstore,"keyPath":"/k"}"#),
    (Since(1, 11), r#"{$sigstore,$key,$rekor}"#),
    (Since(1, 11), r#"{$sigstore,$fulcio,$rekor}"#),
    (Since(1, 16), r#"{$sigstore,"keyPaths":["/k"]}"#),
    (Since(1, 16), r#"{$sigstore,"keyDatas":["AAAA"]}"#),
    (Since(1, 16), r#"{$sigstore,$key,"rekorPublicKeyPaths":["/r"]}"#),
    (Since(1, 18), r#"{$sigstore,"pki":{"caRootsPath":"/c","subjectHostname":"h"}}"#),
    (Neither, r#"{$sigstore}"#),
    (Neither, r#"{$sigstore,"keyType":"GPGKeys",$key}"#),
    (Neither, r#"{$sigstore,$key,"keyPath":"/k"}"#),
    (Neither, r#"{$sigstore,$key,$fulcio,$rekor}"#),
    (Neither, r#"{$sigstore,$fulcio}"#),
    (Neither, r#"{$sigstore,$rekor}"#),
    (Neither, r#"{$sigstore,$key,"x":1}"#),
    (Neither, r#"{$sigstore,"pki":{"caRootsPath":"/c"}}"#),
    // identities
    (Both, r#"identity {"type":"matchExact"}"#),
    (Both, r#"identity {"type":"matchRepoDigestOrExact"}"#),
    (Both, r#"identity {"type":"matchRepository"}"#),
    (Both, r#"identity {"type":"exactReference","dockerReference":"a.b/c:1"}"#),
    (Both, r#"identity {"type":"exactReference","dockerReference":"busybox:1"}"#),
    (Both, r#"identity {"type":"exactReference","dockerReference":"a.b/c@$digest"}"#),
    (Both, r#"identity {"type":"exactRepository","dockerRepository":"a.b/c"}"#),
    (Both, r#"identity {"type":"exactRepository","dockerRepository":"localhost/c__d/e-f.g"}"#),
    (Both, r#"identity {"type":"remapIdentity","prefix":"a.b:5000","signedPrefix":"c.d/e/f"}"#),
    (Both, r#"identity {"type":"remapIdentity","prefix":"A-b","signedPrefix":"c"}"#),
    (Neither, r#"identity null"#),
    (Neither, r#"identity "matchExact""#),
    (Neither, r#"identity {}"#),
    (Neither, r#"identity {"type":"matchAnything"}"#),
    (Neither, r#"identity {"type":"matchExact","x":1}"#),
    (Neither, r#"identity {"type":"matchExact","type":"matchExact"}"#),
    (Neither, r#"identity {"type":"exactReference"}"#),
    (Neither, r#"identity {"type":"exactReference","dockerReference":"a.b/c"}"#),
    (Neither, r#"identity {"type":"exactReference","dockerReference":"a.b/C:1"}"#),
    (Neither, r#"identity {"type":"exactReference","dockerReference":"a.b/c:"}"#),
    (Neither, r#"identity {"type":"exactReference","dockerReference":"a.b/c@sha256:00"}"#),
    (Neither, r#"identity {"type":"exactReference","dockerReference":"a.b/c:1","dockerRepository":"a.b/c"}"#),
    (Neither, r#"identity {"type":"exactRepository","dockerRepository":""}"#),
    (Neither, r#"identity {"type":"exactRepository","dockerRepository":"a.b/../c"}"#),
    (Neither, r#"identity {"type":"exactRepository","dockerReference":"a.b/c"}"#),
    (Neither, r#"identity {"type":"remapIdentity","prefix":"a.b"}"#),
    (Neither, r#"identity {"type":"remapIdentity","prefix":"a.b/","signedPrefix":"c.d"}"#),
    (Neither, r#"identity {"type":"remapIdentity","prefix":"a.b/c:1","signedPrefix":"c.d"}"#),
    (Neither, r#"identity {"type":"remapIdentity","prefix":"","signedPrefix":"c.d"}"#),
];

/// The document of a line of [`POLICIES`].
fn policy(text: &str) -> String {
    let whole = |requirements: &str| format!("{{\"default\":[{requirements}]}}");
    let text = match text.split_once(' ') {
        Some(("scope", rest)) => {
            let (transport, scope) = rest.split_once(' ').unwrap();
            format!(
                "{{$default,\"transports\":{{\"{transport}\":{{\"{scope}\":[{{\"type\":\"reject\"}}]}}}}}}"
            )
        }
        Some(("identity", identity)) => whole(&format!("{{$signed,$key,\"signedIdentity\":{identity}}}")),
        _ if ["{$signed", "{$sigstore", "{\"type", "{\"Type"].iter().any(|start| text.starts_with(start)) => {
            whole(text)
        }
        _ => text.to_owned(),
    };
    filled(&text)
}

fn policies(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let judged_by_skopeo = |text: &str| {
        let file = scratch.file("policy.json", policy(text));
        let mut command = skopeo(&scratch);
        let (_, said) =
            said(command.arg("--policy").arg(file).args(["copy", "dir:/nowhere", "dir:/nowhere2"]));
        // It reads the policy first, and then looks for an image that is not there.
        assert_ne!(said.contains("invalid policy"), said.contains("/nowhere/manifest.json"), "{said}");
        if said.contains("invalid policy") { Err(said) } else { Ok(()) }
    };
    let ours = |text: &str| {
        let read = Policy::parse(policy(text).as_bytes()).map_err(|error| error.to_string())?;
        // And what we write is the same to skopeo.
        let file = scratch.file("written.json", read.render());
        assert_eq!(Policy::parse(&fs::read(file).unwrap()), Ok(read));
        Ok(())
    };
    compare(POLICIES, ours, judged_by_skopeo);
    // Bytes that are not UTF-8: skopeo takes them for U+FFFD, and so another scope for the same.
    assert!(Policy::parse(b"{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"\xff\":{}}}").is_err());
}

// ---- a registry, and who is asked for what

/// An image without layers.
const CONFIG: &str = "{}";

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn manifest() -> String {
    let (kind, digest) = ("application/vnd.oci.image", digest(CONFIG));
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{kind}.manifest.v1+json\",\"layers\":[],\"config\":\
         {{\"mediaType\":\"{kind}.config.v1+json\",\"size\":2,\"digest\":\"{digest}\"}}}}"
    )
}

/// Answers whoever asks for an image with the same one, for as long as the tests run.
struct Server {
    port: u16,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let paths = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&paths);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { continue };
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                let unknown = "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}";
                let (status, body) = match &path {
                    path if path == "/v2/" || path.contains("/blobs/") => ("200 OK", CONFIG.to_owned()),
                    path if path.contains("/manifests/sha256-") => ("404 Not Found", unknown.to_owned()),
                    path if path.contains("/manifests/") => ("200 OK", manifest()),
                    _ => ("404 Not Found", String::new()),
                };
                log.lock().unwrap().push(path);
                let kind = "application/vnd.oci.image.manifest.v1+json";
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { port, paths }
    }

    /// What was asked for since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.paths.lock().unwrap())
    }
}

fn accept_all() -> Vec<u8> {
    Policy { default: vec![Requirement::InsecureAcceptAnything], ..Policy::reject_all() }.render()
}

/// Rejects in one scope only, and so finds out for which images skopeo looks there.
fn what_a_policy_decides(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let (scratch, server) = (Scratch::new(), Server::start());
    let (host, digest) = (format!("127.0.0.1:{}", server.port), digest(&manifest()));
    let in_order = [
        format!("{host}/team/app:1"),
        format!("{host}/team/app@{digest}"),
        format!("{host}/team/app"),
        format!("{host}/team"),
        host.clone(),
        "*.0.0.1".to_owned(),
        "*.1".to_owned(),
        String::new(),
        // Of nobody: a name's beginning, a host without its port.
        format!("{host}/tea"),
        "127.0.0.1".to_owned(),
    ];
    let images = ["team/app:1", "team/app", "team/app:2", "team/apps:1", "teams/app", "app"]
        .map(|image| format!("{host}/{image}"))
        .into_iter()
        .chain([format!("{host}/team/app@{digest}")]);
    let mut decided = Vec::new();
    for image in images {
        // The first ones less and less, so that each of the rest comes to decide.
        for first in 0..in_order.len() {
            let mut policy = Policy::reject_all();
            let accepting = |scope: &String| (scope.clone(), vec![Requirement::InsecureAcceptAnything]);
            let scopes: BTreeMap<_, _> = in_order[first..].iter().map(accepting).collect();
            policy.transports.insert("docker".to_owned(), scopes);
            let ours = policy.decide(&image).0.map(str::to_owned);
            if let Some(scope) = &ours {
                policy.transports.get_mut("docker").unwrap().insert(scope.clone(), vec![Requirement::Reject]);
                // All others accept, the default too.
                policy.default = vec![Requirement::InsecureAcceptAnything];
            }
            let file = scratch.file("policy.json", policy.render());
            let to = scratch.empty_directory("image");
            let mut command = skopeo(&scratch);
            command.arg("--policy").arg(file).args(["copy", "--src-tls-verify=false"]);
            let (copied, said) =
                said(command.arg(format!("docker://{image}")).arg(format!("dir:{}", to.display())));
            // Without a scope, it is the default that rejects.
            assert!(!copied && said.contains("rejected by policy"), "{image} in {ours:?}: {said}");
            decided.extend(ours);
        }
    }
    decided.sort();
    decided.dedup();
    assert_eq!(decided.len(), 8, "scopes that decided: {decided:?}");
}

// ---- containers-registries.d(5)

const LOOKASIDES: &[(Takes, &str)] = &[
    (Both, ""),
    (Both, "# nothing\n"),
    (Both, "---\n"),
    (Both, "{}\n"),
    (Both, "docker:\n"),
    (Both, "default-docker: ~\ndocker: {}\n"),
    (Both, "default-docker:\n    lookaside-staging: file:///var/lib/containers/sigstore\n"),
    (Both, "docker:\n  a.b:\n    lookaside: https://c.d/e\n    use-sigstore-attachments: true\n"),
    (
        Both,
        "docker:\n  127.0.0.1:5000:\n    sigstore: \"http://c.d:80\"\n    sigstore-staging: 'file:///x'\n",
    ),
    (Both, "{\"docker\": {\"a.b/c:tag\": {\"lookaside\": \"https://c.d\"}}}\n"),
    (Both, "docker:\n  \"a\\u002eb\": {}\n"),
    (Neither, "- docker\n"),
    (Neither, "docker\n"),
    (Neither, "docker: a.b\n"),
    (Neither, "docker: [a.b]\n"),
    (Neither, "docker:\n  a.b: c\n"),
    (Neither, "docker:\n  a.b: {lookaside: [x]}\n"),
    (Neither, "docker:\n  a.b: {lookaside: {}}\n"),
    (Neither, "docker:\n  a.b: {use-sigstore-attachments: 'true'}\n"),
    (Neither, "docker:\n  a.b: {use-sigstore-attachments: 2}\n"),
    (Neither, "docker:\n\ta.b: {}\n"),
    (Neither, "%YAMEL 1.1\n---\ndocker: {}\n"),
    (Neither, "docker: {\"a.b\": \u{2028}{\"lookaside\"\u{2028}{: x}}\n"),
    (Skopeo("no directives"), "%YAML 1.1\n---\ndocker: {}\n"),
    (Neither, "docker: {\n"),
    (Neither, "docker: {} {}\n"),
    (Neither, "docker: *x\n"),
    (Neither, "docker: \"\n"),
    (Neither, "docker:\n  a.b: {}\n c.d: {}\n"),
    (Skopeo("it passes over what it does not know"), "dockers: {}\n"),
    (Skopeo("it passes over what it does not know"), "docker: {a.b: {lookasides: x}}\n"),
    (Skopeo("it looks at URLs when it needs them"), "docker: {a.b: {lookaside: x}}\n"),
    (Skopeo("it looks at URLs when it needs them"), "docker: {a.b: {lookaside: 'http://a.b/%zz'}}\n"),
    (Skopeo("null is no URL"), "docker: {a.b: {lookaside: ~}}\n"),
    (Skopeo("a boolean of YAML 1.1 only"), "docker: {a.b: {use-sigstore-attachments: yes}}\n"),
    (Skopeo("a number is no URL"), "docker: {a.b: {lookaside: 1}}\n"),
    (Skopeo("a number is no scope"), "docker: {5000: {}}\n"),
    (Skopeo("an empty scope"), "docker: {'': {}}\n"),
    (Skopeo("an alias"), "docker: {a.b: &x {}, c.d: *x}\n"),
    (Skopeo("a tag"), "docker: !!map {}\n"),
    (Skopeo("a merge"), "docker: {<<: {a.b: {}}}\n"),
    (Skopeo("all but the first is passed over"), "docker: {}\n---\ndocker: {}\n"),
];

fn lookasides(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let directory = scratch.empty_directory("registries.d");
    let theirs = |text: &str| {
        let file = directory.join("a.yaml");
        fs::write(&file, text).unwrap();
        let mut command = skopeo(&scratch);
        command.arg("--registries.d").arg(&directory).args(["inspect", "docker://127.0.0.1:1/x"]);
        let (_, said) = said(&mut command);
        let is_wrong = said.contains(&format!("parsing {}", file.display()));
        assert_ne!(is_wrong, said.contains("connection refused"), "{said}");
        if is_wrong { Err(said) } else { Ok(()) }
    };
    let ours = |text: &str| {
        let read = RegistriesD::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        theirs(&String::from_utf8(read.render()).unwrap()).expect("what we write");
        Ok(())
    };
    compare(LOOKASIDES, ours, theirs);
}

/// What is rendered says to skopeo what it says to us: of the new names and the old ones, the new.
fn where_signatures_are_looked_for(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let (scratch, server) = (Scratch::new(), Server::start());
    let host = format!("127.0.0.1:{}", server.port);
    let url = |name: &str| Some(format!("http://{host}/{name}"));
    let only = |lookaside: Option<String>, sigstore: Option<String>| Lookaside {
        lookaside,
        sigstore,
        ..Default::default()
    };
    let attachments = Lookaside { use_sigstore_attachments: Some(true), ..only(url("attached"), None) };
    let document = RegistriesD {
        default_docker: Some(only(url("default"), None)),
        docker: [
            (format!("{host}/both"), only(url("new"), url("old"))),
            (format!("{host}/old"), only(None, url("old"))),
            (format!("{host}/new/app:1"), only(url("tagged"), None)),
            (format!("{host}/attached"), attachments),
        ]
        .into(),
    };
    let policy = scratch.file("policy.json", accept_all());
    let directory = scratch.empty_directory("registries.d");
    fs::write(directory.join("a.yaml"), document.render()).unwrap();
    let digest = digest(&manifest());
    for (image, lookaside, attached) in [
        ("both/app:1", "new", false),
        ("old/app:1", "old", false),
        ("new/app:1", "tagged", false),
        ("new/app:2", "default", false),
        ("attached/app:1", "attached", true),
    ] {
        server.asked();
        let to = scratch.empty_directory("image");
        let mut command = skopeo(&scratch);
        command.arg("--policy").arg(&policy).arg("--registries.d").arg(&directory);
        command.args(["copy", "--src-tls-verify=false", &format!("docker://{host}/{image}")]);
        let (copied, said) = said(command.arg(format!("dir:{}", to.display())));
        assert!(copied, "{image}: {said}");
        let (asked, name) = (server.asked(), image.split(':').next().unwrap());
        let signatures: Vec<_> = asked.iter().filter(|path| path.contains("signature-")).collect();
        assert_eq!(
            signatures,
            [&format!("/{lookaside}/{name}@{}/signature-1", digest.replace(':', "="))],
            "{image}"
        );
        let asks = asked.iter().any(|path| path.ends_with(&format!("{}.sig", digest.replace(':', "-"))));
        assert_eq!(asks, attached, "{image}: {asked:?}");
    }
}

// ---- containers-registries.conf(5)

const REGISTRIES: &[(Takes, &str)] = &[
    (Both, ""),
    (Both, "# nothing\n"),
    (Both, "unqualified-search-registries = []\n"),
    (Both, "unqualified-search-registries = ['a.b', \"c.d:5000\"]\n"),
    (Both, "[[registry]]\nlocation = 'a.b'\n"),
    (Both, "[[registry]]\nlocation = 'a.b:5000/c'\nprefix = 'd.e/f'\ninsecure = true\nblocked = true\n"),
    (Both, "[[registry]]\nlocation = 'a.b'\nprefix = '*.c.d'\n"),
    (Both, "[[registry]]\nlocation = 'a.b'\n\n[[registry]]\nlocation = 'a.b'\nprefix = 'c.d'\n"),
    (Neither, "[[registry]]\n"),
    (Neither, "[[registry]]\nprefix = 'a.b'\n"),
    (Neither, "[[registry]]\nlocation = 'http://a.b'\n"),
    (Neither, "[[registry]]\nlocation = 'a.b'\nprefix = 'https://a.b'\n"),
    (Neither, "[[registry]]\nlocation = 'a.b'\ninsecure = 'true'\n"),
    (Neither, "[[registry]]\nlocation = ['a.b']\n"),
    (Neither, "[[registry]]\nlocation = 'a.b'\nlocation = 'a.b'\n"),
    (
        Neither,
        "[[registry]]\nlocation = 'a.b'\n[[registry]]\nlocation = 'a.b'\nprefix = 'c.d'\nblocked = true\n",
    ),
    (Neither, "[registry]\nlocation = 'a.b'\n"),
    (Neither, "unqualified-search-registries = 'a.b'\n"),
    (Neither, "unqualified-search-registries = ['a.b/c']\n"),
    (Neither, "unqualified-search-registries = ['']\n"),
    (Neither, "[[registry]\n"),
    (Skopeo("it passes over what it does not know"), "unqualified-search-registry = []\n"),
    (Skopeo("it passes over what it does not know"), "[[registry]]\nlocation = 'a.b'\nsecure = true\n"),
    (Skopeo("it cuts off what is too much"), "[[registry]]\nlocation = 'a.b/'\n"),
    (
        Skopeo("of one prefix, it takes the first"),
        "[[registry]]\nlocation = 'a.b'\n[[registry]]\nlocation = 'a.b'\n",
    ),
    (Skopeo("no mirrors here"), "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d'\n"),
    (Skopeo("no aliases here"), "[aliases]\nx = 'a.b/x'\n"),
    (Neither, "[registries.search]\nregistries = ['a.b']\n"),
    (Skopeo("a prefix is said or left out"), "[[registry]]\nlocation = 'a.b'\nprefix = ''\n"),
    (Skopeo("a wildcard with a location only"), "[[registry]]\nprefix = '*.a.b'\n"),
];

fn registries(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let scratch = Scratch::new();
    let theirs = |text: &str| {
        scratch.registries(text);
        let (_, said) = said(skopeo(&scratch).args(["inspect", "docker://127.0.0.1:1/x"]));
        let is_wrong = said.contains("loading registries configuration");
        assert_ne!(is_wrong, said.contains("connection refused"), "{said}");
        if is_wrong { Err(said) } else { Ok(()) }
    };
    let ours = |text: &str| {
        let read = RegistriesConf::parse(text.as_bytes()).map_err(|error| error.to_string())?;
        theirs(&String::from_utf8(read.render()).unwrap()).expect("what we write");
        Ok(())
    };
    compare(REGISTRIES, ours, theirs);
}

fn where_images_are_fetched(_: &mut Oracle) {
    if !podsec_tests::host::are_installed(&["skopeo"]) {
        return;
    }
    let (scratch, server) = (Scratch::new(), Server::start());
    let registry = |prefix: &str, path: &str| Registry {
        prefix: Some(prefix.to_owned()),
        location: format!("127.0.0.1:{}{path}", server.port),
        insecure: true,
        blocked: false,
    };
    let registries = vec![registry("registry.local", ""), registry("other.local/team", "/moved")];
    scratch.registries(RegistriesConf { unqualified_search_registries: None, registries }.render());
    let policy = scratch.file("policy.json", accept_all());
    for (image, path) in [
        ("registry.local/team/app:1", "/v2/team/app/manifests/1"),
        ("other.local/team/app:1", "/v2/moved/app/manifests/1"),
    ] {
        server.asked();
        let to = scratch.empty_directory("image");
        let mut command = skopeo(&scratch);
        command.arg("--policy").arg(&policy).args(["copy", &format!("docker://{image}")]);
        let (copied, said) = said(command.arg(format!("dir:{}", to.display())));
        assert!(copied, "{image}: {said}");
        let asked = server.asked();
        assert!(asked.iter().any(|asked| asked == path), "{image}: {asked:?}");
    }
}

// ---- hosts(5)

fn names_of_hosts(_: &mut Oracle) {
    let names = ["registry.local", "sigstore.local", "trivy.local"];
    let block = Block {
        address: [192, 168, 77, 1].into(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    };
    let looked_up = |name: &str| {
        let output = Command::new("getent").args(["hosts", name]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(names.iter().all(|name| looked_up(name).is_empty()));
    let localhost = looked_up("localhost");
    // Somebody's last line without an end.
    let _file = Edited::with("/etc/hosts", |old| {
        let old = format!("{old}\n192.168.77.9 other.local");
        let new = hosts::with_block(old.as_bytes(), Some(&block)).unwrap();
        String::from_utf8(new).unwrap()
    });
    for name in names {
        assert_eq!(looked_up(name), ["192.168.77.1", name]);
    }
    assert_eq!(looked_up("other.local"), ["192.168.77.9", "other.local"]);
    assert_eq!(looked_up("localhost"), localhost);
    let text = fs::read("/etc/hosts").unwrap();
    assert_eq!(hosts::block_of(&text), Ok(Some(block)));
    // What getent would find under a name is what is refused as taken.
    for line in
        ["\n10.9.9.9 a REGISTRY.LOCAL\n", "\n 10.9.9.9\tregistry.local\r\n", "\n10.9.9.9 registry.local#x"]
    {
        let taken = format!("10.1.1.1 x{line}");
        let ours = Block { address: [10, 1, 1, 1].into(), names: vec!["registry.local".to_owned()] };
        assert!(hosts::with_block(taken.as_bytes(), Some(&ours)).is_err(), "{line:?}");
        fs::write("/etc/hosts", &taken).unwrap();
        assert_eq!(looked_up("registry.local").first().map(String::as_str), Some("10.9.9.9"), "{line:?}");
    }
}
