use super::*;
use std::fs;

const KEYS: &str = r#"[{"type":"signedBy","keyType":"GPGKeys","keyData":"YQ=="}]"#;
const OTHER: &str = r#"[{"type":"signedBy","keyType":"GPGKeys","keyData":"Yg=="}]"#;
const ANY: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
const NONE: &str = r#"[{"type":"reject"}]"#;

fn wanted() -> Wanted {
    Wanted {
        registry: "registry.local:5000".into(),
        registries: vec!["registry.local:5000".into(), "other.example".into()],
        lookaside: "http://sigstore.local/sigstore".into(),
        plain_http: true,
    }
}

fn parsed(default: &str, transports: &str) -> policy_json::Policy {
    let text = format!(r#"{{"default":{default},"transports":{{{transports}}}}}"#);
    policy_json::Policy::parse(text.as_bytes()).unwrap()
}

fn summed(default: &str, transports: &str) -> Policy {
    let host =
        parsed(NONE, &format!(r#""docker":{{"registry.local:5000/team":{KEYS},"other.example":{KEYS}}}"#));
    summary(&parsed(default, transports), Some(&host), Some("registry.local:5000"))
}

#[test]
fn what_a_policy_takes() {
    assert_eq!(summed(NONE, ""), Policy::default());
    assert_eq!(summed(ANY, "").default, Demand::Nothing);
    assert_eq!(summed(KEYS, "").default, Demand::Signed);
    // All of a list have to be met.
    let both = format!("[{},{}]", &ANY[1..ANY.len() - 1], &NONE[1..NONE.len() - 1]);
    assert_eq!(summed(&both, "").default, Demand::Reject);
    let found = summed(
        NONE,
        &format!(r#""docker":{{"":{ANY},"a.b":{ANY},"c.d":{NONE}}},"dir":{{"":{ANY}}},"oci":{{"":{NONE}}}"#),
    );
    assert_eq!((found.unsigned.text(), found.transports.text()), ("all of docker, a.b".into(), "dir".into()));
}

#[test]
fn whose_signatures_it_demands() {
    let docker = |scope: &str, keys: &str| summed(NONE, &format!(r#""docker":{{"{scope}":{keys}}}"#));
    let team = "registry.local:5000/team";
    let published = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/var/sigstore/keys/amy.pgp"}]"#;
    let climbing = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/var/sigstore/keys/../../tmp/x"}]"#;
    let remapped = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/var/sigstore/keys/amy.pgp",
        "signedIdentity":{"type":"remapIdentity","prefix":"registry.local:5000","signedPrefix":"other.example"}}]"#;
    for (scope, keys, is_other) in [
        (team, KEYS, false),
        ("registry.local:5000/team/app", KEYS, false),
        (team, published, false),
        ("other.example", KEYS, false),
        (team, OTHER, true),
        ("registry.local:5000/team/app", OTHER, true),
        ("registry.local:5000", KEYS, true),
        ("elsewhere.example", KEYS, true),
        ("*.local", OTHER, true),
        (team, climbing, true),
        (team, remapped, true),
    ] {
        assert_eq!(docker(scope, keys).other_keys.count, u64::from(is_other), "{scope} {keys}");
    }
    let demands = |scope: &str| docker(scope, KEYS).demands;
    assert!(demands(team) && demands("registry.local:5000") && demands(""));
    assert!(!demands("registry.local:50001") && !demands("registry.local") && !demands("other.example"));
}

/// A directory of its own, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let place = std::env::temp_dir().join(format!("podsec-policy-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        for (name, text) in files {
            let path = place.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            podsec_sys::file::replace(&path, text.as_bytes(), 0o600).unwrap();
        }
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn looked(files: &[(&str, &str)]) -> Vec<String> {
    let place = Place::new("lookaside", files);
    let (found, wrong) = lookasides(&place.0, &place.0.join("usual.yaml"), &wanted());
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let found = found.iter().map(|(path, what)| format!("{}: {what}", name(path.as_str())));
    found.chain(wrong.iter().map(|(path, _)| format!("wrong {}", name(&path.to_string_lossy())))).collect()
}

#[test]
fn where_signatures_are() {
    let good = "http://sigstore.local/sigstore/";
    let one = |scope: &str, url: &str| format!("docker:\n  \"{scope}\":\n    lookaside: {url}\n");
    let default = |url: &str| format!("default-docker:\n  lookaside: {url}\n");
    let both = format!(
        "docker:\n  \"registry.local:5000\": {{lookaside: {good}}}\n  other.example: {{lookaside: {good}}}\n"
    );
    assert_eq!(looked(&[("a.yaml", &both)]), [""; 0]);
    assert_eq!(looked(&[("a.yaml", &default(good))]), [""; 0]);
    assert_eq!(
        looked(&[("a.yaml", &one("other.example", good)), ("b.yaml", &one("registry.local:5000", good))]),
        [""; 0]
    );
    assert_eq!(
        looked(&[("a.yaml", &both), ("b.yaml", &one("registry.local:5000/team", "http://x.y/"))]),
        ["b.yaml: registry.local:5000/team: http://x.y/"]
    );
    // Of no registry of trust's; not such a file.
    assert_eq!(looked(&[("a.yaml", &both), ("b.yaml", &one("x.y", "http://x.y/")), ("c.yml", "x")]), [""; 0]);
    assert_eq!(
        looked(&[("a.yaml", &default("http://x.y/"))]),
        ["a.yaml: registry.local:5000: http://x.y/, other.example: http://x.y/"]
    );
    assert_eq!(looked(&[]), ["usual.yaml: registry.local:5000: none, other.example: none"]);
    // The old name counts before the new one.
    let old = format!("default-docker:\n  lookaside: {good}\n  sigstore: http://x.y/\n");
    assert_eq!(
        looked(&[("a.yaml", &old)]),
        ["a.yaml: registry.local:5000: http://x.y/, other.example: http://x.y/"]
    );
    assert_eq!(looked(&[("a.yaml", &both), ("b.yaml", "x")]), ["wrong b.yaml"]);
    let many: Vec<_> = (0..MOST + 10).map(|number| format!("{number}.yaml")).collect();
    let many: Vec<_> =
        many.iter().map(|name| (name.as_str(), "")).chain([("a.yaml", both.as_str())]).collect();
    assert!(looked(&many).iter().any(|said| said.starts_with("wrong")));
}

#[test]
fn where_images_come_from() {
    let told = |text: &str| {
        let place = Place::new("redirect", &[("registries.conf", text)]);
        let Redirects { found, wrong } = redirects(&place.0, &wanted());
        let wrong = wrong.iter().map(|_| "wrong".to_owned());
        found.iter().map(|(_, what)| what.to_string()).chain(wrong).collect::<Vec<_>>()
    };
    for good in [
        "",
        "unqualified-search-registries = ['docker.io']\n[aliases]\n'a' = 'b.c/a'\n",
        "[[registry]]\nlocation = 'registry.local:5000'\ninsecure = true\n",
        "[[registry]]\nprefix = 'registry.local:5000'\nlocation = 'registry.local:5000'\nblocked = true\n",
        "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'mirror.local'\n",
    ] {
        assert_eq!(told(good), [""; 0], "{good}");
    }
    for (bad, said) in [
        ("[[registry]]\nlocation = 'other.example/team'\ninsecure = true\n", "other.example/team: insecure"),
        (
            "[[registry]]\nlocation = 'registry.local:5000'\n[[registry.mirror]]\nlocation = 'x.y'\n",
            "registry.local:5000: a mirror",
        ),
        ("[[registry]]\nprefix = 'registry.local:5000/a'\nlocation = 'x.y'\n", "registry.local:5000/a: x.y"),
        ("[[registry]]\nprefix = '*.local'\nlocation = 'x.y'\n", "*.local: x.y"),
        ("[[registry]\n", "wrong"),
        ("registry = 'x'\n", "wrong"),
    ] {
        assert_eq!(told(bad), [said], "{bad}");
    }
}
