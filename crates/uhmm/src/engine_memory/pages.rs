//! Runs of pages: handed out, taken back, joined with their neighbours.
//!
//! Every page has an entry in a table that lies before the pages. Only the first and the last entry
//! of a run mean something: they say what the run is and how long, which is enough to find the
//! neighbours of any run. Free runs are on lists by length, four lists for every doubling, so that a
//! run that fits is found in a few steps.

use core::ptr::NonNull;

use super::backing::Backing;
use crate::{mm::Errno, units::PageSize};

/// No page: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// The most pages that can be managed: their lengths fit the lists.
pub(super) const MOST_PAGES: usize = 1 << 31;

/// The memory grows up to addresses that are multiples of so many bytes: a huge page, which the system
/// gives only where all of it is accessible when it is first touched.
const STEP: usize = 2 << 20;

const BINS: usize = 128;

/// What a page is, where its entry means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Not the first page of anything. All entries start as this.
    Inside = 0,
    /// The first page of a run that is handed out.
    Run,
    /// A page of small objects.
    Slab,
    /// The first page of a free run.
    Free,
    /// The last page of a free run of two pages or more.
    FreeEnd,
}

/// A page's entry. All bytes zero is an entry.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Page {
    pub(super) kind: Kind,
    /// Of a free run and of a slab: nothing was written to it since it was zero, but for the
    /// objects that a slab has handed out.
    pub(super) zero: bool,
    /// Of a slab: the class of its objects.
    pub(super) class: u16,
    /// Of a slab: objects in use.
    pub(super) used: u16,
    /// Of a slab: objects from here on were never handed out.
    pub(super) fresh: u16,
    /// Of a slab: one more than the index of the first free object, 0 where there is none.
    pub(super) free: u16,
    /// Of a run: its length in pages.
    pub(super) len: u32,
    /// Of a free run, and of a slab with room: its neighbours in their list.
    pub(super) prev: u32,
    pub(super) next: u32,
}

/// Why a run could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No free run is long enough, and the limit does not allow more pages.
    Full,
    /// The system refuses to back more pages.
    Commit(Errno),
}

/// The list for free runs of `pages` pages.
const fn bin_of(pages: u32) -> usize {
    if pages < 16 {
        return pages as usize;
    }
    let log = pages.ilog2();
    16 + (log as usize - 4) * 4 + ((pages >> (log - 2)) & 3) as usize
}

/// The first list on which all runs have `pages` pages or more.
const fn bin_above(pages: u32) -> usize {
    if pages < 16 {
        return pages as usize;
    }
    let shift = pages.ilog2() - 2;
    bin_of(pages) + if (pages >> shift) << shift == pages { 0 } else { 1 }
}

/// The pages of engine memory.
///
/// # Invariants
/// The first `top` pages and their entries are committed. Of these, every page is in exactly one
/// run: free, handed out, or a slab; no two free runs touch; every free run is on the list of its
/// length, and `filled` has a bit for each list that is not empty.
#[derive(Debug)]
pub(super) struct Pages {
    backing: Backing,
    size: PageSize,
    table: usize,
    table_committed: usize,
    first: usize,
    count: u32,
    /// How many of them are for urgent work alone, whichever they are.
    reserve: u32,
    /// How many are handed out.
    taken: u32,
    top: u32,
    bins: [u32; BINS],
    filled: u128,
}

impl Pages {
    /// `count` pages at offset `first` of `backing`, with their table at offset `table`, of which
    /// `reserve` are for urgent work; none is committed yet.
    ///
    /// # Safety
    /// The table's room and the pages lie in `backing`, one after the other and page-aligned, are
    /// used by nobody else, and are zero. `count` is at most [`MOST_PAGES`].
    pub(super) unsafe fn new(
        backing: Backing,
        size: PageSize,
        table: usize,
        first: usize,
        count: u32,
        reserve: u32,
    ) -> Self {
        Self {
            backing,
            size,
            table,
            table_committed: 0,
            first,
            count,
            reserve,
            taken: 0,
            top: 0,
            bins: [NONE; BINS],
            filled: 0,
        }
    }

    /// Bytes of the pages and of the table that are committed.
    pub(super) fn committed(&self) -> usize {
        self.table_committed + self.size.bytes_in(self.top as usize)
    }

    /// The size of a page.
    pub(super) fn page_size(&self) -> PageSize {
        self.size
    }

    /// The entry of a page.
    pub(super) fn at(&mut self, page: u32) -> &mut Page {
        if page >= self.top {
            crate::abort::abort(b"the page table of engine memory is damaged");
        }
        // SAFETY: by the invariants the entry is committed, and only we use the table; zero bytes
        // are an entry.
        unsafe {
            &mut *self.backing.start().add(self.table).cast::<Page>().add(page as usize).as_ptr()
        }
    }

    /// Where the content of a page is.
    pub(super) fn address(&self, page: u32) -> NonNull<u8> {
        // SAFETY: callers name pages up to `count`, and those lie in the backing, or end there.
        unsafe { self.backing.start().add(self.first + self.size.bytes_in(page as usize)) }
    }

    /// The page that holds `address`, where it is one of ours.
    pub(super) fn page_of(&self, address: usize) -> Option<u32> {
        let offset = address.checked_sub(self.address(0).addr().get())?;
        let page = u32::try_from(offset / self.size.bytes()).ok()?;
        (page < self.top).then_some(page)
    }

    /// Hands out `pages` pages, the first aligned to `align`, as a run, and says whether they are
    /// all zero. Those in reserve only for `urgent` work.
    pub(super) fn take(
        &mut self,
        pages: usize,
        align: usize,
        urgent: bool,
    ) -> Result<(u32, bool), Refusal> {
        let left = self.count - self.taken;
        let most = if urgent { left } else { left.saturating_sub(self.reserve) };
        let Some(pages) = u32::try_from(pages).ok().filter(|&pages| pages <= most) else {
            return Err(Refusal::Full);
        };
        let (start, at) = match self.find(pages, align) {
            Some(found) => found,
            None => self.extend(pages, align)?,
        };
        let len = self.at(start).len;
        let zero = self.at(start).zero;
        self.unlink(start);
        self.link(start, at - start, zero);
        self.link(at + pages, start + len - at - pages, zero);
        let last = at + pages - 1;
        self.at(last).kind = Kind::Inside;
        let first = self.at(at);
        first.kind = Kind::Run;
        first.len = pages;
        self.taken += pages;
        Ok((at, zero))
    }

    /// Takes a run, or a slab, back and joins it with its neighbours. `zero` says that all its
    /// bytes are zero.
    pub(super) fn give(&mut self, page: u32, zero: bool) {
        self.taken -= self.at(page).len;
        self.join(page, zero);
    }

    fn join(&mut self, page: u32, zero: bool) {
        let (mut start, mut len, mut zero) = (page, self.at(page).len, zero);
        let after = start + len;
        if after < self.top && self.at(after).kind == Kind::Free {
            zero &= self.at(after).zero;
            len += self.at(after).len;
            self.unlink(after);
        }
        if let Some(before) = self.free_before(start) {
            zero &= self.at(before).zero;
            len += start - before;
            start = before;
            self.unlink(before);
        }
        self.link(start, len, zero);
    }

    /// The start of the free run that ends before `page`.
    fn free_before(&mut self, page: u32) -> Option<u32> {
        let last = page.checked_sub(1)?;
        let entry = self.at(last);
        matches!(entry.kind, Kind::Free | Kind::FreeEnd).then(|| page - entry.len)
    }

    /// The first page from `start` on whose address is a multiple of `align`, where `pages` pages
    /// from it end by `end`.
    fn place(&self, start: u32, end: u32, pages: u32, align: usize) -> Option<u32> {
        let address = self.address(start).addr().get();
        let skip = address.checked_next_multiple_of(align)? - address;
        let at = start.checked_add(u32::try_from(skip / self.size.bytes()).ok()?)?;
        (at.checked_add(pages)? <= end).then_some(at)
    }

    /// A free run that has room, and where in it.
    fn find(&mut self, pages: u32, align: usize) -> Option<(u32, u32)> {
        let slack = self.size.pages_for(align) - 1;
        let enough = u32::try_from(slack).ok().and_then(|slack| slack.checked_add(pages));
        if let Some(enough) = enough.filter(|&enough| enough <= self.count) {
            let fitting =
                self.filled & u128::MAX.checked_shl(to_u32(bin_above(enough))).unwrap_or(0);
            if fitting != 0 {
                let start = self.bins[fitting.trailing_zeros() as usize];
                let end = start + self.at(start).len;
                return self.place(start, end, pages, align).map(|at| (start, at));
            }
        }
        let mut lists = self.filled & (u128::MAX << bin_of(pages));
        while lists != 0 {
            let mut start = self.bins[lists.trailing_zeros() as usize];
            while start != NONE {
                let end = start + self.at(start).len;
                if let Some(at) = self.place(start, end, pages, align) {
                    return Some((start, at));
                }
                start = self.at(start).next;
            }
            lists &= lists - 1;
        }
        None
    }

    /// The first page from `page` on at which the memory may end.
    fn step_from(&self, page: u32) -> u32 {
        let past = self.address(page).addr().get() % STEP;
        let more = if past == 0 { 0 } else { self.size.pages_for(STEP - past) };
        page.saturating_add(to_u32(more)).min(self.count)
    }

    /// Commits more pages, so that the last free run has room, and says where in it.
    fn extend(&mut self, pages: u32, align: usize) -> Result<(u32, u32), Refusal> {
        let top = self.top;
        let start = self.free_before(top).unwrap_or(top);
        let at = self.place(start, self.count, pages, align).ok_or(Refusal::Full)?;
        let new_top = self.step_from((top + 1).max(at + pages));
        let table = self.size.bytes_in(self.size.pages_for(new_top as usize * size_of::<Page>()));
        if table > self.table_committed {
            self.backing
                .commit(self.table + self.table_committed, table - self.table_committed)
                .map_err(Refusal::Commit)?;
            self.table_committed = table;
        }
        let (from, more) =
            (self.size.bytes_in(top as usize), self.size.bytes_in((new_top - top) as usize));
        self.backing.commit(self.first + from, more).map_err(Refusal::Commit)?;
        self.top = new_top;
        self.at(top).len = new_top - top;
        self.join(top, true);
        Ok((start, at))
    }

    /// Puts `len` pages, which may be none, on the list of their length.
    fn link(&mut self, start: u32, len: u32, zero: bool) {
        if len == 0 {
            return;
        }
        let bin = bin_of(len);
        let next = self.bins[bin];
        if len > 1 {
            let last = self.at(start + len - 1);
            last.kind = Kind::FreeEnd;
            last.len = len;
        }
        let entry = self.at(start);
        entry.kind = Kind::Free;
        entry.zero = zero;
        entry.len = len;
        entry.prev = NONE;
        entry.next = next;
        if next != NONE {
            self.at(next).prev = start;
        }
        self.bins[bin] = start;
        self.filled |= 1 << bin;
    }

    /// Takes a free run off its list.
    fn unlink(&mut self, start: u32) {
        let &mut Page { len, prev, next, .. } = self.at(start);
        if next != NONE {
            self.at(next).prev = prev;
        }
        if prev == NONE {
            let bin = bin_of(len);
            self.bins[bin] = next;
            if next == NONE {
                self.filled &= !(1 << bin);
            }
        } else {
            self.at(prev).next = next;
        }
    }

    /// How many free runs there are, and how many pages they have.
    #[cfg(test)]
    pub(super) fn free(&mut self) -> (usize, usize) {
        let (mut runs, mut pages, mut page) = (0, 0, 0);
        while page < self.top {
            let &mut Page { kind, len, .. } = self.at(page);
            if kind == Kind::Free {
                runs += 1;
                pages += len as usize;
            }
            page += len;
        }
        (runs, pages)
    }
}

/// A number that is known to be small.
pub(super) fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{BINS, MOST_PAGES, bin_above, bin_of};

    #[test]
    fn lists_are_ordered_and_hold_what_they_say() {
        let mut before = 0;
        for pages in (1..5000).chain((5000..1 << 31).step_by(1_000_003)) {
            let bin = bin_of(pages);
            assert!(bin >= before && bin < BINS);
            let above = bin_above(pages);
            assert!(above == bin || above == bin + 1);
            assert!(pages == 1 || above == bin || bin_of(pages - 1) == bin);
            before = bin;
        }
        assert!(bin_of(u32::try_from(MOST_PAGES).unwrap()) < BINS);
    }
}
