//! Mirrors end: by being dropped, from within their own callback, and with the address space.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize, atomic::Ordering::SeqCst};

use uhmm::{Entries, Invalidation, InvalidationKind, Mirror, PageError, PageTable, Request};

use crate::{memory::anonymous, open};

#[test]
fn after_the_address_space_closes_everything_is_an_error() {
    let Some(world) = open("after_the_address_space_closes_everything_is_an_error") else {
        return;
    };
    let area = anonymous(4);
    world.mirror.fault(&Request::read(area.range())).expect("a request");
    world.mirror.table().take();
    world.space.close().expect("a close");
    let told = world.mirror.table().take_invalidations();
    assert!(
        told.iter().all(|(_, kind)| *kind == InvalidationKind::Release) && !told.is_empty(),
        "{told:?}"
    );
    let report = world.mirror.fault(&Request::read(area.range())).expect("a request");
    let failure = report.failures().next().expect("a failure");
    assert_eq!((report.failed(), failure.error), (4, PageError::Closed));
}

/// A table that drops its own mirror as it is told of an end.
#[derive(Default)]
struct Dropper {
    own: Arc<Mutex<Option<Mirror<Dropper>>>>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Dropper {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

// SAFETY: it has no translations and touches no memory through any; the heap that it uses is adopted
// by nobody in these tests, and dropping a mirror is no call of the core that it waits for.
unsafe impl PageTable for Dropper {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {
        drop(self.own.lock().unwrap_or_else(PoisonError::into_inner).take());
        assert_eq!(self.dropped.load(SeqCst), 0, "it is dropped when no call runs any more");
    }
}

#[test]
fn a_mirror_is_dropped_by_its_own_table() {
    let Some(world) = open("a_mirror_is_dropped_by_its_own_table") else { return };
    let area = anonymous(4);
    let table = Dropper::default();
    let (own, dropped) = (Arc::clone(&table.own), Arc::clone(&table.dropped));
    let mirror = world.space.mirror(area.range(), table).expect("a mirror");
    mirror.fault(&Request::read(area.range())).expect("a request");
    *own.lock().unwrap_or_else(PoisonError::into_inner) = Some(mirror);
    area.unmap(0, 1);
    world.mirror.snapshot(area.range(), &mut [uhmm::PageEntry::default(); 4]).expect("a look");
    assert!(own.lock().unwrap_or_else(PoisonError::into_inner).is_none());
    // It is dropped with no lock held, by who comes by.
    drop(world.mirror);
    assert_eq!(dropped.load(SeqCst), 1);
    world.space.close().expect("a close");
}
