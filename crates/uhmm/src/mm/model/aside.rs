//! Pages that lie aside, out of an area that cannot be written, and files' mappings that become anonymous.

use super::{BAD_ADDRESS, INVALID, Model, NO_MEMORY, areas::Attributes, pages::PageState};
use crate::{
    mm::{Backing, Errno, Message},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

const NOT_PERMITTED: Errno = Errno(libc::EPERM);

impl Model {
    /// `Mm::set_aside`. They lie where staging is, as that is where pages move to and from.
    pub(super) fn move_aside(&self, pages: PageRange) -> Result<PageRange, Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let area = held.areas.at(pages.start()).copied().ok_or(BAD_ADDRESS)?;
        if !area.pages.covers(pages) {
            return Err(BAD_ADDRESS);
        }
        if area.attributes.locked {
            return Err(NOT_PERMITTED);
        }
        if area.attributes.backing != Backing::PrivateAnonymous {
            return Err(INVALID);
        }
        let offset = pages.start().in_block();
        let room = held.areas.room(self.shared.staging, pages.len() + offset, BLOCK_PAGES);
        let aside = PageRange::of(room.ok_or(NO_MEMORY)?.start().plus(offset), pages.len());
        let attributes = Attributes { trapped: false, ..Attributes::staging() };
        held.areas.insert(aside, attributes);
        let mut moved = 0;
        while moved < pages.len() {
            let (from, to) = (pages.start().plus(moved), aside.start().plus(moved));
            moved += held.move_any(from, to, pages.len() - moved);
        }
        if area.attributes.registered() {
            drop(self.tell(held, &[Message::Remapped { from: pages, to: aside.start() }]));
        }
        Ok(aside)
    }

    /// `Mm::make_anonymous`
    pub(super) fn copy_over(&self, pages: PageRange) -> Result<(), Errno> {
        self.check(pages)?;
        let mut held = self.held();
        let area = held.areas.at(pages.start()).copied().ok_or(BAD_ADDRESS)?;
        if area.pages != pages || area.attributes.backing != Backing::PrivateFile {
            return Err(INVALID);
        }
        let told = area.attributes.registered();
        let protection = area.attributes.protection;
        held.change(pages, |area| *area = Attributes::new(protection, Backing::PrivateAnonymous));
        for page in pages.pages() {
            // They are copies.
            if held.pages.at(page) != PageState::Hole {
                held.pages.set(page, PageState::OWN);
            }
        }
        if told {
            drop(self.tell(held, &[Message::Unmapped(pages)]));
        }
        Ok(())
    }

    /// `Mm::put_back`
    pub(super) fn move_back(&self, from: PageNumber, to: PageRange) {
        let mut held = self.held();
        let mut moved = 0;
        while moved < to.len() {
            let (from, to_page) = (from.plus(moved), to.start().plus(moved));
            moved += held.move_any(from, to_page, to.len() - moved);
        }
        held.areas.remove(PageRange::of(from, to.len()));
        drop(self.tell(held, &[Message::Unmapped(to)]));
    }
}
