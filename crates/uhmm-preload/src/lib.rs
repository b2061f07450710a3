//! What `uhmm run` loads into a program: device nodes that only this library knows.
//!
//! A few of libc's functions are defined here again, so that the program's calls come here first. Those
//! that name a node are served; all others go on to whoever defines the function next, another preloaded
//! library or libc, after a comparison or two. On that way nothing is allocated, no lock is taken and
//! nothing is printed: such calls come from within allocators and from signal handlers.
//!
//! All else that the program does to its memory, the kernel tells the engine of by itself.
//!
//! | module | what it is |
//! | --- | --- |
//! | `calls` | the functions that are defined again |
//! | `chaos` | random pages go to a device and back all the time, if asked for |
//! | `copies` | those that give a descriptor another number, or close many |
//! | `descriptors` | which of the process's descriptors are of nodes |
//! | `ends` | those by which a process ends or becomes another program |
//! | `memory` | the allocator of this library |
//! | `next` | the functions behind ours |
//! | `nodes` | paths and devices, of this process |
//! | `observe` | counters and a trace are written, if asked for |
//! | `system_calls` | calls of the system by their numbers |

mod calls;
mod chaos;
mod copies;
mod descriptors;
mod ends;
mod memory;
mod next;
mod nodes;
mod observe;
mod system_calls;
