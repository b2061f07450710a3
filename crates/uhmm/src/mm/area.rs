//! Areas of the address space, as the system has them.

use crate::units::PageRange;

/// What may be done with the pages of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Execution is allowed.
    pub execute: bool,
}

/// What stands behind an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Private anonymous memory: heaps, most of what a program allocates.
    PrivateAnonymous,
    /// Anonymous memory shared with children, System V and POSIX shared memory without a name.
    SharedAnonymous,
    /// A private mapping of a file.
    PrivateFile,
    /// A shared mapping of a file, tmpfs and memfd included.
    SharedFile,
    /// Pages of a hugetlb pool, of the process's own once they are written.
    PrivateHugetlb,
    /// Pages of a hugetlb pool, of a file that others may map too.
    SharedHugetlb,
    /// The kernel's own or a driver's: vdso, devices, rings.
    Special,
}

impl Backing {
    /// Whether the pages are shared memory or a file's, also once they are written.
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::SharedAnonymous | Self::SharedFile | Self::SharedHugetlb)
    }

    /// Whether the pages are a pool's, larger than base pages, and only ever whole.
    pub(crate) const fn is_of_pool(self) -> bool {
        matches!(self, Self::PrivateHugetlb | Self::SharedHugetlb)
    }

    /// Pages of a hugetlb pool, shared or not.
    pub(crate) const fn of_pool(shared: bool) -> Self {
        if shared { Self::SharedHugetlb } else { Self::PrivateHugetlb }
    }
}

/// A run of addresses with one protection and one kind of backing, as the system sees it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts that the system reports")]
pub struct Area {
    /// Its pages.
    pub pages: PageRange,
    /// What may be done with them.
    pub protection: Protection,
    /// What stands behind them.
    pub backing: Backing,
    /// A stack: of the main thread, or mapped for a thread and holding its control block.
    pub stack: bool,
    /// Locked into memory by `mlock`.
    pub locked: bool,
    /// Registered with a userfaultfd, ours or another.
    pub registered: bool,
    /// Directly behind a writable mapping of a file: the zero-initialised data of a loaded object.
    pub object_data: bool,
    /// Children have it too.
    pub inherited: bool,
    /// The system makes huge pages there on first touch, where it has some.
    pub huge: bool,
}

/// An area as a lookup of one page tells it: less than [`Area`] does, and fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its pages.
    pub pages: PageRange,
    /// What may be done with them.
    pub protection: Protection,
    /// What stands behind them.
    pub backing: Backing,
    /// The size of its pages, as the power of two of base pages in each: 0 but for
    /// pages of a pool ([`Backing::PrivateHugetlb`], [`Backing::SharedHugetlb`]), which are populated, watched and unmapped whole. With base pages
    /// of 4 KiB, 9 is 2 MiB and 18 is 1 GiB.
    pub page_order: u8,
}

/// Why pages of an area may never leave main memory, whatever the area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusion {
    /// They hold a thread's control block, into which the kernel writes as the thread ends.
    ThreadControlBlock,
    /// They hold writable data of a loaded object, the runtime's own among it.
    ObjectData,
    /// They are a stack of the thread that asks: its own, or the one that its signal handlers run on.
    Stack,
}
