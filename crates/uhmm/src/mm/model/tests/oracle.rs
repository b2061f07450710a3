//! Random programs, with no engine, against an oracle that knows no areas: a byte for each page
//! that is mapped.

use proptest::{collection::vec, prelude::*};

use super::{super::*, *};
use crate::mm::{Access, Mm as _, PopulateFailure};

const PAGES: usize = 24;

#[derive(Clone, Debug)]
enum Step {
    Load(usize),
    Store(usize, u8),
    Map(usize, usize),
    Unmap(usize, usize),
    Remap { from: usize, len: usize, to: usize, keep: bool },
    Grow(usize, usize),
    Discard(usize, usize),
    Protect(usize, usize, bool),
    Swap(usize),
    Fork(usize, usize),
    Populate(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let page = || 0..PAGES;
    let len = || 1..6_usize;
    prop_oneof![
        3 => page().prop_map(Step::Load),
        4 => (page(), 1..=255_u8).prop_map(|(page, byte)| Step::Store(page, byte)),
        2 => (page(), len()).prop_map(|(page, len)| Step::Map(page, len)),
        1 => (page(), len()).prop_map(|(page, len)| Step::Unmap(page, len)),
        2 => (page(), len(), page(), any::<bool>())
            .prop_map(|(from, len, to, keep)| Step::Remap { from, len, to, keep }),
        1 => (page(), len()).prop_map(|(page, len)| Step::Grow(page, len)),
        1 => (page(), len()).prop_map(|(page, len)| Step::Discard(page, len)),
        1 => (page(), len(), any::<bool>())
            .prop_map(|(page, len, write)| Step::Protect(page, len, write)),
        1 => page().prop_map(Step::Swap),
        1 => (page(), len()).prop_map(|(page, len)| Step::Fork(page, len)),
        1 => page().prop_map(Step::Populate),
    ]
}

/// What a mapped page is: its byte, and whether it can be written.
type Page = Option<(u8, bool)>;

struct Oracle([Page; PAGES + 8]);

impl Oracle {
    fn part(&mut self, start: usize, len: usize) -> &mut [Page] {
        &mut self.0[start..start + len]
    }

    /// Whether the range lies within one area: all is mapped, with one protection.
    fn one_area(&mut self, start: usize, len: usize) -> bool {
        let part = self.part(start, len);
        part[0].is_some_and(|(_, write)| {
            part.iter().all(|page| page.is_some_and(|(_, other)| other == write))
        })
    }

    fn apply(&mut self, model: &Model, step: &Step) {
        match *step {
            Step::Load(page) => {
                let mut byte = [0];
                let at = address(model, PageNumber(page));
                let expected = self.0[page].ok_or(Signal::Segv(at)).map(|(byte, _)| byte);
                assert_eq!(model.load(at, &mut byte).map(|()| byte[0]), expected);
            }
            Step::Store(page, byte) => {
                let at = address(model, PageNumber(page));
                let writable = self.0[page].is_some_and(|(_, write)| write);
                let expected = if writable { Ok(()) } else { Err(Signal::Segv(at)) };
                assert_eq!(model.store(at, &[byte]), expected);
                if writable {
                    self.0[page] = Some((byte, true));
                }
            }
            Step::Map(start, len) => {
                map(model, range(start, start + len));
                self.part(start, len).fill(Some((0, true)));
            }
            Step::Unmap(start, len) => {
                assert_eq!(model.unmap(range(start, start + len)), Ok(()));
                self.part(start, len).fill(None);
            }
            Step::Remap { from, len, to, keep } => {
                let result = model.remap(range(from, from + len), Some(PageNumber(to)), keep);
                if !self.one_area(from, len) {
                    assert_eq!(result, Err(BAD_ADDRESS));
                } else if from < to + len && to < from + len {
                    assert_eq!(result, Err(INVALID));
                } else {
                    assert_eq!(result, Ok(range(to, to + len)));
                    let pages = self.part(from, len).to_vec();
                    for old in self.part(from, len) {
                        *old = old.filter(|_| keep).map(|(_, write)| (0, write));
                    }
                    self.part(to, len).copy_from_slice(&pages);
                }
            }
            Step::Grow(start, len) => {
                let result = model.grow(range(start, start + 1), len);
                let more = self.0[start + 1..start + len].iter().all(Option::is_none);
                let ends = self.0[start].is_some()
                    && (self.0[start + 1].map(|page| page.1) != self.0[start].map(|page| page.1));
                if !ends {
                    assert_eq!(result, Err(BAD_ADDRESS));
                } else if !more {
                    assert_eq!(result, Err(NO_MEMORY));
                } else {
                    assert_eq!(result, Ok(range(start, start + len)));
                    let write = self.0[start].is_some_and(|(_, write)| write);
                    self.part(start + 1, len - 1).fill(Some((0, write)));
                }
            }
            Step::Discard(start, len) => {
                let whole = self.part(start, len).iter().all(Option::is_some);
                let result = model.discard(range(start, start + len));
                assert_eq!(result, if whole { Ok(()) } else { Err(NO_MEMORY) });
                for page in self.part(start, len).iter_mut().flatten() {
                    page.0 = 0;
                }
            }
            Step::Protect(start, len, write) => {
                let protection = if write { READ_WRITE } else { READ_ONLY };
                let part = self.part(start, len);
                let until = part.iter().position(Option::is_none);
                for page in part[..until.unwrap_or(len)].iter_mut().flatten() {
                    page.1 = write;
                }
                let expected = if until.is_none() { Ok(()) } else { Err(NO_MEMORY) };
                assert_eq!(model.protect(range(start, start + len), protection), expected);
            }
            Step::Swap(page) => {
                model.swap_out(PageNumber(page));
            }
            Step::Fork(start, len) => model.share_by_fork(range(start, start + len)),
            Step::Populate(page) => {
                let populated = model.populate(range(page, page + 1), Access::Write);
                let failure = match self.0[page] {
                    None => Some(PopulateFailure::NoArea),
                    Some((_, false)) => Some(PopulateFailure::Protection),
                    Some((_, true)) => None,
                };
                assert_eq!(populated.failure, failure);
            }
        }
    }
}

proptest! {
    #[test]
    fn programs_read_what_they_wrote(steps in vec(step(), 1..120)) {
        let model = model();
        let mut oracle = Oracle([None; PAGES + 8]);
        for step in &steps {
            oracle.apply(&model, step);
        }
        for page in 0..PAGES {
            oracle.apply(&model, &Step::Load(page));
        }
        let memory = range(0, PAGES + 8)
            .pages()
            .filter(|&page| matches!(model.held().pages.at(page), pages::PageState::Own { .. }))
            .count();
        prop_assert_eq!(model.memory_used(), memory);
        prop_assert_eq!(model.violations(), []);
    }
}
