//! The allocator of the program: the system's, jemalloc or mimalloc, by an environment variable, as all
//! of them are in one test. An engine thread that uses it ends the process.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use mimalloc::MiMalloc;
use tikv_jemallocator::Jemalloc;

/// Which allocator the program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocator {
    System,
    Jemalloc,
    Mimalloc,
}

/// The variable by which it is chosen: the first letter counts.
pub(crate) const ALLOCATOR: &str = "UHMM_CHAOS_ALLOCATOR";

const NOT_CHOSEN: u8 = 0;
static CHOSEN: AtomicU8 = AtomicU8::new(NOT_CHOSEN);

impl Allocator {
    /// Its name, as the variable has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Jemalloc => "jemalloc",
            Self::Mimalloc => "mimalloc",
        }
    }

    /// That of this process, which does not change. Uses no memory.
    pub(crate) fn chosen() -> Self {
        let mut letter = CHOSEN.load(Relaxed);
        if letter == NOT_CHOSEN {
            // SAFETY: the name is a string, and nobody changes the environment as early as this.
            let value = unsafe { libc::getenv(c"UHMM_CHAOS_ALLOCATOR".as_ptr()) };
            // SAFETY: what is there is a string, which has a first byte.
            letter = if value.is_null() { b's' } else { unsafe { value.cast::<u8>().read() } };
            CHOSEN.store(letter, Relaxed);
        }
        match letter {
            b'j' => Self::Jemalloc,
            b'm' => Self::Mimalloc,
            _ => Self::System,
        }
    }
}

/// The allocator that was chosen, for all but the engine's threads.
pub(crate) struct ForTheProgram;

/// Calls a function of the allocator that was chosen.
macro_rules! chosen {
    ($function:ident($($argument:expr),*)) => {{
        if uhmm::engine_memory::on_engine_thread() {
            uhmm::abort::abort(b"an engine thread uses the process's heap");
        }
        // SAFETY: the contracts are the same, and memory goes back to who gave it, as the choice does
        // not change.
        unsafe {
            match Allocator::chosen() {
                Allocator::System => System.$function($($argument),*),
                Allocator::Jemalloc => Jemalloc.$function($($argument),*),
                Allocator::Mimalloc => MiMalloc.$function($($argument),*),
            }
        }
    }};
}

// SAFETY: the allocator that was chosen does the work.
unsafe impl GlobalAlloc for ForTheProgram {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        chosen!(alloc(layout))
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        chosen!(alloc_zeroed(layout))
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        chosen!(dealloc(at, layout));
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        chosen!(realloc(at, layout, bytes))
    }
}
