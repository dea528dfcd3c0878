//! What happens to the files of whole file systems (fanotify(7)): a mark covers a file system however many directories it
//! has, and events name the directory by a handle (open_by_handle_at(2)) and the file by its name.
//!
//! Owns the group, its marks, and the format of its events (linux/fanotify.h). Needs `CAP_SYS_ADMIN` for the marks, and
//! `CAP_DAC_READ_SEARCH` to open handles. Must not open a file: only directories, and as a place (`O_PATH`).

use nix::fcntl::OFlag;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

pub use nix::sys::fanotify::MaskFlags as Mask;

/// Bytes of a handle's own (`MAX_HANDLE_SZ`, linux/exportfs.h).
const LONGEST_HANDLE: usize = 128;
/// Of struct `fanotify_event_metadata`.
const METADATA: usize = 24;
/// Of struct `fanotify_event_info_header`.
const HEADER: usize = 4;
/// A file system's number, and the head of struct `file_handle`.
const HANDLE: usize = 8 + 8;

/// What is asked for: files and directories made, removed, moved, written to, and their attributes. Of files that are
/// mapped only the closing is told (`FAN_CLOSE_WRITE`).
const WANTED: MaskFlags = MaskFlags::FAN_CREATE
    .union(MaskFlags::FAN_DELETE)
    .union(MaskFlags::FAN_MOVED_FROM)
    .union(MaskFlags::FAN_MOVED_TO)
    .union(MaskFlags::FAN_MODIFY)
    .union(MaskFlags::FAN_CLOSE_WRITE)
    .union(MaskFlags::FAN_ATTRIB)
    .union(MaskFlags::FAN_ONDIR);

/// A queue of events, as long as `fs.fanotify.max_queued_events` says; what does not fit is one event
/// (`FAN_Q_OVERFLOW`) in its place.
#[derive(Debug)]
pub struct Group {
    group: Fanotify,
    /// Do events name what a directory's entry leads to, too (Linux 5.17)?
    pub names_targets: bool,
}

impl Group {
    /// Does not wait when it is read.
    ///
    /// # Errors
    /// fanotify_init(2): `EPERM`, `EINVAL` before Linux 5.9, `ENOSYS`
    pub fn new() -> io::Result<Self> {
        let init = |report: libc::c_uint| {
            let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
            Fanotify::init(flags | InitFlags::from_bits_retain(report), EventFFlags::O_RDONLY)
        };
        match init(libc::FAN_REPORT_DFID_NAME_TARGET) {
            Ok(group) => Ok(Self { group, names_targets: true }),
            Err(nix::Error::EINVAL) => {
                let group = init(libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID)?;
                Ok(Self { group, names_targets: false })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the whole file system of an open directory, and gives its number.
    ///
    /// # Errors
    /// fanotify_mark(2): `EOPNOTSUPP`, `ENODEV`, `EXDEV` and `EINVAL` for one whose handles lead nowhere
    pub fn mark(&self, directory: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
        let number = file_system(directory)?;
        let flags = MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM;
        self.group.mark::<_, std::path::Path>(flags, WANTED, directory, None)?;
        Ok(number)
    }

    /// Some events, for [`events`].
    ///
    /// # Errors
    /// read(2); `WouldBlock` when there are none
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.group, buffer)?)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.group.as_fd()
    }
}

/// The number of the file system of an open file, as events have it (statfs(2), `f_fsid`).
///
/// # Errors
/// fstatfs(2)
pub fn file_system(file: BorrowedFd<'_>) -> io::Result<[u8; 8]> {
    // SAFETY: all zeros is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    const { assert!(size_of::<libc::fsid_t>() == 8) };
    // SAFETY: two ints, whose fields libc keeps to itself.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(stat.f_fsid) })
}

/// A directory of a file system for good, whatever it is called: its file system's number, then struct `file_handle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle<'a>(&'a [u8]);

impl<'a> Handle<'a> {
    /// Takes it from the front, and gives what follows.
    fn take(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = usize::try_from(u32_at(bytes, 8)?).ok()?;
        if length > LONGEST_HANDLE {
            return None;
        }
        let (handle, rest) = bytes.split_at_checked(HANDLE + length)?;
        Some((Self(handle), rest))
    }

    /// As a key: the same for the same directory.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Of the file system that it is of.
    #[must_use]
    pub fn file_system(self) -> &'a [u8] {
        self.0.get(..8).unwrap_or_default()
    }

    /// The directory, as a place, seen from any open file of that file system (not `O_PATH`).
    ///
    /// # Errors
    /// open_by_handle_at(2); `ESTALE` when it is no more
    pub fn open(self, mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let handle = self.0.get(8..).unwrap_or_default();
        // Aligned as the structure is.
        let mut aligned = [0_u32; (8 + LONGEST_HANDLE) / 4];
        for (place, bytes) in aligned.iter_mut().zip(handle.chunks(4)) {
            let mut four = [0; 4];
            four.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            *place = u32::from_ne_bytes(four);
        }
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        // SAFETY: the array is as long as the longest handle, and `take` has made sure that the handle's own length is
        // not more; the kernel only reads it.
        let fd =
            unsafe { libc::open_by_handle_at(mount.as_raw_fd(), aligned.as_mut_ptr().cast(), flags.bits()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// The handle of an open directory, and the number of the mount that it was opened through.
///
/// # Errors
/// name_to_handle_at(2): `EOPNOTSUPP`
pub fn handle_of(directory: BorrowedFd<'_>) -> io::Result<(Vec<u8>, i32)> {
    let mut aligned = [0_u32; (8 + LONGEST_HANDLE) / 4];
    if let Some(room) = aligned.first_mut() {
        *room = u32::try_from(LONGEST_HANDLE).map_err(io::Error::other)?;
    }
    let mut mount = 0;
    // SAFETY: the array is as long as its first number says, beside the head; the path is the empty string.
    let result = unsafe {
        libc::name_to_handle_at(
            directory.as_raw_fd(),
            c"".as_ptr(),
            aligned.as_mut_ptr().cast(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut bytes = file_system(directory)?.to_vec();
    bytes.extend(aligned.iter().flat_map(|word| word.to_ne_bytes()));
    let Some((handle, _)) = Handle::take(&bytes) else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok((handle.bytes().to_vec(), mount))
}

/// A handle that was kept.
#[must_use]
pub fn handle(bytes: &[u8]) -> Option<Handle<'_>> {
    Handle::take(bytes).filter(|(_, rest)| rest.is_empty()).map(|(handle, _)| handle)
}

/// Something that happened. The kernel makes one of several of the same kind of thing to the same name by the same
/// process that nobody has read yet, so more than one bit may be set, in no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What.
    pub mask: MaskFlags,
    /// The directory, where the kernel knows it.
    pub directory: Option<Handle<'a>>,
    /// In it; `.` is the directory itself; empty where there is none. Any bytes but `/` and NUL.
    pub name: &'a [u8],
    /// What the name leads to.
    pub target: Option<Handle<'a>>,
    /// Number of the process that did it, in the pid namespace of whoever made the group; 0 for one of another.
    pub process: i32,
}

/// The events in what [`Group::read`] gave. Stops at what it does not understand, which no kernel has sent so far.
pub fn events(mut bytes: &[u8]) -> impl Iterator<Item = Event<'_>> {
    std::iter::from_fn(move || {
        let (event, rest) = event(bytes)?;
        bytes = rest;
        Some(event)
    })
}

fn event(bytes: &[u8]) -> Option<(Event<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    if length < METADATA || *bytes.get(4)? != libc::FANOTIFY_METADATA_VERSION {
        return None;
    }
    let (event, rest) = bytes.split_at_checked(length)?;
    let head = usize::from(u16_at(event, 6)?);
    let mask = u64::from_ne_bytes(event.get(8..16)?.try_into().ok()?);
    let process = i32::from_ne_bytes(event.get(20..24)?.try_into().ok()?);
    let mask = MaskFlags::from_bits_retain(mask);
    let mut found = Event { mask, directory: None, name: &[], target: None, process };
    let mut parts = event.get(head.max(METADATA)..)?;
    while let Some((&kind, part)) = parts.first().zip(u16_at(parts, 2)) {
        let (part, others) = parts.split_at_checked(usize::from(part).max(HEADER))?;
        parts = others;
        let part = part.get(HEADER..)?;
        match kind {
            libc::FAN_EVENT_INFO_TYPE_DFID_NAME => {
                let (handle, name) = Handle::take(part)?;
                found.directory = Some(handle);
                // Ends with a zero, and is padded with more.
                found.name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            }
            libc::FAN_EVENT_INFO_TYPE_DFID => found.directory = Some(Handle::take(part)?.0),
            libc::FAN_EVENT_INFO_TYPE_FID => found.target = Some(Handle::take(part)?.0),
            _ => {}
        }
    }
    Some((found, rest))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    /// An event as the kernel writes it.
    fn raw(mask: u64, parts: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for &(kind, handle, name) in parts {
            let mut part = vec![7_u8; 8];
            part.extend(u32::try_from(handle.len()).unwrap().to_ne_bytes());
            part.extend(1_i32.to_ne_bytes());
            part.extend(handle);
            if kind == libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
                part.extend(name);
                part.push(0);
            }
            part.resize(part.len().next_multiple_of(4), 0);
            body.extend([kind, 0]);
            body.extend(u16::try_from(part.len() + HEADER).unwrap().to_ne_bytes());
            body.extend(part);
        }
        let mut bytes = u32::try_from(METADATA + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(42_i32.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn several_events_are_told_apart() {
        let mut bytes = raw(libc::FAN_CREATE, &[(2, b"12345678", b"a\nb"), (1, b"abcdefgh", b"")]);
        bytes.extend(raw(libc::FAN_Q_OVERFLOW, &[]));
        bytes.extend(raw(libc::FAN_ATTRIB, &[(1, b"x", b"")]));
        let found: Vec<_> = events(&bytes).collect();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].mask, found[0].name), (MaskFlags::FAN_CREATE, &b"a\nb"[..]));
        assert!(found[0].directory.unwrap().bytes().ends_with(b"12345678"));
        assert!(found[0].target.unwrap().bytes().ends_with(b"abcdefgh"));
        assert_eq!(found[0].process, 42);
        assert_eq!((found[1].mask, found[1].directory), (MaskFlags::FAN_Q_OVERFLOW, None));
        assert_eq!((found[2].directory, found[2].name), (None, &b""[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            mask in any::<u64>(),
            name in proptest::collection::vec(1_u8.., 0..40),
            cut in 0_usize..120,
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..120,
            byte in any::<u8>(),
        ) {
            let _ = events(&noise).count();
            let mut bytes = raw(mask, &[(2, b"12345678", &name), (1, b"12345678", b"")]);
            prop_assert_eq!(events(&bytes).map(|event| event.name.to_vec()).collect::<Vec<_>>(), [name]);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(events(&bytes[..cut]).count(), 0);
            let last = bytes.len() - 1;
            bytes[at.min(last)] = byte;
            let _ = events(&bytes).count();
        }
    }

    #[test]
    fn the_kernel_tells_of_a_file_and_its_directory_is_found() {
        let here = PathBuf::from(format!("/dev/shm/podsec-fanotify-{}", std::process::id()));
        let group = match Group::new() {
            Ok(group) => group,
            Err(error) => {
                println!("left out: {error}");
                return;
            }
        };
        std::fs::create_dir(&here).unwrap();
        let directory = std::fs::File::open(&here).unwrap();
        match group.mark(directory.as_fd()) {
            Err(error) if !nix::unistd::geteuid().is_root() => println!("left out: {error}"),
            marked => {
                let number = marked.unwrap();
                std::fs::create_dir(here.join("below")).unwrap();
                std::fs::File::create(here.join("below/a\nb")).unwrap();
                let mut buffer = vec![0; 64 * 1024];
                let length = group.read(&mut buffer).unwrap();
                let found: Vec<_> = events(&buffer[..length]).collect();
                let file = found.iter().find(|event| event.name == b"a\nb").unwrap();
                assert!(file.mask.contains(MaskFlags::FAN_CREATE));
                let handle = file.directory.unwrap();
                assert_eq!(handle.file_system(), number);
                let place = handle.open(directory.as_fd()).unwrap();
                let link = std::fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap();
                assert_eq!(link, here.join("below"));
                assert_eq!(handle_of(place.as_fd()).unwrap().0, handle.bytes());
                let made = found.iter().find(|event| event.name == b"below").unwrap();
                if group.names_targets {
                    assert_eq!(made.target, Some(handle));
                }
                std::fs::remove_dir_all(here.join("below")).unwrap();
                assert_eq!(
                    handle.open(directory.as_fd()).map(drop).map_err(|_| ()),
                    // The descriptor above still holds it.
                    Ok(())
                );
                drop(place);
                let gone = handle.open(directory.as_fd()).unwrap_err();
                assert_eq!(gone.raw_os_error(), Some(libc::ESTALE));
            }
        }
        std::fs::remove_dir_all(&here).unwrap();
    }
}
