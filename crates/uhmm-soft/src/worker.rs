//! What runs on the device's threads: accesses through the page table, and faults.

use core::ptr::NonNull;

use uhmm::{
    Attachment, FaultAccess, FaultBuffer, FaultQueue, InPlace, Lane, QueueNumber, Refused,
    mm::{Access, Mm, linux::Linux},
    units::{PageNumber, PageRange, PageSize},
};

use crate::{
    errors::AccessError,
    faults::Server,
    given::range_with,
    placement::Placements,
    plain::{Counter, Plain},
    table::{Leaf, Place, Table},
};

const KNOWN_LEAVES: usize = 64;

/// After how many faults in a row that were served an access counts as refused for good. Others take
/// the page away between a fault and the access a few times in a row, not so often.
const MOST_REFUSALS: u32 = 100_000;

/// A thread of the device while it runs a kernel: the kernel's way to memory.
///
/// A kernel that is [launched](crate::Soft::launch) over arguments reaches them by their views.
/// What is here takes addresses, the program's own, of any memory (of what its launch names, where that is
/// of a [`Kernel`](crate::Kernel) of a list), and is unsafe. An access of a
/// number that is aligned is one access; longer ones are made of pieces, each within one page.
///
/// # Safety of accesses by address
/// While a kernel runs, nobody writes what it loads, and nobody reads or writes what it stores, but
/// by atomic accesses or as workers of a device. Workers that touch the same bytes at the same time
/// do so as numbers of one type, at the same addresses. What is stored is a value of the type that
/// the program has there. An address where there is no memory, or none that may be accessed so, is
/// an error and no breach of this.
pub struct Worker<'a, M: Mm = Linux> {
    within: Within<'a, M>,
    lane: Lane<'a>,
    page_size: PageSize,
    /// The pages that the kernel may reach, sorted and apart, where its launch names them.
    given: Option<&'a [PageRange]>,
    /// Leaves found before, by block number. A leaf stays where it is.
    known: [Option<(usize, &'a Leaf)>; KNOWN_LEAVES],
}

/// What a worker of a device process has instead of an attachment: it asks the program.
pub(crate) trait Asks {
    /// The leaf of the page table that has a page, if there is one.
    fn leaf(&self, page: PageNumber) -> Option<&'static Leaf>;

    /// Notes that the page at `memory`, which the page table has, is about to be read, or written.
    fn note(&self, memory: NonNull<u8>, write: bool);

    /// Asks the program for a page, and waits for it.
    fn fault(&mut self, address: usize, access: FaultAccess) -> Result<(), AccessError>;

    /// Says that a page is wanted soon.
    fn hint(&self, address: usize);
}

/// Where the worker is: what it finds in its table, and asks when it misses a page.
enum Within<'a, M: Mm> {
    Program {
        attachment: &'a Attachment<Table<M>, M>,
        faults: FaultQueue<'a, Server<'a, M>>,
        in_place: &'a InPlace<'a, M>,
        /// Whether that was renewed by this launch, which it is before it is used.
        renewed: bool,
    },
    OwnProcess(&'a mut (dyn Asks + Send + Sync)),
}

impl<'a> Worker<'a> {
    /// A worker of a device process.
    pub(crate) fn in_own_process(
        asking: &'a mut (dyn Asks + Send + Sync),
        lane: Lane<'a>,
        page_size: PageSize,
        given: &'a [PageRange],
    ) -> Self {
        let within = Within::OwnProcess(asking);
        Self { within, lane, page_size, given: Some(given), known: [None; KNOWN_LEAVES] }
    }
}

impl<'a, M: Mm> Worker<'a, M> {
    /// A worker in the program. None where another thread has the queue `number`.
    pub(crate) fn new(
        number: usize,
        attachment: &'a Attachment<Table<M>, M>,
        faults: &'a FaultBuffer,
        placements: &'a Placements,
        lane: Lane<'a>,
        in_place: &'a InPlace<'a, M>,
        given: Option<&'a [PageRange]>,
    ) -> Option<Self> {
        let page_size = attachment.page_size();
        let known = [None; KNOWN_LEAVES];
        let server = Server::new(attachment, placements, given);
        let faults = faults.open(QueueNumber(number), server).ok()?;
        let within = Within::Program { attachment, faults, in_place, renewed: false };
        Some(Self { within, lane, page_size, given, known })
    }

    /// Says that `len` bytes from `address` on will be accessed soon, so that they can come while the kernel
    /// computes. Nothing waits for them, but for room in the device's fault buffer, and nothing fails where
    /// they cannot come.
    pub fn prefetch(&mut self, address: usize, len: usize) {
        if len == 0 {
            return;
        }
        let first = self.page_size.page_of(address);
        let last = self.page_size.page_of(address.saturating_add(len - 1));
        for page in PageRange::new(first, last.plus(1)).pages() {
            let place = page.in_block();
            if !self.may_reach(page) || self.leaf(page).is_some_and(|leaf| leaf.has(place, false)) {
                continue;
            }
            let address = self.page_size.address_of(page);
            match &mut self.within {
                Within::Program { faults, .. } => {
                    if faults.enter(address, FaultAccess::Prefetch).is_err() {
                        // What failed was told where it was waited for.
                        return;
                    }
                }
                Within::OwnProcess(asking) => asking.hint(address),
            }
        }
    }

    /// Whether the launch lets the kernel reach a page.
    fn may_reach(&self, page: PageNumber) -> bool {
        self.given.is_none_or(|given| range_with(given, page).is_some())
    }

    /// Has a page brought, or mapped where it is.
    fn fault(&mut self, address: usize, access: FaultAccess) -> Result<(), AccessError> {
        match &mut self.within {
            Within::Program { faults, .. } => {
                Ok(self.lane.outside(|| faults.fault(address, access))?)
            }
            Within::OwnProcess(asking) => self.lane.outside(|| asking.fault(address, access)),
        }
    }

    /// Loads a number.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn load<T: Plain>(&mut self, address: usize) -> Result<T, AccessError> {
        if address.is_multiple_of(align_of::<T>()) {
            return self.access(
                address,
                FaultAccess::Read,
                // SAFETY: an aligned number lies within its page, where the pointer is valid.
                |at| unsafe { T::load(at.as_ptr()) },
                // SAFETY: the number is aligned, and `access` calls it for what may be read so.
                |in_place, at| Ok(T::from_word(unsafe { in_place.load(at, T::WIDTH) }?)),
            );
        }
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..size_of::<T>()];
        // SAFETY: the caller's promise.
        unsafe { self.read(address, bytes) }?;
        Ok(T::from_bytes(bytes))
    }

    /// Stores a number.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn store<T: Plain>(&mut self, address: usize, value: T) -> Result<(), AccessError> {
        if address.is_multiple_of(align_of::<T>()) {
            return self.access(
                address,
                FaultAccess::Write,
                // SAFETY: an aligned number lies within its page, where the pointer is valid.
                |at| unsafe { value.store(at.as_ptr()) },
                // SAFETY: the number is aligned, and `access` calls it for what may be written so.
                |in_place, at| unsafe { in_place.store(at, T::WIDTH, value.to_word()) },
            );
        }
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..size_of::<T>()];
        value.to_bytes(bytes);
        // SAFETY: the caller's promise.
        unsafe { self.write(address, bytes) }
    }

    /// Adds to a number, wrapping, as one atomic access that is sequentially consistent, and answers
    /// what was there.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had, or the address is not aligned.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn fetch_add<T: Counter>(
        &mut self,
        address: usize,
        value: T,
    ) -> Result<T, AccessError> {
        aligned::<T>(address)?;
        self.access(
            address,
            FaultAccess::Write,
            // SAFETY: an aligned number lies within its page, where the pointer is valid.
            |at| unsafe { value.add_to(at.as_ptr()) },
            |in_place, at| {
                // SAFETY: the number is aligned, and `access` calls it for what may be written so.
                let before = unsafe { in_place.fetch_add(at, T::WIDTH, value.to_word()) };
                before.map(T::from_word)
            },
        )
    }

    /// Replaces a number by `new` if it is `expected`, as one atomic access that is sequentially
    /// consistent, and answers what was there: as an error where that was another number.
    ///
    /// # Errors
    /// [`AccessError`] where the page cannot be had, or the address is not aligned.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn compare_exchange<T: Counter>(
        &mut self,
        address: usize,
        expected: T,
        new: T,
    ) -> Result<Result<T, T>, AccessError> {
        aligned::<T>(address)?;
        self.access(
            address,
            FaultAccess::Write,
            // SAFETY: an aligned number lies within its page, where the pointer is valid.
            |at| unsafe { expected.exchange_for(new, at.as_ptr()) },
            |in_place, at| {
                let (expected, new) = (expected.to_word(), new.to_word());
                // SAFETY: the number is aligned, and `access` calls it for what may be written so.
                let before = unsafe { in_place.compare_exchange(at, T::WIDTH, expected, new) };
                before.map(|before| before.map(T::from_word).map_err(T::from_word))
            },
        )
    }

    /// Loads consecutive numbers into `values`.
    ///
    /// # Errors
    /// [`AccessError`]; `values` may be filled in part then.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn load_slice<T: Plain>(
        &mut self,
        address: usize,
        values: &mut [T],
    ) -> Result<(), AccessError> {
        check(address, size_of_val(values))?;
        if !address.is_multiple_of(align_of::<T>()) {
            for (index, value) in values.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *value = unsafe { self.load(address + index * size_of::<T>()) }?;
            }
            return Ok(());
        }
        let mut done = 0;
        while done < values.len() {
            let at = address + done * size_of::<T>();
            let in_page = (self.left_in_page(at) / size_of::<T>()).min(values.len() - done);
            let part = core::cell::RefCell::new(&mut values[done..done + in_page]);
            self.access(
                at,
                FaultAccess::Read,
                |from| {
                    for (index, value) in part.borrow_mut().iter_mut().enumerate() {
                        // SAFETY: `in_page` numbers lie within the page, and are aligned.
                        *value = unsafe { T::load(from.as_ptr().add(index * size_of::<T>())) };
                    }
                },
                |in_place, at| {
                    let mut part = part.borrow_mut();
                    // SAFETY: the bytes lie within the page, and `access` calls this for what may
                    // be read so.
                    unsafe { in_place.copy_from(at, T::bytes_of_mut(&mut part)) }
                },
            )?;
            done += in_page;
        }
        Ok(())
    }

    /// Stores consecutive numbers.
    ///
    /// # Errors
    /// [`AccessError`]; they may be stored in part then.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn store_slice<T: Plain>(
        &mut self,
        address: usize,
        values: &[T],
    ) -> Result<(), AccessError> {
        check(address, size_of_val(values))?;
        if !address.is_multiple_of(align_of::<T>()) {
            for (index, &value) in values.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { self.store(address + index * size_of::<T>(), value) }?;
            }
            return Ok(());
        }
        let mut done = 0;
        while done < values.len() {
            let at = address + done * size_of::<T>();
            let in_page = (self.left_in_page(at) / size_of::<T>()).min(values.len() - done);
            let part = &values[done..done + in_page];
            self.access(
                at,
                FaultAccess::Write,
                |to| {
                    for (index, &value) in part.iter().enumerate() {
                        // SAFETY: `in_page` numbers lie within the page, and are aligned.
                        unsafe { value.store(to.as_ptr().add(index * size_of::<T>())) };
                    }
                },
                // SAFETY: the bytes lie within the page, and `access` calls this for what may be
                // written so.
                |in_place, at| unsafe { in_place.copy_to(at, T::bytes_of(part)) },
            )?;
            done += in_page;
        }
        Ok(())
    }

    /// Loads bytes into `bytes`.
    ///
    /// # Errors
    /// [`AccessError`]; `bytes` may be filled in part then.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn read(&mut self, address: usize, bytes: &mut [u8]) -> Result<(), AccessError> {
        // SAFETY: the caller's promise.
        unsafe { self.load_slice(address, bytes) }
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// [`AccessError`]; they may be stored in part then.
    ///
    /// # Safety
    /// As [accesses by address](Self#safety-of-accesses-by-address) are.
    pub unsafe fn write(&mut self, address: usize, bytes: &[u8]) -> Result<(), AccessError> {
        // SAFETY: the caller's promise.
        unsafe { self.store_slice(address, bytes) }
    }

    fn left_in_page(&self, address: usize) -> usize {
        self.page_size.bytes() - address % self.page_size.bytes()
    }

    /// Accesses `address`, after as many faults as it takes: by `in_frame` with its place in a
    /// device's memory, which is valid up to the end of its page while that runs, or by `in_place`, with
    /// the address that it goes by there, where the page can go without a word.
    fn access<R>(
        &mut self,
        address: usize,
        access: FaultAccess,
        in_frame: impl Fn(NonNull<u8>) -> R,
        in_place: impl Fn(&InPlace<'a, M>, usize) -> Result<R, Refused>,
    ) -> Result<R, AccessError> {
        let page = self.page_size.page_of(address);
        let offset = address % self.page_size.bytes();
        if !self.may_reach(page) {
            return Err(AccessError::NotNamed { address });
        }
        let mut refusals = 0_u32;
        loop {
            if let Some(leaf) = self.leaf(page) {
                let (place, page_size) = (page.in_block(), self.page_size);
                let within = &self.within;
                let write = access.access() == Access::Write;
                let mut is_in_place = false;
                let result = self.lane.access(|| {
                    match leaf.translate(place, page_size, write)? {
                        Place::Frame(memory) => {
                            if let Within::OwnProcess(asking) = within {
                                asking.note(memory, write);
                            }
                            // SAFETY: the offset is within the page.
                            Some(in_frame(unsafe { memory.add(offset) }))
                        }
                        // What is refused is found out about by a fault.
                        Place::InPlace(at) => {
                            is_in_place = true;
                            match within {
                                Within::Program { in_place: accessor, renewed: true, .. } => {
                                    in_place(accessor, at + offset).ok()
                                }
                                _ => None,
                            }
                        }
                    }
                });
                if let Some(result) = result {
                    return Ok(result);
                }
                if is_in_place
                    && let Within::Program { in_place, renewed: renewed @ false, .. } =
                        &mut self.within
                {
                    let refused = |errno| AccessError::Handlers { address, errno };
                    in_place.renew().map_err(refused)?;
                    *renewed = true;
                    continue;
                }
            }
            self.fault(address, access)?;
            refusals += 1;
            if refusals > MOST_REFUSALS {
                return Err(AccessError::Refused { address });
            }
        }
    }

    fn leaf(&mut self, page: PageNumber) -> Option<&'a Leaf> {
        let block = page.block().0;
        let known = &mut self.known[block % KNOWN_LEAVES];
        match known {
            Some((number, leaf)) if *number == block => Some(leaf),
            _ => {
                let leaf = match &self.within {
                    Within::Program { attachment, .. } => attachment.device().leaf(page)?,
                    Within::OwnProcess(asking) => asking.leaf(page)?,
                };
                *known = Some((block, leaf));
                Some(leaf)
            }
        }
    }
}

const fn check(address: usize, len: usize) -> Result<(), AccessError> {
    if address.checked_add(len).is_none() {
        return Err(AccessError::Wraps { address, len });
    }
    Ok(())
}

const fn aligned<T>(address: usize) -> Result<(), AccessError> {
    if address.is_multiple_of(align_of::<T>()) {
        Ok(())
    } else {
        Err(AccessError::Unaligned { address, len: size_of::<T>() })
    }
}
