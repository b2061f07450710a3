//! Devices with memory of their own, into which pages move.

use uhmm::{Attachment, mm::Access, units::AddressRange};

use crate::{
    answer::run,
    calls::{Calls, Table},
    failure::Failure,
    handles::{self, Held, Object},
    mirror::{Accessors, drop_boxed, give_boxed},
    range::{self, Ask, Faulted, Moved, Page, Runs, write_migration, write_to},
    space::{Space, SpaceInUse},
    status::Status,
};

/// A handle of a device with memory of its own. All zeros are no handle.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Device {
    /// For the library alone.
    pub id: u64,
}

/// What is behind such a handle.
pub(crate) struct Attached(pub(crate) Attachment<Table>, pub(crate) Accessors);

impl Object for Attached {
    const KIND: u8 = 3;
    const NAME: &'static str = "a device";
}

pub(crate) fn follow(handle: Device) -> Result<Held<Attached>, Failure> {
    handles::follow::<Attached>(handle.id)
}

/// Attaches a device with a memory of `frames` pages, into which pages move without a copy, and writes a handle to
/// `device`. It has a mirror of the whole address space. There can be sixteen at a time. The functions are copied;
/// their data must stay.
///
/// # Safety
/// `calls` is null or valid, and its functions keep to what is said of them; `device` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_attach(
    space: Space,
    frames: usize,
    calls: *const Calls,
    device: *mut Device,
) -> Status {
    run(|| {
        let space = SpaceInUse::of(space)?;
        if device.is_null() {
            return Err(Failure::Null("the place for the handle"));
        }
        // SAFETY: the caller's promise.
        let table = unsafe { Table::new(calls, space.page_size()) }?;
        let attached = Attached(space.attach(table, frames)?, Accessors::default());
        let id = give_boxed(attached, space.engine_memory())?;
        // SAFETY: the caller's promise.
        unsafe { device.write(Device { id }) };
        Ok(())
    })
}

/// Brings back all that a device holds, and ends it: when it returns no function of it runs or will. Waits for
/// calls that use the handle. Answers UHMM_STATUS_IN_USE where accessors of it are open. The process ends where a
/// page cannot be brought back for want of memory.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_device_detach(device: Device) -> Status {
    run(|| {
        let ending = handles::end_if(device.id, |device: &Attached| device.1.check_none())?;
        // SAFETY: it is there until it is dropped.
        let memory = unsafe { ending.object.as_ref() }.0.engine_memory().clone();
        drop_boxed(ending, memory);
        Ok(())
    })
}

/// Writes a device's number among the devices to `number`, and how many frames hold a page to `used`, where they
/// are not null.
///
/// # Safety
/// Both are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_state(
    device: Device,
    number: *mut u32,
    used: *mut usize,
) -> Status {
    run(|| {
        let device = &follow(device)?.0;
        // SAFETY: the caller's promise. There are few devices.
        unsafe {
            write_to(number, u32::try_from(device.index().number()).unwrap_or(u32::MAX));
            write_to(used, device.frames_used());
        }
        Ok(())
    })
}

/// Returns when every change of the address space that the program made before is applied: a device has no
/// translation of what was unmapped, moved or discarded. To be called before a device begins work that the program
/// gave it.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_device_settle(device: Device) -> Status {
    run(|| {
        follow(device)?.0.settle();
        Ok(())
    })
}

/// Where pages are to move.
enum Way {
    ToDevice,
    ToSystem,
    Exclusive,
}

/// # Safety
/// As of the functions below.
unsafe fn migrate(
    device: Device,
    (address, length): (usize, usize),
    way: &Way,
    moved: *mut Moved,
    runs: *mut Runs,
) -> Status {
    run(|| {
        let device = &follow(device)?.0;
        let range = AddressRange::new(address, length)?;
        let report = match way {
            Way::ToDevice => device.migrate(range),
            Way::ToSystem => device.bring_back(range),
            Way::Exclusive => device.make_exclusive(range),
        }?;
        // SAFETY: the caller's promise.
        unsafe { write_migration(&report, device.page_size(), moved, runs) };
        Ok(())
    })
}

/// Moves a range, whole pages, to a device, as far as it will go. What moved, and what stayed and why, is written
/// to `moved` and `runs` where they are not null. That pages stayed is no failure.
///
/// # Safety
/// `moved` and `runs` are null or can be written, and `runs` has the room that it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_migrate(
    device: Device,
    address: usize,
    length: usize,
    moved: *mut Moved,
    runs: *mut Runs,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe { migrate(device, (address, length), &Way::ToDevice, moved, runs) }
}

/// Brings back what of a range is on a device. As uhmm_device_migrate().
///
/// # Safety
/// As of uhmm_device_migrate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_bring_back(
    device: Device,
    address: usize,
    length: usize,
    moved: *mut Moved,
    runs: *mut Runs,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe { migrate(device, (address, length), &Way::ToSystem, moved, runs) }
}

/// Moves a range to a device which alone may access it, until somebody else does, which the device is told before.
/// As uhmm_device_migrate().
///
/// # Safety
/// As of uhmm_device_migrate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_make_exclusive(
    device: Device,
    address: usize,
    length: usize,
    moved: *mut Moved,
    runs: *mut Runs,
) -> Status {
    // SAFETY: the caller's promise.
    unsafe { migrate(device, (address, length), &Way::Exclusive, moved, runs) }
}

/// Serves a fault of a device: brings the page at an address, and its neighbours where they will come. When it
/// returns the device has been told of the page's translation; it may have lost it again, and faults again then.
/// Answers UHMM_STATUS_REFUSED where the page cannot go there.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_device_fault(device: Device, address: usize, write: bool) -> Status {
    run(|| {
        let access = if write { Access::Write } else { Access::Read };
        Ok(follow(device)?.0.fault(address, access)?)
    })
}

/// Makes a range accessible to a device where it is: in system memory, in the device's, or in a peer's. As
/// uhmm_mirror_fault(); what each page is then is told by uhmm_device_look().
///
/// # Safety
/// As of uhmm_mirror_fault().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_fault_range(
    device: Device,
    ask: *const Ask,
    faulted: *mut Faulted,
    runs: *mut Runs,
) -> Status {
    run(|| {
        let device = &follow(device)?.0;
        let no_pages = core::ptr::null_mut();
        // SAFETY: the caller's promise.
        unsafe {
            range::fault_range(device.page_size(), (ask, no_pages, faulted, runs), |request, _| {
                device.fault_range(request)
            })
        }
    })
}

/// Looks what a fault of a range would find now, page by page, and changes nothing. `pages` has room for all.
///
/// # Safety
/// `pages` is null or has the room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn uhmm_device_look(
    device: Device,
    address: usize,
    length: usize,
    pages: *mut Page,
) -> Status {
    run(|| {
        let device = &follow(device)?.0;
        // SAFETY: the caller's promise.
        unsafe {
            range::snapshot(device.page_size(), (address, length, pages), |range, entries| {
                device.snapshot(range, entries)
            })
        }
    })
}
