//! Trust in images: what a change costs where there are few scopes and where there are ten thousand, beside the way of a
//! script with jq; what a verifier pays for them; and signatures taken in, beside bare gpgv.

use crate::figure::{Bound, Figure, Samples};
use crate::helper::Helper;
use podsec_proto::client::signature_service_client::SignatureServiceClient;
use podsec_proto::client::trust_service_client::TrustServiceClient;
use podsec_proto::v1::{GrantSignerRequest, SignatureKind, SubmitSignatureRequest};
use podsec_tests::{client, host, people};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CREATOR: &str = "signer";
/// Where the signatures to be submitted are, one file each.
const SIGNED: &str = "/run/podsec-tests/signed";
const POLICY: &str = "/etc/containers/policy.json";
const FEW: usize = 10;
const MANY: usize = 10_000;
/// Scopes of one request.
const BATCH: usize = 100;

pub fn run(rounds: usize) -> Vec<Figure> {
    people::ctl("root", &["trust", "init", "--registry", "registry.local", "--http"]);
    let create =
        ["user", "create", CREATOR, "--category", "image-creator", "--scope", "registry.local/bench"];
    people::ctl("root", &[&create[..], &["--with-key", "--no-key-passphrase"]].concat());
    let mut figures = submit(rounds);
    figures.extend(growth(rounds));
    figures
}

/// A command that has to succeed.
fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("a program");
    let time = start.elapsed();
    assert!(status.success(), "{command:?}");
    time
}

fn median(times: usize, mut measure: impl FnMut(usize) -> Duration) -> f64 {
    let mut samples = Samples::new();
    (0..times).for_each(|round| samples.push_time(measure(round)));
    samples.median()
}

fn growth(rounds: usize) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut there = 1;
    for count in [FEW, MANY] {
        client::block_on(async {
            let mut trust = TrustServiceClient::new(client::connect().await.expect("podsecd"));
            while there < count {
                let last = (there + BATCH).min(count);
                let scopes = (there..last).map(|number| format!("registry.local/bench-{number}")).collect();
                trust.grant(grant(scopes)).await.expect("a grant");
                there = last;
            }
        });
        eprintln!("  with {count} scopes");
        let times = (rounds / 10).max(5);
        let ours = median(times, |round| {
            let scope = format!("registry.local/more-{count}-{round}");
            let mut samples = Duration::ZERO;
            client::block_on(async {
                let mut trust = TrustServiceClient::new(client::connect().await.expect("podsecd"));
                let start = Instant::now();
                trust.grant(grant(vec![scope])).await.expect("a grant");
                samples = start.elapsed();
            });
            samples
        });
        there += times;
        // What the old scripts did: a new file by jq, put in the place of the old one.
        let script = "jq '.transports.docker[\"registry.local/jq\"] = [{type: \"signedBy\", keyType: \"GPGKeys\", \
                      keyPath: \"/var/sigstore/keys/signer.pgp\"}]' /etc/containers/policy.json >/tmp/policy.new && \
                      mv /tmp/policy.new /tmp/policy.json";
        let jq = median(times, |_| timed(Command::new("/bin/sh").args(["-c", script])));
        let what = |what: &str| format!("{what}, {count} scopes");
        figures.push(
            Figure::new("trust", what("a grant"), "ms", ours)
                .against("jq and mv", jq)
                .bound(Bound::RatioAtMost(1.0)),
        );
        let podsecctl = |arguments: [&str; 2]| {
            median(times, |_| timed(Command::new("/usr/bin/podsecctl").args(["trust"]).args(arguments)))
        };
        figures.push(Figure::new("trust", what("trust show"), "ms", podsecctl(["show", "--json"])));
        figures.push(Figure::new("trust", what("trust check"), "ms", podsecctl(["check", "--json"])));
        figures.push(evaluation(&what("a policy read and asked by skopeo"), times));
    }
    figures
}

fn grant(scopes: Vec<String>) -> GrantSignerRequest {
    let kind = SignatureKind::Gpg.into();
    GrantSignerRequest { creator: CREATOR.into(), scopes, kind, shared: false, reason: None }
}

/// The policy is read and judged before anything is fetched, so an image of a scope that rejects ends right there.
fn evaluation(what: &str, times: usize) -> Figure {
    // The same with the keys in files, as scripts wrote it.
    let other = "/run/podsec-tests/key-paths.json";
    let mut policy: serde_json::Value =
        serde_json::from_slice(&fs::read(POLICY).expect(POLICY)).expect("a policy");
    for (_, list) in policy["transports"]["docker"].as_object_mut().expect("scopes") {
        let demanded = list[0].as_object_mut().expect("a requirement");
        demanded.remove("keyData").expect("keys");
        demanded.insert("keyPath".into(), format!("/var/sigstore/keys/{CREATOR}.pgp").into());
    }
    fs::write(other, policy.to_string()).expect(other);
    let empty = "/run/podsec-tests/empty";
    fs::create_dir_all(empty).expect(empty);
    let manifest = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[]}"#;
    fs::write(format!("{empty}/manifest.json"), manifest).expect("a manifest");
    fs::write(format!("{empty}/version"), "Directory Transport Version: 1.1\n").expect("a version");
    let skopeo = |policy: &str| {
        let mut command = Command::new("/usr/bin/skopeo");
        command.args(["--policy", policy, "copy", &format!("dir:{empty}"), "dir:/run/podsec-tests/never"]);
        let start = Instant::now();
        let output = command.output().expect("skopeo");
        let time = start.elapsed();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("reject"), "{said}");
        time
    };
    let ours = median(times, |_| skopeo(POLICY));
    let theirs = median(times, |_| skopeo(other));
    Figure::new("trust", what, "ms", ours).against("keys in files", theirs).bound(Bound::RatioAtMost(3.0))
}

/// Signatures, one after the other by one creator on one connection.
fn submit(count: usize) -> Vec<Figure> {
    host::run(Command::new("/usr/bin/install").args(["-d", "-o", CREATOR, SIGNED]));
    let script = format!(
        "cd {SIGNED}; for i in $(seq {count}); do
             digest=$(printf %s $i | sha256sum | cut -d' ' -f1)
             printf '{{\"critical\":{{\"identity\":{{\"docker-reference\":\"registry.local/bench:%s\"}},\"image\":{{\"docker-manifest-digest\":\"sha256:%s\"}},\"type\":\"atomic container signature\"}},\"optional\":{{}}}}' $i $digest |
                 gpg --batch --quiet --sign -o sha256:$digest
         done; gpgconf --kill all"
    );
    host::run(people::command(CREATOR, "/bin/bash").args(["-e", "-c", &script]));
    let mut helper = Helper::start(CREATOR, "submit", &[]);
    let time: f64 = helper.ask(&count.to_string()).parse().expect("seconds");
    let keys = format!("/var/sigstore/keys/{CREATOR}.pgp");
    let files: Vec<_> =
        fs::read_dir(SIGNED).expect(SIGNED).map(|entry| entry.expect("an entry").path()).collect();
    let gpgv = median(files.len(), |index| {
        let mut command = Command::new("/usr/bin/gpgv");
        timed(
            command
                .args(["--quiet", "--keyring", &keys, "--output", "/dev/null"])
                .arg(&files[index])
                .stderr(Stdio::null()),
        )
    });
    let each = time * 1e3 / count as f64;
    vec![
        Figure::new("trust", "signatures taken in a second", "", 1e3 / each),
        Figure::new("trust", "a signature verified and stored", "ms", each)
            .against("gpgv", gpgv)
            .bound(Bound::RatioAtMost(3.0)),
    ]
}

/// The creator's side.
pub fn submitter() {
    for line in std::io::stdin().lines() {
        let count: usize = line.expect("text").parse().expect("a count");
        let mut signed = Vec::new();
        for entry in fs::read_dir(SIGNED).expect(SIGNED) {
            let path = entry.expect("an entry").path();
            let digest = path.file_name().expect("a name").to_string_lossy().into_owned();
            signed.push((digest, fs::read(&path).expect("a signature")));
        }
        assert_eq!(signed.len(), count);
        let seconds = client::block_on(async {
            let mut signatures = SignatureServiceClient::new(client::connect().await.expect("podsecd"));
            let start = Instant::now();
            for (digest, signature) in signed {
                let repository = "registry.local/bench".into();
                let request = SubmitSignatureRequest { repository, digest, signature };
                signatures.submit(request).await.expect("taken");
            }
            start.elapsed().as_secs_f64()
        });
        println!("{seconds}");
    }
}
