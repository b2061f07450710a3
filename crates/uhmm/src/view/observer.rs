//! What another process shows, as others read it.
#![expect(clippy::disallowed_types, reason = "off the fault path: it is for programs that look")]
#![expect(clippy::disallowed_macros, reason = "as above")]

use core::{
    ptr::{self, NonNull, addr_of},
    sync::atomic::Ordering::{Acquire, Relaxed},
};
use std::{string::String, vec::Vec};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    fs::{CWD, FileType, Mode, OFlags, RawDir, fcntl_get_seals, fstat, open, openat, readlinkat},
    io::{self, Errno as SystemError},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    process::{Pid, PidfdFlags, pidfd_open},
};
use thiserror::Error;

use super::{
    layout::{self, BYTES, FINGERPRINT, Head, MAGIC, MAP_OFFSET, OPEN, PLACES},
    map::{CAME_BACK, DEVICE, EXCLUSIVE, LOST, MIRRORS},
    memfd::{NAME, SEALS},
};
use crate::{
    counters::CounterValues,
    driver::{DeviceIndex, MAX_DEVICES},
    latency::{Histogram, Latency},
    mm::Errno,
    report::StayCause,
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange, PageSize},
};

/// Why a process cannot be observed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObserveError {
    /// there is no such process
    #[error("there is no process {process}")]
    NoSuchProcess {
        /// The process.
        process: u32,
    },
    /// its open files may not be looked at
    #[error(
        "process {process} may not be looked into: do it as its user or as root, or with \
         CAP_SYS_PTRACE"
    )]
    NotAllowed {
        /// The process.
        process: u32,
    },
    /// it has no address space open
    #[error("process {process} has no address space of uhmm open")]
    NotOpen {
        /// The process.
        process: u32,
    },
    /// it is a child of one that has
    #[error(
        "process {process} has no address space of uhmm open: it was forked from one that has, \
         process {parent} as that one numbers itself"
    )]
    Child {
        /// The process.
        process: u32,
        /// The number that its parent has for itself.
        parent: u32,
    },
    /// it runs another version
    #[error(
        "process {process} shows its state in another layout: look at it with the uhmm of the \
         version that it is built with"
    )]
    OtherVersion {
        /// The process.
        process: u32,
    },
    /// the system refuses something else
    #[error("process {process} cannot be looked into: {errno}")]
    System {
        /// The process.
        process: u32,
        /// The system's error.
        errno: Errno,
    },
}

/// A device of the process that is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedDevice {
    /// The device.
    pub index: DeviceIndex,
    /// How many pages its memory holds.
    pub frames: usize,
    /// Whether its memory is gone.
    pub lost: bool,
}

/// Where the content of a page is, as it is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObservedPlace {
    /// In system memory or nowhere; it was not on a device, or its content ended since.
    #[default]
    Elsewhere,
    /// In the memory of a device.
    Device {
        /// The device.
        device: DeviceIndex,
        /// Whether that device has it alone.
        exclusive: bool,
    },
    /// In system memory: it came back from a device.
    CameBack,
    /// It was lost with a device: an access to it ends with a signal.
    Lost,
}

/// What is shown of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedPage {
    /// Where its content is.
    pub place: ObservedPlace,
    /// Devices that may map pages of its block where they are.
    pub mapped_by: Vec<DeviceIndex>,
    /// Whether mirrors of devices without memory may.
    pub mapped_by_mirrors: bool,
    /// Why it stayed in system memory when it was last to go to a device.
    pub stayed: Option<&'static str>,
}

/// A process that is observed: a look at what it shows, which takes no lock and disturbs nobody.
///
/// What is read is what the process wrote. One that means no good can write anything; there is no
/// more to it than wrong numbers.
///
/// # Invariants
/// `start` is the first of `BYTES` bytes of a mapping for reading, of a file that cannot shrink.
#[derive(Debug)]
pub struct Observer {
    start: NonNull<u8>,
    process: u32,
    /// Readable once the process has ended.
    alive: OwnedFd,
}

// SAFETY: the mapping is read only, atomically or as bytes that somebody else changes.
unsafe impl Send for Observer {}
// SAFETY: as above.
unsafe impl Sync for Observer {}

impl Observer {
    /// Looks for what a process shows.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub fn of(process: u32) -> Result<Self, ObserveError> {
        let system = |error: SystemError| match error {
            SystemError::SRCH | SystemError::NOENT => ObserveError::NoSuchProcess { process },
            SystemError::ACCESS | SystemError::PERM => ObserveError::NotAllowed { process },
            other => ObserveError::System { process, errno: Errno(other.raw_os_error()) },
        };
        let number = i32::try_from(process).ok().and_then(Pid::from_raw);
        let number = number.ok_or(ObserveError::NoSuchProcess { process })?;
        // First of all: what is found later is of this very process if it lives then.
        let alive = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(alive) => alive,
            // A thread's number is none of a process.
            Err(SystemError::INVAL) => return Err(ObserveError::NoSuchProcess { process }),
            Err(error) => return Err(system(error)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = open(std::format!("/proc/{process}/fd"), flags, Mode::empty());
        let files = files.map_err(system)?;
        let own = own_number(process).map_err(system)?;
        let mut result = Err(ObserveError::NotOpen { process });
        let mut buffer = Vec::with_capacity(8192);
        let mut entries = RawDir::new(&files, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(system)?;
            if entry.file_type() != FileType::Symlink || !is_ours(&files, entry.file_name()) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            // It may be closed by now.
            let Ok(file) = openat(&files, entry.file_name(), flags, Mode::empty()) else {
                continue;
            };
            let Some(start) = map(&file).map_err(system)? else {
                result = result.or(Err(ObserveError::OtherVersion { process }));
                continue;
            };
            let found = Self { start, process, alive: io::dup(&alive).map_err(system)? };
            let head = found.head();
            let is_known = head.magic.load(Acquire) == MAGIC
                && head.fingerprint.load(Relaxed) == FINGERPRINT
                && PageSize::new(head.page_size.load(Relaxed)).is_some();
            let parent = head.process.load(Relaxed);
            if !is_known {
                result = result.or(Err(ObserveError::OtherVersion { process }));
            } else if parent != own {
                result = result.or(Err(ObserveError::Child { process, parent }));
            } else if found.is_open() {
                return if found.is_alive() {
                    Ok(found)
                } else {
                    Err(ObserveError::NoSuchProcess { process })
                };
            }
        }
        result
    }

    fn head(&self) -> &Head {
        // SAFETY: by the invariant there is a head, which is all atomics: any bytes are such.
        unsafe { self.start.cast().as_ref() }
    }

    fn map(&self) -> *const layout::Map {
        // SAFETY: by the invariant there is a map.
        unsafe { self.start.as_ptr().cast_const().add(MAP_OFFSET) }.cast()
    }

    /// The process.
    pub const fn process(&self) -> u32 {
        self.process
    }

    /// Whether the process lives still. What it shows stays to be read when it has ended.
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.alive, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut ended, Some(&now)), Ok(1..))
    }

    /// Whether the address space was not closed yet.
    pub fn is_open(&self) -> bool {
        self.head().open.load(Acquire) == OPEN
    }

    /// The size of its pages.
    ///
    /// # Panics
    /// Never, unless the process changes it: it was looked at before.
    pub fn page_size(&self) -> PageSize {
        let size = PageSize::new(self.head().page_size.load(Relaxed));
        size.unwrap_or_else(|| PageSize::new(rustix::param::page_size()).expect("a page size"))
    }

    /// What happened so far.
    pub fn counters(&self) -> CounterValues {
        self.head().counters.values()
    }

    /// How long things took while events were recorded, since the address space was opened.
    pub fn histogram(&self, latency: Latency) -> Histogram {
        self.head().latencies[latency as usize].values()
    }

    /// The devices that are attached.
    pub fn devices(&self) -> Vec<ObservedDevice> {
        let devices = self.head().devices.iter().zip(0..);
        devices
            .map(|(device, index)| ObservedDevice {
                index: DeviceIndex(index),
                frames: device.frames.load(Acquire),
                lost: device.lost.load(Relaxed) == 1,
            })
            .filter(|device| device.frames > 0)
            .collect()
    }

    /// What is adopted, and whether that is all of it: there is room for some hundred ranges.
    pub fn adopted(&self) -> (Vec<PageRange>, bool) {
        // Whoever writes them is done soon; one that never is means no good, or has died.
        for _ in 0..if cfg!(fuzzing) { 2 } else { 1000 } {
            let mut ranges = Vec::new();
            let each = |start, end| {
                ranges.push(PageRange::new(PageNumber(start), PageNumber(end)));
            };
            if let Some(all) = self.head().adopted_ranges(each) {
                return (ranges, all);
            }
            crate::sync::yield_now();
        }
        (Vec::new(), false)
    }

    /// How often a block was left out, for which there was no room.
    pub fn blocks_left_out(&self) -> u64 {
        self.head().blocks_left_out.load(Relaxed)
    }

    fn block_at(&self, place: usize) -> Option<BlockNumber> {
        // SAFETY: by the invariant; the reference is to an atomic.
        let block = unsafe { &*addr_of!((*self.map()).places[place].block) }.load(Relaxed);
        let number = usize::try_from(block.checked_sub(1)?).ok()?;
        // Such that its pages have numbers.
        (number < usize::MAX / BLOCK_PAGES / 2).then_some(BlockNumber(number))
    }

    fn place_of(&self, block: BlockNumber) -> Option<usize> {
        for place in layout::places_of(block) {
            if self.block_at(place)? == block {
                return Some(place);
            }
        }
        None
    }

    fn held_at(&self, place: usize, page: usize) -> u8 {
        // SAFETY: by the invariant; the reference is to an atomic.
        let alike = unsafe { &*addr_of!((*self.map()).places[place].alike) }.load(Acquire);
        if alike & layout::ALIKE != 0 {
            return alike.to_le_bytes()[0];
        }
        // SAFETY: by the invariant the byte is there; somebody else may change it.
        unsafe { addr_of!((*self.map()).held[place][page]).read_volatile() }
    }

    /// What is shown of the page at `address`; nothing where no page of its block ever moved, nor was
    /// to.
    pub fn page(&self, address: usize) -> Option<ObservedPage> {
        let page = self.page_size().page_of(address);
        let place = self.place_of(page.block())?;
        let held = self.held_at(place, page.in_block());
        // SAFETY: by the invariant; the references are to atomics.
        let (mapped, stayed) = unsafe {
            let mapped = &*addr_of!((*self.map()).places[place].mapped_by);
            let stayed = &*addr_of!((*self.map()).stayed[place][page.in_block()]);
            (mapped.load(Relaxed), stayed.load(Relaxed))
        };
        let place = match device_of(held) {
            Some(device) => ObservedPlace::Device { device, exclusive: held & EXCLUSIVE != 0 },
            None if held & LOST != 0 => ObservedPlace::Lost,
            None if held & CAME_BACK != 0 => ObservedPlace::CameBack,
            None => ObservedPlace::Elsewhere,
        };
        let is_away = matches!(place, ObservedPlace::Device { .. });
        Some(ObservedPage {
            place,
            mapped_by: devices().filter(|device| mapped & 1 << device.0 != 0).collect(),
            mapped_by_mirrors: mapped & MIRRORS != 0,
            // It is of before where the page has gone to a device since.
            stayed: StayCause::text_of(stayed).filter(|_| !is_away),
        })
    }

    /// For each block of which something is shown how many of its pages each device holds, by the
    /// devices' numbers, in the order of the addresses.
    pub fn blocks(&self) -> Vec<(BlockNumber, [u16; MAX_DEVICES])> {
        let mut blocks: Vec<_> = (0..PLACES)
            .filter_map(|place| {
                let block = self.block_at(place)?;
                let mut pages = [0; MAX_DEVICES];
                for page in 0..BLOCK_PAGES {
                    if let Some(device) = device_of(self.held_at(place, page)) {
                        pages[device.number()] += 1;
                    }
                }
                Some((block, pages))
            })
            .collect();
        blocks.sort_unstable_by_key(|&(block, _)| block);
        blocks
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody has a reference into it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), BYTES) };
    }
}

fn devices() -> impl Iterator<Item = DeviceIndex> {
    (0..MAX_DEVICES).filter_map(|number| u8::try_from(number).ok()).map(DeviceIndex)
}

fn device_of(held: u8) -> Option<DeviceIndex> {
    let number = (held & DEVICE).checked_sub(1)?;
    (usize::from(number) < MAX_DEVICES).then_some(DeviceIndex(number))
}

/// Whether an entry among a process's open files leads to a file of our name.
fn is_ours(files: &OwnedFd, entry: &core::ffi::CStr) -> bool {
    let Ok(target) = readlinkat(files, entry, Vec::new()) else { return false };
    let target = target.to_bytes();
    let name = target.strip_prefix(b"/memfd:").unwrap_or_default();
    name.strip_suffix(b" (deleted)").unwrap_or(name) == NAME.to_bytes()
}

/// Maps a file that is sealed and as long as it should be; else there is nothing.
fn map(file: &OwnedFd) -> io::Result<Option<NonNull<u8>>> {
    let is_sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SEALS));
    if !is_sealed || fstat(file)?.st_size != i64::try_from(BYTES).unwrap_or(0) {
        return Ok(None);
    }
    // SAFETY: a new mapping, for reading, at a place of the system's choice; as it is sealed, the file
    // has its bytes for good.
    let start =
        unsafe { mmap(ptr::null_mut(), BYTES, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
    Ok(NonNull::new(start.cast()))
}

/// The number that a process has for itself, which in a namespace of its own is another one.
fn own_number(process: u32) -> io::Result<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = openat(CWD, std::format!("/proc/{process}/status"), flags, Mode::empty())?;
    let mut text = Vec::with_capacity(4096);
    while io::read(&file, rustix::buffer::spare_capacity(&mut text))? > 0 {
        text.reserve(1024);
    }
    let text = String::from_utf8_lossy(&text);
    Ok(innermost_number(&text).unwrap_or(process))
}

/// The last of the numbers in the line `NSpid:` of a process's status.
pub(super) fn innermost_number(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_innermost_number_is_the_last() {
        assert_eq!(innermost_number("Name:\tx\nNSpid:\t4711\t12\nTgid:\t3\n"), Some(12));
        assert_eq!(innermost_number("NSpid:\t7\n"), Some(7));
        assert_eq!(innermost_number("NSpid:\n"), None);
        assert_eq!(innermost_number(""), None);
    }

    proptest! {
        #[test]
        fn any_status_has_a_number_or_none(status: String) {
            let _ = innermost_number(&status);
        }

        #[test]
        fn any_byte_is_a_device_that_there_may_be_or_none(held: u8) {
            assert!(device_of(held).is_none_or(|device| device.number() < MAX_DEVICES));
        }
    }
}
