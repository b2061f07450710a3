//! A launch: a kernel with its arguments and items, in engine memory, and how far the workers are.

use core::{
    cell::{Cell, UnsafeCell},
    mem,
    ops::{Deref, Range},
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use uhmm::{
    engine_memory::{EngineBox, EngineMemory, EngineVec},
    mm::Mm,
    sync::{Lock, SignalsBlocked},
    units::PageRange,
};

use crate::{
    arguments::Arguments,
    errors::{AccessError, RunError},
    worker::Worker,
};

/// The most items that a worker takes at a time.
const MOST_IN_BATCH: usize = 64;

/// How many batches a worker finds for each worker, where there are items enough.
const BATCHES: usize = 8;

/// How many items a worker takes at a time, of a launch that so many workers share.
pub(crate) fn batch(items: usize, workers: usize) -> usize {
    (items / (workers * BATCHES)).clamp(1, MOST_IN_BATCH)
}

/// The work of a launch, whatever its kernel and arguments are.
pub(crate) trait Work<M: Mm> {
    /// Runs the kernel for each of `items` up to the first that fails, which is answered.
    fn work(
        &self,
        worker: &mut Worker<'_, M>,
        items: Range<usize>,
    ) -> Result<(), (usize, AccessError)>;
}

/// A launch.
///
/// # Invariants
/// `link` is reached under the lock of the queue that the launch is in. `work` is used by workers, and
/// by them only until `done` is set, which the last of them does as the last thing that any does here.
pub(crate) struct Launch<M: Mm, W: ?Sized = dyn Work<M>> {
    /// How many [`LaunchRef`]s there are.
    owners: AtomicUsize,
    memory: EngineMemory,
    pub(crate) link: Link<M>,
    items: Range<usize>,
    batch: usize,
    /// The pages that the kernel may reach, sorted and apart, if they are named.
    given: Option<EngineVec<PageRange>>,
    /// How many items were taken, and perhaps more.
    taken: AtomicUsize,
    failed: AtomicBool,
    failure: Lock<Option<(usize, AccessError)>>,
    done: AtomicBool,
    work: W,
}

/// A launch's place in a queue.
pub(crate) struct Link<M: Mm> {
    pub(crate) next: Cell<Option<NonNull<Launch<M>>>>,
    /// How many launches were put into the queue before it.
    pub(crate) number: Cell<usize>,
    /// How many workers have not finished it.
    pub(crate) left: Cell<usize>,
}

impl<M: Mm> Launch<M> {
    /// Works on it until all items are taken, or one has failed.
    pub(crate) fn work(&self, worker: &mut Worker<'_, M>, signals: &SignalsBlocked) {
        while !self.failed.load(Relaxed) {
            let first = self.taken.fetch_add(self.batch, Relaxed);
            let Some(left) = self.items.len().checked_sub(first).filter(|&left| left > 0) else {
                return;
            };
            let first = self.items.start + first;
            let items = first..first + left.min(self.batch);
            if let Err((item, error)) = self.work.work(worker, items) {
                self.failed.store(true, Relaxed);
                let mut failure = self.failure.lock(signals);
                if failure.is_none_or(|(other, _)| item < other) {
                    *failure = Some((item, error));
                }
                return;
            }
        }
    }

    /// The pages that the kernel may reach, if they are named.
    pub(crate) fn given(&self) -> Option<&[PageRange]> {
        self.given.as_deref()
    }

    /// Notes that no worker will touch it any more. It can be gone before this returns, so there
    /// is no reference to it.
    ///
    /// # Safety
    /// It lives.
    pub(crate) unsafe fn set_done(launch: NonNull<Self>) {
        // SAFETY: the caller's promise, up to the store.
        unsafe { &(*launch.as_ptr()).done }.store(true, Release);
    }

    /// Whether all workers have finished it.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Acquire)
    }

    /// Takes the failure of a launch that is done out, if it failed.
    pub(crate) fn take_failure(&self) -> Option<RunError> {
        let failure = self.failure.lock(&SignalsBlocked::new()).take();
        failure.map(|(item, error)| RunError::Item { item, error })
    }
}

/// An owner of a launch. The last that is dropped drops the launch, kernel and arguments included.
///
/// # Invariants
/// The launch came from `EngineBox::into_raw`, and lives while `owners` is not zero, which counts the
/// `LaunchRef`s to it.
pub(crate) struct LaunchRef<M: Mm>(NonNull<Launch<M>>);

// SAFETY: whoever makes one sees to what its kernel and arguments allow; the rest of a launch is
// atomics and locks, and the link, which is reached under a lock.
unsafe impl<M: Mm> Send for LaunchRef<M> {}
// SAFETY: as above.
unsafe impl<M: Mm> Sync for LaunchRef<M> {}

impl<M: Mm> LaunchRef<M> {
    /// Where the launch is: it stays there.
    pub(crate) const fn pointer(&self) -> NonNull<Launch<M>> {
        self.0
    }

    /// Whether nobody else owns it.
    pub(crate) fn is_last(&self) -> bool {
        self.owners.load(Acquire) == 1
    }
}

impl<M: Mm> Clone for LaunchRef<M> {
    fn clone(&self) -> Self {
        self.owners.fetch_add(1, Relaxed);
        Self(self.0)
    }
}

impl<M: Mm> Deref for LaunchRef<M> {
    type Target = Launch<M>;
    fn deref(&self) -> &Launch<M> {
        // SAFETY: by the invariant it lives as long as self.
        unsafe { self.0.as_ref() }
    }
}

impl<M: Mm> Drop for LaunchRef<M> {
    fn drop(&mut self) {
        if self.owners.fetch_sub(1, AcqRel) == 1 {
            // The memory is kept until the launch, which lies in it, is gone.
            let memory = self.memory.clone();
            // SAFETY: by the invariant it came from `into_raw`, and this was the last owner.
            drop(unsafe { EngineBox::from_raw(self.0.as_ptr(), memory) });
        }
    }
}

/// A kernel and its arguments.
struct KernelWork<K, A: Arguments> {
    kernel: K,
    /// There is `None` until the arguments are where they stay, and never after.
    views: Option<A::Views>,
    arguments: UnsafeCell<Option<A>>,
}

impl<M, K, A> Work<M> for KernelWork<K, A>
where
    M: Mm,
    A: Arguments,
    K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError>,
{
    fn work(
        &self,
        worker: &mut Worker<'_, M>,
        mut items: Range<usize>,
    ) -> Result<(), (usize, AccessError)> {
        let Some(views) = &self.views else { return Ok(()) };
        items.try_for_each(|item| (self.kernel)(worker, item, views).map_err(|error| (item, error)))
    }
}

/// What came of an attempt to launch a kernel.
///
/// # Invariants
/// `arguments` points into the launch, and only this takes them out.
pub(crate) enum Begun<A, M: Mm> {
    Launched { launch: LaunchRef<M>, arguments: NonNull<UnsafeCell<Option<A>>> },
    Refused { error: RunError, arguments: A },
}

// SAFETY: the arguments are reached through this alone, on the thread that has it.
unsafe impl<A: Send, M: Mm> Send for Begun<A, M> {}
// SAFETY: nothing is reached through a shared reference but the launch.
unsafe impl<A: Send, M: Mm> Sync for Begun<A, M> {}

impl<A: Arguments, M: Mm> Begun<A, M> {
    /// Makes a launch for a device of `workers` workers. It is in no queue yet.
    ///
    /// # Safety
    /// What the kernel and the arguments borrow stays borrowed until the launch is done, and until
    /// its last owner is dropped. Owners are dropped on other threads only if the kernel is `Send`.
    pub(crate) unsafe fn new<K>(
        memory: &EngineMemory,
        workers: usize,
        items: Range<usize>,
        kernel: K,
        arguments: A,
        given: Option<EngineVec<PageRange>>,
    ) -> Self
    where
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError> + Sync,
    {
        let batch = batch(items.len(), workers);
        let launch = Launch {
            owners: AtomicUsize::new(1),
            memory: memory.clone(),
            link: Link { next: Cell::new(None), number: Cell::new(0), left: Cell::new(workers) },
            items,
            batch,
            given,
            taken: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Lock::new(None),
            done: AtomicBool::new(false),
            work: KernelWork { kernel, views: None, arguments: UnsafeCell::new(None) },
        };
        let launch = match EngineBox::try_new(memory, launch) {
            Ok(launch) => EngineBox::into_raw(launch).0,
            Err(error) => return Self::Refused { error: error.into(), arguments },
        };
        // SAFETY: the launch is this function's alone. Its arguments are put where they stay before
        // the views are made of them; they are touched again when no worker has the views any more.
        let in_launch = unsafe {
            let work = &mut (*launch).work;
            work.views = Some(work.arguments.get_mut().insert(arguments).views());
            NonNull::new_unchecked(&raw mut (*launch).work.arguments)
        };
        let launch: *mut Launch<M, dyn Work<M> + '_> = launch;
        // SAFETY: a box's pointer is not null; only a lifetime is extended, which the caller sees to.
        let launch = unsafe {
            mem::transmute::<NonNull<Launch<M, dyn Work<M> + '_>>, NonNull<Launch<M>>>(
                NonNull::new_unchecked(launch),
            )
        };
        Self::Launched { launch: LaunchRef(launch), arguments: in_launch }
    }
}

impl<A, M: Mm> Begun<A, M> {
    /// The launch, where there is one.
    pub(crate) const fn launch(&self) -> Option<&LaunchRef<M>> {
        match self {
            Self::Launched { launch, .. } => Some(launch),
            Self::Refused { .. } => None,
        }
    }

    /// The arguments and the result of a launch that is done.
    pub(crate) fn finish(self) -> (A, Result<(), RunError>) {
        match self {
            Self::Launched { launch, arguments } => {
                assert!(launch.is_done(), "what workers use is not given back");
                // SAFETY: it is in the launch, which lives; no worker uses it any more.
                let arguments = unsafe { (*arguments.as_ref().get()).take() };
                let Some(arguments) = arguments else { unreachable!("only this takes them") };
                (arguments, launch.take_failure().map_or(Ok(()), Err))
            }
            Self::Refused { error, arguments } => (arguments, Err(error)),
        }
    }
}
