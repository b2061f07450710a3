//! A sorted list of runs in engine memory.
//!
//! One run is held in place and takes no memory. More are in an array: a run takes seven bytes of
//! it, and for each run there is at most one byte of room for others to come, so that the array need
//! not be made anew for each. Only between `reserve` and `settle` there may be more.

use core::{
    alloc::Layout,
    fmt,
    ops::Range,
    ptr::{self, NonNull},
    slice,
};

use super::{
    HALF,
    packed::{PackedRun, StoredRun},
};
use crate::engine_memory::{EngineMemory, EngineMemoryError};

/// Where the runs are. It is packed so that a list takes twelve bytes.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
union Runs {
    one: StoredRun,
    array: NonNull<StoredRun>,
}

/// Runs of pages of one half of a block, sorted by their places. They do not overlap, and none goes
/// on in the next.
///
/// To be small it does not know which memory its array is in: whoever calls says so, and always
/// names the same. A list that is dropped leaves its array to the end of that memory.
///
/// # Invariants
/// Where `words` is 0, `at` is a run in place, of which `len`, 0 or 1, mean something. Else `at` is
/// an array of `words` times eight bytes, a block of the caller's memory that is the list's own, and
/// its first `len` runs are written.
#[repr(C)]
pub(super) struct RunList {
    at: Runs,
    len: u16,
    words: u16,
}

const _: () = assert!(size_of::<RunList>() == 12 && HALF <= u16::MAX as usize);

impl Default for RunList {
    fn default() -> Self {
        Self { at: Runs { one: StoredRun::NONE }, len: 0, words: 0 }
    }
}

impl fmt::Debug for RunList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runs().iter().map(|run| run.packed())).finish()
    }
}

impl RunList {
    const fn runs(&self) -> &[StoredRun] {
        let start = match self.array() {
            None => (&raw const self.at).cast(),
            Some(array) => array.as_ptr().cast_const(),
        };
        // SAFETY: by the invariants there are so many; an array changes through a mutable reference
        // to its list only.
        unsafe { slice::from_raw_parts(start, self.len as usize) }
    }

    const fn array(&self) -> Option<NonNull<StoredRun>> {
        // SAFETY: by the invariants it is an array where it has words.
        if self.words == 0 { None } else { Some(unsafe { self.at.array }) }
    }

    /// Whether there is no run: then there is room for one, and nothing that could be cut.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many runs there is room for.
    const fn room(&self) -> usize {
        if self.words == 0 { 1 } else { self.words as usize * 8 / size_of::<StoredRun>() }
    }

    /// Makes room to record that `pages` are `run`, or in none: all of them, or a first part and
    /// then, part by part, what follows.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(super) fn reserve(
        &mut self,
        memory: &EngineMemory,
        pages: &Range<usize>,
        run: Option<PackedRun>,
    ) -> Result<(), EngineMemoryError> {
        // A run that is cut can leave one part before the pages and one behind. The run that is new
        // is one more where none before it goes on in it.
        let runs = self.runs();
        let most = 1 + usize::from(run.is_some());
        if runs.len() + most <= self.room() {
            return Ok(());
        }
        let before = runs.get(self.touched(pages).start).filter(|run| run.start() < pages.start);
        let before = before.map(|run| run.packed());
        let is_cut = before.is_some_and(|before| before.end() > pages.start);
        let is_new = |run: PackedRun| {
            !before
                .is_some_and(|before| before.part(&(before.start()..pages.start)).goes_on_in(run))
        };
        let more = usize::from(is_cut) + usize::from(run.is_some_and(is_new));
        // Each run has a page.
        let wanted = (runs.len() + more).min(HALF);
        if wanted <= self.room() { Ok(()) } else { self.resize(memory, wanted) }
    }

    /// Records that `pages`, which are not none, are `run`, or in none. Room was made for it.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(super) fn record(&mut self, pages: &Range<usize>, mut run: Option<PackedRun>) {
        if self.words == 0 && (self.len == 0 || pages.len() == HALF) {
            // Nothing of what was recorded stays, and nothing lies beside it.
            self.len = u16::from(run.is_some());
            self.at = Runs { one: run.map_or(StoredRun::NONE, PackedRun::stored) };
            return;
        }
        let touched = self.touched(pages);
        let runs = &self.runs()[touched.clone()];
        let before = runs.first().map(|run| run.packed()).filter(|run| run.start() < pages.start);
        let behind = runs.last().map(|run| run.packed()).filter(|run| run.end() > pages.end);
        let mut before = before.map(|run| run.part(&(run.start()..pages.start)));
        let mut behind = behind.map(|run| run.part(&(pages.end..run.end())));
        if let Some(run) = &mut run {
            if let Some(part) = before.take_if(|before| before.goes_on_in(*run)) {
                *run = part.and(*run);
            }
            if let Some(part) = behind.take_if(|behind| run.goes_on_in(*behind)) {
                *run = run.and(part);
            }
        }
        self.splice(&touched, [before, run, behind]);
    }

    /// The numbers of the runs that have pages of these, or end or begin where these do.
    #[unsafe(link_section = ".text.hot.moving")]
    fn touched(&self, pages: &Range<usize>) -> Range<usize> {
        let runs = self.runs();
        let first = runs.partition_point(|run| run.start() < pages.start);
        // What is recorded lies in one run, or between two.
        let behind = runs[first..].iter().take_while(|run| run.start() <= pages.end).count();
        let touches = |before: usize| runs[before].packed().end() >= pages.start;
        first - usize::from(first > 0 && touches(first - 1))..first + behind
    }

    /// The run that `place` is in; else where the next one begins.
    pub(super) fn find(&self, place: usize) -> Result<PackedRun, Option<usize>> {
        let runs = self.runs();
        let behind = runs.partition_point(|run| run.start() <= place);
        match behind.checked_sub(1).map(|before| runs[before].packed()) {
            Some(run) if run.end() > place => Ok(run),
            _ => Err(runs.get(behind).map(|run| run.start())),
        }
    }

    /// The run that `place` is in, else the next one.
    pub(super) fn first_from(&self, place: usize) -> Option<PackedRun> {
        let runs = self.runs();
        let behind = runs.partition_point(|run| run.start() <= place);
        let here = behind.checked_sub(1).map(|before| runs[before].packed());
        here.filter(|run| run.end() > place).or_else(|| runs.get(behind).map(|run| run.packed()))
    }

    /// Puts `new` in the place of the runs with the numbers `gone`.
    fn splice(&mut self, gone: &Range<usize>, new: [Option<PackedRun>; 3]) {
        let more = new.iter().flatten().count();
        let len = usize::from(self.len);
        let room = self.room();
        let start: *mut StoredRun = match self.array() {
            None => (&raw mut self.at).cast(),
            Some(array) => array.as_ptr(),
        };
        if more != gone.len() {
            let new_len = len - gone.len() + more;
            if new_len > room {
                crate::abort::abort(b"a block's record was changed without room reserved");
            }
            // SAFETY: the numbers are of runs that there are, and there is room for as many as there
            // will be.
            unsafe { ptr::copy(start.add(gone.end), start.add(gone.start + more), len - gone.end) };
            self.len = number(new_len);
        }
        for (at, run) in (gone.start..).zip(new.into_iter().flatten()) {
            // SAFETY: it is the place of a run that is gone, or was made just above.
            unsafe { start.add(at).write(run.stored()) };
        }
    }

    /// Gives room back that is not used. Where there is no memory for a smaller array the larger
    /// one stays.
    pub(super) fn settle(&mut self, memory: &EngineMemory) {
        let len = usize::from(self.len);
        let Some(array) = self.array().filter(|_| len <= 1 || usize::from(self.words) > len) else {
            return;
        };
        if len > 1 {
            // Some room stays, so that what comes and goes here does not make it anew each time.
            let _ = self.resize(memory, len - len / 16);
            return;
        }
        let one = self.runs().first().copied().unwrap_or(StoredRun::NONE);
        // SAFETY: by the invariants it is a block of the caller's memory of so many words, and the
        // list's own, which leads to it no more.
        unsafe { memory.release(array.cast(), layout(self.words)) };
        self.at = Runs { one };
        self.words = 0;
    }

    /// Makes the array one of so many words, in which the runs that there are have room.
    #[cold]
    #[inline(never)]
    fn resize(&mut self, memory: &EngineMemory, words: usize) -> Result<(), EngineMemoryError> {
        let words = number(words);
        let new = layout(words);
        let array = if let Some(array) = self.array() {
            // SAFETY: by the invariants it is a block of the caller's memory of so many words, and
            // the list's own.
            unsafe { memory.resize(array.cast(), layout(self.words), new)? }.cast()
        } else {
            let array = memory.obtain(new, false)?.cast();
            // SAFETY: the block is new, and there is room in it; by the invariants a run is in place.
            unsafe { array.write(self.at.one) };
            array
        };
        self.at = Runs { array };
        self.words = words;
        Ok(())
    }
}

/// A number of runs of a list.
fn number(runs: usize) -> u16 {
    // There are at most as many as pages.
    u16::try_from(runs).unwrap_or(u16::MAX)
}

/// The layout of an array of so many words.
const fn layout(words: u16) -> Layout {
    match Layout::array::<[u8; 8]>(words as usize) {
        Ok(layout) => layout,
        Err(_) => unreachable!(),
    }
}
