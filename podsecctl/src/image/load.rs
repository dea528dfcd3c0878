//! `podsecctl image load`: pushes what is in archives to a registry, or into the caller's own store.
//!
//! Everything is unpacked into a directory of its own and found to be in order before the first image is pushed, and what
//! skopeo reads there is an index of ours, not the archive's.

use super::archive::{self, Limit, Member};
use super::layout::{self, Image, Judged, Named};
use super::name::{Destination, ImageName};
use super::progress::Progress;
use super::push::{self, Push, Pushed};
use super::report::{self, Got, Row};
use super::run::{Scratch, Watch};
use super::sign::{self, Signer};
use super::skopeo::{Skopeo, bytes_read};
use super::{Trouble, clean, usage};
use crate::Context;
use crate::cli::LoadImages;
use crate::output::{Output, count};
use podsec_policy::trust::Digest;
use podsec_sys::file::Directory;
use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::nix::sys::statvfs::statvfs;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The layout in the scratch directory.
const LAYOUT: &str = "images";
/// That is left free.
const SPARE: u64 = 64 << 20;
/// Said of an archive that is too large.
pub const BECAUSE_OF_OPTION: &str = "--max-size allows more";
const BECAUSE_OF_DISK: &str = "no more is free; TMPDIR says where there is room";
/// Of what is wrong with an archive, so much is said at once.
const MOST_SAID: usize = 5;

pub fn run(context: &Context, watch: &Watch, arguments: &LoadImages) -> Result<u8, Trouble> {
    // Before the first image is touched: what cannot be signed is not pushed either.
    let signer = signer(context, watch, arguments)?;
    let mut progress = Progress::new(&context.output);
    if arguments.dry_run {
        let limit = |_: &Path| Ok(option(arguments));
        let found = read(arguments, limit, (watch, &mut progress), &mut |_, _| Ok(None))?;
        return Ok(show(&context.output, &arrange(&found, arguments)?, &arguments.to)?);
    }
    let skopeo = Skopeo::new(watch, arguments.registry.tls_verify)?;
    let scratch = Scratch::new(watch).map_err(Trouble::Unpack)?;
    let room = Room::new(&scratch).map_err(Trouble::Unpack)?;
    let limit = |_: &Path| room.limit(option(arguments));
    let found = read(arguments, limit, (watch, &mut progress), &mut |member, _| room.keep(member))?;
    let wanted = arrange(&found, arguments)?;
    room.finish(&wanted).map_err(Trouble::Unpack)?;
    let mut rows = Vec::new();
    for (index, item) in wanted.iter().enumerate() {
        let what = format!("{}, {} of {}", item.name, index + 1, wanted.len());
        progress.begin(&what);
        let to = arguments.to.reference(&item.name);
        let since = Instant::now();
        // Its store holds images of one architecture: skopeo takes the one of this machine.
        let is_list = item.list.is_some();
        let push = Push {
            from: &format!("oci:{LAYOUT}:{}", item.name),
            directory: scratch.path(),
            to: &to,
            digest: &item.digest,
            architectures: &item.images.iter().map(|image| &image.architecture).collect::<Vec<_>>(),
            is_list: is_list && arguments.to.is_registry(),
            replace: arguments.replace || !arguments.to.is_registry(),
            sign: signer.as_ref(),
        };
        let pushed = push::push(&skopeo, &push, |pid| progress.draw(&what, bytes_read(pid), Some(item.size)));
        let done = |pushed| match pushed {
            Pushed::New => "loaded",
            Pushed::Same => "was there",
        };
        rows.push(Row {
            name: item.name.to_string(),
            architecture: item.architectures(),
            place: ("destination", to.clone()),
            result: pushed.map(|pushed| Got {
                digest: item.digest.clone(),
                size: item.size,
                done: done(pushed),
            }),
            time: since.elapsed(),
        });
    }
    progress.clear();
    Ok(report::print(&context.output, &rows, Map::new(), &[])?)
}

fn signer<'a>(
    context: &'a Context,
    watch: &'a Watch,
    arguments: &LoadImages,
) -> Result<Option<Signer<'a>>, Trouble> {
    sign::check(arguments.sign.is_some(), arguments.passphrase_fd)?;
    let Some(key) = &arguments.sign else { return Ok(None) };
    if !arguments.to.is_registry() {
        return Err(usage(
            "only what goes to a registry is signed: those who pull it there look for the signature",
        ));
    }
    let tls_verify = arguments.registry.tls_verify;
    Signer::new(context, watch, key.as_ref(), arguments.passphrase_fd, tls_verify).map(Some)
}

fn option(arguments: &LoadImages) -> Limit {
    Limit { bytes: arguments.size.max_size, because: BECAUSE_OF_OPTION }
}

/// All images of all archives, each of which is whole.
fn read(
    arguments: &LoadImages,
    limit: impl Fn(&Path) -> Result<Limit, Trouble>,
    (watch, progress): (&Watch, &mut Progress),
    keep: archive::Keep<'_>,
) -> Result<Vec<Image>, Trouble> {
    let mut found: Vec<Image> = Vec::new();
    let mut seen = BTreeSet::new();
    for path in &arguments.archives {
        let shown = clean(&path.to_string_lossy());
        progress.begin(&format!("reading {shown}"));
        let contents = archive::scan(path, limit(path)?, (watch, progress), keep)?;
        if arguments.arch.as_ref().is_some_and(|wanted| *wanted != contents.architecture) {
            return Err(usage(format!("{shown} is for {}", contents.architecture)));
        }
        if !seen.insert(contents.architecture.clone()) {
            let what = format!(
                "{shown} is the second archive for {}: load one after the other",
                contents.architecture
            );
            return Err(usage(what));
        }
        found.extend(whole(&shown, layout::judge(&contents))?);
    }
    Ok(found)
}

fn whole(path: &str, judged: Judged) -> Result<Vec<Image>, Trouble> {
    if judged.problems.is_empty() {
        return Ok(judged.images);
    }
    let said = |problem: &layout::Problem| format!("{}: {}", clean(&problem.subject), clean(&problem.what));
    let mut lines: Vec<_> = judged.problems.iter().take(MOST_SAID).map(said).collect();
    if judged.problems.len() > MOST_SAID {
        lines.push(format!("and {} more", judged.problems.len() - MOST_SAID));
    }
    Err(Trouble::Refused(format!("{path} is not whole, so nothing of it is used: {}", lines.join("; "))))
}

/// One image as it is pushed: of one architecture, or a list of several.
#[derive(Debug)]
struct Item<'a> {
    name: ImageName,
    images: Vec<&'a Image>,
    list: Option<Vec<u8>>,
    digest: Digest,
    size: u64,
}

impl Item<'_> {
    fn architectures(&self) -> String {
        self.images.iter().map(|image| image.architecture.as_str()).collect::<Vec<_>>().join(",")
    }
}

/// What is pushed under which name.
fn arrange<'a>(found: &'a [Image], arguments: &LoadImages) -> Result<Vec<Item<'a>>, Trouble> {
    for only in &arguments.only {
        if !found.iter().any(|image| image.name.is_meant_by(only)) {
            return Err(usage(format!(
                "there is no image {} in it; `podsecctl image list` says which are",
                clean(only)
            )));
        }
    }
    let is_wanted = |image: &&Image| {
        arguments.only.is_empty() || arguments.only.iter().any(|only| image.name.is_meant_by(only))
    };
    let mut grouped: BTreeMap<ImageName, Vec<&Image>> = BTreeMap::new();
    for image in found.iter().filter(is_wanted) {
        let name = image.name.without(arguments.strip).ok_or_else(|| {
            usage(format!(
                "{} has no more than {} to strip",
                image.name,
                count(arguments.strip as u64, "part")
            ))
        })?;
        let same = grouped.entry(name.clone()).or_default();
        if let Some(other) = same.iter().find(|other| other.architecture == image.architecture) {
            return Err(usage(format!("{} and {} would both be called {name}", other.name, image.name)));
        }
        same.push(image);
    }
    let item = |(name, mut images): (ImageName, Vec<&'a Image>)| {
        images.sort_by(|one, other| one.architecture.cmp(&other.architecture));
        let size = images.iter().map(|image| image.size).sum();
        let (list, digest) = match &images[..] {
            [one] => (None, Some(one.digest.clone())),
            several => {
                let list = layout::list_of(several);
                let digest = layout::digest(&list);
                (Some(list), digest)
            }
        };
        digest.map(|digest| Item { name, images, list, digest, size })
    };
    Ok(grouped.into_iter().filter_map(item).collect())
}

/// What would be done.
fn show(output: &Output, items: &[Item<'_>], to: &Destination) -> Result<u8, crate::failure::Failure> {
    if output.is_json() {
        let object = |item: &Item<'_>| {
            json!({
                "name": item.name.to_string(),
                "architecture": item.architectures(),
                "destination": to.reference(&item.name),
                "digest": item.digest.as_str(),
            })
        };
        return output.object(&json!({ "images": items.iter().map(object).collect::<Value>() }));
    }
    let line =
        |item: &Item<'_>| format!("would load {} ({})\n", to.reference(&item.name), item.architectures());
    output.bytes(items.iter().map(line).collect::<String>().as_bytes())
}

/// Where archives are unpacked to.
struct Room {
    path: PathBuf,
    layout: Directory,
}

impl Room {
    fn new(scratch: &Scratch) -> io::Result<Self> {
        let layout = scratch.open()?.make(LAYOUT, 0o700)?;
        layout.make("blobs", 0o700)?.make("sha256", 0o700)?;
        Ok(Self { path: scratch.path().join(LAYOUT), layout })
    }

    /// Never more than there is room for.
    fn limit(&self, most: Limit) -> Result<Limit, Trouble> {
        let found = statvfs(&self.path).map_err(|error| Trouble::Unpack(error.into()))?;
        let free = (found.blocks_available() as u64).saturating_mul(found.fragment_size() as u64);
        let free = free.saturating_sub(SPARE);
        Ok(if free < most.bytes { Limit { bytes: free, because: BECAUSE_OF_DISK } } else { most })
    }

    /// A new file for a blob. An index of ours takes the place of the archives'; a blob that is in two of them is there
    /// already, or is found to be wrong in one of them.
    fn keep(&self, member: &Member) -> Result<Option<File>, Trouble> {
        if !matches!(member, Member::Blob(_)) {
            return Ok(None);
        }
        match self.create(&member.path()) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(Trouble::Unpack(error)),
        }
    }

    fn create(&self, path: &str) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        self.layout.open_beneath(Path::new(path), flags, 0o600)
    }

    fn finish<'a>(&self, items: &'a [Item<'_>]) -> io::Result<()> {
        use std::io::Write as _;
        let write = |path: &str, bytes: &[u8]| self.create(path).and_then(|mut file| file.write_all(bytes));
        for item in items {
            if let Some(list) = &item.list {
                match write(&Member::Blob(item.digest.clone()).path(), list) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
        }
        let entry = |item: &'a Item<'_>| {
            let one = item.images.first().map(|image| Named::Image(image));
            item.list.as_deref().map(Named::List).or(one).map(|what| (&item.name, what))
        };
        write("index.json", &layout::index_of(items.iter().filter_map(entry)))?;
        write("oci-layout", layout::LAYOUT.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::tests::tar;
    use super::super::layout::tests::{config, index, manifest};
    use super::super::run::tests::Place;
    use super::*;
    use crate::cli::{Cli, Color, Command, Image as ImageCommand};
    use clap::Parser as _;

    fn arguments(line: &str) -> LoadImages {
        let words = ["podsecctl", "image", "load", "--to", "a.b"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Image(image) => match *image {
                ImageCommand::Load(arguments) => arguments,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// An archive with images of these names.
    fn archive(place: &Place, architecture: &str, names: &[&str], more: &[(&str, &[u8])]) -> PathBuf {
        let config = config(architecture);
        let mut blobs = vec![config.clone(), b"a layer".to_vec()];
        let manifests: Vec<_> = names
            .iter()
            .map(|name| {
                let mut manifest = manifest(&config, &[b"a layer"]);
                manifest["annotations"] = json!({ "name": name });
                manifest.to_string().into_bytes()
            })
            .collect();
        let entries: Vec<_> =
            names.iter().copied().zip(manifests.iter().map(|manifest| &manifest[..])).collect();
        let index = index(&entries).to_string().into_bytes();
        blobs.extend(manifests.iter().cloned());
        let paths: Vec<_> = blobs
            .iter()
            .map(|bytes| format!("{architecture}/{}", Member::Blob(layout::digest(bytes).unwrap()).path()))
            .collect();
        let (index_path, layout_path) =
            (format!("{architecture}/index.json"), format!("{architecture}/oci-layout"));
        let mut entries: Vec<_> =
            paths.iter().map(String::as_str).zip(blobs.iter().map(|bytes| &bytes[..])).collect();
        entries.push((&index_path, &index));
        entries.push((&layout_path, layout::LAYOUT.as_bytes()));
        entries.extend(more);
        let path = place.0.join(format!("{architecture}.tar"));
        podsec_sys::file::replace(&path, &tar(&entries), 0o600).unwrap();
        path
    }

    fn images(arguments: &LoadImages, keep: archive::Keep<'_>) -> Result<Vec<Image>, Trouble> {
        let mut progress = Progress::new(&Output::new(true, Color::Never));
        read(arguments, |_| Ok(option(arguments)), (&Watch::default(), &mut progress), keep)
    }

    fn load(line: &str, paths: &[&Path]) -> Result<Vec<(String, String)>, String> {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        let arguments = arguments(&format!("{line} {}", paths.join(" ")));
        let found = images(&arguments, &mut |_, _| Ok(None)).map_err(|trouble| trouble.to_string())?;
        let items = arrange(&found, &arguments).map_err(|trouble| trouble.to_string())?;
        Ok(items.iter().map(|item| (item.name.to_string(), item.architectures())).collect())
    }

    fn items(items: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        Ok(items.iter().map(|&(name, architectures)| (name.into(), architectures.into())).collect())
    }

    #[test]
    fn what_is_pushed_under_which_name() {
        let place = Place::new();
        let amd64 = archive(&place, "amd64", &["c10f/pause:3", "c10f/coredns/coredns:v1"], &[]);
        let arm64 = archive(&place, "arm64", &["c10f/pause:3"], &[]);
        let whole = [("c10f/coredns/coredns:v1", "amd64"), ("c10f/pause:3", "amd64")];
        assert_eq!(load("", &[&amd64]), items(&whole));
        assert_eq!(load("--strip 1 --only pause:3", &[&amd64]), items(&[("pause:3", "amd64")]));
        assert_eq!(
            load("", &[&arm64, &amd64]),
            items(&[("c10f/coredns/coredns:v1", "amd64"), ("c10f/pause:3", "amd64,arm64")])
        );
        for (line, paths, said) in [
            ("--strip 2", &[&amd64][..], "c10f/pause:3 has no more than 2 parts to strip"),
            ("--only nothing:1", &[&amd64], "there is no image nothing:1"),
            ("--arch arm64", &[&amd64], "is for amd64"),
            ("", &[&amd64, &amd64], "is the second archive for amd64"),
        ] {
            let refused =
                load(line, &paths.iter().map(|path| path.as_path()).collect::<Vec<_>>()).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
        let same = archive(&place, "amd64", &["a/pause:3", "b/pause:3"], &[]);
        let refused = load("--strip 1", &[&same]).unwrap_err();
        assert_eq!(refused, "a/pause:3 and b/pause:3 would both be called pause:3");
    }

    fn room(place: &Place) -> Room {
        Room {
            path: place.0.clone(),
            layout: {
                let layout =
                    Directory::open(&place.0.canonicalize().unwrap()).unwrap().make(LAYOUT, 0o700).unwrap();
                layout.make("blobs", 0o700).unwrap().make("sha256", 0o700).unwrap();
                layout
            },
        }
    }

    /// Below a directory: names, and how many bytes.
    fn tree(path: &Path) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                found.extend(
                    tree(&entry.path()).into_iter().map(|(below, size)| (format!("{name}/{below}"), size)),
                );
            } else {
                found.insert(name, entry.metadata().unwrap().len());
            }
        }
        found
    }

    #[test]
    fn what_is_unpacked_is_what_skopeo_shall_read() {
        let (place, to) = (Place::new(), Place::new());
        let room = room(&to);
        let amd64 = archive(&place, "amd64", &["a:1", "b:1"], &[]);
        let arm64 = archive(&place, "arm64", &["a:1"], &[]);
        let arguments = arguments(&format!("{} {}", amd64.display(), arm64.display()));
        let found = images(&arguments, &mut |member, _| room.keep(member)).unwrap();
        let items = arrange(&found, &arguments).unwrap();
        room.finish(&items).unwrap();
        let names = tree(&to.0);
        // Two configurations, three manifests, a layer, and a list.
        assert_eq!(names.len(), 2 + 7, "{names:?}");
        let index: Value =
            serde_json::from_slice(&std::fs::read(to.0.join("images/index.json")).unwrap()).unwrap();
        for (entry, item) in index["manifests"].as_array().unwrap().iter().zip(&items) {
            assert_eq!(entry["digest"], item.digest.as_str());
            assert!(names.contains_key(&format!("images/blobs/sha256/{}", item.digest.hex())));
        }
        assert_eq!(
            (index["manifests"].as_array().unwrap().len(), items[0].architectures().as_str()),
            (2, "amd64,arm64")
        );
    }

    #[test]
    fn a_hostile_archive_writes_nothing_outside_and_no_image_of_it_is_used() {
        let outside = Place::new();
        for (name, bytes) in [
            ("../../outside", &b"x"[..]),
            ("amd64/../../outside", b"x"),
            ("/tmp/podsec-outside", b"x"),
            ("amd64/index.json", b"{}"),
        ] {
            let place = Place::new();
            let to = outside.0.join("below");
            std::fs::create_dir_all(&to).unwrap();
            let to = Place(to);
            let room = room(&to);
            let path = archive(&place, "amd64", &["a:1"], &[(name, bytes)]);
            let arguments = arguments(&path.display().to_string());
            let refused = images(&arguments, &mut |member, _| room.keep(member));
            assert!(matches!(refused, Err(Trouble::Refused(_))), "{name}: {refused:?}");
            assert!(tree(&outside.0).keys().all(|name| name.starts_with("below/images/blobs/sha256/")));
            assert!(!Path::new("/tmp/podsec-outside").exists());
        }
    }

    #[test]
    fn no_file_is_written_twice_and_no_link_is_followed() {
        let (to, target) = (Place::new(), Place::new());
        let room = room(&to);
        let blob = Member::Blob(layout::digest(b"x").unwrap());
        std::os::unix::fs::symlink(target.0.join("x"), to.0.join(LAYOUT).join(blob.path())).unwrap();
        assert!(room.keep(&blob).unwrap().is_none());
        std::fs::remove_dir_all(to.0.join(LAYOUT).join("blobs/sha256")).unwrap();
        std::os::unix::fs::symlink(&target.0, to.0.join(LAYOUT).join("blobs/sha256")).unwrap();
        assert!(room.keep(&blob).is_err());
        assert!(tree(&target.0).is_empty());
    }

    #[test]
    fn a_damaged_archive_is_refused_whole() {
        let place = Place::new();
        let wrong = format!("amd64/{}", Member::Blob(layout::digest(b"x").unwrap()).path());
        let path = archive(&place, "amd64", &["a:1"], &[(&wrong, b"y")]);
        let refused = load("", &[&path]).unwrap_err();
        assert!(
            refused.contains("so nothing of it is used: sha256:") && refused.contains("another digest"),
            "{refused}"
        );
    }

    #[test]
    fn never_more_than_is_free() {
        let to = Place::new();
        let room = room(&to);
        let most = |bytes| room.limit(Limit { bytes, because: BECAUSE_OF_OPTION }).unwrap();
        assert_eq!((most(7).bytes, most(7).because), (7, BECAUSE_OF_OPTION));
        let limited = most(u64::MAX);
        assert!(limited.bytes < u64::MAX && limited.because == BECAUSE_OF_DISK);
    }
}
