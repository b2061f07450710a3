//! A device computes on memory of the program as it lies.

#[path = "../../uhmm/tests/support/nobody.rs"]
mod nobody;

use uhmm::{AddressSpace, units::AddressRange};
use uhmm_soft::{Options, Soft};

#[test]
fn a_device_reads_and_writes_a_vector_of_the_program() {
    let space = AddressSpace::open().unwrap();
    let page = space.page_size().bytes();
    let mut numbers = vec![0_u64; 1 << 18];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = index as u64;
    }
    let bytes = AddressRange::of_slice(&numbers).unwrap();
    let start = bytes.start() / page * page;
    let end = (bytes.end()).next_multiple_of(page);
    space.adopt(AddressRange::new(start, end - start).unwrap()).unwrap();
    // A quarter of what the vector takes.
    let device = Soft::start(&space, Options::new(bytes.len() / 4).workers(2)).unwrap();
    for round in 0..5_u64 {
        let first = numbers.as_ptr().addr();
        // SAFETY: the kernel touches the vector through its worker alone, each item its own part,
        // and nobody else does meanwhile.
        unsafe {
            device.run(0..numbers.len() / 64, move |worker, item| {
                for index in item * 64..item * 64 + 64 {
                    let at = first + index * 8;
                    let value: u64 = worker.load(at)?;
                    worker.store(at, value * 3 + round)?;
                }
                Ok(())
            })
        }
        .unwrap();
        if round % 2 == 0 {
            for number in &mut numbers {
                *number += 1;
            }
        }
    }
    for (index, number) in numbers.iter().enumerate() {
        let mut expected = index as u64;
        for round in 0..5_u64 {
            expected = expected * 3 + round + u64::from(round % 2 == 0);
        }
        assert_eq!(*number, expected, "at {index}");
    }
    eprintln!("{:#?}", space.counters());
    drop(device);
    space.close().unwrap();
}

#[test]
fn and_all_of_it_as_an_ordinary_user() {
    nobody::run_all_but("and_all_of_it_as_an_ordinary_user");
}
