//! The areas of this process, as the files of `/proc` tell them now.
//!
//! Of all that the kernel tells, only `smaps` has the flags of an area. It costs a walk over the
//! page tables of every area from the first on, as the file has no way to start further on: some
//! 10 ns for each page that is there. What can do without flags asks the file of maps instead,
//! which answers a question about one address at once (Linux 6.11). Before that its text has to be
//! read up to the address.

use core::{ffi::CStr, ops::ControlFlow};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno as E,
};

use super::{
    abi::{self, area},
    backing,
    descriptor::call,
    smaps::{Parser, Told},
};
use crate::{
    mm::{Area, Backing, Mapping, Protection},
    units::{PageNumber, PageRange, PageSize},
};

/// Text read at once: on the stack, as nothing here may use the heap, and small enough for the
/// stack of an engine's thread.
const TEXT: usize = 4096;

/// Bytes of an area's name that are looked at: they tell by how they start.
const NAME: usize = 192;

const MAPS: &CStr = c"/proc/thread-self/maps";
const SMAPS: &CStr = c"/proc/thread-self/smaps";

/// Where the areas of this process are told.
#[derive(Debug)]
pub(super) struct Areas {
    /// The file of maps, to be asked; `None` where it could not be opened.
    maps: Option<OwnedFd>,
    page: PageSize,
}

impl Areas {
    /// Opens what stays open. The file of the thread, as the process's own is empty once the main
    /// thread has ended.
    pub(super) fn open(page: PageSize) -> Self {
        Self { maps: open(MAPS).ok(), page }
    }

    /// Asks for the area at `page`, or with [`area::COVERING_OR_NEXT`] the next. `ENOENT` where
    /// there is none, other errors where the kernel does not take the question.
    fn ask(&self, page: PageNumber, flags: u64, name: &mut [u8]) -> Result<abi::AreaQuery, E> {
        let maps = self.maps.as_ref().ok_or(E::NOTTY)?;
        let mut query = abi::AreaQuery {
            size: abi::word(size_of::<abi::AreaQuery>()),
            flags,
            address: abi::word(self.page.address_of(page)),
            ..Default::default()
        };
        if !name.is_empty() {
            query.name_len = u32::try_from(name.len()).unwrap_or(u32::MAX);
            query.name = abi::word(name.as_mut_ptr().expose_provenance());
        }
        // SAFETY: the structure of the call, which names `name` with its length.
        unsafe { call::<{ abi::PROCMAP_QUERY }, _>(maps.as_fd(), &mut query) }?;
        Ok(query)
    }

    /// Whether the system says that there is no area in `within`; false where it says nothing.
    fn none_within(&self, within: PageRange) -> bool {
        match self.ask(within.start(), area::COVERING_OR_NEXT, &mut []) {
            Ok(query) => self.page.page_of(abi::bytes(query.start)) >= within.end(),
            // No area at the address or after it.
            Err(error) => error == E::NOENT,
        }
    }

    /// The area that holds `page`.
    pub(super) fn at(&self, page: PageNumber) -> Result<Option<Mapping>, E> {
        let mut name = [0; NAME];
        loop {
            return match self.ask(page, 0, &mut name) {
                Ok(query) => {
                    let len = usize::try_from(query.name_len).unwrap_or(0).min(NAME);
                    Ok(Some(self.mapping(&query, &name[..len.saturating_sub(1)])))
                }
                Err(E::NOENT) => Ok(None),
                // None but a path is so long. The area may have gone meanwhile: what is there then
                // may have another name.
                Err(E::NAMETOOLONG) => match self.ask(page, 0, &mut []) {
                    Ok(query) if query.inode == 0 => continue,
                    Ok(query) => Ok(Some(self.mapping(&query, b"/"))),
                    Err(E::NOENT) => Ok(None),
                    Err(error) => Err(error),
                },
                Err(_) => self.read_at(page),
            };
        }
    }

    /// What an answer says of an area of this name.
    fn mapping(&self, query: &abi::AreaQuery, name: &[u8]) -> Mapping {
        let is = |flag| query.kind & flag != 0;
        let start = self.page.page_of(abi::bytes(query.start));
        let end = self.page.page_of(abi::bytes(query.end));
        let protection = Protection {
            read: is(area::READABLE),
            write: is(area::WRITABLE),
            execute: is(area::EXECUTABLE),
        };
        let larger = self.page.page_of(abi::bytes(query.page_bytes)).0.max(1).trailing_zeros();
        // Devices of persistent memory have larger pages too.
        let (backing, order) = if larger > 0 && !name.starts_with(b"/dev/dax") {
            (Backing::Hugetlb, larger)
        } else {
            (backing::of_name(name, is(area::SHARED)), 0)
        };
        let page_order = u8::try_from(order).unwrap_or(u8::MAX);
        Mapping { pages: PageRange::new(start, end), protection, backing, page_order }
    }

    /// The area that holds `page`, out of the text of maps.
    fn read_at(&self, page: PageNumber) -> Result<Option<Mapping>, E> {
        let mut found = None;
        self.read(MAPS, PageRange::of(page, 1), &mut |told| {
            found = Some(told.area);
            ControlFlow::Break(())
        })?;
        Ok(found.map(|area| {
            let mut mapping = Mapping {
                pages: area.pages,
                protection: area.protection,
                backing: area.backing,
                page_order: 0,
            };
            // Of hugetlb the text says nothing, but it always has a file.
            if area.backing != Backing::PrivateAnonymous
                && let Some(order) = hugetlb_order(self.page, area.pages)
            {
                (mapping.backing, mapping.page_order) = (Backing::Hugetlb, order);
            }
            mapping
        }))
    }

    /// Whether the area that holds `page` is registered for its holes, whoever has the descriptor.
    /// Slow: it reads the text up to the page.
    pub(super) fn has_trapped_holes(&self, page: PageNumber) -> Result<bool, E> {
        let mut holes = false;
        self.read(SMAPS, PageRange::of(page, 1), &mut |told| {
            holes = told.holes;
            ControlFlow::Break(())
        })?;
        Ok(holes)
    }

    /// Visits the areas that overlap `within`, in order.
    pub(super) fn visit(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), E> {
        if within.is_empty() || self.none_within(within) {
            return Ok(());
        }
        self.read(SMAPS, within, &mut |told| visit(&told.area))
    }

    /// Reads what the file says of the areas that overlap `within`, in order.
    ///
    /// The text is made as it is read. An area that changes in between may so come in its old or its
    /// new form; areas never overlap, what was visited is cut off.
    fn read(
        &self,
        path: &CStr,
        within: PageRange,
        visit: &mut dyn FnMut(&Told) -> ControlFlow<()>,
    ) -> Result<(), E> {
        let file = open(path)?;
        let mut visited = PageNumber(0);
        let mut select = |told: &Told| {
            if told.area.pages.start() >= within.end() {
                return ControlFlow::Break(());
            }
            let mut told = *told;
            let area = &mut told.area;
            area.pages = PageRange::new(area.pages.start().max(visited), area.pages.end());
            visited = visited.max(area.pages.end());
            if area.pages.overlaps(within) && !area.pages.is_empty() {
                visit(&told)?;
            }
            if visited >= within.end() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut parser = Parser::new(self.page);
        let mut text = [0_u8; TEXT];
        loop {
            let read = match rustix::io::read(&file, &mut text) {
                Err(E::INTR) => continue,
                read => read?,
            };
            if read == 0 {
                let _ = parser.finish(&mut select);
                return Ok(());
            }
            if parser.feed(&text[..read], &mut select).is_break() {
                return Ok(());
            }
        }
    }
}

/// The order of the pages of a hugetlb area; `None` for other areas.
///
/// A `mremap` to the same length does nothing, and takes any page of an area as the address but for
/// hugetlb areas, where it takes the first of a huge page only (`mm/mremap.c`). So the lowest power
/// of two of pages after the area's start that it takes is the size. Where an area ends before, it
/// is one page.
fn hugetlb_order(page: PageSize, pages: PageRange) -> Option<u8> {
    let starts_page = |place: usize| {
        let address = page.address_of(pages.start().plus(place));
        let (at, len) = (core::ptr::without_provenance_mut(address), page.bytes());
        // SAFETY: a remapping of a page to where it is, with the length that it has: nothing moves,
        // grows or is unmapped.
        let result = unsafe { rustix::mm::mremap(at, len, len, rustix::mm::MremapFlags::empty()) };
        result != Err(E::INVAL)
    };
    if pages.len() < 2 || starts_page(1) {
        return None;
    }
    (1..u8::MAX).find(|&order| {
        let place = 1_usize.checked_shl(order.into()).filter(|&place| place < pages.len());
        place.is_none_or(starts_page)
    })
}

fn open(path: &CStr) -> Result<OwnedFd, E> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
}
