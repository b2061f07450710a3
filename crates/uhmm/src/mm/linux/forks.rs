//! Forks that are told, and how one is held until its child is filled.
//!
//! A fork tells each descriptor that has a registered area which the child gets, one after the other, in
//! the order of the first such areas by address, and waits until each was read. The child runs when the
//! last was (`kernel/fork.c`, `dup_mmap`; `fs/userfaultfd.c`, `dup_userfaultfd_complete`). So there is a
//! second descriptor, the *hold*, with one page that lies directly behind a page of the first. A fork
//! tells the first, which is read at once and gives us the child's memory; then it tells the hold, and
//! that is not read before the child is filled.
//!
//! Nobody sees a child that is not filled: it does not run, and where this process ends meanwhile, by
//! whatever, the kernel gives the fork up, as a thread that waits in one and is to die makes no child.

use core::{
    ptr,
    sync::atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::{
    abi::REGISTER_MISSING, children::Spare, descriptor::Descriptor, messages, staging::unmap_pages,
};
use crate::{
    mm::{Child, Errno, Message},
    sync::yield_now,
    units::{PageRange, PageSize},
};

/// What holds forks.
#[derive(Debug)]
pub(super) struct Forks {
    hold: Descriptor,
    /// A page of the first descriptor's and one of the hold's, with one without access before and
    /// behind them, so that they join no area of the program. Nobody touches them.
    pages: PageRange,
    page: PageSize,
    /// How many forks were read whose children are not filled.
    unfilled: AtomicUsize,
}

impl Forks {
    /// What will hold forks by `hold`, which has agreed on being told of them.
    pub(super) fn new(hold: Descriptor, page: PageSize) -> Result<Self, Errno> {
        let len = page.bytes_in(4);
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            let flags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
            rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)?
        };
        let pages = PageRange::of(page.page_of(start.expose_provenance()), 4);
        let forks = Self { hold, pages, page, unfilled: AtomicUsize::new(0) };
        let [of_first, _] = forks.addresses();
        let pointer = ptr::with_exposed_provenance_mut(of_first);
        // SAFETY: the two pages in the middle of the new mapping, which nobody knows of.
        unsafe { rustix::mm::mprotect(pointer, page.bytes_in(2), MprotectFlags::READ)? };
        Ok(forks)
    }

    /// Has forks told from now on, to `first`, and held. They wait until they are read.
    pub(super) fn tell(&self, first: &Descriptor) -> Result<(), Errno> {
        let [of_first, of_hold] = self.addresses();
        first.register(of_first, self.page.bytes(), REGISTER_MISSING)?;
        self.hold.register(of_hold, self.page.bytes(), REGISTER_MISSING)?;
        Ok(())
    }

    /// Has no fork told from now on.
    fn untell(&self, first: &Descriptor) {
        let [of_first, of_hold] = self.addresses();
        let _ = first.unregister(of_first, self.page.bytes());
        let _ = self.hold.unregister(of_hold, self.page.bytes());
    }

    /// Has no fork told any more, and waits until those have gone on that were: others read them. Nothing
    /// else is registered that children get. A fork is noted in the same hold of the kernel's lock in which
    /// the areas are copied, so one that is not noted by now is not told.
    pub(super) fn stop(&self, first: &Descriptor) {
        self.untell(first);
        while first.changing() || self.hold.changing() {
            yield_now();
        }
    }

    /// The page of the first descriptor, and that of the hold.
    fn addresses(&self) -> [usize; 2] {
        [1, 2].map(|place| self.page.address_of(self.pages.start().plus(place)))
    }

    /// Whether a fork is under way: the kernel notes it as it copies areas, until it was read at the hold.
    pub(super) fn under_way(&self) -> bool {
        self.hold.changing()
    }

    /// Messages were read.
    pub(super) fn note(&self, messages: &[Message]) {
        let forks = messages.iter().filter(|message| matches!(message, Message::Forked(_))).count();
        self.unfilled.fetch_add(forks, AcqRel);
    }

    /// A child is filled.
    pub(super) fn child_ended(&self) {
        self.unfilled.fetch_sub(1, AcqRel);
    }

    /// The hold, where forks that wait there may go on. Which fork is told is not said, so none may while
    /// a child is not filled.
    pub(super) fn hold_to_read(&self) -> Option<&Descriptor> {
        (self.unfilled.load(Acquire) == 0).then_some(&self.hold)
    }

    /// Lets the forks go on that wait. By who reads the messages, while all children are filled. Answers
    /// false where they cannot, as no descriptor is left.
    pub(super) fn let_go(&self, spare: &Spare) -> bool {
        let mut told = [Message::Discarded(PageRange::default()); 8];
        loop {
            let count = messages::read(&self.hold, self.page, None, spare, &mut told);
            for message in &told[..count] {
                if let Message::Forked(child) = *message {
                    // SAFETY: it was told just now, and nobody else knows of it.
                    unsafe { close(child) };
                }
            }
            spare.refill();
            if count == 0 {
                return !messages::is_readable(&self.hold);
            }
        }
    }

    /// As `stop`, where nobody else reads any more, and nothing is away. To close the descriptors does not do it: a child has them too, from before it is told.
    pub(super) fn end(&self, first: &Descriptor, spare: &Spare) {
        self.untell(first);
        while first.changing() || self.hold.changing() {
            let mut told = [Message::Discarded(PageRange::default()); 8];
            let count = messages::read(first, self.page, None, spare, &mut told);
            for message in &told[..count] {
                if let Message::Forked(child) = *message {
                    // SAFETY: as above.
                    unsafe { close(child) };
                }
            }
            self.let_go(spare);
            yield_now();
        }
    }
}

impl Drop for Forks {
    fn drop(&mut self) {
        // It is not registered any more, or the hold alone is, which is not told of unmappings.
        // SAFETY: our own mapping, which nobody touches.
        let _ = unsafe { unmap_pages(self.page, self.pages) };
    }
}

/// Closes the descriptor of a child's memory.
///
/// # Safety
/// The child is one that was told, was not closed, and is not used any more.
pub(super) unsafe fn close(child: Child) {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { super::descriptor::of_child(child.number()) };
    drop(core::mem::ManuallyDrop::into_inner(descriptor));
}
