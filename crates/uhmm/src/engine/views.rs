//! Shared memory: which addresses show which pages of the engine's aliases, and where aliases are.
//!
//! An alias is a second mapping of the same pages of the same file, and the staging of shared memory: a
//! page that is away has a translation to it, and no frame of a device. Its pages have numbers
//! [apart](FrameNumber::is_shared) from those of frames. A *piece* is a run of addresses and the pages of
//! an alias that show the same. Pieces follow their areas as records do, and an alias lives as
//! long as one of its pieces.

use super::Engine;
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    mm::{Backing, Errno, Mm},
    range_set::RangeSet,
    report::StayCause,
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
    },
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// Addresses that show pages of an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) pages: PageRange,
    /// What the first of them shows.
    pub(crate) first: FrameNumber,
}

impl Piece {
    /// The part of it that lies in `pages`.
    fn part(self, pages: PageRange) -> Self {
        let part = self.pages.intersection(pages);
        Self { pages: part, first: self.first.plus(part.start().since(self.pages.start())) }
    }

    /// Whether it shows a page of `alias`.
    fn shows(self, alias: Alias) -> bool {
        let (mine, other) = (self.first.in_alias(), alias.first.in_alias());
        mine < other + alias.pages && other < mine + self.pages.len()
    }
}

/// An alias: so many pages from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    pub(crate) first: FrameNumber,
    pub(crate) pages: usize,
}

/// All pieces and aliases.
///
/// # Invariants
/// The pieces are sorted, disjoint and not empty. Each shows pages of one alias of `aliases`.
#[derive(Debug)]
pub(crate) struct Views {
    pieces: EngineVec<Piece>,
    aliases: EngineVec<Alias>,
    /// Addresses of which somebody makes an alias now.
    making: EngineVec<PageRange>,
}

impl Views {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        Self {
            pieces: EngineVec::new(memory.clone()),
            aliases: EngineVec::new(memory.clone()),
            making: EngineVec::new(memory.clone()),
        }
    }

    /// The index of the first piece that ends after `page`.
    fn first_after(&self, page: PageNumber) -> usize {
        self.pieces.partition_point(|piece| piece.pages.end() <= page)
    }

    /// The longest part of `pages` from its start on that lies in one piece, or in none, and what its
    /// first page shows then.
    #[inline]
    pub(crate) fn leading(&self, pages: PageRange) -> (PageRange, Option<FrameNumber>) {
        match self.pieces.get(self.first_after(pages.start())) {
            Some(piece) if piece.pages.contains(pages.start()) => {
                let part = piece.part(pages);
                (part.pages, Some(part.first))
            }
            Some(piece) => {
                (PageRange::new(pages.start(), piece.pages.start()).intersection(pages), None)
            }
            None => (pages, None),
        }
    }

    /// The longest part of `within` around `page` that lies in one piece, or in none, and what its first
    /// page shows then.
    pub(super) fn around(
        &self,
        page: PageNumber,
        within: PageRange,
    ) -> (PageRange, Option<FrameNumber>) {
        let at = self.first_after(page);
        let before = at.checked_sub(1).map_or(within.start(), |at| self.pieces[at].pages.end());
        match self.pieces.get(at) {
            Some(piece) if piece.pages.contains(page) => {
                let part = piece.part(within);
                (part.pages, Some(part.first))
            }
            Some(piece) => (PageRange::new(before, piece.pages.start()).intersection(within), None),
            None => (PageRange::new(before, within.end()).intersection(within), None),
        }
    }

    /// Notes that the caller makes an alias of `pages`. False where somebody else does of some of them.
    fn claim(&mut self, pages: PageRange) -> Result<bool, EngineMemoryError> {
        if self.making.iter().any(|other| other.overlaps(pages)) {
            return Ok(false);
        }
        self.making.try_push(pages).map(|()| true)
    }

    /// Ends that.
    fn give_up(&mut self, pages: PageRange) {
        if let Some(at) = self.making.iter().position(|other| *other == pages) {
            self.making.remove(at);
        }
    }

    /// Notes a new alias, all of which `pages` show. They showed none.
    pub(super) fn begin(
        &mut self,
        pages: PageRange,
        first: FrameNumber,
    ) -> Result<(), EngineMemoryError> {
        self.aliases.try_push(Alias { first, pages: pages.len() })?;
        let added = self.add(Piece { pages, first });
        if added.is_err() {
            self.aliases.pop();
        }
        added
    }

    /// Adds a piece of an alias that there is, over what is there.
    fn add(&mut self, piece: Piece) -> Result<(), EngineMemoryError> {
        self.remove(piece.pages)?;
        self.pieces.try_insert(self.first_after(piece.pages.start()), piece)
    }

    /// What was at `from` is at `to` as well.
    pub(crate) fn copy(
        &mut self,
        from: PageRange,
        to: PageNumber,
    ) -> Result<(), EngineMemoryError> {
        let mut rest = from;
        while !rest.is_empty() {
            let (part, first) = self.leading(rest);
            rest = PageRange::new(part.end(), rest.end());
            let target = PageRange::of(to.plus(part.start().since(from.start())), part.len());
            match first {
                Some(first) => self.add(Piece { pages: target, first })?,
                None => self.remove(target)?,
            }
        }
        Ok(())
    }

    /// Nothing of `pages` shows an alias any more.
    pub(crate) fn remove(&mut self, pages: PageRange) -> Result<(), EngineMemoryError> {
        let mut at = self.first_after(pages.start());
        while let Some(&piece) = self.pieces.get(at)
            && piece.pages.overlaps(pages)
        {
            let before = piece.part(PageRange::new(piece.pages.start(), pages.start()));
            let behind = piece.part(PageRange::new(pages.end(), piece.pages.end()));
            match (before.pages.is_empty(), behind.pages.is_empty()) {
                (true, true) => drop(self.pieces.remove(at)),
                (false, true) => {
                    self.pieces[at] = before;
                    at += 1;
                }
                (true, false) => self.pieces[at] = behind,
                (false, false) => {
                    self.pieces.try_insert(at + 1, behind)?;
                    self.pieces[at] = before;
                }
            }
            if !behind.pages.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Nothing shows an alias any more.
    fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Takes out an alias that no piece shows.
    fn take_unused(&mut self) -> Option<Alias> {
        let unused = |alias: &Alias| !self.pieces.iter().any(|piece| piece.shows(*alias));
        let at = self.aliases.iter().position(unused)?;
        self.aliases.remove(at)
    }

    /// Puts back what was taken out just now.
    fn put_back(&mut self, alias: Alias) {
        // There is room, as it was taken out.
        let _ = self.aliases.try_push(alias);
    }
}

/// Where aliases are.
#[derive(Debug)]
pub(crate) struct Aliases {
    /// The page after which their pages are numbered.
    start: AtomicUsize,
    places: Lock<Places>,
}

#[derive(Debug)]
struct Places {
    /// What is reserved for them, once one was wanted.
    window: Option<PageRange>,
    used: RangeSet,
}

impl Aliases {
    pub(super) fn new(memory: &EngineMemory) -> Self {
        let places = Places { window: None, used: RangeSet::new(memory) };
        Self { start: AtomicUsize::new(0), places: Lock::new(places) }
    }

    /// The page that has this number.
    #[inline]
    pub(crate) fn page_of(&self, number: FrameNumber) -> PageNumber {
        PageNumber(self.start.load(Acquire) + number.in_alias())
    }

    /// The pages of an alias.
    fn pages_of(&self, alias: Alias) -> PageRange {
        PageRange::of(self.page_of(alias.first), alias.pages)
    }

    /// Whether some of `pages` is reserved for aliases.
    pub(super) fn overlap(&self, pages: PageRange, signals: &SignalsBlocked) -> bool {
        self.places.lock(signals).window.is_some_and(|window| window.overlaps(pages))
    }

    /// Finds a place for an alias.
    fn place<M: Mm>(
        &self,
        mm: &M,
        pages: usize,
        of_pool: bool,
        signals: &SignalsBlocked,
    ) -> Result<Alias, StayCause> {
        let mut places = self.places.lock(signals);
        let window = if let Some(window) = places.window {
            window
        } else {
            let window = mm.reserve_aliases().map_err(no_room)?;
            self.start.store(window.start().0, Release);
            places.window = Some(window);
            window
        };
        // The pages of a pool lie in blocks.
        let aligned = |start: PageNumber| {
            if of_pool { start.plus(BLOCK_PAGES - 1).block().first_page() } else { start }
        };
        let mut start = aligned(window.start());
        for used in places.used.iter() {
            if used.start() >= start.plus(pages) {
                break;
            }
            start = start.max(aligned(used.end()));
        }
        let place = PageRange::of(start, pages);
        if !window.covers(place) {
            return Err(StayCause::NoMemory);
        }
        places.used.add(place)?;
        let first = FrameNumber::of_alias(start.since(window.start()));
        Ok(Alias { first: if of_pool { first.of_pool() } else { first }, pages })
    }

    /// Makes the place of an alias free that is none any more.
    fn free(&self, alias: Alias, signals: &SignalsBlocked) {
        // Without memory to note it the addresses are lost.
        let _ = self.places.lock(signals).used.remove(self.pages_of(alias));
    }

    /// Ends the reservation of addresses. No alias is in use.
    fn release<M: Mm>(&self, mm: &M, signals: &SignalsBlocked) {
        let mut places = self.places.lock(signals);
        if let Some(window) = places.window.take() {
            places.used.clear();
            // SAFETY: it was reserved for aliases, which nobody uses.
            unsafe { mm.release_aliases(window) };
        }
    }
}

/// What it means that an alias could not be made.
const fn no_room(errno: Errno) -> StayCause {
    match errno {
        Errno(libc::ENOMEM) => StayCause::NoRoomForAreas,
        errno => StayCause::System(errno),
    }
}

impl<M: Mm> Engine<M> {
    /// Makes an alias of `pages`, which lie in one area of shared memory as far as is known. None where
    /// the system has something else there by now, or another thread makes one. No lock is held. Until
    /// [`made_alias`](Self::made_alias) is called nobody else makes one.
    pub(super) fn make_alias(
        &self,
        pages: PageRange,
        of_pool: bool,
    ) -> Result<Option<Alias>, StayCause> {
        let openings = self.gate.openings();
        let claimed = {
            let signals = SignalsBlocked::new();
            let views = &mut self.gate.alone(&signals).views;
            if views.leading(pages) != (pages, None) {
                // Others have made one since it was looked for.
                return Ok(None);
            }
            views.claim(pages)?
        };
        if !claimed {
            self.gate.wait_opened(openings);
            return Ok(None);
        }
        let made = self.make_claimed(pages, of_pool);
        if !matches!(made, Ok(Some(_))) {
            self.made_alias(pages);
        }
        made
    }

    /// Lets others make aliases of `pages`, of which the caller has made one that is noted or ended.
    pub(super) fn made_alias(&self, pages: PageRange) {
        self.gate.alone(&SignalsBlocked::new()).views.give_up(pages);
        self.gate.tell_opened();
    }

    fn make_claimed(&self, pages: PageRange, of_pool: bool) -> Result<Option<Alias>, StayCause> {
        let alias = {
            let signals = SignalsBlocked::new();
            self.aliases.place(&self.mm, pages.len(), of_pool, &signals)?
        };
        let at = self.aliases.page_of(alias.first);
        // SAFETY: the place was found free just now, and is this call's.
        let made = unsafe { self.mm.alias(pages, at) };
        let Err(errno) = made else { return Ok(Some(alias)) };
        self.aliases.free(alias, &SignalsBlocked::new());
        let now = self.mm.mapping_at(pages.start()).map_err(StayCause::System)?;
        match now {
            // Its file is out of reach.
            Some(now) if now.backing == Backing::SharedHugetlb && errno == Errno(libc::EPERM) => {
                Err(StayCause::Backing(now.backing))
            }
            Some(now) if now.backing.is_shared() && now.pages.covers(pages) => Err(no_room(errno)),
            _ => Ok(None),
        }
    }

    /// Ends an alias that nothing shows. Where the system refuses it is told.
    pub(super) fn end_alias(&self, alias: Alias, signals: &SignalsBlocked) -> Result<(), Errno> {
        // SAFETY: no translation leads to an alias of which no piece is left, nor to one that was never
        // noted.
        unsafe { self.mm.end_alias(self.aliases.pages_of(alias)) }?;
        self.aliases.free(alias, signals);
        Ok(())
    }

    /// Ends the aliases that nothing shows any more. What the system refuses is tried again the next time.
    pub(crate) fn end_unused_aliases(&self, signals: &SignalsBlocked) {
        loop {
            let unused = self.gate.alone(signals).views.take_unused();
            let Some(alias) = unused else { return };
            if self.end_alias(alias, signals).is_err() {
                return self.gate.alone(signals).views.put_back(alias);
            }
        }
    }

    /// Ends all aliases: nothing is away, nor goes.
    pub(crate) fn end_all_aliases(&self, signals: &SignalsBlocked) {
        self.gate.alone(signals).views.clear();
        self.end_unused_aliases(signals);
        self.aliases.release(&self.mm, signals);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::testing::memory;

    fn range(start: usize, len: usize) -> PageRange {
        PageRange::of(PageNumber(start), len)
    }

    fn number(page: usize) -> FrameNumber {
        FrameNumber::of_alias(page)
    }

    #[test]
    fn pieces_follow_their_addresses() {
        let mut views = Views::new(&memory());
        views.begin(range(10, 10), number(0)).unwrap();
        views.begin(range(30, 4), number(10)).unwrap();
        assert_eq!(views.leading(range(5, 20)), (range(5, 5), None));
        assert_eq!(views.leading(range(12, 20)), (range(12, 8), Some(number(2))));
        assert_eq!(views.around(PageNumber(25), range(0, 100)), (range(20, 10), None));
        assert_eq!(views.around(PageNumber(15), range(12, 100)), (range(12, 8), Some(number(2))));
        assert_eq!(views.around(PageNumber(40), range(0, 50)), (range(34, 16), None));
        // A part moves, over another.
        views.copy(range(14, 4), PageNumber(31)).unwrap();
        views.remove(range(14, 4)).unwrap();
        assert_eq!(views.leading(range(10, 10)), (range(10, 4), Some(number(0))));
        assert_eq!(views.leading(range(14, 10)), (range(14, 4), None));
        assert_eq!(views.leading(range(18, 10)), (range(18, 2), Some(number(8))));
        assert_eq!(views.leading(range(30, 10)), (range(30, 1), Some(number(10))));
        assert_eq!(views.leading(range(31, 10)), (range(31, 4), Some(number(4))));
        assert_eq!(views.take_unused(), None);
        views.remove(range(30, 1)).unwrap();
        assert_eq!(views.take_unused(), Some(Alias { first: number(10), pages: 4 }));
        views.remove(range(0, 20)).unwrap();
        assert_eq!(views.take_unused(), None, "a part of it is shown still");
        views.remove(range(31, 4)).unwrap();
        assert_eq!(views.take_unused(), Some(Alias { first: number(0), pages: 10 }));
    }

    #[test]
    fn a_hole_in_a_piece_makes_two() {
        let mut views = Views::new(&memory());
        views.begin(range(0, 10), number(5)).unwrap();
        views.remove(range(3, 2)).unwrap();
        assert_eq!(views.leading(range(0, 10)), (range(0, 3), Some(number(5))));
        assert_eq!(views.leading(range(3, 7)), (range(3, 2), None));
        assert_eq!(views.leading(range(5, 9)), (range(5, 5), Some(number(10))));
    }
}
