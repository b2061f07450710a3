//! A counted value is seen whole by all who have a reference, and dropped once, after all of them.

use loom::{
    sync::{Arc, Mutex},
    thread,
};

use super::Owned;
use crate::{
    engine_memory::EngineMemory,
    shared::Shared,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

struct Value {
    content: Owned,
    /// One for each thread to change.
    parts: [Owned; 2],
    dropped: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        assert_eq!(self.content.replace(|_| 0), 7);
        // What each did with its reference comes before.
        let parts = self.parts.each_ref().map(|part| part.replace(|_| 0));
        self.dropped.fetch_add(1 + parts.iter().sum::<usize>() * 10, Relaxed);
    }
}

fn value() -> (Shared<Value>, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let parts = [Owned::new(0), Owned::new(0)];
    let value = Value { content: Owned::new(7), parts, dropped: Arc::clone(&dropped) };
    let Ok(shared) = Shared::try_new(value, &EngineMemory);
    (shared, dropped)
}

#[test]
fn two_threads_clone_and_drop_it() {
    loom::model(|| {
        let (shared, dropped) = value();
        let others = [0, 1].map(|part| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mine = shared.clone();
                drop(shared);
                assert_eq!(mine.content.look(), 7);
                mine.parts[part].replace(|_| 1);
            })
        });
        drop(shared);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(dropped.load(Relaxed), 21, "dropped once, with what both did");
    });
}

#[test]
fn a_reference_is_handed_on() {
    loom::model(|| {
        let (shared, dropped) = value();
        let place = Arc::new(Mutex::new(None));
        let taker = {
            let place = Arc::clone(&place);
            thread::spawn(move || {
                let taken: Option<Shared<Value>> = place.lock().unwrap().take();
                taken.map(|shared| shared.content.look())
            })
        };
        shared.parts[0].replace(|_| 1);
        *place.lock().unwrap() = Some(shared.clone());
        drop(shared);
        let seen = taker.join().unwrap();
        assert!(matches!(seen, None | Some(7)));
        let left = place.lock().unwrap().take();
        assert_eq!(left.is_some(), seen.is_none());
        drop(left);
        assert_eq!(dropped.load(Relaxed), 11);
    });
}
