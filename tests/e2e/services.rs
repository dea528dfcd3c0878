//! The servers behind trust, with real nginx, docker-registry, openssl, skopeo and curl: set up, pushed to, pulled from,
//! looked at, attacked and removed. What systemd does on other hosts `tests/host/start-services` does here, from the
//! same units.

use crate::Test;
use podsec_proto::v1::{
    DeployServiceRequest, InitTrustRequest, NewCredentialRequest, RegistryCredential, RemoveServiceRequest,
    ServiceChange, ServiceHealth, ServiceKind, ServiceState, ServiceStatusRequest,
};
use podsec_tests::client::{self, block_on, reason};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CAROL, DAVE, MALLORY, ROOT};
use podsec_tests::{host, role};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("services::", stringify!($test)), $test),)*];
    };
}

tests! {
    without_trust_there_is_nothing_to_deploy
    over_tls
    over_plain_http
    both_under_one_name
    signatures_are_given_out_and_nothing_else
    the_authority_vouches_for_these_names_only
    certificates_are_renewed
    what_the_port_is_in_use_by
    a_configuration_that_nginx_refuses
    status_tells_the_truth
    passwords
    who_may
    removed_without_and_with_data
}

pub const ROLES: &[role::Role] = &[("credential", print_credential)];

const REGISTRY: ServiceKind = ServiceKind::Registry;
const SIGNATURES: ServiceKind = ServiceKind::Signatures;
const CONFIGURATION: &str = "/etc/podsec/services";
const CA: &str = "/var/sigstore/ca.crt";
const STORE: &str = "/var/lib/podsec-registry";
/// Where everybody can put things.
const SHARED: &str = "/tmp/services";
/// What trust and the servers change, and `Trusted` puts back.
const KEPT: [&str; 5] = [
    "/etc/containers",
    "/etc/hosts",
    "/etc/podsec/user-policy.json",
    "/var/sigstore",
    "/var/lib/podsec/trust",
];

// ---- what is asked, and answered

type Answer<T> = Result<T, tonic::Status>;

fn deploy_with(request: DeployServiceRequest) -> Answer<ServiceChange> {
    block_on(async { client::services().await.deploy(request).await.map(tonic::Response::into_inner) })
}

fn request(kind: ServiceKind) -> DeployServiceRequest {
    DeployServiceRequest { kind: kind.into(), ..DeployServiceRequest::default() }
}

fn deploy(kind: ServiceKind) -> ServiceChange {
    deploy_with(request(kind)).unwrap_or_else(|status| panic!("{status:?}\n{}", host::daemon_log()))
}

fn remove(kind: ServiceKind, remove_data: bool) -> ServiceChange {
    let request = RemoveServiceRequest { kind: kind.into(), remove_data, dry_run: false };
    block_on(async { client::services().await.remove(request).await }).unwrap().into_inner()
}

fn status(kind: ServiceKind) -> ServiceState {
    let answer = block_on(async { client::services().await.status(ServiceStatusRequest {}).await });
    let states = answer.unwrap().into_inner().services;
    states.into_iter().find(|state| state.kind() == kind).unwrap()
}

fn init(registry: &str, signatures: &str, plain_http: bool) {
    let request = InitTrustRequest {
        registry: registry.into(),
        signatures: signatures.into(),
        plain_http,
        address: if registry.starts_with("127.") { String::new() } else { "127.0.0.1".into() },
        ..InitTrustRequest::default()
    };
    block_on(async { client::trust().await.init(request).await }).unwrap();
}

fn start() {
    host::run(&mut host::tool("start-services"));
}

/// A new password for the caller, as lines of name and password, or the reason.
fn print_credential(_: &[String]) {
    match block_on(async { client::services().await.new_credential(NewCredentialRequest {}).await }) {
        Ok(answer) => {
            let RegistryCredential { registry, name, password } = answer.into_inner();
            println!("{registry} {name} {password}");
        }
        Err(status) => println!("{}", reason(&status)),
    }
}

fn credential(who: &str) -> String {
    role::start(who, "credential", &[]).finish().trim().to_owned()
}

/// Of carol, as skopeo takes it.
fn carols() -> String {
    let said = credential(CAROL);
    let words: Vec<&str> = said.split(' ').collect();
    assert_eq!((words.len(), words[1]), (3, CAROL), "{said}");
    format!("{}:{}", words[1], words[2])
}

fn bash(who: &str, script: &str) -> Output {
    let mut command = people::command(who, "/bin/bash");
    command
        .args(["-c", script])
        .env("HOME", "/tmp")
        .env("REGISTRY_AUTH_FILE", "/tmp/no-auth.json")
        .output()
        .unwrap()
}

fn succeeds(who: &str, script: &str) -> String {
    let output = bash(who, script);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn fails(who: &str, script: &str) -> String {
    let output = bash(who, script);
    assert!(!output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The status of an answer.
fn code(arguments: &str) -> String {
    let script =
        format!("curl --silent --output /dev/null --write-out '%{{http_code}}' --cacert {CA} {arguments}");
    String::from_utf8(bash(MALLORY, &script).stdout).unwrap()
}

const PUSH: &str = "skopeo --insecure-policy copy --quiet";

fn push(credential: &str, reference: &str) -> String {
    succeeds(
        CAROL,
        &format!("{PUSH} --dest-creds {credential} tarball:{SHARED}/layer.tar docker://{reference}"),
    )
}

// ---- the host

/// Trust is set up, until this goes: then nothing of it and of the servers is there any more.
pub struct Trusted;

impl Trusted {
    pub fn up(plain_http: bool) -> Self {
        let this = Self::named("registry.local", "sigstore.local", plain_http);
        for kind in [REGISTRY, SIGNATURES] {
            assert!(deploy(kind).changed);
        }
        start();
        this
    }

    fn named(registry: &str, signatures: &str, plain_http: bool) -> Self {
        let this = Self::nothing();
        init(registry, signatures, plain_http);
        this
    }

    fn nothing() -> Self {
        host::run(Command::new("/bin/bash").args(["-ec", &format!(
            "rm -rf /run/podsec-tests/kept {SHARED}; mkdir -p /run/podsec-tests/kept; mkdir -m 1777 {SHARED}
             for kept in {}; do mkdir -p /run/podsec-tests/kept${{kept%/*}}; [ ! -e $kept ] || cp -a $kept /run/podsec-tests/kept$kept; done
             head -c 3000000 /dev/urandom >{SHARED}/file; tar -C {SHARED} -cf {SHARED}/layer.tar file
             chmod 644 {SHARED}/*",
            KEPT.join(" ")
        )]));
        Self
    }
}

impl Drop for Trusted {
    fn drop(&mut self) {
        for kind in [REGISTRY, SIGNATURES] {
            let request = RemoveServiceRequest { kind: kind.into(), remove_data: true, dry_run: false };
            let _ = block_on(async { client::services().await.remove(request).await });
        }
        host::run(host::tool("start-services").arg("stop"));
        host::run(Command::new("/bin/bash").args(["-ec", &format!(
            "for kept in {}; do rm -rf $kept; [ ! -e /run/podsec-tests/kept$kept ] || cp -a /run/podsec-tests/kept$kept $kept; done
             rm -rf /run/podsec-tests/kept {SHARED}",
            KEPT.join(" ")
        )]));
    }
}

/// All files of the servers', by name; find(1) fails where one of its directories is missing.
fn left() -> Vec<String> {
    let script = format!(
        "find /etc/podsec/services /etc/podsec/ca {STORE} /var/sigstore/sigstore {CA} /etc/containers/certs.d /var/lib/podsec/services.json \
         /run/podsec/services -type f 2>/dev/null | sort"
    );
    host::run(Command::new("/bin/bash").args(["-c", &script])).lines().map(str::to_owned).collect()
}

fn pid(name: &str) -> i32 {
    fs::read_to_string(format!("/run/podsec-tests/{name}.pid")).unwrap().trim().parse().unwrap()
}

/// A server of somebody else's, until it is dropped.
struct Foreign(Child);

impl Foreign {
    fn at(port: u16) -> Self {
        let script = format!(
            "import http.server as h; h.HTTPServer(('0.0.0.0', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
        );
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", &script]).current_dir("/tmp").stdout(Stdio::null()).stderr(Stdio::null());
        let this = Self(command.spawn().unwrap());
        host::wait_for("a foreign server", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        this
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- what people do

fn without_trust_there_is_nothing_to_deploy(_: &mut Oracle) {
    let _nothing = Trusted::nothing();
    for kind in [REGISTRY, SIGNATURES] {
        assert_eq!(reason(&deploy_with(request(kind)).unwrap_err()), "no-trust");
        let state = status(kind);
        assert_eq!((state.health(), state.address.as_str()), (ServiceHealth::NotDeployed, ""));
        assert!(state.detail.contains("service deploy"), "{}", state.detail);
    }
    assert_eq!(credential(CAROL), "not-deployed");
    assert_eq!(left(), Vec::<String>::new());
}

/// Deployed, pushed and pulled, by whoever may.
fn pushed_and_pulled(plain: bool) {
    for kind in [REGISTRY, SIGNATURES] {
        let state = status(kind);
        assert_eq!(state.health(), ServiceHealth::Ok, "{}", state.detail);
        assert_eq!(state.changed_files, Vec::<String>::new());
        assert_eq!(state.certificate_expires == 0, plain);
        // The same again is nothing to do.
        let again = deploy(kind);
        assert!(!again.changed, "{:?}", again.steps);
        assert_eq!(again.warnings.len(), 1, "{:?}", again.warnings);
    }
    let carol = carols();
    let image = "registry.local/team/app:1";
    let push_with =
        |credential: &str| format!("{PUSH} {credential} tarball:{SHARED}/layer.tar docker://{image}");
    for wrong in ["", "--dest-creds carol:wrong", "--dest-creds dave:wrong"] {
        let said = fails(CAROL, &push_with(wrong));
        assert!(said.contains("unauthorized") || said.contains("authentication"), "{wrong}: {said}");
    }
    assert_eq!(status(REGISTRY).size, 0);
    push(&carol, image);
    assert!(status(REGISTRY).size > 2_500_000, "{}", status(REGISTRY).size);
    // Without a password, and with one that is not needed.
    for (who, with) in [(MALLORY, ""), (CAROL, &format!("--src-creds {carol}"))] {
        succeeds(who, &format!("{PUSH} {with} docker://{image} dir:{SHARED}/{who}"));
        assert!(Path::new(SHARED).join(who).join("manifest.json").exists());
    }
    let login = |password: &str| {
        format!(
            "skopeo login --authfile /tmp/auth-carol --username carol --password-stdin registry.local <<<'{password}'"
        )
    };
    assert!(fails(CAROL, &login("wrong")).contains("invalid username/password"));
    succeeds(CAROL, &login(carol.split_once(':').unwrap().1));
    fs::remove_file("/tmp/auth-carol").unwrap();
    // Nobody deletes, not even who may push.
    assert!(fails(CAROL, &format!("skopeo delete --creds {carol} docker://{image}")).contains("405"));
}

fn over_tls(_: &mut Oracle) {
    let planned = {
        let _trusted = Trusted::named("registry.local", "sigstore.local", false);
        let dry = deploy_with(DeployServiceRequest { dry_run: true, ..request(REGISTRY) }).unwrap();
        assert_eq!(left(), Vec::<String>::new(), "a dry run changes nothing");
        let done = deploy(REGISTRY);
        assert!(dry.changed && done.changed);
        assert_eq!(dry.steps, done.steps, "and tells what would be done");
        dry.steps.join("\n")
    };
    for part in
        ["nginx and docker-registry", "certificate authority", "https://registry.local", "0.0.0.0:443"]
    {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    let _trusted = Trusted::up(false);
    pushed_and_pulled(false);
    // No way around the web server.
    let socket = "curl --silent --fail --unix-socket /run/podsec-registry/registry.sock http://x/v2/";
    fails(MALLORY, socket);
    fails(CAROL, socket);
    // nor to what only it reads; nor is any of it root.
    for file in ["registry.pem", "signatures.pem", "htpasswd"] {
        let path = Path::new(CONFIGURATION).join("private").join(file);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640, "{file}");
        for who in [MALLORY, CAROL, "podsec-registry"] {
            fails(who, &format!("cat {}", path.display()));
        }
        succeeds("podsec-web", &format!("cat {}", path.display()));
    }
    let key = fs::metadata("/etc/podsec/ca/ca.key").unwrap();
    assert_eq!((key.mode() & 0o7777, key.uid()), (0o600, 0));
    for name in ["web", "registry"] {
        assert_ne!(fs::metadata(format!("/proc/{}", pid(name))).unwrap().uid(), 0, "{name}");
    }
}

fn over_plain_http(_: &mut Oracle) {
    let _trusted = Trusted::up(true);
    pushed_and_pulled(true);
    assert!(!Path::new(CA).exists() && !Path::new("/etc/podsec/ca").exists(), "no TLS, no authority");
    assert_eq!(code("http://registry.local/v2/"), "200");
    assert_eq!(code("-H 'Host: other.local' http://registry.local/v2/"), "000", "another name");
}

fn both_under_one_name(_: &mut Oracle) {
    for (name, port) in [("both.local", 443), ("both.local:8443", 8443), ("127.0.0.1:5443", 5443)] {
        let _trusted = Trusted::named(name, name, false);
        deploy(REGISTRY);
        deploy(SIGNATURES);
        start();
        for kind in [REGISTRY, SIGNATURES] {
            assert_eq!(status(kind).health(), ServiceHealth::Ok, "{name}: {}", status(kind).detail);
        }
        let host = name.split(':').next().unwrap();
        assert_eq!(code(&format!("https://{host}:{port}/v2/")), "200", "{name}");
        assert_eq!(code(&format!("https://{host}:{port}/ca.crt")), "200", "{name}");
        push(&carols(), &format!("{name}/team/app:1"));
    }
}

fn signatures_are_given_out_and_nothing_else(_: &mut Oracle) {
    let _trusted = Trusted::up(false);
    let tree = Path::new("/var/sigstore");
    let image = format!("sigstore/team/app@sha256={}", "0a".repeat(32));
    fs::create_dir_all(tree.join(&image)).unwrap();
    for (path, bytes) in [("signature-1", "signed"), ("signature-1.new", "half"), ("notes", "x")] {
        fs::write(tree.join(&image).join(path), bytes).unwrap();
    }
    fs::create_dir_all(tree.join("trust")).unwrap();
    fs::write(tree.join("trust/bundle"), "b").unwrap();
    fs::write(tree.join("keys/zed.pgp"), "k").unwrap();
    symlink("/etc/passwd", tree.join(&image).join("signature-2")).unwrap();
    symlink("/etc", tree.join("sigstore/etc")).unwrap();
    symlink("/etc/shadow", tree.join("trust/shadow")).unwrap();
    let get = |path: &str| code(&format!("--path-as-is https://sigstore.local/{path}"));
    for (path, expected) in [
        (&*format!("{image}/signature-1"), "200"),
        ("keys/zed.pgp", "200"),
        ("trust/bundle", "200"),
        ("ca.crt", "200"),
        (&*format!("{image}/signature-2"), "403"),
        (&*format!("{image}/signature-3"), "404"),
        (&*format!("{image}/signature-1.new"), "404"),
        (&*format!("{image}/notes"), "404"),
        (&*format!("{image}/"), "404"),
        ("", "404"),
        ("sigstore/", "404"),
        ("keys/", "404"),
        ("trust/", "404"),
        ("sigstore/etc/passwd", "404"),
        ("trust/shadow", "403"),
        ("keys/../../../etc/passwd", "400"),
        ("keys/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "400"),
        ("trust/..%2f..%2fetc%2fpasswd", "400"),
        ("v2/", "404"),
        ("configuration", "404"),
    ] {
        assert_eq!(get(path), expected, "{path}");
    }
    let file = format!("https://sigstore.local/{image}/signature-1");
    for method in ["PUT --data x", "POST --data x", "DELETE", "MKCOL", "PATCH --data x"] {
        let answer = code(&format!("--request {method} {file}"));
        assert!(["403", "405"].contains(&&*answer), "{method}: {answer}");
    }
    assert_eq!(fs::read(tree.join(&image).join("signature-1")).unwrap(), b"signed");
    // Nothing more about the server than its kind.
    let head = succeeds(MALLORY, &format!("curl --silent --head --cacert {CA} {file}"));
    assert!(head.contains("Server: nginx\r"), "{head}");

    // And that is where podman and skopeo look, with the registry's authority.
    let (gpg, carol) = (format!("GNUPGHOME={SHARED}/gnupg"), carols());
    push(&carol, "registry.local/team/app:1");
    let signed = succeeds(CAROL, &format!(
        "set -e; export {gpg}; mkdir -m 700 {SHARED}/gnupg; cd {SHARED}
         gpg --batch --quiet --passphrase '' --quick-generate-key 'C <c@x.y>' rsa3072 sign 1y 2>/dev/null; gpg --export >c.pgp
         skopeo inspect --raw docker://registry.local/team/app:1 >manifest
         skopeo standalone-sign manifest registry.local/team/app:1 $(gpg --with-colons --list-keys | awk -F: '/^fpr/ {{ print $10; exit }}') -o signature >/dev/null
         gpgconf --kill all; sha256sum <manifest"));
    fs::write(format!("{SHARED}/policy"), format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"registry.local":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{SHARED}/c.pgp"}}]}}}}}}"#
    )).unwrap();
    let pull = format!(
        "skopeo --policy {SHARED}/policy copy --quiet docker://registry.local/team/app:1 dir:{SHARED}/pulled"
    );
    assert!(fails(DAVE, &pull).contains("no signature exists"));
    let place = tree.join(format!("sigstore/team/app@sha256={}", signed.split_whitespace().next().unwrap()));
    fs::create_dir_all(&place).unwrap();
    fs::copy(format!("{SHARED}/signature"), place.join("signature-1")).unwrap();
    fs::set_permissions(place.join("signature-1"), fs::Permissions::from_mode(0o644)).unwrap();
    succeeds(DAVE, &pull);
}

fn the_authority_vouches_for_these_names_only(_: &mut Oracle) {
    let _trusted = Trusted::up(false);
    assert_eq!(code("https://registry.local/v2/"), "200");
    for (host, resolve) in [("other.local", "--resolve other.local:443:127.0.0.1"), ("127.0.0.1", "")] {
        let said =
            fails(MALLORY, &format!("curl --silent --show-error --cacert {CA} {resolve} https://{host}/v2/"));
        assert!(said.contains("(35)") || said.contains("unrecognized name"), "{host}: {said}");
    }
    // Without the authority nobody believes it.
    assert!(fails(MALLORY, "curl --silent --show-error https://registry.local/v2/").contains("(60)"));
    fails(MALLORY, "curl --silent --show-error --tls-max 1.1 https://registry.local/v2/");
    // A certificate that the authority's key makes for another name is worth nothing.
    let said = host::run(Command::new("/bin/bash").args(["-c", &format!(
        "cd {SHARED}; openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 >k 2>/dev/null
         printf '[req]\\nprompt=no\\ndistinguished_name=d\\n[d]\\nCN=x\\n[e]\\nsubjectAltName=%s\\n' DNS:www.example.org >c
         openssl req -new -config c -key k | openssl x509 -req -CA /etc/podsec/ca/ca.crt -CAkey /etc/podsec/ca/ca.key -set_serial 1 -extfile c -extensions e 2>/dev/null >x
         openssl verify -CAfile {CA} x 2>&1; true"
    )]));
    assert!(said.contains("permitted subtree violation"), "{said}");
}

fn certificates_are_renewed(_: &mut Oracle) {
    let _trusted = Trusted::up(false);
    let pem = format!("{CONFIGURATION}/private/registry.pem");
    let year = 365 * 86_400;
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let left = |state: &ServiceState| state.certificate_expires - now();
    let before = status(REGISTRY);
    assert!((396 * 86_400..=397 * 86_400).contains(&left(&before)), "{}", left(&before));
    let old = fs::read(&pem).unwrap();
    // One that ends in 20 days, by the same authority.
    host::run(Command::new("/bin/bash").args(["-ec", &format!(
        "cd {SHARED}; openssl req -new -config {CONFIGURATION}/registry.cnf -key {pem} |
         openssl x509 -req -days 20 -CA /etc/podsec/ca/ca.crt -CAkey /etc/podsec/ca/ca.key -set_serial 1 -extfile {CONFIGURATION}/registry.cnf -extensions extensions >x 2>/dev/null
         openssl pkey -in {pem} >>x; cat x >{pem}"
    )]));
    let soon = status(REGISTRY);
    assert!(left(&soon) < 21 * 86_400 && soon.detail.contains("expires soon"), "{}", soon.detail);
    assert_eq!(soon.changed_files, [pem.as_str()], "and it is not podsec's");
    let told = deploy(REGISTRY);
    assert!(
        told.steps.iter().any(|step| step.contains("make a certificate of registry.local")),
        "{:?}",
        told.steps
    );
    assert!(left(&status(REGISTRY)) > year && fs::read(&pem).unwrap() != old);
    assert_eq!(status(REGISTRY).health(), ServiceHealth::Down, "the web server has not read it yet");
    start();
    assert_eq!(status(REGISTRY).health(), ServiceHealth::Ok);

    // Other names, another authority; the other server follows.
    let ca = fs::read(CA).unwrap();
    init("registry.example.org:5443", "sigstore.local", false);
    assert!(status(REGISTRY).detail.contains("trust has other settings"), "{}", status(REGISTRY).detail);
    let told = deploy(REGISTRY);
    assert!(told.steps.iter().any(|step| step.contains("anew")), "{:?}", told.steps);
    start();
    assert_ne!(fs::read(CA).unwrap(), ca);
    assert_eq!(code("https://registry.example.org:5443/v2/"), "200");
    assert_eq!(code("https://sigstore.local/ca.crt"), "200");
    assert!(
        !Path::new("/etc/containers/certs.d/registry.local").exists(),
        "nobody trusts it under the old name"
    );
    for kind in [REGISTRY, SIGNATURES] {
        assert_eq!(status(kind).health(), ServiceHealth::Ok, "{}", status(kind).detail);
    }
}

fn what_the_port_is_in_use_by(_: &mut Oracle) {
    let _trusted = Trusted::named("registry.local:8443", "sigstore.local", false);
    let mut foreign = Foreign::at(8443);
    let refused = deploy_with(request(REGISTRY)).unwrap_err();
    assert_eq!(reason(&refused), "port-in-use");
    assert!(
        refused.message().contains("0.0.0.0:8443") && refused.message().contains("root (uid 0)"),
        "{refused:?}"
    );
    assert_eq!(left(), Vec::<String>::new());
    // Another port, or one that is free by now.
    let moved = deploy_with(DeployServiceRequest { port: 9443, ..request(REGISTRY) }).unwrap();
    assert!(moved.warnings.iter().any(|warning| warning.contains("8443")), "{:?}", moved.warnings);
    start();
    assert_eq!(code("--resolve registry.local:9443:127.0.0.1 https://registry.local:9443/v2/"), "200");
    assert_eq!(reason(&deploy_with(request(REGISTRY)).unwrap_err()), "port-in-use");
    assert_eq!(status(REGISTRY).health(), ServiceHealth::Ok, "what was there stays");
    // It has come to no harm.
    assert_eq!(code("http://127.0.0.1:8443/"), "200");
    assert!(foreign.0.try_wait().unwrap().is_none());
    drop(foreign);
    deploy(REGISTRY);
    start();
    assert_eq!(status(REGISTRY).health(), ServiceHealth::Ok, "{}", status(REGISTRY).detail);

    // One that came while podsec's was down.
    host::run(host::tool("start-services").arg("stop"));
    let _foreign = Foreign::at(8443);
    let state = status(REGISTRY);
    assert_eq!(state.health(), ServiceHealth::Foreign);
    assert!(state.detail.contains("8443") && state.detail.contains("not podsec's"), "{}", state.detail);
}

/// nginx, or docker-registry, replaced by what says no.
struct Refusing(&'static str);

impl Refusing {
    fn install(program: &'static str) -> Self {
        fs::rename(program, format!("{program}.real")).unwrap();
        fs::write(program, "#!/bin/sh\necho 'nginx: [emerg] unknown directive \"frobnicate\"' >&2\nexit 1\n")
            .unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        Self(program)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        fs::rename(format!("{}.real", self.0), self.0).unwrap();
    }
}

fn a_configuration_that_nginx_refuses(_: &mut Oracle) {
    let _trusted = Trusted::named("registry.local", "sigstore.local", false);
    for program in ["/usr/sbin/nginx", "/usr/bin/docker-registry"] {
        let _refusing = Refusing::install(program);
        let refused = deploy_with(request(REGISTRY)).unwrap_err();
        assert_eq!(reason(&refused), "service-config", "{program}");
        assert!(refused.message().contains("unknown directive"), "{refused:?}");
        assert_eq!(left(), Vec::<String>::new(), "{program}: nothing was changed");
    }
    deploy(REGISTRY);
    start();
    let before: Vec<Vec<u8>> = left().iter().map(|path| fs::read(path).unwrap()).collect();
    {
        let _refusing = Refusing::install("/usr/sbin/nginx");
        assert_eq!(reason(&deploy_with(request(SIGNATURES)).unwrap_err()), "service-config");
    }
    let after: Vec<Vec<u8>> = left().iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after, "the old configuration stays: {:?}", left());
    assert_eq!(status(REGISTRY).health(), ServiceHealth::Ok);
    assert_eq!(status(SIGNATURES).health(), ServiceHealth::NotDeployed);
    // Where it is not installed at all.
    fs::rename("/usr/sbin/nginx", "/usr/sbin/nginx.away").unwrap();
    let refused = deploy_with(request(SIGNATURES));
    fs::rename("/usr/sbin/nginx.away", "/usr/sbin/nginx").unwrap();
    assert_eq!(reason(&refused.unwrap_err()), "unsupported");
}

fn status_tells_the_truth(_: &mut Oracle) {
    let _trusted = Trusted::up(false);
    let health = |kind| (status(kind).health(), status(kind).detail);
    host::kill(pid("registry"), "KILL");
    host::wait_for("its end", || !host::is_alive(pid("registry")));
    let (state, detail) = health(REGISTRY);
    assert_eq!(state, ServiceHealth::Down);
    assert!(detail.contains("502") && detail.contains("podsec-registry.service"), "{detail}");
    assert_eq!(health(SIGNATURES).0, ServiceHealth::Ok);
    // With its workers, as systemd would.
    host::run(Command::new("/bin/kill").args(["-KILL", "--", &format!("-{}", pid("web"))]));
    host::wait_for("its end", || !host::is_alive(pid("web")));
    for kind in [REGISTRY, SIGNATURES] {
        let (state, detail) = health(kind);
        assert_eq!(state, ServiceHealth::Down);
        assert!(detail.contains("podsec-web.service does not run"), "{detail}");
    }
    start();
    assert_eq!(health(REGISTRY).0, ServiceHealth::Ok);

    // What somebody changed by hand.
    for (file, kinds) in [("registry.yml", &[REGISTRY][..]), ("nginx.conf", &[REGISTRY, SIGNATURES])] {
        let path = format!("{CONFIGURATION}/{file}");
        let edited = host::Edited::with(&path, |text| format!("{text}# mine\n"));
        for kind in kinds {
            assert_eq!(status(*kind).changed_files, [path.as_str()]);
        }
        assert!(deploy(REGISTRY).changed, "is undone by the next deploy");
        assert_eq!(status(REGISTRY).changed_files, Vec::<String>::new());
        drop(edited);
    }
    assert!(!deploy(REGISTRY).changed);
    // The store of signatures out of reach.
    fs::rename("/var/sigstore/sigstore", "/var/sigstore/away").unwrap();
    let (state, detail) = health(SIGNATURES);
    fs::rename("/var/sigstore/away", "/var/sigstore/sigstore").unwrap();
    assert_eq!(state, ServiceHealth::Down);
    assert!(detail.contains("503"), "{detail}");
}

fn passwords(oracle: &mut Oracle) {
    let _trusted = Trusted::up(false);
    let (first, second) = (carols(), carols());
    assert_ne!(first, second);
    let password = second.split_once(':').unwrap().1;
    assert!(password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit()), "{second}");
    let works = |credential: &str| code(&format!("--user {credential} https://registry.local/v2/"));
    assert_eq!((works(&first), works(&second)), ("401".into(), "200".into()), "the old one is gone");
    let file = fs::read_to_string(format!("{CONFIGURATION}/private/htpasswd")).unwrap();
    assert_eq!(file.lines().count(), 1);
    assert!(file.starts_with("carol:$6$") && !file.contains(password), "{file}");
    // Nowhere but with her.
    let audit = format!("{:?}", oracle.audit());
    assert!(audit.contains("ServiceService/NewCredential") && !audit.contains(password));
    let nowhere =
        format!("grep -rlF {password} /etc/podsec /var/lib/podsec /var/log/podsec /run/podsec; true");
    assert_eq!(succeeds(ROOT, &nowhere), "");
}

fn who_may(_: &mut Oracle) {
    let _trusted = Trusted::up(false);
    for who in [MALLORY, DAVE, ALICE, "u7s-admin"] {
        assert_eq!(credential(who), "not-authorised", "{who} is no creator");
    }
    assert!(credential(CAROL).starts_with("registry.local carol "));
}

fn removed_without_and_with_data(_: &mut Oracle) {
    let trusted = Trusted::up(false);
    push(&carols(), "registry.local/team/app:1");
    assert!(remove(REGISTRY, false).changed);
    start();
    assert_eq!(status(REGISTRY).health(), ServiceHealth::NotDeployed);
    assert_eq!(status(SIGNATURES).health(), ServiceHealth::Ok, "{}", status(SIGNATURES).detail);
    assert_eq!(code("https://sigstore.local/ca.crt"), "200");
    assert_eq!(code("https://registry.local/v2/"), "000");
    assert!(!remove(REGISTRY, false).changed);
    // Images and passwords have stayed.
    deploy(REGISTRY);
    start();
    succeeds(MALLORY, &format!("{PUSH} docker://registry.local/team/app:1 dir:{SHARED}/again"));
    let carol = fs::read_to_string(format!("{CONFIGURATION}/private/htpasswd")).unwrap();
    assert!(carol.starts_with("carol:"), "{carol}");

    fs::create_dir_all(format!("/var/sigstore/sigstore/a@sha256={}", "0".repeat(64))).unwrap();
    fs::create_dir_all("/var/lib/podsec/signatures/carol").unwrap();
    fs::write("/var/lib/podsec/signatures/carol/x.json", "{}").unwrap();
    assert!(remove(SIGNATURES, true).changed && remove(REGISTRY, true).changed);
    assert_eq!(left(), Vec::<String>::new());
    for directory in
        [STORE, "/etc/podsec/services/private", "/var/sigstore/sigstore", "/var/lib/podsec/signatures"]
    {
        let is_empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        assert!(is_empty, "{directory}");
    }
    assert!(
        !Path::new("/etc/podsec/ca").exists()
            && !Path::new("/etc/containers/certs.d/registry.local").exists()
    );
    assert!(!remove(REGISTRY, true).changed);
    drop(trusted);
}
