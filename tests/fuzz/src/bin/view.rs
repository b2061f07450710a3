//! A process that shows anything, as `explain` and `top` look at it: what comes of it is numbers that name devices,
//! pages and causes that there may be.
#![no_main]

use std::{
    ops::Range,
    sync::{LazyLock, atomic::Ordering::Relaxed},
};

use libfuzzer_sys::fuzz_target;
use uhmm::{
    Latency, MAX_DEVICES, ObservedPlace, Observer,
    fuzzing::Shown,
    units::{BLOCK_PAGES, BlockNumber},
};
use uhmm_fuzz::Input;

#[allow(dead_code, reason = "what is drawn is not drawn here")]
#[path = "../../../../crates/uhmm-cli/src/top/sample.rs"]
mod sample;

struct World {
    shown: Shown,
    seen: Observer,
    /// The words before the map, as a program begins.
    head: Vec<u32>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let shown = Shown::new(4096).expect("memory to show");
    let seen = Observer::of(std::process::id()).expect("this process shows it");
    let head = shown.words()[Shown::HEAD].iter().map(|word| word.load(Relaxed)).collect();
    World { shown, seen, head }
});

/// The blocks that are written and looked at.
const BLOCKS: [usize; 4] = [0, 1, 7, 1 << 40];

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let World { shown, seen, head } = &*WORLD;
    let mut written = Vec::new();
    let mut before = None;
    while !input.is_empty() {
        let block = BLOCKS[input.below(BLOCKS.len())];
        let [place, held, stayed] = Shown::of_block(block);
        let known = [block as u64 + 1, 0x100 + 1];
        let words: Range<usize> = match input.byte() % 8 {
            0..4 => Shown::HEAD,
            4 | 5 => place,
            6 => held,
            _ => stayed,
        };
        let at = words.start + input.below(words.len());
        shown.words()[at].store(input.number(&known) as u32, Relaxed);
        written.push(at);
        if input.byte() % 4 == 0 {
            look(seen, (block, input.below(BLOCK_PAGES)));
        }
        // All blocks are looked at, which takes long.
        if input.byte() == 32 {
            let blocks = seen.blocks();
            assert!(blocks.is_sorted_by_key(|&(block, _)| block));
            for (_, pages) in blocks {
                assert!(pages.iter().map(|&held| usize::from(held)).sum::<usize>() <= BLOCK_PAGES);
            }
            let now = sample::Sample::take(seen);
            let change = sample::Change::between(before.as_ref().unwrap_or(&now), &now);
            assert!(change.devices.iter().all(|device| device.number < MAX_DEVICES));
            if let Some((device, share)) = sample::most_of(&change.blocks) {
                assert!(device < MAX_DEVICES && share > 0.0 && share <= 1.0);
            }
            before = Some(now);
        }
    }
    for at in written {
        let value = head.get(at).copied().unwrap_or(0);
        shown.words()[at].store(value, Relaxed);
    }
});

fn look(seen: &Observer, (block, page): (usize, usize)) {
    let size = seen.page_size();
    assert!(size.bytes().is_power_of_two());
    let address = size.address_of(BlockNumber(block).first_page().plus(page));
    if let Some(page) = seen.page(address) {
        assert!(page.mapped_by.iter().all(|device| device.number() < MAX_DEVICES));
        if let ObservedPlace::Device { device, .. } = page.place {
            assert!(device.number() < MAX_DEVICES && page.stayed.is_none());
        }
        if let Some(stayed) = page.stayed {
            assert!(!stayed.is_empty());
        }
    }
    for device in seen.devices() {
        assert!(device.index.number() < MAX_DEVICES && device.frames > 0);
    }
    let (ranges, _) = seen.adopted();
    assert!(ranges.len() <= 256);
    assert!(ranges.iter().all(|range| range.start() <= range.end()));
    for latency in Latency::ALL {
        let histogram = seen.histogram(latency);
        let counts: u128 = histogram.counts().map(|(_, count)| u128::from(count)).sum();
        assert_eq!(u128::from(histogram.count()), counts.min(u128::from(u64::MAX)));
        assert!(histogram.per_mille(500) <= histogram.per_mille(999));
    }
}
