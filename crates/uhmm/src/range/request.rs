//! What a device asks of a range.

use crate::units::{AddressRange, PageRange};

/// What a device wants of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// A translation for reading if the page is there; nothing is made present.
    Present,
    /// A translation for reading. The page is made present as a load would.
    Read,
    /// A translation for writing. The page is made present, and the process's own, as a store would.
    Write,
}

/// Another wish for some pages of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The pages; what of them lies outside the request does not matter.
    pub pages: PageRange,
    /// What is wanted of them.
    pub want: Want,
}

/// A range, what is wanted of its pages, and of some of them something else.
///
/// It is never changed by asking, so asking again asks the same.
///
/// ```
/// use uhmm::{Override, Request, Want, units::{AddressRange, PageNumber, PageRange}};
///
/// let range = AddressRange::new(0x7000_0000, 0x10000)?;
/// let hot = [Override { pages: PageRange::of(PageNumber(0x70002), 2), want: Want::Write }];
/// let request = Request::read(range).overriding(&hot);
/// # Ok::<_, uhmm::units::RangeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    range: AddressRange,
    want: Want,
    overrides: &'a [Override],
    anew: bool,
}

impl<'a> Request<'a> {
    /// Asks for `want` of every page of `range`, whole pages.
    pub const fn new(range: AddressRange, want: Want) -> Self {
        Self { range, want, overrides: &[], anew: false }
    }

    /// Asks to map what of `range` is there, for reading, and faults nothing.
    pub const fn present(range: AddressRange) -> Self {
        Self::new(range, Want::Present)
    }

    /// Asks to read `range`.
    pub const fn read(range: AddressRange) -> Self {
        Self::new(range, Want::Read)
    }

    /// Asks to read and write `range`.
    pub const fn write(range: AddressRange) -> Self {
        Self::new(range, Want::Write)
    }

    /// Asks for something else of some pages; of two that name the same page the later counts. Each
    /// is looked at for each run of pages, so a few are meant, not thousands.
    #[must_use]
    pub const fn overriding(self, overrides: &'a [Override]) -> Self {
        Self { overrides, ..self }
    }

    /// Asks also for what the device was given and has had no invalidation of: for a device whose
    /// access through its translation was refused, because the processor knows of a change that the
    /// system does not tell.
    #[must_use]
    pub const fn anew(self) -> Self {
        Self { anew: true, ..self }
    }

    /// Whether what the device has is looked at anew.
    pub(crate) const fn is_anew(&self) -> bool {
        self.anew
    }

    /// The range.
    pub const fn range(&self) -> AddressRange {
        self.range
    }

    /// What is wanted of the first of `pages`, and the pages from it on of which the same is.
    pub(crate) fn leading(&self, pages: PageRange) -> (PageRange, Want) {
        let mut end = pages.end();
        let mut want = self.want;
        for other in self.overrides {
            if other.pages.contains(pages.start()) {
                // It counts more than all before it, as far as it reaches.
                want = other.want;
                end = other.pages.end().min(pages.end());
            } else if other.pages.overlaps(pages) {
                end = end.min(other.pages.start());
            }
        }
        (PageRange::new(pages.start(), end), want)
    }

    /// The most that is wanted of any of `pages`.
    pub(crate) fn most(&self, pages: PageRange) -> Want {
        if self.overrides.is_empty() {
            return self.want;
        }
        let mut most = Want::Present;
        let mut rest = pages;
        while !rest.is_empty() {
            let (leading, want) = self.leading(rest);
            most = most.max(want);
            rest = PageRange::new(leading.end(), rest.end());
        }
        most
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::units::PageNumber;

    fn pages(start: usize, end: usize) -> PageRange {
        PageRange::new(PageNumber(start), PageNumber(end))
    }

    #[test]
    fn the_later_override_counts() {
        let overrides = [
            Override { pages: pages(2, 6), want: Want::Write },
            Override { pages: pages(4, 8), want: Want::Present },
        ];
        let request = Request::read(AddressRange::new(1, 1).unwrap()).overriding(&overrides);
        let mut rest = pages(0, 10);
        let mut seen = [None; 4];
        for place in &mut seen {
            let (leading, want) = request.leading(rest);
            *place = Some((leading.start().0, leading.end().0, want));
            rest = PageRange::new(leading.end(), rest.end());
        }
        assert!(rest.is_empty());
        let expected =
            [(0, 2, Want::Read), (2, 4, Want::Write), (4, 8, Want::Present), (8, 10, Want::Read)];
        assert_eq!(seen, expected.map(Some));
        assert_eq!(request.most(pages(0, 2)), Want::Read);
        assert_eq!(request.most(pages(3, 10)), Want::Write);
        assert_eq!(request.most(pages(5, 7)), Want::Present);
    }
}
