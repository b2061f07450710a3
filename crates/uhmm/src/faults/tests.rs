//! Random batches against an oracle: what is drained, in which order; how it is merged; who is held back, who
//! goes on, and who is cancelled for what.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*};

use super::{
    Fault, FaultBatch, FaultBuffer, FaultFailure, FaultQueue, OpenQueueError, QueueCancelled,
    QueueNumber, Replayed, ServedElsewhere, buffer::Next,
};
use crate::{
    driver::FaultAccess,
    report::StayCause,
    testing::memory,
    units::{PageNumber, PageSize},
};

const QUEUES: usize = 5;
const PAGES: usize = 6;
const PAGE: usize = 4096;

const ACCESSES: [FaultAccess; 4] =
    [FaultAccess::Prefetch, FaultAccess::Read, FaultAccess::Write, FaultAccess::Atomic];

/// How many accesses, from the weakest on, a page can be had for.
type Permits = [usize; PAGES];

#[derive(Clone, Debug)]
enum Step {
    /// A queue misses a page, if it is not held back.
    Enter { queue: usize, page: usize, access: usize },
    /// A batch is taken.
    Drain,
    /// What was taken is served, and replayed.
    Serve(Permits),
    /// It is given up.
    GiveUp,
    /// A queue is closed and opened again, if it is not held back.
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..QUEUES, 0..PAGES, 0..4_usize)
            .prop_map(|(queue, page, access)| Step::Enter { queue, page, access }),
        4 => Just(Step::Drain),
        4 => proptest::array::uniform6(0..5_usize).prop_map(Step::Serve),
        1 => Just(Step::GiveUp),
        1 => (0..QUEUES).prop_map(Step::Reopen),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    queue: usize,
    page: usize,
    access: FaultAccess,
    order: u64,
    generation: usize,
}

impl Expected {
    fn is(&self, fault: &Fault) -> bool {
        let same = (fault.queue.0, fault.address, fault.access, fault.order);
        same == (self.queue, self.address(), self.access, self.order)
    }

    /// Somewhere in its page, each entry elsewhere.
    fn address(&self) -> usize {
        self.page * PAGE + usize::try_from(self.order * 8).unwrap() % PAGE
    }
}

/// The buffer in plain words.
struct Oracle {
    room: usize,
    most: usize,
    waiting: VecDeque<Expected>,
    held: VecDeque<Expected>,
    taken: Vec<Expected>,
    generations: [usize; QUEUES],
    /// What a queue will be told.
    cancelled: [Option<(FaultAccess, usize, FaultFailure)>; QUEUES],
    entered: u64,
    dropped: usize,
    held_back: usize,
}

impl Oracle {
    fn is_held(&self, queue: usize) -> bool {
        self.held.iter().any(|fault| fault.queue == queue)
    }

    fn is_current(&self, fault: &Expected) -> bool {
        self.generations[fault.queue] == fault.generation
    }

    /// How many entries of a queue are waited for.
    fn pending(&self, queue: usize) -> usize {
        let all = self.waiting.iter().chain(&self.held).chain(&self.taken);
        all.filter(|fault| fault.queue == queue && self.is_current(fault))
            .filter(|fault| !fault.access.is_hint())
            .count()
    }

    fn end(&mut self, queue: usize) {
        self.generations[queue] += 1;
        self.held.retain(|fault| fault.queue != queue);
    }

    /// Takes the oldest that are current, and lets others in.
    fn drain(&mut self) {
        while self.taken.is_empty() && !self.waiting.is_empty() {
            while self.taken.len() < self.most
                && let Some(fault) = self.waiting.pop_front()
            {
                if self.is_current(&fault) {
                    self.taken.push(fault);
                } else {
                    self.dropped += 1;
                }
            }
            while self.waiting.len() < self.room
                && let Some(fault) = self.held.pop_front()
            {
                self.waiting.push_back(fault);
            }
        }
    }

    /// Who is cancelled, and for which fault: of those that cannot be had the one that was missed first.
    fn replay(&mut self, permits: Option<&Permits>) -> usize {
        let taken = core::mem::take(&mut self.taken);
        let mut cancelled = 0;
        for queue in 0..QUEUES {
            let fails = |fault: &&Expected| {
                permits.is_some_and(|permits| permits[fault.page] <= fault.access as usize)
                    && !fault.access.is_hint()
                    && fault.queue == queue
                    && self.is_current(fault)
            };
            if let Some(fault) = taken.iter().filter(fails).min_by_key(|fault| fault.order) {
                let failure = failure(fault.page);
                self.cancelled[queue] = Some((fault.access, fault.address(), failure));
                self.end(queue);
                cancelled += 1;
            }
        }
        cancelled
    }
}

fn failure(page: usize) -> FaultFailure {
    FaultFailure::Stays(StayCause::DeviceRefuses(i32::try_from(page).unwrap()))
}

/// Sorts a batch, compares how it is merged, and says of each fault what is permitted.
fn serve(batch: FaultBatch<'_>, taken: &[Expected], permits: &Permits) -> Replayed {
    let mut sorted = batch.sort();
    assert_eq!(sorted.len(), taken.len());
    let mut expected = taken.to_vec();
    expected.sort_by_key(|fault| (fault.page, core::cmp::Reverse(fault.access), fault.order));
    assert!((0..sorted.len()).all(|place| expected[place].is(sorted.fault(place))));
    let mut place = 0;
    let mut pages = Vec::new();
    while let Some(merged) = sorted.page_at(place) {
        assert_eq!(merged.faults.start, place, "no fault is left out");
        let of_page = &expected[merged.faults.clone()];
        assert!(of_page.iter().all(|fault| PageNumber(fault.page) == merged.page));
        assert_eq!(of_page.iter().map(|fault| fault.access).max(), Some(merged.access));
        let page = merged.page.0;
        pages.push(page);
        let weaker = of_page.iter().position(|fault| permits[page] > fault.access as usize);
        let middle = weaker.map_or(merged.faults.end, |first| place + first);
        sorted.failed(place..middle, failure(page));
        sorted.served(middle..merged.faults.end);
        place = merged.faults.end;
    }
    assert_eq!(place, taken.len());
    assert!(pages.is_sorted_by(|one, other| one < other), "a page comes once, in order");
    sorted.replay()
}

/// What a queue that does not sleep sees.
fn look(buffer: &FaultBuffer, queue: usize) -> Result<bool, QueueCancelled> {
    match buffer.look(QueueNumber(queue)) {
        Next::Over => Ok(true),
        Next::Cancelled(cancelled) => Err(cancelled),
        Next::Again => Ok(false),
        Next::Serve(_) => unreachable!("it serves nothing"),
    }
}

/// A queue misses a page, if it is not to be told first that it was cancelled.
fn enter(
    buffer: &FaultBuffer,
    oracle: &mut Oracle,
    queue: usize,
    page: usize,
    access: FaultAccess,
) {
    let (order, generation) = (oracle.entered, oracle.generations[queue]);
    let fault = Expected { queue, page, access, order, generation };
    let entered = buffer.enter(QueueNumber(queue), fault.address(), access);
    if let Some((access, address, failure)) = oracle.cancelled[queue].take() {
        let cancelled = QueueCancelled { queue: QueueNumber(queue), address, access, failure };
        assert_eq!(entered, Err(cancelled));
        return;
    }
    oracle.entered += 1;
    let has_room = oracle.waiting.len() < oracle.room && oracle.held.is_empty();
    assert_eq!(entered, Ok(has_room));
    if has_room {
        oracle.waiting.push_back(fault);
    } else {
        oracle.held_back += 1;
        oracle.held.push_back(fault);
    }
}

fn run(room: usize, most: usize, steps: Vec<Step>) {
    let memory = memory();
    let buffer =
        FaultBuffer::new(&memory, PageSize::new(PAGE).unwrap(), QUEUES, room, most).unwrap();
    let open = |queue| buffer.open(QueueNumber(queue), ServedElsewhere);
    let mut queues: [Option<FaultQueue<'_, _>>; QUEUES] =
        core::array::from_fn(|queue| Some(open(queue).unwrap()));
    let mut oracle = Oracle {
        room,
        most: most.min(room),
        waiting: VecDeque::new(),
        held: VecDeque::new(),
        taken: Vec::new(),
        generations: [0; QUEUES],
        cancelled: [None; QUEUES],
        entered: 0,
        dropped: 0,
        held_back: 0,
    };
    let mut batch: Option<FaultBatch<'_>> = None;
    let mut told = (0, 0);
    for step in steps {
        match step {
            Step::Enter { queue, page, access } if !oracle.is_held(queue) => {
                enter(&buffer, &mut oracle, queue, page, ACCESSES[access]);
            }
            Step::Drain if batch.is_none() => {
                oracle.drain();
                batch = buffer.drain();
                assert_eq!(batch.is_some(), !oracle.taken.is_empty());
                if let Some(batch) = &batch {
                    let mut faults = batch.faults();
                    assert!(oracle.taken.iter().all(|fault| fault.is(faults.next().unwrap())));
                    assert!(faults.next().is_none());
                    told = (
                        core::mem::take(&mut oracle.dropped),
                        core::mem::take(&mut oracle.held_back),
                    );
                }
            }
            Step::Drain => assert!(buffer.drain().is_none(), "one serves at a time"),
            Step::Serve(permits) => {
                let Some(batch) = batch.take() else { continue };
                let faults = oracle.taken.len();
                let replayed = serve(batch, &oracle.taken, &permits);
                let cancelled = oracle.replay(Some(&permits));
                let (dropped, held_back) = told;
                assert_eq!(replayed, Replayed { faults, dropped, held_back, cancelled });
            }
            Step::GiveUp => {
                if let Some(batch) = batch.take() {
                    drop(batch);
                    oracle.replay(None);
                }
            }
            Step::Reopen(queue) if !oracle.is_held(queue) => {
                let number = QueueNumber(queue);
                let other = buffer.open(number, ServedElsewhere).err();
                assert_eq!(other, Some(OpenQueueError::Open { number }));
                queues[queue] = None;
                oracle.end(queue);
                oracle.cancelled[queue] = None;
                queues[queue] = Some(open(queue).unwrap());
            }
            Step::Enter { .. } | Step::Reopen(_) => {}
        }
        for queue in 0..QUEUES {
            if oracle.cancelled[queue].is_none() {
                assert_eq!(look(&buffer, queue), Ok(oracle.pending(queue) == 0), "{queue}");
            }
        }
    }
    drop(batch);
    finish(&buffer, &mut oracle);
}

/// Nothing is lost: all that is left comes.
fn finish(buffer: &FaultBuffer, oracle: &mut Oracle) {
    oracle.replay(None);
    loop {
        oracle.drain();
        let Some(batch) = buffer.drain() else { break };
        let mut faults = batch.faults();
        assert!(oracle.taken.iter().all(|fault| fault.is(faults.next().unwrap())));
        assert!(faults.next().is_none());
        drop(faults);
        drop(batch);
        oracle.replay(None);
    }
    assert!(oracle.waiting.is_empty() && oracle.held.is_empty());
    for queue in 0..QUEUES {
        let told = oracle.cancelled[queue].map(|(access, address, failure)| QueueCancelled {
            queue: QueueNumber(queue),
            address,
            access,
            failure,
        });
        assert_eq!(look(buffer, queue), told.map_or(Ok(true), Err));
    }
}

proptest! {
    #[test]
    fn property_batches_agree_with_an_oracle(
        room in 1..9_usize,
        most in 1..12_usize,
        steps in vec(step(), 1..120),
    ) {
        run(room, most, steps);
    }
}

#[test]
fn a_queue_that_is_not_there_is_refused() {
    let memory = memory();
    let buffer = FaultBuffer::new(&memory, PageSize::new(PAGE).unwrap(), 2, 4, 4).unwrap();
    let number = QueueNumber(2);
    let refused = buffer.open(number, ServedElsewhere).err();
    assert_eq!(refused, Some(OpenQueueError::NoSuchQueue { number, queues: 2 }));
}
