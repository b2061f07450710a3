//! Children: which areas they get, and their holes filled through the descriptors of their memory.
//!
//! Reading the message of a fork makes a descriptor of the child's memory, through which its holes are
//! filled. The child does not run meanwhile: [`forks`](super::forks) says how that is.

use core::{
    ptr,
    sync::atomic::{
        AtomicI32,
        Ordering::{AcqRel, Relaxed},
    },
};

use rustix::{
    event::EventfdFlags,
    fd::{FromRawFd, IntoRawFd, OwnedFd},
    io::Errno as E,
    mm::Advice,
};

use super::{Linux, descriptor::of_child};
use crate::{
    mm::{Child, Done, Stop},
    units::PageNumber,
};

/// Gives children from now on the areas in a range, or keeps them from those.
pub(super) fn set_inherited(start: usize, len: usize, inherited: bool) -> Result<(), E> {
    let advice = if inherited { Advice::LinuxDoFork } else { Advice::LinuxDontFork };
    loop {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: this process's memory does not change by it.
        match unsafe { rustix::mm::madvise(start, len, advice) } {
            Err(E::INTR) => {}
            result => return result,
        }
    }
}

impl Linux {
    /// Fills holes of a child with copies of the pages from `from` on, or with marks where there is
    /// none.
    ///
    /// # Safety
    /// The child is one that was told, and was not ended.
    pub(super) unsafe fn fill_child(
        &self,
        child: Child,
        from: Option<PageNumber>,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        // SAFETY: the caller's promise.
        let descriptor = unsafe { of_child(child.number()) };
        let mut done = 0;
        let mut asked = pages;
        while done < pages {
            let target = self.page.address_of(to.plus(done));
            let len = self.page.bytes_in(asked);
            let reply = match from {
                Some(from) => descriptor.copy(target, self.page.address_of(from.plus(done)), len),
                None => descriptor.poison(target, len),
            };
            let did = match reply.error {
                None => asked,
                Some(_) => self.page.page_of(reply.bytes).0.min(asked),
            };
            done += did;
            if did > 0 {
                asked = pages - done;
                continue;
            }
            let stop = match reply.error.unwrap_or(E::IO) {
                // It passes: the kernel met a page table in the making.
                E::AGAIN => continue,
                // The pages may lie in several areas, some of which are fine.
                E::NOENT | E::INVAL if asked > 1 => {
                    asked /= 2;
                    continue;
                }
                E::EXIST => Stop::Present,
                E::NOENT => Stop::NoArea,
                E::INVAL => Stop::Refused,
                E::NOMEM | E::NOSPC => Stop::NoMemory,
                error => Stop::Other(error.into()),
            };
            return Done { pages: done, stop: Some(stop) };
        }
        Done { pages, stop: None }
    }
}

/// A descriptor that is given up where there is none left for a child's: reading the message of a
/// fork makes one, and until it is read the fork waits, and no page moves.
#[derive(Debug)]
pub(super) struct Spare(AtomicI32);

const NONE: i32 = -1;

impl Default for Spare {
    fn default() -> Self {
        Self(AtomicI32::new(NONE))
    }
}

impl Spare {
    /// Closes the descriptor, so that there is room for another. Answers whether there was one.
    pub(super) fn give_up(&self) -> bool {
        self.take().is_some()
    }

    /// Opens it again, if it was given up and there is room.
    pub(super) fn refill(&self) {
        if self.0.load(Relaxed) != NONE {
            return;
        }
        let Ok(file) = rustix::event::eventfd(0, EventfdFlags::CLOEXEC) else { return };
        let before = self.0.swap(file.into_raw_fd(), AcqRel);
        drop(Self::owned(before));
    }

    fn take(&self) -> Option<OwnedFd> {
        Self::owned(self.0.swap(NONE, AcqRel))
    }

    fn owned(number: i32) -> Option<OwnedFd> {
        // SAFETY: the number was put here by who owned the descriptor, and who swaps it out is alone
        // in having it.
        (number != NONE).then(|| unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        drop(self.take());
    }
}
