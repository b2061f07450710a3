//! Kernels on both devices work on a region that the CPU reads and writes in between.

use std::time::Duration;

use crate::{
    random::{lost, mix},
    work::{Job, World},
};

/// Numbers that an item of a launch works on.
const ITEM: usize = 512;
const NUMBERS: usize = 1 << 19;

pub(crate) fn run(mut job: Job, world: &World) {
    let page = world.space.page_size().bytes();
    let mut numbers: Vec<u64> = (0..NUMBERS as u64).map(mix).collect();
    // What is computed is the same for all, so that one number tells what each must be.
    let (mut factor, mut term) = (1_u64, 0_u64);
    let mut rounds = 0_u32;
    while job.goes_on() {
        let first = (&raw const numbers[0]).addr();
        let start = first.next_multiple_of(page);
        let end = (first + NUMBERS * 8) / page * page;
        let range = uhmm::units::AddressRange::new(start, end - start).expect("whole pages");
        let held = world.adoption.lock().expect("not poisoned");
        world.space.adopt(range).expect("the region can be adopted");
        // The pages at the edges are shared with other data; the device leaves them alone.
        let (skip, count) = ((start - first) / 8, (end - start) / 8);
        let device = &world.devices[job.random.below(2)];
        let (by, plus) = (job.random.next() | 1, job.random.next());
        // SAFETY: the kernel touches the region only, by its worker; nobody else uses the region
        // meanwhile.
        let ran = unsafe {
            device.run(0..count / ITEM, move |worker, item| {
                let mut part = [0_u64; ITEM];
                let at = start + item * ITEM * 8;
                worker.load_slice(at, &mut part)?;
                for (index, number) in part.iter().enumerate() {
                    worker.store(at + index * 8, number.wrapping_mul(by).wrapping_add(plus))?;
                }
                Ok(())
            })
        };
        drop(held);
        if let Err(error) = ran {
            panic!("a kernel failed: {error}");
        }
        rounds += 1;
        factor = factor.wrapping_mul(by);
        term = term.wrapping_mul(by).wrapping_add(plus);
        // The CPU does the same to what the device left alone.
        let (before, rest) = numbers.split_at_mut(skip);
        for number in before.iter_mut().chain(&mut rest[count..]) {
            *number = number.wrapping_mul(by).wrapping_add(plus);
        }
        let step = if rounds.is_multiple_of(8) { 1 } else { 1 + job.random.below(300) };
        for index in (0..NUMBERS).step_by(step) {
            let expected = mix(index as u64).wrapping_mul(factor).wrapping_add(term);
            if numbers[index] != expected {
                lost("a number of a device", (&raw const numbers[index]).addr(), numbers[index]);
            }
        }
        if job.random.one_in(16) {
            // Elsewhere from now on.
            let elsewhere = numbers.clone();
            numbers = elsewhere;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
