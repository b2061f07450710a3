//! The address space: what a program opens, and how its changes are followed.

mod adopt;
mod changes;
mod fork;
mod from_files;
mod handlers;
mod keep;
#[cfg(not(any(shuttle, miri)))]
mod on_signal;
mod open;

pub use adopt::{AdoptError, Adopted, LeftOut};
pub use from_files::MakeAnonymousError;
pub use open::{AddressSpace, CloseError, MirrorError, OpenError, Options, PageLocation};
