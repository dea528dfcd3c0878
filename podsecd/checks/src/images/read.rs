//! What a store has of each image: its names, its manifests, its signatures. Runs as the store's owner, in his sandbox, so
//! what comes of it is his word about himself; that its sizes are bounded is checked here, that its texts are names is for
//! who reads them.

use crate::owner::Owner;
use crate::storage::{Image, Store, is_id};
use podsec_policy::audit::hex;
use podsec_policy::trust::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a manifest, and of a configuration (containers/image, internal/iolimits).
const LONGEST: usize = 4 << 20;
/// Bytes of a signature; the same as podsec takes from a creator.
const SIGNATURE: usize = podsec_policy::trust::SignatureBytes::LONGEST;
/// Signatures of an image that are looked at, and manifests; what is beyond makes none of the others better.
const MOST: usize = 32;
/// Names of one image.
const NAMES: usize = 64;
/// Bytes of a name: more than any that a registry could have (distribution/reference: 255, a tag and a digest).
const NAME: usize = 512;
/// Bytes of the first answer, roughly: everybody's are in memory at once.
pub const FIRST: usize = 128 << 10;
/// Of the others: less than what a child may say.
pub const NEXT: usize = 4 << 20;

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// As its store has it.
    pub id: String,
    /// `host/path:tag` or `host/path@digest`; those that it had, where it has none.
    pub names: Vec<String>,
    /// Of its manifest.
    pub digest: String,
    /// Digests of the manifests by which it can be signed: their bytes, and those of the configuration that they name, are
    /// what they should be.
    pub manifests: BTreeSet<Digest>,
    /// Signatures of any of them.
    pub signatures: Vec<Vec<u8>>,
    /// Why it is not what it says.
    pub wrong: Option<String>,
}

/// Some of an owner's images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In the order of their stores.
    pub images: Vec<Seen>,
    /// How many there are in all.
    pub total: usize,
    /// Stores that cannot be read, and why.
    pub missed: Vec<String>,
}

/// His images but for the first `skip`: as many as one answer of that size holds.
///
/// # Errors
/// never; what cannot be read is said in the answer
pub fn page(owner: &Owner, skip: usize, most: usize) -> Result<Page, String> {
    let mut page = Page::default();
    let mut size = 0;
    for store in owner.stores(&mut page.missed) {
        let images = store.images().unwrap_or_else(|error| {
            page.missed.push(error);
            Vec::new()
        });
        for image in images {
            page.total += 1;
            if page.total <= skip || size > most {
                continue;
            }
            let seen = see(&store, image);
            size += 512 + seen.names.iter().chain([&seen.id, &seen.digest]).map(String::len).sum::<usize>();
            size += seen.signatures.iter().map(Vec::len).sum::<usize>();
            page.images.push(seen);
        }
    }
    Ok(page)
}

fn see(store: &Store, image: Image) -> Seen {
    let named = image.names.filter(|names| !names.is_empty());
    let names = named.or(image.history).unwrap_or_default();
    let mut seen = Seen {
        id: cut(image.id, NAME),
        names: names.into_iter().take(NAMES).map(|name| cut(name, NAME)).collect(),
        digest: cut(image.digest, NAME),
        ..Seen::default()
    };
    let documents = image.documents.unwrap_or_default();
    if let Err(why) = look(store, &image.metadata, &documents, &mut seen) {
        seen.wrong = Some(cut(why, NAME));
    }
    seen
}

/// At most so many bytes of it. A name that is longer is none.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Finds its manifests and signatures.
fn look(store: &Store, metadata: &str, documents: &[String], seen: &mut Seen) -> Result<(), String> {
    if !is_id(&seen.id) {
        return Err("its id is not 64 hexadecimal digits".into());
    }
    let kept = documents.iter().filter_map(|name| Digest::new(name.strip_prefix("manifest-")?).ok());
    let mut named: BTreeSet<Digest> = kept.take(MOST).collect();
    named.extend(Digest::new(seen.digest.as_str()));
    for digest in &named {
        let name = format!("manifest-{digest}");
        let Some(bytes) = store.document(&seen.id, &name, LONGEST)? else { continue };
        if counts(store, &seen.id, &name, digest, &bytes)? {
            seen.manifests.insert(digest.clone());
        }
    }
    // The one that is read when nobody says which.
    if let Some(bytes) = store.document(&seen.id, "manifest", LONGEST)? {
        match named.iter().find(|digest| is_of(&bytes, digest)) {
            Some(digest) if counts(store, &seen.id, "manifest", digest, &bytes)? => {
                seen.manifests.insert(digest.clone());
            }
            Some(_) => {}
            None if is_of_old(&bytes) => {}
            None => return Err("manifest has a digest that the store does not name".into()),
        }
    }
    let sizes: Sizes = serde_json::from_str(metadata).unwrap_or_default();
    for digest in &seen.manifests {
        let name = format!("signature-{}", digest.hex());
        // Several in one, and how long each is stands in another place, which is overwritten with the image's next copy.
        let Some(bytes) = store.document(&seen.id, &name, MOST * SIGNATURE)? else { continue };
        let parts = sizes.signatures.get(digest.as_str()).and_then(|sizes| split(&bytes, sizes));
        let parts = parts.unwrap_or_else(|| vec![&bytes]).into_iter();
        let parts = parts.filter(|part| (1..=SIGNATURE).contains(&part.len()));
        seen.signatures.extend(parts.take(MOST.saturating_sub(seen.signatures.len())).map(<[u8]>::to_vec));
    }
    Ok(())
}

/// As far as it is of use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sizes {
    #[serde(rename = "signatures-sizes")]
    signatures: BTreeMap<String, Vec<usize>>,
}

/// `None`: it is not that long.
fn split<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Option<Vec<&'a [u8]>> {
    let mut parts = Vec::new();
    for &size in sizes {
        let (part, rest) = bytes.split_at_checked(size)?;
        parts.push(part);
        bytes = rest;
    }
    bytes.is_empty().then_some(parts)
}

/// image-spec manifest.md, as far as it is of use.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    #[serde(rename = "schemaVersion")]
    version: u64,
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
}

/// Is it the manifest of that digest, of one image, whose configuration is here?
fn counts(store: &Store, id: &str, name: &str, digest: &Digest, bytes: &[u8]) -> Result<bool, String> {
    if !is_of(bytes, digest) {
        return if is_of_old(bytes) { Ok(false) } else { Err(format!("{name} has another digest")) };
    }
    // A list of images is signed for itself; who pulls one of them demands a signature of that one.
    let manifest: Manifest = serde_json::from_slice(bytes).unwrap_or_default();
    let Some(config) = manifest.config.and_then(|config| Digest::new(config.digest).ok()) else {
        return Ok(false);
    };
    match store.document(id, config.as_str(), LONGEST)? {
        None => Ok(false),
        Some(bytes) if is_of(&bytes, &config) => Ok(true),
        Some(_) => Err(format!("its configuration {config} has another digest")),
    }
}

/// Of Docker's first form, whose digest is not that of its bytes, and which nothing that podsec knows signs.
fn is_of_old(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Manifest>(bytes).is_ok_and(|manifest| manifest.version == 1)
}

fn is_of(bytes: &[u8], digest: &Digest) -> bool {
    hex(&Sha256::digest(bytes)) == digest.hex()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::{Scratch, write};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use std::fs;

    const CONFIG: &str = r#"{"os":"linux"}"#;

    fn hash(bytes: &[u8]) -> String {
        hex(&Sha256::digest(bytes))
    }

    fn manifest(note: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{}"}},"note":"{note}"}}"#,
            hash(CONFIG.as_bytes())
        )
    }

    /// An image with these documents: what is seen of it.
    fn seen(name: &str, documents: &[(&str, &[u8])], edit: impl FnOnce(&mut Image)) -> Seen {
        let scratch = Scratch::new(&format!("read-{name}"));
        let id = "a".repeat(64);
        let directory = scratch.0.join("vfs-images").join(&id);
        fs::create_dir(&directory).unwrap();
        for (name, bytes) in documents {
            let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase());
            let file = if is_plain { (*name).to_owned() } else { format!("={}", STANDARD.encode(name)) };
            write(directory.join(file), bytes).unwrap();
        }
        let mut image = Image {
            id,
            digest: String::new(),
            names: Some(vec!["a.b/c:1".into()]),
            history: None,
            layer: String::new(),
            metadata: String::new(),
            documents: Some(documents.iter().map(|(name, _)| (*name).to_owned()).collect()),
        };
        edit(&mut image);
        see(&scratch.store(), image)
    }

    #[test]
    fn manifests_and_their_signatures() {
        let (one, two) = (manifest("1"), manifest("2"));
        let (first, second) = (hash(one.as_bytes()), hash(two.as_bytes()));
        let config = format!("sha256:{}", hash(CONFIG.as_bytes()));
        let documents = [
            (config.as_str(), CONFIG.as_bytes()),
            (&*format!("manifest-sha256:{first}"), one.as_bytes()),
            (&*format!("manifest-sha256:{second}"), two.as_bytes()),
            ("manifest", two.as_bytes()),
            (&*format!("signature-{first}"), b"\x90aa\x90b"),
            (&*format!("signature-{second}"), b"\x90c\x90dd"),
        ];
        let found = seen("good", &documents, |image| {
            image.digest = format!("sha256:{first}");
            // The sizes of the other one were overwritten.
            image.metadata = format!(r#"{{"signatures-sizes":{{"sha256:{first}":[3,2]}}}}"#);
        });
        assert_eq!((found.wrong, found.manifests.len()), (None, 2));
        let mut signatures = found.signatures;
        signatures.sort_unstable();
        assert_eq!(signatures, [b"\x90aa".as_slice(), b"\x90b", b"\x90c\x90dd"]);
        // Sizes that are not those: it is one.
        for sizes in ["[1]", "[99]", "[3,3]", "[18446744073709551615,1]", "[-1]", "{}"] {
            let found = seen("sizes", &documents[..5], |image| {
                image.metadata = format!(r#"{{"signatures-sizes":{{"sha256:{first}":{sizes}}}}}"#);
                image.documents =
                    Some(vec![format!("manifest-sha256:{first}"), format!("manifest-sha256:{second}")]);
            });
            assert_eq!(found.signatures, [b"\x90aa\x90b"], "{sizes}");
        }
    }

    #[test]
    fn signatures_are_bounded() {
        let one = manifest("1");
        let first = hash(one.as_bytes());
        let config = format!("sha256:{}", hash(CONFIG.as_bytes()));
        let count = |blob: &[u8], sizes: String| {
            let documents = [
                (config.as_str(), CONFIG.as_bytes()),
                (&*format!("manifest-sha256:{first}"), one.as_bytes()),
                (&*format!("signature-{first}"), blob),
            ];
            let found = seen("bounded", &documents, |image| {
                image.metadata = format!(r#"{{"signatures-sizes":{{"sha256:{first}":{sizes}}}}}"#);
            });
            (found.signatures.len(), found.wrong.is_some())
        };
        assert_eq!(count(&[0x90; 40], format!("{:?}", [1; 40])), (MOST, false));
        assert_eq!(count(&vec![0x90; SIGNATURE], format!("[{SIGNATURE}]")), (1, false));
        assert_eq!(count(&vec![0x90; SIGNATURE + 1], "[]".into()), (0, false));
        assert_eq!(count(b"", "[]".into()), (0, false));
        assert_eq!(count(&vec![0x90; MOST * SIGNATURE + 1], "[]".into()), (0, true));
    }

    #[test]
    fn what_was_tampered_with() {
        let one = manifest("1");
        let name = format!("manifest-sha256:{}", hash(one.as_bytes()));
        let config = format!("sha256:{}", hash(CONFIG.as_bytes()));
        let wrong = |documents: &[(&str, &[u8])]| {
            let found = seen("tampered", documents, |_| ());
            (found.wrong.unwrap_or_default(), found.manifests.len())
        };
        let good: (&str, &[u8]) = (&name, one.as_bytes());
        let here: (&str, &[u8]) = (&config, CONFIG.as_bytes());
        assert_eq!(wrong(&[good, here, ("manifest", one.as_bytes())]), (String::new(), 1));
        assert!(wrong(&[(&name, b"{}"), here]).0.contains("another digest"));
        assert!(wrong(&[good, (&config, b"{}")]).0.contains("configuration"));
        assert!(wrong(&[good, here, ("manifest", b"{}")]).0.contains("does not name"));
        // Nothing to be signed by: without its configuration, a list, and Docker's first form.
        assert_eq!(wrong(&[good]), (String::new(), 0));
        let list = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(wrong(&[(&format!("manifest-sha256:{}", hash(list)), list)]), (String::new(), 0));
        assert_eq!(
            wrong(&[(&name, br#"{"schemaVersion":1}"#), ("manifest", br#"{"schemaVersion":1}"#)]),
            (String::new(), 0)
        );
        assert_eq!(wrong(&[]), (String::new(), 0));
    }

    #[test]
    fn names_are_bounded_and_those_of_before_count_without_others() {
        let long = "ü".repeat(NAME);
        let found = seen("names", &[], |image| image.names = Some(vec![long; NAMES + 1]));
        assert_eq!(found.names.len(), NAMES);
        assert!(found.names.iter().all(|name| name.len() <= NAME + '…'.len_utf8()));
        for none in [None, Some(Vec::new())] {
            let found = seen("history", &[], |image| {
                image.names = none;
                image.history = Some(vec!["a.b/old:1".into()]);
            });
            assert_eq!(found.names, ["a.b/old:1"]);
        }
        let found = seen("id", &[], |image| image.id = "../../etc".into());
        assert_eq!(found.wrong.as_deref(), Some("its id is not 64 hexadecimal digits"));
        let found = seen("digests", &[("manifest", b"{}")], |image| {
            image.digest = "sha256:../../etc/shadow".into();
            image.documents = Some(vec!["manifest-../../etc/shadow".into(), "manifest-".into(), "=".into()]);
        });
        assert!(found.manifests.is_empty() && found.wrong.is_some());
    }

    #[test]
    fn page_by_page_everything_once() {
        let scratch = Scratch::new("pages");
        let uid = podsec_sys::nix::unistd::getuid().as_raw();
        let owner = Owner::of(
            &format!("me:x:{uid}:{uid}::{}:/", scratch.0.display()),
            "",
            &podsec_policy::config::Config::default(),
        );
        let owner = Owner { uid: uid.max(1), ..owner[0].clone() };
        let images = scratch.0.join(".local/share/containers/storage/vfs-images");
        fs::create_dir_all(&images).unwrap();
        if uid == 0 {
            podsec_sys::file::Directory::open(&images).unwrap().give(1, 1, 0o700).unwrap();
        }
        let list: Vec<_> = (0..50).map(|number| format!(r#"{{"id":"{number:064x}"}}"#)).collect();
        write(images.join("images.json"), format!("[{}]", list.join(","))).unwrap();
        let mut all = Vec::new();
        while all.len() < 50 {
            let page = page(&owner, all.len(), 4000).unwrap();
            assert!((1..20).contains(&page.images.len()) && page.total == 50, "{}", page.images.len());
            all.extend(page.images.into_iter().map(|seen| seen.id));
        }
        all.dedup();
        assert_eq!(all.len(), 50);
        assert_eq!(page(&owner, 50, 4000).unwrap().images, []);
        write(images.join("images.json"), "x").unwrap();
        assert_eq!(page(&owner, 0, 4000).unwrap().missed.len(), 1);
    }
}
