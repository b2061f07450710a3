//! The areas of this process, as `/proc/self/smaps` tells them now.
//!
//! Of all that the kernel tells, only this file has the flags of an area. It costs a walk over the
//! page tables of every area from the first on, as the file has no way to start further on.

use core::ops::ControlFlow;

use rustix::{
    fs::{Mode, OFlags},
    io::Errno as E,
};

use super::smaps::Parser;
use crate::{
    mm::Area,
    units::{PageNumber, PageRange, PageSize},
};

/// Text read at once: on the stack, as nothing here may use the heap, and small enough for the
/// stack of an engine's thread.
const TEXT: usize = 4096;

/// Visits the areas that overlap `within`, in order.
///
/// The text is made as it is read. An area that changes in between may so come in its old or its
/// new form; areas never overlap, what was visited is cut off.
pub(super) fn visit(
    page: PageSize,
    within: PageRange,
    visit: &mut dyn FnMut(&Area) -> ControlFlow<()>,
) -> Result<(), E> {
    if within.is_empty() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // The file of the thread, as the process's own is empty once the main thread has ended.
    let file = rustix::io::retry_on_intr(|| {
        rustix::fs::open(c"/proc/thread-self/smaps", flags, Mode::empty())
    })?;
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
    let mut parser = Parser::new(page);
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
