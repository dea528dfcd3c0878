//! `podsecctl user` and `podsecctl key`.

use crate::fake::Fake;
use crate::fake::people::Asked;
use crate::{OnTerminal, refused, run, text};
use podsec_proto::v1::{self, create_user_request::Category};
use podsec_sys::nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// With these bytes on standard input.
fn run_with(mut command: Command, bytes: &[u8]) -> (i32, String, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Some end before they have read it.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

/// With the shell's redirections, and standard input empty.
fn redirected(fake: &Fake, arguments: &[&str], redirect: &str) -> (i32, String, String) {
    let mut command = Command::new("/bin/sh");
    let script = format!("exec \"$@\" {redirect}");
    command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_podsecctl"), "--socket"]).arg(fake.socket());
    command.args(arguments);
    run_with(command, b"")
}

fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn created(fake: &Fake) -> Vec<v1::CreateUserRequest> {
    let request = |asked| match asked {
        Asked::Create(request) => request,
        other => panic!("{other:?}"),
    };
    fake.people.take().into_iter().map(request).collect()
}

#[test]
fn a_failure_with_one_user_does_not_stop_the_others() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let line = ["user", "create", "carol", "taken", "same", "dave", "--category", "image-user"];
    let (status, out, said) = run(&fake, &line);
    assert_eq!(status, 78);
    assert_eq!(
        out,
        "made carol\nsame was made already; nothing to do\nmade dave\n4 users: 2 made, 1 as they were, 1 failed\n\
         1 of them cannot log in before a password is set: podsecctl user passwd NAME\n"
    );
    assert_eq!(said, "podsecctl: taken: taken is somebody else\n");
    let (status, out, said) = run(&fake, &[&line[..], &["--json"]].concat());
    assert_eq!((status, said.as_str()), (78, ""));
    let objects = objects(&out);
    let names: Vec<_> = objects.iter().map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["carol", "taken", "same", "dave"]);
    assert_eq!((&objects[0]["changed"], &objects[2]["changed"]), (&true.into(), &false.into()));
    assert_eq!(objects[1]["error"]["reason"], "user-exists");
    // one alone is told in full, and what is next
    let (status, out, _) = run(&fake, &["user", "create", "carol", "--category", "cluster-user"]);
    let next = "carol cannot log in before a password is set: podsecctl user passwd carol\n";
    assert_eq!((status, out), (0, format!("made carol\n  did it\\x1b[2J\n{next}")));
    let (_, out, _) = run(&fake, &["user", "create", "carol", "--category", "cluster-user", "--dry-run"]);
    assert_eq!(out, "would make carol\n  did it\\x1b[2J\n");
    assert!(created(&fake).last().unwrap().dry_run);
}

#[test]
fn users_of_a_file_are_all_looked_at_first() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let good = "[[user]]\nname = 'carol'\ncategory = 'image-creator'\nscopes = ['registry.local/team']\nkey = true\n\
                [[user]]\nname = 'dave'\ncategory = 'image-user'\nlinger = true\n";
    let from = |arguments: &[&str], file: &str| {
        let line = [&["user", "create", "--from", "-"], arguments].concat();
        run_with(fake.podsecctl(&line), file.as_bytes())
    };
    let (status, out, said) = from(&["--no-key-passphrase", "--json"], good);
    assert_eq!((status, said.as_str()), (0, ""));
    let warning = objects(&out)[0]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("nothing but the home of carol protects the private key"), "{warning}");
    let made = created(&fake);
    let Some(Category::ImageCreator(creator)) = &made[0].category else { panic!("{made:?}") };
    assert_eq!(creator.scopes, ["registry.local/team"]);
    assert!(creator.key.as_ref().unwrap().passphrase.is_empty());
    assert!(made[1].linger && made[1].name == "dave");
    // the second is wrong, and so the first is not made either
    let (status, _, said) = from(&["--no-key-passphrase"], &format!("{good}colour = 1\n"));
    assert_eq!(status, 2);
    assert!(said.starts_with("podsecctl: line 10 of the file: unknown field `colour`"), "{said}");
    // a passphrase has to come from somewhere
    let (status, _, said) = from(&[], good);
    assert_eq!(status, 2);
    assert!(said.contains("--key-passphrase-fd") && said.contains("--no-key-passphrase"), "{said}");
    assert_eq!(created(&fake), []);
    let line = ["user", "create", "carol", "--category", "image-creator", "--scope", "a.b/c", "--with-key"];
    let line = [&line[..], &["--key-passphrase-fd", "7", "--key-days", "30"]].concat();
    assert_eq!(redirected(&fake, &line, "7<<.\ncorrect horse\n.").0, 0);
    let Some(Category::ImageCreator(creator)) = created(&fake).remove(0).category else { panic!() };
    let key = creator.key.unwrap();
    assert_eq!((key.days, key.passphrase.as_slice()), (30, &b"correct horse"[..]));
}

#[test]
fn ten_users_are_made_at_once() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let names: Vec<_> = (0..30).map(|number| format!("many{number}")).collect();
    let names = names.iter().map(String::as_str);
    let line: Vec<_> =
        ["user", "create", "--category", "cluster-user"].into_iter().chain(names.clone()).collect();
    let (status, out, _) = run(&fake, &line);
    assert_eq!(status, 0);
    let expected: Vec<_> = names.map(|name| format!("made {name}")).collect();
    assert_eq!(out.lines().take(30).collect::<Vec<_>>(), expected);
    assert!(out.ends_with("\n30 users: 30 made, 0 as they were, 0 failed\n"), "{out}");
    assert_eq!(fake.people.most.load(Ordering::Relaxed), 10);
}

#[test]
fn whoever_waits_sees_how_far_it_is() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let line = ["user", "create", "held", "dave", "--category", "image-user"];
    let mut terminal = OnTerminal::whole(&fake, &line);
    terminal.see("\r1 of 2");
    fake.people.hold.notify_one();
    terminal.see("\r      \rmade held\r\nmade dave\r\n2 users: ");
    terminal.ends_with(0);
}

fn echoes(terminal: &OnTerminal) -> bool {
    tcgetattr(&terminal.follower).unwrap().local_flags.contains(LocalFlags::ECHO)
}

#[test]
fn a_password_comes_unseen() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let password = |fake: &Fake| match fake.people.take().as_slice() {
        [Asked::SetPassword(request)] => String::from_utf8(request.password.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    let stdin = ["user", "passwd", "carol", "--stdin"];
    let (status, out, _) = run_with(fake.podsecctl(&stdin), b"correct horse\n");
    assert_eq!((status, out.lines().next()), (0, Some("set the password of carol")));
    assert_eq!(password(&fake), "correct horse");
    let (status, ..) =
        redirected(&fake, &["user", "passwd", "carol", "--password-fd", "9"], "9<<.\ncorrect horse\n.");
    assert_eq!((status, password(&fake).as_str()), (0, "correct horse"));
    for (line, word) in [
        (&stdin[..], "8 to 255 bytes"),
        (&stdin[..3], "--stdin or --password-fd"),
        (&["user", "passwd", "carol", "--password-fd", "9"], "descriptor 9: it is not open"),
    ] {
        let (status, _, said) = run_with(fake.podsecctl(line), b"short\n");
        assert!(status == 2 && said.contains(word), "{said}");
    }
    assert_eq!(fake.people.take(), []);
    let mut terminal = OnTerminal::whole(&fake, &stdin[..3]);
    terminal.see("Password for carol: ");
    assert!(!echoes(&terminal));
    terminal.type_in("correct hoss\x7f\x7frse\n");
    terminal.see("The same again: ");
    terminal.type_in("correct horse\n");
    terminal.see("set the password of carol");
    terminal.ends_with(0);
    assert!(echoes(&terminal) && !terminal.seen.contains("correct"), "{}", terminal.seen);
    assert_eq!(password(&fake), "correct horse");
    let mut terminal = OnTerminal::whole(&fake, &stdin[..3]);
    terminal.see("Password for carol: ");
    terminal.type_in("correct horse\n");
    terminal.see("The same again: ");
    terminal.type_in("battery staple\n");
    terminal.see("the two were not the same, so nothing was done");
    terminal.ends_with(2);
    // what ends the program gives the terminal back
    let mut terminal = OnTerminal::whole(&fake, &stdin[..3]);
    terminal.see("Password for carol: ");
    terminal.type_in("\x03");
    assert_eq!(terminal.child.wait().unwrap().signal(), Some(2));
    assert!(echoes(&terminal));
    assert_eq!(fake.people.take(), []);
}

#[test]
fn what_cannot_be_taken_back_is_asked_about() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567";
    for line in [&["user", "delete", "carol", "dave", "--remove-home"][..], &["key", "revoke", fingerprint]] {
        let (status, _, said) = run(&fake, line);
        assert_eq!(status, 2);
        assert!(said.contains("--yes"), "{said}");
        for no in ["n\n", "\n", "yesterday\n", "\x04"] {
            let mut terminal = OnTerminal::whole(&fake, line);
            terminal.see("[y/N] ");
            terminal.type_in(no);
            terminal.see("not confirmed, so nothing was done");
            terminal.ends_with(1);
        }
        assert_eq!(fake.people.take(), []);
        let mut terminal = OnTerminal::whole(&fake, line);
        terminal.see("[y/N] ");
        terminal.type_in("y\n");
        terminal.ends_with(0);
        assert!(!fake.people.take().is_empty());
    }
    let delete = |name: &str, dry_run| {
        Asked::Delete(v1::DeleteUserRequest { name: name.into(), remove_home: false, dry_run })
    };
    let (status, out, _) = run(&fake, &["user", "delete", "carol", "--yes"]);
    assert_eq!((status, out.as_str()), (0, "deleted carol\n  did it\\x1b[2J\n"));
    assert_eq!(run(&fake, &["user", "delete", "carol", "--dry-run"]).0, 0);
    assert_eq!(fake.people.take(), [delete("carol", false), delete("carol", true)]);
    let revoke = ["key", "revoke", fingerprint, "--creator", "carol", "--yes"];
    assert!(run(&fake, &revoke).1.starts_with("revoked key 000"), "{revoke:?}");
    let request =
        v1::RevokeKeyRequest { creator: "carol".into(), fingerprint: fingerprint.into(), dry_run: false };
    assert_eq!(fake.people.take(), [Asked::Revoke(request)]);
}

#[test]
fn users_are_looked_at_and_locked() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, _) = run(&fake, &["user", "list"]);
    assert_eq!((status, out.lines().count()), (0, 4));
    assert!(out.contains("carol  1107  image-creator  no password  0     registry.local/team\n"), "{out}");
    let (_, out, _) = run(&fake, &["user", "list", "--json"]);
    assert_eq!(objects(&out)[0]["users"][1]["state"], "active");
    // without a name oneself
    assert!(run(&fake, &["user", "show"]).1.starts_with("user      root (1107)\n"));
    let (status, _, said) = run(&fake, &["user", "show", "eve"]);
    assert_eq!((status, said.starts_with("podsecctl: podsec made no user eve; ")), (78, true), "{said}");
    let (status, out, _) = run(&fake, &["user", "lock", "carol", "same", "--dry-run"]);
    let expected = "would lock carol\n  did it\\x1b[2J\nsame was locked already; nothing to do\n\
                    2 users: 1 to lock, 1 as they were, 0 failed\n";
    assert_eq!((status, out.as_str()), (0, expected));
    assert_eq!(run(&fake, &["user", "unlock", "carol"]).0, 78);
    let (status, out, _) = run(&fake, &["user", "restrict-idmaps"]);
    assert_eq!((status, out.as_str()), (0, "newuidmap and newgidmap:\n  everybody may use them\n"));
    assert_eq!(run(&fake, &["user", "restrict-idmaps", "on"]).0, 0);
    let on = v1::RestrictIdMapsRequest { restrict: Some(true), dry_run: false };
    assert_eq!(fake.people.take().last(), Some(&Asked::Restrict(on)));
}

#[test]
fn bad_news_of_a_user_is_a_status() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let verify = |names: &[&str]| run(&fake, &[&["user", "verify"], names].concat());
    assert_eq!(verify(&["dave"]).0, 0);
    let (status, out, _) = verify(&["carol", "dave"]);
    assert_eq!(status, 1);
    let table = |state| {
        format!(
            "CHECK   PROTECTION  STATE{}  DETAIL\ngroups  account     {state}\n",
            if state == "ok" { "" } else { " " }
        )
    };
    assert_eq!(out, format!("carol\n{}\ndave\n{}", table("broken"), table("ok")));
    // what is not known is worse
    let (status, out, said) = verify(&["carol", "eve"]);
    assert_eq!((status, out.lines().count()), (77, 3));
    assert!(said.starts_with("podsecctl: eve: you may not ask for UserService/Verify: "), "{said}");
    let (status, out, _) = verify(&["carol", "eve", "--json"]);
    assert_eq!((status, &objects(&out)[0]["findings"][0]["state"]), (77, &"broken".into()));
    assert_eq!(objects(&out)[1]["error"]["reason"], "not-authorised");
}

#[test]
fn keys_are_listed_and_exported() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, _) = run(&fake, &["key", "list"]);
    assert_eq!((status, out.lines().count()), (0, 4));
    assert!(out.contains("1111  ed25519    current   never    carol <carol@registry.local>\n"), "{out}");
    assert_eq!(run(&fake, &["key", "list", "dave"]).1.lines().count(), 1);
    // current and previous, not revoked
    assert_eq!(run(&fake, &["key", "export", "carol"]), (0, "111222".into(), String::new()));
    let second = "2".repeat(40);
    assert_eq!(run(&fake, &["key", "export", "carol", "--fingerprint", &second]).1, "222");
    let armored = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nMTExMjIy\n=";
    assert!(run(&fake, &["key", "export", "carol", "--armor"]).1.starts_with(armored));
    let (_, out, _) = run(&fake, &["key", "export", "carol", "--json"]);
    assert!(objects(&out)[0]["keys"][1]["armor"].as_str().unwrap().contains("\nMjIy\n"), "{out}");
    let revoked = "3".repeat(40);
    let (status, out, said) = run(&fake, &["key", "export", "carol", "--fingerprint", &revoked]);
    assert_eq!((status, out.as_str()), (78, ""));
    assert!(said.contains("carol has no key 333"), "{said}");
    let mut terminal = OnTerminal::whole(&fake, &["key", "export", "carol"]);
    terminal.see("--armor");
    terminal.ends_with(2);
}

/// A keyring that ends with its agent. Its path is short: that of the agent's socket has to fit (unix(7), 108 bytes).
struct Keyring(PathBuf);

impl Keyring {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/pg-{}-{number}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    /// `podsecctl` with it, and nowhere to ask.
    fn podsecctl(&self, fake: &Fake, arguments: &[&str]) -> Command {
        let mut command = fake.podsecctl(arguments);
        command.env("GNUPGHOME", &self.0);
        for variable in ["DISPLAY", "WAYLAND_DISPLAY", "GPG_TTY"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, fake: &Fake, arguments: &[&str]) -> (i32, String, String) {
        run_with(self.podsecctl(fake, arguments), b"")
    }

    fn gpg(&self, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut gpg = Command::new("/usr/bin/gpg");
        gpg.env("GNUPGHOME", &self.0).arg("--batch").args(arguments);
        run_with(gpg, input)
    }

    /// What `--show-keys` says of a key, its user id and its fingerprint.
    fn show(&self, key: &[u8]) -> (String, String) {
        let (status, shown, said) = self.gpg(&["--show-keys", "--with-colons"], key);
        assert_eq!(status, 0, "{said}");
        let record = |kind: &str| {
            let line = shown.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("{shown}"));
            line.split(':').nth(9).unwrap().to_owned()
        };
        (record("uid:"), record("fpr:"))
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        let mut gpgconf = Command::new("/usr/bin/gpgconf");
        let _ = gpgconf.env("GNUPGHOME", &self.0).args(["--kill", "all"]).status();
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sent(fake: &Fake) -> Vec<u8> {
    match fake.people.take().as_slice() {
        [
            Asked::Publish(v1::PublishKeyRequest { key, .. })
            | Asked::Rotate(v1::RotateKeyRequest { key, .. }),
        ] => key.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_is_made_by_gpg_and_published() {
    if refused() {
        return;
    }
    let (fake, keyring) = (Fake::start(), Keyring::new());
    let (status, _, said) = keyring.run(&fake, &["key", "generate"]);
    assert_eq!(status, 2);
    assert!(said.contains("--passphrase-fd") && said.contains("--no-passphrase"), "{said}");
    // nothing to rotate from: said before a key is made
    let (status, _, said) = keyring.run(&fake, &["key", "generate", "--rotate", "--no-passphrase"]);
    assert_eq!((status, keyring.gpg(&["--list-secret-keys"], b"").1.as_str()), (78, ""), "{said}");

    // one that is made and not taken is not lost, and not made twice
    fake.people.refuse.store(true, Ordering::Relaxed);
    let generate = ["key", "generate", "--no-passphrase", "--days", "30"];
    let (status, _, said) = keyring.run(&fake, &generate);
    let (user_id, first) = keyring.show(&sent(&fake));
    assert_eq!((status, user_id.as_str()), (78, "root <root@registry.local>"));
    assert!(said.ends_with(&format!("try `podsecctl key publish {first}`\n")), "{said}");
    let (status, _, said) = keyring.run(&fake, &generate);
    assert_eq!(status, 74);
    assert!(said.contains("already exists in your keyring; `podsecctl key publish`"), "{said}");
    fake.people.refuse.store(false, Ordering::Relaxed);
    let (status, ..) = keyring.run(&fake, &["key", "publish", &first.to_lowercase()]);
    assert_eq!((status, keyring.show(&sent(&fake)).1), (0, first.clone()));
    // armored, it is still the same to gpg
    let (_, armored, _) = keyring.run(&fake, &["key", "export", "root", "--armor"]);
    assert_eq!(keyring.show(armored.as_bytes()).1, first);

    let (status, _, said) = keyring.run(&fake, &["key", "generate", "--no-passphrase"]);
    assert_eq!(status, 78);
    assert!(said.contains("--rotate makes a new one"), "{said}");

    // with a passphrase: gpg cannot sign without it
    let line = ["key", "generate", "--rotate", "--passphrase-fd", "0", "--algorithm", "rsa3072"];
    let (status, out, said) = run_with(keyring.podsecctl(&fake, &line), b"correct horse\n");
    assert_eq!(status, 0, "{said}");
    let second = keyring.show(&sent(&fake)).1;
    assert_eq!(out, format!("made and published key {second}\n  wrote it\n"));
    let sign =
        ["--pinentry-mode", "loopback", "--passphrase-fd", "0", "--local-user", &second, "--clearsign"];
    let gpgconf =
        |what: &[&str]| Command::new("/usr/bin/gpgconf").env("GNUPGHOME", &keyring.0).args(what).status();
    // the agent still knows it
    assert!(gpgconf(&["--kill", "gpg-agent"]).unwrap().success());
    assert_ne!(keyring.gpg(&sign, b"wrong horse\ntext").0, 0);
    assert_eq!(keyring.gpg(&sign, b"correct horse\ntext").0, 0);

    let (status, out, said) =
        keyring.run(&fake, &["key", "generate", "--rotate", "--no-passphrase", "--json"]);
    assert_eq!((status, said.as_str()), (0, ""));
    let made = &objects(&out)[0];
    assert_eq!(made["fingerprint"], keyring.show(&sent(&fake)).1);
    assert!(made["warnings"][0].as_str().unwrap().contains("nothing but the home"), "{made}");
    let (status, _, said) = keyring.run(&fake, &["key", "publish"]);
    assert_eq!(status, 2);
    assert!(said.contains("which of the keys") && said.contains(&second), "{said}");
    let (status, _, said) = keyring.run(&fake, &["key", "publish", &"A".repeat(40)]);
    assert_eq!((status, said.contains("gpg has no key AAAA")), (74, true), "{said}");
    assert_eq!(fake.people.take(), []);
}

#[test]
fn a_pinentry_asks_for_the_passphrase() {
    if refused() {
        return;
    }
    let (fake, keyring) = (Fake::start(), Keyring::new());
    let pinentry = keyring.0.join("pinentry");
    let script = b"#!/bin/sh\necho OK\nwhile read -r word rest; do\ncase $word in GETPIN) echo 'D correct horse 1';; esac\n\
                   echo OK\ndone\n";
    podsec_sys::file::replace(&pinentry, script, 0o700).unwrap();
    let line = format!("pinentry-program {}\n", pinentry.display());
    podsec_sys::file::replace(&keyring.0.join("gpg-agent.conf"), line.as_bytes(), 0o600).unwrap();
    let mut command = keyring.podsecctl(&fake, &["key", "generate"]);
    command.env("GPG_TTY", "/dev/null");
    let (status, _, said) = run_with(command, b"");
    assert_eq!(status, 0, "{said}");
    // the one key that there is
    let key = sent(&fake);
    assert_eq!(
        keyring.run(&fake, &["key", "publish", "--dry-run"]).1,
        format!("would publish key {}\n  wrote it\n", "0".repeat(40))
    );
    assert_eq!(sent(&fake), key);
}

#[test]
fn a_key_is_published_from_anywhere() {
    if refused() {
        return;
    }
    let (fake, keyring) = (Fake::start(), Keyring::new());
    let line = ["key", "publish", "-", "--creator", "carol", "--dry-run"];
    assert_eq!(run_with(fake.podsecctl(&line), b"a key").0, 0);
    let request = v1::PublishKeyRequest { creator: "carol".into(), key: b"a key".to_vec(), dry_run: true };
    assert_eq!(fake.people.take(), [Asked::Publish(request)]);
    let file = keyring.0.join("key");
    podsec_sys::file::replace(&file, b"another", 0o600).unwrap();
    let (status, out, _) = run(&fake, &["key", "rotate", file.to_str().unwrap()]);
    assert_eq!((status, out.starts_with("rotated to key 000")), (0, true), "{out}");
    assert_eq!(sent(&fake), b"another");
    for (file, status) in [("/dev/null", 2), ("/no/such/key", 74)] {
        assert_eq!(run(&fake, &["key", "publish", file]).0, status, "{file}");
    }
    let (status, _, said) = keyring.run(&fake, &["key", "publish"]);
    assert_eq!((status, said.contains("podsecctl key generate")), (2, true), "{said}");
    assert_eq!(fake.people.take(), []);
}
