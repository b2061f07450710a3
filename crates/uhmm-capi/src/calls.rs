//! A device's functions in C, as the page table that the core calls.
//!
//! All of them run with the thread's signals blocked, which is also how a call of ours from within one is
//! found out.

use core::ffi::c_void;

use uhmm::{
    Device, Entries as CoreEntries, Invalidation as CoreInvalidation, InvalidationKind, PageTable,
    PrepareError, Translation, Use,
    mm::Access,
    sync::SignalsBlocked,
    units::{PageRange, PageSize},
};

use crate::failure::Failure;

/// Where the pages of uhmm_entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Where {
    /// Where the program has them, at the program's addresses: reached by an accessor alone.
    InPlace = 0,
    /// In this device's memory, at `memory`, one after the other.
    Own = 1,
    /// In the memory of a peer, at `memory`, one after the other.
    Peer = 2,
}

/// Translations to enter: consecutive pages that are alike. They replace what was there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Entries {
    /// The first address.
    pub address: usize,
    /// How many pages.
    pub pages: usize,
    /// Where they are.
    pub place: Where,
    /// In a device's memory: where the first one's content is. Else null.
    pub memory: *mut c_void,
    /// Whether the device may write them. It may always read.
    pub write: bool,
    /// In place: whether they are the shared page of zeros.
    pub zero: bool,
    /// The binary logarithm of how many pages one entry of the processor's page table, or one huge page in frames,
    /// has here. A device maps no larger. 0 also stands for not known, as of pages that a migration brings: a
    /// snapshot tells.
    pub order: u8,
    /// At a peer: its number among the devices. Else 0.
    pub device: u8,
}

/// Why translations end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Why {
    /// The addresses were unmapped, mapped over, or their pages moved to other addresses.
    Unmap = 0,
    /// The program discards the content.
    Clear = 1,
    /// The program changed what may be done with the pages.
    Protection = 2,
    /// The content moves: to the device `owner`, or back to system memory where that is negative.
    Migrate = 3,
    /// The device `owner` alone may access the pages from here on; where that is negative that ends.
    Exclusive = 4,
    /// The address space closes.
    Release = 5,
    /// For a cause that this header does not know.
    Other = 6,
}

/// Translations that end.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Ended {
    /// The first address.
    pub address: usize,
    /// How many pages.
    pub pages: usize,
    /// Why.
    pub why: Why,
    /// The device that the cause is of, by its number; negative where there is none.
    pub owner: i32,
}

/// A device's functions.
///
/// They are called on any thread, several at a time for different addresses; for the pages of one block (512 pages,
/// aligned) `commit` and `invalidate` come one at a time, in the order in which they take effect. All signals are
/// blocked meanwhile. They touch engine memory, static data and their own stack, and nothing else of the program:
/// not what malloc() gave, which could be away. They take no lock that is held around a call of uhmm, wait for no
/// such call, do not return by longjmp() or an exception, and call uhmm_accessor_refuse() and the two functions for
/// texts alone: all others answer UHMM_STATUS_IN_CALLBACK.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Calls {
    /// What each function gets. It is the caller's, and must stay until `released` was called.
    pub data: *mut c_void,
    /// Makes ready for a commit of these pages, within one block, for writing or for reading: does what can fail or
    /// sleep. No lock is held. Answers 0, or a code of the device's own, which refuses the pages. May be null.
    pub prepare: Option<
        unsafe extern "C" fn(data: *mut c_void, address: usize, pages: usize, write: bool) -> i32,
    >,
    /// Enters translations. Cannot fail.
    pub commit: Option<unsafe extern "C" fn(data: *mut c_void, entries: *const Entries)>,
    /// Ends all translations of these pages, within one block. When it returns the device has none, and no access
    /// through one is in flight. While it waits for an access of an accessor it calls uhmm_accessor_refuse() again
    /// and again.
    pub invalidate: Option<unsafe extern "C" fn(data: *mut c_void, ended: *const Ended)>,
    /// Says how many of these pages, within one block, the device used since it was last asked, and since they
    /// came. Both are 0 before. For devices with memory alone; may be null, and then all count as used at some time
    /// and none as used lately.
    pub take_use: Option<
        unsafe extern "C" fn(
            data: *mut c_void,
            address: usize,
            pages: usize,
            lately: *mut usize,
            ever: *mut usize,
        ),
    >,
    /// Is called once, after the last call of the others, as the mirror or device has ended. May be null.
    pub released: Option<unsafe extern "C" fn(data: *mut c_void)>,
    /// Whether the device holds on to the memory behind a page that it maps in place, rather than going through the
    /// processor's page table with each access. Such a device is not given pages that the program is about to drop.
    pub pins: bool,
}

/// The functions, as the core calls them.
pub(crate) struct Table {
    calls: Calls,
    commit: unsafe extern "C" fn(*mut c_void, *const Entries),
    invalidate: unsafe extern "C" fn(*mut c_void, *const Ended),
    page_size: PageSize,
}

// SAFETY: who gives the functions says that they can be called on any thread, several at a time.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// The functions that C gives. Until this succeeds nothing is called.
    ///
    /// # Safety
    /// `calls` is null or valid, and its functions keep to what is said of them until they are released.
    pub(crate) unsafe fn new(calls: *const Calls, page_size: PageSize) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let calls = *unsafe { calls.as_ref() }.ok_or(Failure::Null("the device's functions"))?;
        let commit = calls.commit.ok_or(Failure::Null("the function commit"))?;
        let invalidate = calls.invalidate.ok_or(Failure::Null("the function invalidate"))?;
        Ok(Self { calls, commit, invalidate, page_size })
    }

    fn span(&self, pages: PageRange) -> (usize, usize) {
        (self.page_size.address_of(pages.start()), pages.len())
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if let Some(released) = self.calls.released {
            // SAFETY: by the promise to `new`; no other call comes.
            unsafe { released(self.calls.data) };
        }
    }
}

/// A device's number, of which there are few.
fn number(device: uhmm::DeviceIndex) -> u8 {
    u8::try_from(device.number()).unwrap_or(u8::MAX)
}

// SAFETY: by the promise to `Table::new` the functions in C do what is said of these here, and nothing else.
unsafe impl PageTable for Table {
    fn prepare(&self, pages: PageRange, access: Access) -> Result<(), PrepareError> {
        let Some(prepare) = self.calls.prepare else { return Ok(()) };
        let (address, count) = self.span(pages);
        let _in_callback = SignalsBlocked::new();
        // SAFETY: by the promise to `new`.
        match unsafe { prepare(self.calls.data, address, count, access == Access::Write) } {
            0 => Ok(()),
            code => Err(PrepareError::Refused { code }),
        }
    }

    fn commit(&self, entries: &CoreEntries) {
        let (address, pages) = self.span(entries.pages);
        let (place, memory, zero, device) = match entries.translation {
            Translation::InPlace { zero } => (Where::InPlace, core::ptr::null_mut(), zero, 0),
            Translation::Frames { memory } => (Where::Own, memory.as_ptr().cast(), false, 0),
            Translation::Peer { device, memory } => {
                (Where::Peer, memory.as_ptr().cast(), false, number(device))
            }
            // What the header does not know the device does without, and faults again.
            _ => return,
        };
        let entries = Entries {
            address,
            pages,
            place,
            memory,
            write: entries.write,
            zero,
            order: entries.order,
            device,
        };
        let _in_callback = SignalsBlocked::new();
        // SAFETY: by the promise to `new`; the entries are there for the call.
        unsafe { (self.commit)(self.calls.data, &raw const entries) };
    }

    fn invalidate(&self, invalidation: &CoreInvalidation) {
        let (address, pages) = self.span(invalidation.pages);
        let (why, owner) = match invalidation.kind {
            InvalidationKind::Unmap => (Why::Unmap, None),
            InvalidationKind::Clear => (Why::Clear, None),
            InvalidationKind::Protection => (Why::Protection, None),
            InvalidationKind::Migrate { owner } => (Why::Migrate, owner),
            InvalidationKind::Exclusive { owner } => (Why::Exclusive, owner),
            InvalidationKind::Release => (Why::Release, None),
            _ => (Why::Other, None),
        };
        let owner = owner.map_or(-1, |device| i32::from(number(device)));
        let ended = Ended { address, pages, why, owner };
        let _in_callback = SignalsBlocked::new();
        // SAFETY: as above.
        unsafe { (self.invalidate)(self.calls.data, &raw const ended) };
    }

    fn pins(&self) -> bool {
        self.calls.pins
    }
}

// SAFETY: as above.
unsafe impl Device for Table {
    fn take_use(&self, pages: PageRange) -> Use {
        let (address, count) = self.span(pages);
        let Some(take_use) = self.calls.take_use else { return Use { lately: 0, ever: count } };
        let mut taken = Use::default();
        let (lately, ever) = (&raw mut taken.lately, &raw mut taken.ever);
        let _in_callback = SignalsBlocked::new();
        // SAFETY: by the promise to `new`; the numbers are there for the call.
        unsafe { take_use(self.calls.data, address, count, lately, ever) };
        // More than there are would mislead.
        Use { lately: taken.lately.min(pages.len()), ever: taken.ever.min(pages.len()) }
    }
}
