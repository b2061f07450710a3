//! How the memory that is shown is laid out.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use crate::{
    counters::Counters,
    driver::MAX_DEVICES,
    latency::{Bins, Latency},
    units::{BLOCK_PAGES, BlockNumber},
};

/// What the memory begins with.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"uhmmview");

/// Ranges of adopted pages that have room.
pub(super) const RANGES: usize = 256;

/// Places for blocks, a power of two.
pub(super) const PLACES: usize = 1 << 16;

/// Of how many places a block can have one.
pub(super) const TRIED: usize = 32;

/// A number that changes with the layout, and with the names of what is counted.
pub(super) const FINGERPRINT: u64 = {
    let sizes = [
        1,
        size_of::<Head>() as u64,
        size_of::<Map>() as u64,
        MAX_DEVICES as u64,
        RANGES as u64,
        PLACES as u64,
        TRIED as u64,
        BLOCK_PAGES as u64,
    ];
    let mut hash = Counters::FINGERPRINT;
    let mut place = 0;
    while place < sizes.len() {
        hash = (hash ^ sizes[place]).wrapping_mul(0x0100_0000_01b3);
        place += 1;
    }
    hash
};

/// The engine is there, or has ended.
pub(super) const OPEN: u32 = 1;
pub(super) const CLOSED: u32 = 2;

/// A device.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Device {
    /// How many frames it has; none where there is no device.
    pub(super) frames: AtomicUsize,
    /// One where its memory is gone.
    pub(super) lost: AtomicU32,
}

/// Pages from a start to an end.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Range {
    pub(super) start: AtomicUsize,
    pub(super) end: AtomicUsize,
}

/// What there is in any case.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Head {
    /// Written last as the memory is made.
    pub(super) magic: AtomicU64,
    pub(super) fingerprint: AtomicU64,
    /// The process, by the number that it has itself for it.
    pub(super) process: AtomicU32,
    pub(super) open: AtomicU32,
    pub(super) page_size: AtomicUsize,
    /// Blocks for which the map had no room.
    pub(super) blocks_left_out: AtomicU64,
    /// Odd while the ranges are written.
    pub(super) ranges_version: AtomicU64,
    /// How many there are, more perhaps than have room.
    pub(super) ranges: AtomicUsize,
    pub(super) adopted: [Range; RANGES],
    pub(super) devices: [Device; MAX_DEVICES],
    pub(crate) counters: Counters,
    pub(crate) latencies: [Bins; Latency::ALL.len()],
}

impl Default for Head {
    fn default() -> Self {
        Self {
            magic: AtomicU64::new(0),
            fingerprint: AtomicU64::new(FINGERPRINT),
            process: AtomicU32::new(0),
            open: AtomicU32::new(OPEN),
            page_size: AtomicUsize::new(0),
            blocks_left_out: AtomicU64::new(0),
            ranges_version: AtomicU64::new(0),
            ranges: AtomicUsize::new(0),
            adopted: core::array::from_fn(|_| Range::default()),
            devices: core::array::from_fn(|_| Device::default()),
            counters: Counters::default(),
            latencies: core::array::from_fn(|_| Bins::default()),
        }
    }
}

/// A place for a block.
#[repr(C)]
pub(super) struct Place {
    /// The block, by its number and one; zero where there is none.
    pub(super) block: AtomicU64,
    /// A bit for each device that may map pages of the block where they are, and one for mirrors.
    pub(super) mapped_by: AtomicU32,
    /// Who holds all of its pages, and [`ALIKE`]; zero where it is told of each page. A huge page comes and
    /// goes with one store. Written by the holder of the block's lock.
    pub(super) alike: AtomicU32,
}

/// The bit of [`Place::alike`] that is set where it tells of all pages.
pub(super) const ALIKE: u32 = 1 << 8;

/// What is known of pages, block by block. It takes memory as blocks come.
#[repr(C)]
pub(super) struct Map {
    /// The blocks, each at a place from that of its hash on.
    pub(super) places: [Place; PLACES],
    /// Who holds each page, see [`Held`](super::Held), where the place does not tell. Written by the holder
    /// of the block's lock, and in this process read by nobody.
    pub(super) held: [[u8; BLOCK_PAGES]; PLACES],
    /// Why each page stayed last, as a number of its cause, or zero.
    pub(super) stayed: [[core::sync::atomic::AtomicU8; BLOCK_PAGES]; PLACES],
}

/// Where a block is looked for first.
fn first_place(block: usize) -> usize {
    // Neighbours lie side by side, and those of different areas apart.
    (block ^ block >> 9 ^ block >> 18) & (PLACES - 1)
}

/// The places that a block can have, in the order in which they are tried. They are few: where the map is
/// full of neighbours one that does not find its own would look at all of them, each time.
pub(super) fn places_of(block: BlockNumber) -> impl Iterator<Item = usize> {
    let first = first_place(block.0);
    (first..first + TRIED).map(|place| place & (PLACES - 1))
}

/// Where the map begins behind the head, in bytes: on a page of its own, whatever its size.
pub(super) const MAP_OFFSET: usize = size_of::<Head>().next_multiple_of(64 << 10);

/// All bytes.
pub(super) const BYTES: usize = MAP_OFFSET + size_of::<Map>().next_multiple_of(64 << 10);
