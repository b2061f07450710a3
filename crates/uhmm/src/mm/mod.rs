//! What the operating system does for us: the one seam below the core.
//!
//! [`Mm`] stands for the system's memory management as the core needs it: areas looked up, holes
//! trapped, pages taken from the CPU and given back, messages about faults and changes. `linux` is
//! the real one, on userfaultfd; `model` is small, deterministic and in plain memory, for tests, in
//! which calls of either are made to fail by `injected`.
//!
//! Every call reports what it *did*, page by page from the first on, and why it stopped. An
//! implementation absorbs the false replies of its system (a page reported as refused that did
//! move, a short count for work that was done), so that a [`Done`] is always the truth.

mod accessor;
mod area;
mod child;
mod errno;
pub mod injected;
pub mod linux;
mod message;
pub mod model;
mod outcome;
mod presence;
mod seam;

pub use accessor::{Accessor, AccessorNumber, Refused, Width};
pub use area::{Area, Backing, Exclusion, Mapping, Protection};
pub use child::Child;
pub use errno::Errno;
pub use message::{Access, Message};
pub use outcome::{Done, PopulateFailure, Populated, Stop, TrapError};
pub use presence::{Look, Presence};
pub use seam::{MOST_ALIASES, Mm};
