//! A fork sees its moment: a child has what was there, and never reads zeros instead.
//!
//! The kernel copies page tables, and a page that is away is a hole in them. Engine memory and
//! staging are not inherited, so a child has no engine to ask. There are two ways to fork:
//!
//! - **libc's.** It runs our [hooks]: what is away comes back first, and nothing leaves until libc has
//!   forked. That moves pages, which costs a fraction of copying them to the child, needs no memory,
//!   and leaves nothing to be done while the child runs.
//! - **The bare system call** runs no code of ours. Where the kernel tells of forks the child is
//!   [filled](filling) before it runs, and the fork waits. Where the kernel does not, trapped areas are
//!   [kept](crate::engine) from children, but while libc forks.
//!
//! `vfork`, `posix_spawn` and threads share the memory and need nothing.

mod filling;
mod forking;
#[cfg(not(any(shuttle, miri)))]
mod hooks;

#[cfg(not(any(shuttle, miri)))]
pub(super) use hooks::{unwatch, watch};
