//! What a device shares with others and what it keeps for itself: memory that its peers map,
//! exclusive pages, and areas that only it backs.

use uhmm::{
    DeviceArea, Export, Migration, ReserveError,
    mm::Mm,
    units::{AddressRange, PageRange, RangeError},
};

use crate::{device::Soft, errors::PlaceError, table::Table};

impl<M: Mm> Soft<M> {
    /// Says what other devices get that want pages of `range` where they are while this device has
    /// them: to map them here, to find them in main memory, or nothing. Without, they find them in
    /// main memory. What was granted once to a device stays granted while the memory is mapped.
    ///
    /// # Errors
    /// [`PlaceError`] where the range is not one of whole pages, or cannot be noted.
    pub fn export(&self, range: AddressRange, export: Export) -> Result<(), PlaceError> {
        let pages = range.pages(self.page_size())?;
        Ok(self.attachment().device().exports.set(pages, export)?)
    }

    /// Makes `range` exclusive to the device: it alone may access the pages, until the CPU or another
    /// device does and so ends it.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages. What cannot be exclusive is in the
    /// report.
    pub fn make_exclusive(&self, range: AddressRange) -> Result<Migration, RangeError> {
        self.attachment().make_exclusive(range)
    }

    /// Whether every page of `range` is exclusive to the device now.
    ///
    /// # Errors
    /// [`RangeError`] where the range is not one of whole pages.
    pub fn is_exclusive(&self, range: AddressRange) -> Result<bool, RangeError> {
        let size = self.page_size();
        let pages = range.pages(size)?;
        let mut all = true;
        for page in pages.pages() {
            let mut entry = [uhmm::PageEntry::default()];
            let one = AddressRange::of_pages(PageRange::of(page, 1), size)?;
            // The device's own mirror spans everything, and there is one entry for one page.
            all &= self.attachment().snapshot(one, &mut entry).is_ok()
                && entry[0].exclusive
                && entry[0].state == uhmm::PageState::Own;
        }
        Ok(all)
    }

    /// Reserves addresses for `pages` pages that only this device backs, without access for the CPU.
    ///
    /// # Errors
    /// [`ReserveError`].
    pub fn reserve_area(&self, pages: usize) -> Result<DeviceArea<Table<M>, M>, ReserveError> {
        self.attachment().reserve_area(pages)
    }
}
