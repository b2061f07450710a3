//! The interface: numbers and bytes, as the kernel's header has them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a call is given and answers.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Command {
    /// The first address of the range that the device works on.
    pub address: u64,
    /// Where data is copied to or from.
    pub data: u64,
    /// The length of the range in pages.
    pub pages: u64,
    /// Answered: how many pages were dealt with.
    pub done: u64,
    /// Answered: how often the device faulted.
    pub faults: u64,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Function {
    /// The device reads the range through its page table, and faults what it has no entry of.
    Read,
    /// The device writes the range through its page table, and faults what it has no entry of.
    Write,
    /// The range goes to the device's memory; then what the device has is copied out.
    MigrateToDevice,
    /// What of the range is in the device's memory goes back to the system's.
    MigrateToSystem,
    /// A byte for each page says what the device would see. Nothing is faulted.
    Snapshot,
    /// The range becomes exclusive to the device; then it is copied out.
    Exclusive,
    /// Whether no page of the range is exclusive to the device any more.
    CheckExclusive,
    /// All that is in the device's memory goes back to the system's.
    Release,
    /// The number of pages is flags. Bit 0: the next large allocation fails, once.
    Flags,
}

/// `_IOWR('H', 0, struct hmm_dmirror_cmd)`: a call that reads and writes a structure, by its type and length.
const FIRST: u64 = 3 << 30 | (size_of::<Command>() as u64) << 16 | (b'H' as u64) << 8;

impl Function {
    const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::MigrateToDevice,
        Self::MigrateToSystem,
        Self::Snapshot,
        Self::Exclusive,
        Self::CheckExclusive,
        Self::Release,
        Self::Flags,
    ];

    /// What the request of an `ioctl` asks for; `None` where the device has no such call.
    pub fn of_request(request: u64) -> Option<Self> {
        // The kernel looks at no more of it.
        let number = (request & u64::from(u32::MAX)).checked_sub(FIRST)?;
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// The request by which an `ioctl` asks for it.
    pub fn request(self) -> u64 {
        let number = Self::ALL.iter().take_while(|&&other| other != self).count();
        FIRST + number as u64
    }
}

/// The bytes of a snapshot: one of a page's places, with what may be done, and the size of the entry that
/// maps it.
pub mod seen {
    /// Nothing can be there, or it may not be accessed.
    pub const ERROR: u8 = 0xff;
    /// Nothing is there that the device could map as it is.
    pub const NONE: u8 = 0x00;
    /// The device can read it.
    pub const READ: u8 = 0x01;
    /// The device can write it.
    pub const WRITE: u8 = 0x02;
    /// An entry of 2 MiB maps it.
    pub const ENTRY_2M: u8 = 0x04;
    /// An entry of 1 GiB maps it.
    pub const ENTRY_1G: u8 = 0x08;
    /// It is the page of zeros.
    pub const ZERO: u8 = 0x10;
    /// It is in the private memory of this device.
    pub const PRIVATE_OWN: u8 = 0x20;
    /// It is in the coherent memory of this device, which the CPU maps too.
    pub const COHERENT_OWN: u8 = 0x40;
    /// It is in the coherent memory of another device.
    pub const COHERENT_OTHER: u8 = 0x50;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_kernels_header() {
        assert_eq!(Function::Read.request(), 0xc028_4800);
        assert_eq!(Function::Release.request(), 0xc028_4807);
        assert_eq!(Function::Flags.request(), 0xc028_4808);
        for function in Function::ALL {
            assert_eq!(Function::of_request(function.request()), Some(function));
        }
    }

    #[test]
    fn other_requests_are_none() {
        for request in
            [0, 0xc028_4799, 0xc028_4809, 0xc020_4800, 0x4028_4800, 0xc028_4700, u64::MAX]
        {
            assert_eq!(Function::of_request(request), None, "{request:#x}");
        }
        // As of the kernel, where a request has 32 bits.
        assert_eq!(Function::of_request(0xffff_ffff_c028_4800), Some(Function::Read));
    }
}
