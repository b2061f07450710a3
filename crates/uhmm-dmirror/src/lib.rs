//! `dmirror`: a device that speaks the interface of `hmm_dmirror`, the kernel's test device for HMM.
//!
//! A program drives it by calls of `ioctl` on a node, each of which takes a [`Command`]. The device
//! mirrors the program's memory in a page table of its own, has memory of its own, and does nothing but
//! what it is told: it reads, writes, migrates, takes exclusively, and says what it sees.
//!
//! What is here knows of no files. A [`Node`] is a device of one address space, and
//! [`Node::run`] is a call. The preloaded library puts nodes behind paths and descriptors.
//!
//! Source: `lib/test_hmm.c` and `lib/test_hmm_uapi.h` of Linux 6.12, for what the calls do and answer.
//! Errors are those of `errno`, as that interface has no others.

mod command;
mod error;
mod large;
mod node;
mod pages;
mod program;
mod table;

pub use command::{Command, Function, seen};
pub use error::Error;
pub use node::{Node, NodeError};
pub use pages::get_pages;
