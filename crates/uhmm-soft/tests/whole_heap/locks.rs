//! Threads that wait for each other, on words and buffers that lie on the heap.

use std::{
    collections::VecDeque,
    sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc},
    thread,
};

use crate::{
    random::{check, fill, lost},
    work::Job,
};

/// Content with its seed, or the end.
type Item = Option<(Vec<u8>, u64)>;

struct Queue {
    items: Mutex<VecDeque<Item>>,
    changed: Condvar,
}

const LIMIT: usize = 16;

impl Queue {
    fn push(&self, item: Item) {
        let mut items = self.items.lock().expect("not poisoned");
        while items.len() >= LIMIT {
            items = self.changed.wait(items).expect("not poisoned");
        }
        items.push_back(item);
        drop(items);
        self.changed.notify_all();
    }

    fn pop(&self) -> Item {
        let mut items = self.items.lock().expect("not poisoned");
        loop {
            if let Some(item) = items.pop_front() {
                drop(items);
                self.changed.notify_all();
                return item;
            }
            items = self.changed.wait(items).expect("not poisoned");
        }
    }
}

/// A bounded queue under a mutex with a condition, a lock for readers and writers, and a barrier.
pub(crate) fn condition(mut job: Job) {
    let queue = Arc::new(Queue { items: Mutex::default(), changed: Condvar::new() });
    let table = Arc::new(RwLock::new(vec![0_u64; 4096]));
    let barrier = Arc::new(Barrier::new(3));
    let consumers: Vec<_> = (0..2)
        .map(|_| {
            let (queue, table, barrier) = (queue.clone(), table.clone(), barrier.clone());
            thread::spawn(move || {
                while let Some((bytes, seed)) = queue.pop() {
                    check("an item of a queue", &bytes, seed, 0);
                    let table = table.read().expect("not poisoned");
                    if let Some(&odd) = table.iter().find(|&&number| number != table[0]) {
                        lost("a table under a lock", table.as_ptr().addr(), odd);
                    }
                }
                barrier.wait();
            })
        })
        .collect();
    while job.goes_on() {
        for _ in 0..32 {
            let seed = job.random.next();
            let mut bytes = vec![0; 1 + job.random.below(9000)];
            fill(&mut bytes, seed, 0);
            queue.push(Some((bytes, seed)));
        }
        for number in table.write().expect("not poisoned").iter_mut() {
            *number += 1;
        }
    }
    for _ in &consumers {
        queue.push(None);
    }
    barrier.wait();
    for consumer in consumers {
        consumer.join().expect("no panic");
    }
}

/// Messages go round a ring of threads.
pub(crate) fn channels(mut job: Job) {
    let (first, mut last) = mpsc::channel::<(String, u64)>();
    let mut stations = Vec::new();
    for _ in 0..3 {
        let (to, from) = mpsc::sync_channel(8);
        let before = std::mem::replace(&mut last, from);
        stations.push(thread::spawn(move || {
            for (text, seed) in before {
                if text != seed.to_string() {
                    lost("a message", text.as_ptr().addr(), seed);
                }
                let seed = seed.wrapping_add(1);
                if to.send((seed.to_string(), seed)).is_err() {
                    break;
                }
            }
        }));
    }
    while job.goes_on() {
        let seed = job.random.next();
        for number in 0..50 {
            let seed = seed.wrapping_add(number);
            first.send((seed.to_string(), seed)).expect("the ring is there");
        }
        for number in 0..50 {
            let (text, found) = last.recv().expect("the ring is there");
            let expected = seed.wrapping_add(number).wrapping_add(3);
            if found != expected || text != expected.to_string() {
                lost("a message that went round", text.as_ptr().addr(), found);
            }
        }
    }
    drop(first);
    for station in stations {
        station.join().expect("no panic");
    }
}
