//! Pictures of what is made up, and of what is seen.

use proptest::prelude::*;
use uhmm::units::PageSize;
use uhmm::{Latency, MAX_DEVICES};

use super::sample::{DeviceLine, most_of};
use super::*;

fn change() -> Change {
    let mut blocks = vec![[0; MAX_DEVICES]; 10];
    blocks[3][0] = 512;
    blocks[4][1] = 100;
    Change {
        state: "runs",
        is_alive: true,
        page: PageSize::new(4096).unwrap(),
        counters: vec![
            ("cpu_faults", 120, Some(7.0)),
            ("device_faults", 99, Some(55.5)),
            ("most_turns_waited", 11, None),
        ],
        latencies: vec![(
            Latency::CpuFault,
            12,
            Duration::from_micros(7),
            Duration::from_micros(99),
        )],
        devices: vec![
            DeviceLine { number: 0, frames: 1024, held: 512, lost: false },
            DeviceLine { number: 1, frames: 64, held: 64, lost: true },
        ],
        blocks,
        adopted: 5120,
        blocks_left_out: 0,
    }
}

#[test]
fn everything_is_in_the_picture() {
    let text = text(4711, &change(), (100, 32));
    for part in [
        "process 4711 runs",
        "adopted 20.00 MiB",
        "2.00 MiB of 4.00 MiB",
        "lost",
        "addresses, 2.00 MiB each",
        "···█░·····",
        "CPU fault",
        "7.00 µs",
        "99.0 µs",
        "device faults",
        "cpu faults",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    // The most that was seen has no rate.
    let most = text.lines().find(|line| line.contains("most turns waited")).unwrap();
    assert_eq!(most.split_whitespace().collect::<Vec<_>>(), ["│most", "turns", "waited", "11│"]);
    // What happens most comes first.
    assert!(text.find("device faults").unwrap() < text.find("cpu faults").unwrap());
}

#[test]
fn a_program_that_has_ended_is_shown_as_such() {
    let ended = Change { state: "has ended", is_alive: false, ..change() };
    assert!(text(1, &ended, (80, 24)).contains("process 1 has ended"));
}

#[test]
fn the_device_with_the_most_is_shown() {
    let mut blocks = [[0; MAX_DEVICES]; 2];
    assert_eq!(most_of(&blocks), None);
    blocks[0][2] = 256;
    blocks[1][1] = 255;
    assert_eq!(most_of(&blocks), Some((2, 0.25)));
}

#[test]
fn intervals_are_not_too_short() {
    assert_eq!(parse_seconds("0.5"), Ok(0.5));
    for wrong in ["", "0", "-1", "NaN", "inf", "1e9", "0.01", "x"] {
        assert_eq!(parse_seconds(wrong), Err(NotAnInterval), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // What a program shows may be anything, and a terminal of any size.
    #[test]
    fn any_size_and_any_numbers_are_drawn(
        width in 0_u16..200,
        height in 0_u16..80,
        frames: usize,
        held: usize,
        pages in proptest::collection::vec(any::<u16>(), 0..500),
    ) {
        let blocks = pages.iter().map(|&pages| [pages; MAX_DEVICES]).collect();
        let device = DeviceLine { number: 15, frames: frames >> 20, held: held >> 20, lost: false };
        let drawn = Change { blocks, devices: vec![device], ..change() };
        text(7, &drawn, (width, height));
    }
}
