//! What a store of containers/storage says of itself: `<driver>-images/images.json` and `<driver>-containers/containers.json`
//! below its root (github.com/containers/storage, docs/containers-storage.md and images.go, containers.go).
//!
//! For a process that is the store's owner ([`crate::owner`]): it may be anything.

use podsec_sys::file::{FileError, read_small};
use serde::{Deserialize, Serialize};
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

/// One driver's part of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `…/containers/storage`
    pub root: PathBuf,
    /// overlay, vfs, btrfs, zfs
    pub driver: String,
    owner: u32,
}

impl Store {
    /// All of a store: one for each driver that was ever used in it; none where there is no store.
    #[must_use]
    pub fn all(root: &Path, owner: u32) -> Vec<Self> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let drivers = names.filter_map(|name| name.strip_suffix("-images").map(str::to_owned));
        let mut all: Vec<_> = drivers.map(|driver| Self { root: root.into(), driver, owner }).collect();
        all.sort_by(|one, other| one.driver.cmp(&other.driver));
        all
    }

    /// Its images.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn images(&self) -> Result<Vec<Image>, String> {
        self.list("images", "images.json")
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
        match read_small(&path, self.owner, LONGEST) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(&error)),
            Err(FileError::Absent) => Ok(Vec::new()),
            Err(FileError::Unfit(why)) => Err(wrong(&why)),
            Err(FileError::Io(error)) => Err(wrong(&error)),
        }
    }
}
