//! uhmm for C: `include/uhmm.h`, which is made of this crate, and the library behind it.
//!
//! The header is the documentation: each function says there what it does, what it is given and what it
//! refuses. This side keeps what C cannot: a handle is looked up before it is followed, so that one that
//! was ended, is of another kind or of a parent process is an error and no more; numbers are looked at before
//! they become enumerations; and no panic crosses.
//!
//! | module | what it is |
//! | --- | --- |
//! | `status` | what a function answers |
//! | `answer` | how it comes to that: callbacks and panics are kept out, and the message of a failure is noted |
//! | `failure` | all that can go wrong, with its status and its message |
//! | `handles` | handles, and what is behind them |
//! | `space` | opening and closing, adopting, advice, counters, engine memory |
//! | `range` | requests, pages and reports, as C has them |
//! | `calls` | a device's functions in C, as the page table that the core calls |
//! | `mirror` | mirrors |
//! | `device` | devices with memory of their own |
//! | `accessor` | a thread's access to memory in place |
//!
//! What a callback can reach must not be away, so what is behind handles is in engine memory, and the table
//! of handles is data of this library, which never migrates. The message of the last failure is a thread-local,
//! which libc may find through its heap: it is touched outside of callbacks only.

#![expect(clippy::doc_markdown, reason = "the header has these comments as they are, for C")]

pub mod accessor;
pub mod calls;
pub mod device;
mod failure;
mod handles;
pub mod mirror;
pub mod range;
pub mod space;
pub mod status;

// Last, so that the header ends with the message.
pub mod answer;
