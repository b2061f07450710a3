//! The allocator of this library: engine memory of its own.
//!
//! The program's allocator is not ours to use. It may be what the call at hand came from, its state may
//! be damaged, which is the program's affair, and what it hands out may be away.
//!
//! Engine memory is not inherited. In the child of a fork a new one is made, and what points into the
//! parent's is not followed.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
    sync::atomic::{
        AtomicPtr,
        Ordering::{AcqRel, Acquire},
    },
};

use allocator_api2::alloc::Allocator;
use uhmm::engine_memory::EngineMemory;

use crate::observe;

/// The most that this library ever needs: reports of calls, and lists of areas. It is address space.
const LIMIT: usize = 1 << 30;
/// The same where a trace is written of all that happens.
const LIMIT_OF_TRACES: usize = 8 << 30;

/// What a process has.
struct Held {
    process: u32,
    memory: EngineMemory,
}

static HELD: AtomicPtr<Held> = AtomicPtr::new(ptr::null_mut());

/// The memory of this process, made if there is none; `None` where it cannot be had.
pub(crate) fn memory() -> Option<&'static EngineMemory> {
    let process = std::process::id();
    let known = HELD.load(Acquire);
    // SAFETY: it is null or points to a mapping that is never unmapped, and is inherited.
    if let Some(held) = unsafe { known.as_ref() }
        && held.process == process
    {
        return Some(&held.memory);
    }
    let memory = EngineMemory::map(if observe::traces() { LIMIT_OF_TRACES } else { LIMIT }).ok()?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let place = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<Held>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if place == libc::MAP_FAILED {
        return None;
    }
    let held = place.cast::<Held>();
    // SAFETY: it is a page of this function's own.
    unsafe { held.write(Held { process, memory }) };
    if HELD.compare_exchange(known, held, AcqRel, Acquire).is_ok() {
        // SAFETY: it is never unmapped.
        return Some(unsafe { &(*held).memory });
    }
    // SAFETY: nobody else knows of it.
    unsafe {
        ptr::drop_in_place(held);
        libc::munmap(place, size_of::<Held>());
    }
    self::memory()
}

/// The allocator.
struct Ours;

// SAFETY: engine memory is an allocator, from which each block comes and to which it goes back; a block of
// another process's is never handed out again.
unsafe impl GlobalAlloc for Ours {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        memory()
            .and_then(|memory| memory.allocate(layout).ok())
            .map_or(ptr::null_mut(), |block| block.as_ptr().cast())
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let (Some(memory), Some(block)) = (memory(), NonNull::new(block))
            && memory.contains(block.as_ptr().addr())
        {
            // SAFETY: it was allocated there, with this layout, by the caller's promise.
            unsafe { memory.deallocate(block, layout) };
        }
    }
}

#[global_allocator]
static ALLOCATOR: Ours = Ours;
