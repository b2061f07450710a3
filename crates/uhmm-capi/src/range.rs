//! Requests, pages and reports, as C has them.

use core::{
    ffi::{CStr, c_char},
    slice,
};

use uhmm::{
    Migration, Override, PageEntry, PageError, PageState, RangeFaultError, RangeReport, Request,
    StayCause, Want as CoreWant,
    units::{AddressRange, PageRange, PageSize},
};

use crate::failure::Failure;

/// What a device wants of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Want {
    /// To read those that are there. Nothing is made present.
    Present = 0,
    /// To read. A page is made present as a load would.
    Read = 1,
    /// To write. A page is made present, and the process's own, as a store would.
    Write = 2,
}

/// A number as what a device wants.
fn want_of(name: &'static str, value: u32) -> Result<CoreWant, Failure> {
    match value {
        number if number == Want::Present as u32 => Ok(CoreWant::Present),
        number if number == Want::Read as u32 => Ok(CoreWant::Read),
        number if number == Want::Write as u32 => Ok(CoreWant::Write),
        _ => Err(Failure::BadNumber { name, value: value.into() }),
    }
}

/// Another wish for some pages of a request.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Wish {
    /// The first address, on a page boundary.
    pub address: usize,
    /// The length in bytes, whole pages. What lies outside of the request does not matter.
    pub length: usize,
    /// A uhmm_want.
    pub want: u32,
}

/// A range, and what is wanted of it. Asking does not change it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ask {
    /// The first address, on a page boundary.
    pub address: usize,
    /// The length in bytes, whole pages.
    pub length: usize,
    /// A uhmm_want.
    pub want: u32,
    /// Whether to ask also for what the device was given and has had no invalidation of: for a device whose
    /// access was refused.
    pub anew: bool,
    /// Other wishes for some of the pages; of two for one page the later counts. A few are meant. May be null
    /// where there are none.
    pub wishes: *const Wish,
    /// How many there are.
    pub wishes_count: usize,
}

/// Where a page is, as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Place {
    /// Not there; a fault would make it present.
    None = 0,
    /// It cannot be had: `cause` says why.
    Error = 1,
    /// In system memory.
    InPlace = 2,
    /// In the memory of the device that asks.
    Own = 3,
    /// In the memory of another device: `device` says of which.
    Peer = 4,
}

/// A page, as a range fault or a snapshot reports it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Page {
    /// Where it is.
    pub place: Place,
    /// Where it is at a peer: the peer's number among the devices.
    pub device: u8,
    /// The binary logarithm of how many pages one entry of the processor's page table, or one huge frame, maps
    /// here. It may reach past the range.
    pub order: u8,
    /// Whether it may be written.
    pub write: bool,
    /// Whether it is the shared page of zeros.
    pub zero: bool,
    /// Whether one device alone may access it.
    pub exclusive: bool,
    /// Why it cannot be had.
    pub cause: Cause,
    /// The device's or the system's number that goes with that, or 0.
    pub code: i32,
}

/// Why a page cannot be had, or stayed where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Cause {
    /// There is no cause.
    Nothing = 0,
    /// The page was not adopted.
    NotAdopted = 1,
    /// Nothing is mapped there.
    NoArea = 2,
    /// A stack.
    Stack = 3,
    /// It holds a thread's control block, a loaded object's writable data or engine memory, or is to stay.
    Kept = 4,
    /// The memory is of a kind that does not migrate, a driver's or the kernel's own.
    Kind = 5,
    /// The area's protection forbids it.
    Protection = 6,
    /// The page is locked into memory.
    Locked = 7,
    /// Another userfaultfd holds the area.
    ForeignUserfaultfd = 8,
    /// The area cannot be trapped, or its changes not watched.
    CannotWatch = 9,
    /// The process has as many areas as the system allows.
    NoRoomForAreas = 10,
    /// The page is pinned, merged with an equal one, or shared with a child.
    Busy = 11,
    /// The device's memory is full.
    NoFrames = 12,
    /// Engine memory or system memory is exhausted.
    NoMemory = 13,
    /// The program discarded the content, which is not gone yet.
    Discarded = 14,
    /// The page's content is lost.
    Poisoned = 15,
    /// The device's memory is gone, or the device or the address space closed.
    Gone = 16,
    /// The device refuses the page: the code is its own.
    DeviceRefuses = 17,
    /// The system refuses: the code is of errno.
    System = 18,
    /// The device could not copy the page: the code is its own.
    DeviceFails = 19,
    /// The page lies beyond the end of its file.
    BeyondEnd = 20,
    /// The page is on a peer that does not let this device have it.
    PeerRefuses = 21,
    /// A cause that this header does not know.
    Other = 22,
}

const fn of_stay(cause: StayCause) -> (Cause, i32) {
    match cause {
        StayCause::NotAdopted => (Cause::NotAdopted, 0),
        StayCause::NoArea => (Cause::NoArea, 0),
        StayCause::Stack => (Cause::Stack, 0),
        StayCause::Kept => (Cause::Kept, 0),
        StayCause::Backing(_) => (Cause::Kind, 0),
        StayCause::Protection => (Cause::Protection, 0),
        StayCause::Locked => (Cause::Locked, 0),
        StayCause::ForeignUserfaultfd => (Cause::ForeignUserfaultfd, 0),
        StayCause::CannotTrap => (Cause::CannotWatch, 0),
        StayCause::NoRoomForAreas => (Cause::NoRoomForAreas, 0),
        StayCause::Busy => (Cause::Busy, 0),
        StayCause::NoFrames => (Cause::NoFrames, 0),
        StayCause::NoMemory => (Cause::NoMemory, 0),
        StayCause::Discarded => (Cause::Discarded, 0),
        StayCause::Poisoned => (Cause::Poisoned, 0),
        StayCause::BeyondEnd => (Cause::BeyondEnd, 0),
        StayCause::DeviceLost | StayCause::Closed => (Cause::Gone, 0),
        StayCause::DeviceRefuses(code) => (Cause::DeviceRefuses, code),
        StayCause::DeviceFails(code) => (Cause::DeviceFails, code),
        StayCause::System(errno) => (Cause::System, errno.0),
        _ => (Cause::Other, 0),
    }
}

const fn of_page(error: PageError) -> (Cause, i32) {
    match error {
        PageError::NoArea => (Cause::NoArea, 0),
        PageError::Protection => (Cause::Protection, 0),
        PageError::Poisoned => (Cause::Poisoned, 0),
        PageError::BeyondEnd => (Cause::BeyondEnd, 0),
        PageError::NoMemory => (Cause::NoMemory, 0),
        PageError::Special => (Cause::Kind, 0),
        PageError::Engine => (Cause::Kept, 0),
        PageError::ForeignUserfaultfd => (Cause::ForeignUserfaultfd, 0),
        PageError::CannotWatch => (Cause::CannotWatch, 0),
        PageError::NoRoomForAreas => (Cause::NoRoomForAreas, 0),
        PageError::Discarded => (Cause::Discarded, 0),
        PageError::PeerRefuses => (Cause::PeerRefuses, 0),
        PageError::DeviceRefuses(code) => (Cause::DeviceRefuses, code),
        PageError::DeviceFails(code) => (Cause::DeviceFails, code),
        PageError::Closed => (Cause::Gone, 0),
        PageError::System(errno) => (Cause::System, errno.0),
        _ => (Cause::Other, 0),
    }
}

/// What each cause is called, by its number.
const TEXTS: [&CStr; Cause::Other as usize + 1] = [
    c"nothing",
    c"not adopted",
    c"nothing is mapped there",
    c"a stack",
    c"holds a thread's control block, a loaded object's data or engine memory, or is to stay",
    c"memory of a kind that does not migrate",
    c"the area's protection forbids it",
    c"locked into memory",
    c"held by another userfaultfd",
    c"the area cannot be trapped or watched",
    c"no room for another area (vm.max_map_count)",
    c"pinned, merged with an equal page, or shared with a child",
    c"the device's memory is full",
    c"out of memory",
    c"discarded by the program and not gone yet",
    c"its content is lost",
    c"the device's memory is gone, or it or the address space is closed",
    c"the device refuses it",
    c"the system refuses it",
    c"the device could not copy it",
    c"beyond the end of the file",
    c"on a device that does not let this one have it",
    c"for a cause that this header does not know",
];

/// A cause in a few words of English. The text is there for good. Anything but a cause is said to be none. Safe in
/// a callback.
#[unsafe(no_mangle)]
pub extern "C" fn uhmm_cause_text(cause: u32) -> *const c_char {
    let known = usize::try_from(cause).ok().and_then(|cause| TEXTS.get(cause));
    known.copied().unwrap_or(c"no cause of uhmm").as_ptr()
}

impl Page {
    fn of(entry: &PageEntry) -> Self {
        let (place, device, (cause, code)) = match entry.state {
            PageState::None => (Place::None, 0, (Cause::Nothing, 0)),
            PageState::Error(error) => (Place::Error, 0, of_page(error)),
            PageState::InPlace => (Place::InPlace, 0, (Cause::Nothing, 0)),
            PageState::Own => (Place::Own, 0, (Cause::Nothing, 0)),
            // There are sixteen devices.
            PageState::Peer(device) => {
                (Place::Peer, u8::try_from(device.number()).unwrap_or(u8::MAX), (Cause::Nothing, 0))
            }
        };
        Self {
            place,
            device,
            order: entry.order,
            write: entry.write,
            zero: entry.zero,
            exclusive: entry.exclusive,
            cause,
            code,
        }
    }
}

/// A run of pages, and why they stayed or cannot be had.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    /// The first address.
    pub address: usize,
    /// The length in bytes.
    pub length: usize,
    /// Why.
    pub cause: Cause,
    /// The device's or the system's number that goes with that, or 0.
    pub code: i32,
}

/// Room for runs, which the caller provides. What there are more of is counted and left out.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Runs {
    /// Where they are written.
    pub runs: *mut Run,
    /// How many there is room for.
    pub capacity: usize,
    /// Set: how many there are.
    pub count: usize,
}

/// What a migration did. Partial success is normal.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Moved {
    /// Pages that moved.
    pub moved: usize,
    /// Pages that were where they were wanted.
    pub already: usize,
    /// Pages that stayed.
    pub stayed: usize,
}

/// What came of a range fault.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Faulted {
    /// Pages of which the device had a translation still, as good as was asked.
    pub held: usize,
    /// Pages of which a translation was entered.
    pub entered: usize,
    /// Pages that are not there and were to be mapped only if present.
    pub absent: usize,
    /// Pages that cannot be had as was asked.
    pub failed: usize,
}

/// Where something is written, if its pointer is not null.
///
/// # Safety
/// The pointer is null, or to a value that can be written.
pub(crate) unsafe fn write_to<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(value) };
    }
}

/// Writes runs, as many as there is room for.
///
/// # Safety
/// `runs` is null or valid, and what it points to has the room that it says.
unsafe fn write_runs(
    runs: *mut Runs,
    page_size: PageSize,
    all: impl Iterator<Item = (PageRange, (Cause, i32))>,
) {
    // SAFETY: the caller's promise.
    let Some(runs) = (unsafe { runs.as_mut() }) else { return };
    runs.count = 0;
    for (pages, (cause, code)) in all {
        if !runs.runs.is_null() && runs.count < runs.capacity {
            let run = Run {
                address: page_size.address_of(pages.start()),
                length: page_size.bytes_in(pages.len()),
                cause,
                code,
            };
            // SAFETY: there is room for so many, by the caller's promise.
            unsafe { runs.runs.add(runs.count).write(run) };
        }
        runs.count += 1;
    }
}

/// Writes what a migration did.
///
/// # Safety
/// Each pointer is null or valid; `runs` has the room that it says.
pub(crate) unsafe fn write_migration(
    report: &Migration,
    page_size: PageSize,
    moved: *mut Moved,
    runs: *mut Runs,
) {
    let sums = Moved { moved: report.moved(), already: report.already(), stayed: report.stayed() };
    // SAFETY: the caller's promise.
    unsafe {
        write_to(moved, sums);
        write_runs(
            runs,
            page_size,
            report.causes().map(|stayed| (stayed.pages, of_stay(stayed.cause))),
        );
    }
}

/// Has a request faulted by `fault`, and writes what came of it.
///
/// # Safety
/// `ask` is null or valid with its wishes; `pages` is null or has room for one for each page; `faulted` and
/// `runs` are null or valid, and `runs` has the room that it says.
pub(crate) unsafe fn fault_range(
    page_size: PageSize,
    (ask, pages, faulted, runs): (*const Ask, *mut Page, *mut Faulted, *mut Runs),
    fault: impl FnOnce(&Request<'_>, Option<&mut [PageEntry]>) -> Result<RangeReport, RangeFaultError>,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let ask = unsafe { ask.as_ref() }.ok_or(Failure::Null("the request"))?;
    let range = AddressRange::new(ask.address, ask.length)?;
    let count = range.pages(page_size)?.len();
    let wishes = match (ask.wishes.is_null(), ask.wishes_count) {
        (_, 0) => &[],
        (true, _) => return Err(Failure::Null("the place of the request's wishes")),
        // SAFETY: the caller's promise.
        (false, count) => unsafe { slice::from_raw_parts(ask.wishes, count) },
    };
    let mut overrides = room_for(wishes.len())?;
    for wish in wishes {
        let pages = AddressRange::new(wish.address, wish.length)?.pages(page_size)?;
        overrides.push(Override { pages, want: want_of("the want of a wish", wish.want)? });
    }
    let mut request = Request::new(range, want_of("the want of the request", ask.want)?);
    request = request.overriding(&overrides);
    if ask.anew {
        request = request.anew();
    }
    let mut entries = if pages.is_null() { None } else { Some(entries(count)?) };
    let report = fault(&request, entries.as_deref_mut())?;
    let sums = Faulted {
        held: report.held(),
        entered: report.entered(),
        absent: report.absent(),
        failed: report.failed(),
    };
    // SAFETY: the caller's promise.
    unsafe {
        write_to(faulted, sums);
        let failures = report.failures().map(|failure| (failure.pages, of_page(failure.error)));
        write_runs(runs, page_size, failures);
        write_pages(pages, entries.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// Has a range looked at by `look`, and writes what was seen.
///
/// # Safety
/// `pages` is null or has room for one for each page.
pub(crate) unsafe fn snapshot(
    page_size: PageSize,
    (address, length, pages): (usize, usize, *mut Page),
    look: impl FnOnce(AddressRange, &mut [PageEntry]) -> Result<(), RangeFaultError>,
) -> Result<(), Failure> {
    if pages.is_null() {
        return Err(Failure::Null("the room for pages"));
    }
    let range = AddressRange::new(address, length)?;
    let mut entries = entries(range.pages(page_size)?.len())?;
    look(range, &mut entries)?;
    // SAFETY: the caller's promise.
    unsafe { write_pages(pages, &entries) };
    Ok(())
}

/// A list with room for so many.
fn room_for<T>(count: usize) -> Result<Vec<T>, Failure> {
    let mut list = Vec::new();
    let refused = |_| Failure::NoMemory { bytes: count.saturating_mul(size_of::<T>()) };
    list.try_reserve_exact(count).map_err(refused)?;
    Ok(list)
}

fn entries(count: usize) -> Result<Vec<PageEntry>, Failure> {
    let mut entries = room_for(count)?;
    entries.resize(count, PageEntry::default());
    Ok(entries)
}

/// # Safety
/// There is room for so many.
unsafe fn write_pages(pages: *mut Page, entries: &[PageEntry]) {
    for (index, entry) in entries.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { pages.add(index).write(Page::of(entry)) };
    }
}
