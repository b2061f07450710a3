//! Frames that a migration takes ahead.

use super::{DeviceState, FrameRun, bits::CHUNK};
use crate::{
    driver::FrameNumber,
    mm::{Mm, Stop},
    sync::SignalsBlocked,
};

/// Runs in one reservation. Each is a call of the system to come, so that a migration that needs
/// more may as well begin again.
const RUNS: usize = 8;

/// Frames taken ahead of a migration, before any block is locked. What is not used goes back.
pub(crate) struct Reservation<'d> {
    device: &'d DeviceState,
    signals: &'d SignalsBlocked,
    /// Those from `at` up to `end` are left.
    runs: [FrameRun; RUNS],
    at: usize,
    end: usize,
    /// How many frames are left.
    frames: usize,
    /// How many were ever in it. They count as reserved until it ends: what is taken out holds a
    /// page that an eviction can find only when its record is made.
    held: usize,
    /// What the system stopped at as more were to be made ready.
    refused: Option<Stop>,
}

impl<'d> Reservation<'d> {
    /// One without frames.
    pub(crate) fn new(device: &'d DeviceState, signals: &'d SignalsBlocked) -> Self {
        let runs = [FrameRun { first: FrameNumber(0), frames: 0 }; RUNS];
        Self { device, signals, runs, at: 0, end: 0, frames: 0, held: 0, refused: None }
    }

    /// How many frames are left in it.
    pub(crate) const fn len(&self) -> usize {
        self.frames
    }

    /// Fills it as [`fill`](Self::fill) does, where `want` frames are free. Returns whether they
    /// were.
    #[inline]
    #[unsafe(link_section = ".text.hot.moving")]
    pub(crate) fn fill_if_free<M: Mm>(&mut self, want: usize, mm: &M) -> bool {
        match self.next(want, want, mm) {
            Some(run) => self.add(run),
            None if self.device.free(self.signals) < want => return false,
            None => {}
        }
        if self.frames < want {
            self.fill(want, mm);
        }
        true
    }

    /// What the system stopped at as more frames were to be made ready, if it did.
    pub(crate) const fn refused(&self) -> Option<Stop> {
        self.refused
    }

    /// Reserves frames until it holds `want`, all of them ready, or all are in use. Stale ones are made
    /// ready where others run out.
    #[inline(never)]
    pub(crate) fn fill<M: Mm>(&mut self, want: usize, mm: &M) {
        while self.frames < want && self.end < RUNS {
            match self.next(want - self.frames, 0, mm) {
                Some(run) => self.add(run),
                None => match self.device.make_ready(want - self.frames, mm, self.signals) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(stop) => {
                        self.refused = Some(stop);
                        return;
                    }
                },
            }
        }
    }

    /// Up to `want` consecutive frames, none where fewer than `least` are free. Who wants as many as a
    /// chunk has gets one where one is free, which else would be split by what a copy left stale there.
    #[inline]
    fn next<M: Mm>(&self, want: usize, least: usize, mm: &M) -> Option<FrameRun> {
        let run = self.device.take(want, least, self.signals)?;
        if want < CHUNK || run.frames == CHUNK {
            return Some(run);
        }
        Some(self.whole_for(run, want, mm))
    }

    /// A whole chunk in the place of `run`, or that, where none is to be had.
    #[cold]
    #[inline(never)]
    fn whole_for<M: Mm>(&self, run: FrameRun, want: usize, mm: &M) -> FrameRun {
        if !self.device.make_chunk_ready(mm, self.signals) {
            return run;
        }
        // Others may have been faster.
        let Some(other) = self.device.take(want, 0, self.signals) else { return run };
        let (kept, back) = if other.frames > run.frames { (other, run) } else { (run, other) };
        self.device.give_back_unused(back, self.signals);
        self.device.used(back.frames);
        kept
    }

    #[inline]
    fn add(&mut self, run: FrameRun) {
        self.frames += run.frames;
        self.held += run.frames;
        self.runs[self.end] = run;
        self.end += 1;
    }

    /// Takes up to `want` consecutive frames out.
    #[inline]
    pub(crate) fn take(&mut self, want: usize) -> Option<FrameRun> {
        let run = self.runs[self.at..self.end].first_mut()?;
        let taken = FrameRun { first: run.first, frames: want.min(run.frames) };
        if taken.frames == run.frames {
            self.at += 1;
        } else {
            run.first = run.first.plus(taken.frames);
            run.frames -= taken.frames;
        }
        self.frames -= taken.frames;
        Some(taken)
    }

    /// Ends it: gives back what is left.
    #[inline]
    pub(crate) fn end(&mut self) {
        while let Some(run) = self.take(usize::MAX) {
            self.device.give_back_unused(run, self.signals);
        }
        if self.held > 0 {
            self.device.used(self.held);
            self.held = 0;
        }
    }
}

impl Drop for Reservation<'_> {
    #[inline]
    fn drop(&mut self) {
        self.end();
    }
}
