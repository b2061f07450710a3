//! The content of frames of copying memory, in pages of transit.
//!
//! A frame's twin has it, where the device has not written since the frame was filled; else it is copied out. Of
//! frames that are one huge page it is gathered in one, if such a page is to be had.

use super::to_system::Obstacle;
use crate::{
    device::{Borrowed, Copying, DeviceState, FrameRun, Transit},
    driver::TransferError,
    engine::Engine,
    mm::{Child, Done, Errno, Mm, Stop},
    policy, processor,
    sync::SignalsBlocked,
    units::{BLOCK_PAGES, PageNumber},
};

impl<M: Mm> Engine<M> {
    /// Notes that a transfer failed, and what that says of the device.
    pub(super) fn transfer_failed(&self, device: &DeviceState, error: TransferError) {
        self.counters.transfers_failed.add(1);
        if error == TransferError::Lost {
            device.lose();
        }
    }

    /// Has the content of frames of `device` in pages of transit, as many from the first on as there are:
    /// in their twins, where the device has not written since, else by copies out. The lock of the block
    /// that they are pages of is held, and the device was [asked](Locked::ask_written) what it has written.
    /// Where they are to move `to` a block, and are one huge page, they are one huge page of transit, if one is
    /// to be had.
    pub(super) fn content_of(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        to: Option<PageNumber>,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let transit = &copying.transit;
        let is_huge = frames.frames == BLOCK_PAGES
            && to.is_some_and(|to| to.in_block() == 0)
            && copying.is_huge(frames.first);
        let pages = if is_huge && let Some(whole) = self.gathered(transit, frames, signals) {
            whole
        } else {
            match transit.borrow_twins(frames, signals) {
                Ok(twins) => twins,
                Err(without) => {
                    return self.copy_out(device, copying, frames.split(without).0, signals);
                }
            }
        };
        self.completed(device, copying, frames, pages, signals)
    }

    /// A huge page of transit for the content of frames that are one, with what their twins have of it. None
    /// where there is none to be had, or where the twins serve as well.
    #[inline(never)]
    fn gathered(
        &self,
        transit: &Transit,
        frames: FrameRun,
        signals: &SignalsBlocked,
    ) -> Option<Borrowed> {
        let mut whole = transit.borrow_huge(frames, &self.mm, signals)?;
        let pointer =
            |run: FrameRun, place| self.mm.staging_pointer(transit.page(run.first.plus(place)));
        let mut place = 0;
        while place < frames.frames {
            place += match transit.borrow_twins(frames.behind(place), signals) {
                Err(without) => without,
                Ok(twins) => {
                    let (count, size) = (twins.run.frames, self.mm.page_size());
                    let (from, to) = (pointer(twins.run, 0), pointer(whole.run, place));
                    // SAFETY: so many pages of transit on either side, full ones, lent to this call alone,
                    // and no page to both sides.
                    unsafe {
                        processor::copy(from.as_ptr(), to.as_ptr(), size.bytes_in(count));
                    }
                    whole.give(place, &twins);
                    transit.end_loan(&twins, 0, false, &self.mm, signals);
                    count
                }
            };
        }
        Some(whole)
    }

    /// Copies out of frames what pages of transit have not of their content. Answers as many of the pages, from
    /// the first on, as have it.
    fn completed(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        mut pages: Borrowed,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let transit = &copying.transit;
        let count = pages.run.frames;
        let mut place = pages.missing.next(0, true);
        while place < count {
            // As far as it does not pay to make two copies of it.
            let mut end = pages.missing.next(place, false).min(count);
            let mut next = pages.missing.next(end, true);
            while next < count && next - end < policy::LEAST_SPARED {
                end = pages.missing.next(next, false).min(count);
                next = pages.missing.next(end, true);
            }
            let from = frames.split(end).0.behind(place);
            let to = transit.page(pages.run.first.plus(place));
            if let Err(error) = copying.copy_out(from, to, &self.mm) {
                self.transfer_failed(device, error);
                if place > 0 {
                    return Ok(transit.shorten(pages, place, signals));
                }
                transit.end_loan(&pages, 0, false, &self.mm, signals);
                return Err(Obstacle::Device(error));
            }
            self.counters.copied_out.add(from.frames);
            pages.missing.set(place, from.frames);
            place = next;
        }
        Ok(pages)
    }

    /// Copies frames of `device` out to pages of transit, as many from the first on as there are. The
    /// lock of the block that they are pages of is held.
    fn copy_out(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        signals: &SignalsBlocked,
    ) -> Result<Borrowed, Obstacle> {
        let pages =
            copying.transit.borrow(frames.frames, &self.mm, signals).map_err(Obstacle::System)?;
        let from = frames.split(pages.run.frames).0;
        let to = copying.transit.page(pages.run.first);
        if let Err(error) = copying.copy_out(from, to, &self.mm) {
            copying.transit.end_loan(&pages, 0, false, &self.mm, signals);
            self.transfer_failed(device, error);
            return Err(Obstacle::Device(error));
        }
        self.counters.copied_out.add(from.frames);
        Ok(pages)
    }

    /// Copies frames out and to a child, as [`Mm::copy_to_child`] does. What the device cannot copy out
    /// stops it with an error of the system.
    ///
    /// # Safety
    /// As of [`Mm::copy_to_child`].
    pub(crate) unsafe fn copy_out_to_child(
        &self,
        device: &DeviceState,
        copying: &Copying,
        frames: FrameRun,
        child: Child,
        to: PageNumber,
    ) -> Done {
        let signals = SignalsBlocked::new();
        // What is written meanwhile the child may have or not. Its twin is of before that.
        let pages = match self.copy_out(device, copying, frames, &signals) {
            Ok(borrowed) => borrowed,
            Err(Obstacle::System(stop)) => {
                // Changes of ours that are unread are no obstacle to the child.
                let stop = if stop == Stop::Changing { Stop::NoMemory } else { stop };
                return Done { pages: 0, stop: Some(stop) };
            }
            Err(Obstacle::Device(_)) => {
                return Done { pages: 0, stop: Some(Stop::Other(Errno(libc::EIO))) };
            }
        };
        let from = copying.transit.page(pages.run.first);
        // SAFETY: as the caller says.
        let done = unsafe { self.mm.copy_to_child(child, from, to, pages.run.frames) };
        copying.transit.end_loan(&pages, pages.run.frames, false, &self.mm, &signals);
        done
    }
}
