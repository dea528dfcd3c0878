//! containers: what real containers of podman's do, on the two drivers that podman has without further programs, and in stores
//! made by hand, where podman would be slow or would not do it. The watcher runs with the rights of its unit and no others.

use super::{SETTINGS, findings, settings};
use crate::Test;
use crate::trust::succeeds;
use podsec_proto::v1::CheckFinding;
use podsec_tests::host::{self, Edited};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{ROOT, bash};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("checks::containers::", stringify!($test)), $test),)*];
    };
}

tests! {
    what_real_containers_do_on_overlay
    what_real_containers_do_on_vfs
    a_store_that_comes_later
    hostile_names
    floods
    by_inotify_where_it_must_be
    rules_of_the_host
    stores_that_lie
    rights_of_each_part
    it_ends_when_told_and_remembers
}

const REPORT: &str = "/var/lib/podsec-monitor/containers/report.json";
const LOG: &str = "/run/podsec-tests/watch.log";

// ---- the watcher

/// podsec-monitor watch containers, as its unit starts it.
struct Watcher(Child);

impl Watcher {
    /// Begins with an empty report, and waits until it watches that.
    fn new(watched: &[(&str, &str)]) -> Self {
        let _ = fs::remove_file(REPORT);
        Self::again(watched)
    }

    fn again(watched: &[(&str, &str)]) -> Self {
        let log = fs::File::create(LOG).unwrap();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--bounding-set", "-all,+sys_admin,+dac_read_search,+setuid,+setgid"]);
        command.args(["--inh-caps", "-all", "--no-new-privs", "/usr/libexec/podsec/podsec-monitor"]);
        command.args(["watch", "containers"]).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        let watcher = Self(command.stderr(log).spawn().unwrap());
        for (root, how) in watched {
            watches(root, how);
        }
        host::wait_for("a report", || Path::new(REPORT).exists());
        watcher
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// Its other processes, by name.
    fn parts(&self) -> BTreeMap<String, i32> {
        let mut all = BTreeMap::new();
        let mut parents = vec![self.pid()];
        while let Some(parent) = parents.pop() {
            let text =
                fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            for child in text.split_whitespace() {
                let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
                let child = child.parse().unwrap();
                // What one of them starts for a moment is called like it.
                all.entry(name.trim().to_owned()).or_insert(child);
                parents.push(child);
            }
        }
        all
    }

    /// Tells it to end: its status.
    fn end(&mut self) -> Option<i32> {
        host::kill(self.pid(), "TERM");
        host::wait_for("the watcher to end", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.end();
        }
        if std::thread::panicking() {
            println!("{}", log());
        }
        let _ = fs::remove_file(REPORT);
    }
}

fn children(parent: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn log() -> String {
    fs::read_to_string(LOG).unwrap_or_default()
}

fn watches(root: &str, how: &str) {
    let line = format!("watching {root} of ");
    let is_said = || log().lines().any(|said| said.contains(&line) && said.ends_with(&format!(" by {how}")));
    host::within(Duration::from_secs(15), &format!("{line}, {how}\n{}", log()), is_said);
}

/// Container, place, severity of all that is found.
type Row = (String, String, String);

fn row(container: &str, place: &str, severity: &str) -> Row {
    (container.into(), place.into(), severity.into())
}

fn rows() -> Vec<Row> {
    let found = findings("containers").1;
    let mut rows: Vec<_> = found.iter().map(|one| row(&one.subject, &one.place, &one.severity)).collect();
    rows.sort();
    rows
}

/// Waits until so many are found, and a little longer, since there must not be more.
fn settled(count: usize) -> Vec<CheckFinding> {
    let text = || format!("{count} findings, not {:#?}", rows());
    host::within(Duration::from_secs(20), &text(), || {
        let there = findings("containers").1.len() >= count;
        if !there {
            std::thread::sleep(Duration::from_millis(100));
        }
        there
    });
    std::thread::sleep(Duration::from_millis(3_500));
    let (summary, found) = findings("containers");
    assert_eq!(found.len(), count, "{}", text());
    assert_eq!(summary.check, "containers");
    found
}

fn found(expected: &[Row]) {
    settled(expected.len());
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(rows(), expected);
    let lost = findings("containers").0.lost;
    assert_eq!(lost, 0);
}

// ---- people and real containers

/// A user who is gone with all he has when this is.
struct Bob {
    name: &'static str,
    home: &'static str,
}

impl Bob {
    fn new(name: &'static str, home: &'static str) -> Self {
        Self::with(name, home, "")
    }

    fn with(name: &'static str, home: &'static str, options: &str) -> Self {
        bash(ROOT, &format!("useradd --create-home --home-dir {home} {options} {name}; chmod 700 {home}"));
        Self { name, home }
    }

    fn store(&self) -> String {
        format!("{}/.local/share/containers/storage", self.home)
    }

    fn uid(&self) -> u32 {
        fs::metadata(self.home).unwrap().uid()
    }

    /// Without a login, and so without a control group.
    fn does(&self, driver: &str, script: &str) -> String {
        let podman = format!(
            "export XDG_RUNTIME_DIR=/tmp/watched-run-{name}; mkdir -p -m 700 $XDG_RUNTIME_DIR; cd
             podman() {{ command podman --storage-driver {driver} --cgroup-manager cgroupfs --events-backend file \"$@\"; }}
             run() {{ podman run --network none --cgroups disabled \"$@\"; }}
             {script}",
            name = self.name
        );
        bash(self.name, &podman)
    }

    /// An image with a shell and a few programs of this host's.
    fn image(&self, driver: &str) {
        self.does(
            driver,
            r#"
            mkdir -p img/{etc,usr/bin,tmp,root,opt/dir} .config/containers
            echo '{"default":[{"type":"insecureAcceptAnything"}]}' >.config/containers/policy.json
            for name in bin lib lib64; do ln -s usr/$name img/$name; done
            ln -s bash img/usr/bin/sh
            for name in bash touch mkdir rm mv chmod ln sleep; do
                cp -L /usr/bin/$name img/usr/bin/
                for library in $(ldd /usr/bin/$name | grep -o '/[^ ]*'); do
                    mkdir -p img/usr${library%/*}; cp -nL $library img/usr$library
                done
            done
            echo x | tee img/usr/bin/old img/etc/conf img/opt/dir/file >/dev/null
            tar -C img -cf img.tar .
            podman import --quiet img.tar localhost/tools:1
            "#,
        );
    }
}

impl Drop for Bob {
    fn drop(&mut self) {
        let Self { name, home } = self;
        let runtime = format!("/tmp/watched-run-{name}");
        // The process that keeps his namespace is one of them. Files of others in it are among what he leaves. Should this
        // fail, the oracle sees it.
        let _ = succeeds(
            ROOT,
            &format!(
                "for pid in $(ps -u {name} -o pid=); do kill -KILL $pid; done
                 until [ -z \"$(ps -u {name} -o pid=)\" ]; do sleep 0.05; done
                 userdel {name}; rm -rf {home} {runtime}"
            ),
        );
    }
}

fn what_real_containers_do_on_overlay(_: &mut Oracle) {
    real("overlay");
}

fn what_real_containers_do_on_vfs(_: &mut Oracle) {
    real("vfs");
}

fn real(driver: &str) {
    if !host::are_installed(&["podman", "crun"]) {
        return;
    }
    let bob = Bob::new("bob", "/home/bob");
    let _watcher = Watcher::new(&[]);
    // His store comes to be while it is watched for; pulling is nobody's doing in a container.
    bob.image(driver);
    watches(&bob.store(), "fanotify");
    found(&[]);
    // What the runtime does, and what is ignored.
    bob.does(driver, "run --rm --name quiet localhost/tools:1 bash -c 'echo >/tmp/x; mkdir -p /run/y /var/z; >/var/z/w; exit 0'");
    found(&[]);
    // The first write of a container that has just been made, and is gone at once.
    bob.does(driver, "run --rm --name quick localhost/tools:1 touch /usr/bin/x");
    let quick = row("quick", "/usr/bin", "critical");
    found(std::slice::from_ref(&quick));
    let all = findings("containers").1;
    assert!(all[0].detail.starts_with("x: made"), "{all:?}");
    assert!(all[0].detail.ends_with("image localhost/tools:1"), "{all:?}");
    assert_eq!((all[0].owner.as_str(), all[0].code.as_str()), ("bob", "container-wrote-program"));
    // Files that were in the image, and several times the same.
    bob.does(
        driver,
        "run --name busy localhost/tools:1 bash -ec '
             echo y >>/usr/bin/old; echo z >>/usr/bin/old; chmod 4755 /usr/bin/old
             rm /etc/conf; ln -s /x /etc/link
             rm -r /opt/dir; mkdir /opt/new; touch /opt/new/file; mv /opt/new /opt/newer; >/tmp/x'",
    );
    let busy = |place: &str, severity: &str| row("busy", place, severity);
    let mut expected =
        vec![quick, busy("/usr/bin", "critical"), busy("/etc", "warning"), busy("/opt", "critical")];
    expected.extend([busy("/opt/dir", "critical"), busy("/opt/new", "critical")]);
    found(&expected);
    // An image is built, and all is removed.
    bob.does(
        driver,
        "printf 'FROM localhost/tools:1\\nRUN touch /usr/bin/built && rm /usr/bin/old\\nRUN touch /etc/built\\n' >Containerfile
         podman build --isolation chroot --quiet --tag localhost/built:1 -f Containerfile img >/dev/null
         podman rm --all --force >/dev/null; podman rmi --all --force >/dev/null",
    );
    found(&expected);
}

fn a_store_that_comes_later(_: &mut Oracle) {
    let _watcher = Watcher::new(&[]);
    let bob = Bob::new("bob", "/home/bob");
    // A new user is seen with the next look at the accounts.
    let store = Store::new(&bob, 1);
    watches(&bob.store(), "fanotify");
    store.write(0, "usr/bin", "x");
    found(&[row("c0", "/usr/bin", "critical")]);
    // And a container that is made when it is there.
    store.add(7);
    store.write(7, "usr/bin", "x");
    found(&[row("c0", "/usr/bin", "critical"), row("c7", "/usr/bin", "critical")]);
    // He is removed, and somebody else gets his name and his home.
    drop(bob);
    host::within(Duration::from_secs(15), "his store to be forgotten", || {
        std::thread::sleep(Duration::from_millis(100));
        bash(ROOT, "grep -c ^bob: /etc/passwd || true").trim() == "0"
    });
    let other = Bob::with("bob", "/home/bob", "--uid 4242");
    let store = Store::new(&other, 2);
    host::within(Duration::from_secs(15), "the other one's store", || {
        log().lines().filter(|line| line.contains(&format!("watching {}", other.store()))).count() == 2
    });
    store.write(1, "usr/bin", "x");
    let expected = [row("c0", "/usr/bin", "critical"), row("c7", "/usr/bin", "critical")];
    found(&[&expected[..], &[row("c1", "/usr/bin", "critical")]].concat());
    assert_eq!(findings("containers").0.state, "complete");
}

// ---- stores made by hand

/// An overlay store with containers c0, c1, ….
struct Store<'a> {
    root: PathBuf,
    owner: &'a Bob,
}

fn id(kind: char, number: usize) -> String {
    format!("{kind}{number:063}")
}

impl<'a> Store<'a> {
    fn new(owner: &'a Bob, containers: usize) -> Self {
        let store = Self { root: owner.store().into(), owner };
        for name in ["overlay-images", "overlay-containers", "overlay-layers", "overlay/l"] {
            store.directory(name);
        }
        (0..containers).for_each(|number| store.layer(number));
        store.names(&(0..containers).collect::<Vec<_>>());
        (0..containers).for_each(|number| {
            store.directory(&format!("overlay-containers/{}/userdata", id('c', number)));
        });
        store
    }

    /// As its owner would, one after the other.
    fn directory(&self, name: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(&path).unwrap();
        for path in path.ancestors().take_while(|path| path.starts_with(self.owner.home)) {
            std::os::unix::fs::chown(path, Some(self.owner.uid()), None).unwrap();
        }
    }

    fn layer(&self, number: usize) {
        self.directory(&format!("overlay/{}/diff", id('a', number)));
    }

    fn names(&self, containers: &[usize]) {
        let entry = |&number: &usize| {
            let (id, layer) = (id('c', number), id('a', number));
            serde_json::json!({ "id": id, "names": [format!("c{number}")], "image": "i", "layer": layer })
        };
        let all: Vec<_> = containers.iter().map(entry).collect();
        let path = self.root.join("overlay-containers/containers.json");
        fs::write(path, serde_json::to_vec(&all).unwrap()).unwrap();
    }

    /// In the order in which podman does it.
    fn add(&self, number: usize) {
        self.layer(number);
        self.names(&[0, number]);
        self.directory(&format!("overlay-containers/{}/userdata", id('c', number)));
    }

    fn inside(&self, number: usize, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(format!("overlay/{}/diff", id('a', number))).join(path)
    }

    fn write(&self, number: usize, directory: impl AsRef<Path>, name: impl AsRef<Path>) {
        let directory = self.inside(number, directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), "x").unwrap();
    }
}

fn hostile_names(_: &mut Oracle) {
    let bob = Bob::new("bob", "/home/bob");
    let store = Store::new(&bob, 1);
    let watcher = Watcher::new(&[(&bob.store(), "fanotify")]);
    let (before, processes) = (watcher.parts(), all_processes());
    let long = "x".repeat(255);
    let names: [&[u8]; 12] = [
        b"$(touch x)",
        b"`touch x`",
        b"; touch x #",
        b"'\"\\",
        b"two\nlines\n[2026] ok",
        b"\x1b[2J\x1b]0;title\x07",
        b"\xff\xfe\x80",
        "\u{202e}txt.exe".as_bytes(),
        b"-rf *",
        b"x (deleted)",
        b"%n%s\t\r\x7f",
        long.as_bytes(),
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        store.write(0, Path::new("opt").join(name), name);
    }
    // Deeper than any path may be long; it is the directory of the last that is told, as far as it is told.
    let deep = Path::new("opt").join(format!("deep/{long}"));
    let mut script = format!("cd {}\n", store.inside(0, "").display());
    script += &format!(
        "mkdir -p {0}; cd {0}; for i in {{1..20}}; do mkdir {long}; cd {long}; done; touch it",
        deep.display()
    );
    bash(ROOT, &script);
    let all = settled(names.len() + 1);
    for one in &all {
        assert_eq!((one.severity.as_str(), one.count), ("critical", one.count.clamp(1, 2)), "{one:?}");
        for text in [&one.place, &one.detail, &one.subject] {
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
        assert!(one.place.starts_with("/opt/"));
    }
    let there = |text: &str| all.iter().any(|one| one.place.contains(text) && one.detail.contains(text));
    for text in ["$(touch x)", "`touch x`", "; touch x #", "-rf *", "x (deleted)"] {
        assert!(there(text), "{text}: {all:#?}");
    }
    assert!(!Path::new("/x").exists() && !Path::new("/root/x").exists());
    // Root's store may have got its follower meanwhile.
    let mut after = watcher.parts();
    after.retain(|name, _| name != "podsec-follower" || before.contains_key(name));
    assert_eq!(after, before, "a process was started");
    assert!(all_processes() <= processes + 2);
}

fn all_processes() -> usize {
    let is_pid = |name: std::ffi::OsString| name.to_string_lossy().parse::<i32>().is_ok();
    fs::read_dir("/proc").unwrap().filter(|entry| is_pid(entry.as_ref().unwrap().file_name())).count()
}

/// Bytes.
fn resident(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn floods(_: &mut Oracle) {
    const FILES: u64 = 100_000;
    let bob = Bob::new("bob", "/home/bob");
    let store = Store::new(&bob, 2);
    let watcher = Watcher::new(&[(&bob.store(), "fanotify")]);
    let made = |container: usize, count: u64| {
        for number in 0..count {
            if number % 500 == 0 {
                fs::create_dir_all(store.inside(container, format!("opt/{}", number / 500))).unwrap();
            }
            let path = store.inside(container, format!("opt/{}/{number}", number / 500));
            fs::File::create(path).unwrap();
        }
    };
    made(0, FILES);
    store.write(1, "usr/bin", "x");
    host::within(Duration::from_secs(30), "the other container's write", || {
        std::thread::sleep(Duration::from_millis(300));
        rows().contains(&row("c1", "/usr/bin", "critical"))
    });
    let (summary, all) = findings("containers");
    // Each file is at least one event, unless the kernel had no room, and then that is said.
    let of_c0: u64 = all.iter().filter(|one| one.subject == "c0").map(|one| one.count).sum();
    let said = all.iter().any(|one| one.code == "container-events-lost") && summary.lost > 0;
    println!("{of_c0} events of {FILES} files, {} lost", summary.lost);
    assert!(of_c0 >= FILES || said, "{of_c0} of {FILES}, {summary:?}");
    assert_eq!(summary.lost > 0, said);
    // A finding for each directory would be two hundred.
    assert!(all.iter().filter(|one| one.subject == "c0").count() <= 101);

    // Now there is more than the kernel has room for, and that is a finding.
    host::kill(watcher.pid(), "STOP");
    let before = fs::read_dir(store.inside(0, "opt")).unwrap().count();
    made(1, 40_000);
    assert!(before > 0);
    host::kill(watcher.pid(), "CONT");
    host::within(Duration::from_secs(30), "an overflow to be told", || {
        std::thread::sleep(Duration::from_millis(300));
        let (summary, all) = findings("containers");
        let told = all.iter().find(|one| one.code == "container-events-lost");
        told.is_some_and(|told| told.severity == "medium" && told.subject_type == "host") && summary.lost > 0
    });
    // And it goes on.
    store.write(1, "usr/sbin", "after");
    host::within(Duration::from_secs(10), "what is written afterwards", || {
        std::thread::sleep(Duration::from_millis(300));
        let all = findings("containers").1;
        all.iter().any(|one| one.subject == "c1" && one.detail.contains("after: made"))
    });
    for (name, pid) in watcher.parts().into_iter().chain([("source".into(), watcher.pid())]) {
        let resident = resident(pid);
        assert!(resident < 64 << 20, "{name} has {resident} bytes");
    }
}

fn by_inotify_where_it_must_be(_: &mut Oracle) {
    // The root of this host is an overlay, whose handles lead nowhere.
    let eve = Bob::new("eve", "/srv/eve");
    let store = Store::new(&eve, 1);
    fs::create_dir_all(store.inside(0, "usr/bin")).unwrap();
    bash(ROOT, &format!("chown -R eve: {}", eve.home));
    let watcher = Watcher::new(&[(&eve.store(), "inotify")]);
    // As her, with no right at all.
    let mut follower = 0;
    host::wait_for("her follower", || {
        let uid = eve.uid();
        let is_hers = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            ["Name:\tpodsec-follower", &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"), "Seccomp:\t2"]
                .iter()
                .chain(&["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"])
                .all(|line| status.contains(line))
        };
        follower = children(watcher.parts()["podsec-asker"]).into_iter().find(is_hers).unwrap_or_default();
        follower > 0
    });
    host::wait_for("her follower's watches", || {
        let infos = fs::read_dir(format!("/proc/{follower}/fdinfo")).unwrap();
        let text = |entry: std::io::Result<fs::DirEntry>| fs::read_to_string(entry.unwrap().path());
        infos.map(text).any(|text| text.is_ok_and(|text| text.matches("inotify wd").count() >= 5))
    });
    store.write(0, "usr/bin", "x");
    store.write(0, "usr/bin", "x");
    // Directories that are made with what is in them.
    store.write(0, "opt/new/deep", "y");
    store.write(0, "tmp", "z");
    bash(ROOT, &format!("chown -R eve: {}", eve.home));
    // A link out of it is followed by nobody.
    symlink("/usr/bin", store.inside(0, "opt/link")).unwrap();
    let usual = [row("c0", "/usr/bin", "critical"), row("c0", "/opt", "critical")];
    found(&[&usual[..], &[row("c0", "/opt/new/deep", "critical")]].concat());
    // A container that is made now, and the removal of it.
    store.add(3);
    bash(ROOT, &format!("chown -R eve: {}", eve.home));
    std::thread::sleep(Duration::from_millis(500));
    store.write(3, "usr", "x");
    let made = row("c3", "/usr", "critical");
    found(&[&usual[..], &[row("c0", "/opt/new/deep", "critical"), made]].concat());
    let left = findings("containers").1.len();
    bash(
        ROOT,
        &format!("rm -r {0}/overlay-containers/{1} {0}/overlay/{2}", eve.store(), id('c', 3), id('a', 3)),
    );
    assert_eq!(settled(left).len(), left);
    // She may end her own process. That is said, and it is started again.
    host::kill(follower, "KILL");
    let missed = |text: &str| {
        std::thread::sleep(Duration::from_millis(200));
        let missed = findings("containers").0.missed;
        missed.iter().any(|one| one.owner == "eve" && one.why.contains(text))
    };
    host::wait_for("that to be said", || missed("is started again"));
    host::wait_for("another follower", || findings("containers").0.state == "complete");
    std::thread::sleep(Duration::from_millis(500));
    store.write(0, "usr/lib", "x");
    assert_eq!(settled(left + 1).len(), left + 1);
    // What she may not read herself, as files of others in her namespace are, is said.
    let closed = store.inside(0, "closed");
    bash(ROOT, &format!("mkdir -m 700 {0}.new; mv {0}.new {0}", closed.display()));
    host::wait_for("what is missed", || missed("cannot be watched"));
}

fn rules_of_the_host(_: &mut Oracle) {
    let text = "[containers]\nkeep_days = 1\n\
        [[containers.rules]]\npath = \"/opt/cache\"\nseverity = \"ignore\"\ncontainer = \"c*\"\n\
        [[containers.rules]]\npath = \"/opt\"\nseverity = \"high\"\n\
        [[containers.rules]]\npath = \"/tmp\"\nseverity = \"low\"\ncontainer = \"other\"\n";
    let _settings = settings(text);
    let bob = Bob::new("bob", "/home/bob");
    let store = Store::new(&bob, 1);
    {
        let _watcher = Watcher::new(&[(&bob.store(), "fanotify")]);
        for directory in ["opt/cache/x", "opt/cached", "tmp", "usr"] {
            store.write(0, directory, "x");
        }
        found(&[row("c0", "/opt/cached", "high"), row("c0", "/usr", "critical")]);
    }
    // A mistake is an error, and named.
    let _wrong = Edited::with(SETTINGS, |text| text.replace("\"high\"", "\"hi\""));
    let mut command = Command::new("/usr/libexec/podsec/podsec-monitor");
    let output = command.args(["watch", "containers"]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("monitor.toml") && said.contains("hi"), "{said}");
}

fn stores_that_lie(_: &mut Oracle) {
    let (bob, eve) = (Bob::new("bob", "/home/bob"), Bob::new("eve", "/home/eve"));
    let mal = Bob::new("mal", "/home/mal");
    let store = Store::new(&bob, 1);
    // Eve's answer takes for ever; mal's store is bob's, or root's.
    let evil = Store::new(&eve, 1);
    let containers = evil.root.join("overlay-containers/containers.json");
    fs::remove_file(&containers).unwrap();
    bash(ROOT, &format!("mkfifo {0}; chown eve {0}", containers.display()));
    let theirs = PathBuf::from(mal.store());
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    symlink(bob.store(), &theirs).unwrap();
    let _watcher = Watcher::new(&[(&bob.store(), "fanotify"), (&eve.store(), "fanotify")]);
    evil.write(0, "usr/bin", "x");
    store.write(0, "usr/bin", "x");
    host::within(Duration::from_secs(10), "bob's finding", || {
        std::thread::sleep(Duration::from_millis(200));
        rows() == [row("c0", "/usr/bin", "critical")]
    });
    let (summary, all) = findings("containers");
    assert_eq!(all[0].owner, "bob");
    assert_eq!(summary.state, "partial");
    assert!(summary.missed.iter().any(|one| one.owner == "eve" && one.why.contains("containers.json")));
    assert!(!log().contains("of mal by"), "{}", log());
    // A store of somebody else's in his place.
    fs::remove_file(&theirs).unwrap();
    fs::create_dir(&theirs).unwrap();
    host::within(Duration::from_secs(15), "mal to be missed", || {
        std::thread::sleep(Duration::from_millis(200));
        findings("containers")
            .0
            .missed
            .iter()
            .any(|one| one.owner == "mal" && one.why.contains("somebody else"))
    });
    // Mended.
    fs::remove_file(&containers).unwrap();
    evil.names(&[0]);
    fs::remove_dir(&theirs).unwrap();
    host::within(Duration::from_secs(15), "all to be well", || {
        std::thread::sleep(Duration::from_millis(200));
        findings("containers").0.state == "complete"
    });
    // What eve's container wrote meanwhile was held for her answer.
    assert!(
        rows().len() == 2 && findings("containers").1.iter().any(|one| one.owner == "eve"),
        "{:?}",
        rows()
    );
}

fn rights_of_each_part(_: &mut Oracle) {
    let watcher = Watcher::new(&[]);
    host::wait_for("both parts", || {
        ["podsec-asker", "podsec-judge"].iter().all(|part| watcher.parts().contains_key(*part))
    });
    let line = |pid: i32, key: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap().to_owned();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let parts = watcher.parts();
    let (source, asker, judge) = (watcher.pid(), parts["podsec-asker"], parts["podsec-judge"]);
    // CAP_DAC_READ_SEARCH 2 and CAP_SYS_ADMIN 21; CAP_SETGID 6 and CAP_SETUID 7.
    host::wait_for("the parts to be confined", || {
        line(judge, "Seccomp") == "2" && line(source, "Seccomp") == "2"
    });
    for (pid, wanted) in [(source, 1_u64 << 2 | 1 << 21), (asker, 1 << 6 | 1 << 7), (judge, 0)] {
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(line(pid, set), format!("{wanted:016x}"), "{set} of {pid}");
        }
        assert_eq!(line(pid, "NoNewPrivs"), "1");
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(line(pid, set), format!("{:016x}", 0));
        }
    }
    let monitor = bash(ROOT, "id -u podsec-monitor").trim().to_owned();
    assert_eq!(line(judge, "Uid"), [monitor.as_str(); 4].join(" "));
    assert_eq!(line(judge, "Groups"), "");
    // One part without the others is of no use: all end, and the unit starts them again.
    host::kill(judge, "KILL");
    host::wait_for("all to end", || !host::is_alive(source) && !host::is_alive(asker));
    assert!(log().contains("has ended"), "{}", log());
}

fn it_ends_when_told_and_remembers(_: &mut Oracle) {
    let bob = Bob::new("bob", "/home/bob");
    let store = Store::new(&bob, 1);
    let watched = [(&*bob.store(), "fanotify")].map(|(root, how)| (root.to_owned(), how));
    let watched: Vec<_> = watched.iter().map(|(root, how)| (root.as_str(), *how)).collect();
    let mut watcher = Watcher::new(&watched);
    // So that it has heard which containers there are.
    store.write(0, "usr/bin", "x");
    found(&[row("c0", "/usr/bin", "critical")]);
    store.write(0, "usr/sbin", "x");
    fs::remove_file(store.inside(0, "usr/bin/x")).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let parts = watcher.parts();
    // The judge may be told, too, as systemd does, and writes down what it has all the same.
    host::kill(parts["podsec-judge"], "TERM");
    assert_eq!(watcher.end(), Some(0), "{}", log());
    for pid in parts.values() {
        host::wait_for("all parts to end", || !host::is_alive(*pid));
    }
    let all = findings("containers").1;
    let count = |place: &str| all.iter().find(|one| one.place == place).map(|one| one.count);
    let (before, other) = (count("/usr/bin").unwrap(), count("/usr/sbin").unwrap());
    assert!(before >= 2 && other >= 1, "{all:?}");
    // What was found is still there, and goes on being counted.
    let report = fs::read(REPORT).unwrap();
    let again = Watcher::again(&watched);
    assert!(!report.is_empty());
    std::thread::sleep(Duration::from_millis(500));
    store.write(0, "usr/sbin", "x");
    host::wait_for("one more", || {
        std::thread::sleep(Duration::from_millis(200));
        let all = findings("containers").1;
        all.iter().any(|one| one.place == "/usr/sbin" && one.count > other)
    });
    assert_eq!(rows().len(), 2);
    drop(again);
    drop(watcher);
}
