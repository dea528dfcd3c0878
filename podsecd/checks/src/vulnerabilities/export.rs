//! An image of a store as an OCI layout (image-layout.md of opencontainers/image-spec), which trivy reads: every layer is put
//! together again from its files and what `tar-split` remembers of the archive that it came in (github.com/vbatts/tar-split;
//! containers/storage keeps that beside each layer). No podman, no skopeo, no namespace, no mount, nothing written to the
//! store; the same for root's store and anybody's.
//!
//! For a process that is the store's owner, shut in ([`super::cage`]): everything in a store may be anything.

use crate::storage::{is_id, read_plain};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podsec_policy::audit::hex;
use podsec_sys::nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of `layers.json`.
const LONGEST: usize = 64 << 20;
/// Bytes of one entry: the headers of one file, or a piece of what pads an archive.
const ENTRY: u64 = 4 << 20;
/// Layers of one image; no driver takes more.
const LAYERS: usize = 500;

/// An image that can be exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `…/containers/storage`
    pub root: PathBuf,
    /// overlay, vfs, btrfs
    pub driver: String,
    /// Its topmost layer.
    pub layer: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// Bytes of all layers.
    pub bytes: u64,
    /// Files that are closed to the owner; zeros stand for them.
    pub unread: u64,
}

#[derive(Deserialize)]
struct Layer {
    id: String,
    #[serde(default)]
    parent: String,
}

/// Puts it into a directory that is there and empty; `gzip` is the program, `most` is in bytes.
///
/// # Errors
/// says what is wrong with which layer
pub fn export(source: &Source, to: &Path, gzip: &Path, most: u64) -> Result<Exported, String> {
    let mut done = Exported::default();
    let blobs = to.join("blobs/sha256");
    let failed = |error: io::Error| format!("{}: {error}", to.display());
    std::fs::create_dir_all(&blobs).map_err(failed)?;
    let (mut layers, mut ids) = (Vec::new(), Vec::new());
    for id in chain(source)? {
        let place = to.join("layer");
        let mut blob =
            Blob { to: BufWriter::new(File::create(&place).map_err(failed)?), hash: Sha256::new(), size: 0 };
        let left = most - done.bytes;
        let unread =
            layer(source, &id, gzip, &mut blob, left).map_err(|error| format!("layer {id}: {error}"))?;
        blob.to.flush().map_err(failed)?;
        let (digest, size) = (hex(&blob.hash.finalize()), blob.size);
        std::fs::rename(&place, blobs.join(&digest)).map_err(failed)?;
        done = Exported { bytes: done.bytes + size, unread: done.unread + unread };
        let digest = format!("sha256:{digest}");
        layers.push(
            json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size }),
        );
        ids.push(digest);
    }
    let put = |media: &str, value: &Value| {
        let bytes = value.to_string().into_bytes();
        let digest = hex(&Sha256::digest(&bytes));
        let written = File::create(blobs.join(&digest)).and_then(|mut file| file.write_all(&bytes));
        written.map_err(failed)?;
        let media = format!("application/vnd.oci.image.{media}");
        Ok::<_, String>(
            json!({ "mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len() }),
        )
    };
    // Its own configuration has nothing that trivy would look for packages in, and is one thing less to be read.
    let config = json!({ "os": "linux", "architecture": "", "config": {}, "rootfs": { "type": "layers", "diff_ids": ids } });
    let config = put("config.v1+json", &config)?;
    let media = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media, "config": config, "layers": layers });
    let index = json!({ "schemaVersion": 2, "manifests": [put("manifest.v1+json", &manifest)?] });
    for (name, value) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))] {
        let written = File::create(to.join(name)).and_then(|mut file| write!(file, "{value}"));
        written.map_err(failed)?;
    }
    Ok(done)
}

/// Its layers, the lowest first.
fn chain(source: &Source) -> Result<Vec<String>, String> {
    let directory = source.root.join(format!("{}-layers", source.driver));
    let mut parents = HashMap::new();
    for name in ["layers.json", "volatile-layers.json"] {
        let path = directory.join(name);
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = match read_plain(&path, LONGEST) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(wrong(&error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let layers: Vec<Layer> = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
        parents.extend(layers.into_iter().map(|layer| (layer.id, layer.parent)));
    }
    let (mut chain, mut next) = (Vec::new(), source.layer.clone());
    while !next.is_empty() {
        // The id is a directory's name.
        let parent = parents.get(&next).filter(|_| is_id(&next) && chain.len() < LAYERS);
        let parent = parent.ok_or("its layers are not all there; podman system check says more")?.clone();
        chain.push(std::mem::replace(&mut next, parent));
    }
    chain.reverse();
    Ok(chain)
}

/// What is written, counted and hashed.
struct Blob {
    to: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A layer's archive as it was; the number of files that could not be read.
fn layer(source: &Source, id: &str, gzip: &Path, to: &mut impl Write, most: u64) -> Result<u64, String> {
    let files = match source.driver.as_str() {
        "overlay" => format!("overlay/{id}/diff"),
        "vfs" => format!("vfs/dir/{id}"),
        "btrfs" => format!("btrfs/subvolumes/{id}"),
        driver => return Err(format!("a store of the driver {driver:?} cannot be read")),
    };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let files = openat2(podsec_sys::nix::fcntl::AT_FDCWD, &source.root.join(&files), how)
        .map_err(|error| format!("{files}: {error}"))?;
    let remembered = source.root.join(format!("{}-layers/{id}.tar-split.gz", source.driver));
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", remembered.display());
    let remembered_file = open_plain(&remembered).map_err(|error| wrong(&error))?;
    let mut gzip = Command::new(gzip)
        .arg("-dc")
        .env_clear()
        .stdin(remembered_file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("gzip: {error}"))?;
    let done = match gzip.stdout.take() {
        Some(entries) => assemble(BufReader::new(entries), &files, to, most),
        None => Err("gzip: no pipe".into()),
    };
    // It may be in the middle of what nobody wants any more.
    let _ = gzip.kill();
    let ended = gzip.wait();
    let done = done.map_err(|error| wrong(&error))?;
    match ended {
        // Killed after its last byte.
        Ok(status) if status.success() || status.code().is_none() => Ok(done),
        _ => Err(wrong(&"gzip cannot unpack it")),
    }
}

fn open_plain(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// One line of what tar-split remembers (tar/storage/entry.go).
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    /// Where the name is not UTF-8; base64.
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: u64,
    /// Bytes of the archive; base64.
    #[serde(default)]
    payload: Option<String>,
}

/// A file's content comes next.
const FILE: u8 = 1;
/// Bytes come next: headers, padding.
const SEGMENT: u8 = 2;

fn assemble(
    mut entries: impl BufRead,
    files: &OwnedFd,
    to: &mut impl Write,
    most: u64,
) -> Result<u64, String> {
    let (mut left, mut unread) = (most, 0);
    let mut line = Vec::new();
    let text = |error: io::Error| error.to_string();
    loop {
        line.clear();
        (&mut entries).take(ENTRY).read_until(b'\n', &mut line).map_err(text)?;
        if line.is_empty() {
            return Ok(unread);
        }
        let entry: Entry = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
        let bytes = |base64: &String| STANDARD.decode(base64).map_err(|error| error.to_string());
        let segment = match entry.kind {
            SEGMENT => entry.payload.as_ref().map(bytes).transpose()?.unwrap_or_default(),
            FILE => Vec::new(),
            kind => return Err(format!("an entry of the kind {kind} is not known")),
        };
        let size = if entry.kind == FILE { entry.size } else { segment.len() as u64 };
        left = left.checked_sub(size).ok_or("the image is larger than there is room for; see largest_gib")?;
        to.write_all(&segment).map_err(text)?;
        if entry.kind == FILE && size > 0 {
            let name = match (&entry.name_raw, entry.name) {
                (Some(raw), _) => bytes(raw)?,
                (None, Some(name)) => name.into_bytes(),
                (None, None) => return Err("a file without a name".into()),
            };
            // What is not there is zeros, so that what follows stays where it is.
            let copied = match open_beneath(files, &name) {
                Ok(file) => io::copy(&mut file.take(size), to).map_err(text)?,
                Err(_) => 0,
            };
            io::copy(&mut io::repeat(0).take(size - copied), to).map_err(text)?;
            unread += u64::from(copied < size && !is_secret(&name));
        }
    }
}

/// A plain file of the layer; links on the way stay in it.
fn open_beneath(files: &OwnedFd, name: &[u8]) -> io::Result<File> {
    use std::os::unix::ffi::OsStrExt as _;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags).resolve(resolve);
    let file = File::from(openat2(files, Path::new(std::ffi::OsStr::from_bytes(name)), how)?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Of passwords and no packages: some distributions close these to their owner, and root needs no permission to read them.
fn is_secret(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = name.strip_suffix(b"-").unwrap_or(name);
    name == b"etc/shadow" || name == b"etc/gshadow" || name.starts_with(b"etc/tcb/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("podsec-export-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(path.join("diff")).unwrap();
            Self(path)
        }

        fn files(&self) -> OwnedFd {
            File::open(self.0.join("diff")).unwrap().into()
        }

        fn put(&self, name: &str, bytes: &[u8]) {
            podsec_sys::file::replace(&self.0.join("diff").join(name), bytes, 0o600).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn segment(bytes: &[u8]) -> String {
        json!({ "type": 2, "payload": STANDARD.encode(bytes), "position": 0 }).to_string() + "\n"
    }

    fn file(name: &str, size: u64) -> String {
        json!({ "type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA=", "position": 1 }).to_string()
            + "\n"
    }

    fn put_together(place: &Place, entries: &str, most: u64) -> Result<(u64, Vec<u8>), String> {
        let mut bytes = Vec::new();
        assemble(entries.as_bytes(), &place.files(), &mut bytes, most).map(|unread| (unread, bytes))
    }

    #[test]
    fn an_archive_is_as_it_was() {
        let place = Place::new("whole");
        place.put("a", b"12345");
        std::os::unix::fs::symlink("/a", place.0.join("diff/link")).unwrap();
        let raw = json!({ "type": 1, "name_raw": STANDARD.encode(b"\xff"), "size": 2, "position": 2 })
            .to_string()
            + "\n";
        let entries = segment(b"<head>")
            + &file("./a", 5)
            + &segment(b"<pad>")
            + &file("dir/", 0)
            + &file("link", 5)
            + &raw;
        let (unread, bytes) = put_together(&place, &entries, 1000).unwrap();
        assert_eq!((unread, bytes.as_slice()), (1, &b"<head>12345<pad>12345\0\0"[..]));
        assert!(put_together(&place, &entries, 22).unwrap_err().contains("larger than there is room for"));
    }

    #[test]
    fn what_cannot_be_read_is_zeros_and_counted() {
        let place = Place::new("unread");
        place.put("short", b"12");
        podsec_sys::nix::unistd::mkfifo(
            &place.0.join("diff/fifo"),
            podsec_sys::nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", place.0.join("diff/exe")).unwrap();
        std::os::unix::fs::symlink("../../../../../../../etc/passwd", place.0.join("diff/out")).unwrap();
        podsec_sys::file::replace(&place.0.join("outside"), b"secret", 0o600).unwrap();
        for name in ["none", "fifo", "exe", "out", "../outside", "/../outside", "/etc/passwd", ""] {
            assert_eq!(put_together(&place, &file(name, 3), 9).unwrap(), (1, vec![0; 3]), "{name}");
        }
        assert_eq!(put_together(&place, &file("short", 3), 9).unwrap(), (1, b"12\0".to_vec()));
        assert_eq!(put_together(&place, &file("etc/shadow", 3), 9).unwrap(), (0, vec![0; 3]));
        assert_eq!(put_together(&place, &file("./etc/tcb/root/shadow-", 3), 9).unwrap(), (0, vec![0; 3]));
    }

    #[test]
    fn what_is_no_archive() {
        let place = Place::new("hostile");
        let long = format!("{{\"type\":2,\"payload\":\"{}", "A".repeat(5 << 20));
        for entries in [
            "x",
            "{}",
            "{\"type\":3}",
            "{\"type\":1,\"size\":1}",
            "{\"type\":1,\"name\":\"a\",\"size\":-1}",
            "{\"type\":2,\"payload\":\"?\"}",
            "{\"type\":1,\"name_raw\":\"?\",\"size\":1}",
            &file("a", u64::MAX),
            &long,
        ] {
            assert!(put_together(&place, entries, 1 << 20).is_err(), "{}", &entries[..entries.len().min(80)]);
        }
        assert_eq!(put_together(&place, "", 0).unwrap(), (0, vec![]));
    }

    #[test]
    fn layers_are_a_chain() {
        let place = Place::new("chain");
        let id = |digit: char| digit.to_string().repeat(64);
        std::fs::create_dir_all(place.0.join("overlay-layers")).unwrap();
        let source = |layer: String| Source { root: place.0.clone(), driver: "overlay".into(), layer };
        let layers = |layers: &Value| {
            let path = place.0.join("overlay-layers/layers.json");
            podsec_sys::file::replace(&path, layers.to_string().as_bytes(), 0o600).unwrap();
        };
        layers(
            &json!([{ "id": id('a') }, { "id": id('b'), "parent": id('a') }, { "id": id('c'), "parent": id('d') }]),
        );
        assert_eq!(chain(&source(id('b'))), Ok(vec![id('a'), id('b')]));
        assert_eq!(chain(&source(String::new())), Ok(vec![]));
        assert!(chain(&source(id('c'))).is_err() && chain(&source(id('e'))).is_err());
        layers(&json!([{ "id": id('a'), "parent": id('b') }, { "id": id('b'), "parent": id('a') }]));
        assert!(chain(&source(id('a'))).is_err(), "a ring");
        layers(&json!([{ "id": "../../x" }]));
        assert!(chain(&source("../../x".into())).is_err(), "a path");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let root: OwnedFd = File::open("/").unwrap().into();
            let _ = assemble(&bytes[..], &root, &mut Vec::new(), 1000);
        }
    }
}
