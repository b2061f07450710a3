//! The engine: all that works under an address space, in engine memory.

use super::{Aliases, Change, Gate, Inside, Lead};
use crate::{
    block::{BlockTable, Fault, TurnPool},
    counters::Counters,
    device::{Devices, Reserved},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec},
    events::Recorder,
    mirror::{Mirrors, Registration},
    mm::Mm,
    policy::Scans,
    shared::Shared,
    sync::{Lock, SignalsBlocked},
    units::{PageNumber, PageRange},
    view::{Part, View},
};

/// The engine of one address space.
pub(crate) struct Engine<M: Mm> {
    pub(crate) memory: EngineMemory,
    pub(crate) mm: M,
    pub(crate) blocks: BlockTable,
    pub(crate) gate: Gate,
    pub(crate) devices: Devices,
    pub(crate) aliases: Aliases,
    pub(crate) mirrors: Mirrors,
    pub(crate) reserved: Reserved,
    pub(crate) counters: Part<Counters>,
    pub(crate) recorder: Recorder,
    pub(crate) scans: Scans,
    pub(crate) lead: Lead,
    pub(crate) inside: Inside,
    pub(super) turns: TurnPool,
    /// Changes that were read and wait for others, which come before them, to be read.
    pub(crate) waiting: Lock<EngineVec<Change>>,
    /// Faults that met a change of the address space and wait for it to be applied.
    retries: Lock<EngineVec<Fault>>,
    /// Behind those who have parts of it.
    pub(crate) view: View,
}

/// A counted reference to an engine.
pub(crate) struct SpaceRef<M: Mm> {
    pub(crate) engine: Shared<Engine<M>>,
}

impl<M: Mm> Clone for SpaceRef<M> {
    fn clone(&self) -> Self {
        Self { engine: self.engine.clone() }
    }
}

/// Why `asked` bytes of engine memory could not be had.
pub(crate) fn exhausted(memory: &EngineMemory, asked: usize) -> EngineMemoryError {
    EngineMemoryError::Exhausted { asked, used: memory.used(), limit: memory.limit() }
}

const RETRIES: usize = 1024;

impl<M: Mm> Engine<M> {
    /// An engine that shows what it does in `view`.
    pub(crate) fn new(mm: M, memory: &EngineMemory, view: View) -> Result<Self, EngineMemoryError> {
        // SAFETY: the view is the last of the engine's parts to be dropped.
        let (counters, latencies) =
            unsafe { (view.part(|head| &head.counters), view.part(|head| &head.latencies)) };
        let blocks = BlockTable::new(memory, mm.page_limit())?;
        let retries = EngineVec::try_with_capacity(memory, RETRIES)?;
        Ok(Self {
            memory: memory.clone(),
            mm,
            blocks,
            gate: Gate::new(memory),
            devices: Devices::new(),
            aliases: Aliases::new(memory),
            mirrors: Mirrors::new(memory),
            reserved: Reserved::new(memory),
            counters,
            recorder: Recorder::new(latencies),
            scans: Scans::new(),
            lead: Lead::new(),
            inside: Inside::new(),
            turns: TurnPool::new(memory),
            waiting: Lock::new(EngineVec::new(memory.clone())),
            retries: Lock::new(retries),
            view,
        })
    }

    /// All pages that a program can have.
    pub(crate) fn all_pages(&self) -> PageRange {
        PageRange::new(PageNumber(0), self.mm.page_limit())
    }

    /// Has the processor fetch what ending translations of the first of `pages` will look up, while it
    /// passes the gate: among very many blocks and mirrors that is in no cache.
    pub(crate) fn fetch_ahead(&self, pages: PageRange, signals: &SignalsBlocked) {
        self.blocks.prefetch(pages.start().block());
        self.mirrors.prefetch(pages.start(), signals);
    }

    /// Ends a subscription, and what peers granted it.
    pub(crate) fn end_mirror(&self, registration: Registration) {
        let mirror = registration.subscriber().importer().mirror;
        {
            let signals = SignalsBlocked::new();
            for device in self.devices.attached(&signals) {
                device.grants.forget(mirror, &signals);
            }
        }
        self.mirrors.end(registration);
    }

    /// Keeps a fault until the change that it met is applied.
    pub(crate) fn retry_later(&self, fault: Fault, signals: &SignalsBlocked) {
        self.counters.cpu_faults_retried.add(1);
        let mut retries = self.retries.lock(signals);
        let known = retries.iter().any(|other| other.page == fault.page);
        let full = retries.len() == RETRIES;
        if !known && !full {
            // There is capacity for it.
            let _ = retries.try_push(fault);
        }
        drop(retries);
        if full && !known {
            self.mm.wake(PageRange::of(fault.page, 1));
        }
        self.mm.kick();
    }

    /// Takes one of the faults that were kept.
    pub(crate) fn next_retry(&self, signals: &SignalsBlocked) -> Option<Fault> {
        self.retries.lock(signals).pop()
    }

    /// Whether faults are kept.
    pub(crate) fn has_retries(&self, signals: &SignalsBlocked) -> bool {
        !self.retries.lock(signals).is_empty()
    }
}
