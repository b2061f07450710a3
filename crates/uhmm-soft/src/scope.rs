//! Launches over borrowed memory, several at a time: a scope that waits for all of them.

use core::{fmt, marker::PhantomData, ops::Range};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use uhmm::{
    Shared,
    mm::{Mm, linux::Linux},
};

use crate::{
    arguments::Arguments,
    device::Soft,
    errors::{AccessError, RunError},
    launch::{Begun, LaunchRef},
    queue::Queue,
    worker::Worker,
};

/// How many launches a scope keeps at least before it looks which of them are over.
const KEPT: usize = 16;

/// A scope to launch kernels in that borrow. See [`Soft::scope`].
pub struct Scope<'scope, 'env: 'scope, M: Mm = Linux> {
    device: &'env Soft<M>,
    launches: Launches<M>,
    /// Neither lifetime may be shortened or stretched: as in `std::thread::Scope`.
    lifetimes: PhantomData<(&'scope mut &'scope (), &'env mut &'env ())>,
}

/// The launches of a scope. Dropping it waits for them.
struct Launches<M: Mm> {
    queue: Shared<Queue<M>>,
    state: Mutex<State<M>>,
}

struct State<M: Mm> {
    /// In their order.
    launches: VecDeque<LaunchRef<M>>,
    /// With how many it is time to see which are over.
    look_at: usize,
    /// The first failure of a job that nobody joined.
    failure: Option<RunError>,
}

impl<M: Mm> Launches<M> {
    fn state(&self) -> MutexGuard<'_, State<M>> {
        // Nothing that is done with the state held leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a failure that nobody will see by joining.
    fn note(&self, failure: RunError) {
        self.state().failure.get_or_insert(failure);
    }

    /// Where the list has become long, drops the launches that are over.
    fn tidy(&self) {
        let mut state = self.state();
        if state.launches.len() < state.look_at {
            return;
        }
        let launches = core::mem::take(&mut state.launches);
        let over: VecDeque<_>;
        (over, state.launches) =
            launches.into_iter().partition(|launch| launch.is_last() && launch.is_done());
        state.look_at = KEPT.max(2 * state.launches.len());
        drop(state);
        // Dropping them runs code of the program's.
        for launch in over {
            self.end(launch);
        }
    }

    /// Queues a launch.
    ///
    /// # Safety
    /// It is new.
    unsafe fn add(&self, launch: &LaunchRef<M>) {
        self.state().launches.push_back(launch.clone());
        // SAFETY: the caller's promise; the list keeps it until it is done.
        unsafe { self.queue.add(launch.pointer()) };
    }

    /// Drops a launch that is done.
    fn end(&self, launch: LaunchRef<M>) {
        if let Some(failure) = launch.take_failure() {
            self.note(failure);
        }
        drop(launch);
    }

    /// Waits for all, also for those that are launched meanwhile.
    fn wait(&self) {
        loop {
            let Some(launch) = self.state().launches.pop_front() else { return };
            self.queue.wait(&launch);
            self.end(launch);
        }
    }
}

impl<M: Mm> Drop for Launches<M> {
    fn drop(&mut self) {
        self.wait();
    }
}

impl<M: Mm> Soft<M> {
    /// Runs `body` with a scope, in which launches can borrow and several can be in flight, and returns
    /// when all of them are done, also where `body` panics.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let space = uhmm::AddressSpace::open()?;
    /// # let device = uhmm_soft::Soft::start(&space, uhmm_soft::Options::new(1 << 20))?;
    /// let (mut odd, mut even) = (vec![0_u64; 1000], vec![0_u64; 1000]);
    /// let sum = device.scope(|scope| {
    ///     let odd = scope.launch(
    ///         0..1000,
    ///         |worker, item, odd| odd.set(worker, item, 2 * item as u64 + 1),
    ///         &mut odd[..],
    ///     );
    ///     scope.launch(
    ///         0..1000,
    ///         |worker, item, even| even.set(worker, item, 2 * item as u64),
    ///         &mut even[..],
    ///     );
    ///     // The first may be used again, while the other one is computed.
    ///     let odd = odd.join()?;
    ///     Ok(odd.iter().sum::<u64>())
    /// })?;
    /// assert_eq!(sum + even.iter().sum::<u64>(), 1999 * 1000);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of `body`; else the first failure of a launch that was not joined.
    ///
    /// # Panics
    /// As `body` does.
    pub fn scope<'env, T, F>(&'env self, body: F) -> Result<T, RunError>
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env, M>) -> Result<T, RunError>,
    {
        Scope::run(self, body)
    }
}

impl<'scope, 'env, M: Mm> Scope<'scope, 'env, M> {
    /// Runs `body` with a scope on a device, and waits for what it launched.
    fn run<T, F>(device: &'env Soft<M>, body: F) -> Result<T, RunError>
    where
        F: for<'a> FnOnce(&'a Scope<'a, 'env, M>) -> Result<T, RunError>,
    {
        let state = State { launches: VecDeque::new(), look_at: KEPT, failure: None };
        let scope = Scope {
            device,
            launches: Launches { queue: device.queue().clone(), state: Mutex::new(state) },
            lifetimes: PhantomData,
        };
        let result = catch_unwind(AssertUnwindSafe(|| body(&scope)));
        scope.launches.wait();
        device.after_launches();
        let failure = scope.launches.state().failure.take();
        match result {
            Ok(result) => result.and_then(|value| failure.map_or(Ok(value), Err)),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Queues a launch of `kernel`, as [`Soft::launch`] does, and returns at once. What the arguments
    /// and the kernel borrow stays borrowed until the scope ends; [`join`](ScopedJob::join) gives the
    /// arguments back before.
    ///
    /// A launch that cannot be made is an error of the job.
    pub fn launch<A, K>(
        &'scope self,
        items: Range<usize>,
        kernel: K,
        arguments: A,
    ) -> ScopedJob<'scope, A, M>
    where
        A: Arguments + 'scope,
        K: Fn(&mut Worker<'_, M>, usize, &A::Views) -> Result<(), AccessError>
            + Send
            + Sync
            + 'scope,
    {
        self.launches.tidy();
        // SAFETY: what is borrowed for `'scope` is so until the scope has ended, which waits for the
        // launch and drops all owners but jobs; those cannot outlive `'scope`. The kernel is `Send`.
        let begun = unsafe { self.device.begin(items, kernel, arguments, None) };
        if let Some(launch) = begun.launch() {
            // SAFETY: it is new.
            unsafe { self.launches.add(launch) };
        }
        ScopedJob { begun: Some(begun), launches: &self.launches }
    }
}

impl<M: Mm> fmt::Debug for Scope<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("device", &self.device).finish_non_exhaustive()
    }
}

/// A launch in a [`Scope`]. Dropping it leaves the launch to the scope.
pub struct ScopedJob<'scope, A, M: Mm = Linux> {
    /// There until it is joined.
    begun: Option<Begun<A, M>>,
    launches: &'scope Launches<M>,
}

impl<A, M: Mm> ScopedJob<'_, A, M> {
    /// Whether [`join`](Self::join) will not wait.
    pub fn is_finished(&self) -> bool {
        self.begun.as_ref().and_then(Begun::launch).is_none_or(|launch| launch.is_done())
    }

    /// Waits until the launch is done, and gives the arguments back. A kernel that calls it while
    /// the launch is not done ends the process.
    ///
    /// # Errors
    /// [`RunError`], as of [`Soft::launch`]; the arguments are dropped then.
    pub fn join(mut self) -> Result<A, RunError> {
        let Some(begun) = self.begun.take() else { unreachable!("a job is joined once") };
        if let Some(launch) = begun.launch() {
            self.launches.queue.wait(launch);
        }
        let (arguments, result) = begun.finish();
        result.map(|()| arguments)
    }
}

impl<A, M: Mm> Drop for ScopedJob<'_, A, M> {
    fn drop(&mut self) {
        if let Some(Begun::Refused { error, .. }) = &self.begun {
            self.launches.note(*error);
        }
    }
}

impl<A, M: Mm> fmt::Debug for ScopedJob<'_, A, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJob").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
