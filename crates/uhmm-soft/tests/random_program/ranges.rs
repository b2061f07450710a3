//! What a device without memory asks, and what must come of it.

use std::ops::Range;

use uhmm::{Override, PageEntry, PageError, PageLocation, PageState, RangeReport, Request, Want};

use crate::{
    recorder::Mapped,
    run::{Failure, Runner, ensure},
    step::{Ask, CELL, Which},
    world::{Allowed, World},
};

/// Pages that failed by themselves, with their causes, and those that a device refused.
type Failed = (Vec<(usize, PageError)>, Vec<usize>);

const BOTH: [Which; 2] = [Which::First, Which::Second];

impl<W: World> Runner<'_, W> {
    /// No translation of the pages is left, once the core was called.
    pub(crate) fn ended(&self, pages: Range<usize>) -> Result<(), Failure> {
        self.machine.locate(pages.start);
        let left = pages.clone().find(|&page| self.machine.records.translation(page).is_some());
        ensure!(left.is_none(), "a translation of page {left:?} of {pages:?} is left");
        Ok(())
    }

    pub(crate) fn protection_changed(&mut self, pages: &Range<usize>) -> Result<(), Failure> {
        let told = self.machine.space.protection_changed(self.place().range(pages));
        ensure!(told.is_ok(), "protection changed: {told:?}");
        self.oracle.translations_end(pages.clone());
        self.oracle.knows(pages.clone());
        self.ended(pages.clone())
    }

    pub(crate) fn protect(
        &mut self,
        pages: &Range<usize>,
        allowed: Allowed,
        told: bool,
    ) -> Result<(), Failure> {
        let changed = self.machine.world.protect(pages.clone(), allowed);
        let gap = self.oracle.first_gap(pages.clone());
        let expected = if gap.is_none() { Ok(()) } else { Err(libc::ENOMEM) };
        ensure!(changed == expected, "protect: {changed:?}, not {expected:?}");
        let end = gap.map_or(pages.end, |gap| gap.start);
        self.oracle.protect(pages.start..end, allowed, false);
        if told { self.protection_changed(pages) } else { Ok(()) }
    }

    /// Why a device cannot have a page as it wants, if so.
    fn refusal(&self, page: usize, want: Want) -> Option<PageError> {
        let page = self.oracle.page(page);
        match page.mapped {
            false => Some(PageError::NoArea),
            true if !page.allows(want == Want::Write) => Some(PageError::Protection),
            true => None,
        }
    }

    pub(crate) fn range_fault(&mut self, ask: &Ask) -> Result<(), Failure> {
        let pages = ask.pages.clone();
        let overrides: Vec<Override> = ask
            .overrides
            .iter()
            .map(|(pages, want)| Override { pages: self.page_range(pages), want: *want })
            .collect();
        let request = Request::new(self.place().range(&pages), ask.want).overriding(&overrides);
        let mut entries = vec![PageEntry::default(); if ask.tell { pages.len() } else { 0 }];
        let mirror = &self.machine.mirror;
        let report = if ask.tell {
            mirror.fault_into(&request, &mut entries)
        } else {
            mirror.fault(&request)
        };
        let report = report.map_err(|error| format!("range fault: {error}"))?;
        let dealt = report.held() + report.entered() + report.absent() + report.failed();
        ensure!(dealt == pages.len(), "range fault: {dealt} of {} pages: {report:?}", pages.len());
        ensure!(!ask.tell || report.held() == 0, "range fault: {report:?} although all was told");

        let (failed, by_peers) = self.failures(&report)?;
        // Where nobody told, the device may have what it had.
        let may_have = |page: usize| {
            let known = self.oracle.page(page);
            known.mapped && known.stale && !ask.tell && failed.iter().all(|&(at, _)| at != page)
        };
        let is_peers = |page: usize| by_peers.contains(&page);
        let refused =
            pages.clone().filter_map(|page| Some((page, self.refusal(page, ask.of(page))?)));
        let refused: Vec<_> =
            refused.filter(|&(page, _)| !may_have(page) && !is_peers(page)).collect();
        ensure!(failed == refused, "range fault: {failed:?} failed, not {refused:?}");
        let is_refused = |page: usize| is_peers(page) || refused.iter().any(|&(at, _)| at == page);

        let mut absent = 0;
        for page in pages.clone() {
            let translation = self.machine.records.translation(page);
            let wanted = ask.of(page);
            if !self.oracle.page(page).mapped {
                ensure!(translation.is_none(), "range fault: page {page} has {translation:?}");
                continue;
            }
            let known = self.oracle.page(page);
            if is_refused(page) {
                let may =
                    |it: Mapped| known.allows(false) && !it.write || is_peers(page) && it.peer;
                let good = translation.is_none_or(may);
                ensure!(good, "range fault: page {page} is refused, has {translation:?}");
                continue;
            }
            if let Some(translation) = translation {
                let Mapped { write, zero, peer } = translation;
                let peers = self.oracle.may_be_peers(page, &BOTH);
                ensure!(!peer || peers, "range fault: page {page} has {translation:?}");
                let permitted = known.allows(write) || known.stale && !ask.tell;
                let good = (write || wanted != Want::Write) && !(write && zero) && permitted;
                ensure!(good, "range fault: page {page} has {translation:?}, for {wanted:?}");
            } else {
                absent += 1;
                // Where others go on, a device may have taken the page by now.
                let may = wanted == Want::Present && self.is_zeros(page) || !self.alone;
                ensure!(may, "range fault: page {page} has no translation");
            }
            if !self.alone {
                continue;
            }
            if let Some(entry) = entries.get(page - pages.start) {
                self.described(page, entry, translation)?;
            }
        }
        let told = absent == report.absent() || !self.alone;
        ensure!(told, "range fault: {absent} are absent: {report:?}");
        for (page, entry) in pages.clone().zip(&entries) {
            let error = match self.refusal(page, ask.of(page)) {
                _ if is_peers(page) => PageError::PeerRefuses,
                Some(error) => error,
                None => continue,
            };
            let expected = PageState::Error(error);
            ensure!(entry.state == expected, "range fault: page {page} is {entry:?}");
        }
        for page in pages.clone() {
            let refused = is_refused(page);
            let known = self.oracle.page(page);
            if known.mapped && !known.allows(true) && (ask.tell || refused) {
                self.met(page);
            }
            if !refused || !self.oracle.page(page).mapped {
                self.oracle.mapped(page..page + 1);
            }
        }
        if self.alone && pages.len() < 80 {
            self.placed(pages.filter(|&page| !is_refused(page)))?;
        }
        Ok(())
    }

    /// A page was described as it is mapped.
    fn described(
        &self,
        page: usize,
        entry: &PageEntry,
        translation: Option<Mapped>,
    ) -> Result<(), Failure> {
        let expected =
            translation.map_or_else(PageEntry::default, |Mapped { write, zero, peer }| {
                let state = if peer { entry.state } else { PageState::InPlace };
                // Of coherent memory the mirror is told whose it is.
                let coherent = match self.machine.locate(page) {
                    PageLocation::Device(device) if !peer => Some(device),
                    _ => None,
                };
                let order = entry.order;
                PageEntry { state, write, zero, exclusive: false, coherent, order }
            });
        let peer = matches!(entry.state, PageState::Peer(_));
        let good = *entry == expected && peer == translation.is_some_and(|it| it.peer);
        ensure!(good, "range fault: page {page} has {translation:?}, {entry:?}");
        Ok(())
    }

    /// Pages that are mapped are where they are mapped.
    fn placed(&self, pages: impl Iterator<Item = usize>) -> Result<(), Failure> {
        for page in pages {
            let location = self.machine.locate(page);
            let peer = self.machine.records.translation(page).is_some_and(|it| it.peer);
            let good = match location {
                // The processor does not map every page of coherent memory, so peers may have them.
                PageLocation::Device(_) => peer || self.machine.may_be_mapped(page),
                _ => !peer && self.machine.may_be_mapped(page),
            };
            ensure!(good, "range fault: page {page} is at {location:?}, a peer's: {peer}");
        }
        Ok(())
    }

    /// The pages that failed. What a device refused some device may refuse.
    fn failures(&self, report: &RangeReport) -> Result<Failed, Failure> {
        let first = self.place().base / self.place().page;
        let (mut failed, mut by_peers) = (Vec::new(), Vec::new());
        for failure in report.failures() {
            let pages = failure.pages.pages().map(|page| page.0 - first);
            if failure.error != PageError::PeerRefuses {
                failed.extend(pages.map(|page| (page, failure.error)));
                continue;
            }
            for page in pages {
                let may = self.oracle.may_refuse(page, &BOTH);
                ensure!(may, "range fault: page {page} is refused, by nobody");
                by_peers.push(page);
            }
        }
        let told = failed.len() + by_peers.len();
        ensure!(told == report.failed(), "range fault: {report:?} for {failed:?}");
        Ok((failed, by_peers))
    }

    fn is_zeros(&self, page: usize) -> bool {
        self.oracle.page(page).bytes == [0; CELL]
    }

    pub(crate) fn snapshot(&mut self, pages: &Range<usize>) -> Result<(), Failure> {
        let machine = self.machine;
        // Looking at each page takes long.
        let looked = self.alone && pages.len() < 80;
        let locations = || {
            let looked = if looked { pages.clone() } else { 0..0 };
            looked.map(|page| machine.locate(page)).collect::<Vec<_>>()
        };
        let translations =
            || pages.clone().map(|page| machine.records.translation(page)).collect::<Vec<_>>();
        let before = (locations(), translations());
        let mut entries = vec![PageEntry::default(); pages.len()];
        let told = machine.mirror.snapshot(self.place().range(pages), &mut entries);
        ensure!(told.is_ok(), "snapshot: {told:?}");
        let after = (locations(), translations());
        let same = before == after || !self.alone;
        ensure!(same, "snapshot: {before:?} became {after:?}");

        for (place, (page, entry)) in pages.clone().zip(&entries).enumerate() {
            let PageEntry { state, write, zero, exclusive, .. } = *entry;
            let zeros = self.is_zeros(page);
            let may = match state {
                PageState::Error(error) => self.refusal(page, Want::Read) == Some(error),
                _ if self.refusal(page, Want::Read).is_some() => false,
                _ if write && !self.oracle.page(page).allows(true) => false,
                PageState::Peer(_) => self.oracle.may_be_away(page),
                PageState::InPlace => !zero || zeros && !write,
                PageState::None => !write && !zero && (zeros || !W::STEADY),
                PageState::Own => false,
            };
            // Who may have it alone has it on a device.
            let peer = matches!(state, PageState::Peer(_));
            let may = may && (!exclusive || peer && self.oracle.page(page).exclusive);
            ensure!(may, "snapshot: page {page} is {entry:?}");
            if matches!(state, PageState::Error(_)) {
                continue;
            }
            match before.0.get(place) {
                Some(PageLocation::Device(device)) => {
                    let mapped = state == PageState::InPlace
                        && entry.coherent == Some(*device)
                        && machine.is_coherent(*device);
                    let good = mapped || state == PageState::Peer(*device);
                    ensure!(good, "snapshot: page {page}, at {device:?}, is {entry:?}");
                }
                Some(PageLocation::System) => {
                    let away = matches!(state, PageState::Peer(_));
                    ensure!(!away, "snapshot: page {page} is here and {entry:?}");
                }
                Some(PageLocation::Poisoned) => return Err(format!("page {page} is lost")),
                None => {}
            }
            if self.alone
                && let Some(translation) = before.1[place]
            {
                let there = if translation.peer {
                    matches!(state, PageState::Peer(_))
                } else {
                    state == PageState::InPlace || !W::STEADY && state == PageState::None
                };
                ensure!(there, "snapshot: page {page} has {translation:?}, is {entry:?}");
                // What is to be written is the process's own.
                let own = !(translation.write && zero && W::STEADY);
                ensure!(own, "snapshot: page {page} has {translation:?}, is {entry:?}");
            }
        }
        Ok(())
    }
}
