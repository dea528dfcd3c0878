//! What a store of containers/storage says of itself: `<driver>-images/images.json` and `<driver>-containers/containers.json`
//! below its root (github.com/containers/storage, docs/containers-storage.md and images.go, containers.go).
//!
//! For a process that is the store's owner ([`crate::owner`]): it may be anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podsec_sys::nix::libc;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of a document: thousands of images.
const LONGEST: usize = 64 << 20;

/// An image, as its store has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Of its manifest; some images have none.
    #[serde(default)]
    pub digest: String,
    /// host/path:tag; may be empty.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Names that it had, the current ones among them.
    #[serde(default, rename = "names-history")]
    pub history: Option<Vec<String>>,
    /// Its topmost layer.
    #[serde(default)]
    pub layer: String,
    /// containers/image's notes: sizes of signatures, among others.
    #[serde(default)]
    pub metadata: String,
    /// Names of the documents that are kept with it: manifests, signatures.
    #[serde(default, rename = "big-data-names")]
    pub documents: Option<Vec<String>>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Usually one.
    #[serde(default)]
    pub names: Option<Vec<String>>,
    /// Id of its image.
    #[serde(default)]
    pub image: String,
    /// The layer that it writes to.
    pub layer: String,
}

/// Reads a plain file, whoever it belongs to and whatever links lead to it: for a process that is the owner of what it looks
/// at, and can do nothing that he could not do himself. Does not wait on a FIFO.
///
/// # Errors
/// open(2), read(2); `InvalidInput` for what is no plain file, `FileTooLarge`
pub fn read_plain(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let open =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !open.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    let mut bytes = Vec::new();
    open.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// 64 hexadecimal digits in lower case.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Of a document of that name (`makeBigDataBaseName` of containers/storage): itself, or base64 behind `=`. Never a path:
/// base64 has `/`, and no name that containers/image uses has one in its base64, so it may be changed.
fn file_name(name: &str) -> String {
    let plain = |byte: u8| byte == b'.' || byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain) {
        return name.to_owned();
    }
    format!("={}", STANDARD.encode(name).replace('/', "_"))
}

/// One driver's part of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `…/containers/storage`
    pub root: PathBuf,
    /// overlay, vfs, btrfs, zfs
    pub driver: String,
}

impl Store {
    /// All of a store: one for each driver that was ever used in it; none where there is no store, or somebody else's.
    ///
    /// # Errors
    /// says which directory cannot be read: one that its owner has closed to himself is open to his podman
    pub fn all(root: &Path, owner: u32) -> Result<Vec<Self>, String> {
        let wrong = |error: io::Error| format!("{}: {error}", root.display());
        let entries = match std::fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(wrong(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(wrong)?;
            let name = entry.file_name();
            let Some(driver) = name.to_str().and_then(|name| name.strip_suffix("-images")) else { continue };
            if std::fs::metadata(entry.path()).map_err(wrong)?.uid() == owner {
                all.push(Self { root: root.into(), driver: driver.into() });
            }
        }
        all.sort_by(|one, other| one.driver.cmp(&other.driver));
        Ok(all)
    }

    /// Its images.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn images(&self) -> Result<Vec<Image>, String> {
        self.list("images", "images.json")
    }

    /// A document that is kept with an image; `None` where there is none. An id is a directory's name here, so it has to be one.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn document(&self, id: &str, name: &str, limit: usize) -> Result<Option<Vec<u8>>, String> {
        if !is_id(id) {
            return Err("its id is not 64 hexadecimal digits".into());
        }
        let path = self.root.join(format!("{}-images", self.driver)).join(id).join(file_name(name));
        match read_plain(&path, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// Its containers, those that end with the machine included.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn containers(&self) -> Result<Vec<Container>, String> {
        let mut all = self.list("containers", "containers.json")?;
        all.extend(self.list("containers", "volatile-containers.json")?);
        Ok(all)
    }

    fn list<T: for<'a> Deserialize<'a>>(&self, kind: &str, name: &str) -> Result<Vec<T>, String> {
        let path = self.root.join(format!("{}-{kind}", self.driver)).join(name);
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match read_plain(&path, LONGEST) {
            // podman reads what is no UTF-8 as U+FFFD, so that must not hide the rest.
            Ok(bytes) => {
                serde_json::from_str(&String::from_utf8_lossy(&bytes)).map_err(|error| wrong(&error))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(wrong(&error)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use podsec_sys::nix::unistd::{getuid, mkfifo};
    use proptest::prelude::*;
    use std::fs;

    pub(crate) fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        io::Write::write_all(&mut fs::File::create(path)?, bytes.as_ref())
    }

    /// A store that is gone when this is.
    pub(crate) struct Scratch(pub PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("podsec-store-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("vfs-images")).unwrap();
            Self(fs::canonicalize(root).unwrap())
        }

        pub(crate) fn store(&self) -> Store {
            let mut all = Store::all(&self.0, getuid().as_raw()).unwrap();
            assert_eq!(all.len(), 1);
            all.remove(0)
        }

        pub(crate) fn images(&self, bytes: impl AsRef<[u8]>) -> Result<Vec<Image>, String> {
            write(self.0.join("vfs-images/images.json"), bytes).unwrap();
            self.store().images()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// As podman 4.3 writes it, with a second name.
    const PODMAN: &str = r#"[{"id":"e478111b1db2d18de04d8665c02a76152234ca5ddfc3e1ac8df0a704bb83bf4f","digest":"sha256:3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a","names":["registry.local/team/app:1","localhost/mine:2"],"names-history":["localhost/mine:2","registry.local/team/app:1"],"layer":"df9740935fb580e7570d9b48cd5faeade4ab53d8a95e643c7e2d793d7e34bded","metadata":"{\"signature-sizes\":[383],\"signatures-sizes\":{\"sha256:3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a\":[383]}}","big-data-names":["sha256:e478111b1db2d18de04d8665c02a76152234ca5ddfc3e1ac8df0a704bb83bf4f","manifest-sha256:3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a","manifest","signatures","signature-3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a"],"big-data-sizes":{"manifest":344,"signatures":383},"big-data-digests":{"manifest":"sha256:3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a"},"created":"2026-11-27T02:52:35.271614228Z"}]"#;

    #[test]
    fn as_podman_writes_it() {
        let scratch = Scratch::new("podman");
        let [image] = &scratch.images(PODMAN).unwrap()[..] else { panic!("one image") };
        assert!(is_id(&image.id));
        assert_eq!(image.names.as_deref().unwrap(), ["registry.local/team/app:1", "localhost/mine:2"]);
        assert_eq!(image.history.as_deref().unwrap().len(), 2);
        assert_eq!(image.documents.as_deref().unwrap().len(), 5);
        assert!(image.metadata.contains("[383]"));
    }

    #[test]
    fn what_a_document_is_called() {
        assert_eq!(file_name("manifest"), "manifest");
        assert_eq!(
            file_name("manifest-sha256:3e57c17ada11f75c8d8ca081776ece901b3f358a51d9420b450ef1d9d7999f7a"),
            "=bWFuaWZlc3Qtc2hhMjU2OjNlNTdjMTdhZGExMWY3NWM4ZDhjYTA4MTc3NmVjZTkwMWIzZjM1OGE1MWQ5NDIwYjQ1MGVmMWQ5ZDc5OTlmN2E="
        );
        for name in ["", ".", "..", "../../etc/shadow", "/etc/shadow", "a/b", "a\0b", "???>>>", "A"] {
            let file = file_name(name);
            assert!(file.starts_with('=') && !file.contains(['/', '\0']), "{name:?}: {file}");
        }
    }

    #[test]
    fn no_way_out_of_a_store() {
        let scratch = Scratch::new("out");
        let store = scratch.store();
        write(scratch.0.join("secret"), "x").unwrap();
        write(scratch.0.join("vfs-images/manifest"), "x").unwrap();
        for id in ["..", "../..", "", ".", "/", "../secret", &"A".repeat(64), &format!("{}/", "a".repeat(63))]
        {
            let read = store.document(id, "manifest", 10);
            assert!(read.as_ref().is_err_and(|why| why.contains("hexadecimal")), "{id}: {read:?}");
        }
        let id = "a".repeat(64);
        fs::create_dir(scratch.0.join("vfs-images").join(&id)).unwrap();
        assert_eq!(store.document(&id, "../../secret", 10), Ok(None));
        write(scratch.0.join("vfs-images").join(&id).join("manifest"), "x").unwrap();
        assert_eq!(store.document(&id, "manifest", 10), Ok(Some(b"x".to_vec())));
    }

    #[test]
    fn what_is_no_list_of_images() {
        let scratch = Scratch::new("corpus");
        let corpus: &[&str] = &[
            "",
            "{}",
            "null",
            "[1]",
            "[[]]",
            "[{}]",
            r#"[{"id":null}]"#,
            r#"[{"id":1}]"#,
            r#"[{"id":"a"},]"#,
            r#"[{"id":"a"}] x"#,
            r#"[{"id":"a","id":"b"}]"#,
            r#"[{"id":"a","names":"b"}]"#,
            r#"[{"id":"a","names":[1]}]"#,
            r#"[{"id":"\ud800"}]"#,
            "[{\"id\":\"a\nb\"}]",
            "$(touch /x)",
            &"[".repeat(1 << 20),
            &format!(r#"[{{"id":"a","names":{}}}]"#, "[".repeat(10_000)),
            &format!(r#"[{{"id":"a","digest":{}}}]"#, r#"{"a":"#.repeat(10_000)),
        ];
        for text in corpus {
            let read = scratch.images(text);
            assert!(read.as_ref().is_err_and(|why| why.contains("images.json")), "{text:.60}: {read:?}");
        }
        // What podman reads is read.
        let good = scratch.images(b"[{\"id\":\"a\",\"names\":[\"\xff\xfe\",\"\\n\\u001b[31m\",\"$(x)\"]},{\"id\":\"b\",\"names\":null}]");
        let good = good.unwrap();
        assert_eq!(good[0].names.as_deref().unwrap(), ["\u{fffd}\u{fffd}", "\n\u{1b}[31m", "$(x)"]);
        assert_eq!((good[1].names.as_ref(), good[1].digest.as_str()), (None, ""));
        assert_eq!(scratch.images("[]").unwrap(), []);
        fs::remove_file(scratch.0.join("vfs-images/images.json")).unwrap();
        assert_eq!(scratch.store().images(), Ok(vec![]));
    }

    #[test]
    fn nobody_waits_for_it() {
        let scratch = Scratch::new("fifo");
        let path = scratch.0.join("vfs-images/images.json");
        mkfifo(&path, podsec_sys::nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(scratch.store().images().unwrap_err().contains("not a plain file"));
        fs::remove_file(&path).unwrap();
        for (target, why) in [("/dev/zero", "not a plain file"), ("/", "not a plain file")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            assert!(scratch.store().images().unwrap_err().contains(why), "{target}");
            fs::remove_file(&path).unwrap();
        }
        write(&path, "12345").unwrap();
        assert!(read_plain(&path, 4).unwrap_err().to_string().contains("longer than 4 bytes"));
        assert_eq!(read_plain(&path, 5).unwrap(), b"12345");
    }

    #[test]
    fn whose_stores_there_are() {
        let scratch = Scratch::new("all");
        fs::create_dir(scratch.0.join("overlay-images")).unwrap();
        fs::create_dir(scratch.0.join("overlay-layers")).unwrap();
        let drivers = |root: &Path, owner| {
            Store::all(root, owner).map(|all| all.into_iter().map(|store| store.driver).collect::<Vec<_>>())
        };
        let own = getuid().as_raw();
        assert_eq!(drivers(&scratch.0, own).unwrap(), ["overlay", "vfs"]);
        assert_eq!(drivers(&scratch.0, own + 1).unwrap(), [""; 0], "somebody else's");
        assert_eq!(drivers(&scratch.0.join("none"), own).unwrap(), [""; 0]);
        let file = scratch.0.join("file");
        write(&file, "").unwrap();
        assert!(drivers(&file, own).unwrap_err().contains("file"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_images_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..PODMAN.len()) {
            let scratch = Scratch::new("any");
            let _ = scratch.images(&bytes);
            let at = (0..=cut).rev().find(|&at| PODMAN.is_char_boundary(at)).unwrap();
            let (before, after) = PODMAN.split_at(at);
            let _ = scratch.images([before.as_bytes(), &bytes, after.as_bytes()].concat());
        }
    }
}
