//! Which pages may go to a device, and the trapping of their areas when a device first wants them.

use core::ops::ControlFlow;

use super::{Areas, Engine, looks::Looking, views::Alias};
use crate::{
    driver::FrameNumber,
    engine_memory::{EngineMemoryError, EngineVec},
    mm::{Area, Backing, Errno, Exclusion, Mapping, Mm, TrapError},
    range_set::RangeSet,
    report::StayCause,
    sync::{SignalsBlocked, yield_now},
    units::{HUGE_ORDER, PageNumber, PageRange},
};

/// Whether pages may go to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eligibility {
    /// They are adopted, trapped, and of no kind that is kept.
    Eligible {
        /// Of shared memory: what the alias shows of the first.
        alias: Option<FrameNumber>,
    },
    /// They are adopted, but their area is not trapped.
    Untrapped,
    /// The program discards them, and they were not seen to be holes since.
    Discarding,
    /// A change of the address space hits them that is not applied yet.
    Changing,
    /// They stay.
    Stays(StayCause),
}

/// Pages that stay although their area may go.
pub(crate) struct Exclusions {
    pub(crate) thread_blocks: RangeSet,
    pub(crate) objects_data: RangeSet,
    pub(crate) stacks: RangeSet,
}

impl Areas {
    /// The first of `pages`, up to where the answer changes, and the answer.
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn eligible(&self, pages: PageRange) -> (PageRange, Eligibility) {
        if self.closing {
            return (pages, Eligibility::Stays(StayCause::Closed));
        }
        if self.forking || self.is_closed(pages) {
            return (pages, Eligibility::Changing);
        }
        let (pages, adopted) = self.adopted.leading(pages);
        if !adopted {
            return (pages, Eligibility::Stays(StayCause::NotAdopted));
        }
        // Threads end, and others get the addresses of their control blocks: what is said of those is
        // as old as the last trapping. So an area that is not trapped is trapped first.
        let (pages, trapped) = self.trapped.leading(pages);
        if !trapped {
            return (pages, Eligibility::Untrapped);
        }
        let (pages, block) = self.thread_blocks.leading(pages);
        let (pages, data) = self.objects_data.leading(pages);
        let (pages, kept) = self.kept.leading(pages);
        if block || data || kept {
            return (pages, Eligibility::Stays(StayCause::Kept));
        }
        let (pages, alias) = self.views.leading(pages);
        if alias.is_some() {
            return (pages, Eligibility::Eligible { alias });
        }
        let (pages, discarding) = self.discarding.leading(pages);
        (pages, if discarding { Eligibility::Discarding } else { Eligibility::Eligible { alias } })
    }
}

/// Whether areas of a kind can be for devices.
fn is_for_devices(backing: Backing) -> bool {
    backing == Backing::PrivateAnonymous || backing.is_shared()
}

/// Why an area, as it is now, is not for devices.
pub(crate) fn refusal(area: &Area) -> Option<StayCause> {
    if !is_for_devices(area.backing) {
        Some(StayCause::Backing(area.backing))
    } else if area.stack {
        Some(StayCause::Stack)
    } else if area.object_data {
        Some(StayCause::Kept)
    } else if area.locked {
        Some(StayCause::Locked)
    } else {
        None
    }
}

/// Whether the system moves pages in and out of an area.
const fn moves(area: &Area) -> bool {
    area.protection.read && area.protection.write
}

/// What it means that an area that is there was not trapped.
const fn not_trapped(error: TrapError, backing: Backing) -> StayCause {
    match error {
        TrapError::Foreign(_) => StayCause::ForeignUserfaultfd,
        TrapError::Unsupported(_) if matches!(backing, Backing::SharedFile) => {
            StayCause::Backing(backing)
        }
        TrapError::Unsupported(_) => StayCause::CannotTrap,
        TrapError::NoRoom(_) => StayCause::NoRoomForAreas,
        TrapError::NoArea(_) => StayCause::NoArea,
        TrapError::Other(_, errno) => StayCause::System(errno),
    }
}

/// How a look at an area begins.
enum Begun {
    /// It is under way.
    Look(Looking),
    /// Nothing is to be looked at.
    Decided(Trapping),
}

/// How an attempt to trap an area ended.
enum Trapping {
    /// It decided this part of the pages: they may not go, if there is a cause.
    Done(PageRange, Option<StayCause>),
    /// It decided this part of the pages, which may go, and the alias that was made of the others is of
    /// use.
    Noted(PageRange, PageRange),
    /// The area was changing.
    Changing,
    /// The area is shared memory, perhaps of a pool, and of this part of it an alias is needed.
    Unseen { part: PageRange, of_pool: bool },
}

impl<M: Mm> Engine<M> {
    /// Traps the area at the first of `pages`, which are adopted. Answers the part of `pages` that
    /// this decided, and why it may not go, if so.
    /// An area that cannot be written, or of a pool, may go where it is `undisturbed`.
    #[inline(never)]
    pub(crate) fn trap(
        &self,
        pages: PageRange,
        undisturbed: bool,
    ) -> (PageRange, Option<StayCause>) {
        // Made for shared memory and of no use yet.
        let mut alias = None;
        let answer = loop {
            let openings = self.gate.openings();
            match self.try_trap(pages, undisturbed, &mut alias) {
                Ok(Trapping::Done(part, cause)) => break (part, cause),
                Ok(Trapping::Noted(part, made_of)) => {
                    self.made_alias(made_of);
                    break (part, None);
                }
                // The area changed between the looks at it, or a change is not read yet.
                Ok(Trapping::Changing) => self.gate.wait_opened(openings),
                Ok(Trapping::Unseen { part, of_pool }) => {
                    self.end_spare(alias.take());
                    match self.make_alias(part, of_pool) {
                        Ok(made) => alias = made.map(|made| (part, made)),
                        Err(cause) => break (part.intersection(pages), Some(cause)),
                    }
                }
                Err(cause) => break (pages, Some(cause)),
            }
        };
        self.end_spare(alias);
        answer
    }

    /// Ends an alias that came to no use. Where the system refuses its addresses, and what it shows, are
    /// kept until the address space closes.
    fn end_spare(&self, alias: Option<(PageRange, Alias)>) {
        if let Some((made_of, alias)) = alias {
            let _ = self.end_alias(alias, &SignalsBlocked::new());
            self.made_alias(made_of);
        }
    }

    /// With an alias that was made of some pages, which it takes where it can be used.
    fn try_trap(
        &self,
        pages: PageRange,
        undisturbed: bool,
        alias: &mut Option<(PageRange, Alias)>,
    ) -> Result<Trapping, StayCause> {
        let looking = match self.begin_look(pages, undisturbed)? {
            Begun::Look(looking) => looking,
            Begun::Decided(trapping) => return Ok(trapping),
        };
        let trapping = self.trap_looked_at(looking, pages, undisturbed, alias);
        self.gate.alone(&SignalsBlocked::new()).looks.end(looking);
        trapping
    }

    /// Begins a look at the area at the first of `pages`, where it may be one for devices.
    fn begin_look(&self, pages: PageRange, undisturbed: bool) -> Result<Begun, StayCause> {
        use Trapping::{Changing, Done};
        let decided = |trapping| Ok(Begun::Decided(trapping));
        let signals = SignalsBlocked::new();
        let mut gate = self.gate.alone(&signals);
        if gate.closing {
            // Nobody would end the trapping, nor serve a fault.
            return decided(Done(pages, Some(StayCause::Closed)));
        }
        if gate.forking || gate.is_closed(pages) {
            return decided(Changing);
        }
        // An area that is found now is to be one that was not there before.
        if !self.settle_doubts(&mut gate) {
            return decided(Changing);
        }
        let Some(found) = self.mm.mapping_at(pages.start()).map_err(StayCause::System)? else {
            return decided(Done(self.gap_at(pages), Some(StayCause::NoArea)));
        };
        let part = found.pages.intersection(pages);
        if self.memory_overlaps(found.pages) {
            return decided(Done(part, Some(StayCause::Kept)));
        }
        // A page of a pool is a block, and its view is ended by address.
        let out_of_reach = found.backing == Backing::SharedHugetlb
            && !(undisturbed && found.page_order == HUGE_ORDER);
        if !is_for_devices(found.backing) || out_of_reach || self.is_file_of_a_medium(&found) {
            return decided(Done(part, Some(StayCause::Backing(found.backing))));
        }
        let is_told = match self.watch_whole(found.pages) {
            Ok(true) => true,
            Ok(false) | Err(TrapError::NoArea(_)) => return decided(Changing),
            // Of this kind it is found out at the end whether it changed.
            Err(TrapError::Unsupported(_)) => false,
            Err(error) => return decided(Done(part, Some(not_trapped(error, found.backing)))),
        };
        Ok(Begun::Look(gate.looks.begin(found.pages, is_told)?))
    }

    /// Looks at an area, and traps it where it is one for devices.
    fn trap_looked_at(
        &self,
        looking: Looking,
        pages: PageRange,
        undisturbed: bool,
        alias: &mut Option<(PageRange, Alias)>,
    ) -> Result<Trapping, StayCause> {
        let Some(area) = self.look_at(looking)? else { return Ok(Trapping::Changing) };
        let part = area.pages.intersection(pages);
        if let Some(cause) = refusal(&area) {
            return Ok(Trapping::Done(part, Some(cause)));
        }
        let shared = area.backing.is_shared();
        if !moves(&area) && (shared || !undisturbed || self.is_bare_reservation(&area, part)) {
            return Ok(Trapping::Done(part, Some(StayCause::Protection)));
        }
        loop {
            let openings = self.gate.openings();
            let signals = SignalsBlocked::new();
            let mut gate = self.gate.alone(&signals);
            if gate.closing {
                return Ok(Trapping::Done(pages, Some(StayCause::Closed)));
            }
            if !gate.looks.lasts(looking) {
                return Ok(Trapping::Changing);
            }
            // While nothing is read, what is true of the area stays so, unless a change is unread.
            let changing =
                gate.forking || gate.is_closed(area.pages) || !self.settle_doubts(&mut gate);
            if !changing {
                match self.trap_found(&mut gate, &area, looking, pages, alias)? {
                    Some(trapping) => return Ok(trapping),
                    // It may be another area by now.
                    None if !looking.is_told => return Ok(Trapping::Changing),
                    None => {}
                }
            }
            drop(gate);
            drop(signals);
            self.gate.wait_opened(openings);
        }
    }

    /// Traps an area that was looked at, alone inside the gate. `None` where some area is changing.
    fn trap_found(
        &self,
        gate: &mut Areas,
        area: &Area,
        looking: Looking,
        pages: PageRange,
        alias: &mut Option<(PageRange, Alias)>,
    ) -> Result<Option<Trapping>, StayCause> {
        use Trapping::{Changing, Done};
        let part = area.pages.intersection(pages);
        let shared = area.backing.is_shared();
        let of_pool = area.backing.is_of_pool();
        if !shared && gate.trapped.covers(area.pages) {
            // Others were faster.
            return Ok(Some(Done(part, None)));
        }
        let (seen, shown) = gate.views.around(pages.start(), area.pages);
        // Trapping a part of an area that has grown would have the program's `mremap` of it fail half-way.
        let at = |page| self.mm.mapping_at(page).map_err(StayCause::System);
        let before = self.beside(area.pages).map_err(StayCause::System)?;
        let is_as_seen =
            |now: Mapping| (now.pages, now.protection) == (area.pages, area.protection);
        if !at(area.pages.start())?.is_some_and(is_as_seen) {
            return Ok(Some(Changing));
        }
        let unseen = shared && shown.is_none() && alias.is_none_or(|(made_of, _)| made_of != seen);
        if unseen {
            return Ok(Some(Trapping::Unseen { part: seen, of_pool }));
        }
        match self.mm.trap(area.pages) {
            Ok(()) => {}
            Err(TrapError::NoArea(_)) => return Ok(Some(Changing)),
            Err(error) => return Ok(Some(Done(part, Some(not_trapped(error, area.backing))))),
        }
        // From the trap on we are told of changes, if we were not before.
        let split_off = self.split_off(area.pages, before).map_err(StayCause::System)?;
        if (split_off != [None; 2] || !looking.is_told) && !self.trap_what_grew(area)? {
            return Ok(Some(Changing));
        }
        let blocks = self.exclusions(false)?.thread_blocks;
        if self.mm.changing() {
            // Whatever is there is trapped now without our counting on it; a fault there is a first
            // touch, and the next look settles what it is.
            return Ok(None);
        }
        if !shared {
            if !self.withhold(gate, area)? {
                return Ok(None);
            }
            if area.huge {
                gate.huge.add(area.pages)?;
            } else {
                gate.huge.remove(area.pages)?;
            }
            gate.trapped.add(area.pages)?;
            gate.thread_blocks = blocks;
            return Ok(Some(Done(part, None)));
        }
        // What was made of the area before it was trapped may be of another.
        let first = match (shown, *alias) {
            (Some(first), _) => first,
            (None, Some((_, made))) => made.first,
            (None, None) => return Ok(Some(Changing)),
        };
        let same = self.mm.is_alias(seen, self.aliases.page_of(first));
        if self.mm.changing() {
            return Ok(None);
        }
        if !same.map_err(|_| StayCause::CannotTrap)? {
            return match shown {
                None => Ok(Some(Trapping::Unseen { part: seen, of_pool })),
                Some(_) => Err(StayCause::CannotTrap),
            };
        }
        gate.trapped.add(seen)?;
        let part = seen.intersection(pages);
        if shown.is_some() {
            gate.thread_blocks = blocks;
            return Ok(Some(Done(part, None)));
        }
        if let Err(error) = gate.views.begin(seen, first) {
            // Else its pages are refused by the system one by one.
            let _ = gate.trapped.remove(seen);
            return Err(error.into());
        }
        gate.thread_blocks = blocks;
        *alias = None;
        Ok(Some(Trapping::Noted(part, seen)))
    }

    /// Whether an area shows a file that is not kept in memory, as far as it can be written.
    ///
    /// Which files are, the system tells by trapping them. That is done first, as it costs little, and all that
    /// is told of areas much, and programs have such files mapped for as long as they run. What is trapped
    /// so is not counted on.
    fn is_file_of_a_medium(&self, found: &Mapping) -> bool {
        found.backing == Backing::SharedFile
            && found.protection.read
            && found.protection.write
            && matches!(self.mm.trap(found.pages), Err(TrapError::Unsupported(_)))
    }

    /// Looks at an area again that was trapped just now, and answers whether it is as it was. What
    /// was split off by the trapping, because it had grown meanwhile or another is in its place, is trapped
    /// too, so that it joins again.
    fn trap_what_grew(&self, area: &Area) -> Result<bool, StayCause> {
        let mut areas = EngineVec::new(self.memory.clone());
        let around = PageRange::new(
            PageNumber(area.pages.start().0.saturating_sub(1)),
            area.pages.end().plus(1),
        );
        self.look_up(around, &mut areas)?;
        let (mut same, mut joined) = (false, false);
        for now in areas.iter() {
            if now.pages == area.pages {
                same = refusal(now).is_none()
                    && now.protection == area.protection
                    && now.registered
                    && now.backing == area.backing;
            } else if !now.registered
                && now.protection == area.protection
                && now.backing == area.backing
                // Beside a mapping of a file mostly another file is mapped.
                && now.backing != Backing::SharedFile
                && refusal(now).is_none()
                && !self.memory_overlaps(now.pages)
            {
                // It is not counted on, so where it cannot be trapped nothing is lost.
                joined |= self.mm.trap(now.pages).is_ok();
            }
        }
        Ok(same && !joined)
    }

    /// The pages that stay although their area may go, as they are now; control blocks alone, or `all`.
    pub(crate) fn exclusions(&self, all: bool) -> Result<Exclusions, StayCause> {
        let mut found = Exclusions {
            thread_blocks: RangeSet::new(&self.memory),
            objects_data: RangeSet::new(&self.memory),
            stacks: RangeSet::new(&self.memory),
        };
        let mut added = Ok(());
        self.mm
            .exclusions(all, &mut |pages, exclusion| {
                let set = match exclusion {
                    Exclusion::ThreadControlBlock => &mut found.thread_blocks,
                    Exclusion::ObjectData => &mut found.objects_data,
                    Exclusion::Stack => &mut found.stacks,
                };
                added = added.and(set.add(pages));
            })
            .map_err(StayCause::System)?;
        added?;
        Ok(found)
    }

    /// Ends the trapping and watching of every area, for good: the address space is closing, and no page is away.
    /// When it returns no change of an area is unread or unapplied.
    pub(crate) fn untrap_all(&self) -> Result<(), (PageRange, Errno)> {
        let signals = SignalsBlocked::new();
        self.give_to_children(&signals).map_err(|errno| (self.all_pages(), errno))?;
        loop {
            self.untrap_known(&signals)?;
            self.untrap_grown(&signals)?;
            // Who changed an area that was trapped until now waits until that is read, and an area
            // that moves is trapped at its new address.
            if !self.mm.changing() {
                self.gate.settle();
                let areas = self.gate.share(&signals);
                if areas.trapped.is_empty() && areas.watched.is_empty() {
                    return Ok(());
                }
            }
            yield_now();
        }
    }

    /// Ends the trapping and watching of the areas that we noted.
    fn untrap_known(&self, signals: &SignalsBlocked) -> Result<(), (PageRange, Errno)> {
        loop {
            let mut areas = self.gate.alone(signals);
            let trapped = areas.trapped.iter().next();
            let Some(area) = trapped.or_else(|| areas.watched.iter().next()) else {
                return Ok(());
            };
            match self.mm.untrap(area) {
                // Taking out the first as a whole needs no memory.
                Ok(()) if trapped.is_some() => drop(areas.trapped.remove(area)),
                Ok(()) => drop(areas.watched.remove(area)),
                Err(errno) => return Err((area, errno)),
            }
        }
    }

    /// Ends the trapping of areas that we never noted: what a program's `mremap` makes longer is
    /// trapped where the rest is, and no message tells of it.
    fn untrap_grown(&self, signals: &SignalsBlocked) -> Result<(), (PageRange, Errno)> {
        let all = self.all_pages();
        let mut areas = EngineVec::new(self.memory.clone());
        let _gate = self.gate.alone(signals);
        self.look_up(all, &mut areas).map_err(|cause| match cause {
            StayCause::System(errno) => (all, errno),
            _ => (all, Errno(libc::ENOMEM)),
        })?;
        for area in areas.iter() {
            if area.registered && !self.memory_overlaps(area.pages) {
                // What another userfaultfd holds is refused, and stays.
                let _ = self.mm.untrap(area.pages);
            }
        }
        Ok(())
    }

    /// Appends the areas that overlap `pages`.
    pub(crate) fn look_up(
        &self,
        pages: PageRange,
        areas: &mut EngineVec<Area>,
    ) -> Result<(), StayCause> {
        let mut exhausted: Option<EngineMemoryError> = None;
        self.mm
            .areas(pages, &mut |area| match areas.try_push(*area) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    exhausted = Some(error);
                    ControlFlow::Break(())
                }
            })
            .map_err(StayCause::System)?;
        exhausted.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The first area that overlaps `pages`, with all that the system tells of it.
    pub(crate) fn first_area(&self, pages: PageRange) -> Result<Option<Area>, Errno> {
        let mut first = None;
        self.mm.areas(pages, &mut |area| {
            first = Some(*area);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// Whether some of `pages` is the engine's own.
    pub(crate) fn memory_overlaps(&self, pages: PageRange) -> bool {
        let signals = SignalsBlocked::new();
        let size = self.mm.page_size();
        self.memory.range().pages_touched(size).overlaps(pages)
            || self.view.range().is_some_and(|view| view.pages_touched(size).overlaps(pages))
            || self.mm.keeps(pages)
            || self.aliases.overlap(pages, &signals)
            || self.devices.attached(&signals).any(|device| device.overlaps(pages))
    }
}
