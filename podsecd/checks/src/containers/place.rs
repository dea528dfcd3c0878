//! Which part of a store a directory is (github.com/containers/storage, drivers/overlay and drivers/vfs). Pure.

use serde::{Deserialize, Serialize};

/// Of a layer or a container: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id([u8; 32]);

impl Id {
    /// Lower case, as containers/storage writes them.
    pub fn new(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut id = [0; 32];
        let pairs = text.chunks_exact(2);
        if text.len() != 64 {
            return None;
        }
        for (to, pair) in id.iter_mut().zip(pairs) {
            let [high, low] = pair else { return None };
            *to = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(id))
    }

    /// All digits.
    pub fn long(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As people write it: the first twelve.
    pub fn short(self) -> String {
        self.0.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A directory of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of which nothing is wanted.
    Other,
    /// `…-containers`: a directory for each container.
    Containers,
    /// What is kept beside a container: podman's notes, or buildah's.
    Notes(Id),
    /// The work directory of an overlay, in which the kernel prepares what it then moves to the layer.
    Work,
    /// A layer, or below it; its path inside begins at this byte of the directory's.
    Layer(Id, usize),
}

/// Of a path below a store's root, which has no `.` or `..` and neither begins nor ends with `/`.
pub fn place(path: &[u8]) -> Place {
    let mut parts = path.split(|&byte| byte == b'/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let id = |part: Option<&[u8]>| part.and_then(Id::new);
    match first {
        b"overlay-containers" | b"vfs-containers" => match (second, id(second), third) {
            (None, ..) => Place::Containers,
            (_, Some(id), Some(b"userdata")) if parts.next().is_none() => Place::Notes(id),
            _ => Place::Other,
        },
        b"overlay" => match (id(second), third) {
            (Some(id), Some(b"diff")) => Place::Layer(id, (8 + 64 + 5 + 1).min(path.len())),
            (Some(_), Some(b"work")) => Place::Work,
            _ => Place::Other,
        },
        b"vfs" if second == Some(b"dir") => match id(third) {
            Some(id) => Place::Layer(id, (8 + 64 + 1).min(path.len())),
            None => Place::Other,
        },
        _ => Place::Other,
    }
}

/// Is a directory of this name in a store's root the first sign of the store?
pub fn is_sign_of_a_store(name: &[u8]) -> bool {
    [&b"overlay-containers"[..], b"vfs-containers", b"overlay", b"vfs"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn inside(path: &str) -> Option<&[u8]> {
        match place(path.as_bytes()) {
            Place::Layer(id, at) => {
                assert_eq!(Some(id), Id::new(HEX.as_bytes()));
                Some(&path.as_bytes()[at..])
            }
            _ => None,
        }
    }

    #[test]
    fn layers_are_told_from_the_rest() {
        assert_eq!(inside(&format!("overlay/{HEX}/diff")), Some(&b""[..]));
        assert_eq!(inside(&format!("overlay/{HEX}/diff/usr/bin")), Some(&b"usr/bin"[..]));
        assert_eq!(inside(&format!("vfs/dir/{HEX}")), Some(&b""[..]));
        assert_eq!(inside(&format!("vfs/dir/{HEX}/diff")), Some(&b"diff"[..]));
        for other in ["", "overlay", "overlay/l", "overlay/x/diff", "vfs/x", "vfs/dir/x", "tmp/overlay"] {
            assert_eq!(place(other.as_bytes()), Place::Other, "{other}");
        }
        for other in ["overlay/HEX", "overlay/HEX/merged", "overlay/HEX/diffs", "vfs/HEX", "vfs/dir/HEX0"] {
            assert_eq!(place(other.replace("HEX", HEX).as_bytes()), Place::Other, "{other}");
        }
        assert_eq!(place(["overlay", HEX, "work", "work"].join("/").as_bytes()), Place::Work);
    }

    #[test]
    fn containers_and_their_notes() {
        let id = Id::new(HEX.as_bytes()).unwrap();
        assert_eq!(id.short(), "0123456789ab");
        assert_eq!(place(b"overlay-containers"), Place::Containers);
        assert_eq!(place(b"vfs-containers"), Place::Containers);
        assert_eq!(place(format!("vfs-containers/{HEX}").as_bytes()), Place::Other);
        assert_eq!(place(format!("vfs-containers/{HEX}/userdata").as_bytes()), Place::Notes(id));
        assert_eq!(place(format!("vfs-containers/{HEX}/userdata/shm").as_bytes()), Place::Other);
        assert_eq!(Id::new(HEX.to_uppercase().as_bytes()), None);
        assert_eq!(Id::new(&HEX.as_bytes()[1..]), None);
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Place::Layer(_, at) = place(&path) {
                prop_assert!(path.get(at..).is_some());
            }
        }

        #[test]
        fn whatever_is_in_a_layer_stays_in_it(below in proptest::collection::vec(1_u8.., 1..60)) {
            let mut path = format!("overlay/{HEX}/diff/").into_bytes();
            path.extend(&below);
            let Place::Layer(_, at) = place(&path) else { return Err(TestCaseError::fail("not in it")) };
            prop_assert_eq!(&path[at..], below);
        }
    }
}
