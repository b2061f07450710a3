//! The program's system calls: what maps, unmaps and changes areas.

use super::{
    BAD_ADDRESS, Held, INVALID, Model, NO_MEMORY, State,
    areas::{Attributes, Object},
    pages::PageState,
    world,
};
use crate::{
    mm::{Access, Backing, Errno, Message, Protection},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// What a test can say of areas beside what their mapping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A stack.
    Stack,
    /// Registered with a userfaultfd of somebody else.
    Foreign,
}

impl Model {
    /// Maps `pages` pages of zeros: at `at`, over what is there, or at the lowest free place.
    ///
    /// # Errors
    /// `EINVAL` for no pages or pages beyond the end of the address space, `ENOMEM` where there is
    /// no place.
    pub fn map(
        &self,
        at: Option<PageNumber>,
        pages: usize,
        protection: Protection,
        backing: Backing,
    ) -> Result<PageRange, Errno> {
        self.map_with(at, pages, Attributes::new(protection, backing))
    }

    /// Maps private zeros for a stack at `pages`, over what is there (`MAP_STACK`).
    ///
    /// # Errors
    /// As of [`map`](Self::map).
    pub fn map_stack(&self, pages: PageRange) -> Result<PageRange, Errno> {
        let protection = Protection { read: true, write: true, execute: false };
        let attributes = Attributes::new(protection, Backing::PrivateAnonymous);
        self.map_with(Some(pages.start()), pages.len(), Attributes { stack: true, ..attributes })
    }

    fn map_with(
        &self,
        at: Option<PageNumber>,
        pages: usize,
        mut attributes: Attributes,
    ) -> Result<PageRange, Errno> {
        let mut held = self.held();
        let range = self.place(&held, at, pages)?;
        let messages = Vec::from_iter(held.unmap(range));
        if attributes.backing != Backing::PrivateAnonymous {
            attributes.object = Some(Object { id: held.objects.len(), origin: range.start() });
            held.objects.push(usize::MAX);
        }
        held.areas.insert(range, attributes);
        drop(self.tell(held, &messages));
        Ok(range)
    }

    /// Unmaps `pages`. Waits until the message about it is read, where one of the areas was
    /// trapped or watched.
    ///
    /// # Errors
    /// `EINVAL` for no pages or pages beyond the end of the address space.
    pub fn unmap(&self, pages: PageRange) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let messages = Vec::from_iter(held.unmap(pages));
        drop(self.tell(held, &messages));
        Ok(())
    }

    /// Moves the pages of `from`, a part of one area, to `to`, over what is there, or to the lowest
    /// free place. With `keep` the old range stays mapped, all holes (`MREMAP_DONTUNMAP`).
    /// Waits until the messages about it are read.
    ///
    /// # Errors
    /// `EINVAL` where a range is empty, beyond the end, or overlaps the other, `EFAULT` where
    /// `from` is not within one area, `ENOMEM` where there is no place.
    pub fn remap(
        &self,
        from: PageRange,
        to: Option<PageNumber>,
        keep: bool,
    ) -> Result<PageRange, Errno> {
        self.move_area(from, from.len(), to, keep)
    }

    /// Moves the pages of `from` as [`remap`](Self::remap) and makes the area `pages` pages long
    /// there, as `realloc` has it done. The message names the old length.
    ///
    /// # Errors
    /// As of [`remap`](Self::remap), and `EINVAL` for fewer pages than there were.
    pub fn remap_and_grow(
        &self,
        from: PageRange,
        pages: usize,
        to: Option<PageNumber>,
    ) -> Result<PageRange, Errno> {
        self.move_area(from, pages, to, false)
    }

    fn move_area(
        &self,
        from: PageRange,
        pages: usize,
        to: Option<PageNumber>,
        keep: bool,
    ) -> Result<PageRange, Errno> {
        self.check(from)?;
        if pages < from.len() {
            return Err(INVALID);
        }
        let mut held = self.held();
        let source = held.areas.at(from.start()).copied().ok_or(BAD_ADDRESS)?;
        if !source.pages.covers(from) {
            return Err(BAD_ADDRESS);
        }
        let target = self.place(&held, to, pages)?;
        if target.overlaps(from) {
            return Err(INVALID);
        }
        let mut messages = Vec::from_iter(held.unmap(target));
        held.areas.insert(target, source.attributes.moved(from.start(), target.start()));
        let mut moved = 0;
        while moved < from.len() {
            let (old, new) = (from.start().plus(moved), target.start().plus(moved));
            moved += held.move_any(old, new, from.len() - moved);
        }
        if !keep {
            held.areas.remove(from);
        }
        if source.attributes.registered() {
            messages.push(Message::Remapped { from, to: target.start() });
            messages.extend((!keep).then_some(Message::Unmapped(from)));
        }
        drop(self.tell(held, &messages));
        Ok(target)
    }

    /// Makes the area that ends with `pages` longer, in place, until `pages` would be `len` pages.
    /// Raises no message; what is new is trapped or watched where the rest is.
    ///
    /// # Errors
    /// `EFAULT` where no area ends there, `ENOMEM` where what follows is in use or beyond the end.
    pub fn grow(&self, pages: PageRange, len: usize) -> Result<PageRange, Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let area = held.areas.at(pages.start()).copied().ok_or(BAD_ADDRESS)?;
        if area.pages.end() != pages.end() {
            return Err(BAD_ADDRESS);
        }
        let grown = PageRange::of(pages.start(), len.max(pages.len()));
        let more = PageRange::new(pages.end(), grown.end());
        if !more.is_empty() {
            let free = held.areas.gap_in(more) == Some(more);
            if !free || !self.shared.program.covers(more) {
                return Err(NO_MEMORY);
            }
            held.areas.insert(more, area.attributes);
        }
        Ok(grown)
    }

    /// Drops the content of `pages` (`MADV_DONTNEED`), area after area; of shared memory only the
    /// view would go, so there it stays. In a trapped or watched area the message comes first: the
    /// pages go after it was read, and from what is mapped there then.
    ///
    /// # Errors
    /// `EINVAL` at a locked or special area, with what precedes done; `ENOMEM` where a part is not
    /// mapped, with all else done.
    pub fn discard(&self, pages: PageRange) -> Result<(), Errno> {
        self.give_up(pages, true)
    }

    /// Says that the content of `pages` may be dropped (`MADV_FREE`), as [`discard`](Self::discard) is
    /// told. Pages that are there stay so here, with their content.
    ///
    /// # Errors
    /// As of [`discard`](Self::discard).
    pub fn free(&self, pages: PageRange) -> Result<(), Errno> {
        self.give_up(pages, false)
    }

    fn give_up(&self, pages: PageRange, drop_pages: bool) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let mut next = pages.start();
        let mut result = Ok(());
        while next < pages.end() {
            let rest = PageRange::new(next, pages.end());
            let Some(area) = held.areas.overlapping(rest).next().copied() else {
                return Err(NO_MEMORY);
            };
            if area.pages.start() > next {
                result = Err(NO_MEMORY);
            }
            if area.attributes.locked || area.attributes.backing == Backing::Special {
                return Err(INVALID);
            }
            let mut part = area.pages.intersection(rest);
            next = part.end();
            if area.attributes.registered() {
                held = self.tell(held, &[Message::Discarded(part)]);
                // What is there now is looked up again: anything can have happened meanwhile.
                let Some(area) = held.areas.at(part.start()).copied() else {
                    return Err(NO_MEMORY);
                };
                part = part.intersection(area.pages);
                next = part.end();
            }
            for page in part.pages() {
                // Of shared memory the file keeps what it has.
                let shared = area.attributes.shared() && held.pages.at(page) != PageState::Poison;
                if drop_pages && !shared {
                    held.pages.drop_page(page);
                }
            }
        }
        result
    }

    /// Makes the file or shared memory that is mapped at `page` `pages` pages long, counted from the
    /// page that was mapped first (`ftruncate`). What lies beyond goes from where it is mapped,
    /// private copies too, and accesses there end with [`Signal::Bus`](super::Signal::Bus); made
    /// longer again it is zeros. Raises no message and wakes nobody.
    ///
    /// # Errors
    /// `EINVAL` where no file and no shared memory is mapped at `page`.
    pub fn truncate(&self, page: PageNumber, pages: usize) -> Result<(), Errno> {
        let mut held = self.held();
        let object = held.areas.at(page).and_then(|area| area.attributes.object).ok_or(INVALID)?;
        held.objects[object.id] = pages;
        let beyond: Vec<_> = held
            .areas
            .overlapping(self.shared.program)
            .filter(|area| area.attributes.object.is_some_and(|other| other.id == object.id))
            .flat_map(|area| area.pages.pages().map(|page| (page, area.attributes)))
            .filter(|(page, attributes)| held.ends_before(attributes, *page))
            .map(|(page, _)| page)
            .collect();
        for page in beyond {
            held.pages.drop_of_file(page);
        }
        Ok(())
    }

    /// Takes `pages`, which lie in one mapping of a file or of shared memory, out of it
    /// (`fallocate` with `FALLOC_FL_PUNCH_HOLE`): they are zeros when they are touched next. Raises no message
    /// and wakes nobody.
    ///
    /// # Errors
    /// `EINVAL` where no such mapping is, or private pages of it.
    pub fn punch(&self, pages: PageRange) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let area = held.areas.at(pages.start()).copied().ok_or(INVALID)?;
        if !area.attributes.shared() || !area.pages.covers(pages) {
            return Err(INVALID);
        }
        for page in pages.pages() {
            held.pages.drop_of_file(page);
        }
        Ok(())
    }

    /// Changes the protection of `pages`. Raises no message and wakes nobody.
    ///
    /// # Errors
    /// `EINVAL` for no pages or pages beyond the end of the address space, `ENOMEM` where a part is
    /// not mapped, with what precedes it done.
    pub fn protect(&self, pages: PageRange, protection: Protection) -> Result<(), Errno> {
        self.change_until_gap(pages, |area| area.protection = protection)
    }

    /// Locks `pages` into memory and populates them.
    ///
    /// # Errors
    /// As of [`protect`](Self::protect) and [`pin`](Self::pin).
    pub fn lock(&self, pages: PageRange) -> Result<(), Errno> {
        self.change_until_gap(pages, |area| area.locked = true)?;
        for page in pages.pages() {
            let writable =
                self.held().areas.at(page).is_some_and(|area| {
                    area.attributes.protection.write && !area.attributes.shared()
                });
            let access = if writable { Access::Write } else { Access::Read };
            drop(self.touch(page, access)?);
        }
        Ok(())
    }

    /// Ends the locking of `pages`.
    ///
    /// # Errors
    /// As of [`protect`](Self::protect).
    pub fn unlock(&self, pages: PageRange) -> Result<(), Errno> {
        self.change_until_gap(pages, |area| area.locked = false)
    }

    /// Says of `pages` that they are so, or no longer.
    ///
    /// # Errors
    /// As of [`protect`](Self::protect).
    pub fn mark(&self, pages: PageRange, mark: Mark, on: bool) -> Result<(), Errno> {
        self.change_until_gap(pages, |area| match mark {
            Mark::Stack => area.stack = on,
            Mark::Foreign => area.foreign = on,
        })
    }

    fn change_until_gap(
        &self,
        pages: PageRange,
        change: impl FnMut(&mut Attributes),
    ) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let gap = held.areas.gap_in(pages);
        let end = gap.map_or(pages.end(), PageRange::start);
        held.change(PageRange::new(pages.start(), end), change);
        gap.map_or(Ok(()), |_| Err(NO_MEMORY))
    }

    /// Where `pages` pages go.
    fn place(
        &self,
        held: &Held<'_>,
        at: Option<PageNumber>,
        pages: usize,
    ) -> Result<PageRange, Errno> {
        match at {
            Some(at) => {
                let range = PageRange::of(at, pages);
                self.check(range).map(|()| range)
            }
            None if pages == 0 => Err(INVALID),
            None => held.areas.room(self.shared.program, pages, 1).ok_or(NO_MEMORY),
        }
    }

    /// Raises the messages, one after the other, each when the one before was read. To be called
    /// in the section that made the change, or before the change.
    pub(super) fn tell<'a>(&'a self, held: Held<'a>, messages: &[Message]) -> Held<'a> {
        let mut held = held;
        held.messages.begin_changes(messages.len());
        for &message in messages {
            if self.shared.loose {
                drop(held);
                held = world::lock(&self.shared.state);
            }
            let ticket = held.messages.post_change(message);
            self.shared.changed.notify_all();
            while held.messages.unread(ticket) {
                held = self.let_go(held);
            }
            held.messages.change_seen();
        }
        held
    }
}

impl State {
    /// Whether what an area of such attributes shows ends before `page`.
    pub(super) fn ends_before(&self, area: &Attributes, page: PageNumber) -> bool {
        area.object
            .is_some_and(|Object { id, origin }| page.0.wrapping_sub(origin.0) >= self.objects[id])
    }

    /// Changes the attributes of what lies in `pages`; a huge page across an edge is split.
    pub(super) fn change(&mut self, pages: PageRange, change: impl FnMut(&mut Attributes)) {
        self.areas.change(pages, change);
        for edge in [pages.start(), pages.end()] {
            if edge.in_block() != 0 {
                self.pages.split_huge(edge.block());
            }
        }
    }

    /// Unmaps `pages`, and answers the message about it where one is due. Its range is that of the
    /// call, as the kernel's is, whatever of it was registered.
    fn unmap(&mut self, pages: PageRange) -> Option<Message> {
        let told = self.areas.overlapping(pages).any(|area| area.attributes.registered());
        self.areas.remove(pages);
        for page in pages.pages() {
            self.pages.forget_file(page);
            self.pages.drop_page(page);
        }
        told.then_some(Message::Unmapped(pages))
    }

    /// Moves whatever is at `from`, huge pages whole where that fits, and answers how many pages.
    pub(super) fn move_any(&mut self, from: PageNumber, to: PageNumber, left: usize) -> usize {
        if self.pages.huge_fits(from, to, left) {
            self.pages.move_huge(from, to);
            return BLOCK_PAGES;
        }
        self.pages.move_page(from, to);
        1
    }
}
