//! Opening and closing the address space, and what is asked of it as a whole.

use core::{
    alloc::Layout,
    ffi::{c_char, c_void},
    ptr::NonNull,
};

use allocator_api2::alloc::Allocator;
use uhmm::{AddressSpace, units::AddressRange};

use crate::{
    answer::run,
    failure::Failure,
    handles::{self, Held, Object},
    range::{Moved, Runs, write_migration, write_to},
    status::Status,
};

/// A handle of the address space of this process: its memory, as its processors and devices see it. There is one a
/// process. All zeros are no handle.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Space {
    /// For the library alone.
    pub id: u64,
}

/// What is behind such a handle.
pub(crate) struct Opened(Option<AddressSpace>);

impl Object for Opened {
    const KIND: u8 = 1;
    const NAME: &'static str = "an address space";
}

/// The address space of a handle.
pub(crate) struct SpaceInUse(Held<Opened>);

impl SpaceInUse {
    pub(crate) fn of(handle: Space) -> Result<Self, Failure> {
        handles::follow::<Opened>(handle.id).map(Self)
    }
}

impl core::ops::Deref for SpaceInUse {
    type Target = AddressSpace;
    fn deref(&self) -> &AddressSpace {
        match &self.0.0 {
            Some(space) => space,
            // It is taken out by who ends the handle alone, when nobody follows it.
            None => uhmm::abort::abort(b"a handle of an address space has none behind it"),
        }
    }
}

/// Opens the address space of this process, and writes a handle of it to `space`. Starts two threads, which serve
/// faults.
///
/// In the child of a fork the handle answers UHMM_STATUS_OTHER_PROCESS, and the child may open its own. fork()
/// brings everything back first, so the child has all content.
///
/// # Safety
/// `space` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_open(space: *mut Space) -> Status {
    run(|| {
        if space.is_null() {
            return Err(Failure::Null("the place for the handle"));
        }
        let opened = Box::new(Opened(Some(AddressSpace::open()?)));
        let object = NonNull::from(Box::leak(opened));
        let given = handles::give(object).inspect_err(|_| {
            // SAFETY: it was leaked above, and nobody has it.
            drop(unsafe { Box::from_raw(object.as_ptr()) });
        });
        // SAFETY: the caller's promise.
        unsafe { space.write(Space { id: given? }) };
        Ok(())
    })
}

/// Brings everything back, stops serving faults, and ends the handle. Waits for calls of other threads to end that
/// use it. Mirrors and devices that are still there get nothing more, and are to be ended as ever.
///
/// Answers UHMM_STATUS_STAYED or UHMM_STATUS_SYSTEM where that cannot be done: what could be brought back is, the
/// handle stays, nothing goes to a device any more, and closing again goes on with the rest.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_close(space: Space) -> Status {
    run(|| {
        let ending = handles::end::<Opened>(space.id)?;
        // SAFETY: nobody else follows the handle now; it came from a box.
        let opened = unsafe { &mut *ending.object.as_ptr() };
        let Some(open) = opened.0.take() else {
            uhmm::abort::abort(b"a handle of an address space has none behind it");
        };
        if let Err(error) = open.close() {
            let (kept, error) = Failure::of_close(error);
            opened.0 = Some(kept);
            ending.keep();
            return Err(error);
        }
        // SAFETY: it came from a box, and is nobody else's any more.
        drop(unsafe { Box::from_raw(ending.done().as_ptr()) });
        Ok(())
    })
}

/// Writes the size of a page in bytes to `bytes`.
///
/// # Safety
/// `bytes` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_page_size(space: Space, bytes: *mut usize) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        // SAFETY: the caller's promise.
        unsafe { write_to(bytes, space.page_size().bytes()) };
        Ok(())
    })
}

/// Lets devices take the anonymous memory of a range, whole pages: what is mapped there now and what will be.
/// Nothing moves until a device wants it. Adopts nothing, and answers UHMM_STATUS_REFUSED, where a part of it is
/// not mapped or never migrates.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_adopt(space: Space, address: usize, length: usize) -> Status {
    run(|| {
        SpaceInUse::of(space)?.adopt(AddressRange::new(address, length)?)?;
        Ok(())
    })
}

/// Lets devices take all anonymous memory that this process has now: heaps, and what it mapped itself. What never
/// migrates is left out: stacks, control blocks of threads, data of loaded objects, the engine's own. Memory that
/// is mapped later is not adopted: call again. Stacks of the program's own in such memory are to be kept
/// (UHMM_ADVICE_STAY). Writes to `pages` how many were adopted, if that is not null.
///
/// # Safety
/// `pages` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_adopt_everything(space: Space, pages: *mut usize) -> Status {
    run(|| {
        let adopted = SpaceInUse::of(space)?.adopt_everything()?;
        // SAFETY: the caller's promise.
        unsafe { write_to(pages, adopted.pages()) };
        Ok(())
    })
}

/// What is said of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Advice {
    /// It stays in system memory from now on, whatever is adopted: what is away comes back, and all is made
    /// present. For stacks of the program's own.
    Stay = 0,
    /// No page of it goes to a device any more. What is away stays until it is touched or brought back.
    Release = 1,
    /// What is away comes back. Devices may take it again.
    BringBack = 2,
    /// What may be done with it has changed (mprotect()), which the system tells nobody: devices see it at once.
    ProtectionChanged = 3,
}

/// Says something of a range, whole pages: `advice` is a uhmm_advice. What moved, and what stayed and why, is
/// written to `moved` and `runs` where they are not null.
///
/// # Safety
/// `moved` and `runs` are null or can be written, and `runs` has the room that it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_advise(
    space: Space,
    address: usize,
    length: usize,
    advice: u32,
    moved: *mut Moved,
    runs: *mut Runs,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        let range = AddressRange::new(address, length)?;
        let report = match advice {
            number if number == Advice::Stay as u32 => Some(space.keep(range)?),
            number if number == Advice::BringBack as u32 => Some(space.bring_back(range)?),
            number if number == Advice::Release as u32 => {
                space.release(range)?;
                None
            }
            number if number == Advice::ProtectionChanged as u32 => {
                space.protection_changed(range)?;
                None
            }
            _ => return Err(Failure::BadNumber { name: "the advice", value: advice.into() }),
        };
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(report) = report {
                write_migration(&report, space.page_size(), moved, runs);
            } else {
                write_to(moved, Moved { moved: 0, already: 0, stayed: 0 });
                if let Some(runs) = runs.as_mut() {
                    runs.count = 0;
                }
            }
        }
        Ok(())
    })
}

/// How often something happened, since the address space was opened.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Counter {
    /// What, in words joined by underscores, with a zero at the end.
    pub name: [c_char; 40],
    /// How often.
    pub value: u64,
}

/// Writes the counters to `counters`, which has room for `capacity`, and how many there are to `count`. What there
/// is no room for is left out: ask with no room first. Takes no lock. Names stay what they are; later versions have
/// more.
///
/// # Safety
/// `counters` is null or has the room; `count` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_counters(
    space: Space,
    counters: *mut Counter,
    capacity: usize,
    count: *mut usize,
) -> Status {
    run(|| {
        let values = SpaceInUse::of(space)?.counters();
        let mut written = 0;
        for (name, value) in values.iter() {
            let mut counter = Counter { name: [0; 40], value };
            // The last byte stays zero.
            for (place, byte) in counter.name.iter_mut().take(39).zip(name.bytes()) {
                *place = c_char::from_ne_bytes([byte]);
            }
            if !counters.is_null() && written < capacity {
                // SAFETY: there is room for so many, by the caller's promise.
                unsafe { counters.add(written).write(counter) };
            }
            written += 1;
        }
        // SAFETY: the caller's promise.
        unsafe { write_to(count, written) };
        Ok(())
    })
}

/// How a block of engine memory lies.
fn layout_of(bytes: usize, align: usize) -> Result<Layout, Failure> {
    let align = if align == 0 { align_of::<u128>() } else { align };
    Layout::from_size_align(bytes.max(1), align)
        .map_err(|_| Failure::NoEngineMemory { bytes, align })
}

/// Allocates engine memory, for what a device's functions touch: it never migrates and is not inherited by a fork.
/// `align` is a power of two, or 0 for what any type needs. It is filled with zeros. Writes the block's address to
/// `block`. All of it ends with the address space, when the last mirror and device have ended too.
///
/// # Safety
/// `block` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_engine_allocate(
    space: Space,
    bytes: usize,
    align: usize,
    block: *mut *mut c_void,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        if block.is_null() {
            return Err(Failure::Null("the place for the block's address"));
        }
        let layout = layout_of(bytes, align)?;
        let had = space.engine_memory().allocate_zeroed(layout);
        let had = had.map_err(|_| Failure::NoEngineMemory { bytes, align: layout.align() })?;
        // SAFETY: the caller's promise.
        unsafe { block.write(had.as_ptr().cast()) };
        Ok(())
    })
}

/// Gives a block of engine memory back, of so many bytes, with that alignment, which uhmm_engine_allocate() gave. A
/// null `block` is nothing.
///
/// # Safety
/// Nobody uses the block any more, and it has this length and alignment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_engine_free(
    space: Space,
    block: *mut c_void,
    bytes: usize,
    align: usize,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        let Some(block) = NonNull::new(block.cast::<u8>()) else { return Ok(()) };
        let memory = space.engine_memory();
        if !memory.contains(block.as_ptr().addr()) {
            return Err(Failure::NotEngineMemory { address: block.as_ptr().addr() });
        }
        // SAFETY: it is of this memory, and by the caller's promise of this layout and nobody's.
        unsafe { memory.deallocate(block, layout_of(bytes, align)?) };
        Ok(())
    })
}
