//! A thread's access to memory in place.

use core::{ffi::c_void, mem::ManuallyDrop, slice};

use uhmm::{AccessorNumber, InPlace, Refuser, Width, engine_memory::EngineMemory, sync::thread_id};

use crate::{
    answer::run,
    device::{self, Attached, Device},
    failure::Failure,
    handles::{self, Held, Object},
    mirror::{self, Accessors, Mirror, Subscribed, drop_boxed, give_boxed},
    space::{Space, SpaceInUse},
    status::Status,
};

/// A handle of an accessor: the right of one thread, of a device in this process, to reach the program's memory
/// where it is. An access is made or refused; it never ends the process and never waits for a page. All zeros are
/// no handle.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Accessor {
    /// For the library alone.
    pub id: u64,
}

/// Whose accessor it is, which is used meanwhile.
enum Of {
    Mirror(Held<Subscribed>),
    Device(Held<Attached>),
}

impl Of {
    fn accessors(&self) -> &Accessors {
        match self {
            Self::Mirror(mirror) => &mirror.1,
            Self::Device(device) => &device.1,
        }
    }
}

/// What is behind such a handle.
///
/// # Invariants
/// `in_place` is used and dropped by the thread that opened it, before `of`, whose it is. The other fields are used
/// by any.
pub(crate) struct Open {
    in_place: ManuallyDrop<InPlace<'static>>,
    of: ManuallyDrop<Of>,
    number: AccessorNumber,
    refuser: Refuser,
    opener: u32,
    memory: EngineMemory,
}

// SAFETY: by the invariant what is a thread's own is used by that alone, which the functions here check.
unsafe impl Sync for Open {}

impl Object for Open {
    const KIND: u8 = 4;
    const NAME: &'static str = "an accessor";
}

impl Open {
    fn check_thread(&self) -> Result<(), Failure> {
        let user = thread_id();
        let opener = self.opener;
        if user == opener { Ok(()) } else { Err(Failure::OtherThread { opener, user }) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // SAFETY: by the invariant this is the thread; neither is used again.
        unsafe {
            ManuallyDrop::drop(&mut self.in_place);
            self.of.accessors().close();
            ManuallyDrop::drop(&mut self.of);
        }
    }
}

/// Opens an accessor, whose place is null or can be written.
///
/// # Safety
/// `in_place` is of what `of` holds.
unsafe fn open(
    space: &SpaceInUse,
    of: Of,
    in_place: InPlace<'static>,
    accessor: *mut Accessor,
) -> Result<(), Failure> {
    if accessor.is_null() {
        return Err(Failure::Null("the place for the handle"));
    }
    let memory = space.engine_memory();
    of.accessors().open();
    let opened = Open {
        number: in_place.number(),
        in_place: ManuallyDrop::new(in_place),
        of: ManuallyDrop::new(of),
        refuser: space.refuser(),
        opener: thread_id(),
        memory: memory.clone(),
    };
    let id = give_boxed(opened, memory)?;
    // SAFETY: the caller's promise.
    unsafe { accessor.write(Accessor { id }) };
    Ok(())
}

/// Opens an accessor of the calling thread for what a mirror maps in place, and writes a handle to `accessor`. Who
/// opened it closes it, before the thread ends and before the mirror does.
///
/// # Safety
/// `accessor` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_mirror_accessor(
    space: Space,
    mirror: Mirror,
    accessor: *mut Accessor,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        let held = mirror::follow(mirror)?;
        let in_place = held.0.in_place().map_err(Failure::Accessor)?;
        // SAFETY: the mirror is held for as long as the accessor is there.
        let in_place = unsafe { core::mem::transmute::<InPlace<'_>, InPlace<'static>>(in_place) };
        // SAFETY: the caller's promise; the one is of the other.
        unsafe { open(&space, Of::Mirror(held), in_place, accessor) }
    })
}

/// Opens an accessor of the calling thread for what a device maps in place. As uhmm_mirror_accessor().
///
/// # Safety
/// `accessor` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_accessor(
    space: Space,
    device: Device,
    accessor: *mut Accessor,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        let held = device::follow(device)?;
        let in_place = held.0.in_place().map_err(Failure::Accessor)?;
        // SAFETY: the device is held for as long as the accessor is there.
        let in_place = unsafe { core::mem::transmute::<InPlace<'_>, InPlace<'static>>(in_place) };
        // SAFETY: the caller's promise; the one is of the other.
        unsafe { open(&space, Of::Device(held), in_place, accessor) }
    })
}

/// Closes an accessor, by the thread that opened it.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_accessor_close(accessor: Accessor) -> Status {
    run(|| {
        let ending = handles::end_if(accessor.id, Open::check_thread)?;
        // SAFETY: it is there until it is dropped.
        let memory = unsafe { ending.object.as_ref() }.memory.clone();
        drop_boxed(ending, memory);
        Ok(())
    })
}

/// Sees to it again that accesses end where they find no page, as the program may have set handlers for SIGSEGV or
/// SIGBUS since. To be called before the first access of each piece of work.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_accessor_renew(accessor: Accessor) -> Status {
    with(accessor, |in_place| in_place.renew().map_err(Failure::Accessor))
}

/// Copies `length` bytes of the program at `address` to `bytes`. Answers UHMM_STATUS_REFUSED where a page is not
/// there or may not be read; some may be copied then. To be called between the look into the device's page table
/// and the end of the access, for which invalidate() waits.
///
/// # Safety
/// `bytes` has room for them. Nobody writes the program's bytes meanwhile but by atomic accesses, or in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_accessor_read(
    accessor: Accessor,
    address: usize,
    bytes: *mut c_void,
    length: usize,
) -> Status {
    with(accessor, |in_place| {
        if length == 0 {
            return Ok(());
        }
        if bytes.is_null() {
            return Err(Failure::Null("the room for bytes"));
        }
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = slice::from_raw_parts_mut(bytes.cast::<u8>(), length);
            in_place.copy_from(address, bytes).map_err(Failure::AccessRefused)
        }
    })
}

/// Copies `length` bytes at `bytes` to the program's memory at `address`. As uhmm_accessor_read().
///
/// # Safety
/// `bytes` has so many. What is at the address may be written, and nobody else accesses it meanwhile but by atomic
/// accesses, or in place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_accessor_write(
    accessor: Accessor,
    address: usize,
    bytes: *const c_void,
    length: usize,
) -> Status {
    with(accessor, |in_place| {
        if length == 0 {
            return Ok(());
        }
        if bytes.is_null() {
            return Err(Failure::Null("the bytes"));
        }
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = slice::from_raw_parts(bytes.cast::<u8>(), length);
            in_place.copy_to(address, bytes).map_err(Failure::AccessRefused)
        }
    })
}

/// Adds to the number of eight bytes at an address that is a multiple of eight, as one atomic access, and writes
/// what was there to `before`, if that is not null. Else as uhmm_accessor_write().
///
/// # Safety
/// As of uhmm_accessor_write(); `before` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_accessor_add(
    accessor: Accessor,
    address: usize,
    number: u64,
    before: *mut u64,
) -> Status {
    with(accessor, |in_place| {
        if !address.is_multiple_of(Width::Eight.bytes()) {
            return Err(Failure::BadNumber {
                name: "the address of a number",
                value: address as u64,
            });
        }
        // SAFETY: the caller's promise; it is aligned.
        let was = unsafe { in_place.fetch_add(address, Width::Eight, number) };
        let was = was.map_err(Failure::AccessRefused)?;
        // SAFETY: the caller's promise.
        unsafe { crate::range::write_to(before, was) };
        Ok(())
    })
}

/// Has an access of an accessor end that is under way, as done or as refused; does nothing where none is. To be
/// called by invalidate(), again and again, while it waits for that access: which may wait for whoever runs
/// invalidate(). Safe in a callback; leaves no message.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_accessor_refuse(accessor: Accessor) -> Status {
    match handles::follow::<Open>(accessor.id) {
        Ok(open) => {
            open.refuser.refuse(open.number);
            Status::Ok
        }
        Err(failure) => failure.status(),
    }
}

/// Does something with the access of a handle.
fn with(accessor: Accessor, work: impl FnOnce(&InPlace<'static>) -> Result<(), Failure>) -> Status {
    run(|| {
        let open = handles::follow::<Open>(accessor.id)?;
        open.check_thread()?;
        work(&open.in_place)
    })
}
