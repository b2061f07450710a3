//! The order in which changes are applied: that in which they happened.
//!
//! A thread that unmaps or remaps is told of when it has let go of the kernel's lock, so what two
//! threads did one after the other can be told the other way round: pages moved to addresses that
//! others had left just before, then that those were unmapped. Applied in that order, the records
//! would end that have just arrived. Addresses are what puts it right, and what the kernel has there.
//!
//! - Where we still count on what was at the target of a remapping, the change that ended it is under way,
//!   and the remapping waits for it.
//! - Whether an unmapping of where pages move or have moved to is of these, or of what was there before, is
//!   seen by what the kernel has there while it waits to be read (`engine/arrivals.rs`): of what is gone it
//!   is the end, and where the remapping waits still it is applied after it. Where an area is, it is asked
//!   whether that is one of those whose changes are told; then the unmapping is one from before.
//! - What moves on from where a remapping that waits is to put it waits for that, where nothing is there
//!   any more. Where something is, that may be what arrived or what `MREMAP_DONTUNMAP` left of what moved,
//!   and what moves is taken for what was there before.
//! - An area that grew in place may reach further than we know. Where it moved away, and others moved to
//!   where it had grown before that is told, theirs stays.
//!
//! All of that ends when no change is under way, as the kernel says
//! ([`Mm::changing`](crate::mm::Mm::changing)).
//!
//! A fork can be told after what was unmapped or moved since, too. Its child has an area then whose
//! content we have let go of; so what left while something was under way is noted, and the child gets
//! marks there rather than zeros. And it can be told before what was moved until then. So it waits until
//! nothing is under way, and what is read meanwhile is applied after it: the [filling](super::fork) looks
//! at the child for where such pages are.

use core::hint::spin_loop;

use super::changes::or_abort;
use crate::{
    engine::{Change, Engine, Found, Occupant, Visit},
    engine_memory::EngineVec,
    mm::Mm,
    sync::SignalsBlocked,
    units::PageRange,
};

/// How often it is looked whether other changes are under way before a child is filled. Where threads
/// change the address space without end they may always be.
const LOOKS: u32 = 16;
/// How often that is looked at a time.
const GLANCES: u32 = 128;

impl<M: Mm> Engine<M> {
    /// Whether a change has to wait for another that came before it and was not read yet, or that
    /// waits itself: one of those in `before`.
    pub(super) fn must_wait(
        &self,
        change: Change,
        before: &[Change],
        signals: &SignalsBlocked,
    ) -> bool {
        let behind = before.iter().any(|other| {
            let [_, target] = other.ranges();
            // What ended of what is to move there yet does not keep what was there before from ending.
            let ends_later = other.of() == Occupant::Last
                && matches!(change.of(), Occupant::Earlier | Occupant::Unknown);
            let same = |pages| !ends_later && other.source().overlaps(pages);
            match change {
                // What is unmapped at the target of a remapping that waits may be what that waits for.
                Change::Unmapped { pages, of } => {
                    same(pages) || of == Occupant::Last && target.overlaps(pages)
                }
                Change::Discarded(pages) => same(pages) || target.overlaps(pages),
                Change::Remapped { of, .. } => {
                    let [from, to] = change.ranges();
                    same(from)
                        || of == Occupant::Last && target.overlaps(from)
                        || other.source().overlaps(to)
                        || target.overlaps(to)
                }
                // The child has what was there after all that came before.
                Change::Forked { .. } => true,
            }
        });
        behind
            || match change {
                Change::Remapped { .. } => self.counts_on(change.ranges()[1], signals),
                Change::Forked { looks, .. } => looks < LOOKS && self.is_restless(signals),
                Change::Unmapped { .. } | Change::Discarded(_) => false,
            }
    }

    /// Whether something may have moved before a fork that was told, of which we are told yet.
    fn is_restless(&self, signals: &SignalsBlocked) -> bool {
        // While libc forks nothing is away.
        if self.gate.share(signals).forking {
            return false;
        }
        // The fork itself is under way until its thread has run again, which it does at once.
        (0..GLANCES).all(|_| {
            spin_loop();
            self.mm.changing()
        })
    }

    /// Whether we count on something at `target` that no change we know of ended.
    fn counts_on(&self, target: PageRange, signals: &SignalsBlocked) -> bool {
        let areas = self.gate.share(signals);
        [&areas.trapped, &areas.watched].into_iter().any(|counted_on| {
            let mut rest = target;
            while !rest.is_empty() {
                let (part, is_counted_on) = counted_on.leading(rest);
                if is_counted_on && !areas.doubts.disbelieves(part) {
                    return true;
                }
                rest = PageRange::new(part.end(), rest.end());
            }
            false
        })
    }

    /// Ends what we count on at the target of a remapping that nothing is going to end.
    pub(super) fn end_what_is_in_the_way(&self, change: Change, visit: &mut Visit<'_, M>) {
        let [_, target] = change.ranges();
        self.apply_unmapped(target, visit);
    }

    /// Finds out of unmappings of arrivals whether they are of these: where an area is whose changes are
    /// told they are from before, or made room for what is told next.
    pub(super) fn find_occupants(&self, changes: &mut EngineVec<Change>, signals: &SignalsBlocked) {
        let is_open =
            |change: &Change| matches!(change, Change::Unmapped { of: Occupant::Unknown, .. });
        while let Some(place) = changes.iter().position(is_open) {
            let Some(Change::Unmapped { pages, .. }) = changes.remove(place) else { return };
            let mut areas = EngineVec::new(self.memory.clone());
            if self.look_up(pages, &mut areas).is_err() {
                // Where the system does not tell, the unmapping is believed.
                areas.clear();
            }
            let mut known = self.gate.alone(signals);
            let mut at = place;
            let mut found = |part: PageRange, found: Found| {
                or_abort(known.doubts.unmapping_found(part, found, &mut |change| {
                    or_abort(changes.try_insert(at, change));
                    at += 1;
                }));
            };
            let mut rest = pages;
            for area in areas.iter() {
                let there = area.pages.intersection(rest);
                if !there.is_empty() {
                    found(PageRange::new(rest.start(), there.start()), Found::Nothing);
                    found(there, if area.registered { Found::Told } else { Found::Other });
                    rest = PageRange::new(there.end(), rest.end());
                }
            }
            found(rest, Found::Nothing);
            // They are opened one by one, so they are closed so.
            known.open(pages);
            for change in &changes[place..at] {
                known.close(change.source());
            }
        }
    }

    /// An unmapping as it was told.
    pub(super) fn apply_told_unmapped(
        &self,
        pages: PageRange,
        of: Occupant,
        visit: &mut Visit<'_, M>,
    ) {
        let outdated = self.is_outdated(pages, of, visit.signals());
        if !outdated {
            self.apply_unmapped(pages, visit);
        }
        let mut known = self.gate.alone(visit.signals());
        if of != Occupant::Earlier {
            known.doubts.arrivals.ended(pages);
        }
        // What was disbelieved before made room for nothing that is there still.
        known.open_disbelieved(pages);
        if outdated {
            or_abort(known.doubts.disbelieve(pages));
            known.close(pages);
            self.counters.changes_outdated.add(1);
        }
    }

    /// Whether a change of `pages` is of what nothing is known of any more, as others have arrived there.
    /// Where their remapping waits, what was there before is what it waits for the end of.
    pub(super) fn is_outdated(
        &self,
        pages: PageRange,
        of: Occupant,
        signals: &SignalsBlocked,
    ) -> bool {
        of == Occupant::Earlier && !self.gate.share(signals).doubts.arrivals.awaits(pages)
    }

    /// Applies an unmapping where it was disbelieved: there it made room for a remapping that was told now.
    pub(super) fn believe(&self, pages: PageRange, visit: &mut Visit<'_, M>) {
        self.apply_unmapped(pages, visit);
        let mut known = self.gate.alone(visit.signals());
        while let Some(part) = known.doubts.take(pages) {
            known.open(part);
            // Of what lies before it nothing is known yet.
            let before = PageRange::new(part.start(), pages.start().max(part.start()));
            if !before.is_empty() {
                or_abort(known.doubts.disbelieve(before));
                known.close(before);
            }
        }
        drop(known);
        self.mm.wake(pages);
    }
}
