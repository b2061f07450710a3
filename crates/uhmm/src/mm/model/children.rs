//! Children of forks: what they have, and how they are filled. A child runs when that is done.
//!
//! A child loads, and does nothing else: it changes no areas, and stores nothing.

use std::collections::BTreeMap;

use super::{Model, Signal, State, areas::Areas, pages::PageState};
use crate::{
    mm::{Child, Done, Look, Message, Stop},
    units::{PageNumber, PageRange},
};

/// What a child has.
#[derive(Debug)]
pub(super) struct ChildState {
    areas: Areas,
    /// What is at pages that are no holes; nothing stands for a mark.
    pages: BTreeMap<PageNumber, Option<Vec<u8>>>,
    /// Whether the fork waits until it is filled.
    held: bool,
}

/// A child of a [fork](Model::fork), to be asked what it reads.
#[derive(Clone, Debug)]
pub struct ForkedChild {
    model: Model,
    number: usize,
}

impl Model {
    /// Forks the process, by the bare system call: no hook runs. Where forks are told it waits until
    /// that was read, and the child was filled.
    ///
    /// # Panics
    /// Where there were more children before than a `u32` counts.
    pub fn fork(&self) -> ForkedChild {
        let mut held = self.held();
        let inherited =
            held.areas.overlapping(self.shared.program).filter(|area| area.attributes.inherited);
        let inherited: Vec<_> = inherited.copied().collect();
        let mut areas = Areas::default();
        let mut pages = BTreeMap::new();
        let mut told = false;
        for area in inherited {
            held.share(area.pages);
            told |= area.attributes.registered();
            areas.insert(area.pages, area.attributes);
            for page in area.pages.pages() {
                let content = match held.pages.at(page) {
                    // The file's pages are the child's too, once it is not kept any more.
                    PageState::Hole if !held.pages.is_in_file(page) => continue,
                    PageState::Poison => None,
                    _ => {
                        let mut content = vec![0; self.shared.page_size.bytes()];
                        held.pages.read(page, 0, &mut content);
                        Some(content)
                    }
                };
                pages.insert(page, content);
            }
        }
        told &= self.shared.tells_forks;
        let number = held.children.len();
        held.children.push(ChildState { areas, pages, held: told });
        if told {
            held.forks_under_way += 1;
            let child = Child::new(u32::try_from(number).expect("few children"));
            held = self.tell(held, &[Message::Forked(child)]);
            while held.child(child).held {
                held = self.let_go(held);
            }
        }
        drop(held);
        ForkedChild { model: self.clone(), number }
    }

    /// Fills holes of a child from staging, or with marks where there is no `from`.
    pub(super) fn fill_child(
        &self,
        child: Child,
        from: Option<PageNumber>,
        to: PageNumber,
        pages: usize,
    ) -> Done {
        let mut held = self.held();
        let mut done = Done { pages: 0, stop: None };
        while done.pages < pages && done.stop.is_none() {
            let from = from.map(|from| from.plus(done.pages));
            match held.fill_child_page(child, from, to.plus(done.pages)) {
                Ok(()) => done.pages += 1,
                Err(stop) => done.stop = Some(stop),
            }
        }
        drop(held);
        self.shared.changed.notify_all();
        done
    }

    /// Lets the fork of a child go on.
    pub(super) fn let_child_go(&self, child: Child) {
        let mut held = self.held();
        held.child(child).held = false;
        held.forks_under_way -= 1;
        drop(held);
        self.shared.changed.notify_all();
    }
}

impl State {
    fn child(&mut self, child: Child) -> &mut ChildState {
        &mut self.children[child.number() as usize]
    }

    fn fill_child_page(
        &mut self,
        child: Child,
        from: Option<PageNumber>,
        to: PageNumber,
    ) -> Result<(), Stop> {
        let mut content = None;
        if let Some(from) = from {
            if self.pages.at(from).look() == Look::Hole {
                self.violations.push(super::Violation::CopiedHole(from));
                return Err(Stop::Hole);
            }
            let mut bytes = vec![0; self.pages.page_size().bytes()];
            self.pages.read(from, 0, &mut bytes);
            content = Some(bytes);
        }
        let child = self.child(child);
        if child.areas.at(to).is_none_or(|area| !area.attributes.registered()) {
            return Err(Stop::NoArea);
        }
        match child.pages.get(&to) {
            Some(Some(_)) => return Err(Stop::Present),
            Some(None) if content.is_none() => return Err(Stop::Present),
            _ => {}
        }
        child.pages.insert(to, content);
        Ok(())
    }
}

impl ForkedChild {
    /// What the child reads at a page.
    ///
    /// # Errors
    /// The signal by which the child would end.
    pub fn content(&self, page: PageNumber) -> Result<Vec<u8>, Signal> {
        let size = self.model.shared.page_size;
        let address = size.address_of(page);
        let held = self.model.held();
        let child = &held.children[self.number];
        if child.areas.at(page).is_none() {
            return Err(Signal::Segv(address));
        }
        match child.pages.get(&page) {
            Some(Some(content)) => Ok(content.clone()),
            Some(None) => Err(Signal::Bus(address)),
            None => Ok(vec![0; size.bytes()]),
        }
    }

    /// Whether the child lacks some of `pages`.
    pub fn lacks(&self, pages: PageRange) -> bool {
        self.model.held().children[self.number].areas.gap_in(pages).is_some()
    }

    /// Whether what the child has at a page was trapped as it was forked.
    pub fn had_trapped(&self, page: PageNumber) -> bool {
        let held = self.model.held();
        held.children[self.number].areas.at(page).is_some_and(|area| area.attributes.trapped)
    }
}
