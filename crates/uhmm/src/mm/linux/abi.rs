//! Structures and numbers of the kernel's interface, as this back end uses them.
//!
//! Sources: `include/uapi/linux/userfaultfd.h` and `include/uapi/linux/fs.h` of Linux 6.8; man
//! pages `ioctl_userfaultfd(2)`, `userfaultfd(2)`, `PAGEMAP_SCAN(2const)`. Sizes and offsets are
//! checked below at compile time; the opcodes hold the sizes too, so that a wrong one is refused by
//! the kernel and not misread.

use core::mem::offset_of;

use rustix::ioctl::{Opcode, opcode};

const _: () = assert!(usize::BITS == 64, "addresses travel as 64-bit words");

/// A number of bytes, or an address, as the kernel's structures hold it.
pub(super) const fn word(bytes: usize) -> u64 {
    bytes as u64
}

/// A number of bytes, or an address, out of a structure of the kernel.
#[expect(clippy::cast_possible_truncation, reason = "a word of memory has 64 bits, see above")]
pub(super) const fn bytes(word: u64) -> usize {
    word as usize
}

/// The group of all userfaultfd opcodes.
const GROUP: u8 = 0xAA;

/// On `/dev/userfaultfd`: a new descriptor, with the flags as the argument.
pub(super) const NEW: Opcode = opcode::none(GROUP, 0x00);
/// Agrees on the features.
pub(super) const API: Opcode = opcode::read_write::<Api>(GROUP, 0x3F);
/// Registers a range.
pub(super) const REGISTER: Opcode = opcode::read_write::<Register>(GROUP, 0x00);
/// Ends the registration of a range.
pub(super) const UNREGISTER: Opcode = opcode::read::<Range>(GROUP, 0x01);
/// Wakes who waits on a range.
pub(super) const WAKE: Opcode = opcode::read::<Range>(GROUP, 0x02);
/// Fills holes with copies.
pub(super) const COPY: Opcode = opcode::read_write::<Copy>(GROUP, 0x03);
/// Fills holes with the shared page of zeros.
pub(super) const ZEROPAGE: Opcode = opcode::read_write::<Fill>(GROUP, 0x04);
/// Fills holes with pages taken from elsewhere.
pub(super) const MOVE: Opcode = opcode::read_write::<Copy>(GROUP, 0x05);
/// Fills holes with marks that end accesses.
pub(super) const POISON: Opcode = opcode::read_write::<Fill>(GROUP, 0x08);
/// Maps what the file has at holes of shared memory. Linux 5.14.
pub(super) const CONTINUE: Opcode = opcode::read_write::<Fill>(GROUP, 0x07);
/// On a pagemap file: finds pages by their state.
pub(super) const PAGEMAP_SCAN: Opcode = opcode::read_write::<Scan>(b'f', 16);
/// On a maps file: finds the area at an address. Linux 6.11.
pub(super) const PROCMAP_QUERY: Opcode = opcode::read_write::<AreaQuery>(b'f', 17);

/// The version of the interface, the same since Linux 4.3.
pub(super) const API_VERSION: u64 = 0xAA;
/// Flag of a new descriptor: faults of system calls are not for it. No privilege is needed then.
pub(super) const USER_MODE_ONLY: u32 = 1;
/// Registration mode: faults on holes.
pub(super) const REGISTER_MISSING: u64 = 1;
/// Registration mode: faults on pages that are write-protected by the descriptor. As none ever is,
/// it has nothing but events told.
pub(super) const REGISTER_WP: u64 = 2;
/// Registration mode: faults on pages of shared memory that the file has and that are not mapped.
pub(super) const REGISTER_MINOR: u64 = 4;
/// Flags of [`AreaQuery`]: what is asked for, and what an area is.
pub(super) mod area {
    /// Out: loads are allowed.
    pub(in super::super) const READABLE: u64 = 0x01;
    /// Out: stores are allowed.
    pub(in super::super) const WRITABLE: u64 = 0x02;
    /// Out: execution is allowed.
    pub(in super::super) const EXECUTABLE: u64 = 0x04;
    /// Out: stores are seen by who else maps it.
    pub(in super::super) const SHARED: u64 = 0x08;
    /// In: the area that holds the address, or else the next.
    pub(in super::super) const COVERING_OR_NEXT: u64 = 0x10;
}

/// Features of a descriptor, as bits of [`Api::features`].
pub(super) mod feature {
    /// Events of a fork. Only for who has `CAP_SYS_PTRACE`.
    pub(in super::super) const EVENT_FORK: u64 = 1 << 1;
    /// Events of a `mremap`.
    pub(in super::super) const EVENT_REMAP: u64 = 1 << 2;
    /// Events of `MADV_DONTNEED` and its like.
    pub(in super::super) const EVENT_REMOVE: u64 = 1 << 3;
    /// Holes of hugetlb areas.
    pub(in super::super) const MISSING_HUGETLBFS: u64 = 1 << 4;
    /// Holes of shared memory.
    pub(in super::super) const MISSING_SHMEM: u64 = 1 << 5;
    /// Events of `munmap`.
    pub(in super::super) const EVENT_UNMAP: u64 = 1 << 6;
    /// A fault names its thread.
    pub(in super::super) const THREAD_ID: u64 = 1 << 8;
    /// A fault names the byte touched.
    pub(in super::super) const EXACT_ADDRESS: u64 = 1 << 11;
    /// `UFFDIO_POISON`, Linux 6.6.
    pub(in super::super) const POISON: u64 = 1 << 14;
    /// Write protection that the kernel ends by itself, Linux 6.7: lets file areas register.
    pub(in super::super) const WP_ASYNC: u64 = 1 << 15;
    /// `UFFDIO_MOVE`, Linux 6.8.
    pub(in super::super) const MOVE: u64 = 1 << 16;
}

/// Kinds of messages.
pub(super) mod event {
    /// A thread waits on a hole.
    pub(in super::super) const PAGEFAULT: u8 = 0x12;
    /// The process was forked. Reading it makes a descriptor of the child's memory.
    pub(in super::super) const FORK: u8 = 0x13;
    /// Pages moved to other addresses.
    pub(in super::super) const REMAP: u8 = 0x14;
    /// Pages are about to be dropped.
    pub(in super::super) const REMOVE: u8 = 0x15;
    /// Pages were unmapped.
    pub(in super::super) const UNMAP: u8 = 0x16;
}

/// Bit of a fault's flags: it was a store.
pub(super) const PAGEFAULT_WRITE: u64 = 1;

/// States of a page, as bits of [`Region::categories`].
pub(super) mod category {
    /// It belongs to the page cache.
    pub(in super::super) const FILE: u64 = 1 << 2;
    /// It is mapped.
    pub(in super::super) const PRESENT: u64 = 1 << 3;
    /// It is in swap, on its way between places, or a mark.
    pub(in super::super) const SWAPPED: u64 = 1 << 4;
    /// It is the shared page of zeros.
    pub(in super::super) const ZERO: u64 = 1 << 5;
    /// It is part of a huge page.
    pub(in super::super) const HUGE: u64 = 1 << 6;
}

/// `struct uffdio_api`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Api {
    pub(super) version: u64,
    pub(super) features: u64,
    pub(super) calls: u64,
}

/// `struct uffdio_range`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// `struct uffdio_register`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub(super) range: Range,
    pub(super) mode: u64,
    pub(super) calls: u64,
}

/// `struct uffdio_copy` and `struct uffdio_move`, which are alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) to: u64,
    pub(super) from: u64,
    pub(super) len: u64,
    pub(super) mode: u64,
    /// Out: bytes done, or an error number below zero.
    pub(super) done: i64,
}

/// `struct uffdio_zeropage`, `struct uffdio_poison` and `struct uffdio_continue`, which are alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    pub(super) range: Range,
    pub(super) mode: u64,
    /// Out: bytes done, or an error number below zero.
    pub(super) done: i64,
}

/// `struct uffd_msg`, its union as the three words that every kind fits in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) kind: u8,
    pub(super) reserved: [u8; 7],
    pub(super) argument: [u64; 3],
}

/// `struct page_region`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) categories: u64,
}

/// Bits of an entry of the pagemap file (`Documentation/admin-guide/mm/pagemap.rst`).
pub(super) mod entry {
    /// Of a page that is not mapped: in swap, the kind and then the place.
    pub(in super::super) const FRAME: u64 = (1 << 55) - 1;
    /// It is mapped here alone.
    pub(in super::super) const EXCLUSIVE: u64 = 1 << 56;
    /// It is a guard: a mark that ends accesses. Linux 6.15; shown to everybody.
    pub(in super::super) const GUARD: u64 = 1 << 58;
    /// It belongs to the page cache.
    pub(in super::super) const FILE: u64 = 1 << 61;
    /// It is mapped.
    pub(in super::super) const PRESENT: u64 = 1 << 63;
}

/// `struct pm_scan_arg`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    /// Out: where the walk ended.
    pub(super) walk_end: u64,
    pub(super) regions: u64,
    pub(super) regions_len: u64,
    pub(super) max_pages: u64,
    pub(super) category_inverted: u64,
    pub(super) category_mask: u64,
    pub(super) category_anyof_mask: u64,
    pub(super) return_mask: u64,
}

/// `struct procmap_query`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AreaQuery {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) address: u64,
    /// Out: the first address of the area.
    pub(super) start: u64,
    /// Out: the address after its last.
    pub(super) end: u64,
    /// Out: what it is, as bits of [`area`].
    pub(super) kind: u64,
    /// Out: the size of its pages in bytes.
    pub(super) page_bytes: u64,
    /// Out: where in its file it starts.
    pub(super) offset: u64,
    /// Out: the file behind it; zero where there is none.
    pub(super) inode: u64,
    /// Out: the file's device, major and minor.
    pub(super) device: [u32; 2],
    /// In and out: bytes of the name, its end among them.
    pub(super) name_len: u32,
    pub(super) build_len: u32,
    pub(super) name: u64,
    pub(super) build: u64,
}

const _: () = {
    assert!(size_of::<Api>() == 24 && offset_of!(Api, calls) == 16);
    assert!(size_of::<Range>() == 16 && offset_of!(Range, len) == 8);
    assert!(size_of::<Register>() == 32 && offset_of!(Register, mode) == 16);
    assert!(size_of::<Copy>() == 40 && offset_of!(Copy, from) == 8);
    assert!(offset_of!(Copy, len) == 16 && offset_of!(Copy, done) == 32);
    assert!(size_of::<Fill>() == 32 && offset_of!(Fill, done) == 24);
    assert!(size_of::<Event>() == 32 && offset_of!(Event, argument) == 8);
    assert!(size_of::<Region>() == 24 && offset_of!(Region, categories) == 16);
    assert!(size_of::<Scan>() == 96 && offset_of!(Scan, walk_end) == 32);
    assert!(size_of::<AreaQuery>() == 104 && offset_of!(AreaQuery, start) == 24);
    assert!(offset_of!(AreaQuery, kind) == 40 && offset_of!(AreaQuery, inode) == 64);
    assert!(offset_of!(AreaQuery, name_len) == 80 && offset_of!(AreaQuery, name) == 88);
    assert!(offset_of!(Scan, max_pages) == 56 && offset_of!(Scan, return_mask) == 88);
};
