//! What is at pages and areas, without touching them.

use std::ops::ControlFlow;

use rustix::mm::{Advice, MapFlags, MprotectFlags};
use uhmm::{
    mm::{Access, Backing, Look, Mapping, Mm, Presence, Protection, linux::Linux},
    units::{PageNumber, PageRange},
};

use crate::kinds::{self, Kind, PAGES};
use crate::memory::Memory;
use crate::support::{Child, all, fact, look, skip};

/// Runs of a scan, those that are alike joined: where they start, counted from the first page, and
/// what is there.
fn runs(linux: &Linux, pages: PageRange) -> Vec<(usize, Presence)> {
    let mut next = pages.start();
    let mut runs: Vec<(usize, Presence)> = Vec::new();
    linux
        .scan(pages, &mut |run, presence| {
            assert!(!run.is_empty());
            assert_eq!(run.start(), next, "in order, without gaps");
            next = run.end();
            if runs.last().is_none_or(|last| last.1 != presence) {
                runs.push((run.start().since(pages.start()), presence));
            }
        })
        .unwrap();
    assert_eq!(next, pages.end());
    runs
}

const fn own(look: Look) -> Presence {
    Presence { look, file: false }
}

const HOLE: Presence = own(Look::Hole);
const PRESENT: Presence = own(Look::Present);
const CACHED: Presence = Presence { look: Look::Present, file: true };

#[test]
fn a_scan_tells_what_is_there() {
    fact("a_scan_tells_what_is_there", |linux| {
        let memory = Memory::new(linux, 16);
        assert_eq!(runs(linux, memory.pages), [(0, HOLE)]);
        memory.write(3, 1);
        memory.write(4, 1);
        memory.peek(6);
        assert_eq!(
            runs(linux, memory.pages),
            [(0, HOLE), (3, PRESENT), (5, HOLE), (6, own(Look::Zero)), (7, HOLE)]
        );
        assert_eq!(runs(linux, memory.part(4, 1).pages), [(0, PRESENT)]);
        assert_eq!(runs(linux, PageRange::default()), []);
        linux.watch(memory.pages).unwrap();
        if linux.poison(memory.page(8), 2) == all(2) {
            let marks = runs(linux, memory.part(7, 4).pages);
            if marks[1].1.look == Look::Swapped {
                return skip("a_scan_tells_what_is_there", "marks look like swapped pages");
            }
            assert_eq!(marks, [(0, HOLE), (1, own(Look::Poisoned)), (3, HOLE)]);
        }
        linux.untrap(memory.pages).unwrap();
        memory.unmap();
        assert_eq!(runs(linux, memory.pages), [(0, HOLE)], "where nothing is mapped");
    });
}

#[test]
fn a_scan_tells_pages_of_files() {
    fact("a_scan_tells_pages_of_files", |linux| {
        for mapped in kinds::each(linux) {
            let (kind, memory) = (mapped.kind, mapped.memory);
            let found = runs(linux, memory.pages);
            let look = if kind.is_hugetlb() { Look::PresentHuge } else { found[0].1.look };
            assert_eq!(found, [(0, Presence { look, file: !kind.is_private() })], "{kind:?}");
        }
        let memory = Memory::new(linux, 8);
        memory
            .map_file(
                MapFlags::PRIVATE,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                kinds::file(linux, 8),
            )
            .unwrap();
        assert_eq!(linux.populate(memory.pages, Access::Read).pages, 8);
        memory.write(2, 1);
        assert_eq!(runs(linux, memory.pages), [(0, CACHED), (2, PRESENT), (3, CACHED)]);
    });
}

#[test]
fn a_scan_of_many_runs_is_whole() {
    fact("a_scan_of_many_runs_is_whole", |linux| {
        let memory = Memory::new(linux, 1201);
        for i in (0..1201).step_by(2) {
            memory.write(i, 1);
        }
        let found = runs(linux, memory.pages);
        assert_eq!(found.len(), 1201);
        for (i, &(start, presence)) in found.iter().enumerate() {
            assert_eq!((start, presence), (i, if i % 2 == 0 { PRESENT } else { HOLE }));
        }
        let looks = look(linux, memory.pages);
        assert!((0..1201).all(|i| looks[i] == found[i].1.look));
    });
}

#[test]
fn a_scan_tells_parts_of_huge_pages() {
    fact("a_scan_tells_parts_of_huge_pages", |linux| {
        let huge = |file| Presence { look: Look::PresentHuge, file };
        for kind in [Kind::SharedHugetlb, Kind::PrivateHugetlb] {
            let Some(mapped) = kinds::map(linux, kind, PAGES) else { continue };
            mapped.memory.poke(0, 1);
            let part = PageRange::of(mapped.memory.page(500), 24);
            assert_eq!(runs(linux, part), [(0, huge(!kind.is_private())), (12, HOLE)]);
        }
        let memory = Memory::new(linux, 512);
        memory.advise(Advice::LinuxHugepage);
        memory.fill();
        if look(linux, memory.pages)[0] != Look::PresentHuge {
            return skip("a_scan_tells_parts_of_huge_pages", "no huge page is to be had");
        }
        assert_eq!(runs(linux, memory.part(5, 9).pages), [(0, huge(false))]);
    });
}

#[test]
fn what_may_be_written_is_ours_alone() {
    fact("what_may_be_written_is_ours_alone", |linux| {
        let may = |memory: Memory| {
            let mut all = Vec::new();
            linux
                .may_write(memory.page(0), memory.pages.len(), &mut |_, may| all.push(may))
                .unwrap();
            all
        };
        let memory = Memory::new(linux, 600);
        memory.part(0, 300).fill();
        memory.peek(400);
        let expected = |place: usize| place < 300;
        assert!(may(memory).iter().enumerate().all(|(place, &may)| may == expected(place)));
        let child = Child::fork();
        assert_eq!(may(memory), [false; 600]);
        memory.write(7, 1);
        assert!(may(memory).iter().enumerate().all(|(place, &may)| may == (place == 7)));
        // As soon as the child has gone a store breaks nothing, though the page is still marked.
        drop(child);
        assert!(may(memory)[8]);
        for mapped in kinds::each(linux) {
            let expected = mapped.kind.is_private();
            assert!(may(mapped.memory).iter().all(|&may| may == expected), "{:?}", mapped.kind);
        }
        let cached = Memory::new(linux, 4);
        cached.map_file_over(kinds::file(linux, 4));
        assert_eq!(linux.populate(cached.pages, Access::Read).pages, 4);
        assert_eq!(may(cached), [false; 4]);
    });
}

#[test]
fn a_lookup_tells_an_area_of_every_kind() {
    fact("a_lookup_tells_an_area_of_every_kind", |linux| {
        for mapped in kinds::each(linux) {
            let (kind, memory) = (mapped.kind, mapped.memory);
            let found = linux.mapping_at(memory.page(7)).unwrap().unwrap();
            let protection = Protection { read: true, write: true, execute: false };
            let order = if kind.is_hugetlb() { found.page_order } else { 0 };
            let expected = Mapping {
                pages: memory.pages,
                protection,
                backing: kind.backing(),
                page_order: order,
            };
            assert_eq!(found, expected, "{kind:?}");
            assert_eq!(kind.is_hugetlb(), order > 0 && PAGES.is_multiple_of(1 << order));
        }
    });
}

#[test]
fn a_lookup_tells_what_an_area_is_now() {
    fact("a_lookup_tells_what_an_area_is_now", |linux| {
        let memory = Memory::new(linux, 8);
        let at = |place| linux.mapping_at(memory.page(place)).unwrap();
        memory.part(2, 2).protect(MprotectFlags::READ);
        let found = at(3).unwrap();
        assert_eq!(found.pages, memory.part(2, 2).pages);
        assert!(found.protection.read && !found.protection.write);
        memory.part(5, 1).unmap();
        assert_eq!(at(5), None);
        assert_eq!(at(6).unwrap().pages, memory.part(6, 2).pages);
        let from = |place| linux.area_from(memory.page(place)).unwrap();
        assert_eq!(from(3), Some(memory.part(2, 2).pages));
        assert_eq!(from(5), Some(memory.part(6, 2).pages), "the next");
        assert_eq!(linux.mapping_at(PageNumber(0)).unwrap(), None);
        let last = PageNumber(linux.page_limit().0 - 1);
        assert_eq!(linux.mapping_at(last).unwrap(), None);
        let code = linux.page_size().page_of(runs as *const () as usize);
        let code = linux.mapping_at(code).unwrap().unwrap();
        assert_eq!(code.backing, Backing::PrivateFile);
        assert!(code.protection.execute);
    });
}

#[test]
fn lookups_and_the_list_of_areas_agree() {
    fact("lookups_and_the_list_of_areas_agree", |linux| {
        let _each: Vec<_> = kinds::each(linux).collect();
        let mut areas = Vec::new();
        let everything = PageRange::new(PageNumber(0), linux.page_limit());
        linux
            .areas(everything, &mut |area| {
                areas.push(*area);
                ControlFlow::Continue(())
            })
            .unwrap();
        let mut same = 0;
        for area in &areas {
            // Heaps and stacks change as this runs.
            let Some(found) = linux.mapping_at(area.pages.start()).unwrap() else { continue };
            if found.pages == area.pages {
                assert_eq!(
                    (found.backing, found.protection),
                    (area.backing, area.protection),
                    "{area:?}"
                );
                same += 1;
            }
        }
        assert!(same * 10 > areas.len() * 9, "{same} of {}", areas.len());
    });
}
