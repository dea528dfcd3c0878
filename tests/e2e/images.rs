//! Images as archives: saved from a registry, looked at, loaded into another, by a creator without any privilege; interrupted
//! and gone on with; archives of the old form; and archives that were made to do harm.

use crate::Test;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, ROOT};
use podsec_tests::terminal::Terminal;
use podsec_tests::{host, oracle};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("images::", stringify!($test)), $test),)*];
    };
}

tests! {
    saved_and_loaded_and_the_same
    into_his_own_store
    an_interrupted_save_goes_on
    an_interrupted_load_goes_on
    what_fails_does_not_stop_the_rest
    archives_of_older_podsecs
    images_of_a_kubernetes_version
    hostile_archives
    bombs
    an_image_points_nowhere_else
    not_as_root
}

/// A creator of images, who makes them all.
const INES: &str = "ines";
const HOME: &str = "/home/ines";
const PORT: u16 = 5055;

// ---- people, servers and images

/// Ines, and a registry without TLS. Both are gone when this is.
struct Site(Child);

impl Site {
    fn new() -> Self {
        people::ctl(
            ALICE,
            &["user", "create", INES, "--category", "image-creator", "--scope", "registry.local/ines"],
        );
        let directory = Path::new("/run/podsec-tests/images");
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{PORT}\"}}\n",
            directory.join("store").display()
        );
        fs::write(directory.join("config.yml"), config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut registry = Command::new("/usr/bin/docker-registry");
        registry.arg("serve").arg(directory.join("config.yml")).stdin(Stdio::null());
        let site = Self(registry.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        host::wait_for("the registry", || TcpStream::connect(("127.0.0.1", PORT)).is_ok());
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        people::podsecctl(ROOT, &["user", "delete", INES, "--remove-home", "--yes"]);
        let _ = fs::remove_dir_all("/run/podsec-tests/images");
    }
}

/// Where a repository is, for whoever asks the registry itself.
fn at(path: &str) -> String {
    format!("127.0.0.1:{PORT}/{path}")
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", podsec_policy::audit::hex(&Sha256::digest(bytes)))
}

/// An OCI layout in the making.
struct Layout {
    path: PathBuf,
    entries: Vec<Value>,
}

impl Layout {
    fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(path.join("blobs/sha256")).unwrap();
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { path, entries: Vec::new() }
    }

    fn put(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        fs::write(self.path.join("blobs/sha256").join(&digest[7..]), bytes).unwrap();
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len() })
    }

    /// One image of one layer, in which a file of that size is that nothing compresses.
    fn image(&self, name: &str, architecture: &str, size: usize, edit: impl Fn(&mut Value)) -> Value {
        let mut hash = Sha256::digest(format!("{name} {architecture}")).to_vec();
        let mut noise = Vec::with_capacity(size + 32);
        while noise.len() < size {
            noise.extend(&hash);
            hash = Sha256::digest(&hash).to_vec();
        }
        let place = self.path.join("file");
        fs::write(&place, &noise).unwrap();
        let mut tar = Command::new("/usr/bin/tar");
        tar.args(["-c", "--owner=0", "--group=0", "--mtime=@0", "file"]).current_dir(&self.path);
        let layer = tar.output().unwrap().stdout;
        fs::remove_file(place).unwrap();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.put("config.v1+json", config.to_string().as_bytes()),
            "layers": [self.put("layer.v1.tar", &layer)],
        });
        edit(&mut manifest);
        let mut entry = self.put("manifest.v1+json", manifest.to_string().as_bytes());
        entry["platform"] = json!({ "architecture": architecture, "os": "linux" });
        entry
    }

    fn name(&mut self, name: &str, mut entry: Value) -> &mut Self {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        self.entries.push(entry);
        let index = json!({ "schemaVersion": 2, "manifests": self.entries });
        fs::write(self.path.join("index.json"), index.to_string()).unwrap();
        self
    }

    fn add(&mut self, name: &str, architecture: &str, size: usize) -> &mut Self {
        let entry = self.image(name, architecture, size, |_| ());
        self.name(name, entry)
    }

    fn add_list(&mut self, name: &str, architectures: &[&str], size: usize) -> &mut Self {
        let images: Vec<_> =
            architectures.iter().map(|architecture| self.image(name, architecture, size, |_| ())).collect();
        let list = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": images,
        });
        let entry = self.put("index.v1+json", list.to_string().as_bytes());
        self.name(name, entry)
    }

    /// To the registry, byte for byte, by skopeo alone.
    fn publish(&self, below: &str) {
        for entry in &self.entries {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
            let (from, to) =
                (format!("oci:{}:{name}", self.path.display()), format!("docker://{}/{name}", at(below)));
            let options = ["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"];
            host::run(
                Command::new("/usr/bin/skopeo").arg("--insecure-policy").args(options).args([from, to]),
            );
        }
    }
}

/// A directory that is gone when this is.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = PathBuf::from("/tmp/images-test");
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn layout(&self, name: &str) -> Layout {
        Layout::new(self.0.join(name))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the registry has there, read by skopeo: nothing where there is nothing.
fn manifest(reference: &str) -> Option<Vec<u8>> {
    let mut skopeo = Command::new("/usr/bin/skopeo");
    let output = skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]);
    let output = output.stdin(Stdio::null()).output().unwrap();
    output.status.success().then_some(output.stdout)
}

/// The digests of its images, by architecture.
fn instances(reference: &str) -> Vec<(String, String)> {
    let list: Value = serde_json::from_slice(&manifest(reference).expect(reference)).unwrap();
    let entries = list["manifests"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    entries.iter().map(|entry| (text(&entry["platform"]["architecture"]), text(&entry["digest"]))).collect()
}

// ---- what ines types

fn command(line: &str) -> Command {
    let mut command = people::command(INES, "/usr/bin/podsecctl");
    command.current_dir(HOME).arg("image").args(line.split_whitespace());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// What she sees.
fn image(line: &str) -> (i32, String) {
    let output = command(line).output().unwrap();
    (output.status.code().unwrap_or(-1), text(&output))
}

/// What a program of hers reads, and the status.
fn asked(line: &str) -> (i32, Value) {
    let output = command(line).arg("--json").output().unwrap();
    let status = output.status.code().unwrap_or(-1);
    let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    (
        status,
        serde_json::from_slice(said).unwrap_or_else(|error| panic!("{line}: {error}: {}", text(&output))),
    )
}

fn done(line: &str) -> Value {
    let (status, told) = asked(line);
    assert_eq!(status, 0, "{line}: {told}");
    told
}

/// One field of each image of a report.
fn of_each(told: &Value, field: &str) -> Vec<String> {
    let images = told["images"].as_array().unwrap_or_else(|| panic!("{told}"));
    images.iter().map(|image| image[field].as_str().unwrap_or_default().to_owned()).collect()
}

fn his(path: &str) -> String {
    format!("{HOME}/{path}")
}

/// What is left in directories for what is unpacked.
fn left() -> Vec<PathBuf> {
    let entries = fs::read_dir("/var/tmp").unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("podsec-image-")).collect()
}

fn programs(name: &str) -> usize {
    let output = Command::new("/usr/bin/pgrep").args(["-x", name]).output().unwrap();
    let pids = String::from_utf8(output.stdout).unwrap();
    pids.split_whitespace().filter(|pid| host::is_alive(pid.parse().unwrap())).count()
}

/// Given to ines, so that she may read it.
fn hand_over(from: &Path, name: &str) -> String {
    let to = his(name);
    fs::copy(from, &to).unwrap();
    host::run(Command::new("/bin/chown").args([INES, &to]));
    to
}

// ---- a line between her and the registry, that can be blocked

struct Line {
    port: u16,
    passed: Arc<AtomicU64>,
    open_until: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    /// Lets so many bytes through, in both directions together.
    fn new(open_until: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            passed: Arc::default(),
            open_until: Arc::new(open_until.into()),
            is_over: Arc::default(),
            streams: Arc::default(),
        };
        let streams = Arc::clone(&line.streams);
        let (passed, open, over) =
            (Arc::clone(&line.passed), Arc::clone(&line.open_until), Arc::clone(&line.is_over));
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let server = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
                let both = [&client, &server].map(|stream| stream.try_clone().unwrap());
                streams.lock().unwrap().extend(both);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let counters = (Arc::clone(&passed), Arc::clone(&open), Arc::clone(&over));
                    std::thread::spawn(move || carry(from, to, counters));
                }
            }
        });
        line
    }

    /// The same repository as [`at`] says, by this line.
    fn to(&self, path: &str) -> String {
        format!("127.0.0.1:{}/{path}", self.port)
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    fn wait_until_blocked(&self) {
        host::wait_for("the line to be blocked", || self.passed() >= self.open_until.load(Ordering::Relaxed));
    }

    /// For whoever comes now.
    fn open(&self) {
        // What the old ones have sent is on its way still.
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.passed.store(0, Ordering::Relaxed);
        self.open_until.store(u64::MAX, Ordering::Relaxed);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port)));
    }
}

fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    (passed, open, over): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicBool>),
) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut bytes) {
        passed.fetch_add(count as u64, Ordering::Relaxed);
        while passed.load(Ordering::Relaxed) > open.load(Ordering::Relaxed) && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Ends a podsecctl as a person does, or as nothing can be prepared for, and waits.
fn end(mut child: Child, signal: &str) {
    let pid = i32::try_from(child.id()).unwrap();
    let started = host::run(Command::new("/usr/bin/pgrep").args(["-P", &pid.to_string()]));
    host::kill(pid, signal);
    let status = child.wait().unwrap();
    if signal == "KILL" {
        // With what it started, as when the power goes.
        started.split_whitespace().for_each(|skopeo| host::kill(skopeo.parse().unwrap(), "KILL"));
    }
    assert!(!status.success(), "{status}");
    host::wait_for("no skopeo", || programs("skopeo") == 0);
}

// ---- what people do

fn saved_and_loaded_and_the_same(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("source");
    layout.add_list("pause:3.10", &["amd64", "arm64"], 100_000);
    layout.add_list("coredns/coredns:v1", &["amd64", "arm64"], 100_000);
    layout.publish("up");
    let sources = format!("{} {}", at("up/pause:3.10"), at("up/coredns/coredns:v1"));
    let save = format!("save --tls-verify=false --arch amd64,arm64 {sources}");

    let told = done(&format!("{save} --output one"));
    assert_eq!(of_each(&told, "result"), ["saved"; 4]);
    let archives: Vec<_> =
        told["archives"].as_array().unwrap().iter().map(|archive| archive["path"].clone()).collect();
    assert_eq!(archives, [his("one/amd64.tar.zst"), his("one/arm64.tar.zst")]);
    let names: Vec<_> = fs::read_dir(his("one")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // Again, the same bytes; and the same in xz.
    done(&format!("{save} --output two"));
    for name in ["amd64.tar.zst", "arm64.tar.zst"] {
        assert!(
            fs::read(his("one").to_owned() + "/" + name).unwrap()
                == fs::read(his("two") + "/" + name).unwrap()
        );
    }
    done(&format!("{save} --output three --compress xz"));
    assert!(fs::read(his("three/arm64.tar.xz")).unwrap().starts_with(b"\xfd7zXZ"));
    let (status, told) = asked(&format!("{save} --output one"));
    assert_eq!((status, told["error"]["reason"].as_str()), (78, Some("exists")));
    done(&format!("{save} --output one --force"));

    for (path, architecture) in [("one/amd64.tar.zst", "amd64"), ("three/arm64.tar.xz", "arm64")] {
        let told = done(&format!("list {path}"));
        assert_eq!(of_each(&told, "name"), ["up/coredns/coredns:v1", "up/pause:3.10"]);
        assert_eq!(of_each(&told, "architecture"), [architecture; 2]);
        for (name, digest) in of_each(&told, "name").into_iter().zip(of_each(&told, "digest")) {
            assert!(instances(&at(&name)).contains(&(architecture.into(), digest)), "{name}");
        }
        let told = done(&format!("verify {path}"));
        assert_eq!((told["whole"].as_bool(), told["blobs"].as_u64()), (Some(true), Some(6)));
    }

    // One archive: the images as they were. Both: one image for all architectures.
    let load = "load --tls-verify=false --to";
    done(&format!("{load} {} one/arm64.tar.zst", at("arm64")));
    done(&format!("{load} {} three/amd64.tar.xz one/arm64.tar.zst --only pause:3.10 --strip 1", at("both")));
    for (architecture, source) in instances(&at("up/pause:3.10")) {
        if architecture == "arm64" {
            assert_eq!(digest(&manifest(&at("arm64/up/pause:3.10")).unwrap()), source);
        }
        assert!(instances(&at("both/pause:3.10")).contains(&(architecture, source)));
    }
    assert_eq!(manifest(&at("both/coredns/coredns:v1")), None);
    // A registry runs what it was given, for whoever it is for.
    let told = done(&format!("{load} {} one/arm64.tar.zst", at("arm64")));
    assert_eq!(of_each(&told, "result"), ["was there"; 2]);
    let (status, said) = image(&format!("{load} {} one/amd64.tar.zst", at("arm64")));
    assert!(status == 78 && said.contains("is there for arm64 and would be for amd64 only"), "{said}");
    done(&format!("{load} {} one/amd64.tar.zst --replace", at("arm64")));
    let (_, said) = image(&format!("{load} {} one/amd64.tar.zst --dry-run", at("nowhere")));
    assert!(said.contains(&format!("would load docker://{} (amd64)", at("nowhere/up/pause:3.10"))), "{said}");
    assert_eq!(manifest(&at("nowhere/up/pause:3.10")), None);
    assert_eq!(left(), Vec::<PathBuf>::new());
}

fn into_his_own_store(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    place.layout("source").add("app:1", "amd64", 10_000).publish("up");
    done(&format!("save --tls-verify=false --arch amd64 {}", at("up/app:1")));
    let told = done("load --to containers-storage: amd64.tar.zst");
    assert_eq!(of_each(&told, "destination"), ["containers-storage:localhost/up/app:1"]);
    // And from there: under another name, which is all that is different.
    done("save --arch amd64 --output again team/app:2=containers-storage:localhost/up/app:1");
    let (first, again) = (done("list amd64.tar.zst"), done("list again/amd64.tar.zst"));
    assert_eq!(of_each(&again, "name"), ["team/app:2"]);
    assert_eq!(of_each(&again, "digest"), of_each(&first, "digest"));
}

fn an_interrupted_save_goes_on(_: &mut Oracle) {
    const SIZE: usize = 4 << 20;
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("source");
    for name in ["a:1", "b:1", "c:1"] {
        layout.add_list(name, &["amd64", "arm64"], SIZE);
    }
    layout.publish("up");
    for signal in ["INT", "TERM", "KILL"] {
        // In the second of six layers.
        let line = Line::new(SIZE as u64 * 3 / 2);
        let names = ["a:1", "b:1", "c:1"].map(|name| line.to(&format!("up/{name}"))).join(" ");
        let save = format!("save --tls-verify=false --arch amd64,arm64 --output {signal} {names}");
        let child = command(&save).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        line.wait_until_blocked();
        let (status, told) = asked(&save);
        assert_eq!((status, told["error"]["reason"].as_str()), (75, Some("busy")));
        end(child, signal);
        let archives = fs::read_dir(his(signal)).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(archives.collect::<Vec<_>>(), [".amd64.unfinished"]);
        line.open();
        assert_eq!(of_each(&done(&save), "result"), ["saved"; 6]);
        let again = line.passed();
        assert!(
            again < SIZE as u64 * 6 && again > SIZE as u64 * 4,
            "{signal}: {again} bytes, of which one layer was there"
        );
        for architecture in ["amd64", "arm64"] {
            done(&format!("verify {signal}/{architecture}.tar.zst"));
        }
        assert_eq!(fs::read_dir(his(signal)).unwrap().count(), 2);
    }

    // Between the archives of two architectures: the first is not made again, and no --force is needed.
    let line = Line::new(SIZE as u64 * 9 / 2);
    let names = ["a:1", "b:1", "c:1"].map(|name| line.to(&format!("up/{name}"))).join(" ");
    let save = format!("save --tls-verify=false --arch amd64,arm64 --output between {names}");
    let child = command(&save).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    line.wait_until_blocked();
    let first = fs::metadata(his("between/amd64.tar.zst")).unwrap().modified().unwrap();
    end(child, "TERM");
    line.open();
    let (status, told) =
        asked(&format!("save --tls-verify=false --arch amd64 --output between {}", line.to("up/a:1")));
    assert_eq!((status, told["error"]["reason"].as_str()), (78, Some("exists")), "another save");
    let told = done(&save);
    assert_eq!(of_each(&told, "result"), ["was saved", "was saved", "was saved", "saved", "saved", "saved"]);
    assert_eq!(fs::metadata(his("between/amd64.tar.zst")).unwrap().modified().unwrap(), first);
    assert_eq!(fs::read_dir(his("between")).unwrap().count(), 2);
}

fn an_interrupted_load_goes_on(_: &mut Oracle) {
    const SIZE: usize = 4 << 20;
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("source");
    layout.add("a:1", "amd64", SIZE).add("b:1", "amd64", SIZE).publish("up");
    done(&format!("save --tls-verify=false --arch amd64 {} {}", at("up/a:1"), at("up/b:1")));
    for signal in ["INT", "TERM", "KILL"] {
        let line = Line::new(SIZE as u64 * 3 / 2);
        let to = signal.to_lowercase();
        let load = format!("load --tls-verify=false --strip 1 amd64.tar.zst --to {}", line.to(&to));
        let child = command(&load).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        line.wait_until_blocked();
        assert_eq!(left().len(), 1);
        end(child, signal);
        assert_eq!(manifest(&at(&format!("{to}/b:1"))), None);
        if signal == "KILL" {
            // Nobody could clear up; who comes later does.
            let [path] = &left()[..] else { panic!("{:?}", left()) };
            host::run(Command::new("/usr/bin/touch").args(["-d", "-1 hour"]).arg(path));
        } else {
            assert_eq!(left(), Vec::<PathBuf>::new(), "{signal}");
        }
        line.open();
        assert_eq!(of_each(&done(&load), "result"), ["was there", "loaded"]);
        assert!(line.passed() < SIZE as u64 * 3 / 2, "{signal}: {} bytes", line.passed());
        assert_eq!(left(), Vec::<PathBuf>::new(), "{signal}");
        for name in ["a:1", "b:1"] {
            assert_eq!(manifest(&at(&format!("{to}/{name}"))), manifest(&at(&format!("up/{name}"))));
        }
    }

    // On a terminal he sees how far it is, and ^C ends it.
    let line = Line::new(SIZE as u64 / 2);
    let mut podsecctl = command("load --tls-verify=false --strip 1");
    podsecctl.args([&his("amd64.tar.zst"), "--to", &line.to("shown")]);
    let mut terminal = Terminal::of(INES, &podsecctl);
    terminal.sees(" of 4.0 MiB  a:1, 1 of 2");
    terminal.types("\x03");
    assert_eq!(terminal.ends().0, 130);
    host::wait_for("no skopeo", || programs("skopeo") == 0);
    assert_eq!(left(), Vec::<PathBuf>::new());
}

fn what_fails_does_not_stop_the_rest(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("source");
    layout.add_list("a:1", &["amd64", "arm64"], 1000).add("one:1", "amd64", 1000).publish("up");
    let [a, one, none] = ["up/a:1", "up/one:1", "up/none:1"].map(at);
    let save = format!("save --tls-verify=false {none} {one} {a}");
    // An image that is no list would be taken for any architecture.
    let (status, told) = asked(&format!("{save} --arch arm64 --output x"));
    assert_eq!((status, of_each(&told, "result")), (74, vec![String::new(), String::new(), "saved".into()]));
    assert!(told["images"][0]["error"]["message"].as_str().unwrap().contains("manifest unknown"), "{told}");
    assert_eq!(told["images"][1]["error"]["message"], "it is for linux/amd64, and not for linux/arm64");
    assert!(told["archives"].as_array().unwrap().is_empty() && !Path::new(&his("x/arm64.tar.zst")).exists());
    let (status, told) = asked(&format!("{save} --arch arm64 --output x --partial"));
    assert_eq!((status, told["archives"][0]["images"].as_u64()), (74, Some(1)));
    assert_eq!(of_each(&done("list x/arm64.tar.zst"), "name"), ["up/a:1"]);
    // All that there are of each.
    let told = done(&format!("save --tls-verify=false {one} {a} --arch all --output all"));
    assert_eq!(of_each(&told, "architecture"), ["amd64", "amd64", "arm64"]);
    let (status, told) = asked(&format!("{save} --arch all --output y"));
    assert_eq!((status, told["archives"].as_array().unwrap().len()), (74, 0));
    // By its digest, though the tag has moved.
    let digest = digest(&manifest(&one).unwrap());
    place.layout("moved").add("one:1", "arm64", 2000).publish("up");
    let told = done(&format!("save --tls-verify=false --arch amd64 --output z {one}@{digest}"));
    assert_eq!((of_each(&told, "name"), of_each(&told, "digest")), (vec!["up/one:1".into()], vec![digest]));
}

fn archives_of_older_podsecs(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("amd64");
    layout.add("c10f/pause:3.10", "amd64", 1000).add("c10f/coredns:v1", "amd64", 1000);
    // As they were made: by tar and xz.
    let mut tar = Command::new("/usr/bin/tar");
    host::run(tar.args(["-cJf", "amd64.tar.xz", "amd64"]).current_dir(&place.0));
    let archive = hand_over(&place.0.join("amd64.tar.xz"), "amd64.tar.xz");
    assert_eq!(of_each(&done(&format!("list {archive}")), "name"), ["c10f/coredns:v1", "c10f/pause:3.10"]);
    done(&format!("verify {archive}"));
    let load = "load --tls-verify=false amd64.tar.xz --arch amd64";
    done(&format!("{load} --to {}", at("old")));
    done(&format!("{load} --to {} --strip 1 --only pause:3.10", at("old/p11")));
    let digest = |entry: usize| layout.entries[entry]["digest"].as_str().unwrap().to_owned();
    let pushed = |name: &str| self::digest(&manifest(&at(name)).expect(name));
    assert_eq!(pushed("old/c10f/pause:3.10"), digest(0));
    assert_eq!(pushed("old/c10f/coredns:v1"), digest(1));
    assert_eq!(pushed("old/p11/pause:3.10"), digest(0));
    let (status, _) = image(&format!("load --tls-verify=false amd64.tar.xz --arch arm64 --to {}", at("old")));
    assert_eq!(status, 2);
    // And what is saved now is read by what they were read by.
    done(&format!(
        "save --tls-verify=false --arch amd64 --compress xz --output new {}",
        at("old/c10f/pause:3.10")
    ));
    let new = place.0.join("new");
    fs::create_dir(&new).unwrap();
    host::run(Command::new("/usr/bin/tar").args(["-xJf", &his("new/amd64.tar.xz"), "-C"]).arg(&new));
    let copy = ["--insecure-policy", "copy", "--quiet", "oci:amd64:old/c10f/pause:3.10", "dir:../copied"];
    host::run(Command::new("/usr/bin/skopeo").args(copy).current_dir(&new));
}

fn images_of_a_kubernetes_version(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("source");
    layout.add_list("pause:3.10", &["amd64", "arm64"], 1000);
    layout.add_list("coredns/coredns:v1.12.1", &["amd64", "arm64"], 1000).publish("k8s");
    let mirror = format!("mirror --kubernetes v1.34.2 --registry {} --tls-verify=false", at("k8s"));
    let kubeadm = Path::new("/usr/local/bin/kubeadm");
    if !kubeadm.exists() {
        let (status, told) = asked(&mirror);
        assert_eq!((status, told["error"]["reason"].as_str()), (78, Some("no-kubeadm")));
    }
    fs::write(
        his("list"),
        "# what kubeadm said elsewhere\nregistry.k8s.io/pause:3.10\ncoredns/coredns:v1.12.1 # no host\n",
    )
    .unwrap();
    let told = done(&format!("{mirror} --list list --output none --dry-run"));
    let sources =
        [at("k8s/coredns/coredns:v1.12.1"), at("k8s/pause:3.10")].map(|source| format!("docker://{source}"));
    assert_eq!(of_each(&told, "source"), sources);
    assert!(!Path::new(&his("none")).exists());
    done(&format!("{mirror} --list list --arch arm64 --output out"));
    assert_eq!(of_each(&done("list out/arm64.tar.zst"), "name"), ["coredns/coredns:v1.12.1", "pause:3.10"]);
    done(&format!("{mirror} --list list --arch all --to {}", at("site")));
    for name in ["coredns/coredns:v1.12.1", "pause:3.10"] {
        assert_eq!(manifest(&at(&format!("site/{name}"))), manifest(&at(&format!("k8s/{name}"))));
    }

    // It is asked where it is installed, with the version as one argument.
    let script = "#!/bin/sh\n[ \"$*\" = 'config images list --kubernetes-version v1.34.2' ] || { echo \"what is $*\" >&2; exit 1; }\n\
                  echo registry.k8s.io/pause:3.10\n";
    let before = fs::read(kubeadm).ok();
    fs::write(kubeadm, script).unwrap();
    host::run(Command::new("/bin/chmod").arg("755").arg(kubeadm));
    let asked_kubeadm = asked(&format!("{mirror} --dry-run"));
    let (other, told) = asked(&mirror.replace("v1.34.2", "v1.9.0"));
    match before {
        Some(before) => fs::write(kubeadm, before).unwrap(),
        None => fs::remove_file(kubeadm).unwrap(),
    }
    assert_eq!((asked_kubeadm.0, of_each(&asked_kubeadm.1, "name")), (0, vec!["pause:3.10".to_owned()]));
    assert_eq!((other, told["error"]["reason"].as_str()), (74, Some("kubeadm")));
    assert!(told["error"]["message"].as_str().unwrap().contains("what is config"), "{told}");
}

// ---- what others do

/// Refused by everything that reads archives, for that reason; and nothing is left or pushed.
fn is_refused(archive: &str, reason: &str) {
    for line in [
        format!("list {archive}"),
        format!("verify {archive}"),
        format!("load --tls-verify=false {archive} --to {}", at("hostile")),
    ] {
        let (status, told) = asked(&line);
        let said = told["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 1 && said.contains(reason), "{line}: {status} {told}");
        assert_eq!(told["error"]["reason"], "archive", "{line}");
        assert_eq!(left(), Vec::<PathBuf>::new(), "{line}");
    }
    assert_eq!(manifest(&at("hostile/a:1")), None, "{archive}");
}

fn hostile_archives(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let mut layout = place.layout("amd64");
    layout.add("a:1", "amd64", 1000);
    let blob = format!("amd64/blobs/sha256/{}", "0".repeat(64));
    let outside = Path::new("/tmp/podsec-outside");
    // Each is a whole archive and then one thing more, by the real tar.
    let traps: [(&str, String, &str); 10] = [
        ("link", format!("ln -s /etc/passwd {blob}; tar -rf x.tar {blob}"), "is a symbolic link"),
        ("hard-link", format!("ln amd64/index.json {blob}; tar -cf x.tar amd64"), "is a hard link"),
        ("fifo", format!("mkfifo {blob}; tar -rf x.tar {blob}"), "is a FIFO"),
        ("device", format!("mknod {blob} c 1 5; tar -rf x.tar {blob}"), "is a device"),
        ("sparse", format!("truncate -s 1G {blob}; tar -S -rf x.tar {blob}"), "is a sparse file"),
        ("up", format!("echo x >{}; tar -Prf x.tar ../podsec-outside", outside.display()), "has no place"),
        ("absolute", format!("echo x >{0}; tar -Prf x.tar {0}", outside.display()), "has no place"),
        ("twice", "tar -rf x.tar amd64/index.json".into(), "is there twice"),
        ("foreign", "echo x >amd64/x; tar -rf x.tar amd64/x".into(), "has no place"),
        (
            "linked-directory",
            "ln -s /tmp amd64/blobs2; tar -rf x.tar amd64/blobs2".into(),
            "is a symbolic link",
        ),
    ];
    for (name, trap, reason) in traps {
        let script = format!(
            "tar -cf x.tar amd64; {trap}; rm -rf {blob} amd64/x amd64/blobs2; xz -f -k x.tar; zstd -q -f x.tar"
        );
        host::run(Command::new("/bin/bash").args(["-ec", &script]).current_dir(&place.0));
        let _ = fs::remove_file(outside);
        for end in ["tar", "tar.xz", "tar.zst"] {
            let archive = hand_over(&place.0.join(format!("x.{end}")), &format!("{name}.{end}"));
            is_refused(&archive, reason);
        }
        assert!(!outside.exists(), "{name}");
    }
    // What is in order but for its bytes: nothing is pushed of it either.
    fs::write(place.0.join(&blob), "x").unwrap();
    host::run(Command::new("/usr/bin/tar").args(["-cf", "x.tar", "amd64"]).current_dir(&place.0));
    let archive = hand_over(&place.0.join("x.tar"), "changed.tar");
    let (status, told) = asked(&format!("verify {archive}"));
    assert_eq!((status, told["problems"][0]["problem"].as_str()), (1, Some("its bytes have another digest")));
    let (status, told) = asked(&format!("load --tls-verify=false {archive} --to {}", at("hostile")));
    assert!(
        status == 1 && told["error"]["message"].as_str().unwrap().contains("nothing of it is used"),
        "{told}"
    );
    assert_eq!((manifest(&at("hostile/a:1")), left()), (None, vec![]));
    // Cut short.
    let script = "rm amd64/blobs/sha256/000*; tar -cf x.tar amd64; xz -f x.tar; truncate -s -100 x.tar.xz";
    host::run(Command::new("/bin/bash").args(["-ec", script]).current_dir(&place.0));
    is_refused(&hand_over(&place.0.join("x.tar.xz"), "cut.tar.xz"), "cannot be unpacked: xz");
}

fn bombs(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    place.layout("amd64").add("a:1", "amd64", 1000);
    let tree = |script: &str| {
        host::run(Command::new("/bin/bash").args(["-ec", script]).current_dir(&place.0));
    };
    // A gigabyte of zeros that is a hundred kilobytes.
    let blob = format!("amd64/blobs/sha256/{}", "0".repeat(64));
    tree(&format!("truncate -s 1G {blob}; tar -c amd64 | zstd -q -f -o bomb.tar.zst; rm {blob}"));
    assert!(fs::metadata(place.0.join("bomb.tar.zst")).unwrap().len() < 1 << 20);
    let archive = hand_over(&place.0.join("bomb.tar.zst"), "bomb.tar.zst");
    let (status, told) =
        asked(&format!("load --tls-verify=false --max-size 100M {archive} --to {}", at("hostile")));
    assert!(
        status == 1 && told["error"]["message"].as_str().unwrap().contains("unpacks to more than 104857600"),
        "{told}"
    );
    assert_eq!(left(), Vec::<PathBuf>::new());
    // What is behind the end.
    tree("{ tar -c amd64; head -c 1G /dev/zero; } | zstd -q -f -o behind.tar.zst");
    is_refused(&hand_over(&place.0.join("behind.tar.zst"), "behind.tar.zst"), "more follows after its end");
    // What would take a gigabyte of memory to unpack: of zstd, and of xz.
    tree(
        "tar -c amd64 | zstd -q -f --ultra -22 --long=30 -o window.tar.zst; \
          tar -c amd64 | xz -q --lzma2=preset=0,dict=1GiB >window.tar.xz",
    );
    let small = place.0.join("window.tar.zst");
    // zstd takes a window no larger than what it knows to follow; from a pipe it does not know.
    is_refused(&hand_over(&small, "window.tar.zst"), "cannot be unpacked: zstd");
    is_refused(&hand_over(&place.0.join("window.tar.xz"), "window.tar.xz"), "cannot be unpacked: xz");
    // More than there is room for.
    let directory = his("small");
    tree(&format!(
        "mkdir {directory}; mount -t tmpfs -o size=80M,mode=1777 small {directory}; truncate -s 50M {blob}; \
                   tar -cf large.tar amd64; rm {blob}"
    ));
    let large = hand_over(&place.0.join("large.tar"), "large.tar");
    let mut load = people::command(INES, "/usr/bin/env");
    load.args([
        &format!("TMPDIR={directory}"),
        "/usr/bin/podsecctl",
        "image",
        "load",
        &large,
        "--to",
        &at("hostile"),
    ]);
    let output = load.output().unwrap();
    let files = fs::read_dir(&directory).unwrap().count();
    host::run(Command::new("/bin/umount").arg(&directory));
    assert!(text(&output).contains("no more is free; TMPDIR says where there is room"), "{}", text(&output));
    assert_eq!((output.status.code(), files), (Some(1), 0));
}

/// A layer may say that it is fetched from elsewhere, and skopeo would go there: to the cloud's own address, for one.
fn an_image_points_nowhere_else(_: &mut Oracle) {
    let (_site, place) = (Site::new(), Place::new());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    for (index, key) in ["urls", "URLs", "url\u{17f}"].into_iter().enumerate() {
        let name = format!("amd64-{index}");
        let mut layout = place.layout(&format!("{name}/amd64"));
        let entry = layout.image("a:1", "amd64", 1000, |manifest| manifest["layers"][0][key] = json!([url]));
        layout.name("a:1", entry);
        let tar = ["-cf", "x.tar", "amd64"];
        host::run(Command::new("/usr/bin/tar").args(tar).current_dir(place.0.join(&name)));
        let archive = hand_over(&place.0.join(name).join("x.tar"), "urls.tar");
        let (status, told) = asked(&format!("verify {archive}"));
        let problem = told["problems"][0]["problem"].as_str().unwrap_or_default();
        assert!(
            status == 1 && (problem.contains("(urls)") || problem.contains("could be taken for another")),
            "{told}"
        );
        let (status, told) = asked(&format!("load --tls-verify=false {archive} --to {}", at("hostile")));
        assert_eq!((status, told["error"]["reason"].as_str()), (1, Some("archive")), "{told}");
        assert!(listener.accept().is_err(), "it was asked for");
        assert_eq!(manifest(&at("hostile/a:1")), None);
    }
}

fn not_as_root(_: &mut Oracle) {
    let before = oracle::files();
    for line in
        ["list x", "verify x", "save a.b/c:1", "load x --to a.b", "mirror --kubernetes v1.34.2 --list x"]
    {
        let words: Vec<_> = ["image"].into_iter().chain(line.split(' ')).collect();
        let (status, said) = people::ctl_fails(ROOT, &words);
        assert!(status == 77 && said.contains("not handled as root"), "{line}: {said}");
    }
    assert_eq!(oracle::files(), before);
}
