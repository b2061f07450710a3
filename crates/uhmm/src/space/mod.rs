//! The address space: what a program opens, and the engine under it.

mod adopt;
mod changes;
mod discarding;
mod doubts;
mod engine;
mod fork;
mod from_files;
mod gate;
mod handlers;
mod inside;
mod keep;
mod looks;
#[cfg(not(any(shuttle, miri)))]
mod on_signal;
mod open;
mod protection;
mod trap;
mod undisturbed;
mod views;
mod watch;

pub use adopt::{AdoptError, Adopted, LeftOut};
pub(crate) use engine::{Engine, Locked, Visit};
pub use from_files::MakeAnonymousError;
pub(crate) use gate::{Areas, Section};
use handlers::HANDLERS;
pub(crate) use open::SpaceRef;
pub use open::{AddressSpace, CloseError, MirrorError, OpenError, Options, PageLocation};
pub(crate) use protection::Permitted;

pub(crate) use trap::Eligibility;
pub(crate) use watch::Mappable;
