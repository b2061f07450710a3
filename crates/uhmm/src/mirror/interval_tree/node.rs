//! A node of the tree: entries in order, each of their parts in an array of its own.
//!
//! A search compares all starts and lasts, takes the payloads of those that it wants, and never asks
//! for ids. So the first three lie together: what it needs of a node is on neighbouring cache lines,
//! which the processor fetches at the same time. The ids lie elsewhere, so that they take no room in
//! the caches and no entries of the TLB that searches could use.

use core::{mem::MaybeUninit, ops::Range};

use super::overlap::Bound;
use crate::{
    engine_memory::{EngineBox, EngineMemory, EngineMemoryError},
    processor::prefetch,
};

/// The most bytes of payloads that are fetched where one will be wanted.
const MOST_PREFETCHED: usize = 512;

/// A range of pages, and what it stands for: a value, or a node whose entries lie in the range.
#[derive(Debug)]
pub(super) struct Entry<K, P> {
    pub(super) start: K,
    /// The last page, not the one after it.
    pub(super) last: K,
    pub(super) id: u64,
    pub(super) payload: P,
}

impl<K: Copy, P> Entry<K, P> {
    /// What entries are ordered by.
    pub(super) fn key(&self) -> (K, u64) {
        (self.start, self.id)
    }
}

/// Up to `N` entries, ordered by their keys.
///
/// # Invariants
/// `len` is at most `N`, and the payloads below it are initialised.
#[repr(C, align(64))]
pub(super) struct Node<K, P, const N: usize> {
    len: usize,
    ids: EngineBox<[u64; N]>,
    starts: [K; N],
    lasts: [K; N],
    payloads: [MaybeUninit<P>; N],
}

impl<K, P, const N: usize> Node<K, P, N> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn payload(&self, at: usize) -> &P {
        // SAFETY: by the invariant it is initialised, as it is below `len`.
        unsafe { self.payloads[..self.len][at].assume_init_ref() }
    }

    /// Has the processor fetch the payloads while it compares bounds, where they are few bytes: else
    /// one more miss of the caches, of the payload that is wanted, would come after those of the
    /// bounds.
    pub(super) fn prefetch_payloads(&self) {
        if size_of_val(&self.payloads) <= MOST_PREFETCHED {
            prefetch(&raw const self.payloads);
        }
    }
}

impl<K: Bound, P, const N: usize> Node<K, P, N> {
    /// The fewest entries of a node that is not the root.
    pub(super) const LEAST: usize = N / 2;

    /// A node with no entry.
    pub(super) fn try_new(memory: &EngineMemory) -> Result<EngineBox<Self>, EngineMemoryError> {
        const {
            assert!(4 <= N && N < 64, "half of a node is two entries, and the bits of all fit");
            assert!(N.is_multiple_of(4), "bounds are compared four at a time");
        }
        let ids = EngineBox::try_new(memory, [0; N])?;
        EngineBox::try_new(
            memory,
            Self {
                len: 0,
                ids,
                starts: [K::default(); N],
                lasts: [K::default(); N],
                payloads: [const { MaybeUninit::uninit() }; N],
            },
        )
    }

    /// The key of the entry at `at`.
    pub(super) fn key(&self, at: usize) -> (K, u64) {
        (self.starts[..self.len][at], self.ids[at])
    }

    /// The first and the last page of the entry at `at`.
    pub(super) fn bounds(&self, at: usize) -> (K, K) {
        (self.starts[..self.len][at], self.lasts[at])
    }

    /// The last page of all entries.
    pub(super) fn last(&self) -> K {
        self.lasts[..self.len].iter().copied().max().unwrap_or_default()
    }

    /// Where the entry with this key is, or where it would be.
    pub(super) fn position(&self, key: (K, u64)) -> Result<usize, usize> {
        let starts = &self.starts[..self.len];
        let before: u32 = starts.iter().map(|&start| u32::from(start < key.0)).sum();
        let mut at = before as usize;
        while at < self.len && self.key(at) < key {
            at += 1;
        }
        if at < self.len && self.key(at) == key { Ok(at) } else { Err(at) }
    }

    /// A bit for the place of each entry that has a page from `start` to `last`.
    pub(super) fn overlapping(&self, start: K, last: K) -> u64 {
        K::overlapping(&self.starts, &self.lasts, start, last) & ((1 << self.len) - 1)
    }

    /// Changes the key and the last page of the entry at `at`, and says whether they were others.
    pub(super) fn set_bounds(&mut self, at: usize, key: (K, u64), last: K) -> bool {
        if self.key(at) == key && self.lasts[at] == last {
            return false;
        }
        (self.starts[at], self.ids[at]) = key;
        self.lasts[at] = last;
        true
    }

    /// Puts `entry` at `at`, before what is there.
    pub(super) fn insert(&mut self, at: usize, entry: Entry<K, P>) {
        self.open(at, 1);
        self.starts[at] = entry.start;
        self.lasts[at] = entry.last;
        self.ids[at] = entry.id;
        self.payloads[at].write(entry.payload);
        self.len += 1;
    }

    /// Takes the entry at `at` out.
    pub(super) fn remove(&mut self, at: usize) -> Entry<K, P> {
        let (start, last) = self.bounds(at);
        let id = self.ids[at];
        // SAFETY: by the invariant it is initialised, as it is below `len`. It is given up at once.
        let payload = unsafe { self.payloads[at].assume_init_read() };
        self.close(at..at + 1);
        Entry { start, last, id, payload }
    }

    /// Moves the entries `range` of `from` here, to `at`, before what is there.
    pub(super) fn take(&mut self, at: usize, from: &mut Self, range: Range<usize>) {
        if range.start > range.end || range.end > from.len {
            crate::abort::abort(b"a node of an interval tree has not the entries to be moved");
        }
        let count = range.len();
        self.open(at, count);
        let here = at..at + count;
        self.starts[here.clone()].copy_from_slice(&from.starts[range.clone()]);
        self.lasts[here.clone()].copy_from_slice(&from.lasts[range.clone()]);
        self.ids[here.clone()].copy_from_slice(&from.ids[range.clone()]);
        self.payloads[here].swap_with_slice(&mut from.payloads[range.clone()]);
        self.len += count;
        from.close(range);
    }

    /// Moves what is at `at` and behind `count` places up. `len` is as before: whoever fills the
    /// places adds them to it.
    fn open(&mut self, at: usize, count: usize) {
        if at > self.len || count > N - self.len {
            crate::abort::abort(b"a node of an interval tree has no room");
        }
        let moved = at..self.len;
        self.starts.copy_within(moved.clone(), at + count);
        self.lasts.copy_within(moved.clone(), at + count);
        self.ids.copy_within(moved, at + count);
        self.payloads[at..self.len + count].rotate_right(count);
    }

    /// Moves what is behind `gone`, places in use whose payloads were taken, down over them.
    fn close(&mut self, gone: Range<usize>) {
        let moved = gone.end..self.len;
        self.starts.copy_within(moved.clone(), gone.start);
        self.lasts.copy_within(moved.clone(), gone.start);
        self.ids.copy_within(moved, gone.start);
        self.payloads[gone.start..self.len].rotate_left(gone.len());
        self.len -= gone.len();
    }
}

impl<K, P, const N: usize> Drop for Node<K, P, N> {
    fn drop(&mut self) {
        for payload in &mut self.payloads[..self.len] {
            // SAFETY: by the invariant it is initialised; it is not used again.
            unsafe { payload.assume_init_drop() };
        }
    }
}
