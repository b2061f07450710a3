//! The thread that moves everything about.

use std::{collections::BTreeMap, fs};

use uhmm::{Migration, StayCause, units::AddressRange};

use crate::{
    random::Random,
    work::{Job, World},
};

/// The most bytes that one request is for.
const MOST: usize = 32 << 20;

/// A line of `/proc/self/maps` that is private anonymous memory for reading and writing.
fn parse(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let writable = fields.next()? == "rw-p";
    let anonymous = fields.nth(2)? == "0";
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    (writable && anonymous && !line.contains("[v")).then_some((start, end))
}

/// Some pages of an area, all of them as a rule.
fn choose(random: &mut Random, start: usize, end: usize, page: usize) -> AddressRange {
    let pages = (end - start) / page;
    let (first, count) = if pages * page > MOST || random.one_in(4) {
        let first = random.below(pages);
        (first, 1 + random.below((pages - first).min(MOST / page)))
    } else {
        (0, pages)
    };
    AddressRange::new(start + first * page, count * page).expect("a part of an area")
}

fn check(report: &Migration, range: AddressRange, page: usize) {
    let told = report.moved() + report.already() + report.stayed();
    assert_eq!(told, range.len() / page, "each page of {range} is reported once: {report:?}");
}

pub(crate) fn run(mut job: Job, world: &World) {
    let space = &world.space;
    let page = space.page_size().bytes();
    let mut stayed = BTreeMap::<String, usize>::new();
    let mut moved = 0;
    loop {
        let adopted = space.adopt_everything().expect("everything can be adopted");
        assert!(adopted.areas() > 0, "the heap is adopted");
        let maps = fs::read_to_string("/proc/self/maps").expect("the areas can be read");
        for (start, end) in maps.lines().filter_map(parse) {
            let range = choose(&mut job.random, start, end, page);
            match job.random.below(8) {
                choice @ 0..=5 => {
                    let report = world.devices[choice % 2].migrate(range).expect("whole pages");
                    check(&report, range, page);
                    moved += report.moved();
                    for left in report.causes() {
                        *stayed.entry(name(left.cause)).or_default() += left.pages.len();
                    }
                }
                6 => drop(space.bring_back(range).expect("whole pages")),
                _ => {
                    let device = &world.devices[job.random.below(2)];
                    drop(device.bring_back(range).expect("whole pages"));
                }
            }
        }
        if job.random.one_in(16) {
            let areas: Vec<_> = maps.lines().filter_map(parse).collect();
            let (start, end) = areas[job.random.below(areas.len())];
            let range = AddressRange::new(start, end - start).expect("an area");
            let _held = world.adoption.lock().expect("not poisoned");
            space.release(range).expect("it can be noted");
        }
        if !job.goes_on() {
            break;
        }
    }
    println!("{moved} pages moved to a device on request; pages that stayed:");
    for (cause, pages) in stayed {
        println!("{pages:>12} {cause}");
    }
}

fn name(cause: StayCause) -> String {
    cause.to_string()
}
