//! Attacks 54 to 56 of docs/threats.md: what is written into policy.json, into /etc/hosts, and who reads while it is written.

use super::{
    AMY, FILES, HOSTS, POLICY, Person, Untrusted, ask_grant, ask_revoke, block, current, grant, grant_of,
    init, made, refused, rejects_by_default, revoke, revoke_of, settings, show, snapshot, sync,
};
use crate::Test;
use podsec_proto::v1::{
    GrantSignerRequest, InitTrustRequest, SubmitSignatureRequest, SyncTrustRequest, TrustReason,
};
use podsec_tests::host::Configured;
use podsec_tests::oracle::Oracle;
use podsec_tests::{client, host};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("trust::t54_injections", t54_injections),
    ("trust::t55_hosts_of_others", t55_hosts_of_others),
    ("trust::t55_addresses_and_names", t55_addresses_and_names),
    ("trust::t55_a_file_that_cannot_be_replaced", t55_a_file_that_cannot_be_replaced),
    ("trust::t55_somebody_else_writes", t55_somebody_else_writes),
    ("trust::t56_readers_and_a_writer", t56_readers_and_a_writer),
    ("trust::t56_eight_writers", t56_eight_writers),
];

/// What the programs that used to write these files could be made to do.
fn injections() -> Vec<String> {
    let long = "a".repeat(65536);
    let fixed = [
        "",
        " ",
        "docker.io/../",
        "docker.io/../x",
        "registry.local/..",
        "registry.local/../../etc/shadow",
        "../../etc/cron.d/x",
        "*.",
        "*",
        "*.local",
        "*.local/x",
        "registry.local/*",
        "Registry.local/x",
        "registry.local/X",
        "registry.local:99999/x",
        "registry.local:65536",
        "registry.local:0/x",
        "registry.local:00080/x",
        "registry.local:/x",
        "registry.local:-1/x",
        "registry.local:5000:5000/x",
        "régistry.local/x",
        "r\u{435}gistry.local/x",
        "registry.local/\u{445}",
        "registry\u{3002}local/x",
        "registry.local\u{202e}/x",
        "registry.local/x\n",
        "registry.local/x\nregistry.evil",
        "registry.local/x\0",
        "registry.local/x\r",
        "registry.local/x\t",
        "registry.local/x y",
        " registry.local/x",
        "registry.local//x",
        "/registry.local",
        "registry.local/",
        "registry.local/x/",
        "registry/x",
        "localhost/x",
        ".local/x",
        "registry..local/x",
        "registry.local./x",
        "-registry.local/x",
        "--shared",
        "docker://registry.local/x",
        "http://registry.local",
        "user@registry.local/x",
        "user:secret@registry.local/x",
        "[::1]:5000/x",
        "registry.local/x:1.0",
        "registry.local/x@sha256:0",
        "registry.local/x#y",
        "registry.local/x?y=z",
        "registry.local/%2e%2e/x",
        "registry.local\\x",
        "registry.local/$(touch /root/pwn)",
        "`touch /root/pwn`.local/x",
        "registry.local/x;touch /root/pwn",
        "registry.local/x\", \"insecure\": \"",
        "registry.local: {lookaside: http://evil.example}",
        "registry.local]\n[[registry]]\nlocation = \"evil.example\"",
        "x\"]=[{\"type\":\"insecureAcceptAnything\"}]|.default=[{\"type\":\"insecureAcceptAnything\"}]#",
        "registry.local/x\"]=[]|.default=[{\"type\":\"insecureAcceptAnything\"}]#",
        "registry.local/x\u{7f}",
        "registry.local/\u{1b}[2J",
        "registry.local/a/b/c/d/e/f/g/h/i",
    ];
    let made = [long.clone(), format!("registry.local/{long}"), format!("{long}.local/x")];
    fixed.into_iter().map(str::to_owned).chain(made).collect()
}

fn t54_injections(oracle: &mut Oracle) {
    // Each refusal by itself, and not only counted.
    let configured = Configured::with("[limits]\ndenials_per_minute = 100000\n");
    oracle.expect_new_daemon();
    {
        let _host = Untrusted::host();
        let _amy = Person::creator(AMY, &["registry.local:5000/amy"]);
        made(init(settings()));
        let before = (snapshot(), current());
        let mut expected: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut note = |operation: &str, reason: &str, text: &str, told: String| {
            assert_eq!(told, reason, "{operation}: {:.100?}", text);
            *expected.entry((operation.into(), reason.into())).or_default() += 1;
        };
        let good = "registry.local:5000/good";
        for text in injections() {
            let registry = InitTrustRequest { registry: text.clone(), ..settings() };
            note("TrustService/Init", "bad-host", &text, refused(init(registry)));
            let signatures = InitTrustRequest { signatures: text.clone(), ..settings() };
            note("TrustService/Init", "bad-host", &text, refused(init(signatures)));
            let names = InitTrustRequest { names: vec!["good.local".into(), text.clone()], ..settings() };
            note("TrustService/Init", "bad-host", &text, refused(init(names)));
            note("TrustService/Grant", "bad-scope", &text, refused(grant(AMY, &[good, &text])));
            note("TrustService/Revoke", "bad-scope", &text, refused(revoke(AMY, &[good, &text], true)));
            if !text.is_empty() {
                let url = SyncTrustRequest { url: text.clone(), ..sync::request(vec![1], "") };
                let told = refused(super::ask(async |mut trust| trust.sync(url).await));
                note("TrustService/Sync", "bad-argument", &text, told);
            }
        }
        for creator in ["", "Amy", "amy\n", "../amy", "-amy", "amy\"", "root:x", "a".repeat(33).as_str()] {
            note("TrustService/Grant", "bad-name", creator, refused(grant(creator, &[good])));
            note("TrustService/Revoke", "bad-name", creator, refused(revoke(creator, &[], true)));
        }
        for why in ["a\nb", "a\0", "\u{1b}[31m", "\u{202e}x", &"x".repeat(201)] {
            let reason = Some(TrustReason { why: why.into(), ..TrustReason::default() });
            let request = GrantSignerRequest { reason: reason.clone(), ..grant_of(AMY, &[good]) };
            note("TrustService/Grant", "bad-argument", why, refused(ask_grant(request)));
            let request = super::RevokeSignerRequest { reason, ..revoke_of(AMY, &[], false) };
            note("TrustService/Revoke", "bad-argument", why, refused(ask_revoke(request)));
        }
        for kind in [0, 3, -1, i32::MAX] {
            let request = GrantSignerRequest { kind, ..grant_of(AMY, &[good]) };
            note("TrustService/Grant", "bad-argument", "kind", refused(ask_grant(request)));
        }
        for url in [
            "ftp://a.b/c",
            "file:///etc/shadow",
            "http://a.b",
            "http://u@a.b/c",
            "https://a.b/../c",
            "https://a.b/c?d",
            "https://a.b/c#d",
            "https://a.b/%2e%2e/c",
            "https://a.b:99999/c",
            "https://a.b/c\r\nHost: evil",
            "https://a.b\\@c.d/e",
            "-K/etc/shadow",
        ] {
            let request = SyncTrustRequest { url: url.into(), ..sync::request(vec![1], "") };
            let told = refused(super::ask(async |mut trust| trust.sync(request).await));
            note("TrustService/Sync", "bad-argument", url, told);
        }
        assert_eq!((snapshot(), current()), before, "an injection changed something");
        assert!(rejects_by_default());
        let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
        for record in oracle.audit().iter().filter(|record| record["phase"] == "deny") {
            let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            *found.entry((text("op"), text("reason"))).or_default() += 1;
        }
        assert_eq!(found, expected, "one record each");
        println!("{} refusals", expected.values().sum::<usize>());
        submitted_repositories();
        assert_eq!((snapshot(), current()), before);
    }
    drop(configured);
    oracle.expect_new_daemon();
}

/// The same in what creators ask for: podsecd reads it before it looks who may.
fn submitted_repositories() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let submit = |repository: &str, digest: &str| {
        let request = SubmitSignatureRequest {
            repository: repository.into(),
            digest: digest.into(),
            signature: vec![1],
        };
        refused(client::block_on(async { client::signatures().await.submit(request).await }))
    };
    for text in injections() {
        assert_eq!(submit(&text, &digest), "bad-scope", "{text:.100?}");
    }
    for bad in [
        "",
        "sha256:",
        "sha256:../../x",
        &digest.to_uppercase(),
        &format!("{digest}0"),
        &digest.replace("256", "512"),
    ] {
        assert_eq!(submit("registry.local:5000/amy/app", bad), "bad-argument", "{bad}");
    }
    assert!(!fs::exists("/var/sigstore/sigstore").unwrap());
}

// ---- 55: /etc/hosts

fn t55_addresses_and_names(_: &mut Oracle) {
    let _host = Untrusted::host();
    let before = snapshot();
    for address in [
        "1.2.3.4\n6.6.6.6 registry.local",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4#",
        "1.2.3.4/24",
        "1.2.3.4:80",
        "1.2.3",
        "127.1",
        "010.1.1.1",
        "0x7f.0.0.1",
        "2130706433",
        "256.1.1.1",
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "169.254.1.1",
        "::",
        "::ffff:0.0.0.0",
        "::ffff:224.0.0.1",
        "ff02::1",
        "fe80::1",
        "fe80::1%eth0",
        "[::1]",
        "1::2::3",
        "registry.local",
        "\u{661}.2.3.4",
        "1.2.3.4\0",
    ] {
        let told = refused(init(InitTrustRequest { address: address.into(), ..settings() }));
        assert_eq!(told, "bad-host", "{address:?}");
    }
    let nine = (0..9).map(|number| format!("n{number}.local")).collect();
    assert_eq!(refused(init(InitTrustRequest { names: nine, ..settings() })), "bad-host");
    assert!(snapshot() == before && refused(show(0)) == "no-trust");
    // What is one.
    for address in ["10.1.1.1", "fd00::1", "127.0.0.1", "::1"] {
        made(init(InitTrustRequest { address: address.into(), ..settings() }));
        assert_eq!(block()[0], format!("{address} registry.local"));
        let others = fs::read(HOSTS).unwrap();
        assert!(others.ends_with(before[3].as_ref().unwrap()), "{address}");
    }
    // A name that is there twice is written once, and an address is none.
    let names = ["trivy.local", "trivy.local", "registry.local", "10.1.1.1"].map(str::to_owned).into();
    made(init(InitTrustRequest { names, registry: "10.1.1.1:5000".into(), ..settings() }));
    assert_eq!(block(), ["127.0.0.1 sigstore.local", "127.0.0.1 trivy.local", "127.0.0.1 registry.local"]);
}

fn t55_hosts_of_others(_: &mut Oracle) {
    let untrusted = Untrusted::host();
    let original = fs::read_to_string(HOSTS).unwrap();
    // What is somebody else's stays as it is, byte for byte.
    for (what, text) in [
        ("CRLF", original.replace('\n', "\r\n")),
        ("no newline at the end", original.trim_end().to_owned()),
        ("nothing", String::new()),
        ("comments and blanks", format!("# x\n\n\t\n{original}#10.9.9.9 registry.local\n# podsec\n")),
        ("the same address", format!("{original}127.0.0.1 registry.local\n")),
        ("aliases of others", format!("{original}10.9.9.9 xregistry.local registry.local.x registry\n")),
        ("NUL and Latin-1", format!("{original}10.9.9.9 a\0b \u{e9}\n")),
        ("a long line", format!("{original}10.9.9.9 {}\n", "x".repeat(100_000))),
    ] {
        untrusted.reset();
        fs::write(HOSTS, &text).unwrap();
        made(init(settings()));
        let written = fs::read_to_string(HOSTS).unwrap();
        assert!(written.ends_with(&text) && block().len() == 3, "{what}: {written}");
        assert_eq!(written.matches("BEGIN podsec").count(), 1, "{what}");
        // Another address in its place, and none.
        made(init(InitTrustRequest { address: "127.0.0.1".into(), names: vec![], ..settings() }));
        assert_eq!((block().len(), fs::read_to_string(HOSTS).unwrap().ends_with(&text)), (2, true), "{what}");
        made(init(InitTrustRequest { address: String::new(), names: vec![], ..settings() }));
        assert_eq!(fs::read_to_string(HOSTS).unwrap(), text, "{what}");
    }
    // Where podsec cannot know what is meant, it does not choose.
    for (what, text) in [
        ("another address", format!("{original}10.9.9.9 registry.local\n")),
        ("another address, as an alias", format!("10.9.9.9 other.example sigstore.local # x\n{original}")),
        ("in upper case", format!("{original}10.9.9.9 REGISTRY.local\n")),
        ("IPv6", format!("{original}::1 trivy.local\n")),
        ("CR", format!("{original}10.9.9.9 registry.local\r\n")),
        ("a beginning", format!("{original}# BEGIN podsec\n")),
        ("an end", format!("{original}# END podsec\n")),
        ("two blocks", format!("{original}# BEGIN podsec\n# END podsec\n# BEGIN podsec\n# END podsec\n")),
        ("one in another", format!("{original}# BEGIN podsec\n# BEGIN podsec\n# END podsec\n")),
    ] {
        untrusted.reset();
        fs::write(HOSTS, &text).unwrap();
        let before = snapshot();
        let told = init(settings()).expect_err(what);
        assert_eq!(client::reason(&told), "hosts-conflict", "{what}: {told:?}");
        assert!(told.message().contains("line"), "{what}: {told:?}");
        assert!(snapshot() == before && refused(show(0)) == "no-trust", "{what}: something was changed");
        let with_overwrite = Some(TrustReason { overwrite: true, ..TrustReason::default() });
        assert_eq!(
            refused(init(InitTrustRequest { reason: with_overwrite, ..settings() })),
            "hosts-conflict"
        );
        assert_eq!(snapshot(), before);
        // Names in the DNS do not mind, except that a broken block is podsec's business.
        let plain = init(InitTrustRequest { address: String::new(), names: vec![], ..settings() });
        assert_eq!(plain.is_err(), text.contains("podsec"), "{what}: {plain:?}");
    }
}

/// A container's own, for one: rename(2) cannot replace it.
fn t55_a_file_that_cannot_be_replaced(_: &mut Oracle) {
    let _host = Untrusted::host();
    let before = snapshot();
    assert!(before[0].is_some());
    let mount = |script: &str| host::run(Command::new("/bin/bash").args(["-ec", script]));
    mount("mount --bind /etc/hosts /etc/hosts; mount -o remount,bind,ro /etc/hosts");
    let told = init(settings());
    let shown = show(0);
    mount("umount /etc/hosts");
    assert_eq!(refused(told), "resources");
    assert_eq!(refused(shown), "no-trust");
    assert!(snapshot() == before, "half of it was done");
    for path in FILES {
        assert!(!fs::exists(format!("{path}.new")).unwrap(), "{path}.new is left");
    }
    made(init(settings()));
    let then = (snapshot(), current());
    mount("mount --bind /etc/hosts /etc/hosts");
    let told = init(InitTrustRequest { address: "10.1.1.1".into(), ..settings() });
    mount("umount /etc/hosts");
    assert_eq!(refused(told), "resources");
    assert_eq!((snapshot(), current()), then);
    made(init(InitTrustRequest { address: "10.1.1.1".into(), ..settings() }));
    assert_eq!(block()[0], "10.1.1.1 registry.local");
}

/// Line after line, each by a new file in the place of the old one, as other tools do it.
fn t55_somebody_else_writes(_: &mut Oracle) {
    let _host = Untrusted::host();
    made(init(settings()));
    let is_over = AtomicBool::new(false);
    let changes = host::count(100, 1000);
    let lines = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut lines = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let line = format!("10.4.4.4 other{}.example\n", lines.len());
                let text = fs::read_to_string(HOSTS).unwrap();
                fs::write("/etc/hosts.other", text.clone() + &line).unwrap();
                // It looks, too, whether somebody was faster.
                if fs::read_to_string(HOSTS).unwrap() == text {
                    fs::rename("/etc/hosts.other", HOSTS).unwrap();
                    lines.push(line);
                }
                std::thread::sleep(Duration::from_millis(7));
            }
            lines
        });
        for number in 0..changes {
            let address = ["10.1.1.1", "10.1.1.2"][number % 2];
            init(InitTrustRequest { address: address.into(), ..settings() }).unwrap_or_else(|status| {
                // Its own block was taken back by the other one.
                assert_eq!(client::reason(&status), "trust-drift", "{status:?}");
                let reason = Some(TrustReason { overwrite: true, ..TrustReason::default() });
                init(InitTrustRequest { address: address.into(), reason, ..settings() }).unwrap()
            });
        }
        is_over.store(true, Ordering::Relaxed);
        other.join().unwrap()
    });
    let text = fs::read_to_string(HOSTS).unwrap();
    let lost: Vec<_> = lines.iter().filter(|line| !text.contains(*line)).collect();
    println!("{} lines of somebody else, {} lost", lines.len(), lost.len());
    assert!(lines.len() > 20, "nobody else wrote");
    assert_eq!(lost, [] as [&String; 0]);
    assert_eq!(text.matches("BEGIN podsec").count(), 1);
}

// ---- 56: readers and writers

/// Reads the policy as fast as it goes: how often, and what went wrong.
fn read_on(is_over: &AtomicBool) -> (usize, Vec<String>) {
    let (mut times, mut wrong) = (0, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let text = match fs::read(POLICY) {
            Ok(text) => text,
            Err(error) => {
                wrong.push(format!("missing: {error}"));
                continue;
            }
        };
        match serde_json::from_slice::<Value>(&text) {
            Ok(policy) if policy["default"][0]["type"] == "reject" && policy["default"][1].is_null() => {}
            Ok(policy) => wrong.push(format!("accepts: {policy}")),
            Err(error) => wrong.push(format!("unparsable: {error}")),
        }
        times += 1;
    }
    (times, wrong)
}

fn t56_readers_and_a_writer(_: &mut Oracle) {
    let _host = Untrusted::host();
    let _amy = Person::creator(AMY, &["registry.local:5000/amy"]);
    made(init(settings()));
    let full = std::env::var_os("PODSEC_FULL").is_some();
    let patience = Duration::from_secs(if full { 3600 } else { 60 });
    let is_over = AtomicBool::new(false);
    let (rewrites, took, readers) = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(|| read_on(&is_over))).collect();
        let begin = Instant::now();
        let rewrites = client::block_on(async {
            let mut trust = client::trust().await;
            let mut rewrites = 0;
            while rewrites < 10_000 && begin.elapsed() < patience {
                let scope = "registry.local:5000/rewritten";
                let told = if rewrites % 2 == 0 {
                    trust.grant(grant_of(AMY, &[scope])).await
                } else {
                    trust.revoke(revoke_of(AMY, &[scope], true)).await
                };
                rewrites += usize::from(told.unwrap().into_inner().changed);
            }
            rewrites
        });
        is_over.store(true, Ordering::Relaxed);
        (
            rewrites,
            begin.elapsed(),
            readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>(),
        )
    });
    let reads: usize = readers.iter().map(|(times, _)| times).sum();
    println!("{rewrites} rewrites in {took:.1?}, {reads} reads");
    for (_, wrong) in readers {
        assert_eq!(wrong, [] as [String; 0]);
    }
    assert!(rewrites >= if full { 10_000 } else { 500 } && reads > 10_000);
    assert_eq!(current().head.revision, rewrites as u64 + 1);
    // The oldest are gone, and the history knows how far it goes.
    let kept = fs::read_dir("/var/lib/podsec/trust/revisions").unwrap().count();
    assert!(kept <= 1000 && kept == super::history().len(), "{kept}");
}

fn t56_eight_writers(_: &mut Oracle) {
    const WRITERS: [&str; 8] = ["w0", "w1", "w2", "w3", "w4", "w5", "w6", "w7"];
    const SCOPES: usize = 100;
    let _host = Untrusted::host();
    let scope = |who: &str, number: usize| format!("registry.local:5000/{who}/{number}");
    let _people = WRITERS.map(|who| Person::without_key(who, &[&format!("registry.local:5000/home-{who}")]));
    made(init(settings()));
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let begin = Instant::now();
    let wrong: Vec<_> = std::thread::scope(|threads| {
        let readers: Vec<_> = (0..4).map(|_| threads.spawn(|| read_on(&is_over))).collect();
        let writers = WRITERS.map(|who| {
            let done = &done;
            threads.spawn(move || {
                client::block_on(async {
                    let mut trust = client::trust().await;
                    for number in 0..SCOPES {
                        let told = trust.grant(grant_of(who, &[&scope(who, number)])).await.unwrap();
                        assert!(told.into_inner().changed);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        readers.into_iter().flat_map(|reader| reader.join().unwrap().1).collect()
    });
    println!("{} changes by eight writers in {:.1?}", done.into_inner(), begin.elapsed());
    assert_eq!(wrong, [] as [String; 0]);
    let (policy, shown) = (super::policy(), current());
    for who in WRITERS {
        for number in 0..SCOPES {
            let scope = scope(who, number);
            assert!(policy["transports"]["docker"].get(&scope).is_some(), "{scope} is lost");
            assert_eq!(shown.scopes[&scope].0, [who]);
        }
    }
    assert_eq!(shown.head.revision, 801);
    let heads = super::history();
    assert!(heads.iter().map(|head| head.revision).eq((1..=801).rev()));
}
