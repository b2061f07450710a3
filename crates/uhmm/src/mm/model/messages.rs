//! Messages, and the threads that wait because of them.

use std::collections::VecDeque;

use crate::{
    mm::{Access, AccessorNumber, Message},
    units::{PageNumber, PageRange},
};

/// Names one wait of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// A thread that waits on a hole, until it is woken.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    page: PageNumber,
    access: Access,
    thread: u32,
    /// Through which accessor it touched the hole; `None` for the program's own instruction.
    accessor: Option<AccessorNumber>,
    read: bool,
}

/// All that is to be read, and who waits for what.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Who waits on a hole, in order of arrival. A message of a fault is its waiter: whoever is
    /// woken before the message was read takes it along, as in the kernel.
    waiters: Vec<Waiter>,
    /// Waits of accesses in place that ended as refused, until their threads have seen it.
    refused: Vec<Ticket>,
    /// Changes that nobody has read, each with a thread that waits until it is.
    changes: VecDeque<(Ticket, Message)>,
    /// Changes begun whose end is not seen yet.
    changing: usize,
    kicks: usize,
    tickets: u64,
    /// Whether a change ends when its thread runs again rather than when it was read.
    loose: bool,
}

impl Messages {
    pub(super) fn new(loose: bool) -> Self {
        Self { loose, ..Self::default() }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Has a thread wait on a hole.
    pub(super) fn post_fault(
        &mut self,
        page: PageNumber,
        access: Access,
        thread: u32,
        accessor: Option<AccessorNumber>,
    ) -> Ticket {
        let ticket = self.ticket();
        self.waiters.push(Waiter { ticket, page, access, thread, accessor, read: false });
        ticket
    }

    /// Ends the waits of the accesses in place that `which` chooses. Answers whether there were any.
    pub(super) fn refuse(&mut self, which: impl Fn(AccessorNumber) -> bool) -> bool {
        let before = self.refused.len();
        let ended = self.waiters.extract_if(.., |waiter| waiter.accessor.is_some_and(&which));
        self.refused.extend(ended.map(|waiter| waiter.ticket));
        self.refused.len() > before
    }

    /// Whether that wait ended as refused. Answers so once.
    pub(super) fn take_refused(&mut self, ticket: Ticket) -> bool {
        let place = self.refused.iter().position(|&other| other == ticket);
        place.map(|place| self.refused.swap_remove(place)).is_some()
    }

    /// Whether that thread still waits.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        self.waiters.iter().any(|waiter| waiter.ticket == ticket)
    }

    /// How many wait on a page of `pages`.
    pub(super) fn waiting(&self, pages: PageRange) -> usize {
        self.waiters.iter().filter(|waiter| pages.contains(waiter.page)).count()
    }

    /// Ends the waits on `pages`.
    pub(super) fn wake(&mut self, pages: PageRange) {
        self.waiters.retain(|waiter| !pages.contains(waiter.page));
    }

    /// Begins as many changes: from now on the bulk calls do nothing.
    pub(super) const fn begin_changes(&mut self, count: usize) {
        self.changing += count;
    }

    /// Posts the message of a change that has begun.
    pub(super) fn post_change(&mut self, message: Message) -> Ticket {
        let ticket = self.ticket();
        self.changes.push_back((ticket, message));
        ticket
    }

    /// Whether that message is still to be read.
    pub(super) fn unread(&self, ticket: Ticket) -> bool {
        self.changes.iter().any(|&(other, _)| other == ticket)
    }

    /// The thread of a change runs again after its message was read.
    pub(super) const fn change_seen(&mut self) {
        if self.loose {
            self.changing -= 1;
        }
    }

    pub(super) const fn changing(&self) -> bool {
        self.changing > 0
    }

    /// Whether there is something to read.
    pub(super) fn readable(&self) -> bool {
        !self.changes.is_empty() || self.waiters.iter().any(|waiter| !waiter.read)
    }

    /// Reads what is there: faults before changes, as the kernel does. Those of accesses in place
    /// are told to nobody.
    pub(super) fn read(&mut self, out: &mut [Message]) -> usize {
        let mut places = out.iter_mut();
        let mut count = 0;
        let unread = self.waiters.iter_mut().filter(|waiter| !waiter.read);
        // The place is the second of the pair, so that none is used up when no fault is left.
        for (waiter, place) in unread.zip(&mut places) {
            waiter.read = true;
            *place =
                Message::Fault { page: waiter.page, access: waiter.access, thread: waiter.thread };
            count += 1;
        }
        while !self.changes.is_empty()
            && let Some(place) = places.next()
            && let Some((_, message)) = self.changes.pop_front()
        {
            *place = message;
            count += 1;
            if !self.loose {
                self.changing -= 1;
            }
        }
        count
    }

    pub(super) const fn kick(&mut self) {
        self.kicks += 1;
    }

    /// Whether there is a kick to be used up.
    pub(super) const fn kicked(&self) -> bool {
        self.kicks > 0
    }

    /// Uses one kick up, if there is one.
    pub(super) const fn take_kick(&mut self) -> bool {
        let there = self.kicks > 0;
        if there {
            self.kicks -= 1;
        }
        there
    }
}
