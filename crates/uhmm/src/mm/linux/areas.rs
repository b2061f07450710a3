//! The areas of this process, as `/proc/self/smaps` tells them now.
//!
//! Of all that the kernel tells, only this file has the flags of an area. It costs a walk over the
//! page tables of every area from the first on, as the file has no way to start further on: some
//! 10 ns for each page that is there. So whether there is any area at all is asked of another file
//! first, which answers at once (Linux 6.11).

use core::{ffi::CStr, ops::ControlFlow};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno as E,
};

use super::{abi, descriptor::call, smaps::Parser};
use crate::{
    mm::Area,
    units::{PageNumber, PageRange, PageSize},
};

/// Text read at once: on the stack, as nothing here may use the heap, and small enough for the
/// stack of an engine's thread.
const TEXT: usize = 4096;

/// Where the areas of this process are told.
#[derive(Debug)]
pub(super) struct Areas {
    /// The file of maps, where the kernel answers questions on it.
    maps: Option<OwnedFd>,
    page: PageSize,
}

impl Areas {
    /// Opens what stays open.
    pub(super) fn open(page: PageSize) -> Self {
        Self { maps: open(c"/proc/thread-self/maps").ok(), page }
    }

    /// Whether the system says that there is no area in `within`; false where it says nothing.
    fn none_within(&self, within: PageRange) -> bool {
        let Some(maps) = &self.maps else { return false };
        let mut query = abi::AreaQuery {
            size: abi::word(size_of::<abi::AreaQuery>()),
            flags: abi::COVERING_OR_NEXT,
            address: abi::word(self.page.address_of(within.start())),
            ..Default::default()
        };
        // SAFETY: the structure of the call, which asks for no names.
        match unsafe { call::<{ abi::PROCMAP_QUERY }, _>(maps.as_fd(), &mut query) } {
            Ok(_) => self.page.page_of(abi::bytes(query.start)) >= within.end(),
            // No area at the address or after it.
            Err(error) => error == E::NOENT,
        }
    }

    /// Visits the areas that overlap `within`, in order.
    ///
    /// The text is made as it is read. An area that changes in between may so come in its old or its
    /// new form; areas never overlap, what was visited is cut off.
    pub(super) fn visit(
        &self,
        within: PageRange,
        visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
    ) -> Result<(), E> {
        if within.is_empty() || self.none_within(within) {
            return Ok(());
        }
        // The file of the thread, as the process's own is empty once the main thread has ended.
        let file = open(c"/proc/thread-self/smaps")?;
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

fn open(path: &CStr) -> Result<OwnedFd, E> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()))
}
