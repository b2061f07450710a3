//! What was recorded of a run, and what is made of it: a report to look at, a trace to explore.
//!
//! [`Recorder`] gathers events while a program runs, [`Recorded`] is what there is of them. Neither is on a
//! fault's path: the engine pushes events into a queue of its own memory, from which they are taken here.
//!
//! | module | what it is |
//! | --- | --- |
//! | `bars` | how much happened when |
//! | `holdings` | who held which pages, followed through time |
//! | `lanes` | where each event stands in a trace |
//! | [`latencies`] | latencies as people read them |
//! | `picture` | who held which addresses when, as cells |
//! | `recorded`, `recorder` | what was recorded, and how it is gathered |
//! | `report` | the HTML report |
//! | `stats` | the counters of a process, as a file |
//! | `trace` | the trace, as Perfetto reads it |

mod bars;
mod holdings;
mod lanes;
pub mod latencies;
mod picture;
mod recorded;
mod recorder;
mod report;
mod stats;
mod trace;

pub use recorded::Recorded;
pub use recorder::Recorder;
pub use report::Facts;
pub use stats::{Stage, Stats};
pub use trace::EMPTY as EMPTY_TRACE;

#[cfg(test)]
mod tests;
