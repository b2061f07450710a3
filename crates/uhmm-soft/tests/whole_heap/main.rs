//! The whole heap goes to devices and comes back, again and again, while the program works.
//!
//! Two devices in software are attached. A thread adopts everything that the process has and
//! migrates what `/proc/self/maps` lists, back and forth, while others do what programs do: they
//! allocate and free, grow and shrink, map, remap and discard, start and end threads, lock and
//! unlock, call the system with buffers on the heap, and take signals. Each checks all that it
//! reads; a byte that is not as it was left ends the process. So does an engine thread that uses
//! the heap: the allocator here looks at who calls. It is the system's, jemalloc or mimalloc.
//!
//! The work is done in a process of its own. The test watches from outside, as whoever hangs in
//! there cannot be relied on to say so: where one kind of work makes no progress for a minute it
//! reports what each thread is waiting in, and ends the process.
//!
//! | variable | meaning | where unset |
//! | --- | --- | --- |
//! | `UHMM_CHAOS_SECONDS` | how long the work goes on | 12 |
//! | `UHMM_CHAOS_STALL_SECONDS` | after how long without progress it counts as hung | 60 |
//! | `UHMM_CHAOS_SEED` | the seed of all random choices | the time |
//! | `UHMM_CHAOS_ONLY` | kinds of work to do, separated by commas | all |

mod allocator;
mod areas;
mod calls;
mod chaos;
mod collector;
mod devices;
mod forks;
mod heap;
mod jump;
mod locks;
mod processes;
mod progress;
mod random;
mod signals;
mod threads;
mod timers;
mod watch;
mod work;

use allocator::{Allocator, ForTheProgram};
use progress::Kind;

#[global_allocator]
static HEAP: ForTheProgram = ForTheProgram;

#[test]
fn the_whole_heap_migrates_under_load() {
    watch::run(Allocator::System, &[]);
}

#[test]
fn the_heap_of_jemalloc_migrates_under_load() {
    watch::run(Allocator::Jemalloc, &[]);
}

#[test]
fn the_heap_of_mimalloc_migrates_under_load() {
    watch::run(Allocator::Mimalloc, &[]);
}

#[test]
fn a_program_that_lives_by_signals_migrates_under_load() {
    let kinds = [Kind::Chaos, Kind::Devices, Kind::Boxes, Kind::Signals, Kind::Timers];
    watch::run(Allocator::System, &kinds);
}

#[test]
fn a_program_that_handles_its_own_faults_migrates_under_load() {
    let kinds = [Kind::Chaos, Kind::Devices, Kind::Boxes, Kind::Collector];
    watch::run(Allocator::System, &kinds);
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn work_in_a_process_of_its_own() {
    work::run();
}
