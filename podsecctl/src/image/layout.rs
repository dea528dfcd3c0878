//! What is in an OCI layout (image-spec image-layout.md, image-index.md, manifest.md, config.md), and whether it is whole.
//!
//! Everything in it may be a stranger's. Must not read a document as anybody else could read it otherwise: skopeo takes
//! `URLs` for `urls`, and the last of two keys.

use super::name::{Architecture, ImageName};
use podsec_policy::audit::hex;
use podsec_policy::trust::Digest;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Of an index or a manifest: what containers/image and the registries take, too.
pub const MOST_JSON: u64 = 4 << 20;
/// `oci-layout`
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The fields of an index and a manifest that anybody looks at.
const FIELDS: [&str; 20] = [
    "schemaVersion",
    "mediaType",
    "artifactType",
    "manifests",
    "config",
    "layers",
    "fsLayers",
    "subject",
    "annotations",
    "digest",
    "size",
    "urls",
    "data",
    "platform",
    "architecture",
    "os",
    "os.version",
    "os.features",
    "variant",
    "features",
];

/// A layout as it was found.
#[derive(Debug)]
pub struct Contents {
    /// What the directory around it is called.
    pub architecture: Architecture,
    /// `index.json`
    pub index: Vec<u8>,
    /// `oci-layout`
    pub layout: Vec<u8>,
    /// `blobs/sha256`
    pub blobs: BTreeMap<Digest, Blob>,
}

/// A file below `blobs/sha256`.
#[derive(Debug)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    /// Its name is the digest of what is in it.
    pub is_true: bool,
    /// What is in it, where that may be JSON of no more than [`MOST_JSON`].
    pub json: Option<Vec<u8>>,
}

/// An image that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it is called.
    pub name: ImageName,
    /// Of its manifest.
    pub digest: Digest,
    /// Of its manifest.
    pub manifest_size: u64,
    /// For which machines.
    pub architecture: Architecture,
    /// Of those, such as `v7`.
    pub variant: Option<String>,
    /// Bytes of all its blobs.
    pub size: u64,
    /// All its blobs.
    pub blobs: BTreeSet<Digest>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// With which image or file.
    pub subject: String,
    /// What.
    pub what: String,
}

/// What came of looking.
#[derive(Debug, Default)]
pub struct Judged {
    /// By name.
    pub images: Vec<Image>,
    /// Empty: it is whole.
    pub problems: Vec<Problem>,
    /// Blobs that belong to no image.
    pub unused: usize,
}

/// The digest of something.
#[must_use]
pub fn digest(bytes: &[u8]) -> Option<Digest> {
    named(&Sha256::digest(bytes))
}

/// A SHA-256 as a digest.
#[must_use]
pub fn named(hash: &[u8]) -> Option<Digest> {
    Digest::new(format!("sha256:{}", hex(hash))).ok()
}

/// Looks at everything.
#[must_use]
pub fn judge(contents: &Contents) -> Judged {
    let mut judged = Judged::default();
    let problem = |subject: &str, what: String| Problem { subject: subject.to_owned(), what };
    if !serde_json::from_slice::<Layout>(&contents.layout).is_ok_and(|layout| layout.version == "1.0.0") {
        judged.problems.push(problem("oci-layout", "it is not of version 1.0.0".into()));
    }
    for (digest, blob) in &contents.blobs {
        if !blob.is_true {
            judged.problems.push(problem(digest.as_str(), "its bytes have another digest".into()));
        }
    }
    let index = match strict::<Index>(&contents.index) {
        Ok(index) => index,
        Err(error) => {
            judged.problems.push(problem("index.json", error));
            return judged;
        }
    };
    if index.schema_version != 2 || index.media_type.is_some_and(|kind| kind != INDEX) {
        judged.problems.push(problem("index.json", "it is no index of schema version 2".into()));
    }
    let mut names = BTreeSet::new();
    let mut used = BTreeSet::new();
    for descriptor in index.manifests {
        let called = descriptor.annotations.as_ref().and_then(|annotations| annotations.get(REF_NAME));
        let (subject, name) = match called.map(|text| (text, ImageName::new(text))) {
            Some((_, Ok(name))) => (name.to_string(), name),
            Some((text, Err(error))) => {
                judged.problems.push(problem(text, error.to_string()));
                continue;
            }
            None => {
                let what = format!("an image without a name ({REF_NAME})");
                judged.problems.push(problem(descriptor.digest.as_str(), what));
                continue;
            }
        };
        if !names.insert(name.clone()) {
            judged.problems.push(problem(&subject, "two images have this name".into()));
            continue;
        }
        match image(contents, name, &descriptor) {
            Ok(image) => {
                used.extend(image.blobs.iter().cloned());
                judged.images.push(image);
            }
            Err(found) => judged.problems.extend(found.into_iter().map(|what| problem(&subject, what))),
        }
    }
    judged.images.sort_by(|one, other| one.name.cmp(&other.name));
    judged.unused = contents.blobs.keys().filter(|digest| !used.contains(digest)).count();
    judged
}

/// One image, or all that is wrong with it.
fn image(contents: &Contents, name: ImageName, descriptor: &Descriptor) -> Result<Image, Vec<String>> {
    if descriptor.media_type != MANIFEST {
        return Err(vec![format!("it is of the kind {:?}, and no image", descriptor.media_type)]);
    }
    let mut problems = Vec::new();
    problems.extend(lack(contents, "manifest", descriptor));
    let manifest = document(contents, descriptor).and_then(strict::<Manifest>);
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            problems.push(format!("manifest {}: {error}", descriptor.digest));
            return Err(problems);
        }
    };
    if manifest.schema_version != 2 || manifest.media_type.is_some_and(|kind| kind != MANIFEST) {
        problems.push("its manifest is not of schema version 2".into());
    }
    problems.extend(lack(contents, "configuration", &manifest.config));
    problems.extend(manifest.layers.iter().flat_map(|layer| lack(contents, "layer", layer)));
    let mut variant = None;
    if manifest.config.media_type != CONFIG {
        problems.push(format!("its configuration is of the kind {:?}", manifest.config.media_type));
    } else {
        let config = document(contents, &manifest.config)
            .and_then(|bytes| serde_json::from_slice::<Config>(bytes).map_err(|error| error.to_string()));
        match config {
            Err(error) => problems.push(format!("configuration {}: {error}", manifest.config.digest)),
            Ok(config) if config.architecture != contents.architecture.as_str() || config.os != "linux" => {
                let what = format!("it is for {}/{}", config.os, config.architecture);
                problems.push(format!("{what}, and not for linux/{}", contents.architecture));
            }
            Ok(config) => variant = config.variant.filter(|variant| Architecture::new(variant).is_ok()),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut sizes = BTreeMap::from([(descriptor.digest.clone(), descriptor.size)]);
    for part in manifest.layers.iter().chain([&manifest.config]) {
        sizes.insert(part.digest.clone(), part.size);
    }
    Ok(Image {
        name,
        digest: descriptor.digest.clone(),
        manifest_size: descriptor.size,
        architecture: contents.architecture.clone(),
        variant,
        size: sizes.values().fold(0, |sum: u64, &size| sum.saturating_add(size)),
        blobs: sizes.into_keys().collect(),
    })
}

/// What is wrong with something that is referred to.
fn lack(contents: &Contents, kind: &str, descriptor: &Descriptor) -> Option<String> {
    let digest = &descriptor.digest;
    // skopeo would fetch from there whatever it is told to.
    if descriptor.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
        return Some(format!("{kind} {digest} is to be fetched from elsewhere (urls)"));
    }
    match contents.blobs.get(digest) {
        None => Some(format!("{kind} {digest} is missing")),
        Some(blob) if blob.size != descriptor.size => {
            Some(format!("{kind} {digest} has {} bytes, and {} are said", blob.size, descriptor.size))
        }
        Some(blob) if !blob.is_true => Some(format!("{kind} {digest} was changed")),
        Some(_) => None,
    }
}

fn document<'a>(contents: &'a Contents, descriptor: &Descriptor) -> Result<&'a [u8], String> {
    let blob = contents.blobs.get(&descriptor.digest).ok_or("it is missing")?;
    if blob.size > MOST_JSON {
        return Err(format!("it has more than {MOST_JSON} bytes"));
    }
    blob.json.as_deref().ok_or_else(|| "it is no JSON object".into())
}

/// For the architectures that a manifest or a list of them says it is for; nothing where it does not say so.
#[must_use]
pub fn platforms(manifest: &[u8]) -> Option<Vec<Architecture>> {
    let list: Value = serde_json::from_slice(manifest).ok()?;
    let entries = list.get("manifests")?.as_array()?;
    let of = |entry: &Value| {
        let platform = entry.get("platform")?;
        (platform.get("os")? == "linux").then_some(())?;
        Architecture::new(platform.get("architecture")?.as_str()?).ok()
    };
    let found: BTreeSet<_> = entries.iter().filter_map(of).collect();
    Some(found.into_iter().collect())
}

/// The architecture that a configuration is for.
#[must_use]
pub fn architecture_of(config: &[u8]) -> Option<Architecture> {
    let config: Config = serde_json::from_slice(config).ok()?;
    Architecture::new(&config.architecture).ok()
}

/// What a list of images refers to one by.
fn entry(image: &Image) -> Value {
    let mut platform = json!({ "architecture": image.architecture.as_str(), "os": "linux" });
    if let (Some(variant), Value::Object(fields)) = (&image.variant, &mut platform) {
        fields.insert("variant".into(), variant.as_str().into());
    }
    json!({
        "mediaType": MANIFEST,
        "digest": image.digest.as_str(),
        "size": image.manifest_size,
        "platform": platform,
    })
}

/// One image of several architectures.
#[must_use]
pub fn list_of(images: &[&Image]) -> Vec<u8> {
    let manifests: Vec<_> = images.iter().map(|image| entry(image)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into()
}

/// What an index refers to.
#[derive(Debug)]
pub enum Named<'a> {
    /// An image.
    Image(&'a Image),
    /// A list of them, as [`list_of`] made it.
    List(&'a [u8]),
}

/// `index.json` of these; the same for the same.
#[must_use]
pub fn index_of<'a>(entries: impl IntoIterator<Item = (&'a ImageName, Named<'a>)>) -> Vec<u8> {
    let describe = |(name, what): (&ImageName, Named<'_>)| {
        let mut described = match what {
            Named::Image(image) => entry(image),
            Named::List(bytes) => json!({
                "mediaType": INDEX,
                "digest": digest(bytes).as_ref().map(Digest::as_str),
                "size": bytes.len(),
            }),
        };
        if let Value::Object(fields) = &mut described {
            fields.insert("annotations".into(), json!({ REF_NAME: name.to_string() }));
        }
        described
    };
    let manifests: Vec<_> = entries.into_iter().map(describe).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into()
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(default, rename = "config", deserialize_with = "never")]
    _config: (),
    #[serde(default, rename = "layers", deserialize_with = "never")]
    _layers: (),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, rename = "manifests", deserialize_with = "never")]
    _manifests: (),
    #[serde(default, rename = "fsLayers", deserialize_with = "never")]
    _fs_layers: (),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    urls: Option<Vec<String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
    os: String,
    variant: Option<String>,
}

/// One document that can be read as an image and as a list of them is both to somebody (CVE-2021-41190).
fn never<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer)?;
    Err(D::Error::custom("it is an image and a list of images at once"))
}

/// Reads a document that has one meaning only.
fn strict<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let walked = Walk { is_free: false }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    walked.and_then(|()| serde_json::from_slice(bytes)).map_err(|error| error.to_string())
}

/// Looks at the keys of all objects. Go's encoding/json takes them in any case, with `ſ` for `s` and the sign of the kelvin
/// for `k`, and the last of several.
#[derive(Clone, Copy)]
struct Walk {
    /// Annotations, whose keys are what they are.
    is_free: bool,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let folded = if self.is_free { key.clone() } else { key.to_ascii_lowercase() };
            let is_other = |field: &&str| field.eq_ignore_ascii_case(&key) && **field != key;
            if !self.is_free && (!key.is_ascii() || FIELDS.iter().any(is_other)) {
                return Err(A::Error::custom(format!("the key {key:?} could be taken for another")));
            }
            if !seen.insert(folded) {
                return Err(A::Error::custom(format!("the key {key:?} is there twice")));
            }
            map.next_value_seed(Self { is_free: self.is_free || key == "annotations" })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn blob(bytes: &[u8]) -> (Digest, Blob) {
        let json = bytes.starts_with(b"{").then(|| bytes.to_vec());
        (digest(bytes).unwrap(), Blob { size: bytes.len() as u64, is_true: true, json })
    }

    fn described(kind: &str, bytes: &[u8]) -> Value {
        json!({ "mediaType": kind, "digest": digest(bytes).unwrap().as_str(), "size": bytes.len() })
    }

    pub fn config(architecture: &str) -> Vec<u8> {
        json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } })
            .to_string()
            .into()
    }

    pub fn manifest(config: &[u8], layers: &[&[u8]]) -> Value {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| described("application/vnd.oci.image.layer.v1.tar+gzip", layer))
            .collect();
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": described(CONFIG, config), "layers": layers })
    }

    pub fn index(entries: &[(&str, &[u8])]) -> Value {
        let entry = |&(name, manifest): &(&str, &[u8])| {
            let mut entry = described(MANIFEST, manifest);
            entry["annotations"] = json!({ REF_NAME: name });
            entry
        };
        json!({ "schemaVersion": 2, "manifests": entries.iter().map(entry).collect::<Vec<_>>() })
    }

    /// An image `pause:3` of one layer, with its documents edited.
    fn edited(
        edit_config: impl Fn(Vec<u8>) -> Vec<u8>,
        edit_manifest: impl Fn(Value) -> Vec<u8>,
        edit_index: impl Fn(Value) -> Vec<u8>,
    ) -> Contents {
        let layer = b"a layer";
        let config = edit_config(config("amd64"));
        let manifest = edit_manifest(manifest(&config, &[layer]));
        let index = edit_index(index(&[("pause:3", &manifest)]));
        Contents {
            architecture: Architecture::new("amd64").unwrap(),
            index,
            layout: LAYOUT.into(),
            blobs: [blob(layer), blob(&config), blob(&manifest)].into(),
        }
    }

    fn text(value: &Value) -> Vec<u8> {
        value.to_string().into()
    }

    fn good() -> Contents {
        edited(|config| config, |value| text(&value), |value| text(&value))
    }

    fn problems(contents: &Contents) -> String {
        let found = judge(contents);
        assert_eq!(found.images.is_empty(), !found.problems.is_empty());
        found.problems.iter().map(|problem| format!("{}: {}\n", problem.subject, problem.what)).collect()
    }

    #[test]
    fn what_is_whole() {
        let contents = good();
        let judged = judge(&contents);
        assert_eq!((judged.problems, judged.unused), (vec![], 0));
        let [image] = &judged.images[..] else { panic!("{:?}", judged.images) };
        assert_eq!(image.name.to_string(), "pause:3");
        assert_eq!(image.blobs, contents.blobs.keys().cloned().collect());
        assert_eq!(image.size, contents.blobs.values().map(|blob| blob.size).sum::<u64>());
    }

    #[test]
    fn what_is_not_used_is_no_problem() {
        let mut contents = good();
        contents.blobs.extend([blob(b"left over")]);
        assert_eq!((problems(&contents), judge(&contents).unused), (String::new(), 1));
    }

    #[test]
    fn every_part_that_is_missing_or_changed_is_named() {
        for digest in good().blobs.into_keys() {
            let mut contents = good();
            contents.blobs.remove(&digest);
            assert!(problems(&contents).contains(&format!("{digest} is missing")), "{digest}");
            let mut contents = good();
            contents.blobs.get_mut(&digest).unwrap().is_true = false;
            let said = problems(&contents);
            assert!(said.contains(&format!("{digest}: its bytes have another digest")), "{said}");
            let mut contents = good();
            contents.blobs.get_mut(&digest).unwrap().size += 1;
            assert!(problems(&contents).contains("are said"), "{digest}");
        }
        let mut contents = good();
        contents.layout = b"{}".into();
        assert!(judge(&contents).problems[0].subject == "oci-layout");
    }

    #[test]
    fn an_image_is_for_its_architecture() {
        let other = edited(|_| config("arm64"), |value| text(&value), |value| text(&value));
        assert_eq!(problems(&other), "pause:3: it is for linux/arm64, and not for linux/amd64\n");
        let windows = edited(
            |_| br#"{"architecture":"amd64","os":"windows"}"#.to_vec(),
            |value| text(&value),
            |value| text(&value),
        );
        assert_eq!(problems(&windows), "pause:3: it is for windows/amd64, and not for linux/amd64\n");
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for (part, is_bad) in [("layers", true), ("config", true), ("none", false)] {
            let contents = edited(
                |config| config,
                |mut value| {
                    match part {
                        "layers" => value["layers"][0]["urls"] = json!(["http://10.0.0.1/"]),
                        "config" => value["config"]["urls"] = json!(["http://10.0.0.1/"]),
                        _ => value["layers"][0]["urls"] = json!([]),
                    }
                    text(&value)
                },
                |value| text(&value),
            );
            assert_eq!(problems(&contents).contains("(urls)"), is_bad, "{part}");
        }
    }

    /// What a reader in Go would take for something else than we do.
    #[test]
    fn a_document_has_one_meaning() {
        for (from, to) in [
            (r#""size""#, r#""URLs":["http://a"],"size""#),
            (r#""size""#, "\"url\u{17f}\":[\"http://a\"],\"size\""),
            (r#""size""#, "\"\u{212a}\":1,\"size\""),
            (r#""size""#, r#""Digest":"x","size""#),
            (r#""size""#, r#""size":1,"size""#),
            (r#""size""#, r#""x":1,"X":2,"size""#),
            (r#""layers""#, r#""manifests":[],"layers""#),
            (r#""layers""#, r#""fsLayers":[],"layers""#),
        ] {
            let contents = edited(
                |config| config,
                |value| value.to_string().replace(from, to).into(),
                |value| text(&value),
            );
            assert!(problems(&contents).starts_with("pause:3: manifest sha256:"), "{to}");
        }
        for to in
            [r#""config":{},"manifests""#, r#""layers":[],"manifests""#, r#""Manifests":[],"manifests""#]
        {
            let edit = |value: Value| value.to_string().replace(r#""manifests""#, to).into();
            let contents = edited(|config| config, |value| text(&value), edit);
            assert!(problems(&contents).starts_with("index.json: "), "{to}");
        }
        let annotated = edited(
            |config| config,
            |mut value| {
                value["annotations"] = json!({ "Size": "1", "size": "2", "ſ": "3" });
                text(&value)
            },
            |value| text(&value),
        );
        assert_eq!(problems(&annotated), "");
    }

    #[test]
    fn kinds_names_and_sizes() {
        for (pointer, value, said) in [
            ("/manifests/0/mediaType", json!(INDEX), "and no image"),
            ("/manifests/0/annotations", json!({}), "without a name"),
            ("/manifests/0/annotations", json!({ REF_NAME: "../x:1" }), "is called PATH:TAG"),
            ("/manifests/0/digest", json!("sha256:../../etc/passwd"), "a digest is"),
            ("/manifests/0/digest", json!("sha512:00"), "a digest is"),
            ("/manifests/0/size", json!(-1), "invalid value"),
            ("/schemaVersion", json!(1), "no index of schema version 2"),
            ("/manifests", json!(null), "invalid type"),
        ] {
            let contents = edited(
                |config| config,
                |value| text(&value),
                |mut index| {
                    *index.pointer_mut(pointer).unwrap() = value.clone();
                    text(&index)
                },
            );
            let found = judge(&contents).problems;
            assert!(found.iter().any(|problem| problem.what.contains(said)), "{pointer}: {found:?}");
        }
        let twice = edited(
            |config| config,
            |value| text(&value),
            |mut index| {
                let entry = index["manifests"][0].clone();
                index["manifests"].as_array_mut().unwrap().push(entry);
                text(&index)
            },
        );
        assert!(judge(&twice).problems[0].what.contains("two images"));
        let mut large = good();
        large.blobs.values_mut().for_each(|blob| blob.size = MOST_JSON + 1);
        assert!(problems(&large).contains("it has more than 4194304 bytes"));
        let deep = edited(|config| config, |value| text(&value), |_| b"[".repeat(100_000));
        assert!(problems(&deep).starts_with("index.json"));
    }

    #[test]
    fn an_index_of_ours_is_read() {
        let contents = good();
        let image = judge(&contents).images.remove(0);
        let index = index_of([(&image.name, Named::Image(&image))]);
        assert_eq!(judge(&Contents { index, ..contents }).images, std::slice::from_ref(&image));
        let other = Image {
            architecture: Architecture::new("arm").unwrap(),
            variant: Some("v7".into()),
            ..image.clone()
        };
        let list = list_of(&[&image, &other]);
        let archs: Vec<_> = platforms(&list).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(archs, ["amd64", "arm"]);
        let index = index_of([(&image.name, Named::List(&list))]);
        assert!(String::from_utf8(index).unwrap().contains(digest(&list).unwrap().as_str()));
        assert_eq!(platforms(br#"{"layers":[]}"#), None);
    }
}
