//! What a program and its device process share, as who keeps to nothing reaches it.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};

use uhmm::ring::{RingMemory, SLOTS, Words};

/// Where words are, as the layout has it, by their offset in bytes.
pub(crate) const FRAME_COUNT: usize = 24;
pub(crate) const STATE: usize = 60;
pub(crate) const APPLIED: usize = 64;
pub(crate) const WORKERS: usize = 72;
pub(crate) const GIVEN_COUNT: usize = 96;

/// What the state is of a device that serves.
pub(crate) const READY: u32 = 1;

const RING: usize = size_of::<RingMemory>();
pub(crate) const COMMANDS: usize = 128;
pub(crate) const REPORTS: usize = COMMANDS + RING;
const ORDERS: usize = REPORTS + RING;
const GIVEN: usize = ORDERS + 64 * RING;

/// Where the frames begin.
pub(crate) const FRAMES: usize = (GIVEN + 256 * 16).next_multiple_of(PAGE);
pub(crate) const PAGE: usize = 4096;

/// How long it is with so many frames: a byte of notes for each is behind them.
pub(crate) const fn len_with(frames: usize) -> usize {
    FRAMES + frames * PAGE + frames.next_multiple_of(PAGE)
}

/// Where the notes of four frames are, in memory that has so many.
pub(crate) const fn notes(frames: usize, four: usize) -> usize {
    FRAMES + frames * PAGE + 4 * four
}

/// Where a worker's ring of orders is.
pub(crate) const fn orders(worker: usize) -> usize {
    ORDERS + worker * RING
}

/// Where the words of a range are that a launch names.
pub(crate) const fn given(range: usize) -> usize {
    GIVEN + 16 * range
}

/// The memory, for as long as this process lives.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    pub(crate) len: usize,
}

// SAFETY: it is reached by atomic accesses alone.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn map(file: BorrowedFd<'_>) -> Self {
        // SAFETY: fstat fills what it is given.
        let len = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            assert_eq!(libc::fstat(file.as_raw_fd(), &raw mut stat), 0);
            usize::try_from(stat.st_size).expect("a size")
        };
        // SAFETY: the system chooses the addresses.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert!(start != libc::MAP_FAILED);
        Self { start: NonNull::new(start.cast()).expect("an address"), len }
    }

    pub(crate) fn word(&self, offset: usize) -> &'static AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len);
        // SAFETY: the word is in the mapping, which stays, and aligned.
        unsafe { self.start.byte_add(offset).cast().as_ref() }
    }

    pub(crate) fn long_word(&self, offset: usize) -> &'static AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: as above.
        unsafe { self.start.byte_add(offset).cast().as_ref() }
    }

    pub(crate) fn ring(&self, offset: usize) -> &'static RingMemory {
        assert!(offset.is_multiple_of(64) && offset + RING <= self.len);
        // SAFETY: a ring of atomics is in the mapping, which stays, and aligned.
        unsafe { self.start.byte_add(offset).cast().as_ref() }
    }

    /// Says all of it at once, as the first that is said on a ring.
    pub(crate) fn say(&self, ring: usize, messages: &[Words]) {
        assert!(messages.len() <= SLOTS);
        for (slot, message) in messages.iter().enumerate() {
            for (word, value) in message.iter().enumerate() {
                self.long_word(ring + 128 + 64 * slot + 8 * word).store(*value, Relaxed);
            }
        }
        self.claim(ring, u32::try_from(messages.len()).expect("they fit"));
    }

    /// Says that there are so many messages.
    pub(crate) fn claim(&self, ring: usize, messages: u32) {
        self.word(ring).store(messages, SeqCst);
        wake(self.word(ring));
    }
}

/// Wakes the other process where it sleeps on a word.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: it wakes who sleeps on the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
