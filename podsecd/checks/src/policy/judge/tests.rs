use super::super::processes::Process;
use super::super::terms::Some3;
use super::*;
use crate::known::{Certificate, Drift, Key, Trust};
use podsec_policy::name::AccountName;
use podsec_policy::trust::{Endpoint, Settings, SignatureKind};
use podsec_policy::user::{Category, Fingerprint, Scope, Scopes};

const PODMAN: u32 = 10;
const DEV: u32 = 11;
const WHEEL: u32 = 12;
const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

fn owner(name: &str, uid: u32, groups: &[u32]) -> Owner {
    let home = if uid == 0 { "/root".into() } else { format!("/home/{name}").into() };
    let is_cluster = name == "u7s-admin";
    Owner { name: name.into(), uid, gid: uid, groups: groups.to_vec(), home, is_cluster }
}

fn user(name: &str, uid: u32, category: Category) -> User {
    User { name: AccountName::new(name).unwrap(), uid, category }
}

fn creator() -> Category {
    let scopes = Scopes::new(vec![Scope::new("registry.local/team").unwrap()]).unwrap();
    Category::ImageCreator { scopes, shared: false }
}

fn trust() -> Trust {
    let settings = Settings {
        registry: Endpoint::new("registry.local").unwrap(),
        signatures: Endpoint::new("sigstore.local:81").unwrap(),
        plain_http: true,
        address: None,
        names: vec![],
    };
    let scopes = vec![(Scope::new("registry.local/team").unwrap(), SignatureKind::Gpg)];
    Trust { settings, scopes, drift: vec![] }
}

fn known(users: Vec<User>) -> Known {
    Known { users, trust: Some(trust()), ..Known::default() }
}

/// Somebody with images, as podsec guards him.
fn store() -> Facts {
    Facts { store: true, images: true, guard: Guard::Fixed, ..Facts::default() }
}

fn text(text: &str) -> Text {
    Text::of(text)
}

fn looked(known: &Known, all: Vec<(Owner, Result<Facts, String>)>) -> Look {
    let groups = Groups { users: Some(PODMAN), creators: Some(DEV), administrators: Some(WHEEL) };
    let seen = Seen { known, groups, now: NOW, days: 30 };
    let (owners, facts): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let managed = managed(known);
    let mut judge = Judge::new(&seen, &managed);
    owners.iter().zip(facts).for_each(|(owner, facts)| judge.add(owner, facts));
    judge.end(&owners)
}

/// Code, whose, where, weight.
fn found(
    known: &Known,
    all: Vec<(Owner, Result<Facts, String>)>,
) -> Vec<(&'static str, String, String, u32)> {
    let look = looked(known, all);
    assert_eq!(look.missed, BTreeMap::new());
    let short = |finding: Finding| {
        (finding.kind.code, finding.subject.to_string(), finding.place.to_string(), finding.weight)
    };
    look.findings.into_iter().map(short).collect()
}

fn codes(known: &Known, all: Vec<(Owner, Result<Facts, String>)>) -> Vec<&'static str> {
    found(known, all).into_iter().map(|(code, ..)| code).collect()
}

fn amy() -> Owner {
    owner("amy", 1001, &[PODMAN])
}

fn manages_amy() -> Known {
    known(vec![user("amy", 1001, Category::ImageUser)])
}

#[test]
fn a_host_that_is_as_it_should_be() {
    let known = known(vec![
        user("amy", 1001, Category::ImageUser),
        user("carla", 1002, creator()),
        user("kim", 1003, Category::ClusterUser),
        user("u7s-admin", 990, Category::ClusterAdmin),
    ]);
    let own = (text("/home/carla/.config/containers/policy.json"), policy(Demand::Nothing));
    let all = vec![
        (owner("root", 0, &[]), Ok(store())),
        (amy(), Ok(store())),
        (owner("carla", 1002, &[PODMAN, DEV]), Ok(Facts { policies: vec![own], ..store() })),
        (owner("kim", 1003, &[]), Ok(Facts::default())),
        (owner("u7s-admin", 990, &[]), Ok(store())),
        (owner("alice", 1004, &[WHEEL]), Ok(Facts::default())),
        (owner("dave", 1005, &[PODMAN]), Ok(Facts::default())),
    ];
    let look = looked(&known, all);
    assert_eq!((look.findings, look.missed.len(), look.unknown, look.looked_at), (vec![], 0, None, 4));
}

#[test]
fn weight_101_images_and_no_image_user() {
    let all = |groups: &[u32], facts| vec![(owner("eve", 1001, groups), Ok(facts))];
    let known = known(vec![]);
    assert_eq!(
        found(&known, all(&[], store())),
        [("store-outsider", "user eve".into(), "/home/eve".into(), 101)]
    );
    assert_eq!(codes(&known, all(&[], Facts { images: false, ..store() })), [""; 0]);
    assert_eq!(codes(&known, all(&[PODMAN], store())), ["image-user-unmanaged"]);
    for (name, uid) in [("root", 0), ("u7s-admin", 990)] {
        assert_eq!(codes(&known, vec![(owner(name, uid, &[]), Ok(store()))]), [""; 0], "{name}");
    }
}

fn policy(default: Demand) -> Policy {
    Policy { default, demands: true, ..Policy::default() }
}

fn some(what: &str) -> Some3 {
    let mut some = Some3::default();
    some.add(what);
    some
}

const OWN: &str = "/home/amy/.config/containers/policy.json";

fn with_policy(policy: Policy) -> Vec<(Owner, Result<Facts, String>)> {
    vec![(amy(), Ok(Facts { policies: vec![(text(OWN), policy)], ..store() }))]
}

#[test]
fn weights_102_to_105_a_policy_of_his_own() {
    let strict = policy(Demand::Reject);
    for (policy, code, weight) in [
        (policy(Demand::Nothing), "policy-default", 102),
        (policy(Demand::Signed), "policy-default", 102),
        (Policy { demands: false, ..strict.clone() }, "policy-registry", 103),
        (Policy { unsigned: some("a.b"), ..strict.clone() }, "policy-unsigned-scope", 104),
        (Policy { other_keys: some("a.b"), ..strict.clone() }, "policy-other-keys", 104),
        (Policy { transports: some("dir"), ..strict.clone() }, "policy-transport", 105),
    ] {
        assert_eq!(
            found(&manages_amy(), with_policy(policy)),
            [(code, "user amy".into(), OWN.into(), weight)]
        );
    }
    assert_eq!(codes(&manages_amy(), with_policy(strict.clone())), [""; 0]);
    // Without trust there is nothing to demand; what he accepts by himself is his doing all the same.
    let mut without = manages_amy();
    without.trust = None;
    let both = Policy { demands: false, ..policy(Demand::Nothing) };
    assert_eq!(codes(&without, with_policy(both)), ["no-trust", "policy-default"]);
    // Nobody signs in the host's registry yet.
    let mut nobody = manages_amy();
    nobody.trust.as_mut().unwrap().scopes.clear();
    assert_eq!(codes(&nobody, with_policy(Policy { demands: false, ..strict })), [""; 0]);
}

#[test]
fn weight_106_lookasides_and_other_places() {
    for (notes, code, weight) in
        [(0, "lookaside-differs", 106), (1, "registry-redirected", 50), (2, "config-unreadable", 50)]
    {
        let mut facts = store();
        let note = vec![(text("/home/amy/x"), text("y"))];
        *[&mut facts.lookasides, &mut facts.redirects, &mut facts.unreadable][notes] = note;
        assert_eq!(
            found(&manages_amy(), vec![(amy(), Ok(facts))]),
            [(code, "user amy".into(), "/home/amy/x".into(), weight)]
        );
    }
}

#[test]
fn weight_107_and_other_conflicts_of_categories() {
    let all = |name: &str, groups: &[u32]| vec![(owner(name, 1001, groups), Ok(Facts::default()))];
    let nobody = known(vec![]);
    let group = || "/etc/group".to_owned();
    assert_eq!(
        found(&nobody, all("eve", &[PODMAN, WHEEL])),
        [("image-user-administers", "user eve".into(), group(), 107)]
    );
    assert_eq!(codes(&nobody, all("eve", &[PODMAN, DEV, WHEEL])), [""; 0]);
    assert_eq!(codes(&nobody, all("eve", &[DEV])), ["creator-no-image-user"]);
    assert_eq!(codes(&nobody, all("u7s-admin", &[WHEEL, PODMAN])), ["cluster-user-administers"]);
    let is = |category: Category| known(vec![user("eve", 1001, category)]);
    for (category, groups, code) in [
        (Category::ClusterUser, &[PODMAN][..], "cluster-user-has-images"),
        (Category::ImageUser, &[PODMAN, DEV], "user-groups"),
        (Category::ImageUser, &[], "user-groups"),
        (creator(), &[PODMAN], "user-groups"),
    ] {
        let facts = Facts { guard: Guard::Fixed, ..Facts::default() };
        assert_eq!(codes(&is(category), vec![(owner("eve", 1001, groups), Ok(facts))]), [code]);
    }
    // A primary group is a group.
    let primary = Owner { gid: PODMAN, ..owner("eve", 1001, &[WHEEL]) };
    assert_eq!(codes(&nobody, vec![(primary, Ok(Facts::default()))]), ["image-user-administers"]);
}

#[test]
fn who_is_gone() {
    let known = known(vec![user("amy", 1001, Category::ImageUser), user("ben", 1002, Category::ClusterUser)]);
    let other = vec![(owner("amy", 2001, &[]), Ok(Facts::default()))];
    let gone = |name: &str| ("user-gone", format!("user {name}"), "/etc/passwd".to_owned(), 20);
    assert_eq!(found(&known, other), [gone("amy"), gone("ben")]);
}

#[test]
fn shares_weigh_90_together() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let users = names.iter().zip(1001..).map(|(name, uid)| user(name, uid, Category::ImageUser)).collect();
    let known = known(users);
    for (bad, sum) in [(1, 12), (2, 25), (7, 90)] {
        let all = names.iter().zip(1001..).enumerate().map(|(index, (name, uid))| {
            let guard = if index < bad { Guard::Absent(text("x")) } else { Guard::Fixed };
            (owner(name, uid, &[PODMAN]), Ok(Facts { guard, ..store() }))
        });
        let found = found(&known, all.collect());
        assert_eq!(
            found.iter().map(|(code, ..)| *code).collect::<Vec<_>>(),
            vec!["image-user-unguarded"; bad]
        );
        assert_eq!(found.iter().map(|(.., weight)| weight).sum::<u32>(), sum, "{bad} of 7");
    }
}

#[test]
fn guards_of_image_users_alone() {
    for (guard, expected, severity) in [
        (Guard::Absent(text("x")), "image-user-unguarded", Severity::High),
        (Guard::Loose(text("x")), "image-user-config-writable", Severity::High),
        (Guard::Movable, "image-user-config-writable", Severity::Low),
    ] {
        let facts = || Ok(Facts { guard: guard.clone(), ..store() });
        let look = looked(&manages_amy(), vec![(amy(), facts())]);
        let [finding] = &look.findings[..] else { panic!("{look:?}") };
        assert_eq!((finding.kind.code, finding.severity, finding.weight), (expected, severity, 90));
        let creator = known(vec![user("amy", 1001, creator())]);
        assert_eq!(codes(&creator, vec![(owner("amy", 1001, &[PODMAN, DEV]), facts())]), [""; 0]);
        assert_eq!(codes(&known(vec![]), vec![(owner("root", 0, &[PODMAN]), facts())]), [""; 0]);
    }
}

#[test]
fn the_hosts_own_files() {
    let path = "/etc/containers/policy.json";
    let root = |facts| vec![(owner("root", 0, &[]), Ok(facts))];
    let file = |policy| Facts { policies: vec![(text(path), policy)], ..Facts::default() };
    let bad = || file(policy(Demand::Nothing));
    // As podsec wrote it, whatever that is.
    assert_eq!(codes(&known(vec![]), root(bad())), [""; 0]);
    let mut drifted = known(vec![]);
    let drift = |path: &str, missing| Drift { path: path.into(), missing };
    drifted.trust.as_mut().unwrap().drift =
        vec![drift(path, false), drift("/etc/hosts", false), drift("/etc/x", true)];
    let of = |code: &'static str, place: &str, weight| (code, "host".to_owned(), place.to_owned(), weight);
    let others = [of("trust-drift", "/etc/hosts", 102), of("trust-drift", "/etc/x", 102)];
    assert_eq!(
        found(&drifted, root(bad())),
        [&[of("policy-default", path, 102)], &others[..]].concat(),
        "once, and as what it is"
    );
    assert_eq!(
        found(&drifted, root(file(policy(Demand::Reject)))),
        [&[of("trust-drift", path, 102)], &others[..]].concat()
    );
    let facts = Facts {
        lookasides: vec![(text("/etc/containers/registries.d/a.yaml"), text("x"))],
        redirects: vec![(text("/etc/containers/registries.conf"), text("x"))],
        unreadable: vec![(text("/etc/containers/registries.d/b.yaml"), text("x"))],
        writable: vec![(text("/etc/containers"), text("x"))],
        ..Facts::default()
    };
    assert_eq!(
        found(&known(vec![]), root(facts)),
        [
            of("config-writable", "/etc/containers", 102),
            of("lookaside-differs", "/etc/containers/registries.d/a.yaml", 106),
            of("config-unreadable", "/etc/containers/registries.d/b.yaml", 50),
            of("registry-redirected", "/etc/containers/registries.conf", 50),
        ]
    );
    // Root's own, in his home, is his.
    let own = Facts {
        policies: vec![(text("/root/.config/containers/policy.json"), policy(Demand::Nothing))],
        ..Facts::default()
    };
    assert_eq!(
        found(&known(vec![]), root(own)),
        [("policy-default", "user root".into(), "/root/.config/containers/policy.json".into(), 102)]
    );
}

#[test]
fn without_trust_one_finding_for_all() {
    let known = Known::default();
    let names = ["a", "b", "c", "d", "e"];
    let all =
        || names.iter().zip(990..).map(|(name, uid)| Owner { is_cluster: true, ..owner(name, uid, &[]) });
    let with_stores = all().map(|owner| (owner, Ok(store()))).collect();
    let look = looked(&known, with_stores);
    let [finding] = &look.findings[..] else { panic!("{look:?}") };
    assert_eq!((finding.kind.code, &finding.subject), ("no-trust", &Subject::Host));
    assert_eq!(finding.detail.as_str(), "stores of a, b, c and 2 more");
    // `podman info` alone leaves a store behind.
    for images in [Facts::default(), Facts { images: false, ..store() }] {
        assert_eq!(codes(&known, all().map(|owner| (owner, Ok(images.clone()))).collect()), [""; 0]);
    }
}

#[test]
fn programs_that_ask_another_policy() {
    let process = Process {
        program: text("skopeo"),
        bypass: Some(text("pid 5: --insecure-policy")),
        home: Some(text("pid 5: HOME=/tmp")),
    };
    let facts = Facts { processes: vec![process], ..store() };
    let of = |code: &'static str| (code, "user amy".to_owned(), "skopeo".to_owned(), 103);
    assert_eq!(
        found(&manages_amy(), vec![(amy(), Ok(facts))]),
        [of("policy-bypassed"), of("policy-other-home")]
    );
}

#[test]
fn what_expires() {
    let mut known = known(vec![user("carla", 1002, creator())]);
    let key = |digit: &str, expires| Key {
        creator: AccountName::new("carla").unwrap(),
        fingerprint: Fingerprint::new(&digit.repeat(40)).unwrap(),
        expires,
    };
    known.keys = vec![
        key("1", Some(NOW)),
        key("2", Some(NOW + 1)),
        key("3", Some(NOW + 30 * DAY)),
        key("4", Some(NOW + 30 * DAY + 1)),
        key("5", None),
    ];
    let certificate = |path: &str, expires| Certificate { path: path.into(), expires };
    known.certificates = vec![
        certificate("/a", Some(NOW - 3 * DAY)),
        certificate("/b", Some(NOW + DAY)),
        certificate("/c", Some(NOW + 31 * DAY)),
        certificate("/d", None),
    ];
    let carla = || vec![(owner("carla", 1002, &[PODMAN, DEV]), Ok(Facts::default()))];
    let look = looked(&known, carla());
    let found: Vec<_> = look
        .findings
        .iter()
        .map(|found| (found.kind.code, found.place.as_str(), found.detail.as_str()))
        .collect();
    let [one, two, three] = ["1", "2", "3"].map(|digit| digit.repeat(40));
    assert_eq!(
        found,
        [
            ("certificate-expired", "/a", "expired 3 days ago"),
            ("certificate-expired", "/d", "cannot be read"),
            ("key-expired", &*one, "expired 0 days ago"),
            ("certificate-expiring", "/b", "expires in 1 day"),
            ("key-expiring", &*two, "expires in 0 days"),
            ("key-expiring", &*three, "expires in 30 days"),
        ]
    );
}

#[test]
fn who_does_not_answer_is_missed_and_nobody_else() {
    let all = vec![
        (owner("mal", 1000, &[]), Err("timed out".into())),
        (owner("root", 0, &[]), Ok(Facts { closed: Some(text("/root: closed")), ..Facts::default() })),
        (owner("zoe", 1002, &[]), Ok(store())),
    ];
    let look = looked(&known(vec![]), all);
    assert_eq!(look.missed.keys().map(Text::as_str).collect::<Vec<_>>(), ["mal", "root"]);
    assert_eq!(look.findings.iter().map(|found| found.kind.code).collect::<Vec<_>>(), ["store-outsider"]);
}

#[test]
fn a_liar_is_bounded() {
    let facts = Facts { unreadable: vec![(text("x"), text("y")); 100_000], ..store() };
    let look = looked(&manages_amy(), vec![(amy(), Ok(facts))]);
    assert_eq!(look.findings.len(), MOST);
}
