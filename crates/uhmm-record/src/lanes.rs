//! Where each event stands in a trace.
//!
//! There is a group of lanes for each processor and for each device. A device's faults stand in its
//! group, all else in that of the processor where it ended. Within a lane events lie side by side or
//! one within the other, as viewers want it: what overlaps otherwise stands in a further lane of the
//! group. A move stands in the lane of the fault that it was made for.

use std::collections::BTreeMap;

use uhmm::{Event, What};

use super::recorded::{Recorded, end_of};

/// A group of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Processor(u16),
    Device(usize),
}

/// A lane, by its number in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) group: Group,
    pub(super) number: usize,
}

/// The lane of each event, in the order of the events.
pub(super) fn assign(recorded: &Recorded) -> Vec<Lane> {
    let mut lanes = Lanes::default();
    // Of each thread the faults that it serves, which may still have moves to come.
    let mut serving: BTreeMap<u32, Vec<(u64, Lane)>> = BTreeMap::new();
    recorded
        .events
        .iter()
        .map(|event| {
            let (began, end) = (event.began, end_of(event));
            let of_thread = serving.entry(event.thread).or_default();
            of_thread.retain(|&(until, _)| until > began);
            if !matches!(event.what, What::Moved { .. }) {
                let lane = lanes.place(group_of(event), began, end);
                of_thread.push((end, lane));
                return lane;
            }
            match of_thread.iter().rev().find(|&&(until, _)| until >= end) {
                // It may overlap one that another thread made for the same fault.
                Some(&(_, lane)) if lanes.nest(lane, began, end) => lane,
                _ => lanes.place(group_of(event), began, end),
            }
        })
        .collect()
}

fn group_of(event: &Event) -> Group {
    match event.what {
        What::DeviceFault { device, .. } | What::RangeFault { device: Some(device) } => {
            Group::Device(device.number())
        }
        _ => Group::Processor(event.processor),
    }
}

/// What stands in the lanes so far: of each the ends of what is not over, outermost first.
#[derive(Default)]
struct Lanes(BTreeMap<Group, Vec<Vec<u64>>>);

impl Lanes {
    /// The first lane of the group in which nothing else stands then.
    fn place(&mut self, group: Group, began: u64, end: u64) -> Lane {
        let lanes = self.0.entry(group).or_default();
        for ends in &mut *lanes {
            ends.retain(|&end| end > began);
        }
        let number = lanes.iter().position(Vec::is_empty).unwrap_or_else(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[number].push(end);
        Lane { group, number }
    }

    /// Puts something within what stands in a lane, if it fits.
    fn nest(&mut self, lane: Lane, began: u64, end: u64) -> bool {
        let Some(ends) = self.0.get_mut(&lane.group).and_then(|lanes| lanes.get_mut(lane.number))
        else {
            return false;
        };
        ends.retain(|&end| end > began);
        let fits = ends.last().is_some_and(|&around| end <= around);
        if fits {
            ends.push(end);
        }
        fits
    }
}
