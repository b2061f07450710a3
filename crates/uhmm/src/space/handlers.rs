//! The threads that read messages and serve faults.
//!
//! One of them leads: it waits for messages, reads them, and applies changes of the address space
//! before it gives the lead up. Faults it then serves itself, without a hand-over, as that is what
//! costs least; another is woken to lead only where there is more than one fault to serve. A
//! handler never waits for a block: it parks the fault with who holds it.
//!
//! Who does not lead wakes now and then and leads if nobody does. So a handler that is stuck is
//! found: a fault *by* an engine thread can only be read by another, and ends the process by name.

use core::{
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
    time::Duration,
};

use super::changes::or_abort;
use crate::{
    block::Fault,
    engine::{Areas, Change, Engine, HANDLERS, Visit},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec, Urgent},
    mm::{Message, Mm},
    sync::{SignalsBlocked, yield_now},
    units::{PageNumber, PageRange},
};

/// How many messages are read before changes are applied and faults served.
const MESSAGES: usize = 32;
/// What is where a message is to be read to.
const NO_MESSAGE: Message = Message::Discarded(PageRange::of(PageNumber(0), 0));

impl<M: Mm> Engine<M> {
    /// The work of a handler, until [`stop`](Self::stop).
    pub(crate) fn handle(&self, number: usize, mut inbox: Inbox, signals: &SignalsBlocked) {
        self.lead.threads[number].store(crate::sync::thread_id(), Release);
        let Ok(mut visit) = self.visit(signals) else {
            crate::abort::abort(b"engine memory is exhausted before a handler could start");
        };
        while !self.lead.stopping.load(Acquire) {
            let calls = self.lead.calls.word().load(Acquire);
            if !self.lead.try_lead() {
                self.lead.calls.wait_at_most(calls, Duration::from_millis(200));
                continue;
            }
            // What waits for a change that never comes is found out about now and then; and a fault may
            // be retried until a doubt is settled.
            let waits = self.has_doubts(signals) || !self.waiting.lock(signals).is_empty();
            if !self.has_retries(signals) {
                self.mm.wait(waits.then_some(Duration::from_millis(1)));
            }
            {
                let _urgent = Urgent::new();
                self.read(&mut inbox, signals);
                self.apply_all(&mut inbox, &mut visit);
            }
            let retried = self.take_retries(&mut inbox, signals);
            self.lead.leading.store(false, Release);
            if inbox.faults.len() > 1 {
                self.lead.call_another();
            }
            if retried {
                // What made them wait may be over only once its thread has run.
                yield_now();
            }
            for fault in inbox.faults.iter() {
                self.serve_or_park(*fault, &visit);
            }
            inbox.faults.clear();
        }
        // Whoever waits is called on, to find that it is over.
        self.lead.call_another();
        self.mm.kick();
    }

    /// Ends the handlers.
    pub(crate) fn stop(&self) {
        self.lead.stopping.store(true, Release);
        for _ in 0..HANDLERS {
            self.lead.call_another();
            self.mm.kick();
        }
    }

    /// Reads what messages there are, and closes the ranges of changes before anybody else can
    /// commit. One at a time, as of each it is to be seen what the kernel has before its thread goes on.
    fn read(&self, inbox: &mut Inbox, signals: &SignalsBlocked) {
        let mut areas = self.gate.alone(signals);
        for _ in 0..MESSAGES {
            if !areas.doubts.arrivals.is_empty() {
                // Only what was there to be read before the look is seen in it.
                if !self.mm.readable() {
                    return;
                }
                or_abort(areas.doubts.arrivals.look(&self.mm));
            }
            let mut message = [NO_MESSAGE];
            if self.mm.read(&mut message) == 0 {
                return;
            }
            let [message] = message;
            if let Message::Fault { page, access, thread } = message {
                self.check_fault(thread);
                let read = self.lead.faults_read.fetch_add(1, Relaxed);
                let began = self.recorder.begin();
                inbox.push_fault(Fault { page, access, thread, read, began });
            } else if !areas.is_of_aside(&message) {
                self.note_change(&message, inbox, &mut areas);
                if matches!(message, Message::Remapped { .. }) {
                    // What moves on from there is to be told from what was there before.
                    return;
                }
            }
        }
    }

    /// Closes what a change that was read hits.
    fn note_change(&self, message: &Message, inbox: &mut Inbox, areas: &mut Areas) {
        // A fork from before what was read is under way still. Who changed something runs again from now
        // on, and may fork later.
        if matches!(message, Message::Unmapped(_) | Message::Remapped { .. }) {
            let seen = areas.fork_seen && areas.has_unapplied();
            areas.fork_seen = seen || self.mm.forks_under_way();
        }
        let first = inbox.changes.len();
        or_abort(
            areas.doubts.changes_of(message, &self.mm, &mut |change| inbox.push_change(change)),
        );
        for change in &inbox.changes[first..] {
            areas.looks.end_of_changed(change);
            for range in change.ranges() {
                if !range.is_empty() {
                    areas.close(range);
                }
            }
        }
    }

    /// Applies what was read, in the order in which it happened. What waits for a change that is yet
    /// to be read is kept, its ranges closed.
    fn apply_all(&self, inbox: &mut Inbox, visit: &mut Visit<'_, M>) {
        let signals = visit.signals();
        let changes = &mut inbox.changes;
        {
            let mut waiting = self.waiting.lock(signals);
            if changes.is_empty() && waiting.is_empty() {
                return;
            }
            // They are older than what was read now.
            core::mem::swap(changes, &mut *waiting);
            for change in waiting.iter() {
                or_abort(changes.try_push(*change));
            }
            waiting.clear();
        }
        self.find_occupants(changes, signals);
        while !changes.is_empty() {
            let ready =
                |&place: &usize| !self.must_wait(changes[place], &changes[..place], signals);
            let place = match (0..changes.len()).find(ready) {
                Some(place) => place,
                // Nothing is under way that could come before it.
                None if !self.mm.changing() => {
                    self.end_what_is_in_the_way(changes[0], visit);
                    0
                }
                None => {
                    self.counters.changes_waited.add(changes.len());
                    if let Some(Change::Forked { looks, .. }) = changes.first_mut() {
                        *looks += 1;
                    }
                    break;
                }
            };
            let Some(change) = changes.remove(place) else { break };
            self.apply(change, &changes[place..], visit);
            for range in change.ranges() {
                if !range.is_empty() {
                    self.gate.open(range, signals);
                }
            }
        }
        core::mem::swap(changes, &mut *self.waiting.lock(signals));
    }

    /// Whether the order of some changes is not known still.
    fn has_doubts(&self, signals: &SignalsBlocked) -> bool {
        let doubtful = {
            let areas = self.gate.share(signals);
            !areas.doubts.is_empty() || !areas.left_lately.is_empty()
        };
        doubtful && !self.settle_doubts(&mut self.gate.alone(signals))
    }

    fn take_retries(&self, inbox: &mut Inbox, signals: &SignalsBlocked) -> bool {
        let mut any = false;
        while let Some(fault) = self.next_retry(signals) {
            any = true;
            inbox.push_fault(fault);
        }
        any
    }

    /// A fault by a thread that is inside the engine cannot be served: it may hold what serving
    /// needs.
    fn check_fault(&self, thread: u32) {
        if thread == 0 || !self.inside.contains(thread) {
            return;
        }
        let handler = self.lead.threads.iter().position(|id| id.load(Relaxed) == thread);
        crate::abort::abort(match handler {
            Some(0) => b"the thread uhmm-handler-0 touched memory that is away",
            Some(_) => b"the thread uhmm-handler-1 touched memory that is away",
            None => {
                b"a thread touched memory that is away while it held a lock of the engine: a stack \
                  in adopted memory does that, keep it out by releasing its range"
            }
        });
    }
}

/// What was read and is not dealt with yet.
pub(crate) struct Inbox {
    changes: EngineVec<Change>,
    faults: EngineVec<Fault>,
}

impl Inbox {
    /// An empty one, with room for as many messages as are read at once.
    pub(crate) fn new(memory: &EngineMemory) -> Result<Self, EngineMemoryError> {
        Ok(Self {
            changes: EngineVec::try_with_capacity(memory, MESSAGES)?,
            faults: EngineVec::try_with_capacity(memory, MESSAGES)?,
        })
    }

    fn push_change(&mut self, change: Change) {
        if self.changes.try_push(change).is_err() {
            crate::abort::abort(b"engine memory is exhausted and a message cannot be kept");
        }
    }

    fn push_fault(&mut self, fault: Fault) {
        if self.faults.try_push(fault).is_err() {
            crate::abort::abort(b"engine memory is exhausted and a message cannot be kept");
        }
    }
}
