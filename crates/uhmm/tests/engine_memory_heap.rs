//! Engine threads do not use the process's heap: here it ends the process when they do.
#![cfg(not(any(shuttle, miri)))]
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use uhmm::{
    engine_box_as,
    engine_memory::{EngineBox, EngineMemory, EngineVec, on_engine_thread, thread},
    sync::SignalsBlocked,
};

struct Guarded;

/// A panic is std's, and std makes it on the heap.
static PANICS_MAY_ALLOCATE: AtomicBool = AtomicBool::new(false);

fn check() {
    if on_engine_thread() && !PANICS_MAY_ALLOCATE.load(Relaxed) {
        uhmm::abort::abort(b"an engine thread uses the process's heap");
    }
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the contracts are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        check();
        // SAFETY: the contracts are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static HEAP: Guarded = Guarded;

#[test]
fn an_engine_thread_runs_on_engine_memory_alone() {
    static SUM: AtomicUsize = AtomicUsize::new(0);
    let memory = EngineMemory::map(8 << 20).unwrap();
    let own = memory.clone();
    let thread = thread::spawn(&memory, c"uhmm-clean", move |_| {
        let mut vec = EngineVec::new(own.clone());
        for number in 0..10_000_usize {
            vec.try_push(number).unwrap();
        }
        let table = EngineBox::<[u64]>::try_zeroed(&own, 100_000).unwrap();
        let add = EngineBox::try_new(&own, |number: usize| number + 1).unwrap();
        let add = engine_box_as!(add, dyn Fn(usize) -> usize);
        assert!(EngineVec::<u8>::try_with_capacity(&own, 1 << 30).is_err());
        let inner = thread::spawn(&own, c"uhmm-inner", |_| {});
        SUM.store(add(vec.len()) + table.len(), Relaxed);
        // Starting a thread uses the heap of libc itself, which is not this one.
        inner.unwrap().join();
    });
    thread.unwrap().join();
    assert_eq!(SUM.load(Relaxed), 110_001);
    assert_eq!(memory.used(), 0);
}

/// Runs an ignored test in a process of its own, which is to abort, and returns what it said.
fn aborts(test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_engine_thread_that_uses_the_heap_is_caught() {
    let said = aborts("uses_the_heap");
    assert!(said.contains("uhmm: an engine thread uses the process's heap"), "{said}");
}

#[test]
#[ignore = "run by `an_engine_thread_that_uses_the_heap_is_caught`, in a process of its own"]
fn uses_the_heap() {
    let memory = EngineMemory::map(8 << 20).unwrap();
    let run = |_: &SignalsBlocked| drop(std::hint::black_box(Box::new(1)));
    thread::spawn(&memory, c"uhmm-dirty", run).unwrap().join();
}

#[test]
fn a_panic_ends_the_process_with_the_threads_name() {
    let said = aborts("panics");
    assert!(said.contains("uhmm: an engine thread panicked: uhmm-panics"), "{said}");
}

#[test]
#[ignore = "run by `a_panic_ends_the_process_with_the_threads_name`, in a process of its own"]
fn panics() {
    PANICS_MAY_ALLOCATE.store(true, Relaxed);
    let memory = EngineMemory::map(8 << 20).unwrap();
    thread::spawn(&memory, c"uhmm-panics", |_| panic!("wanted by a test")).unwrap().join();
}
