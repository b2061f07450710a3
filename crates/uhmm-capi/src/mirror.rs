//! Mirrors: devices that map memory where it is.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use uhmm::{
    Mirror as CoreMirror,
    engine_memory::{EngineBox, EngineMemory},
    units::AddressRange,
};

use crate::{
    answer::run,
    calls::{Calls, Table},
    failure::Failure,
    handles::{self, Held, Object},
    range::{self, Ask, Faulted, Page, Runs},
    space::{Space, SpaceInUse},
    status::Status,
};

/// A handle of a mirror: a device's subscription to a range. All zeros are no handle.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Mirror {
    /// For the library alone.
    pub id: u64,
}

/// What is behind such a handle.
pub(crate) struct Subscribed(pub(crate) CoreMirror<Table>, pub(crate) Accessors);

/// How many accessors of a mirror or device are open.
#[derive(Default)]
pub(crate) struct Accessors(AtomicUsize);

impl Accessors {
    /// One more.
    pub(crate) fn open(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less.
    pub(crate) fn close(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// Nothing, where none is open.
    pub(crate) fn check_none(&self) -> Result<(), Failure> {
        match self.0.load(Relaxed) {
            0 => Ok(()),
            accessors => Err(Failure::InUse { accessors }),
        }
    }
}

impl Object for Subscribed {
    const KIND: u8 = 2;
    const NAME: &'static str = "a mirror";
}

pub(crate) fn follow(handle: Mirror) -> Result<Held<Subscribed>, Failure> {
    handles::follow::<Subscribed>(handle.id)
}

/// Gives a handle to what is put into engine memory.
pub(crate) fn give_boxed<T: Object>(value: T, memory: &EngineMemory) -> Result<u64, Failure> {
    let (object, memory) = EngineBox::into_raw(EngineBox::try_new(memory, value)?);
    match NonNull::new(object) {
        Some(given) => handles::give(given).inspect_err(|_| {
            // SAFETY: it was taken apart above, and nobody has it.
            drop(unsafe { EngineBox::from_raw(object, memory) });
        }),
        None => uhmm::abort::abort(b"a value in engine memory has no address"),
    }
}

/// Ends a handle to what is in engine memory, and that.
pub(crate) fn drop_boxed<T: Object>(ending: handles::Ending<T>, memory: EngineMemory) {
    // SAFETY: it was taken apart by `give_boxed`, in this memory, and is nobody else's any more.
    drop(unsafe { EngineBox::from_raw(ending.done().as_ptr(), memory) });
}

/// Subscribes a device without memory of its own to a range, whole pages of any kind of memory, mapped or not, and
/// writes a handle to `mirror`. A length of 0 at address 0 is the whole address space. Nothing is watched or made
/// present until the device faults. The functions are copied; their data must stay.
///
/// # Safety
/// `calls` is null or valid, and its functions keep to what is said of them; `mirror` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_mirror_begin(
    space: Space,
    address: usize,
    length: usize,
    calls: *const Calls,
    mirror: *mut Mirror,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        if mirror.is_null() {
            return Err(Failure::Null("the place for the handle"));
        }
        let range = match (address, length) {
            (0, 0) => space.everything(),
            _ => AddressRange::new(address, length)?,
        };
        // SAFETY: the caller's promise.
        let table = unsafe { Table::new(calls, space.page_size()) }?;
        let subscribed = Subscribed(space.mirror(range, table)?, Accessors::default());
        let id = give_boxed(subscribed, space.engine_memory())?;
        // SAFETY: the caller's promise.
        unsafe { mirror.write(Mirror { id }) };
        Ok(())
    })
}

/// Ends a mirror, from any thread: when it returns no function of it runs or will. Waits for calls that use the
/// handle. Answers UHMM_STATUS_IN_USE where accessors of it are open.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_mirror_end(mirror: Mirror) -> Status {
    run(|| {
        let ending = handles::end_if(mirror.id, |mirror: &Subscribed| mirror.1.check_none())?;
        // SAFETY: it is there until it is dropped.
        let memory = unsafe { ending.object.as_ref() }.0.engine_memory().clone();
        drop_boxed(ending, memory);
        Ok(())
    })
}

/// Makes a range accessible to a mirror's device as `ask` says, and has translations of it entered. When it returns
/// each page has a translation, or is reported with why it has none. A translation holds until its invalidation,
/// which can come at once. Where they are not null, `pages` gets each page, of which it has room for all; `faulted`
/// how many had what; and `runs` those that cannot be had.
///
/// # Safety
/// `ask` is null or valid, with its wishes; the others are null or can be written, with the room that is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_mirror_fault(
    mirror: Mirror,
    ask: *const Ask,
    pages: *mut Page,
    faulted: *mut Faulted,
    runs: *mut Runs,
) -> Status {
    run(|| {
        let mirror = &follow(mirror)?.0;
        // SAFETY: the caller's promise.
        unsafe {
            range::fault_range(
                mirror.page_size(),
                (ask, pages, faulted, runs),
                |request, entries| match entries {
                    Some(entries) => mirror.fault_into(request, entries),
                    None => mirror.fault(request),
                },
            )
        }
    })
}

/// Looks what a fault of a range would find now, page by page, and changes nothing. `pages` has room for all.
///
/// # Safety
/// `pages` is null or has the room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_mirror_look(
    mirror: Mirror,
    address: usize,
    length: usize,
    pages: *mut Page,
) -> Status {
    run(|| {
        let mirror = &follow(mirror)?.0;
        // SAFETY: the caller's promise.
        unsafe {
            range::snapshot(mirror.page_size(), (address, length, pages), |range, entries| {
                mirror.snapshot(range, entries)
            })
        }
    })
}
