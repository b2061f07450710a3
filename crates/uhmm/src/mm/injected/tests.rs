//! Calls fail when asked to, and do the rest of their work.

use super::*;
use crate::mm::{
    Backing, Protection,
    model::{Model, ModelOptions},
};

const READ_WRITE: Protection = Protection { read: true, write: true, execute: false };

fn range(start: usize, end: usize) -> PageRange {
    PageRange::new(PageNumber(start), PageNumber(end))
}

/// Four pages, trapped, all touched before.
fn injected() -> (Injected<Model>, Injections, PageRange) {
    let model = Model::new(ModelOptions::default());
    let pages = range(0, 4);
    let mapped = model.map(Some(pages.start()), 4, READ_WRITE, Backing::PrivateAnonymous);
    assert_eq!(mapped, Ok(pages));
    assert_eq!(model.populate(pages, Access::Write).failure, None);
    model.trap(pages).unwrap();
    let injected = Injected::new(model);
    let injections = injected.injections();
    (injected, injections, pages)
}

#[test]
fn a_bulk_call_does_what_comes_before_its_failure() {
    let (mm, injections, pages) = injected();
    let staging = mm.map_staging(4).unwrap();
    let errno = Errno(5);
    injections.inject(Call::Take, 2, Failure::Stop { after: 1, stop: Stop::NoMemory });
    injections.inject(Call::Take, 3, Failure::Errno(errno));
    let take = |place, count| {
        let done = mm.take(pages.start().plus(place), staging.start().plus(place), count);
        (done.pages, done.stop)
    };
    assert_eq!(take(0, 1), (1, None));
    assert_eq!(take(1, 2), (1, Some(Stop::NoMemory)));
    assert_eq!(take(2, 2), (0, Some(Stop::Other(errno))));
    injections.inject(Call::Take, 1, Failure::Stop { after: 3, stop: Stop::NoMemory });
    assert_eq!(take(2, 2), (2, None), "it came no further");
    assert_eq!(injections.calls(Call::Take), 4);
}

#[test]
fn populating_does_what_comes_before_its_failure() {
    let (mm, injections, pages) = injected();
    let populate = |count| {
        let done = mm.populate(PageRange::of(pages.start(), count), Access::Write);
        (done.pages, done.failure)
    };
    let failure = PopulateFailure::NoMemory;
    injections.inject(Call::Populate, 1, Failure::Populate { after: 3, failure });
    assert_eq!(populate(4), (3, Some(failure)));
    injections.inject(Call::Populate, 1, Failure::Populate { after: 3, failure });
    assert_eq!(populate(2), (2, None), "it came no further");
    injections.inject(Call::Populate, 1, Failure::Errno(Errno(5)));
    assert_eq!(populate(2), (0, Some(PopulateFailure::Other(Errno(5)))));
}

#[test]
fn what_fails_as_a_whole_does_nothing() {
    let (mm, injections, pages) = injected();
    let errno = Errno(5);
    let staging = mm.map_staging(1).unwrap();
    // Children are filled where there are some: that is tried with forks.
    for call in Call::ALL.into_iter().filter(|&call| call != Call::FillChild) {
        injections.inject(call, 1, Failure::Errno(errno));
    }
    let other = Some(Stop::Other(errno));
    let refused = Err(TrapError::Other(pages, errno));
    assert_eq!(mm.areas(pages, &mut |_| panic!("nothing is visited")), Err(errno));
    assert_eq!(mm.exclusions(true, &mut |_, _| panic!("nothing is visited")), Err(errno));
    assert_eq!(mm.trap(pages), refused);
    assert_eq!(mm.watch(pages), refused);
    assert_eq!(mm.untrap(pages), Err(errno));
    assert_eq!(mm.mapping_at(pages.start()), Err(errno));
    assert_eq!(mm.area_from(pages.start()), Err(errno));
    assert_eq!(mm.scan(pages, &mut |_, _| panic!("nothing is visited")), Err(errno));
    assert_eq!(mm.may_write(pages.start(), 1, &mut |_, _| panic!("nothing is told")), Err(errno));
    assert_eq!(mm.take(pages.start(), staging.start(), 1).stop, other);
    assert_eq!(mm.give(staging.start(), pages.start(), 1).stop, other);
    assert_eq!(mm.copy(staging.start(), pages.start(), 1).stop, other);
    assert_eq!(mm.copy_block(staging.start(), pages.start()).stop, other);
    assert_eq!(mm.zero(staging.start(), 1, Access::Write).stop, other);
    assert_eq!(mm.zero_block(staging.start(), None).stop, other);
    assert_eq!(mm.poison(pages.start(), 1).stop, other);
    assert_eq!(mm.look(pages.start(), &mut []), Err(errno));
    assert_eq!(mm.unshare(pages), Err(errno));
    assert_eq!(mm.map_staging(1), Err(errno));
    assert_eq!(mm.bind_staging(staging, NumaNode(0)), Err(errno));
    // SAFETY: nobody uses the memory.
    assert_eq!(unsafe { mm.empty_staging(staging) }, Err(errno));
    assert_eq!(mm.reserve_addresses(1), Err(errno));
    assert_eq!(mm.reserve_aliases(), Err(errno));
    // SAFETY: each is refused.
    unsafe {
        assert_eq!(mm.alias(pages, staging.start()), Err(errno));
        assert_eq!(mm.end_alias(pages), Err(errno));
        assert_eq!(mm.set_aside(pages), Err(errno));
        assert_eq!(mm.put_back(staging.start(), pages), Err(errno));
        assert_eq!(mm.end_aside(staging), Err(errno));
        assert_eq!(mm.make_anonymous(pages), Err(errno));
    }
    assert_eq!(mm.is_alone(0), Err(errno));
    assert_eq!(mm.is_alias(pages, staging.start()), Err(errno));
    assert_eq!(mm.vacate(pages, staging.start()), Err(errno));
    // SAFETY: it is made to fail.
    assert_eq!(unsafe { mm.vacate_undisturbed(pages) }, Err(errno));
    let populated = mm.populate_alias(pages);
    assert_eq!(populated.failure, Some(PopulateFailure::Other(errno)));
    assert_eq!(mm.open_accessor().map(drop), Err(errno));
    let accessor = mm.open_accessor().unwrap();
    assert_eq!(mm.renew_accessor(&accessor), Err(errno));
    mm.close_accessor(accessor);
    assert_eq!(mm.tell_forks(), Err(errno));
    assert_eq!(mm.set_inherited(pages, false), Err(errno));
    let populated = mm.populate(pages, Access::Write);
    assert_eq!(populated.failure, Some(PopulateFailure::Other(errno)));
    assert_eq!(injections.clear(), 0, "each has come");
    assert_eq!(mm.look(pages.start(), &mut []), Ok(()));
}
