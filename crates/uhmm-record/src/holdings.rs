//! Who held which pages, followed through time.

use std::collections::BTreeSet;

use uhmm::{DeviceIndex, Holder, What};

use super::recorded::{Recorded, end_of};

/// A page's holder, as compact as may be: zero for system memory or nobody, else a device and one.
pub(super) type Held = u8;

/// Pages that devices held at some time, in the order of their addresses.
pub(super) struct Pages {
    /// Runs of such pages: the first, how many, and how many there are before it.
    runs: Vec<(usize, usize, usize)>,
    total: usize,
}

impl Pages {
    /// All pages that moved.
    pub(super) fn of(recorded: &Recorded) -> Self {
        let mut all: Vec<_> = recorded
            .events
            .iter()
            .filter(|event| matches!(event.what, What::Moved { .. }))
            .map(|event| (event.pages.start().0, event.pages.end().0))
            .collect();
        all.sort_unstable();
        let mut joined: Vec<(usize, usize)> = Vec::new();
        for (start, end) in all {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        let mut total = 0;
        let runs = joined
            .into_iter()
            .map(|(start, end)| {
                let run = (start, end - start, total);
                total += end - start;
                run
            })
            .collect();
        Self { runs, total }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.total
    }

    /// The place of a page among them.
    pub(super) fn place_of(&self, page: usize) -> Option<usize> {
        let index = self.runs.partition_point(|&(start, ..)| start <= page).checked_sub(1)?;
        let (start, len, before) = self.runs[index];
        (page - start < len).then(|| before + page - start)
    }

    /// The page at a place.
    pub(super) fn page_at(&self, place: usize) -> Option<usize> {
        let index = self.runs.partition_point(|&(.., before)| before <= place).checked_sub(1)?;
        let (start, len, before) = self.runs[index];
        (place - before < len).then(|| start + place - before)
    }
}

/// Goes through all moves in the order in which they ended: `change` is told the time, the place of
/// the page, and who held it before and holds it from then on.
pub(super) fn follow(
    recorded: &Recorded,
    pages: &Pages,
    mut change: impl FnMut(u64, usize, Held, Held),
) {
    let mut moves: Vec<_> = recorded
        .events
        .iter()
        .filter_map(|event| match event.what {
            What::Moved { to, .. } => Some((end_of(event), event.pages, to)),
            _ => None,
        })
        .collect();
    moves.sort_by_key(|&(end, ..)| end);
    let mut held = vec![0; pages.len()];
    for (time, moved, to) in moves {
        let to = match to {
            // There are few devices.
            Holder::Device(device) => u8::try_from(device.number() + 1).unwrap_or(u8::MAX),
            Holder::System | Holder::Nobody => 0,
        };
        for page in moved.pages() {
            let Some(place) = pages.place_of(page.0) else { continue };
            let before = std::mem::replace(&mut held[place], to);
            if before != to {
                change(time, place, before, to);
            }
        }
    }
}

/// The devices that took part, by their numbers.
pub(super) fn devices(recorded: &Recorded) -> Vec<usize> {
    let mut devices = BTreeSet::new();
    let mut note = |device: DeviceIndex| {
        devices.insert(device.number());
    };
    for event in &recorded.events {
        match event.what {
            What::Moved { from, to, .. } => {
                for holder in [from, to] {
                    if let Holder::Device(device) = holder {
                        note(device);
                    }
                }
            }
            What::DeviceFault { device, .. } | What::RangeFault { device: Some(device) } => {
                note(device);
            }
            _ => {}
        }
    }
    devices.into_iter().collect()
}
