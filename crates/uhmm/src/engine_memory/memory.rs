//! The handle to engine memory: mapping it, counting who holds it, what it knows of itself.
//!
//! The mapping holds, in this order: a guard page; a page with the [`Header`]; the table of the
//! pages; the pages; a guard page.

use core::ptr::NonNull;

use super::{
    EngineMemoryError,
    backing::{self, Backing},
    pages::{MOST_PAGES, Page, Pages, Refusal, to_u32},
    slabs::Slabs,
};
use crate::{
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    units::AddressRange,
};

/// The reserve for work that cannot be given up: one in so many pages of the limit, and so many at
/// least.
const RESERVE_PART: usize = 16;
const LEAST_RESERVE: usize = 16;

/// What is in the header's page.
#[derive(Debug)]
struct Header {
    handles: AtomicUsize,
    backing: Backing,
    limit: usize,
    state: Lock<State>,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct State {
    pub(super) pages: Pages,
    pub(super) slabs: Slabs,
    /// Bytes handed out.
    pub(super) used: usize,
    committed_header: usize,
    /// How often memory was asked for.
    asked: usize,
    /// The time at which it is refused, and to whom.
    refusal: Option<(usize, Refused)>,
}

impl State {
    /// Counts that memory is asked for, and answers whether it is refused though there may be some.
    pub(super) fn is_refused(&mut self, urgent: bool) -> bool {
        self.asked = self.asked.wrapping_add(1);
        match self.refusal {
            Some((due, whose)) if due == self.asked => {
                self.refusal = None;
                !urgent || whose == Refused::Everybody
            }
            _ => false,
        }
    }
}

/// Whom an [injected refusal](EngineMemory::inject_refusal) meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Who can report it: the reserve is left for work that cannot be given up.
    Ordinary,
    /// Everybody: the reserve is used up too.
    Everybody,
}

/// Memory for all that the fault path touches.
///
/// A reservation of addresses of our own with a guard page on each side, which grows into the
/// reservation as it is used and is not inherited by a fork (but for the stacks of engine threads,
/// see [`thread`](super::thread)). It implements [`Allocator`](allocator_api2::alloc::Allocator).
/// Work that cannot be given up, as following a change that the program made, has a reserve on top: a
/// sixteenth of the limit, 16 pages at least. Clones are handles to the same memory; all of it goes back to the system with the last handle,
/// and everything allocated in it holds one.
///
/// In the child of a fork the memory is gone: no handle may be used, cloned or dropped there.
///
/// # Invariants
/// `header` points into a mapping that lives while a handle does, and `handles` counts the handles.
#[derive(Debug)]
pub struct EngineMemory {
    header: NonNull<Header>,
}

// SAFETY: by the invariant the header lives; it is shared by atomics and a lock only.
unsafe impl Send for EngineMemory {}
// SAFETY: as above.
unsafe impl Sync for EngineMemory {}

impl EngineMemory {
    /// Maps engine memory of which `limit_bytes`, rounded up to pages, can be handed out. Its own
    /// tables, and the reserve, come on top. What is not used costs addresses only.
    ///
    /// # Errors
    /// [`EngineMemoryError::Limit`] where the limit is zero or too high;
    /// [`EngineMemoryError::Reserve`] where the system refuses.
    pub fn map(limit_bytes: usize) -> Result<Self, EngineMemoryError> {
        const { assert!(size_of::<Header>() <= 4096, "the header fits the smallest page") };
        let size = backing::page_size();
        let page = size.bytes();
        // The table, the guards and the header take less than a page for each of the pages.
        let most = size.bytes_in((MOST_PAGES / 2).min(usize::MAX >> 16));
        let usual = size.pages_for(limit_bytes);
        if usual == 0 || limit_bytes > most {
            return Err(EngineMemoryError::Limit { asked: limit_bytes, most });
        }
        let reserve = (usual / RESERVE_PART).max(LEAST_RESERVE);
        let count = usual + reserve;
        let table = 2 * page;
        let first = table + size.bytes_in(size.pages_for(count * size_of::<Page>()));
        let bytes = first + size.bytes_in(count) + page;
        let refused = |errno| EngineMemoryError::Reserve { bytes, errno };
        let backing = Backing::reserve(bytes).map_err(refused)?;
        if let Err(errno) = backing.commit(page, page) {
            // SAFETY: nobody knows of the reservation.
            unsafe { backing.release() };
            return Err(refused(errno));
        }
        // SAFETY: the table's room and the pages were just reserved for this, one after the other;
        // the count is at most the most.
        let pages =
            unsafe { Pages::new(backing, size, table, first, to_u32(count), to_u32(reserve)) };
        let slabs = Slabs::new();
        let state =
            State { pages, slabs, used: 0, committed_header: page, asked: 0, refusal: None };
        // SAFETY: the second page is in the reservation.
        let header = unsafe { backing.start().add(page) }.cast::<Header>();
        // SAFETY: the page is committed, aligned, nobody else's, and the header fits it.
        unsafe {
            header.write(Header {
                handles: AtomicUsize::new(1),
                backing,
                limit: size.bytes_in(usual),
                state: Lock::new(state),
            });
        }
        Ok(Self { header })
    }

    fn header(&self) -> &Header {
        // SAFETY: by the invariant it lives while this handle does.
        unsafe { self.header.as_ref() }
    }

    pub(super) fn backing(&self) -> &Backing {
        &self.header().backing
    }

    /// Runs `f` under the lock, with all signals blocked.
    pub(super) fn with_state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let signals = SignalsBlocked::new();
        let mut state = self.header().state.lock(&signals);
        f(&mut state)
    }

    /// Where an address lies in the reservation.
    pub(super) fn offset_of(&self, address: NonNull<u8>) -> usize {
        address.addr().get() - self.range().start()
    }

    /// Why `asked` bytes could not be had.
    pub(super) fn refused(&self, asked: usize, refusal: Refusal) -> EngineMemoryError {
        match refusal {
            Refusal::Full => {
                EngineMemoryError::Exhausted { asked, used: self.used(), limit: self.limit() }
            }
            Refusal::Commit(errno) => {
                EngineMemoryError::Commit { asked, committed: self.committed(), errno }
            }
        }
    }

    /// All addresses of it, guards and tables and what is not in use included: the range that is
    /// never adopted.
    pub fn range(&self) -> AddressRange {
        let backing = self.backing();
        let Ok(range) = AddressRange::new(backing.start().addr().get(), backing.bytes()) else {
            crate::abort::abort(b"the range of engine memory is damaged");
        };
        range
    }

    /// Whether `address` is in its [`range`](Self::range).
    pub fn contains(&self, address: usize) -> bool {
        let range = self.range();
        range.start() <= address && address < range.end()
    }

    /// Bytes handed out, each allocation rounded up to the size of its object or to pages.
    pub fn used(&self) -> usize {
        self.with_state(|state| state.used)
    }

    /// Bytes that can be handed out in all, but for the reserve.
    pub fn limit(&self) -> usize {
        self.header().limit
    }

    /// How often memory was asked for so far.
    pub fn times_asked(&self) -> usize {
        self.with_state(|state| state.asked)
    }

    /// Has the `nth` time from now on that memory is asked for, the first being 1, be refused, as if it
    /// were used up: for tests, as which the calls of the system that fail are
    /// ([`injected`](crate::mm::injected)). One at a time.
    pub fn inject_refusal(&self, nth: usize, whose: Refused) {
        self.with_state(|state| state.refusal = Some((state.asked.wrapping_add(nth), whose)));
    }

    /// Takes back a refusal that has not come. Answers whether there was one.
    pub fn clear_refusal(&self) -> bool {
        self.with_state(|state| state.refusal.take().is_some())
    }

    /// Bytes that are accessible, the tables' included. It grows in steps and does not shrink; the
    /// system backs a page of it when it is first touched.
    pub fn committed(&self) -> usize {
        self.with_state(|state| state.pages.committed() + state.committed_header)
    }
}

impl Clone for EngineMemory {
    #[inline]
    fn clone(&self) -> Self {
        let before = self.header().handles.fetch_add(1, Relaxed);
        if before > usize::MAX / 2 {
            crate::abort::abort(b"too many handles to engine memory");
        }
        Self { header: self.header }
    }
}

impl Drop for EngineMemory {
    fn drop(&mut self) {
        if self.header().handles.fetch_sub(1, Release) != 1 {
            return;
        }
        // What others did with their handles came before this.
        self.header().handles.load(Acquire);
        let backing = *self.backing();
        // SAFETY: this was the last handle, so by the invariant nobody reaches the header, and
        // nobody holds anything that was handed out.
        unsafe {
            self.header.drop_in_place();
            backing.release();
        }
    }
}

const _: () = assert!(size_of::<Option<EngineMemory>>() == size_of::<usize>());
