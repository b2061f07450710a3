//! What is at a page.

/// What is at a page now. Looking changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// Nothing: a hole.
    #[default]
    Hole,
    /// The page, of its own.
    Present,
    /// The page, as a part of a huge page.
    PresentHuge,
    /// The shared page of zeros.
    Zero,
    /// The page, written out to swap.
    Swapped,
    /// A mark that ends accesses with an error.
    Poisoned,
}

/// What is at the pages of a run; looking changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// What is at each of them.
    pub look: Look,
    /// The pages belong to a file or to shared memory (the page cache), not to this process alone.
    /// In a private mapping of a file they are those that were read and not written yet. False
    /// where nothing is present.
    pub file: bool,
}
