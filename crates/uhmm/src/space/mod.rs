//! The address space: what a program opens, and how its changes are followed.

mod address_space;
mod adopt;
mod changes;
mod claim;
mod errors;
mod fork;
mod from_files;
mod handlers;
mod keep;
#[cfg(not(any(shuttle, miri)))]
mod on_signal;
mod open;
mod order;

pub use address_space::{AddressSpace, PageLocation};
pub use adopt::{AdoptError, Adopted, LeftOut};
pub use errors::{CloseError, MirrorError, OpenError};
pub use from_files::MakeAnonymousError;
pub use open::Options;
