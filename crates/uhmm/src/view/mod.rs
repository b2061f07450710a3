//! What others see of the engine: memory that it writes and other processes read.
//!
//! Counters, latencies, the devices, what is adopted, and for each page of a block that ever had one
//! away who holds it and why it stayed last. All of it is in one file without a name (a sealed
//! `memfd`) that this process maps; whoever may look into the process finds it among its open files,
//! by its name, and maps it for reading ([`Observer`]). Nobody is asked, nothing waits, and no lock is
//! taken on either side: what is read is of the moment, number by number.
//!
//! # Who can see it, and what they can do
//! The descriptor is reached through `/proc/PID/fd`, which needs what a debugger that only reads
//! needs: the same user, and a process that is not protected from it; or `CAP_SYS_PTRACE`. The file
//! is readable by its owner alone. It is sealed: nobody can write to it, shrink it or map it
//! for writing but by the mapping that the engine has. So others cannot disturb it.
//!
//! It holds addresses and numbers, no content. A process that only pretends to be one of ours can
//! show any numbers; who reads takes nothing for an index or a size that was not checked, and maps a
//! file only that cannot shrink. It has no names or texts.
//!
//! # Ends, forks, versions
//! A mapping outlives the process: who reads has to ask whether it lives. A child of a fork inherits
//! the descriptor, not the mapping; the number of the process in the file tells it from its parent.
//! The layout has a fingerprint, and who was built with another one says so.
//!
//! # Where it is not shown
//! Address spaces on other memory managements than this process's, and those for which the system
//! gives no such file, have their counters in engine memory.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
#[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "nobody looks there"))]
mod layout;
#[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "nobody looks there"))]
mod map;
#[cfg(not(any(shuttle, miri)))]
mod memfd;
#[cfg(not(any(shuttle, miri)))]
mod observer;
#[cfg_attr(any(shuttle, miri), expect(dead_code, reason = "nobody looks there"))]
mod own;

pub(crate) use map::Held;
#[cfg(not(any(shuttle, miri)))]
pub use observer::{ObserveError, ObservedDevice, ObservedPage, ObservedPlace, Observer};
pub(crate) use own::{Part, View};
