//! What is noted of each thread: a few numbers, at a place that every thread has in its control block.
//!
//! std's thread-locals will not do. In a library that is loaded at run time they are found through a table
//! of the thread's, which libc allocates on the heap, so that it can be away; and who looks there may hold a
//! lock of the engine, or be the thread that would bring it back. Here the place is fixed as the library is
//! loaded, and is reached by an addition (the *initial-exec* model of "ELF Handling For Thread-Local
//! Storage"). Its page is kept for every thread (`mm/linux/exclusions.rs`).

use core::cell::Cell;

/// What is noted of a thread. At first all is zero.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct ThisThread {
    /// How many proofs there are that signals are blocked, and which were before the first.
    pub(crate) signals_blocked: Cell<(usize, u64)>,
    /// How many accessors of memory in place it has, and which signals were blocked before the first.
    pub(crate) accessors: Cell<(usize, u64)>,
    /// How many guards there are by which its work is urgent.
    pub(crate) urgent: Cell<usize>,
    /// The mirror whose callback it runs.
    pub(crate) calling: Cell<u64>,
    /// The locks of blocks that it holds, and its stays in the gate: for the check of their order.
    pub(crate) held: Cell<(u32, u32)>,
    /// The system's number of it, once it was asked for.
    pub(crate) id: Cell<u32>,
    /// Whether it is the engine's.
    pub(crate) is_engine_thread: Cell<bool>,
}

/// The calling thread's.
#[inline]
pub(crate) fn this_thread() -> &'static ThisThread {
    // SAFETY: the place is aligned, has the size, is there from the thread's begin to its end, and was zero
    // at first, which is a value of each field. The reference stays on the thread: what it refers to is not
    // `Sync`.
    unsafe { &*place::of_this_thread() }
}

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(shuttle, miri))))]
mod place {
    use super::ThisThread;
    use crate::processor::this_thread;

    const _: () = assert!(
        size_of::<ThisThread>() <= this_thread::BYTES
            && align_of::<ThisThread>() <= this_thread::ALIGN
    );

    #[inline]
    pub(super) fn of_this_thread() -> *const ThisThread {
        this_thread::place().cast()
    }
}

/// Where the processor's way is not known, or there is none, and nothing is away.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(any(shuttle, miri)))))]
mod place {
    #![expect(clippy::disallowed_macros, reason = "in these worlds nothing is away")]
    use super::ThisThread;

    thread_local! {
        static THIS: ThisThread = const {
            use core::cell::Cell;
            ThisThread {
                signals_blocked: Cell::new((0, 0)),
                accessors: Cell::new((0, 0)),
                urgent: Cell::new(0),
                calling: Cell::new(0),
                held: Cell::new((0, 0)),
                id: Cell::new(0),
                is_engine_thread: Cell::new(false),
            }
        };
    }

    pub(super) fn of_this_thread() -> *const ThisThread {
        THIS.with(core::ptr::from_ref)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::testing::spawn;

    #[test]
    fn each_thread_has_its_own_and_begins_with_nothing() {
        this_thread().urgent.set(this_thread().urgent.get() + 1);
        let here = core::ptr::from_ref(this_thread()).addr();
        let there = spawn(|| {
            let this = this_thread();
            assert_eq!((this.urgent.get(), this.signals_blocked.get()), (0, (0, 0)));
            this.urgent.set(7);
            core::ptr::from_ref(this).addr()
        });
        assert_ne!(there.join().unwrap(), here);
        assert_eq!(core::ptr::from_ref(this_thread()).addr(), here);
        assert_eq!(this_thread().urgent.replace(0), 1);
    }
}
