//! Policy: how much moves when one page is touched. Plain rules, apart from the mechanism.

use core::ops::Range;

use crate::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    units::{BLOCK_PAGES, BlockNumber},
};

/// How many pages beside each other a copy out of a device spares at least. Fewer, between pages that it
/// has written, are copied along: one transfer more would take longer.
pub(crate) const LEAST_SPARED: usize = if cfg!(any(shuttle, miri)) { 2 } else { 8 };

/// Up to how many pages a return to the CPU copies; more are moved. Copying one page is cheaper
/// than moving it, as a move interrupts the other processors; from about ten on moving wins.
pub(crate) const COPY_PAGES: usize = 10;

/// How many pages a fault on a page never touched before fills, aligned and from that page on, where it
/// follows no other.
const FIRST_TOUCH_PAGES: u16 = 16;

/// How many pages a device's fault brings at least, aligned, where the device has room.
const DEVICE_FAULT_PAGES: usize = 16;

/// How many it brings at most, where its faults follow one another.
const DEVICE_STREAM_PAGES: usize = 256;

/// How many pages a device with `frames` frames gives up at a time, a power of two: so many that
/// the cost of a call is shared, so few that what is used stays.
pub(crate) const fn evict_unit(frames: usize) -> usize {
    let share = if frames < 64 { 1 } else { frames / 64 };
    1 << (if share > 64 { 64 } else { share }).ilog2()
}

/// How many pages a device with `frames` frames gives up at least where its memory is short: also what the next
/// faults need, for the cost of one look.
pub(crate) const fn evict_ahead(frames: usize) -> usize {
    let share = frames / if cfg!(any(shuttle, miri)) { 4 } else { 32 };
    if share > BLOCK_PAGES { BLOCK_PAGES } else { share }
}

/// Whether so many are worth a thread that gives them up before they are wanted.
pub(crate) const fn evicts_in_background(frames: usize) -> bool {
    evict_ahead(frames) >= if cfg!(any(shuttle, miri)) { 2 } else { 8 }
}

/// How many pages around a fault a device maps at once where they are, aligned, if they are there.
pub(crate) const MAP_PAGES: usize = 16;

/// How many times as many pages as the last a CPU fault brings back that follows it. So of all pages that
/// such faults have brought, a quarter at least was used, but for what the largest window brings.
const WINDOW_GROWS: u16 = 4;

/// How many pages a CPU fault brings back at most, where faults follow one another: a block's, which is
/// as far as one lock goes.
#[expect(clippy::cast_possible_truncation, reason = "a block has 512 pages")]
const LARGEST_WINDOW: u16 = BLOCK_PAGES as u16;

/// The stream of CPU faults on one block, to tell a sequence from a random walk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultStream {
    /// The page after the last that was brought back.
    expected: u16,
    window: u16,
}

impl FaultStream {
    /// The pages to bring back for a fault on `page` of the block `number`. A fault just behind what
    /// the last one brought makes the window larger, also where that was in the block before; any other
    /// ends it.
    pub(crate) fn window(
        &mut self,
        page: usize,
        number: BlockNumber,
        scans: &Scans,
    ) -> Range<usize> {
        let before = self.followed(page, number, scans);
        let window = if before > 0 { before * WINDOW_GROWS } else { 1 };
        self.go_on(page, window, number, scans)
    }

    /// The pages to fill for a fault on a page that was never touched: as [`window`](Self::window), but that
    /// a stream begins with more, as filling costs little.
    pub(crate) fn first_touch(
        &mut self,
        page: usize,
        number: BlockNumber,
        scans: &Scans,
    ) -> Range<usize> {
        let before = self.followed(page, number, scans);
        let window = if before > 0 {
            before.max(FIRST_TOUCH_PAGES) * WINDOW_GROWS
        } else {
            let aligned = aligned_around(page, usize::from(FIRST_TOUCH_PAGES));
            u16::try_from(aligned.end - page).unwrap_or(FIRST_TOUCH_PAGES)
        };
        self.go_on(page, window, number, scans)
    }

    /// With which window the last fault came that a fault on `page` follows; zero if it follows none.
    fn followed(self, page: usize, number: BlockNumber, scans: &Scans) -> u16 {
        if page == 0 {
            scans.take(number)
        } else if page == usize::from(self.expected) {
            self.window
        } else {
            0
        }
    }

    /// Goes on with a window, and expects the next fault behind it.
    fn go_on(
        &mut self,
        page: usize,
        window: u16,
        number: BlockNumber,
        scans: &Scans,
    ) -> Range<usize> {
        self.window = window.min(LARGEST_WINDOW);
        let end = (page + usize::from(self.window)).min(BLOCK_PAGES);
        self.expected = u16::try_from(end).unwrap_or(u16::MAX);
        if end == BLOCK_PAGES {
            scans.note(BlockNumber(number.0 + 1), self.window);
        }
        page..end
    }
}

/// How many streams of faults can be on their way from one block to the next.
const SCANS: usize = 16;

/// Streams of faults, of the CPU or of one device, that came to the end of a block: with what window they
/// are expected in the next one. Guesses, read and written without a lock.
#[derive(Debug)]
pub(crate) struct Scans([AtomicU64; SCANS]);

impl Scans {
    pub(crate) fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn place(&self, number: BlockNumber) -> &AtomicU64 {
        &self.0[number.0 % SCANS]
    }

    /// The window with which a stream is expected in the block, zero if none is, which ends the
    /// expectation.
    fn take(&self, number: BlockNumber) -> u16 {
        let place = self.place(number);
        let noted = place.load(Relaxed);
        if noted >> u16::BITS != number.0 as u64 {
            return 0;
        }
        place.store(0, Relaxed);
        u16::try_from(noted & u64::from(u16::MAX)).unwrap_or(0)
    }

    fn note(&self, number: BlockNumber, window: u16) {
        // A block is 2 MiB or more, so 43 bits are enough for its number.
        self.place(number).store((number.0 as u64) << u16::BITS | u64::from(window), Relaxed);
    }
}

/// How many pages around a fault a device makes use of, learned from what it gives up unused.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// How often the window was halved.
    halvings: AtomicU32,
    given_up: AtomicU32,
    used: AtomicU32,
    /// How many pages are to be given up before they tell of the window as it is.
    unsettled: AtomicU32,
}

impl Reach {
    /// After how many pages given up the window may change.
    const LESSON: u32 = 256;

    /// How often all of the memory is given up between two tries of a neighbour, where the window is of
    /// one page: such a window says nothing about neighbours.
    const UNTRIED: u32 = 16;

    /// How many pages a fault brings that follows no other, aligned.
    pub(crate) fn pages(&self) -> usize {
        DEVICE_FAULT_PAGES >> self.halvings.load(Relaxed).min(DEVICE_FAULT_PAGES.ilog2())
    }

    /// Notes that of `given_up` pages, `used` were used while they were there, by a device with `frames`
    /// frames. From some hundred on the window is halved where most neighbours were not, or ends where
    /// hardly any was, and is doubled where most were. The page that was faulted on was used in any
    /// case. What is given up came with the window of before, until all that is there was given up once.
    pub(crate) fn learn(&self, given_up: usize, used: usize, frames: usize) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX / 2);
        let unsettled = self.unsettled.load(Relaxed);
        if unsettled > 0 {
            return self.unsettled.store(unsettled.saturating_sub(count(given_up)), Relaxed);
        }
        let add = |sum: &AtomicU32, more| sum.fetch_add(more, Relaxed).saturating_add(more);
        let used = add(&self.used, count(used));
        let given_up = add(&self.given_up, count(given_up));
        let window = self.pages();
        let is_alone = window == 1;
        let turn = Self::LESSON.max(count(frames));
        if given_up < if is_alone { turn.saturating_mul(Self::UNTRIED) } else { Self::LESSON } {
            return;
        }
        self.given_up.store(0, Relaxed);
        self.used.store(0, Relaxed);
        let faulted = given_up / count(window);
        let (neighbours, used) = (given_up - faulted, used.saturating_sub(faulted));
        let halvings = self.halvings.load(Relaxed);
        let most = DEVICE_FAULT_PAGES.ilog2();
        let next = if is_alone || used > neighbours / 4 * 3 {
            halvings.saturating_sub(1)
        } else if used < neighbours / 8 {
            most
        } else if used < neighbours / 2 {
            (halvings + 1).min(most)
        } else {
            halvings
        };
        if next != halvings {
            self.halvings.store(next, Relaxed);
            self.unsettled.store(count(frames), Relaxed);
        }
    }
}

/// The stream of device faults on one block: the place behind what the last brought, and how much
/// that was. It is a guess, read and written without the block's lock.
#[derive(Debug, Default)]
pub(crate) struct DeviceStream(AtomicU32);

impl DeviceStream {
    /// The places of the block `number` to bring for a fault at `place`, by a device with `frames` frames:
    /// the aligned ones around it, or twice as many as the last time where the fault follows that, also where
    /// that was in the block before. A small device brings less, so that one fault does not evict what another
    /// just brought, and one that does not use what it brings, too.
    pub(crate) fn window(
        &self,
        place: usize,
        number: BlockNumber,
        frames: usize,
        reach: &Reach,
        scans: &Scans,
    ) -> Range<usize> {
        let last = self.0.load(Relaxed) as usize;
        let (expected, before) =
            if place == 0 { (0, scans.take(number).into()) } else { (last & 0xffff, last >> 16) };
        let (window, pages) = if before > 0 && place == expected {
            let pages = (before * 2).min(DEVICE_STREAM_PAGES).min((frames / 4).max(1));
            (place..(place + pages).min(BLOCK_PAGES), pages)
        } else {
            // The largest power of two, so that the aligned pages lie within the block.
            let pages = reach.pages().min(1 << (frames / 8).max(1).ilog2());
            (aligned_around(place, pages), pages)
        };
        if window.end == BLOCK_PAGES {
            // What was left of the block may be less than what the stream has come to.
            scans.note(BlockNumber(number.0 + 1), u16::try_from(pages).unwrap_or(u16::MAX));
        }
        let packed = window.end | window.len() << 16;
        self.0.store(u32::try_from(packed).unwrap_or(0), Relaxed);
        window
    }
}

/// The aligned pages around `page`, `pages` of them, within its block.
pub(crate) fn aligned_around(page: usize, pages: usize) -> Range<usize> {
    let pages = pages.min(BLOCK_PAGES);
    let start = page / pages * pages;
    start..(start + pages).min(BLOCK_PAGES)
}

// Of blocks in their full size.
#[cfg(all(test, not(any(loom, shuttle, miri))))]
mod tests {
    use super::*;

    /// Gives up pages that came with the window, of whose neighbours so many in a hundred were used.
    fn teach(reach: &Reach, pages: usize, frames: usize, hundredths: usize) {
        for _ in 0..pages / 64 {
            let faulted = 64 / reach.pages();
            reach.learn(64, faulted + (64 - faulted) * hundredths / 100, frames);
        }
    }

    #[test]
    fn a_device_that_uses_no_neighbours_gets_none_and_is_seldom_tried() {
        let reach = Reach::default();
        let frames = 1024;
        teach(&reach, 256, frames, 0);
        assert_eq!(reach.pages(), 1);
        let mut tried = 0;
        for _ in 0..64 * frames / 64 {
            teach(&reach, 64, frames, 0);
            tried += 64 * usize::from(reach.pages() > 1);
            assert!(reach.pages() <= 2);
        }
        assert!(tried > 0 && tried * 8 < 64 * frames, "{tried} of {}", 64 * frames);
    }

    #[test]
    fn a_device_that_begins_to_use_neighbours_gets_them_again() {
        let reach = Reach::default();
        let frames = 256;
        teach(&reach, 256, frames, 0);
        assert_eq!(reach.pages(), 1);
        teach(&reach, 64 * frames, frames, 100);
        assert_eq!(reach.pages(), DEVICE_FAULT_PAGES);
        // Half of them is enough to go on as it is, a third is not.
        teach(&reach, 8 * frames, frames, 60);
        assert_eq!(reach.pages(), DEVICE_FAULT_PAGES);
        teach(&reach, 512, frames, 33);
        assert_eq!(reach.pages(), DEVICE_FAULT_PAGES / 2);
    }

    #[test]
    fn a_stream_of_device_faults_goes_on_from_block_to_block() {
        let (reach, scans) = (Reach::default(), Scans::new());
        let frames = 4 * DEVICE_STREAM_PAGES;
        // Of four blocks of which nothing is there, the windows.
        let mut windows = [0; 32];
        let mut count = 0;
        for number in 0..4 {
            let stream = DeviceStream::default();
            let mut place = 0;
            while place < BLOCK_PAGES {
                let window = stream.window(place, BlockNumber(number), frames, &reach, &scans);
                assert_eq!(window.start, place);
                windows[count] = window.len();
                count += 1;
                place = window.end;
            }
        }
        let rest = BLOCK_PAGES - (16 + 32 + 64 + 128 + 256);
        assert_eq!(windows[..6], [16, 32, 64, 128, 256, rest]);
        assert!(windows[6..count].iter().all(|&window| window == 256), "{windows:?}");
        // It is expected behind these blocks, once, and by this device.
        let first = |scans: &Scans| {
            let stream = DeviceStream::default();
            stream.window(0, BlockNumber(4), frames, &reach, scans).len()
        };
        let others = Scans::new();
        assert_eq!(first(&others), 16);
        assert_eq!(first(&scans), 256);
        assert_eq!(first(&scans), 16);
    }

    fn faults_of_a_scan(streams: &mut [FaultStream], scans: &Scans, first: usize) -> usize {
        let mut faults = 0;
        for (place, stream) in streams.iter_mut().enumerate() {
            let mut page = 0;
            while page < BLOCK_PAGES {
                page = stream.window(page, BlockNumber(first + place), scans).end;
                faults += 1;
            }
        }
        faults
    }

    #[test]
    fn a_scan_keeps_its_window_from_block_to_block() {
        let scans = Scans::new();
        let mut streams = [FaultStream::default(); 4];
        let largest = usize::from(LARGEST_WINDOW);
        // 1, 4, 16 and so on, which is less than a block up to 256, and what is left in the end.
        let first = 5 + 1;
        let all = first + 3 * BLOCK_PAGES / largest;
        assert_eq!(faults_of_a_scan(&mut streams, &scans, 100), all);
        // It is expected behind these blocks, and only once.
        let elsewhere = FaultStream::default().window(0, BlockNumber(7), &scans);
        assert_eq!(elsewhere, 0..1);
        let behind = FaultStream::default().window(0, BlockNumber(104), &scans);
        assert_eq!(behind, 0..largest);
        assert_eq!(FaultStream::default().window(0, BlockNumber(104), &scans), 0..1);
    }

    #[test]
    fn first_touches_in_order_fill_more_and_more() {
        let scans = Scans::new();
        let mut streams = [FaultStream::default(); 2];
        let mut touch =
            |block: usize, page| streams[block].first_touch(page, BlockNumber(block), &scans);
        assert_eq!(touch(0, 5), 5..16);
        assert_eq!(touch(0, 16), 16..80);
        assert_eq!(touch(0, 80), 80..336);
        assert_eq!(touch(0, 336), 336..BLOCK_PAGES);
        assert_eq!(touch(1, 0), 0..BLOCK_PAGES);
        for page in [40, 3, 500, 100] {
            assert!(touch(1, page).len() <= usize::from(FIRST_TOUCH_PAGES), "{page}");
        }
    }

    #[test]
    fn two_scans_at_a_time_keep_theirs() {
        let scans = Scans::new();
        let mut streams = [FaultStream::default(); 2];
        faults_of_a_scan(&mut streams, &scans, 10);
        faults_of_a_scan(&mut streams, &scans, 1005);
        for number in [12, 1007] {
            assert!(FaultStream::default().window(0, BlockNumber(number), &scans).len() > 1);
        }
    }

    #[test]
    fn faults_here_and_there_bring_one_page_each() {
        let scans = Scans::new();
        let mut stream = FaultStream::default();
        for page in [5, 400, 7, 6, 511, 0, 100] {
            assert_eq!(stream.window(page, BlockNumber(3), &scans).len(), 1, "{page}");
        }
    }
}
