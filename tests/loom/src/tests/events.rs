//! Events come out whole, each once, those of a thread in their order; what finds no room is counted;
//! and a queue that was taken away is nobody's.

use loom::{sync::Arc, thread};

use crate::{
    engine_memory::EngineMemory,
    events::{
        outlet::Outlet,
        queue::{Queue, Taker},
    },
};

fn queue(capacity: usize) -> Queue {
    let Ok(queue) = Queue::new(&EngineMemory, capacity);
    queue
}

/// Takes all there is now, and checks that each event is whole and comes after those of its thread.
fn take_all(queue: &Queue, taker: &mut Taker, last: &mut [u64; 2]) -> u64 {
    let mut taken = 0;
    while let Some(words) = queue.take(taker) {
        let [thread, number, same, copy] = words;
        assert!(number == same && number == copy, "half an event: {words:?}");
        let before = &mut last[usize::try_from(thread).unwrap()];
        assert!(number > *before, "{number} of thread {thread} after {before}");
        *before = number;
        taken += 1;
    }
    taken
}

#[test]
fn two_push_while_one_takes() {
    loom::model(|| {
        let queue = Arc::new(queue(2));
        let others = [0, 1].map(|number| {
            let queue = Arc::clone(&queue);
            // The one pushes twice, the other once: a slot is used in two laps.
            thread::spawn(move || {
                for event in 1..=2 - number {
                    queue.push([number, event, event, event]);
                }
            })
        });
        let (mut taker, mut last) = (Taker::default(), [0; 2]);
        let mut taken = take_all(&queue, &mut taker, &mut last);
        for other in others {
            other.join().unwrap();
        }
        taken += take_all(&queue, &mut taker, &mut last);
        assert_eq!(taken + queue.lost(), 3, "each came out, or was counted");
    });
}

#[test]
fn nobody_uses_a_queue_that_was_taken_away() {
    loom::model(|| {
        let outlet = Arc::new(Outlet::new());
        let mut first = queue(2);
        // SAFETY: it lives until the end of the function.
        assert!(unsafe { outlet.start(&raw mut first) });
        let others = [0, 1].map(|number| {
            let outlet = Arc::clone(&outlet);
            thread::spawn(move || outlet.push([number, 1, 1, 1]))
        });
        outlet.stop();
        let (mut taker, mut last) = (Taker::default(), [0; 2]);
        take_all(&first, &mut taker, &mut last);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(first.take(&mut taker), None, "pushed after the end");
        assert!(!outlet.is_on());
    });
}
