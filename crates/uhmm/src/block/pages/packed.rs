//! Consecutive pages of a block in consecutive frames, in 56 bits.

use core::{fmt, ops::Range};

use super::Residence;
use crate::{
    driver::{DeviceIndex, FrameNumber, MAX_DEVICES},
    units::BLOCK_PAGES,
};

/// Pages that are not in system memory: of one device, in consecutive frames, all exclusive or none, all
/// mapped by the CPU or none.
///
/// From the first bit on: whether they are mapped, whether they are exclusive, the device (4 bits), the
/// frame of the first (32), how many they are, less one (9), the place of the first (9).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PackedRun(u64);

const MAPPED: u64 = 1;
const EXCLUSIVE: u64 = 1 << 1;
const DEVICE: u32 = 2;
const FRAME: u32 = 6;
const LEN: u32 = 38;
const START: u32 = 47;
const PLACE_BITS: u32 = 9;

const _: () = {
    assert!(MAX_DEVICES <= 1 << (FRAME - DEVICE), "devices fit");
    assert!(FRAME + u32::BITS == LEN, "frames fit");
    assert!(BLOCK_PAGES <= 1 << PLACE_BITS && LEN + PLACE_BITS == START, "lengths fit");
    assert!(START + PLACE_BITS == HIGH + u16::BITS, "places fit");
    assert!(size_of::<StoredRun>() == 7);
};

/// A run in memory, in parts that are read and written as they are.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
pub(super) struct StoredRun {
    low: u32,
    middle: u8,
    high: u16,
}

const MIDDLE: u32 = u32::BITS;
const HIGH: u32 = MIDDLE + u8::BITS;

impl StoredRun {
    /// Of no meaning.
    pub(super) const NONE: Self = Self { low: 0, middle: 0, high: 0 };

    /// The place of the first page, by which lists are searched.
    pub(super) const fn start(self) -> usize {
        (self.high >> (START - HIGH)) as usize
    }

    pub(super) const fn packed(self) -> PackedRun {
        PackedRun(self.low as u64 | (self.middle as u64) << MIDDLE | (self.high as u64) << HIGH)
    }
}

impl PackedRun {
    #[expect(clippy::cast_possible_truncation, reason = "it is taken apart")]
    pub(super) const fn stored(self) -> StoredRun {
        let Self(bits) = self;
        StoredRun { low: bits as u32, middle: (bits >> MIDDLE) as u8, high: (bits >> HIGH) as u16 }
    }

    /// The run of `pages`, which are not none, the first of which is where `residence` says;
    /// nothing where that is system memory.
    pub(super) fn new(pages: &Range<usize>, residence: Residence) -> Option<Self> {
        let kind = match residence {
            Residence::System => return None,
            Residence::Away { device, frame, exclusive } => {
                let exclusive = if exclusive { EXCLUSIVE } else { 0 };
                u64::from(frame.0) << FRAME | u64::from(device.0) << DEVICE | exclusive
            }
            Residence::Mapped { device, frame } => {
                u64::from(frame.0) << FRAME | u64::from(device.0) << DEVICE | MAPPED
            }
        };
        Some(Self::of(kind, pages))
    }

    /// The run of `pages` with the bits of `kind` below the length.
    const fn of(kind: u64, pages: &Range<usize>) -> Self {
        let less_one = (pages.end - pages.start - 1) as u64;
        Self(kind | less_one << LEN | (pages.start as u64) << START)
    }

    /// The bits below the length: where the first page is.
    const fn kind(self) -> u64 {
        self.0 & ((1 << LEN) - 1)
    }

    /// The bits below the length of the part from `place` on, or of what goes on at the end.
    const fn kind_from(self, place: usize) -> u64 {
        self.kind() + (((place - self.start()) as u64) << FRAME)
    }

    /// The place of the first page.
    pub(super) const fn start(self) -> usize {
        (self.0 >> START) as usize
    }

    /// The place behind the last page.
    pub(super) const fn end(self) -> usize {
        self.start() + (self.0 >> LEN & ((1 << PLACE_BITS) - 1)) as usize + 1
    }

    /// Where the page at `place`, which is inside, is.
    pub(super) const fn residence(self, place: usize) -> Residence {
        let kind = self.kind_from(place);
        let device = DeviceIndex((kind >> DEVICE & 0xf) as u8);
        let frame = FrameNumber((kind >> FRAME & 0xffff_ffff) as u32);
        if kind & MAPPED != 0 {
            Residence::Mapped { device, frame }
        } else {
            Residence::Away { device, frame, exclusive: kind & EXCLUSIVE != 0 }
        }
    }

    /// The part of it that `pages` are, which are not none and inside.
    pub(super) const fn part(self, pages: &Range<usize>) -> Self {
        Self::of(self.kind_from(pages.start), pages)
    }

    /// Whether `next` goes on where it ends, as one run.
    pub(super) const fn goes_on_in(self, next: Self) -> bool {
        self.end() == next.start() && self.kind_from(next.start()) == next.kind()
    }

    /// It and the run in which it goes on, as one.
    pub(super) const fn and(self, next: Self) -> Self {
        Self::of(self.kind(), &(self.start()..next.end()))
    }
}

impl fmt::Debug for PackedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.start()..self.end(), self.residence(self.start()))
    }
}
