//! Either side, for a fuzzer that plays the other process.
//!
//! What is a thread of a side is here a function that the fuzzer calls, and which returns where it has nothing to do.
//! Wherever a side waits for the other process it is the fuzzer's turn, and nobody sleeps.

use core::{
    ptr,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64},
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::OnceLock,
};

use rustix::event::EventfdFlags;
use uhmm::{
    ring::{Limits, RingMemory},
    units::PageSize,
};

use super::layout::{Mapping, Shared};
use crate::kernels::Kernel;

pub use super::{device::fuzzing::Process, driver::fuzzing::Program};

static TURN: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what the other process does in its turn, once. It answers whether the other process is gone, which the
/// program's side asks [elsewhere](Between::die).
pub fn play(turn: fn() -> bool) {
    TURN.get_or_init(|| turn);
}

/// It is the fuzzer's turn.
pub(super) fn turn() -> bool {
    TURN.get().is_some_and(|turn| turn())
}

/// The memory that both sides have, as the side that the fuzzer plays has it, and by what that side is seen to end.
pub struct Between {
    file: OwnedFd,
    mapping: Mapping,
    process: OwnedFd,
}

/// What lies before the frames.
#[derive(Clone, Copy)]
pub struct Head<'m> {
    /// What the program tells the page table.
    pub commands: &'m RingMemory,
    /// What the device tells of its work.
    pub reports: &'m RingMemory,
    /// What the program has each worker do.
    pub orders: &'m [RingMemory],
    /// How far the device process is.
    pub state: &'m AtomicU32,
    /// How many commands the device has applied.
    pub applied: &'m AtomicU32,
    /// How many wait for that.
    pub awaited: &'m AtomicU32,
    /// How many items of a launch were taken.
    pub taken: &'m AtomicU64,
    /// Whether one failed.
    pub failed: &'m AtomicU32,
    /// How many commands come before a launch.
    pub launched_after: &'m AtomicU32,
    /// How many ranges a launch names.
    pub given_count: &'m AtomicU32,
    /// The ranges.
    pub given: &'m [[AtomicU64; 2]],
    /// All of it.
    pub words: &'m [AtomicU32],
}

impl Between {
    /// Memory for a device that there is so much of, which the program has introduced.
    ///
    /// # Panics
    /// The system gives no memory.
    pub fn new(limits: &Limits, kernels: &[Kernel]) -> Self {
        let page_size = PageSize::new(limits.page_bytes).expect("a size of pages");
        let (file, mapping) = Mapping::create(limits.frames, page_size).expect("memory");
        mapping.shared().introduce(limits, kernels);
        // A process that lives, and that no signal ends.
        let process = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
        Self { file, mapping, process }
    }

    /// What lies before the frames.
    pub fn head(&self) -> Head<'_> {
        let shared = self.mapping.shared();
        let (first, count) = (ptr::from_ref(shared).cast(), size_of::<Shared>() / 4);
        // SAFETY: it is atomics, aligned to more than words, whose bytes are all words too.
        let words = unsafe { core::slice::from_raw_parts(first, count) };
        let Shared { commands, reports, orders, state, applied, awaited, taken, failed, .. } =
            shared;
        let Shared { launched_after, given_count, given, .. } = shared;
        Head {
            commands,
            reports,
            orders,
            state,
            applied,
            awaited,
            taken,
            failed,
            launched_after,
            given_count,
            given,
            words,
        }
    }

    /// Where the frames are, and their length in bytes.
    pub fn frames(&self) -> (*mut u8, usize) {
        let (first, len) = self.mapping.part(0, self.mapping.frames());
        (first.as_ptr(), len)
    }

    /// What the device notes of each frame.
    pub fn notes(&self) -> &[AtomicU8] {
        self.mapping.notes().0
    }

    /// The device process ends.
    ///
    /// # Panics
    /// The system cannot say so.
    pub fn die(&self) {
        rustix::io::write(&self.process, &1_u64.to_ne_bytes()).expect("it is seen to end");
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The memory as the other side has it.
    pub(super) fn map(&self) -> Mapping {
        let (frames, page_size) = (self.mapping.frames(), self.mapping.page_size());
        Mapping::map(&self.file, frames, page_size).expect("memory")
    }

    /// By what the program sees the process end.
    pub(super) fn process(&self) -> OwnedFd {
        self.process.try_clone().expect("a descriptor")
    }
}
