//! What names a child whose fork was told.

/// A process that is being forked off this one, as long as it waits for us to fill its trapped holes:
/// from the [message](super::Message::Forked) about it until
/// [`Mm::end_child`](super::Mm::end_child).
///
/// A number, and no more: who read the message sees to it that it is ended once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child(u32);

impl Child {
    pub(crate) const fn new(number: u32) -> Self {
        Self(number)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}
