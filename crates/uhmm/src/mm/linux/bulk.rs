//! The bulk calls: fill holes by moving, copying, zeros or marks, and say what was done.
//!
//! Where all goes well a bulk call is one call of the kernel. Where not, the kernel's reply is
//! looked into, for these are known to be other than they seem:
//!
//! - A short count is where a batch stopped, not why: the next call, whose first page is the one
//!   that stopped it, says why.
//! - A move can say that a page is there already, or gone at its source, or stop short, for pages
//!   that it did move; and then it woke nobody. A page that is a hole at its source and is there at
//!   its destination did move, since source and destination are the caller's alone.
//! - `EAGAIN` with nothing done is an unread change where one is pending, else it passes.
//! - `EEXIST` for a hole that is to be filled with zeros is shared memory whose file has the page: it is
//!   mapped then. So it is where the file system is full, which the kernel looks at first: `ENOMEM`.
//! - `EINVAL` (moves) and `ENOENT` (the others) for several pages can mean that they lie in more
//!   than one area, each of which is fine: fewer are tried.

use rustix::io::Errno as E;

use super::{Linux, descriptor::Reply};
use crate::{
    mm::{Done, Look, Stop},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

/// How often a reply that should pass is answered by trying again before the page counts as busy.
const PATIENCE: u32 = 32;

/// Pages compared at once after a move's reply that may be false.
const COMPARED: usize = 64;

/// What is done to a row of holes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// They get the pages at `from`.
    Move {
        /// The first page of the source.
        from: PageNumber,
        /// The first hole.
        to: PageNumber,
    },
    /// They get copies of the pages at `from`, which are there.
    Copy {
        /// The first page of the source.
        from: PageNumber,
        /// The first hole.
        to: PageNumber,
    },
    /// They get the shared page of zeros.
    Zero {
        /// The first hole.
        to: PageNumber,
    },
    /// They get pages of zeros of their own.
    Own {
        /// The first hole.
        to: PageNumber,
    },
    /// They get marks.
    Poison {
        /// The first hole.
        to: PageNumber,
    },
}

impl Work {
    /// The same work, `pages` pages further on.
    const fn after(self, pages: usize) -> Self {
        match self {
            Self::Move { from, to } => Self::Move { from: from.plus(pages), to: to.plus(pages) },
            Self::Copy { from, to } => Self::Copy { from: from.plus(pages), to: to.plus(pages) },
            Self::Zero { to } => Self::Zero { to: to.plus(pages) },
            Self::Own { to } => Self::Own { to: to.plus(pages) },
            Self::Poison { to } => Self::Poison { to: to.plus(pages) },
        }
    }

    /// The first hole.
    const fn to(self) -> PageNumber {
        match self {
            Self::Move { to, .. }
            | Self::Copy { to, .. }
            | Self::Zero { to }
            | Self::Own { to }
            | Self::Poison { to } => to,
        }
    }
}

/// What to do after a call that did nothing.
enum Verdict {
    /// So many pages are done all the same.
    Did(usize),
    /// Try fewer pages: the first ones may work.
    Fewer,
    /// Try again: the reply was false, or passes.
    Again,
    /// The first page is the end of it.
    Stop(Stop),
}

impl Linux {
    /// Does `work` on `pages` pages.
    pub(super) fn bulk(&self, work: Work, pages: usize) -> Done {
        if pages == 0 {
            return Done { pages: 0, stop: None };
        }
        let reply = self.once(work, pages);
        if reply.error.is_none() {
            return Done { pages, stop: None };
        }
        self.rest(work, pages, reply)
    }

    /// Gives the holes at `to` pages of zeros of their own.
    pub(super) fn own_zeros(&self, to: PageNumber, pages: usize) -> Done {
        let mut done = 0;
        while done < pages {
            let part = self.bulk(Work::Own { to: to.plus(done) }, BLOCK_PAGES.min(pages - done));
            done += part.pages;
            if part.stop.is_some() {
                return Done { pages: done, stop: part.stop };
            }
        }
        Done { pages: done, stop: None }
    }

    /// One call of the kernel.
    #[unsafe(link_section = ".text.hot.moving")]
    fn once(&self, work: Work, pages: usize) -> Reply {
        let len = self.page.bytes_in(pages);
        let to = self.page.address_of(work.to());
        match work {
            Work::Move { from, .. } => {
                self.descriptor.move_pages(to, self.page.address_of(from), len)
            }
            Work::Copy { from, .. } => self.descriptor.copy(to, self.page.address_of(from), len),
            Work::Zero { .. } => self.descriptor.zeropage(to, len),
            // As many as there are zeros, at most.
            Work::Own { .. } => {
                let zeros = self.page.address_of(self.zeros.start());
                self.descriptor.copy(to, zeros, len)
            }
            Work::Poison { .. } => self.descriptor.poison(to, len),
        }
    }

    /// Goes on after a first `reply` that was not plain success.
    #[cold]
    fn rest(&self, work: Work, pages: usize, first: Reply) -> Done {
        let mut done = 0;
        let mut asked = pages;
        let mut reply = first;
        let mut patience = PATIENCE;
        loop {
            let did = match reply.error {
                None => asked,
                Some(_) => self.page.page_of(reply.bytes).0.min(asked),
            };
            if did > 0 {
                done += did;
                asked = pages - done;
                patience = PATIENCE;
            } else {
                let error = reply.error.unwrap_or(E::IO);
                match self.judge(work.after(done), asked, pages - done, error) {
                    Verdict::Did(more) => {
                        done += more;
                        asked = pages - done;
                        patience = PATIENCE;
                    }
                    Verdict::Fewer => asked /= 2,
                    Verdict::Again if patience > 0 => {
                        patience -= 1;
                        core::hint::spin_loop();
                    }
                    Verdict::Again => return Done { pages: done, stop: Some(Stop::Busy) },
                    Verdict::Stop(stop) => return Done { pages: done, stop: Some(stop) },
                }
            }
            if done == pages {
                return Done { pages, stop: None };
            }
            reply = self.once(work.after(done), asked);
        }
    }

    /// What `error` means for `work`, of whose `left` pages the kernel was asked for `asked` and
    /// says that it did none.
    fn judge(&self, work: Work, asked: usize, left: usize, error: E) -> Verdict {
        match error {
            E::AGAIN if self.descriptor.changing() => Verdict::Stop(Stop::Changing),
            E::AGAIN => Verdict::Again,
            E::EXIST => match work {
                Work::Move { from, to } => self.compare(from, to, left, error),
                Work::Zero { to } | Work::Own { to } => self.existing(to, asked, error),
                Work::Copy { .. } | Work::Poison { .. } => self.present(work.to()),
            },
            E::NOENT => match work {
                Work::Move { from, to } => self.compare(from, to, left, error),
                _ if asked > 1 => Verdict::Fewer,
                _ => self.no_area(work.to()),
            },
            E::INVAL if self.is_part_of_pool_page(work, asked) => {
                let whole = match work {
                    Work::Poison { .. } => Work::Poison { to: work.to().block().first_page() },
                    _ => Work::Own { to: work.to().block().first_page() },
                };
                match self.bulk(whole, BLOCK_PAGES).stop {
                    None => Verdict::Did(left.min(BLOCK_PAGES - work.to().in_block())),
                    Some(stop) => Verdict::Stop(stop),
                }
            }
            E::INVAL | E::FAULT | E::PERM if asked > 1 => Verdict::Fewer,
            E::INVAL | E::PERM => match self.is_registered(work.to()) {
                Ok(true) => Verdict::Stop(Stop::Refused),
                Ok(false) => Verdict::Stop(Stop::NoArea),
                Err(verdict) => verdict,
            },
            // A mark can be at the source of a move, and does not move.
            E::FAULT if matches!(work, Work::Move { .. }) => Verdict::Stop(Stop::Refused),
            E::BUSY => Verdict::Stop(Stop::Busy),
            E::SRCH => Verdict::Stop(Stop::NoArea),
            E::NOMEM | E::NOSPC => match work {
                Work::Zero { to } | Work::Own { to } => self.existing(to, asked, error),
                _ => Verdict::Stop(Stop::NoMemory),
            },
            error => Verdict::Stop(Stop::Other(error.into())),
        }
    }

    /// Whether what is to be filled with zeros, or marked, is of a pool and not one of its pages. (Of zeros
    /// there is no shared page there.)
    fn is_part_of_pool_page(&self, work: Work, asked: usize) -> bool {
        let whole = work.to().in_block() == 0 && asked == BLOCK_PAGES;
        let fills = match work {
            Work::Zero { .. } => true,
            Work::Own { .. } | Work::Poison { .. } => !whole,
            Work::Move { .. } | Work::Copy { .. } => false,
        };
        fills && self.is_of_pool(work.to())
    }

    /// Compares source and destination of a move that was refused because a page is there, or is
    /// not there.
    fn compare(&self, from: PageNumber, to: PageNumber, left: usize, error: E) -> Verdict {
        let mut source = [Look::Hole; COMPARED];
        let mut destination = [Look::Hole; COMPARED];
        let count = left.min(COMPARED);
        let looked = self
            .pagemap
            .look(from, &mut source[..count])
            .and_then(|()| self.pagemap.look(to, &mut destination[..count]));
        if let Err(error) = looked {
            return Verdict::Stop(Stop::Other(error.into()));
        }
        let moved = source[..count]
            .iter()
            .zip(&destination)
            .take_while(|&(&source, &destination)| {
                // A mark does not move, so it was there before.
                source == Look::Hole && !matches!(destination, Look::Hole | Look::Poisoned)
            })
            .count();
        if moved > 0 {
            let (start, len) = self.bytes(PageRange::of(to, moved));
            self.descriptor.wake(start, len);
            return Verdict::Did(moved);
        }
        match (source[0], destination[0]) {
            (_, Look::Hole) if !self.is_mapped(PageRange::of(to, 1)) => Verdict::Stop(Stop::NoArea),
            (Look::Hole, _) if !self.is_mapped(PageRange::of(from, 1)) => {
                Verdict::Stop(Stop::NoArea)
            }
            (Look::Hole, _) if error == E::NOENT => Verdict::Stop(Stop::Hole),
            (_, destination) if destination != Look::Hole => self.present(to),
            _ => Verdict::Again,
        }
    }

    /// What to do where the kernel says by `error` that a page to be filled with zeros is there, or that
    /// there is no memory for it: of shared memory it can be in the file alone, and then it is mapped, and
    /// those after it.
    fn existing(&self, to: PageNumber, asked: usize, error: E) -> Verdict {
        let (start, len) = self.bytes(PageRange::of(to, asked));
        let reply = self.descriptor.map_existing(start, len);
        match (self.page.page_of(reply.bytes).0, reply.error) {
            (_, None) => Verdict::Did(asked),
            (pages @ 1.., _) => Verdict::Did(pages.min(asked)),
            // They lie in more than one area.
            (0, Some(E::NOENT)) if asked > 1 => Verdict::Fewer,
            (0, Some(E::AGAIN)) if self.descriptor.changing() => Verdict::Stop(Stop::Changing),
            (0, Some(E::AGAIN)) => Verdict::Again,
            (0, Some(E::NOMEM)) => Verdict::Stop(Stop::NoMemory),
            (0, Some(E::EXIST)) => self.present(to),
            // The file does not have the page, or the memory is private.
            (0, Some(_)) if error != E::EXIST => Verdict::Stop(Stop::NoMemory),
            // The file had the page a moment ago.
            (0, Some(E::FAULT)) => Verdict::Again,
            // It is mapped, or the memory is private.
            (0, Some(_)) => self.present(to),
        }
    }

    /// What to do where the kernel says that the page of the destination is there.
    fn present(&self, to: PageNumber) -> Verdict {
        let mut there = [Look::Hole];
        match self.pagemap.look(to, &mut there) {
            Ok(()) if there[0] == Look::Hole => Verdict::Again,
            // Who waits for the page was woken by who put it there, or not at all.
            _ => {
                let (start, len) = self.bytes(PageRange::of(to, 1));
                self.descriptor.wake(start, len);
                Verdict::Stop(Stop::Present)
            }
        }
    }

    /// What to do where the kernel says that there is no registered area for the page.
    fn no_area(&self, to: PageNumber) -> Verdict {
        match self.is_registered(to) {
            Ok(true) => Verdict::Again,
            Ok(false) => Verdict::Stop(Stop::NoArea),
            Err(verdict) => verdict,
        }
    }

    /// Whether `page` is in a registered area, found by a copy from where nothing can be read: the
    /// kernel looks for the area first, then at the source, then at the hole.
    fn is_registered(&self, page: PageNumber) -> Result<bool, Verdict> {
        let from = self.page.address_of(self.zeros.unreadable());
        let to = self.page.address_of(page);
        match self.descriptor.copy(to, from, self.page.bytes()).error {
            Some(E::AGAIN) if self.descriptor.changing() => Err(Verdict::Stop(Stop::Changing)),
            Some(E::AGAIN) => Err(Verdict::Again),
            Some(E::NOENT | E::SRCH) => Ok(false),
            _ => Ok(true),
        }
    }
}
