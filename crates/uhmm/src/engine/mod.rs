//! The engine: all that works under an address space, in engine memory.
//!
//! Whoever works in it makes a [`Visit`], whose signals are blocked and which has a turn for the lock of
//! a block; a block's lock that is held is [`Locked`]. Who moves or maps pages is in a [`Section`] of the
//! gate meanwhile. The gate has what is known of [`Areas`]: which may go, which a device may map, which
//! are changing. An area is looked at, and trapped or watched, when a device first wants a page of it.
//!
//! How pages move and are mapped is said above, in `migrate` and `range`, and how changes are read and
//! applied, in `space`: there the engine and the lock get more methods. What is called from here is a
//! trait, [`ServeFaults`]: a lock that is let go serves the faults that came meanwhile.

mod arrivals;
mod change;
mod discarding;
mod doubts;
mod gate;
mod inside;
mod lead;
mod locked;
mod looks;
mod protection;
mod state;
mod trap;
mod undisturbed;
mod views;
mod watch;
mod withheld;

pub(crate) use arrivals::Found;
pub(crate) use change::{Change, Occupant};
use gate::Gate;
pub(crate) use gate::{Areas, Section};
use inside::Inside;
pub(crate) use lead::{HANDLERS, Lead};
pub(crate) use locked::{Locked, ServeFaults, Visit};
pub(crate) use protection::Permitted;
pub(crate) use state::{Engine, SpaceRef, exhausted};
pub(crate) use trap::{Eligibility, refusal};
use views::Aliases;
pub(crate) use watch::Mappable;
