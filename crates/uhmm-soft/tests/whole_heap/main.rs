//! The whole heap goes to devices and comes back, again and again, while the program works.
//!
//! Two devices in software are attached. A thread adopts everything that the process has and
//! migrates what `/proc/self/maps` lists, back and forth, while others do what programs do: they
//! allocate and free, grow and shrink, map, remap and discard, start and end threads, lock and
//! unlock, call the system with buffers on the heap, and take signals. Each checks all that it
//! reads; a byte that is not as it was left ends the process. So does an engine thread that uses
//! the heap: the allocator here looks at who calls.
//!
//! The work is done in a process of its own. The test watches from outside, as whoever hangs in
//! there cannot be relied on to say so: where one kind of work makes no progress for a minute it
//! reports what each thread is waiting in, and ends the process.
//!
//! | variable | meaning | where unset |
//! | --- | --- | --- |
//! | `UHMM_CHAOS_SECONDS` | how long the work goes on | 20 |
//! | `UHMM_CHAOS_STALL_SECONDS` | after how long without progress it counts as hung | 60 |
//! | `UHMM_CHAOS_SEED` | the seed of all random choices | the time |
//! | `UHMM_CHAOS_ONLY` | kinds of work to do, separated by commas | all |

mod areas;
mod calls;
mod chaos;
mod devices;
mod heap;
mod locks;
mod processes;
mod progress;
mod random;
mod signals;
mod threads;
mod watch;
mod work;

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, for all but the engine's threads.
struct ForTheProgram;

fn check_caller() {
    if uhmm::engine_memory::on_engine_thread() {
        uhmm::abort::abort(b"an engine thread uses the process's heap");
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for ForTheProgram {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_caller();
        // SAFETY: the contracts are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check_caller();
        // SAFETY: the contracts are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        check_caller();
        // SAFETY: the contracts are the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check_caller();
        // SAFETY: the contracts are the same.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static HEAP: ForTheProgram = ForTheProgram;

#[test]
fn the_whole_heap_migrates_under_load() {
    watch::run();
}

#[test]
#[ignore = "run by `the_whole_heap_migrates_under_load`, in a process of its own"]
fn work_in_a_process_of_its_own() {
    work::run();
}
