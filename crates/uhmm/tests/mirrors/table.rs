//! Page tables that remember what they were told.

use std::sync::{Mutex, PoisonError};

use uhmm::{
    Device, Entries, Invalidation, InvalidationKind, PageTable, PrepareError, Translation,
    mm::Access,
    units::{PageNumber, PageRange},
};

/// What a table was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Pages in place, and whether they may be written.
    Commit(PageRange, bool),
    Invalidate(Invalidation),
}

/// A table that remembers, and how it answers.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) told: Mutex<Vec<Told>>,
    /// With what code it refuses to make ready, if it does.
    pub(crate) refuses: Option<i32>,
    pub(crate) pins: bool,
}

impl Recorder {
    /// What it was told since it was last asked.
    pub(crate) fn take(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The kinds of the invalidations that it was told of since it was last asked, with their pages.
    pub(crate) fn take_invalidations(&self) -> Vec<(PageRange, InvalidationKind)> {
        let told = self.take();
        told.into_iter()
            .filter_map(|told| match told {
                Told::Commit(..) => None,
                Told::Invalidate(Invalidation { pages, kind }) => Some((pages, kind)),
            })
            .collect()
    }

    fn note(&self, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}

// SAFETY: it has no translations and touches no memory through any; the heap that it uses is adopted
// by nobody in these tests.
unsafe impl PageTable for Recorder {
    fn prepare(&self, _: PageRange, _: Access) -> Result<(), PrepareError> {
        self.refuses.map_or(Ok(()), |code| Err(PrepareError::Refused { code }))
    }

    fn commit(&self, entries: &Entries) {
        assert!(matches!(entries.translation, Translation::InPlace { .. }), "{entries:?}");
        self.note(Told::Commit(entries.pages, entries.write));
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        self.note(Told::Invalidate(*invalidation));
    }

    fn pins(&self) -> bool {
        self.pins
    }
}

/// A device that keeps nothing but what it was told.
#[derive(Default)]
pub(crate) struct Listener {
    ended: Mutex<Vec<(PageRange, InvalidationKind)>>,
    given: Mutex<Vec<(PageRange, u8)>>,
}

impl Listener {
    /// What ended since it was last asked.
    pub(crate) fn take(&self) -> Vec<(PageRange, InvalidationKind)> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What it was given since it was last asked, and how large it was said to be.
    pub(crate) fn take_given(&self) -> Vec<(PageRange, u8)> {
        std::mem::take(&mut *self.given.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// SAFETY: it has no translations and touches no memory through any; the heap that it uses is adopted
// by nobody in these tests.
unsafe impl PageTable for Listener {
    fn commit(&self, entries: &Entries) {
        let given = (entries.pages, entries.order);
        self.given.lock().unwrap_or_else(PoisonError::into_inner).push(given);
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        let end = (invalidation.pages, invalidation.kind);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(end);
    }
}

// SAFETY: as above.
unsafe impl Device for Listener {}

/// Whether the table has each page after being told this, and may write it.
pub(crate) fn translations(told: &[Told], pages: PageRange) -> Vec<Option<bool>> {
    let mut has = vec![None; pages.len()];
    let mut set = |part: PageRange, value| {
        for page in part.intersection(pages).pages() {
            has[page.since(pages.start())] = value;
        }
    };
    for told in told {
        match told {
            Told::Commit(pages, write) => set(*pages, Some(*write)),
            Told::Invalidate(invalidation) => set(invalidation.pages, None),
        }
    }
    has
}

/// The page at an address.
pub(crate) fn page_at(address: usize) -> PageNumber {
    PageNumber(address / super::page())
}
