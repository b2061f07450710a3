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
    smaps::Parser,
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

    /// Asks for the area at `page`, or with [`area::COVERING_OR_NEXT`] the next, and for its name
    /// where there is room for one. `ENOENT` where there is none, `ENAMETOOLONG` for a longer name,
    /// other errors where the kernel does not take the question.
    pub(super) fn ask(
        &self,
        page: PageNumber,
        flags: u64,
        name: &mut [u8],
    ) -> Result<abi::AreaQuery, E> {
        let maps = self.maps.as_ref().ok_or(E::NOTTY)?;
        let mut query = abi::AreaQuery {
            size: abi::word(size_of::<abi::AreaQuery>()),
            flags,
            address: abi::word(self.address_of(page)),
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

    /// The address of the first byte of `page`.
    pub(super) fn address_of(&self, page: PageNumber) -> usize {
        self.page.address_of(page)
    }

    /// Whether the system says that there is no area in `within`; false where it says nothing.
    fn none_within(&self, within: PageRange) -> bool {
        match self.ask(within.start(), area::COVERING_OR_NEXT, &mut []) {
            Ok(query) => self.pages_of(&query).start() >= within.end(),
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

    /// Where the area lies that holds `page`, or the first behind it.
    pub(super) fn from(&self, page: PageNumber) -> Result<Option<PageRange>, E> {
        match self.ask(page, area::COVERING_OR_NEXT, &mut []) {
            Ok(query) => Ok(Some(self.pages_of(&query))),
            Err(E::NOENT) => Ok(None),
            Err(_) => {
                let mut found = None;
                let all = PageRange::new(page, PageNumber(usize::MAX));
                self.read(MAPS, all, &mut |area| {
                    found = Some(area.pages);
                    ControlFlow::Break(())
                })?;
                Ok(found)
            }
        }
    }

    /// Where the area of an answer lies.
    fn pages_of(&self, query: &abi::AreaQuery) -> PageRange {
        let page = |address| self.page.page_of(abi::bytes(address));
        PageRange::new(page(query.start), page(query.end))
    }

    /// What an answer says of an area of this name.
    fn mapping(&self, query: &abi::AreaQuery, name: &[u8]) -> Mapping {
        let is = |flag| query.kind & flag != 0;
        let protection = Protection {
            read: is(area::READABLE),
            write: is(area::WRITABLE),
            execute: is(area::EXECUTABLE),
        };
        let larger = self.page.page_of(abi::bytes(query.page_bytes)).0.max(1).trailing_zeros();
        // Devices of persistent memory have larger pages too.
        let (backing, order) = if larger > 0 && !name.starts_with(b"/dev/dax") {
            (Backing::of_pool(is(area::SHARED)), larger)
        } else {
            (backing::of_name(name, is(area::SHARED)), 0)
        };
        let page_order = u8::try_from(order).unwrap_or(u8::MAX);
        Mapping { pages: self.pages_of(query), protection, backing, page_order }
    }

    /// The area that holds `page`, out of the text of maps.
    fn read_at(&self, page: PageNumber) -> Result<Option<Mapping>, E> {
        let mut found = None;
        self.read(MAPS, PageRange::of(page, 1), &mut |area| {
            found = Some(*area);
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
                mapping.backing = Backing::of_pool(area.backing.is_shared());
                mapping.page_order = order;
            }
            mapping
        }))
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
        self.read(SMAPS, within, visit)
    }

    /// Reads what the file says of the areas that overlap `within`, in order.
    ///
    /// The text is made as it is read. An area that changes in between may so come in its old or its
    /// new form; areas never overlap, what was visited is cut off.
    fn read(
        &self,
        path: &CStr,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), E> {
        let file = open(path)?;
        let mut visited = PageNumber(0);
        let mut select = |area: &Area| {
            if area.pages.start() >= within.end() {
                return ControlFlow::Break(());
            }
            let mut area = *area;
            area.pages = PageRange::new(area.pages.start().max(visited), area.pages.end());
            visited = visited.max(area.pages.end());
            if area.pages.overlaps(within) && !area.pages.is_empty() {
                visit(&area)?;
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
        let len = page.bytes();
        // With all arguments, as the kernel looks at the last one whether or not it is used.
        // SAFETY: a remapping of a page to where it is, with the length that it has: nothing moves,
        // grows or is unmapped.
        let result = unsafe { libc::syscall(libc::SYS_mremap, address, len, len, 0, 0) };
        // SAFETY: libc's error number of this thread is always readable.
        result != -1 || unsafe { *libc::__errno_location() } != libc::EINVAL
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

#[cfg(all(test, not(miri)))]
#[expect(clippy::disallowed_macros, clippy::disallowed_types, reason = "tests have a heap")]
mod tests {
    use std::fs::File;

    use rustix::{
        fs::MemfdFlags,
        mm::{MapFlags, ProtFlags},
    };

    use super::*;

    /// The area of a new mapping, as the kernel answers and as the text says.
    fn both(areas: &Areas, bytes: usize, flags: MapFlags, file: Option<&OwnedFd>) -> [Mapping; 2] {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let null = core::ptr::null_mut();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe {
            match file {
                Some(file) => rustix::mm::mmap(null, bytes, protection, flags, file, 0),
                None => rustix::mm::mmap_anonymous(null, bytes, protection, flags),
            }
        };
        let start = start.unwrap();
        let page = areas.page.page_of(start.expose_provenance());
        // By its last page, as that is what tells whether the start is found.
        let last = page.plus(areas.page.pages_for(bytes) - 1);
        let text = Areas { maps: None, page: areas.page };
        let found = [areas.at(last), text.at(last)].map(|found| found.unwrap().unwrap());
        // SAFETY: the mapping from above, which nobody uses.
        unsafe { rustix::mm::munmap(start, bytes).unwrap() };
        found
    }

    #[test]
    fn the_text_says_what_the_kernel_answers() {
        let areas = Areas::open(super::super::page_size());
        let memfd = |flags, bytes| {
            let file = rustix::fs::memfd_create(c"areas", flags | MemfdFlags::CLOEXEC).ok()?;
            rustix::fs::ftruncate(&file, bytes).ok()?;
            Some(file)
        };
        let (bytes, huge) = (4 * areas.page.bytes(), 3 << 21);
        let file = memfd(MemfdFlags::empty(), abi::word(bytes)).unwrap();
        let mut pairs = vec![
            both(&areas, bytes, MapFlags::SHARED, None),
            both(&areas, bytes, MapFlags::SHARED, Some(&file)),
            both(&areas, bytes, MapFlags::PRIVATE, Some(&file)),
        ];
        // No page of a pool is touched, or reserved.
        if let Some(file) = memfd(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, abi::word(huge)) {
            let flags = MapFlags::SHARED | MapFlags::NORESERVE;
            pairs.push(both(&areas, huge, flags, Some(&file)));
            let [found, _] = pairs[pairs.len() - 1];
            let pages = 1 << found.page_order;
            assert_eq!(
                (found.backing, areas.page.bytes_in(pages)),
                (Backing::SharedHugetlb, 1 << 21)
            );
        }
        for [answered, read] in pairs {
            assert_eq!(answered, read);
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let areas = Areas::open(super::super::page_size());
        let text = Areas { maps: None, page: areas.page };
        for areas in [&areas, &text] {
            assert_eq!(areas.at(PageNumber(0)), Ok(None));
        }
    }

    #[test]
    fn a_long_name_is_a_path() {
        let areas = Areas::open(super::super::page_size());
        let name = format!("{}{}", "x".repeat(NAME), std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(1 << 16).unwrap();
        let [answered, read] = both(&areas, 1 << 16, MapFlags::PRIVATE, Some(&file.into()));
        assert_eq!(answered, read);
        assert_eq!(answered.backing, Backing::PrivateFile);
    }
}
