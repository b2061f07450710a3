//! Looking at a range without changing anything.

use super::{PageEntry, PageState, RangeFaultError};
use crate::{
    block::Residence,
    engine::{Engine, Locked},
    mirror::Subscriber,
    mm::{Backing, Look, Mapping, Mm, Presence},
    report::PageError,
    sync::SignalsBlocked,
    units::{AddressRange, HUGE_ORDER, PageNumber, PageRange},
};

impl<M: Mm> Engine<M> {
    /// Tells of each page of a range what a subscription's device would find. Each block is of one
    /// moment, if nothing of its areas changes meanwhile that is not told.
    pub(crate) fn snapshot(
        &self,
        who: &Subscriber,
        range: AddressRange,
        entries: &mut [PageEntry],
    ) -> Result<(), RangeFaultError> {
        let pages = self.pages_for(who, range, Some(entries.len()))?;
        self.gate.settle();
        for part in pages.by_block() {
            let first = part.start().since(pages.start());
            self.snapshot_part(who, part, &mut entries[first..first + part.len()]);
        }
        Ok(())
    }

    fn snapshot_part(&self, who: &Subscriber, part: PageRange, entries: &mut [PageEntry]) {
        let signals = SignalsBlocked::new();
        if self.gate.share(&signals).closing {
            return entries.fill(failed(PageError::Closed));
        }
        let mut visit = None;
        let mut held = None;
        if let Some(block) = self.blocks.get(part.start().block()) {
            match self.visit(&signals) {
                Ok(visited) => {
                    held = Some(visit.insert(visited).lock(block, part.start().block()));
                }
                Err(_) => return entries.fill(failed(PageError::NoMemory)),
            }
        }
        let mut at = part.start();
        while at < part.end() {
            let rest = PageRange::new(at, part.end());
            let (pages, mapping) = match self.mm.mapping_at(at) {
                Ok(Some(mapping)) => (rest.intersection(mapping.pages), Ok(mapping)),
                Ok(None) => (PageRange::of(at, 1), Err(PageError::NoArea)),
                Err(errno) => (rest, Err(PageError::System(errno))),
            };
            let first = at.since(part.start());
            let out = &mut entries[first..first + pages.len()];
            match mapping {
                Ok(mapping) => {
                    self.snapshot_area(pages, &mapping, out);
                    if let Some(held) = &mut held {
                        snapshot_away(held, who, pages, &mapping, out);
                    }
                }
                Err(error) => out.fill(failed(error)),
            }
            at = pages.end();
        }
    }

    /// Tells of pages of one area what the CPU's page tables say.
    fn snapshot_area(&self, pages: PageRange, mapping: &Mapping, entries: &mut [PageEntry]) {
        let protection = mapping.protection;
        if mapping.backing == Backing::Special {
            return entries.fill(failed(PageError::Special));
        }
        if !protection.read && !protection.write {
            return entries.fill(failed(PageError::Protection));
        }
        let at = |page: PageNumber| page.since(pages.start());
        let scanned = self.mm.scan(pages, &mut |run, presence| {
            entries[at(run.start())..at(run.end())].fill(entry(presence, mapping));
        });
        if let Err(errno) = scanned {
            return entries.fill(failed(PageError::System(errno)));
        }
        let shared = matches!(
            mapping.backing,
            Backing::SharedAnonymous
                | Backing::SharedFile
                | Backing::PrivateHugetlb
                | Backing::SharedHugetlb
        );
        if !protection.write || shared {
            return;
        }
        // A page that is shared with a child is copied before it is written.
        let told = self.mm.may_write(pages.start(), pages.len(), &mut |index, own| {
            entries[index].write &= own;
        });
        if told.is_err() {
            for entry in entries.iter_mut() {
                entry.write = false;
            }
        }
    }
}

/// Tells of pages of one area, in one block whose lock is held, which of them are away.
fn snapshot_away<M: Mm>(
    held: &mut Locked<'_, M>,
    who: &Subscriber,
    pages: PageRange,
    mapping: &Mapping,
    entries: &mut [PageEntry],
) {
    let first = pages.start().in_block();
    let order = held.frame_order();
    for run in held.state().pages.runs(first..first + pages.len()) {
        let state = match run.residence {
            Residence::System => continue,
            Residence::Mapped { device, .. } => {
                for entry in &mut entries[run.pages.start - first..run.pages.end - first] {
                    // What was swapped out is not there any more.
                    if entry.state == PageState::InPlace {
                        entry.coherent = Some(device);
                    }
                }
                continue;
            }
            Residence::Away { device, .. } if Some(device) == who.device() => PageState::Own,
            Residence::Away { device, .. } => PageState::Peer(device),
        };
        let exclusive = matches!(run.residence, Residence::Away { exclusive: true, .. });
        for entry in &mut entries[run.pages.start - first..run.pages.end - first] {
            // What may not be read is an error wherever it is.
            if !matches!(entry.state, PageState::Error(_)) {
                let write = matches!(state, PageState::Own) && mapping.protection.write;
                *entry = PageEntry { state, write, exclusive, order, ..Default::default() };
            }
        }
    }
}

fn failed(error: PageError) -> PageEntry {
    PageEntry { state: PageState::Error(error), ..Default::default() }
}

fn entry(presence: Presence, mapping: &Mapping) -> PageEntry {
    let state = match presence.look {
        Look::Hole | Look::Swapped => return PageEntry::default(),
        Look::Poisoned => return failed(PageError::Poisoned),
        Look::Present | Look::PresentHuge | Look::Zero => PageState::InPlace,
    };
    let zero = presence.look == Look::Zero;
    let of_file = presence.file && mapping.backing == Backing::PrivateFile;
    PageEntry {
        state,
        write: mapping.protection.write && !zero && !of_file,
        zero,
        exclusive: false,
        coherent: None,
        order: match presence.look {
            _ if mapping.page_order > 0 => mapping.page_order,
            Look::PresentHuge => HUGE_ORDER,
            _ => 0,
        },
    }
}
