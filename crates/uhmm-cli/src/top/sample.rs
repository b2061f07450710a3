//! What is seen at one moment, and what changed from one to the next.

use std::time::{Duration, Instant};

use uhmm::units::{BLOCK_PAGES, PageSize};
use uhmm::{CounterValues, Histogram, Latency, MAX_DEVICES, ObservedDevice, Observer};

/// One look.
pub(super) struct Sample {
    at: Instant,
    is_alive: bool,
    is_open: bool,
    page: PageSize,
    counters: CounterValues,
    latencies: [Histogram; Latency::ALL.len()],
    devices: Vec<ObservedDevice>,
    blocks: Vec<[u16; MAX_DEVICES]>,
    adopted: usize,
    blocks_left_out: u64,
}

impl Sample {
    pub(super) fn take(seen: &Observer) -> Self {
        Self {
            at: Instant::now(),
            page: seen.page_size(),
            counters: seen.counters(),
            latencies: Latency::ALL.map(|latency| seen.histogram(latency)),
            devices: seen.devices(),
            blocks: seen.blocks().into_iter().map(|(_, pages)| pages).collect(),
            // A program may show any numbers.
            adopted: seen.adopted().0.iter().fold(0, |all, range| all.saturating_add(range.len())),
            blocks_left_out: seen.blocks_left_out(),
            // In this order: what was read is of a program that lived then.
            is_open: seen.is_open(),
            is_alive: seen.is_alive(),
        }
    }

    pub(super) const fn is_alive(&self) -> bool {
        self.is_alive
    }

    pub(super) fn since(&self, before: &Self) -> Duration {
        self.at.duration_since(before.at)
    }
}

/// What is drawn.
pub(super) struct Change {
    /// What became of the program.
    pub(super) state: &'static str,
    pub(super) is_alive: bool,
    pub(super) page: PageSize,
    /// Each counter that is not zero: its name, its value, and how much it grew a second, where it is a sum.
    pub(super) counters: Vec<(&'static str, u64, Option<f64>)>,
    /// What is timed, how many were in between, and the middle one and what one in a thousand exceeds.
    pub(super) latencies: Vec<(Latency, u64, Duration, Duration)>,
    pub(super) devices: Vec<DeviceLine>,
    /// Of each block, in the order of addresses, how many pages each device holds.
    pub(super) blocks: Vec<[u16; MAX_DEVICES]>,
    pub(super) adopted: usize,
    pub(super) blocks_left_out: u64,
}

/// A device.
pub(super) struct DeviceLine {
    pub(super) number: usize,
    pub(super) frames: usize,
    /// Pages that it holds.
    pub(super) held: usize,
    pub(super) lost: bool,
}

impl Change {
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let seconds = now.since(before).as_secs_f64();
        let counters = before
            .counters
            .iter()
            .zip(now.counters.iter())
            .filter(|(_, (_, value))| *value > 0)
            .map(|((_, earlier), (name, value))| {
                #[expect(clippy::cast_precision_loss, reason = "it is a rate")]
                let more = value.saturating_sub(earlier) as f64;
                let rate = if seconds > 0.0 { more / seconds } else { 0.0 };
                (name, value, (!CounterValues::is_maximum(name)).then_some(rate))
            })
            .collect();
        let latencies = Latency::ALL
            .iter()
            .filter_map(|&latency| {
                let place = latency as usize;
                let between = now.latencies[place].since(&before.latencies[place]);
                let count = between.count();
                let at = |part| between.per_mille(part);
                (count > 0).then(|| (latency, count, at(500), at(999)))
            })
            .collect();
        let held = |number: usize| now.blocks.iter().map(|pages| usize::from(pages[number])).sum();
        let devices = now.devices.iter().map(|device| DeviceLine {
            number: device.index.number(),
            frames: device.frames,
            held: held(device.index.number()),
            lost: device.lost,
        });
        Self {
            state: match (now.is_alive, now.is_open) {
                (false, _) => "has ended",
                (true, false) => "has closed its address space",
                (true, true) => "runs",
            },
            is_alive: now.is_alive,
            page: now.page,
            counters,
            latencies,
            devices: devices.collect(),
            blocks: now.blocks.clone(),
            adopted: now.adopted,
            blocks_left_out: now.blocks_left_out,
        }
    }
}

/// How many pages of some blocks the device with the most holds, and which that is.
pub(super) fn most_of(blocks: &[[u16; MAX_DEVICES]]) -> Option<(usize, f64)> {
    let held = |number: usize| blocks.iter().map(|pages| usize::from(pages[number])).sum::<usize>();
    let (number, most) =
        (0..MAX_DEVICES).map(|number| (number, held(number))).max_by_key(|&(_, held)| held)?;
    #[expect(clippy::cast_precision_loss, reason = "it is a share")]
    let share = most as f64 / (blocks.len() * BLOCK_PAGES) as f64;
    (most > 0).then_some((number, share))
}
