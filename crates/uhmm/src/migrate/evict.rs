//! A device's memory is short: pages that it has not used lately go back to system memory.

use super::to_system::ReturnCause;
use crate::{
    device::DeviceState,
    engine_memory::EngineMemoryError,
    mm::Mm,
    policy::EVICT_PAGES,
    space::{Engine, Visit},
    units::{BLOCK_PAGES, BlockNumber},
};

impl<M: Mm> Engine<M> {
    /// Frees at least one frame of a device and about `want`, sparing `keep` where others will do.
    /// Answers how many; none where nothing could be given up in two rounds of the clock.
    ///
    /// It ends for certain: each step frees frames or moves the hand, and the hand goes round
    /// three times at most.
    pub(crate) fn evict(
        &self,
        device: &DeviceState,
        want: usize,
        keep: BlockNumber,
        visit: &mut Visit<'_, M>,
    ) -> Result<usize, EngineMemoryError> {
        let mut freed = 0;
        let blocks = device.clock.lock(visit.signals()).len();
        for step in 0..blocks * 3 {
            // The first round passes over what was used and what is to be kept, the second over
            // what is to be kept, the third over nothing.
            let round = step / blocks;
            let Some(number) = device.clock.lock(visit.signals()).advance() else { break };
            if round < 2 && number == keep {
                continue;
            }
            freed += self.evict_from(device, number, want - freed, round > 0, visit);
            if freed >= want {
                break;
            }
        }
        Ok(freed)
    }

    fn evict_from(
        &self,
        device: &DeviceState,
        number: BlockNumber,
        want: usize,
        used_too: bool,
        visit: &mut Visit<'_, M>,
    ) -> usize {
        let Some(block) = self.blocks.get(number) else { return 0 };
        let mut held = visit.lock(block, number);
        let section = self.gate.share(held.signals);
        let mut freed = 0;
        let mut place = 0;
        while freed < want
            && let Some(mut run) = held.next_away(place..BLOCK_PAGES, Some(device.index))
        {
            // A block that lies there as a whole goes as a whole if nothing of it was used: that
            // keeps a huge page whole. Else a part is judged by itself.
            let all = held.pages(&(0..BLOCK_PAGES));
            if !held.state().pages.is_whole() || device.device.take_referenced(all) {
                let end = (run.pages.start / EVICT_PAGES + 1) * EVICT_PAGES;
                run.pages.end = run.pages.end.min(end);
            }
            let wanted = run.pages.len();
            place = run.pages.end;
            let pages = held.pages(&run.pages);
            let used = device.device.take_referenced(pages);
            if section.is_closed(pages) || used && !used_too {
                continue;
            }
            let done = held.bring_back(run, ReturnCause::Eviction);
            freed += done.pages;
            if done.pages < wanted {
                break;
            }
        }
        drop(section);
        if held.next_away(0..BLOCK_PAGES, Some(device.index)).is_none() {
            held.leave_clock(device);
        }
        freed
    }
}
