//! Range faults: a range is made readable or writable for a device, and every page is reported.
//!
//! What a caller asks is a [`Request`], and is never changed; what came of it is a [`RangeReport`],
//! and, where wanted, a [`PageEntry`] a page. Each block goes through the three steps of a commit: a
//! look and what is missing made present, with no lock; the device made ready, with no lock; then,
//! under the block's lock, the translations entered. Nothing is tried again because time has passed
//! or another was faster: only a change of the address space that is being applied has it look anew.

mod answer;
mod attempt;
mod commit;
mod fault;
mod peer;
mod report;
mod request;
mod reserved;
mod snapshot;

pub use report::{PageEntry, PageFailure, PageState, RangeFaultError, RangeReport};
pub use request::{Override, Request, Want};
