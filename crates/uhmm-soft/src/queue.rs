//! The queue of a device: launches in order, and what its workers do with them.
//!
//! Every worker works on the oldest launch, taking items off it while there are any. When all have
//! finished it, it is done, and the next one begins: what a launch did is seen by those behind it.

use core::{
    ptr::NonNull,
    sync::atomic::Ordering::{Acquire, Release},
};

use uhmm::{
    Attachment, FaultBuffer,
    engine_memory::{EngineMemory, on_engine_thread},
    mm::{Errno, Mm},
    sync::{Lock, SignalsBlocked, WaitWord},
};

use crate::{launch::Launch, placement::Placements, table::Table, worker::Worker};

/// What the workers share with the program.
pub(crate) struct Queue<M: Mm> {
    launches: Lock<Launches<M>>,
    /// Changes as another launch begins, and as the device ends.
    begins: WaitWord,
    /// Changes as a launch is done.
    done: WaitWord,
    /// How many workers have not begun yet.
    beginning: WaitWord,
    /// Why a worker could not begin, if one could not.
    unable: Lock<Option<Errno>>,
    pub(crate) placements: Placements,
    /// What the workers miss.
    pub(crate) faults: FaultBuffer,
}

/// The launches that are not done, oldest first.
///
/// # Invariants
/// Each lives, where it is, until it is done, and is taken out as that is noted.
struct Launches<M: Mm> {
    ends: Option<Ends<M>>,
    /// How many were ever added.
    added: usize,
    ending: bool,
}

/// The oldest launch and the newest.
struct Ends<M: Mm> {
    first: NonNull<Launch<M>>,
    last: NonNull<Launch<M>>,
}

// SAFETY: the pointers are to launches in engine memory that live while they are in the queue, and
// a launch is shared between threads by its making.
unsafe impl<M: Mm> Send for Launches<M> {}

impl<M: Mm> Launches<M> {
    /// The oldest launch, for a worker that has finished so many; none where it has finished that one.
    fn oldest(&self, finished: usize) -> Option<NonNull<Launch<M>>> {
        let oldest = self.ends.as_ref()?.first;
        // SAFETY: by the invariant it lives.
        let number = unsafe { &oldest.as_ref().link }.number.get();
        (number == finished).then_some(oldest)
    }
}

impl<M: Mm> Queue<M> {
    /// The queue of a device whose workers, which are about to begin, leave what they miss in `faults`.
    pub(crate) fn new(memory: &EngineMemory, faults: FaultBuffer) -> Self {
        Self {
            launches: Lock::new(Launches { ends: None, added: 0, ending: false }),
            begins: WaitWord::new(0),
            done: WaitWord::new(0),
            beginning: WaitWord::new(0),
            unable: Lock::new(None),
            placements: Placements::new(memory),
            faults,
        }
    }

    /// Adds a launch behind all others.
    ///
    /// # Safety
    /// The launch is in no queue and was in none, and it lives until it is done.
    pub(crate) unsafe fn add(&self, launch: NonNull<Launch<M>>) {
        let signals = SignalsBlocked::new();
        let mut launches = self.launches.lock(&signals);
        // SAFETY: the caller's promise; the lock is held.
        unsafe { &launch.as_ref().link }.number.set(launches.added);
        launches.added += 1;
        match &mut launches.ends {
            None => launches.ends = Some(Ends { first: launch, last: launch }),
            Some(Ends { last, .. }) => {
                // SAFETY: by the invariant it lives.
                unsafe { &last.as_ref().link }.next.set(Some(launch));
                *last = launch;
            }
        }
        drop(launches);
        self.call_workers();
    }

    /// Waits until a launch that was added is done.
    ///
    /// A worker that waited for one could wait for itself: then the process ends.
    pub(crate) fn wait(&self, launch: &Launch<M>) {
        loop {
            let seen = self.done.word().load(Acquire);
            if launch.is_done() {
                return;
            }
            if on_engine_thread() {
                uhmm::abort::abort(b"a kernel waits for a launch, which may be its own");
            }
            self.done.wait(seen);
        }
    }

    /// Has the workers end once they have finished what was added.
    pub(crate) fn end(&self) {
        self.launches.lock(&SignalsBlocked::new()).ending = true;
        self.call_workers();
    }

    fn call_workers(&self) {
        self.begins.word().fetch_add(1, Release);
        self.begins.wake_all();
    }

    /// Notes that a worker is about to begin.
    pub(crate) fn expect_worker(&self) {
        self.beginning.word().fetch_add(1, Release);
    }

    /// Waits until all workers have begun.
    ///
    /// # Errors
    /// Why one could not.
    pub(crate) fn wait_for_workers(&self) -> Result<(), Errno> {
        loop {
            let beginning = self.beginning.word().load(Acquire);
            if beginning == 0 {
                break;
            }
            self.beginning.wait(beginning);
        }
        self.unable.lock(&SignalsBlocked::new()).map_or(Ok(()), Err)
    }

    /// The work of a worker's thread.
    pub(crate) fn serve(
        &self,
        number: usize,
        attachment: &Attachment<Table<M>, M>,
        signals: &SignalsBlocked,
    ) {
        let in_place = match attachment.in_place() {
            Ok(in_place) => in_place,
            Err(errno) => {
                *self.unable.lock(signals) = Some(errno);
                return self.begun();
            }
        };
        attachment.device().name_accessor(number, in_place.number());
        self.begun();
        let mut finished = 0;
        while let Some(launch) = self.next(finished, signals) {
            // SAFETY: the launch lives until all workers, this one too, have finished it.
            let launch_now = unsafe { launch.as_ref() };
            // SAFETY: each worker's number is its own, and it opens its lane once at a time.
            let lane = unsafe { attachment.device().in_flight.open(number) };
            let (faults, placements) = (&self.faults, &self.placements);
            let given = launch_now.given();
            let worker =
                Worker::new(number, attachment, faults, placements, lane, &in_place, given);
            let Some(mut worker) = worker else { unreachable!("each worker has its own queue") };
            launch_now.work(&mut worker, signals);
            drop(worker);
            self.finish(launch, signals);
            finished += 1;
        }
    }

    fn begun(&self) {
        if self.beginning.word().fetch_sub(1, Release) == 1 {
            self.beginning.wake_all();
        }
    }

    /// Waits for the launch behind those that a worker has finished. None where the device ends.
    fn next(&self, finished: usize, signals: &SignalsBlocked) -> Option<NonNull<Launch<M>>> {
        loop {
            let seen = self.begins.word().load(Acquire);
            {
                let launches = self.launches.lock(signals);
                let oldest = launches.oldest(finished);
                if oldest.is_some() || launches.ending && launches.added == finished {
                    return oldest;
                }
            }
            self.begins.wait(seen);
        }
    }

    /// One worker has finished the oldest launch.
    fn finish(&self, launch: NonNull<Launch<M>>, signals: &SignalsBlocked) {
        let mut launches = self.launches.lock(signals);
        // SAFETY: the launch lives until all workers, this one too, have finished it.
        let link = unsafe { &launch.as_ref().link };
        let left = link.left.get() - 1;
        link.left.set(left);
        if left > 0 {
            return;
        }
        let next = link.next.get();
        let last = launches.ends.take().map(|ends| ends.last);
        launches.ends = next.zip(last).map(|(first, last)| Ends { first, last });
        // SAFETY: as above.
        unsafe { Launch::set_done(launch) };
        drop(launches);
        self.done.word().fetch_add(1, Release);
        self.done.wake_all();
        if next.is_some() {
            self.call_workers();
        }
    }
}
