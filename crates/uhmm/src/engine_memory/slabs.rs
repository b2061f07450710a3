//! Small objects: pages cut into objects of one size.
//!
//! Sizes are multiples of 8 up to 2 KiB, so that the records of blocks take no more than they hold,
//! then four for every doubling, up to half a page. An object that is free holds the index of the
//! next free one of its page in its first two bytes.

use core::ptr::NonNull;

use super::pages::{Kind, NONE, Page, Pages, Refusal};

/// The largest page whose half is a class, as a power of two.
const MOST_LOG: usize = 16;

/// Up to two to this power, sizes are multiples of 8.
const FINE_LOG: usize = 11;

const FINE_CLASSES: usize = (1 << FINE_LOG) / 8;

const CLASSES: usize = FINE_CLASSES + (MOST_LOG - 1 - FINE_LOG) * 4;

/// The smallest class whose objects have `size` bytes, which are not none.
const fn class_of(size: usize) -> usize {
    if size <= 1 << FINE_LOG {
        return (size - 1) / 8;
    }
    let log = (size - 1).ilog2() as usize;
    FINE_CLASSES + (log - FINE_LOG) * 4 + (((size - 1) >> (log - 2)) & 3)
}

/// The size of the objects of a class.
const fn class_bytes(class: usize) -> usize {
    if class < FINE_CLASSES {
        return (class + 1) * 8;
    }
    let log = FINE_LOG + (class - FINE_CLASSES) / 4;
    (1 << log) + (((class - FINE_CLASSES) % 4 + 1) << (log - 2))
}

/// The class for `size` bytes aligned to `align`, where such objects are small on pages of `page`
/// bytes.
pub(super) fn class_for(size: usize, align: usize, page: usize) -> Option<usize> {
    let wanted = size.max(align);
    if wanted > page / 2 || wanted > 1 << (MOST_LOG - 1) {
        return None;
    }
    // Every power of two is the size of a class, so the search ends there at the latest.
    (class_of(wanted)..CLASSES).find(|&class| class_bytes(class).is_multiple_of(align))
}

/// The size of an object of the class that [`class_for`] chose.
pub(super) fn object_bytes(class: usize) -> usize {
    class_bytes(class)
}

/// A small object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub(super) address: NonNull<u8>,
    pub(super) bytes: usize,
    pub(super) zero: bool,
}

/// The slabs that have room, a list for every class.
///
/// # Invariants
/// On the list of a class are exactly the slabs of that class that have a free object. A slab has
/// an object in use.
#[derive(Debug)]
pub(super) struct Slabs {
    partial: [u32; CLASSES],
}

impl Slabs {
    pub(super) const fn new() -> Self {
        Self { partial: [NONE; CLASSES] }
    }

    /// Hands out an object of a class.
    pub(super) fn take(
        &mut self,
        pages: &mut Pages,
        class: usize,
        urgent: bool,
    ) -> Result<Object, Refusal> {
        let bytes = class_bytes(class);
        let capacity = pages.page_size().bytes() / bytes;
        let slab = match self.partial[class] {
            NONE => {
                let (slab, zero) = pages.take(1, 1, urgent)?;
                *pages.at(slab) = Page {
                    kind: Kind::Slab,
                    class: u16::try_from(class).unwrap_or(u16::MAX),
                    zero,
                    used: 0,
                    fresh: 0,
                    free: 0,
                    len: 1,
                    prev: NONE,
                    next: NONE,
                };
                self.link(pages, slab, class);
                slab
            }
            slab => slab,
        };
        let base = pages.address(slab);
        let entry = pages.at(slab);
        let (index, zero) = if let Some(index) = entry.free.checked_sub(1) {
            // SAFETY: the object is in the slab, and free: it holds the two bytes that were stored
            // when it was given back.
            entry.free = unsafe { base.add(usize::from(index) * bytes).cast::<u16>().read() };
            (index, false)
        } else {
            entry.fresh += 1;
            (entry.fresh - 1, entry.zero)
        };
        entry.used += 1;
        if usize::from(entry.used) == capacity {
            self.unlink(pages, slab, class);
        }
        // SAFETY: the index is below the number of objects that fit the page.
        Ok(Object { address: unsafe { base.add(usize::from(index) * bytes) }, bytes, zero })
    }

    /// Takes the object at `address`, in the slab `slab`, back and returns its size.
    ///
    /// # Safety
    /// It was handed out, and nobody uses it.
    pub(super) unsafe fn give(
        &mut self,
        pages: &mut Pages,
        slab: u32,
        address: NonNull<u8>,
    ) -> usize {
        let base = pages.address(slab);
        let entry = pages.at(slab);
        let class = usize::from(entry.class);
        let bytes = class_bytes(class);
        let offset = address.addr().get() - base.addr().get();
        let index = u16::try_from(offset / bytes).unwrap_or(u16::MAX);
        if !offset.is_multiple_of(bytes) || index >= entry.fresh || entry.used == 0 {
            crate::abort::abort(b"an address that engine memory did not hand out was given back");
        }
        // SAFETY: by the contract nobody uses the object, which has 8 bytes or more. The pointer
        // comes from the backing's, so that it may reach all of the page.
        unsafe { base.add(offset).cast::<u16>().write(entry.free) };
        entry.free = index + 1;
        let full = usize::from(entry.used) == pages.page_size().bytes() / bytes;
        let entry = pages.at(slab);
        entry.used -= 1;
        let empty = entry.used == 0;
        match (full, empty) {
            (true, false) => self.link(pages, slab, class),
            (false, true) => self.unlink(pages, slab, class),
            _ => {}
        }
        if empty {
            pages.give(slab, false);
        }
        bytes
    }

    fn link(&mut self, pages: &mut Pages, slab: u32, class: usize) {
        let next = self.partial[class];
        let entry = pages.at(slab);
        entry.prev = NONE;
        entry.next = next;
        if next != NONE {
            pages.at(next).prev = slab;
        }
        self.partial[class] = slab;
    }

    fn unlink(&mut self, pages: &mut Pages, slab: u32, class: usize) {
        let &mut Page { prev, next, .. } = pages.at(slab);
        if next != NONE {
            pages.at(next).prev = prev;
        }
        if prev == NONE {
            self.partial[class] = next;
        } else {
            pages.at(prev).next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLASSES, class_bytes, class_for, class_of};

    #[test]
    fn classes_hold_what_they_say() {
        for size in (1..=32768).step_by(if cfg!(miri) { 31 } else { 1 }) {
            let class = class_of(size);
            assert!(class < CLASSES && class_bytes(class) >= size);
            assert!(class == 0 || class_bytes(class - 1) < size);
        }
        for align in [1, 16, 64, 1024, 2048] {
            for size in (1..=2048).step_by(13) {
                let class = class_for(size, align, 4096).unwrap();
                let bytes = class_bytes(class);
                assert!(bytes >= size && bytes <= 2048 && bytes.is_multiple_of(align));
            }
        }
        assert_eq!(class_for(2049, 1, 4096), None);
        assert_eq!(class_for(1, 4096, 4096), None);
    }
}
