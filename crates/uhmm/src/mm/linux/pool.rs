//! Shared memory of a hugetlb pool: its alias, and the end of the program's mapping of it.
//!
//! `mremap` makes no second mapping of such memory, so an alias is mapped by the file. That is reached by the
//! link that stands for the program's mapping, which takes `CAP_CHECKPOINT_RESTORE` to follow
//! (`proc_pid_map_files(5)`), or else by a descriptor of it that the program has.
//!
//! The kernel pages nothing of a pool out. What ends the program's mapping is `MADV_DONTNEED`: of shared memory
//! it drops no content, of whatever else lies at the address by then it does. So that is for who knows that
//! nothing else does.

use core::{ffi::c_int, mem::MaybeUninit};

use rustix::{
    fd::{AsFd, FromRawFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno as E,
    mm::{Advice, MapFlags, ProtFlags},
};

use super::{Linux, abi, exclusions, file_end, shared};
use crate::units::{PageNumber, PageRange};

impl Linux {
    /// Whether `page` is in an area of a pool.
    pub(super) fn is_of_pool(&self, page: PageNumber) -> bool {
        self.areas.at(page).ok().flatten().is_some_and(|mapping| mapping.backing.is_of_pool())
    }

    /// Maps shared memory of a pool a second time; see `Mm::alias`.
    ///
    /// # Safety
    /// As of `Mm::alias`.
    pub(super) unsafe fn map_alias_by_file(
        &self,
        pages: PageRange,
        at: PageNumber,
    ) -> Result<(), E> {
        let query = self.areas.ask(pages.start(), 0, &mut [])?;
        let file = file_of(&query)?;
        let (start, len) = self.bytes(pages);
        let offset = abi::word(start) - query.start + query.offset;
        let end = offset + abi::word(len);
        // To map more of a file than there is would make it longer.
        if u64::try_from(rustix::fs::fstat(&file)?.st_size).is_ok_and(|size| size < end) {
            return Err(E::NXIO);
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // What the program has set aside for the file there is for it, whoever maps it.
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the addresses at `at` are reserved for that.
        let mapped = unsafe {
            rustix::mm::mmap(self.pointer(at), len, access, flags, file.as_fd(), offset).map(drop)
        };
        mapped.inspect_err(|_| {
            // SAFETY: as above. What could not be mapped may have ended the reservation.
            let _ = unsafe { shared::unmap(self.page, PageRange::of(at, pages.len())) };
        })
    }

    /// `Mm::vacate_undisturbed`
    ///
    /// # Safety
    /// As of `Mm::vacate_undisturbed`.
    pub(super) unsafe fn end_view(&self, pages: PageRange) -> Result<(), E> {
        let (_, len) = self.bytes(pages);
        rustix::io::retry_on_intr(|| {
            // SAFETY: the caller's promise: the pages are of shared memory, whose content stays in its file.
            unsafe { rustix::mm::madvise(self.pointer(pages.start()), len, Advice::LinuxDontNeed) }
        })
    }
}

/// The file behind an area, to be read and written.
///
/// Closing it ends the record locks that this process has on the file (`fcntl_locking(2)`).
fn file_of(query: &abi::AreaQuery) -> Result<OwnedFd, E> {
    let mut link = [0; file_end::LINK];
    let link = file_end::link_of(query, &mut link).ok_or(E::INVAL)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::io::retry_on_intr(|| rustix::fs::open(link, flags, Mode::empty())) {
        // The area may be another's by now.
        Ok(file) if is_of(&rustix::fs::fstat(&file)?, query) => Ok(file),
        Ok(_) => Err(E::FAULT),
        Err(_) => descriptor_of(query),
    }
}

fn is_of(status: &rustix::fs::Stat, query: &abi::AreaQuery) -> bool {
    let device = [rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev)];
    status.st_ino == query.inode && device == query.device
}

/// A copy of a descriptor that the program has of the file behind an area; `EPERM` where it has none.
fn descriptor_of(query: &abi::AreaQuery) -> Result<OwnedFd, E> {
    let found = exclusions::find_number(c"/proc/self/fd", |number| {
        // Others are not copied, as closing the copy would end record locks on them.
        if is_descriptor_of(number, query)
            && let Some(copy) = copy_of(number)
            && is_of(&rustix::fs::fstat(&copy)?, query)
            && rustix::fs::fcntl_getfl(&copy)?.contains(OFlags::RDWR)
        {
            return Ok(Some(copy));
        }
        Ok(None)
    })?;
    found.ok_or(E::PERM)
}

/// Whether the descriptor of this number, if there is one, is of the file behind an area.
fn is_descriptor_of(number: c_int, query: &abi::AreaQuery) -> bool {
    let mut status = MaybeUninit::<rustix::fs::Stat>::uninit();
    // SAFETY: the call writes the structure, or fails.
    let asked = unsafe { libc::fstat(number, status.as_mut_ptr().cast()) };
    // SAFETY: it was written.
    asked == 0 && is_of(unsafe { status.assume_init_ref() }, query)
}

/// A copy of the descriptor of this number, which the program may close meanwhile.
fn copy_of(number: c_int) -> Option<OwnedFd> {
    // SAFETY: the call makes a new descriptor, and does nothing to the old one.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    // SAFETY: the kernel made it for us just now, nobody else has it.
    (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
}
