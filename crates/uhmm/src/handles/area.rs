//! Areas that only a device backs: addresses without access for the CPU, each page in a frame of the
//! device from the beginning to the end. The device and, where it lets them, its peers map them.
//!
//! No record of a block knows of such pages, as they never move: they are found by their addresses.

use core::fmt;

use thiserror::Error;

use super::Attachment;
use crate::{
    device::{DeviceState, FrameRun, Place, Reservation, ReservedRun},
    driver::{Device, InvalidationKind},
    engine::Engine,
    engine_memory::{EngineMemoryError, Urgent},
    mm::{Access, Errno, Mm, Stop, linux::Linux},
    sync::{SignalsBlocked, atomic::Ordering::Relaxed},
    units::{AddressRange, PageNumber, PageRange},
};

/// Why addresses could not be reserved. Nothing is reserved then.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReserveError {
    /// a reservation of no pages
    #[error("a reservation needs at least one page")]
    Empty,
    /// the device's memory is too small, or too much of it is in use that cannot be given up
    #[error("a reservation of {pages} pages has only {frames} frames to be had: ask for less")]
    NoFrames {
        /// Pages asked for.
        pages: usize,
        /// Frames that could be had.
        frames: usize,
    },
    /// the system has no addresses for it
    #[error("addresses for {pages} pages cannot be reserved: {errno}")]
    Addresses {
        /// Pages asked for.
        pages: usize,
        /// The system's error.
        errno: Errno,
    },
    /// the system has no memory for the device's frames, or the device could not fill them with zeros
    #[error("no memory for the frames of {pages} pages, or the device cannot fill them")]
    Memory {
        /// Pages asked for.
        pages: usize,
    },
    /// No engine memory.
    #[error(transparent)]
    Engine(#[from] EngineMemoryError),
}

/// Addresses that only a device backs. The CPU has no access to them; the device has, and those of
/// its peers that it lets. Their content is zeros at first. Dropping it ends that, and frees the
/// frames.
pub struct DeviceArea<D: Device, M: Mm = Linux> {
    attachment: Attachment<D, M>,
    pages: PageRange,
}

impl<D: Device, M: Mm> DeviceArea<D, M> {
    pub(super) fn new(attachment: Attachment<D, M>, pages: usize) -> Result<Self, ReserveError> {
        if pages == 0 {
            return Err(ReserveError::Empty);
        }
        let engine = attachment.engine();
        let area = engine
            .mm
            .reserve_addresses(pages)
            .map_err(|errno| ReserveError::Addresses { pages, errno })?;
        // From here on dropping it undoes what was done so far.
        let made = Self { attachment, pages: area };
        let (engine, state) = (made.attachment.engine(), made.attachment.state());
        let mut had = 0;
        while had < pages {
            let rest = PageRange::new(area.start().plus(had), area.end());
            let run = engine.reserve_frames(state, rest.len(), had)?;
            let signals = SignalsBlocked::new();
            state.reserved_frames.fetch_add(run.frames, Relaxed);
            let there = PageRange::of(rest.start(), run.frames);
            let reserved = ReservedRun { pages: there, device: state.index, frame: run.first };
            if let Err(error) = engine.reserved.add(reserved, &signals) {
                state.reserved_frames.fetch_sub(run.frames, Relaxed);
                state.give_back(run, true, &signals);
                return Err(error.into());
            }
            had += run.frames;
        }
        let signals = SignalsBlocked::new();
        engine.gate.alone(&signals).reserved.add(area)?;
        Ok(made)
    }

    /// The addresses.
    ///
    /// # Panics
    /// Never: there is a page at least.
    pub fn range(&self) -> AddressRange {
        let size = self.attachment.page_size();
        AddressRange::of_pages(self.pages, size).expect("a reservation has pages")
    }
}

impl<D: Device, M: Mm> Drop for DeviceArea<D, M> {
    fn drop(&mut self) {
        let _urgent = Urgent::new();
        let (engine, state) = (self.attachment.engine(), self.attachment.state());
        let signals = SignalsBlocked::new();
        let Ok(mut visit) = engine.visit(&signals) else {
            crate::abort::abort(b"engine memory is exhausted and a reservation cannot be ended");
        };
        if engine.gate.alone(&signals).reserved.remove(self.pages).is_err() {
            crate::abort::abort(b"engine memory is exhausted and a reservation cannot be ended");
        }
        engine.end_in_place(self.pages, InvalidationKind::Unmap, &mut visit);
        drop(visit);
        // What a peer was granted of it ends with the area; without memory to note it less is
        // remembered than was granted, of addresses that nobody has any more.
        let _ = state.grants.end(self.pages, &signals);
        while let Some(run) = engine.reserved.take(self.pages, &signals) {
            let frames = FrameRun { first: run.frame, frames: run.pages.len() };
            // In this order: for a moment they count as in use, not as there twice.
            state.reserved_frames.fetch_sub(frames.frames, Relaxed);
            state.give_back(frames, true, &signals);
        }
        drop(signals);
        // SAFETY: the addresses came from there, and no device has a translation of them.
        unsafe { engine.mm.release_addresses(self.pages) };
    }
}

impl<D: Device, M: Mm> fmt::Debug for DeviceArea<D, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceArea").field("pages", &self.pages).finish_non_exhaustive()
    }
}

impl<M: Mm> Engine<M> {
    /// Takes up to `want` frames of a device for good, filled with zeros, of a reservation that has
    /// `had` already.
    fn reserve_frames(
        &self,
        device: &DeviceState,
        want: usize,
        had: usize,
    ) -> Result<FrameRun, ReserveError> {
        let pages = want + had;
        let nothing = PageRange::of(PageNumber(0), 0);
        let signals = SignalsBlocked::new();
        let mut visit = self.visit(&signals)?;
        let no_frames = ReserveError::NoFrames { pages, frames: had };
        let run = loop {
            if !self.have_frames(device, want, nothing, &mut visit) {
                return Err(no_frames);
            }
            let openings = self.gate.openings();
            let mut reservation = Reservation::new(device, &signals);
            reservation.fill(want, &self.mm);
            match (reservation.take(want), reservation.refused()) {
                (Some(run), _) => break run,
                // Others may have been faster; then there is nothing left to give up.
                (None, None) => return Err(no_frames),
                (None, Some(Stop::Changing)) => self.gate.wait_opened(openings),
                (None, Some(_)) => return Err(ReserveError::Memory { pages }),
            }
        };
        drop(visit);
        drop(signals);
        if !self.fill_with_zeros(device, run) {
            device.give_back(run, true, &SignalsBlocked::new());
            return Err(ReserveError::Memory { pages });
        }
        Ok(run)
    }

    /// Fills frames that are nobody's with zeros. Answers whether that was done.
    fn fill_with_zeros(&self, device: &DeviceState, run: FrameRun) -> bool {
        let page = match device.place_of(run.first) {
            Place::Staging(page) => page,
            Place::Copying(copying, _) => return copying.zero(run).is_ok(),
        };
        if let Some(coherent) = device.coherent() {
            coherent.zero(run, &self.mm);
            return true;
        }
        let mut filled = 0;
        while filled < run.frames {
            let openings = self.gate.openings();
            let done = self.mm.zero(page.plus(filled), run.frames - filled, Access::Write);
            filled += done.pages;
            match done.stop {
                None => {}
                Some(Stop::Changing) => self.gate.wait_opened(openings),
                Some(_) => return false,
            }
        }
        true
    }
}
