//! The seam itself.

use core::{ops::ControlFlow, ptr::NonNull, time::Duration};

use super::{
    Access, Accessor, AccessorNumber, Area, Child, Done, Errno, Exclusion, Look, Mapping, Message,
    Populated, Presence, Refused, TrapError, Width,
};
use crate::units::{NumaNode, PageNumber, PageRange, PageSize};

/// The most pages that aliases can have together: 1 TiB where a page is 4 KiB.
pub const MOST_ALIASES: usize = 1 << 28;

mod sealed {
    /// Keeps [`super::Mm`] to the implementations of this crate: the core's soundness rests on
    /// their truthfulness.
    pub trait Sealed {}
    impl Sealed for super::super::linux::Linux {}
    impl Sealed for super::super::model::Model {}
    impl<M: super::Mm> Sealed for super::super::injected::Injected<M> {}
}

/// The memory management of an operating system, as the core needs it.
///
/// Pages are named by number; *watched* areas are those whose changes we hear of, *trapped* areas
/// those whose holes fault to us besides; *staging* is ours, holds pages taken from the CPU, is
/// trapped but never faulted on, and is not inherited by a fork.
///
/// The bulk calls ([`take`](Self::take), [`give`](Self::give), [`copy`](Self::copy),
/// [`zero`](Self::zero), [`poison`](Self::poison)) never block on another of our threads and raise
/// no message; they may be called with engine locks held. They answer [`Stop::Changing`](super::Stop::Changing) while any
/// message about a change is unread, and then do nothing: that is what makes a commit safe against
/// an address that changes hands. No call of this trait uses the process's heap.
pub trait Mm: sealed::Sealed + Send + Sync + Sized + 'static {
    /// The size of a base page.
    fn page_size(&self) -> PageSize;

    /// The page after the last that a program can have.
    fn page_limit(&self) -> PageNumber;

    /// How many pages of memory the system has, as far as it says.
    fn memory_pages(&self) -> usize;

    /// How many pages of memory are to be had now, of a NUMA node if one is named, without taking them from
    /// others, as far as the system says. Who takes more may be ended by the system rather than refused.
    fn pages_available(&self, node: Option<NumaNode>) -> Option<usize>;

    /// Whether some of `pages` is memory that this system has mapped for itself, staging aside: never to
    /// be trapped, nor to go anywhere.
    fn keeps(&self, pages: PageRange) -> bool;

    /// Whether faults of system calls on trapped holes come to us. Where they do not, such a call fails
    /// as on memory that is not there.
    fn serves_system_calls(&self) -> bool;

    /// Visits the areas that overlap `within`, in order, as they are now, each whole.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn areas(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), Errno>;

    /// Visits the pages that must not leave main memory though their area may: control blocks of
    /// the threads that live now, writable data of loaded objects, stacks of the calling thread. With
    /// `all` false control blocks alone: finding the rest takes locks that user code can hold.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn exclusions(
        &self,
        all: bool,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno>;

    /// Traps the holes of `pages`, which are whole areas. Trapping again changes nothing, and what
    /// was watched is told of without a gap.
    ///
    /// # Errors
    /// [`TrapError`]; nothing is trapped then that was not before.
    fn trap(&self, pages: PageRange) -> Result<(), TrapError>;

    /// Ends the trapping and the watching of `pages`. Waiting threads are woken to what the system
    /// has there.
    ///
    /// # Errors
    /// The system's error; the range may be trapped or watched still.
    fn untrap(&self, pages: PageRange) -> Result<(), Errno>;

    /// The area that holds `page`, as it is now; `None` where there is none. One question to the
    /// system, or two.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn mapping_at(&self, page: PageNumber) -> Result<Option<Mapping>, Errno>;

    /// Where the area lies that holds `page`, or else the first behind it, as it is now; `None` where there
    /// is none. One question to the system, where it answers one.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn area_from(&self, page: PageNumber) -> Result<Option<PageRange>, Errno>;

    /// Has changes of `pages`, which are whole areas of any kind but special, told by
    /// [`Message::Unmapped`], [`Message::Remapped`] and [`Message::Discarded`], without trapping
    /// their holes. Watching again changes nothing, and what is trapped stays so.
    ///
    /// It is not told that a file changes: truncating it, or punching a hole into it by its
    /// descriptor, takes pages out of its mappings without a word, and so does a change of
    /// protection.
    ///
    /// Calls of this, of [`trap`](Self::trap) and of [`untrap`](Self::untrap) on areas that overlap
    /// must not run at the same time.
    ///
    /// # Errors
    /// [`TrapError`]; the areas before the one that it names may be watched then.
    fn watch(&self, pages: PageRange) -> Result<(), TrapError>;

    /// Makes `pages`, which lie in one area, present as a load or a store (`Access::Write`) of each
    /// would: a page is allocated, read in, or copied where it is shared with a child. A load is
    /// refused where the area does not say that it can be read, even if the processor would allow
    /// it.
    ///
    /// May fault and sleep, and on a trapped hole waits for who serves it: never with an engine
    /// lock held, never on a thread that serves faults. Where faults within system calls do not
    /// come to us, a trapped hole ends it with [`PopulateFailure::Other`](super::PopulateFailure::Other) instead.
    fn populate(&self, pages: PageRange, access: Access) -> Populated;

    /// Visits `pages` in order, without gaps, as runs of pages that are alike, holes included, and
    /// touches nothing. Neighbouring runs may be alike. A hole of shared memory, or of a file, says
    /// only that this process does not map the page now.
    ///
    /// # Errors
    /// The system's error where it cannot be asked; what precedes was visited.
    fn scan(
        &self,
        pages: PageRange,
        visit: &mut dyn FnMut(PageRange, Presence),
    ) -> Result<(), Errno>;

    /// Tells of each of `pages` pages from `page` on, by its place, whether it is present, this
    /// process's own, and in no other process: a store to it then breaks no share with a child.
    /// False for a page of a file or of shared memory, the shared page of zeros, a page in swap.
    ///
    /// # Errors
    /// The system's error where it cannot be asked; what precedes was told.
    fn may_write(
        &self,
        page: PageNumber,
        pages: usize,
        out: &mut dyn FnMut(usize, bool),
    ) -> Result<(), Errno>;

    /// Moves `pages` pages from the CPU at `from` to staging at `to`, without a copy where the
    /// system can. Stops at a hole.
    fn take(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done;

    /// Moves `pages` pages from staging at `from` back to the CPU at `to`, and wakes who waits.
    fn give(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done;

    /// Copies `pages` pages from staging at `from` to the CPU at `to`, and wakes who waits. Works
    /// where the area is read-only.
    fn copy(&self, from: PageNumber, to: PageNumber, pages: usize) -> Done;

    /// Copies the block of staging at `from`, which is one huge page, to the block of the CPU or of staging
    /// at `to`, and wakes who waits: as one huge page if it is all holes and the system has one and moves it
    /// there, else as [`copy`](Self::copy) does.
    fn copy_block(&self, from: PageNumber, to: PageNumber) -> Done;

    /// Fills the block of staging at `to`, all holes, with one huge page of zeros, of `node` if one is named, if
    /// the system has one. It may come to be small pages all the same, where the system keeps what it needs for
    /// such there: see [`empty_staging`](Self::empty_staging).
    fn zero_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done;

    /// Has one huge page of zeros, of `node` if one is named, in the place of the block of staging at `to`, if the
    /// system has one. Else it stops, and answers how many pages from the first on are there for certain, as they
    /// were or made: all, where it had none; behind them may be holes, where it did not put it there.
    ///
    /// # Safety
    /// Nobody uses the memory of the block, and its content is nobody's.
    unsafe fn remake_block(&self, to: PageNumber, node: Option<NumaNode>) -> Done;

    /// Has the huge page that `page` of staging is a part of be small pages from here on, where the system does
    /// that. Linux has the shared page of zeros in the place of those that hold nothing else
    /// (`try_to_map_unused_to_zeropage` of `mm/migrate.c`, Linux 6.13), here as wherever it parts one.
    fn split_block(&self, page: PageNumber);

    /// Fills the holes at `to` with zeros and wakes who waits. With `Access::Write` they are pages
    /// of their own, with `Access::Read` they may be the shared page of zeros. Works on trapped
    /// areas and on staging. Of shared memory, a hole of which the file has the page gets that page. Of a pool the
    /// whole page is filled that a part is asked of.
    fn zero(&self, to: PageNumber, pages: usize, access: Access) -> Done;

    /// Marks the holes at `to` so that accesses end with an error, and wakes who waits.
    fn poison(&self, to: PageNumber, pages: usize) -> Done;

    /// Wakes all that wait on a page of `pages`; they look again.
    fn wake(&self, pages: PageRange);

    /// Whether a change of the address space is unread.
    fn changing(&self) -> bool;

    /// Looks at the pages from `start` on, one for each place of `out`.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn look(&self, start: PageNumber, out: &mut [Look]) -> Result<(), Errno>;

    /// Whether a page is a part of a huge one, as far as that can be seen. Costs a [`look`](Self::look).
    fn is_huge(&self, page: PageNumber) -> bool {
        let mut look = [Look::Hole];
        self.look(page, &mut look).is_ok() && look == [Look::PresentHuge]
    }

    /// Gives the process its own copy of pages that it shares with a child, as a write would. May
    /// fault and sleep: never with an engine lock held, never on a thread that serves faults.
    ///
    /// # Errors
    /// The system's error, with what precedes done.
    fn unshare(&self, pages: PageRange) -> Result<(), Errno>;

    /// Maps `pages` pages of staging, aligned to a block, all holes, trapped.
    ///
    /// # Errors
    /// The system's error; nothing is mapped then.
    fn map_staging(&self, pages: usize) -> Result<PageRange, Errno>;

    /// Has what is made at `pages` of staging, all holes, be memory of a NUMA node. Where a page moves from
    /// there it stays what it is.
    ///
    /// # Errors
    /// The system's error, which is `EINVAL` where the process can have no memory of such a node, and
    /// `ENOSYS` where the system knows of none; nothing is changed then.
    fn bind_staging(&self, pages: PageRange, node: NumaNode) -> Result<(), Errno>;

    /// Ends staging mapped before, with all its content. Raises no message.
    ///
    /// # Safety
    /// `pages` is what [`map_staging`](Self::map_staging) returned, and nobody uses its memory.
    unsafe fn unmap_staging(&self, pages: PageRange);

    /// Makes `pages` of staging holes again. Raises no message; may be called with locks held. Of a whole
    /// block it ends what the system keeps for small pages, as far as it does, so that a huge page that
    /// moves there stays one.
    ///
    /// # Errors
    /// The system's error; the pages may keep their content then.
    ///
    /// # Safety
    /// Nobody uses the memory of `pages`.
    unsafe fn empty_staging(&self, pages: PageRange) -> Result<(), Errno>;

    /// Reserves the addresses of `pages` pages of the program's, without access for anybody.
    ///
    /// # Errors
    /// The system's error; nothing is reserved then.
    fn reserve_addresses(&self, pages: usize) -> Result<PageRange, Errno>;

    /// Ends a reservation of addresses. Raises no message.
    ///
    /// # Safety
    /// `pages` is what [`reserve_addresses`](Self::reserve_addresses) returned.
    unsafe fn release_addresses(&self, pages: PageRange);

    /// Reserves addresses for [aliases](Self::alias), as many as there can be, up to what
    /// [`MOST_ALIASES`] says. Nothing else is ever found there.
    ///
    /// # Errors
    /// The system's error; nothing is reserved then.
    fn reserve_aliases(&self) -> Result<PageRange, Errno>;

    /// Ends the reservation of addresses for aliases, and all that is left there.
    ///
    /// # Safety
    /// `pages` is what [`reserve_aliases`](Self::reserve_aliases) returned, and nobody uses its
    /// memory.
    unsafe fn release_aliases(&self, pages: PageRange);

    /// Maps the shared memory that is mapped at `pages`, which lie in one area, a second time, at
    /// `at`: an alias, by which its content is reached whatever becomes of the program's view. It is
    /// neither trapped nor inherited. It may be of something else where the area changes meanwhile:
    /// see [`is_alias`](Self::is_alias).
    ///
    /// Where the area is trapped or watched this raises a message, and waits until it is read: never
    /// with an engine lock held, never by a thread that reads messages.
    ///
    /// # Errors
    /// The system's error, where it has no room, or the area is not of shared memory; there is no
    /// alias then.
    ///
    /// # Safety
    /// The addresses from `at` on, as many as `pages`, are reserved for aliases and not in use.
    unsafe fn alias(&self, pages: PageRange, at: PageNumber) -> Result<(), Errno>;

    /// Whether what is mapped at `pages` now is what the alias at `at` shows.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn is_alias(&self, pages: PageRange, at: PageNumber) -> Result<bool, Errno>;

    /// Ends an alias, or a part: its addresses are reserved again.
    ///
    /// # Errors
    /// The system's error; it is there still then.
    ///
    /// # Safety
    /// Nobody uses the memory of `pages`, which are of aliases.
    unsafe fn end_alias(&self, pages: PageRange) -> Result<(), Errno>;

    /// Has the file have the pages that an alias shows, of zeros where it has none, and maps them
    /// there. May sleep, but waits for nobody who waits for us; may be called with locks held.
    fn populate_alias(&self, pages: PageRange) -> Populated;

    /// Ends the CPU's mapping of shared memory at `pages`, as far as it can: what is a hole
    /// afterwards is so for accesses too, and its content is where the alias at `alias` shows it. Drops
    /// no content, of whatever is mapped at `pages` by then. Raises no message; may be called with locks
    /// held.
    ///
    /// # Errors
    /// `EINVAL` where the area is locked; else the system's error. Some pages may be holes then.
    fn vacate(&self, pages: PageRange, alias: PageNumber) -> Result<(), Errno>;

    /// Ends the CPU's mapping of shared memory at `pages`, whole pages of one trapped area, also of a
    /// pool, by address alone. Its content stays in its file.
    ///
    /// This raises [`Message::Discarded`], and waits until it is read: never with an engine lock held, never
    /// by a thread that reads messages.
    ///
    /// # Errors
    /// `EINVAL` where the area is locked; else the system's error. Some pages may be holes then.
    ///
    /// # Safety
    /// `pages` are of shared memory, and until the call returns nobody changes what is mapped there.
    unsafe fn vacate_undisturbed(&self, pages: PageRange) -> Result<(), Errno>;

    /// Whether the calling thread is the only one of the process beside `own` threads.
    ///
    /// # Errors
    /// The system's error where it cannot be asked.
    fn is_alone(&self, own: usize) -> Result<bool, Errno>;

    /// Takes the pages of `pages`, which lie in one trapped area of private memory, out of it, whatever
    /// may be done with that, and answers where they lie then: *aside*, at addresses of the engine's, not
    /// trapped, such that [`take`](Self::take) moves them from there. The area keeps trapped holes.
    ///
    /// This raises [`Message::Remapped`] from `pages`, and waits until it is read: never with an engine
    /// lock held, never by a thread that reads messages.
    ///
    /// # Errors
    /// `EPERM` where the area is locked, else the system's error; the pages are where they were then.
    ///
    /// # Safety
    /// Until the call returns nobody changes what is mapped at `pages`, drops pages of it, or forks.
    unsafe fn set_aside(&self, pages: PageRange) -> Result<PageRange, Errno>;

    /// Puts pages that lie aside, from `from` on, back to where they were: to `to`, all holes. It copies
    /// nothing. This raises [`Message::Unmapped`] of `to`, and waits as [`set_aside`](Self::set_aside);
    /// the area is trapped as before when it returns.
    ///
    /// # Errors
    /// The system's error. Either the pages lie aside still, or they are back and not trapped.
    ///
    /// # Safety
    /// As of [`set_aside`](Self::set_aside); the pages from `from` on came from `to`, and are no holes.
    unsafe fn put_back(&self, from: PageNumber, to: PageRange) -> Result<(), Errno>;

    /// Ends what lies aside at `pages`, with its content. Raises no message; may be called with locks
    /// held.
    ///
    /// # Errors
    /// The system's error; the pages stay mapped then.
    ///
    /// # Safety
    /// `pages` is what [`set_aside`](Self::set_aside) answered, or that without parts that were
    /// [put back](Self::put_back), and nobody uses its memory.
    unsafe fn end_aside(&self, pages: PageRange) -> Result<(), Errno>;

    /// Puts anonymous memory in place of `pages`, a private mapping of a file, with the same content and
    /// protection. It is not trapped, nor watched. Where the mapping is watched this raises
    /// [`Message::Unmapped`], and waits as [`set_aside`](Self::set_aside).
    ///
    /// # Errors
    /// The system's error; all is as it was then.
    ///
    /// # Safety
    /// `pages` are an area. Until the call returns nobody changes what is mapped there or writes it, nor
    /// forks.
    unsafe fn make_anonymous(&self, pages: PageRange) -> Result<(), Errno>;

    /// Where the content of a page of staging, or of an alias, is reached. Only pages that are not
    /// holes may be touched through it.
    fn staging_pointer(&self, page: PageNumber) -> NonNull<u8>;

    /// Waits until a message is there to be read, [`kick`](Self::kick) is called, or `timeout` is
    /// over. Returns at once if one is.
    fn wait(&self, timeout: Option<Duration>);

    /// Whether a message is there to be read. Faults are read before changes, and changes in the order in
    /// which they came; the fault that was there may have ended by the time that one is read.
    fn readable(&self) -> bool;

    /// Reads messages that are there, without waiting, and returns how many. What is read lets the
    /// thread that caused it go on, but for faults. The fault of an access in place is told to
    /// nobody: the access is refused. (Where its page comes back, or [`refuse`](Self::refuse) is
    /// called, while this reads, it may be told all the same, of a thread that has gone on.)
    fn read(&self, out: &mut [Message]) -> usize;

    /// Ends the [`wait`](Self::wait) of one thread, now or the next time one waits.
    fn kick(&self);

    /// Whether forks are told, by [`Message::Forked`]. Where not, a child reads zeros in the holes of
    /// what was trapped, but for areas that are [kept](Self::set_inherited) from it.
    fn tells_forks(&self) -> bool;

    /// Has forks told from now on, where they are told at all. Until then none is, nor waits, so who calls
    /// it has somebody read messages: the thread that forks may hold any lock of libc.
    ///
    /// # Errors
    /// The system's error; forks may be told all the same until they are [not](Self::stop_telling_forks).
    fn tell_forks(&self) -> Result<(), Errno>;

    /// Has no fork told any more, and returns when those have gone on that were. To be called when nothing
    /// is trapped or watched, while messages are read.
    fn stop_telling_forks(&self);

    /// Whether a fork is under way that is told, read or not: from before what is changed after it, until
    /// it goes on.
    fn forks_under_way(&self) -> bool;

    /// Has children from now on have `pages`, or not: to them nothing is mapped there then. Raises
    /// no message; may be called with engine locks held. What is said of whole areas splits none.
    ///
    /// # Errors
    /// The system's error; where a part is not mapped all else is done.
    fn set_inherited(&self, pages: PageRange, inherited: bool) -> Result<(), Errno>;

    /// As [`stop_telling_forks`](Self::stop_telling_forks), by who calls it, when nobody reads messages any
    /// more, and nothing is away.
    fn end_forks(&self);

    /// Copies `pages` pages from staging at `from` to holes of the child at `to`. Never waits for
    /// another thread. It stops with [`Stop::NoArea`](super::Stop::NoArea) where the child has nothing there that was trapped
    /// as it was forked, and with [`Stop::Other`](super::Stop::Other) and `ESRCH` where the fork has been given up.
    ///
    /// # Safety
    /// `child` is one that this system told of, and it was not ended.
    unsafe fn copy_to_child(
        &self,
        child: Child,
        from: PageNumber,
        to: PageNumber,
        pages: usize,
    ) -> Done;

    /// Marks the holes of the child at `to` so that its accesses end with an error. Stops as
    /// [`copy_to_child`](Self::copy_to_child).
    ///
    /// # Safety
    /// As of [`copy_to_child`](Self::copy_to_child).
    unsafe fn poison_in_child(&self, child: Child, to: PageNumber, pages: usize) -> Done;

    /// Ends the trapping of the child's memory, for which nothing is left to be done: its holes read
    /// zeros. When this was done for all children that were told, and somebody [waits](Self::wait) for
    /// messages, the forks go on.
    ///
    /// # Safety
    /// As of [`copy_to_child`](Self::copy_to_child); it is ended then.
    unsafe fn end_child(&self, child: Child);

    /// Opens an accessor: the calling thread's right to reach the program's memory in place, where
    /// it lies, through the CPU's own page tables. While it is open the thread's signals wait, but
    /// those by which an access ends that finds no page.
    ///
    /// A thread may open several, one inside the other. It uses and closes them with its signals as
    /// the opening left them: within no [`SignalsBlocked`](crate::sync::SignalsBlocked) that was
    /// made since, but on a thread of the engine, where those change nothing.
    ///
    /// # Errors
    /// `EAGAIN` where as many threads have one as can; the system's error where such accesses
    /// cannot be had.
    fn open_accessor(&self) -> Result<Accessor, Errno>;

    /// Sees to it again that accesses through the accessor end where they find no page: the program may
    /// have set handlers of its own since it was opened, or since the last call.
    ///
    /// # Errors
    /// The system's error; accesses end then only as far as the program's handlers pass on what they do
    /// not know.
    fn renew_accessor(&self, accessor: &Accessor) -> Result<(), Errno>;

    /// Closes an accessor that this system opened. With the last of its thread the thread's signals
    /// are as they were before the first.
    fn close_accessor(&self, accessor: Accessor);

    /// Has an access that is under way through the accessor end, from another thread: as done, or as
    /// refused. Does nothing where none is.
    ///
    /// An access in place that meets a trapped hole is refused when the message about it is
    /// [read](Self::read). Who waits for accesses to end can be whom the reader waits for, so it
    /// calls this for an access that lasts, and again while it does. It never waits, and may be
    /// called with engine locks held.
    fn refuse(&self, accessor: AccessorNumber);

    /// Loads from the program's memory in place, with acquire ordering.
    ///
    /// # Errors
    /// [`Refused`] where the page is not there, may not be read, or is a trapped hole, and now and
    /// then where none of that is so any more. It waits for nobody but who reads messages or calls
    /// [`refuse`](Self::refuse).
    ///
    /// # Safety
    /// `accessor` is one that this system opened. `address` is a multiple of the width. The access
    /// races with the program's own as an atomic one would: what it reaches is memory that the
    /// program lets the device reach.
    unsafe fn load_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
    ) -> Result<u64, Refused>;

    /// Stores to the program's memory in place, with release ordering, so much of `value` as the
    /// width holds.
    ///
    /// # Errors
    /// As of [`load_in_place`](Self::load_in_place), where the page may not be written; nothing is
    /// stored then.
    ///
    /// # Safety
    /// As of [`load_in_place`](Self::load_in_place).
    unsafe fn store_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<(), Refused>;

    /// Stores `new` in place where `expected` is, as one sequentially consistent access. Answers
    /// what was there: `Ok` where it was `expected`.
    ///
    /// # Errors
    /// As of [`store_in_place`](Self::store_in_place). Where something else is there, the page need
    /// not be one that may be written.
    ///
    /// # Safety
    /// As of [`load_in_place`](Self::load_in_place).
    unsafe fn compare_exchange_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        expected: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused>;

    /// Adds to what is in place, wrapping, as one sequentially consistent access, and answers what
    /// was there.
    ///
    /// # Errors
    /// As of [`store_in_place`](Self::store_in_place).
    ///
    /// # Safety
    /// As of [`load_in_place`](Self::load_in_place).
    unsafe fn fetch_add_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        width: Width,
        value: u64,
    ) -> Result<u64, Refused>;

    /// Copies bytes of the program's memory in place to `out`, in no order. `out` lies where no
    /// page is ever away: in engine memory, or on a stack.
    ///
    /// # Errors
    /// As of [`load_in_place`](Self::load_in_place), of any of the pages; `out` may hold some of
    /// the bytes then.
    ///
    /// # Safety
    /// As of [`load_in_place`](Self::load_in_place), but that any address will do; the range does
    /// not wrap around the end of the address space.
    unsafe fn copy_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        out: &mut [u8],
    ) -> Result<(), Refused>;

    /// Copies `bytes` to the program's memory in place, in no order. `bytes` lie where no page is
    /// ever away.
    ///
    /// # Errors
    /// As of [`store_in_place`](Self::store_in_place), of any of the pages; some of the bytes may
    /// be there then.
    ///
    /// # Safety
    /// As of [`copy_in_place`](Self::copy_in_place).
    unsafe fn write_in_place(
        &self,
        accessor: &Accessor,
        address: usize,
        bytes: &[u8],
    ) -> Result<(), Refused>;
}
