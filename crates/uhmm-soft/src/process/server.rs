//! What serves a device process, on an engine thread of the program: its workers are the queues of a fault
//! buffer, whose reports are the entries.
//!
//! All reports that are there go into the buffer, then the buffer is served, then those are answered who wait.
//! So what the workers miss at the same time is one batch, and each of them is answered, or cancelled, alone.

use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Release, SeqCst},
};

use uhmm::{
    Attachment, FaultAccess, FaultBuffer, FaultFailure, FaultQueue, QueueNumber, ServedElsewhere,
    Service, Shared, StayCause,
    engine_memory::EngineVec,
    mm::Mm,
    ring::{Limits, Order, Receiver, Report},
    sync::{Lock, SignalsBlocked, WaitWord},
    units::PageRange,
};

use super::{
    errors::error_of,
    link::{LOOKS, Link, SLICE},
    remote::Remote,
};
use crate::{
    errors::{KernelRunError, RunError},
    given::{NO_PAGES, range_with},
    limits::MOST_WORKERS,
};

/// What the program and the thread that serves the device know of the launch under way.
pub(super) struct Launch {
    /// Where the device may have pages, sorted and apart.
    pub(super) given: Shared<EngineVec<PageRange>>,
    pub(super) items: core::ops::Range<usize>,
    /// The workers that have not left it, by bits.
    pub(super) working: u64,
    /// Of the items that failed, the first.
    pub(super) failure: Option<RunError>,
    pub(super) result: Result<(), KernelRunError>,
}

/// What launches and the thread that serves share.
pub(super) struct Work {
    pub(super) launch: Lock<Option<Launch>>,
    /// Changes as a launch is done.
    pub(super) done: WaitWord,
    pub(super) ending: AtomicBool,
    /// Pages that were lost with the process.
    pub(super) lost: AtomicUsize,
}

/// What serves the device's requests.
pub(super) struct Server<M: Mm> {
    pub(super) attachment: Attachment<Remote, M>,
    pub(super) reports: Receiver<'static>,
    pub(super) link: Shared<Link>,
    pub(super) work: Shared<Work>,
    pub(super) limits: Limits,
}

/// The faults that are in the buffer and not served.
pub(super) struct Desk<'f> {
    faults: &'f FaultBuffer,
    /// How many the buffer has room for.
    room: usize,
    entered: usize,
    queues: [Option<FaultQueue<'f, ServedElsewhere>>; MOST_WORKERS],
    /// Which workers wait for an answer.
    waits: [bool; MOST_WORKERS],
}

impl<'f> Desk<'f> {
    /// That of a buffer that has room for `room` faults, with none.
    pub(super) fn new(faults: &'f FaultBuffer, room: usize) -> Self {
        let open = |number| faults.open(QueueNumber(number), ServedElsewhere).ok();
        let queues = core::array::from_fn(open);
        Self { faults, room, entered: 0, queues, waits: [false; MOST_WORKERS] }
    }
}

impl<M: Mm> Server<M> {
    /// Serves until the device ends, by a buffer that has room for `room` faults.
    pub(super) fn serve(mut self, faults: &FaultBuffer, room: usize) {
        let mut desk = Desk::new(faults, room);
        let mut looks = 0;
        while !self.work.ending.load(Acquire) {
            if self.go_on(&mut desk) {
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                core::hint::spin_loop();
            } else {
                self.reports.wait(SLICE);
                self.link.lives();
            }
            if self.link.is_dead() {
                drop(desk);
                return self.bury();
            }
        }
    }

    /// Hears the next report, or, where there is none, answers who waits. Answers whether there was anything to do.
    pub(super) fn go_on(&mut self, desk: &mut Desk<'_>) -> bool {
        match self.reports.receive() {
            Ok(Some(words)) => match Report::parse(words, &self.limits) {
                Ok(report) => self.hear(report, desk),
                Err(_) => self.link.end(),
            },
            Ok(None) if desk.entered > 0 => self.answer(desk),
            Ok(None) => return false,
            Err(_) => self.link.end(),
        }
        true
    }

    fn hear(&mut self, report: Report, desk: &mut Desk<'_>) {
        let (Report::Fault { worker, .. }
        | Report::Done { worker }
        | Report::Failed { worker, .. }) = report;
        // Who waits has nothing to say.
        if desk.waits[worker] {
            return self.link.end();
        }
        if let Report::Fault { address, access, .. } = report {
            return self.enter(worker, address, access, desk);
        }
        // What was asked for in a launch is served in it.
        if desk.entered > 0 {
            self.answer(desk);
        }
        match report {
            Report::Failed { item, error, .. } => match (usize::try_from(item), error_of(error)) {
                (Ok(item), Some(error)) => {
                    self.left(worker, Some(RunError::Item { item, error }));
                }
                _ => self.link.end(),
            },
            _ => self.left(worker, None),
        }
    }

    /// The pages that the launch under way names; none where there is no launch.
    fn given(&self) -> Option<Shared<EngineVec<PageRange>>> {
        let signals = SignalsBlocked::new();
        let launch = self.work.launch.lock(&signals);
        launch.as_ref().map(|launch| launch.given.clone())
    }

    /// Enters a fault, of an address that the launch under way names.
    fn enter(&mut self, worker: usize, address: usize, access: FaultAccess, desk: &mut Desk<'_>) {
        let page = self.attachment.page_size().page_of(address);
        if self.given().is_none_or(|given| range_with(&given, page).is_none()) {
            if !access.is_hint() {
                self.link.order(worker, &Order::Refused { cause: None });
            }
            return;
        }
        if desk.entered == desk.room {
            self.answer(desk);
        }
        desk.entered += 1;
        desk.waits[worker] = !access.is_hint();
        let entered = desk.queues[worker].as_mut().map(|queue| queue.enter(address, access));
        debug_assert!(matches!(entered, Some(Ok(()))), "there is a queue, and room");
    }

    /// Serves what is in the buffer, and answers those who wait.
    fn answer(&mut self, desk: &mut Desk<'_>) {
        let given = self.given();
        let within =
            |page| given.as_ref().and_then(|given| range_with(given, page)).unwrap_or(NO_PAGES);
        // What is elsewhere it cannot reach, so there is no other way.
        let how = |_, _| Service::Migrate;
        while let Some(batch) = desk.faults.drain() {
            self.attachment.serve_faults_within(batch, how, within);
        }
        desk.entered = 0;
        for (worker, waits) in desk.waits.iter_mut().enumerate() {
            if core::mem::take(waits)
                && let Some(queue) = &mut desk.queues[worker]
            {
                let order = match queue.wait() {
                    Ok(()) => Order::Served { commands: self.link.commands_sent().into() },
                    Err(cancelled) => Order::Refused { cause: Some(cause(cancelled.failure)) },
                };
                self.link.order(worker, &order);
            }
        }
    }

    /// A worker has left the launch. A report of one that is not under way is nonsense.
    fn left(&mut self, worker: usize, failure: Option<RunError>) {
        let signals = SignalsBlocked::new();
        let mut launch = self.work.launch.lock(&signals);
        let Some(under_way) = &mut *launch else { return self.link.end() };
        let (bit, of_launch) = (1 << worker, |failure: &RunError| match failure {
            RunError::Item { item, .. } => under_way.items.contains(item),
            _ => false,
        });
        if under_way.working & bit == 0 || !failure.as_ref().is_none_or(of_launch) {
            return self.link.end();
        }
        under_way.working &= !bit;
        under_way.failure = match (under_way.failure, failure) {
            (
                Some(first @ RunError::Item { item, .. }),
                Some(RunError::Item { item: other, .. }),
            ) if item < other => Some(first),
            (first, None) => first,
            (_, later) => later,
        };
        if under_way.working == 0 {
            under_way.result = under_way.failure.map_or(Ok(()), |failure| Err(failure.into()));
            drop(launch);
            self.tell_done();
        }
    }

    fn tell_done(&self) {
        self.work.done.word().fetch_add(1, SeqCst);
        self.work.done.wake_all();
    }

    /// The process is gone: what it held is marked, and whoever launches hears of it, from here on.
    fn bury(&mut self) {
        self.mark();
        while !self.work.ending.load(Acquire) {
            self.tell_lost();
            // Not on the ring: what the process left there may be more than was received, for ever.
            std::thread::sleep(SLICE);
        }
    }

    /// Marks what the process held.
    pub(super) fn mark(&self) {
        self.work.lost.store(self.attachment.lose(), Release);
    }

    /// Tells who launches that the process is gone.
    pub(super) fn tell_lost(&self) {
        let waits = self.work.launch.lock(&SignalsBlocked::new()).is_some();
        if waits {
            self.tell_done();
        }
    }
}

/// Why a page did not come.
fn cause(failure: FaultFailure) -> StayCause {
    match failure {
        FaultFailure::Stays(cause) => cause,
        FaultFailure::NotMapped(_) => unreachable!("nothing is mapped where it is"),
    }
}
