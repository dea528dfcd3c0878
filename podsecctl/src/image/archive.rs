//! An archive: `<arch>.tar.zst` or `.tar.xz`, in which `<arch>/` is an OCI layout. Read from its first byte to its last,
//! once, without going back.
//!
//! Owns what may stand in one. Must not write anything but into files that the caller opened for a name that was checked.

use super::layout::{self, Blob, Contents, MOST_JSON};
use super::name::Architecture;
use super::pack::Unpacker;
use super::progress::Progress;
use super::run::Watch;
use super::tar::{Reader, TarError, Writer};
use super::{Trouble, clean};
use podsec_policy::trust::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// More than any set of images has.
const MOST_ENTRIES: usize = 65_536;
/// Of what could be documents, all together: they are kept.
const MOST_DOCUMENTS: u64 = 64 << 20;
/// A `oci-layout` says one thing.
const MOST_LAYOUT: u64 = 4096;

/// How much one may unpack to.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes of all files.
    pub bytes: u64,
    /// What the bytes are limited by, for whoever asks for more.
    pub because: &'static str,
}

/// A file of a layout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// `blobs/sha256/<64 hex>`
    Blob(Digest),
    /// `index.json`
    Index,
    /// `oci-layout`
    Layout,
}

impl Member {
    /// Below the layout's directory.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Self::Blob(digest) => format!("blobs/sha256/{}", digest.hex()),
            Self::Index => "index.json".into(),
            Self::Layout => "oci-layout".into(),
        }
    }

    fn new(path: &str) -> Option<Self> {
        match path {
            "index.json" => Some(Self::Index),
            "oci-layout" => Some(Self::Layout),
            _ => Digest::new(format!("sha256:{}", path.strip_prefix("blobs/sha256/")?)).ok().map(Self::Blob),
        }
    }
}

/// Where the bytes of a member go; nowhere, where there is nothing to be kept.
pub type Keep<'a> = &'a mut dyn FnMut(&Member, u64) -> Result<Option<File>, Trouble>;

/// Reads an archive of a stranger's.
///
/// # Errors
/// [`Trouble::Refused`], with the archive's path and the reason
pub fn scan(
    path: &Path,
    limit: Limit,
    (watch, progress): (&Watch, &mut Progress),
    keep: Keep<'_>,
) -> Result<Contents, Trouble> {
    let what = format!("reading {}", clean(&path.to_string_lossy()));
    let mut done = 0;
    let unpacker = Unpacker::open(path, watch)?;
    let mut reader = Reader::new(io::BufReader::with_capacity(128 * 1024, unpacker));
    let scanned = read(&mut reader, limit, keep, &mut |count| {
        done += count;
        progress.draw(&what, done, None);
    });
    progress.clear();
    let unpacker = reader.into_inner().into_inner();
    let scanned = match scanned {
        // Whoever packed it says best what is wrong with that.
        Ok(_) | Err(Trouble::Short) => unpacker.finish().and(scanned),
        Err(_) => scanned,
    };
    scanned.map_err(|trouble| match trouble {
        Trouble::Refused(what) => Trouble::Refused(format!("{}: {what}", clean(&path.to_string_lossy()))),
        Trouble::Short => {
            Trouble::Refused(format!("{}: {}", clean(&path.to_string_lossy()), TarError::Short))
        }
        trouble => trouble,
    })
}

fn read<R: Read>(
    reader: &mut Reader<R>,
    limit: Limit,
    keep: Keep<'_>,
    count: &mut dyn FnMut(u64),
) -> Result<Contents, Trouble> {
    let refused = |what: String| Trouble::Refused(what);
    let mut architecture: Option<Architecture> = None;
    let (mut index, mut oci_layout) = (None, None);
    let mut blobs = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut bytes, mut documents) = (0_u64, 0_u64);
    while let Some(entry) = reader.next()? {
        let name = format!("{:?}", entry.name);
        if seen.len() == MOST_ENTRIES {
            return Err(refused(format!("it has more than {MOST_ENTRIES} entries")));
        }
        let foreign = || refused(format!("{name} has no place in an archive of images"));
        let text = if entry.is_directory { entry.name.trim_end_matches('/') } else { &entry.name };
        let (top, rest) = text.split_once('/').map_or((text, ""), |(top, rest)| (top, rest));
        let top = Architecture::new(top).map_err(|_| foreign())?;
        if architecture.as_ref().is_some_and(|known| *known != top) {
            return Err(refused(format!("{name} is for another architecture than the rest")));
        }
        architecture = Some(top);
        if !seen.insert(text.to_owned()) {
            return Err(refused(format!("{name} is there twice")));
        }
        if entry.is_directory {
            if ["", "blobs", "blobs/sha256"].contains(&rest) {
                continue;
            }
            return Err(foreign());
        }
        let member = Member::new(rest).ok_or_else(foreign)?;
        let most = match member {
            Member::Blob(_) => u64::MAX,
            Member::Index => MOST_JSON,
            Member::Layout => MOST_LAYOUT,
        };
        if entry.size > most {
            return Err(refused(format!("{name} has more than {most} bytes")));
        }
        bytes = bytes.saturating_add(entry.size);
        if bytes > limit.bytes {
            return Err(refused(format!("it unpacks to more than {} bytes: {}", limit.bytes, limit.because)));
        }
        let file = keep(&member, entry.size)?;
        let (hash, document) = copy(reader, entry.size, file, count)?;
        documents += document.as_ref().map_or(0, |document| document.len() as u64);
        if documents > MOST_DOCUMENTS {
            return Err(refused(format!("its documents have more than {MOST_DOCUMENTS} bytes")));
        }
        match member {
            Member::Index => index = Some(document.unwrap_or_default()),
            Member::Layout => oci_layout = Some(document.unwrap_or_default()),
            Member::Blob(digest) => {
                let is_true = hash.as_ref() == Some(&digest);
                blobs.insert(digest, Blob { size: entry.size, is_true, json: document });
            }
        }
    }
    let lacks = |what| refused(format!("it has no {what}"));
    Ok(Contents {
        architecture: architecture.ok_or_else(|| lacks("images"))?,
        index: index.ok_or_else(|| lacks("index.json"))?,
        layout: oci_layout.ok_or_else(|| lacks("oci-layout"))?,
        blobs,
    })
}

/// The digest of what was copied, and the bytes themselves where they may be a document.
fn copy<R: Read>(
    from: &mut R,
    size: u64,
    mut to: Option<File>,
    count: &mut dyn FnMut(u64),
) -> Result<(Option<Digest>, Option<Vec<u8>>), Trouble> {
    let mut hash = Sha256::new();
    let mut document = (size <= MOST_JSON).then(Vec::new);
    let mut buffer = vec![0; 128 * 1024];
    let mut is_first = true;
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(TarError::Read(error).into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if is_first && bytes.first() != Some(&b'{') {
            document = None;
        }
        is_first = false;
        hash.update(bytes);
        if let Some(document) = &mut document {
            document.extend_from_slice(bytes);
        }
        if let Some(file) = &mut to {
            file.write_all(bytes).map_err(Trouble::Unpack)?;
        }
        count(length as u64);
    }
    Ok((layout::named(&hash.finalize()), document))
}

/// Writes an archive of a layout's directory: these blobs, and that index.
///
/// # Errors
/// read(2), write(2); `InvalidData` where a blob is not what its name says
pub fn write(
    to: impl Write,
    directory: &Path,
    (architecture, index): (&Architecture, &[u8]),
    blobs: &BTreeSet<Digest>,
    count: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut writer = Writer::new(to);
    for part in ["", "blobs/", "blobs/sha256/"] {
        writer.directory(&format!("{architecture}/{part}"))?;
    }
    for digest in blobs {
        let path = Member::Blob(digest.clone()).path();
        let file = File::open(directory.join(&path))?;
        let size = file.metadata()?.len();
        let mut hashed = Hashed { from: file, hash: Sha256::new(), count };
        writer.file(&format!("{architecture}/{path}"), size, &mut hashed)?;
        if layout::named(&hashed.hash.finalize()).as_ref() != Some(digest) {
            let text = format!("{digest} was changed on the disk");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    for (name, bytes) in [("index.json", index), ("oci-layout", layout::LAYOUT.as_bytes())] {
        writer.file(&format!("{architecture}/{name}"), bytes.len() as u64, bytes)?;
    }
    writer.finish()?.flush()
}

/// Of what is in a file.
///
/// # Errors
/// read(2)
pub fn digest_of(file: File) -> io::Result<Option<Digest>> {
    let mut hashed = Hashed { from: file, hash: Sha256::new(), count: &mut |_| () };
    io::copy(&mut hashed, &mut io::sink())?;
    Ok(layout::named(&hashed.hash.finalize()))
}

struct Hashed<'a> {
    from: File,
    hash: Sha256,
    count: &'a mut dyn FnMut(u64),
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        (self.count)(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::layout::tests::{config, index, manifest};
    use super::super::layout::{LAYOUT, judge};
    use super::super::pack::Packer;
    use super::super::run::tests::Place;
    use super::super::tar::tests::{edited, padded, raw};
    use super::*;
    use crate::cli::{Color, Compression};
    use crate::output::Output;
    use proptest::prelude::*;
    use std::path::PathBuf;

    const LIMIT: Limit = Limit { bytes: 1 << 30, because: "of a test" };

    /// Entries one after the other, and the end.
    pub fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let entry = |(name, bytes): &(&str, &[u8])| {
            let kind = if name.ends_with('/') { b'5' } else { b'0' };
            [raw(name, bytes.len() as u64, kind), padded(bytes)].concat()
        };
        let mut tar: Vec<u8> = entries.iter().flat_map(entry).collect();
        tar.extend([0; 1024]);
        tar
    }

    fn blob_path(bytes: &[u8]) -> String {
        format!("amd64/{}", Member::Blob(layout::digest(bytes).unwrap()).path())
    }

    fn read_all(bytes: &[u8], limit: Limit) -> Result<Contents, Trouble> {
        read(&mut Reader::new(bytes), limit, &mut |_, _| Ok(None), &mut |_| ())
    }

    /// What it is refused for.
    fn refusal(bytes: &[u8]) -> String {
        match read_all(bytes, LIMIT) {
            Err(Trouble::Refused(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    /// The parts of a whole archive.
    fn parts() -> Vec<(String, Vec<u8>)> {
        let (config, layer) = (config("amd64"), b"a layer".to_vec());
        let manifest = manifest(&config, &[&layer]).to_string().into_bytes();
        let index = index(&[("c10f/pause:3.10", &manifest)]).to_string().into_bytes();
        let mut parts: Vec<_> =
            [config, layer, manifest].into_iter().map(|bytes| (blob_path(&bytes), bytes)).collect();
        parts.push(("amd64/index.json".into(), index));
        parts.push(("amd64/oci-layout".into(), LAYOUT.into()));
        parts
    }

    fn with(more: &[(&str, &[u8])]) -> Vec<u8> {
        let parts = parts();
        let parts = parts.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
        tar(&parts.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_whole() {
        let directories = ["amd64/", "amd64/blobs/", "amd64/blobs/sha256/"].map(|name| (name, &b""[..]));
        for more in [&[][..], &directories] {
            let judged = judge(&read_all(&with(more), LIMIT).unwrap());
            assert_eq!((judged.problems.len(), judged.unused), (0, 0));
            assert_eq!(judged.images[0].name.to_string(), "c10f/pause:3.10");
        }
    }

    #[test]
    fn names_that_have_no_place() {
        let hex = "0".repeat(64);
        for name in [
            "/etc/passwd",
            "/amd64/index.json",
            "../x",
            "amd64/../x",
            "amd64/blobs/sha256/../../../x",
            "./amd64/index.json",
            "amd64//index.json",
            "amd64/x",
            "amd64/index.json/x",
            "amd64/blobs/x",
            "amd64/blobs/sha256/x",
            "amd64/blobs/sha512/HEX",
            "amd64/blobs/sha256/HEX0",
            "amd64/blobs/sha256/AHEX",
            "amd64/blobs/sha256/HEX/x",
            "amd64",
            "",
            ".",
            "..",
            "index.json",
            "AMD64/index.json",
            "amd64\n/index.json",
            "amd64/manifest.json",
            "amd64/blobs/sha256/",
            "amd64/x/",
            "../",
            "/",
        ] {
            let name = name.replace("HEX", &hex);
            let said = refusal(&tar(&[(&name, b"")]));
            let place = said.ends_with("has no place in an archive of images");
            assert!(
                place || name == "amd64/blobs/sha256/" && said == "it has no index.json",
                "{name}: {said}"
            );
        }
    }

    #[test]
    fn nothing_but_files_and_directories() {
        let path = blob_path(b"x");
        for (kind, what) in [
            (b'1', "a hard link"),
            (b'2', "a symbolic link"),
            (b'3', "a device"),
            (b'4', "a device"),
            (b'6', "a FIFO"),
            (b'S', "a sparse file"),
            (b'L', "a name that is too long"),
        ] {
            let link = edited(raw(&path, 0, kind), 157, b"/etc/passwd");
            assert_eq!(refusal(&link), format!("{path:?} is {what}"));
        }
    }

    #[test]
    fn one_file_one_name() {
        let parts = parts();
        for (name, bytes) in &parts {
            assert_eq!(refusal(&with(&[(name, bytes)])), format!("{name:?} is there twice"));
        }
        assert_eq!(refusal(&with(&[("amd64/", b""), ("amd64/", b"")])), r#""amd64/" is there twice"#);
        let said = refusal(&with(&[("arm64/index.json", b"{}")]));
        assert_eq!(said, r#""arm64/index.json" is for another architecture than the rest"#);
    }

    #[test]
    fn what_is_missing() {
        assert_eq!(refusal(&tar(&[])), "it has no images");
        assert_eq!(refusal(&tar(&[("amd64/oci-layout", b"{}")])), "it has no index.json");
        assert_eq!(refusal(&tar(&[("amd64/index.json", b"{}")])), "it has no oci-layout");
    }

    #[test]
    fn sizes_have_an_end() {
        let head = |name: &str, size| [raw(name, size, b'0'), vec![0; 512]].concat();
        let said = refusal(&head("amd64/index.json", MOST_JSON + 1));
        assert_eq!(said, r#""amd64/index.json" has more than 4194304 bytes"#);
        assert!(refusal(&head("amd64/oci-layout", MOST_LAYOUT + 1)).contains("more than 4096 bytes"));
        let said = refusal(&head(&blob_path(b"x"), LIMIT.bytes + 1));
        assert_eq!(said, "it unpacks to more than 1073741824 bytes: of a test");
        // Said to be so large that a sum would begin anew.
        assert!(refusal(&head(&blob_path(b"x"), i64::MAX.cast_unsigned())).contains("unpacks to more"));
        let total: usize = parts().iter().map(|(_, bytes)| bytes.len()).sum();
        let exactly = Limit { bytes: total as u64, because: "" };
        assert!(read_all(&with(&[]), exactly).is_ok());
        let less = Limit { bytes: total as u64 - 1, because: "" };
        assert!(matches!(read_all(&with(&[]), less), Err(Trouble::Refused(_))));
    }

    #[test]
    fn entries_have_an_end() {
        let entry = |number: usize| raw(&format!("amd64/blobs/sha256/{number:064x}"), 0, b'0');
        let tar: Vec<u8> = (0..=MOST_ENTRIES).flat_map(entry).collect();
        assert_eq!(refusal(&tar), "it has more than 65536 entries");
    }

    /// They are kept in memory.
    #[test]
    fn documents_have_an_end() {
        let document = vec![b'{'; usize::try_from(MOST_JSON).unwrap()];
        let mut tar = Vec::new();
        for number in 0..=MOST_DOCUMENTS / MOST_JSON {
            tar.extend(raw(&format!("amd64/blobs/sha256/{number:064x}"), MOST_JSON, b'0'));
            tar.extend(&document);
        }
        assert_eq!(refusal(&tar), "its documents have more than 67108864 bytes");
    }

    #[test]
    fn a_blob_is_what_its_name_says() {
        let path = blob_path(b"x");
        let contents = read_all(&with(&[(&path, b"y")]), LIMIT).unwrap();
        let judged = judge(&contents);
        let [problem] = &judged.problems[..] else { panic!("{:?}", judged.problems) };
        assert_eq!(problem.what, "its bytes have another digest");
    }

    /// Cut, or with a byte changed, anywhere: never taken for whole.
    #[test]
    fn damage_shows() {
        let good = with(&[]);
        for end in (0..good.len() - 1024).step_by(7) {
            assert!(read_all(&good[..end], LIMIT).is_err(), "cut at {end}");
        }
        let digests = |judged: &layout::Judged| {
            judged.images.iter().map(|image| image.digest.clone()).collect::<Vec<_>>()
        };
        let whole = digests(&judge(&read_all(&good, LIMIT).unwrap()));
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            if let Ok(contents) = read_all(&bad, LIMIT) {
                let judged = judge(&contents);
                // What is left are padding, and what an image is called.
                assert!(!judged.problems.is_empty() || digests(&judged) == whole, "byte {index}");
            }
        }
    }

    fn quiet() -> Progress {
        Progress::new(&Output::new(true, Color::Never))
    }

    fn scanned(path: &Path) -> Result<Contents, Trouble> {
        scan(path, LIMIT, (&Watch::default(), &mut quiet()), &mut |_, _| Ok(None))
    }

    fn packed(place: &Place, compression: Compression, tar: &[u8]) -> PathBuf {
        let path = place.0.join("amd64.tar");
        let mut packer = Packer::new(compression, File::create(&path).unwrap(), &Watch::default()).unwrap();
        packer.write_all(tar).unwrap();
        packer.finish().unwrap();
        path
    }

    #[test]
    fn packed_ones_are_read_and_cut_ones_are_not() {
        let place = Place::new();
        let noise: Vec<u8> =
            (0..200_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        let tar = with(&[(&blob_path(&noise), &noise)]);
        for compression in [Compression::Zstd, Compression::Xz] {
            let path = packed(&place, compression, &tar);
            assert_eq!(judge(&scanned(&path).unwrap()).problems, []);
            let bytes = std::fs::read(&path).unwrap();
            for end in [bytes.len() - 1, bytes.len() / 2, 20] {
                podsec_sys::file::replace(&path, &bytes[..end], 0o600).unwrap();
                let Err(Trouble::Refused(said)) = scanned(&path) else { panic!("cut at {end}") };
                assert!(said.contains("cannot be unpacked"), "{said}");
            }
        }
    }

    /// Zeros compress to a ten thousandth; only what is said to be there is read.
    #[test]
    fn a_bomb_is_not_unpacked() {
        let place = Place::new();
        let path = place.0.join("amd64.tar");
        let mut packer =
            Packer::new(Compression::Zstd, File::create(&path).unwrap(), &Watch::default()).unwrap();
        packer.write_all(&with(&[])).unwrap();
        io::copy(&mut io::repeat(0).take(1 << 30), &mut packer).unwrap();
        packer.finish().unwrap();
        assert!(
            matches!(scanned(&path), Err(Trouble::Refused(said)) if said.ends_with("more follows after its end"))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// What is saved is listed: all of it, and nothing else; the same bytes for the same images.
        #[test]
        fn saved_and_listed(
            images in prop::collection::btree_map("[a-z]{1,8}(/[a-z]{1,8}){0,2}:[a-z0-9]{1,8}", prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..4), 1..6),
            xz in any::<bool>(),
        ) {
            let place = Place::new();
            let directory = place.0.join("blobs/sha256");
            std::fs::create_dir_all(&directory).unwrap();
            let put = |bytes: &[u8]| {
                let digest = layout::digest(bytes).unwrap();
                podsec_sys::file::replace(&directory.join(digest.hex()), bytes, 0o600).unwrap();
                digest
            };
            let mut blobs = BTreeSet::new();
            let config = config("amd64");
            blobs.insert(put(&config));
            let mut manifests = Vec::new();
            for (name, layers) in &images {
                let layers: Vec<_> = layers.iter().map(|layer| &layer[..]).collect();
                let manifest = manifest(&config, &layers).to_string().into_bytes();
                blobs.extend(layers.iter().map(|layer| put(layer)));
                blobs.insert(put(&manifest));
                manifests.push((name, manifest));
            }
            let entries: Vec<_> = manifests.iter().map(|(name, manifest)| (name.as_str(), &manifest[..])).collect();
            let index = index(&entries).to_string().into_bytes();
            put(b"of no image, and not saved");
            let architecture = Architecture::new("amd64").unwrap();
            let written = |_: ()| {
                let mut tar = Vec::new();
                super::write(&mut tar, &place.0, (&architecture, &index), &blobs, &mut |_| ()).unwrap();
                tar
            };
            let tar = written(());
            prop_assert!(tar == written(()));
            let path = packed(&place, if xz { Compression::Xz } else { Compression::Zstd }, &tar);
            let contents = scanned(&path).unwrap();
            prop_assert_eq!(contents.blobs.keys().cloned().collect::<BTreeSet<_>>(), blobs);
            let judged = judge(&contents);
            prop_assert_eq!((judged.problems, judged.unused), (vec![], 0));
            let names: Vec<_> = judged.images.iter().map(|image| image.name.to_string()).collect();
            prop_assert_eq!(names.iter().collect::<BTreeSet<_>>(), images.keys().collect::<BTreeSet<_>>());
            for image in &judged.images {
                let (_, manifest) = manifests.iter().find(|(name, _)| **name == image.name.to_string()).unwrap();
                prop_assert_eq!(Some(image.digest.clone()), layout::digest(manifest));
            }
        }
    }
}
