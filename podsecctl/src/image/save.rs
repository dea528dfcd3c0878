//! `podsecctl image save`: fetches images and puts them into one archive for each architecture.
//!
//! What is under way is in `DIR/.<arch>.unfinished`, an OCI layout that skopeo writes to: whatever of it is there and
//! right when the same is asked again is not fetched again. An archive that is written already is known by its inode, as
//! long as others of the same save are not.

use super::archive::{self, Limit};
use super::layout::{self, Blob, Contents, Image, MOST_JSON, Named};
use super::name::{Architecture, ImageName, Source};
use super::pack::Packer;
use super::progress::{Progress, size};
use super::report::{self, Got, Row};
use super::run::Watch;
use super::skopeo::{Copy, Skopeo};
use super::{Trouble, clean, usage};
use crate::Context;
use crate::cli::{Architectures, Compression, SaveImages, Saving};
use crate::output::count;
use podsec_policy::trust::Digest;
use podsec_sys::file::Directory;
use podsec_sys::nix::fcntl::{Flock, FlockArg, OFlag};
use podsec_sys::nix::unistd::geteuid;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub fn run(context: &Context, watch: &Watch, arguments: &SaveImages) -> Result<u8, Trouble> {
    save(context, watch, &arguments.images, &arguments.how)
}

/// Saves these.
///
/// # Errors
/// [`Trouble`]; what goes wrong with one image is in the report
pub fn save(context: &Context, watch: &Watch, sources: &[Source], how: &Saving) -> Result<u8, Trouble> {
    distinct(sources)?;
    let skopeo = Skopeo::new(watch, how.registry.tls_verify)?;
    how.compress.check()?;
    let output = std::path::absolute(&how.output).map_err(|error| Trouble::file(&how.output, error))?;
    std::fs::create_dir_all(&output).map_err(|error| Trouble::file(&output, error))?;
    // For as long as this runs, and whatever happens to it.
    let _lock = lock(&output)?;
    let mut progress = Progress::new(&context.output);
    let (plan, mut rows) = plan(&skopeo, sources, &how.architectures, &mut progress);
    let paths: BTreeMap<_, _> = plan
        .keys()
        .map(|architecture| {
            (architecture, output.join(format!("{architecture}.tar.{}", how.compress.suffix())))
        })
        .collect();
    let is_in_the_way = |(architecture, path): &(&&Architecture, &PathBuf)| {
        path.symlink_metadata().is_ok() && !how.force && !Work::has_written(&output, architecture, path)
    };
    if let Some((_, path)) = paths.iter().find(is_in_the_way) {
        return Err(Trouble::Exists(path.clone()));
    }
    let (mut archives, mut last, mut done) = (Vec::new(), Vec::new(), Vec::new());
    // Of which nobody knows for what they are, and so in which archive they would be missing.
    let unknown = rows.len();
    for (architecture, sources) in &plan {
        let Some(path) = paths.get(architecture) else { continue };
        let shown = clean(&path.to_string_lossy());
        let written = match Work::has_written(&output, architecture, path) {
            true => earlier(path, sources, (watch, &mut progress))?,
            false => None,
        };
        // It was another save.
        if written.is_none() && !how.force && path.symlink_metadata().is_ok() {
            return Err(Trouble::Exists(path.clone()));
        }
        let work = Work::open(&output, architecture)?;
        let (images, bytes) = if let Some((found, bytes)) = written {
            let images = found.len();
            rows.extend(found);
            last.push(format!("{shown} was written before, {}", size(bytes)));
            (images, bytes)
        } else {
            let (fetched, images) = work.fetch(&skopeo, sources, &mut progress)?;
            let failed = unknown + fetched.iter().filter(|row| row.result.is_err()).count();
            rows.extend(fetched);
            if failed > 0 && (images.is_empty() || !how.partial) {
                last.push(format!(
                    "{shown} was not written, since {failed} of {} failed; what was fetched is kept, and the same command \
                     goes on; with --partial it is written without them",
                    count((unknown + sources.len()) as u64, "image")
                ));
                continue;
            }
            let bytes = work.pack(path, &images, how.compress, watch, &mut progress)?;
            last.push(format!("wrote {shown}, {}", size(bytes)));
            (images.len(), bytes)
        };
        archives.push(json!({
            "path": path.to_string_lossy(),
            "architecture": architecture.as_str(),
            "images": images,
            "size": bytes,
        }));
        done.push(work);
    }
    progress.clear();
    if done.len() == plan.len() {
        done.iter().try_for_each(Work::remove)?;
    }
    let more = Map::from_iter([("archives".to_owned(), Value::Array(archives))]);
    Ok(report::print(&context.output, &rows, more, &last)?)
}

/// What an earlier run of this save has put into an archive and its size, if it is what is wanted now.
fn earlier(
    path: &Path,
    sources: &[&Source],
    progress: (&Watch, &mut Progress),
) -> Result<Option<(Vec<Row>, u64)>, Trouble> {
    let limit = Limit { bytes: u64::MAX, because: "it is one of ours" };
    let since = Instant::now();
    let contents = archive::scan(path, limit, progress, &mut |_, _| Ok(None))?;
    let judged = layout::judge(&contents);
    let names: BTreeSet<_> = judged.images.iter().map(|image| &image.name).collect();
    if !judged.problems.is_empty() || names != sources.iter().map(|source| &source.name).collect() {
        return Ok(None);
    }
    let row = |image: &Image| {
        let source = sources.iter().find(|source| source.name == image.name)?;
        Some(Row {
            name: image.name.to_string(),
            architecture: image.architecture.to_string(),
            place: ("source", source.reference.clone()),
            result: Ok(Got { digest: image.digest.clone(), size: image.size, done: "was saved" }),
            time: since.elapsed(),
        })
    };
    let bytes = std::fs::metadata(path).map_err(|error| Trouble::file(path, error))?.len();
    Ok(Some((judged.images.iter().filter_map(row).collect(), bytes)))
}

/// Two images of one name could not be told apart any more.
fn distinct(sources: &[Source]) -> Result<(), Trouble> {
    let mut names: BTreeMap<&ImageName, &Source> = BTreeMap::new();
    for source in sources {
        if let Some(other) = names.insert(&source.name, source) {
            return Err(usage(format!(
                "{} and {} would both be called {}: give one another name, NAME:TAG={}",
                other.reference, source.reference, source.name, source.reference
            )));
        }
    }
    Ok(())
}

/// One save at a time: skopeo takes what it finds in a layout for whole.
fn lock(output: &Path) -> Result<Flock<File>, Trouble> {
    let opened = File::open(output).map_err(|error| Trouble::file(output, error))?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        podsec_sys::nix::errno::Errno::EWOULDBLOCK => Trouble::Busy(output.to_owned()),
        error => Trouble::file(output, error.into()),
    })
}

type Plan<'a> = BTreeMap<Architecture, Vec<&'a Source>>;

/// Which images for which architecture, and those of which that cannot be found out.
fn plan<'a>(
    skopeo: &Skopeo<'_>,
    sources: &'a [Source],
    wanted: &Architectures,
    progress: &mut Progress,
) -> (Plan<'a>, Vec<Row>) {
    let (mut plan, mut failed) = (Plan::new(), Vec::new());
    for source in sources {
        let found = match wanted {
            Architectures::These(these) => Ok(these.clone()),
            Architectures::Own => Ok(vec![Architecture::own()]),
            Architectures::All => {
                progress.begin(&format!("asking what there is of {}", source.name));
                let since = Instant::now();
                skopeo.architectures(&source.reference).and_then(some).map_err(|trouble| (trouble, since))
            }
        };
        match found {
            Ok(architectures) => {
                for architecture in architectures {
                    plan.entry(architecture).or_default().push(source);
                }
            }
            Err((trouble, since)) => failed.push(Row {
                name: source.name.to_string(),
                architecture: "all".into(),
                place: ("source", source.reference.clone()),
                result: Err(trouble),
                time: since.elapsed(),
            }),
        }
    }
    (plan, failed)
}

fn some(found: Vec<Architecture>) -> Result<Vec<Architecture>, Trouble> {
    let none =
        || Trouble::Known { reason: "no-architecture", said: "it is for no architecture of Linux".into() };
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// What is under way for one architecture.
#[derive(Debug)]
struct Work {
    parent: Directory,
    name: String,
    path: PathBuf,
    architecture: Architecture,
}

/// In the directory of what is under way: which file the archive is.
const WRITTEN: &str = "written";

/// A file as [`WRITTEN`] has it.
fn identity(file: &Metadata) -> String {
    format!("{} {} {}", file.dev(), file.ino(), file.len())
}

fn work_name(architecture: &Architecture) -> String {
    format!(".{architecture}.unfinished")
}

impl Work {
    /// Is that archive one that this save has written, before it was interrupted?
    fn has_written(output: &Path, architecture: &Architecture, path: &Path) -> bool {
        let known = std::fs::read_to_string(output.join(work_name(architecture)).join(WRITTEN));
        let found = path.symlink_metadata().map(|found| identity(&found));
        known.is_ok_and(|known| found.is_ok_and(|found| found == known))
    }

    fn open(output: &Path, architecture: &Architecture) -> Result<Self, Trouble> {
        let name = work_name(architecture);
        let path = output.join(&name);
        let failed = |error| Trouble::file(&path, error);
        let parent = Directory::open(&output.canonicalize().map_err(failed)?).map_err(failed)?;
        match parent.make(&name, 0o700) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        let opened =
            parent.directory(Path::new(&name)).and_then(|opened| opened.metadata()).map_err(failed)?;
        if opened.uid() != geteuid().as_raw() {
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, "it is somebody else's")));
        }
        let work = Self { parent, name, path, architecture: architecture.clone() };
        work.clear_up().map_err(|error| Trouble::file(&work.path, error))?;
        Ok(work)
    }

    /// The layout.
    fn layout(&self) -> PathBuf {
        self.path.join(self.architecture.as_str())
    }

    /// Takes out what an interrupted skopeo left half: it looks only whether a file of that name is there.
    fn clear_up(&self) -> io::Result<()> {
        for entry in entries(&self.layout())? {
            if entry.file_type()?.is_file()
                && !["index.json", "oci-layout"].map(Some).contains(&entry.file_name().to_str())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        // What was being written when the power went may be empty.
        let index = std::fs::read(self.layout().join("index.json")).unwrap_or_default();
        if serde_json::from_slice::<Value>(&index).is_err() {
            remove(&self.layout().join("index.json"))?;
        }
        for entry in entries(&self.layout().join("blobs/sha256"))? {
            let digest = archive::digest_of(File::open(entry.path())?)?;
            if digest.is_none_or(|digest| entry.file_name() != digest.hex()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// All of them, as far as they can be had.
    fn fetch(
        &self,
        skopeo: &Skopeo<'_>,
        sources: &[&Source],
        progress: &mut Progress,
    ) -> Result<(Vec<Row>, Vec<Image>), Trouble> {
        let mut results = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let what =
                format!("{} for {}, {} of {}", source.name, self.architecture, index + 1, sources.len());
            progress.begin(&what);
            let since = Instant::now();
            let before = self.bytes();
            let copy = Copy {
                from: &source.reference,
                to: &format!("oci:{}:{}", self.architecture, source.name),
                directory: &self.path,
                options: &["--remove-signatures", "--dest-oci-accept-uncompressed-layers"],
                architecture: Some(&self.architecture),
            };
            let copied =
                skopeo.copy(&copy, |_| progress.draw(&what, self.bytes().saturating_sub(before), None));
            results.push((*source, copied, since.elapsed()));
        }
        progress.clear();
        let contents = self.contents().map_err(|error| Trouble::file(&self.path, error))?;
        Ok(self.judge(contents.as_ref(), results))
    }

    /// What of it is an image of the right architecture.
    fn judge(
        &self,
        contents: Option<&Contents>,
        results: Vec<(&Source, Result<(), Trouble>, Duration)>,
    ) -> (Vec<Row>, Vec<Image>) {
        let judged = contents.map(layout::judge).unwrap_or_default();
        let (mut rows, mut images) = (Vec::new(), Vec::new());
        for (source, copied, time) in results {
            let result = copied.and_then(|()| {
                let name = source.name.to_string();
                if let Some(image) = judged.images.iter().find(|image| image.name == source.name) {
                    images.push(image.clone());
                    return Ok(Got { digest: image.digest.clone(), size: image.size, done: "saved" });
                }
                // An image that is no list is taken whatever it is for.
                let mut found = judged.problems.iter().filter(|problem| problem.subject == name);
                let what = found.next().map_or("it is not there", |problem| problem.what.as_str());
                Err(Trouble::Known { reason: "unfit", said: what.to_owned() })
            });
            rows.push(Row {
                name: source.name.to_string(),
                architecture: self.architecture.to_string(),
                place: ("source", source.reference.clone()),
                result,
                time,
            });
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        (rows, images)
    }

    /// The layout, with blobs taken for what skopeo found them to be; they are looked at when they are packed.
    fn contents(&self) -> io::Result<Option<Contents>> {
        let read = |name: &str| std::fs::read(self.layout().join(name));
        let index = match read("index.json") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            index => index?,
        };
        let mut blobs = BTreeMap::new();
        for entry in entries(&self.layout().join("blobs/sha256"))? {
            let name = entry.file_name();
            let Ok(digest) = Digest::new(format!("sha256:{}", name.to_string_lossy())) else { continue };
            let size = entry.metadata()?.len();
            let mut json = None;
            if size <= MOST_JSON {
                let mut file = File::open(entry.path())?;
                let mut bytes = vec![0];
                if file.read(&mut bytes)? == 1 && bytes == b"{" {
                    file.read_to_end(&mut bytes)?;
                    json = Some(bytes);
                }
            }
            blobs.insert(digest, Blob { size, is_true: true, json });
        }
        let (architecture, layout) = (self.architecture.clone(), read("oci-layout")?);
        Ok(Some(Contents { architecture, index, layout, blobs }))
    }

    /// What there is of it, half blobs too.
    fn bytes(&self) -> u64 {
        let of = |path: PathBuf| {
            let entries = entries(&path).unwrap_or_default();
            entries.iter().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum::<u64>()
        };
        of(self.layout()) + of(self.layout().join("blobs/sha256"))
    }

    /// Writes the archive, and gives its size. It is there whole or not at all.
    fn pack(
        &self,
        path: &Path,
        images: &[Image],
        compress: Compression,
        watch: &Watch,
        progress: &mut Progress,
    ) -> Result<u64, Trouble> {
        let failed = |error| Trouble::file(path, error);
        let what = format!("packing {}", clean(&path.to_string_lossy()));
        progress.begin(&what);
        let index = layout::index_of(images.iter().map(|image| (&image.name, Named::Image(image))));
        let blobs: BTreeSet<_> = images.iter().flat_map(|image| image.blobs.iter().cloned()).collect();
        let sizes = |digest: &Digest| {
            std::fs::metadata(self.layout().join("blobs/sha256").join(digest.hex()))
                .map_or(0, |found| found.len())
        };
        let total = blobs.iter().map(sizes).sum();
        let name = format!("{}.new", path.file_name().unwrap_or_default().to_string_lossy());
        let temporary = path.with_file_name(&name);
        remove(&temporary).map_err(failed)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file = self.parent.open_beneath(Path::new(&name), flags, 0o644).map_err(failed)?;
        let written = (|| {
            let mut packer = Packer::new(compress, file.try_clone().map_err(failed)?, watch)?;
            let mut done = 0;
            let mut counted = |bytes| {
                done += bytes;
                progress.draw(&what, done, Some(total));
            };
            let of = (&self.architecture, &index[..]);
            let written = archive::write(
                io::BufWriter::with_capacity(128 * 1024, &mut packer),
                &self.layout(),
                of,
                &blobs,
                &mut counted,
            );
            // A pipe that nobody reads any more: who read it says why.
            match written {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
                _ => packer.finish()?,
            }
            written.map_err(failed)?;
            file.sync_all().map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            podsec_sys::file::replace(&self.path.join(WRITTEN), identity(&found).as_bytes(), 0o600)
                .map_err(|error| Trouble::file(&self.path, error))?;
            std::fs::rename(&temporary, path).map_err(failed)?;
            File::open(path.parent().unwrap_or(path)).and_then(|parent| parent.sync_all()).map_err(failed)?;
            std::fs::remove_dir_all(self.layout()).map_err(|error| Trouble::file(&self.path, error))?;
            Ok(found.len())
        })();
        progress.clear();
        if written.is_err() {
            let _ = remove(&temporary);
        }
        written
    }

    fn remove(&self) -> Result<(), Trouble> {
        self.parent.remove_tree(&self.name).map_err(|error| Trouble::file(&self.path, error))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is in a directory; nothing, where there is none.
fn entries(path: &Path) -> io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read?.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::{config, index, manifest};
    use super::super::run::tests::Place;
    use super::*;

    fn amd64() -> Architecture {
        Architecture::new("amd64").unwrap()
    }

    fn source(name: &str) -> Source {
        Source::new(&format!("{name}=dir:/x")).unwrap()
    }

    /// A layout as skopeo leaves it, with images for these architectures.
    fn layout(work: &Work, images: &[(&str, &str)]) {
        let blobs = work.layout().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8]| {
            let name = layout::digest(bytes).unwrap();
            podsec_sys::file::replace(&blobs.join(name.hex()), bytes, 0o600).unwrap();
        };
        let manifests: Vec<_> = images
            .iter()
            .map(|(name, architecture)| {
                let config = config(architecture);
                let mut manifest = manifest(&config, &[b"a layer"]);
                manifest["annotations"] = json!({ "name": name });
                let manifest = manifest.to_string().into_bytes();
                [&config[..], b"a layer", &manifest].into_iter().for_each(put);
                (*name, manifest)
            })
            .collect();
        let entries: Vec<_> = manifests.iter().map(|(name, manifest)| (*name, &manifest[..])).collect();
        let write = |name: &str, bytes: &[u8]| {
            podsec_sys::file::replace(&work.layout().join(name), bytes, 0o600).unwrap();
        };
        write("index.json", index(&entries).to_string().as_bytes());
        write("oci-layout", layout::LAYOUT.as_bytes());
    }

    #[test]
    fn what_is_half_is_thrown_away_and_the_rest_is_kept() {
        let place = Place::new();
        let work = Work::open(&place.0, &amd64()).unwrap();
        layout(&work, &[("a:1", "amd64")]);
        let blobs = work.layout().join("blobs/sha256");
        let count = || std::fs::read_dir(&blobs).unwrap().count();
        let whole = count();
        let half = layout::digest(b"a whole layer").unwrap();
        podsec_sys::file::replace(&blobs.join(half.hex()), b"a who", 0o600).unwrap();
        podsec_sys::file::replace(&work.layout().join("oci-put-blob123"), b"a who", 0o600).unwrap();
        podsec_sys::file::replace(&work.layout().join("index.json"), b"", 0o600).unwrap();
        let work = Work::open(&place.0, &amd64()).unwrap();
        assert_eq!(count(), whole);
        assert!(
            !work.layout().join("oci-put-blob123").exists() && !work.layout().join("index.json").exists()
        );
        assert!(work.contents().unwrap().is_none());
    }

    #[test]
    fn somebody_elses_directory_is_not_written_to() {
        let (place, target) = (Place::new(), Place::new());
        std::os::unix::fs::symlink(&target.0, place.0.join(".amd64.unfinished")).unwrap();
        assert!(matches!(Work::open(&place.0, &amd64()), Err(Trouble::File { .. })));
        let arm64 = Architecture::new("arm64").unwrap();
        let theirs =
            Directory::open(&place.0.canonicalize().unwrap()).unwrap().make(".arm64.unfinished", 0o777);
        if !geteuid().is_root() {
            return println!("not root: a directory of somebody else's cannot be made");
        }
        theirs.unwrap().give(1, 1, 0o777).unwrap();
        let said = Work::open(&place.0, &arm64).unwrap_err().to_string();
        assert!(said.ends_with("it is somebody else's"), "{said}");
    }

    #[test]
    fn one_save_at_a_time() {
        let place = Place::new();
        let held = lock(&place.0).unwrap();
        assert!(matches!(lock(&place.0), Err(Trouble::Busy(_))));
        drop(held);
        assert!(lock(&place.0).is_ok());
    }

    #[test]
    fn an_image_of_another_architecture_is_a_failure_of_that_image() {
        let place = Place::new();
        let work = Work::open(&place.0, &amd64()).unwrap();
        layout(&work, &[("a:1", "amd64"), ("b:1", "arm64")]);
        let [a, b, c, d] = ["a:1", "b:1", "c:1", "d:1"].map(source);
        let said = || Err(Trouble::Program { name: "skopeo", said: "says: no".into() });
        let results = [(&a, Ok(())), (&b, Ok(())), (&c, Ok(())), (&d, said())];
        let results = results.map(|(source, result)| (source, result, Duration::ZERO)).into();
        let contents = work.contents().unwrap();
        let (rows, images) = work.judge(contents.as_ref(), results);
        let told: Vec<_> = rows
            .iter()
            .map(|row| row.result.as_ref().map(|got| got.done).map_err(ToString::to_string))
            .collect();
        assert_eq!(
            told,
            [
                Ok("saved"),
                Err("it is for linux/arm64, and not for linux/amd64".into()),
                Err("it is not there".into()),
                Err("skopeo says: no".into()),
            ]
        );
        assert_eq!(images.iter().map(|image| image.name.to_string()).collect::<Vec<_>>(), ["a:1"]);
    }

    #[test]
    fn an_archive_is_there_whole_or_not_at_all() {
        let place = Place::new();
        let work = Work::open(&place.0, &amd64()).unwrap();
        layout(&work, &[("a:1", "amd64")]);
        let images = layout::judge(&work.contents().unwrap().unwrap()).images;
        let path = place.0.join("amd64.tar.zst");
        let mut progress = Progress::new(&crate::output::Output::new(true, crate::cli::Color::Never));
        let mut pack = || work.pack(&path, &images, Compression::Zstd, &Watch::default(), &mut progress);
        assert_eq!(pack().unwrap(), std::fs::metadata(&path).unwrap().len());
        let is_known = || Work::has_written(&place.0, &amd64(), &path);
        assert!(is_known() && !work.layout().exists());
        let first = std::fs::read(&path).unwrap();
        // Another archive of that name is not the one that was written.
        podsec_sys::file::replace(&path, &first, 0o600).unwrap();
        assert!(!is_known());
        layout(&work, &[("a:1", "amd64")]);
        pack().unwrap();
        assert!(is_known() && std::fs::read(&path).unwrap() == first);
        std::fs::remove_file(&path).unwrap();
        layout(&work, &[("a:1", "amd64")]);
        // A blob that the disk has lost a bit of.
        let blob = layout::digest(b"a layer").unwrap();
        podsec_sys::file::replace(&work.layout().join("blobs/sha256").join(blob.hex()), b"a lay3r", 0o600)
            .unwrap();
        let said = pack().unwrap_err().to_string();
        assert!(said.ends_with(&format!("{blob} was changed on the disk")), "{said}");
        assert_eq!(entries(&place.0).unwrap().len(), 1, "only what is unfinished");
        work.remove().unwrap();
        assert!(entries(&place.0).unwrap().is_empty());
    }

    #[test]
    fn what_was_written_is_what_is_wanted() {
        let place = Place::new();
        let work = Work::open(&place.0, &amd64()).unwrap();
        layout(&work, &[("a:1", "amd64"), ("b:1", "amd64")]);
        let images = layout::judge(&work.contents().unwrap().unwrap()).images;
        let path = place.0.join("amd64.tar.zst");
        let (watch, mut progress) =
            (Watch::default(), Progress::new(&crate::output::Output::new(true, crate::cli::Color::Never)));
        work.pack(&path, &images, Compression::Zstd, &watch, &mut progress).unwrap();
        let mut found = |names: &[&str]| {
            let sources: Vec<_> = names.iter().map(|name| source(name)).collect();
            let sources: Vec<_> = sources.iter().collect();
            earlier(&path, &sources, (&watch, &mut progress)).unwrap().map(|(rows, _)| rows.len())
        };
        assert_eq!(
            (found(&["b:1", "a:1"]), found(&["a:1"]), found(&["a:1", "b:1", "c:1"])),
            (Some(2), None, None)
        );
    }

    #[test]
    fn names_are_told_apart() {
        assert!(distinct(&["a:1", "a:2", "b/a:1"].map(source)).is_ok());
        let same = ["a.b/x:1", "c.d/x:1"].map(|text| Source::new(text).unwrap());
        let said = distinct(&same).unwrap_err().to_string();
        assert!(said.starts_with("docker://a.b/x:1 and docker://c.d/x:1 would both be called x:1"), "{said}");
    }
}
