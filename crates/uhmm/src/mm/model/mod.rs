//! A small, deterministic memory management in plain memory, in place of the operating system.
//!
//! [`Model`] is both sides of the seam: the core drives it through [`Mm`](crate::mm::Mm), and a
//! test plays the program through the model's own methods, which stand for system calls
//! ([`map`](Model::map), [`unmap`](Model::unmap), [`remap`](Model::remap) ...) and for instructions
//! ([`load`](Model::load), [`store`](Model::store)). A call of the program blocks where it would on
//! Linux: an access to a trapped hole until somebody serves it, a change of a trapped area until
//! its message is read. So a program's side that touches trapped memory needs a thread of its own.
//!
//! There is no clock and no randomness in it, and nothing depends on an order of hashing: what
//! happens depends on the order of the calls alone. The schedule explorer chooses that order.
//!
//! Where it is known to differ from Linux: the program's mappings alias nothing (two of one object are
//! two contents; one and the engine's [alias](super::Mm::alias) are one), file content is zeros, a file has all pages until it is
//! [truncated](Model::truncate), children only read ([`fork`](Model::fork); [`share_by_fork`](Model::share_by_fork) stands
//! for one that does not even that), a hole registered with somebody else's
//! userfaultfd is filled with zeros, and areas merge whenever they are alike.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the model plays the kernel: it is off the fault path and may use the heap"
)]

mod access;
mod areas;
mod aside;
mod bulk;
mod children;
mod in_place;
mod messages;
mod pages;
mod program;
mod system;
mod violation;
mod world;

#[cfg(test)]
mod tests;

use areas::Areas;
use children::ChildState;
use messages::Messages;
use pages::{Bytes, Pages};
use world::{Arc, Condvar, Mutex, MutexGuard};

pub use access::Signal;
pub use children::ForkedChild;
pub use program::Mark;
pub use violation::Violation;

use super::{Errno, Exclusion};
use crate::units::{BLOCK_PAGES, PageNumber, PageRange, PageSize};

/// What a [`Model`] is made of.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a system")]
pub struct ModelOptions {
    /// The size of a base page.
    pub page_size: PageSize,
    /// Pages of the program's address space, from page 0 on; rounded up to whole blocks.
    pub pages: usize,
    /// Pages of staging that there can be at once; rounded up to whole blocks.
    pub staging_pages: usize,
    /// How many pages of memory the program and staging can have together; moving pages between
    /// the two needs none, zero pages and swapped ones count for nothing.
    pub memory_limit_pages: Option<usize>,
    /// Whether changes have the loose ends that they have on Linux: other threads may run between
    /// the change and its message, and [`Stop::Changing`](super::Stop::Changing) is answered until
    /// the thread that made the change runs again, a moment after its message was read. Without,
    /// both are one step.
    pub loose_changes: bool,
    /// Whether an access in place that meets a trapped hole waits there, as on Linux, until it is
    /// refused: when messages are read, or by [`Mm::refuse`](super::Mm::refuse). Without, it is
    /// refused at once, and no message tells of it.
    pub late_refusals: bool,
    /// Whether forks are told.
    pub tells_forks: bool,
    /// Whether huge pages are made on first touch, as far as areas tell. The model makes none by itself.
    pub huge_pages: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        const PAGE_SIZE: PageSize = PageSize::new(64).expect("a power of two");
        Self {
            page_size: PAGE_SIZE,
            pages: 8 * BLOCK_PAGES,
            staging_pages: 8 * BLOCK_PAGES,
            memory_limit_pages: None,
            loose_changes: cfg!(shuttle),
            late_refusals: cfg!(shuttle),
            tells_forks: true,
            huge_pages: false,
        }
    }
}

/// A handle to a modelled address space. Clones are handles to the same one, so that a test keeps
/// one for the program while the core owns another.
#[derive(Clone, Debug)]
pub struct Model {
    shared: Arc<Shared>,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a system")]
struct Shared {
    page_size: PageSize,
    program: PageRange,
    staging: PageRange,
    aliases: PageRange,
    loose: bool,
    late_refusals: bool,
    tells_forks: bool,
    huge_pages: bool,
    bytes: Arc<Bytes>,
    state: Mutex<State>,
    /// Notified whenever a thread that waits could go on.
    changed: Condvar,
}

/// All that changes.
#[derive(Debug)]
struct State {
    areas: Areas,
    pages: Pages,
    messages: Messages,
    violations: Vec<Violation>,
    exclusions: Vec<(PageRange, Exclusion)>,
    /// Whether the thread that asks is said to be the program's only one.
    alone: bool,
    /// How many accessors were ever opened.
    accessors: u32,
    /// How many pages each object has, from its first byte on.
    objects: Vec<usize>,
    /// All that were ever forked.
    children: Vec<ChildState>,
    /// How many forks are told whose children are not filled.
    forks_under_way: usize,
}

/// The model's state, held. Nothing outside the model is called meanwhile.
type Held<'a> = MutexGuard<'a, State>;

impl Model {
    /// An address space in which nothing is mapped.
    ///
    /// # Panics
    /// Where the options ask for no pages at all.
    pub fn new(options: ModelOptions) -> Self {
        let page_size = options.page_size;
        let program = PageRange::of(PageNumber(0), options.pages.next_multiple_of(BLOCK_PAGES));
        let staging =
            PageRange::of(program.end(), options.staging_pages.next_multiple_of(BLOCK_PAGES));
        // There can be an alias of everything.
        let aliases = PageRange::of(staging.end(), program.len());
        let bytes = Arc::new(Bytes::new(aliases.end().0, page_size));
        let state = State {
            areas: Areas::default(),
            pages: Pages::new(Arc::clone(&bytes), staging, page_size, options.memory_limit_pages),
            messages: Messages::new(options.loose_changes),
            violations: Vec::new(),
            exclusions: Vec::new(),
            alone: false,
            accessors: 0,
            objects: Vec::new(),
            children: Vec::new(),
            forks_under_way: 0,
        };
        Self {
            shared: Arc::new(Shared {
                page_size,
                program,
                staging,
                aliases,
                loose: options.loose_changes,
                late_refusals: options.late_refusals,
                tells_forks: options.tells_forks,
                huge_pages: options.huge_pages,
                bytes,
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    /// All pages that the program can have.
    pub fn program(&self) -> PageRange {
        self.shared.program
    }

    /// What the core did that it must never do, in order.
    pub fn violations(&self) -> Vec<Violation> {
        self.held().violations.clone()
    }

    /// Excludes `pages` from leaving main memory.
    pub fn exclude(&self, pages: PageRange, exclusion: Exclusion) {
        self.held().exclusions.push((pages, exclusion));
    }

    /// Ends the exclusion of all that was excluded so far: its threads ended, its objects are
    /// unloaded.
    pub fn end_exclusions(&self) {
        self.held().exclusions.clear();
    }

    /// Says whether who asks is the program's only thread.
    pub fn set_alone(&self, alone: bool) {
        self.held().alone = alone;
    }

    /// Changes how many pages of memory there can be. What is there stays.
    pub fn set_memory_limit(&self, pages: Option<usize>) {
        self.held().pages.set_limit(pages);
    }

    /// How many pages of memory the program and staging have.
    pub fn memory_used(&self) -> usize {
        self.held().pages.used()
    }

    /// How many threads wait on a trapped hole of `pages`.
    pub fn waiting(&self, pages: PageRange) -> usize {
        self.held().messages.waiting(pages)
    }

    fn held(&self) -> Held<'_> {
        world::lock(&self.shared.state)
    }

    /// Lets go until something changes.
    fn let_go<'a>(&'a self, held: Held<'a>) -> Held<'a> {
        world::wait(&self.shared.changed, held)
    }

    /// Ends the waits on `pages`.
    fn wake_waiters(&self, held: &mut Held<'_>, pages: PageRange) {
        if held.messages.waiting(pages) > 0 {
            held.messages.wake(pages);
            self.shared.changed.notify_all();
        }
    }

    /// Answers whether `pages` are some, and the program's.
    fn check(&self, pages: PageRange) -> Result<(), Errno> {
        if !pages.is_empty() && self.shared.program.covers(pages) { Ok(()) } else { Err(INVALID) }
    }
}

const INVALID: Errno = Errno(libc::EINVAL);
const NO_MEMORY: Errno = Errno(libc::ENOMEM);
const BAD_ADDRESS: Errno = Errno(libc::EFAULT);
const POISONED: Errno = Errno(libc::EHWPOISON);
