//! A block with pages on a device is in the ring of its clock, once, whoever sweeps the ring
//! meanwhile without the block's lock.

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use super::under_lock;
use crate::{
    block::{Block, Turn},
    driver::DeviceIndex,
};

const DEVICE: DeviceIndex = DeviceIndex(3);

/// A block, and of a device's ring how often the block is in it.
struct Shared {
    block: Block,
    turns: [Turn; 2],
    ring: Mutex<usize>,
}

impl Shared {
    /// With a block that was in the ring and has lost its last page since, if `quiet`, or was never
    /// there.
    fn new(quiet: bool) -> Arc<Self> {
        let (block, turns) = (Block::new(), [Turn::new(), Turn::new()]);
        let shared = Self { block, turns, ring: Mutex::new(0) };
        if quiet {
            shared.page_comes(0);
            shared.page_goes(0);
        }
        Arc::new(shared)
    }

    /// A page arrives on the device.
    fn page_comes(&self, turn: usize) {
        under_lock(&self.block.turns, &self.turns[turn], || {
            self.block.changed(1, 0);
            if self.block.enter_clock(DEVICE) {
                *self.ring.lock().unwrap() += 1;
            }
        });
    }

    /// A page leaves the device.
    fn page_goes(&self, turn: usize) {
        under_lock(&self.block.turns, &self.turns[turn], || self.block.changed(0, 1));
    }

    /// A page leaves the device, and an evictor that sees that none is left takes the block out.
    fn page_is_evicted(&self, turn: usize) {
        under_lock(&self.block.turns, &self.turns[turn], || {
            self.block.changed(0, 1);
            if self.block.hint().away == 0 && self.block.leave_clock(DEVICE) {
                // It may have been swept out.
                *self.ring.lock().unwrap() = 0;
            }
        });
    }

    /// Takes blocks out of which no page is away.
    fn sweep(&self) {
        let mut ring = self.ring.lock().unwrap();
        if *ring > 0 && self.block.leaves_clock_if_quiet(DEVICE) {
            *ring -= 1;
        }
    }

    fn in_ring(&self) -> usize {
        *self.ring.lock().unwrap()
    }
}

#[test]
fn a_page_comes_as_the_ring_is_swept() {
    loom::model(|| {
        let shared = Shared::new(true);
        let sweeper = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.sweep())
        };
        shared.page_comes(0);
        sweeper.join().unwrap();
        assert_eq!(shared.in_ring(), 1);
        shared.sweep();
        assert_eq!(shared.in_ring(), 1, "it stays while the page is there");
    });
}

#[test]
fn two_sweep_the_ring_as_a_page_comes() {
    loom::model(|| {
        let shared = Shared::new(true);
        let sweepers = [0, 1].map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.sweep())
        });
        shared.page_comes(0);
        for sweeper in sweepers {
            sweeper.join().unwrap();
        }
        assert_eq!(shared.in_ring(), 1);
    });
}

#[test]
fn pages_come_and_go_as_the_ring_is_swept() {
    loom::model(|| {
        let shared = Shared::new(false);
        let sweeper = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.sweep())
        };
        shared.page_comes(0);
        shared.page_goes(0);
        shared.page_comes(0);
        sweeper.join().unwrap();
        assert_eq!(shared.in_ring(), 1);
        shared.page_goes(0);
        shared.sweep();
        assert_eq!(shared.in_ring(), 0, "a quiet block leaves");
    });
}

#[test]
fn an_evictor_takes_it_out_as_the_ring_is_swept() {
    loom::model(|| {
        let shared = Shared::new(false);
        shared.page_comes(0);
        let others = [
            {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.page_is_evicted(1))
            },
            {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.sweep())
            },
        ];
        shared.page_comes(0);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(shared.in_ring(), 1);
    });
}
