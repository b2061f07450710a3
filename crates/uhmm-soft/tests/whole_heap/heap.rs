//! What programs do with a heap.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc},
    collections::HashMap,
    slice,
};

use crate::{
    random::{byte, check, fill, lost, mix, note},
    work::Job,
};

/// Makes the C library map blocks of 256 KiB and more for all time: else it learns from what is
/// freed to map ever fewer.
pub(crate) fn keep_mapping_large_blocks() {
    // SAFETY: a setting of the allocator, which may be made at any time.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10) };
}

/// Many blocks of all sizes, allocated and freed in no order.
pub(crate) fn boxes(mut job: Job) {
    let mut held: Vec<(Box<[u8]>, u64)> = Vec::new();
    let mut words: Vec<(String, u64)> = Vec::new();
    while job.goes_on() {
        for _ in 0..64 {
            let seed = job.random.next();
            let len = 1 << job.random.below(17);
            let mut bytes = vec![0; len + job.random.below(len)].into_boxed_slice();
            fill(&mut bytes, seed, 0);
            held.push((bytes, seed));
            words.push((format!("{seed:x} and {seed}"), seed));
        }
        while held.len() > 600 {
            let (bytes, seed) = held.swap_remove(job.random.below(held.len()));
            check("a box", &bytes, seed, 0);
            let (word, seed) = words.swap_remove(job.random.below(words.len()));
            if word != format!("{seed:x} and {seed}") {
                lost("a string", word.as_ptr().addr(), word.len() as u64);
            }
        }
    }
}

/// Vectors that grow by pushing, and shrink.
pub(crate) fn vectors(mut job: Job) {
    let number = |seed: u64, place: usize| mix(seed ^ place as u64);
    let mut vectors: Vec<(Vec<u64>, u64)> = (0..8).map(|seed| (Vec::new(), seed << 32)).collect();
    while job.goes_on() {
        let chosen = job.random.below(vectors.len());
        let (vector, seed) = &mut vectors[chosen];
        note(format!("a vector at {:?} of {}", vector.as_ptr(), vector.capacity()));
        if vector.len() < 1 << 18 && !job.random.one_in(4) {
            for _ in 0..=job.random.below(1 << 14) {
                vector.push(number(*seed, vector.len()));
            }
        } else {
            vector.truncate(job.random.below(vector.len() + 1));
            vector.shrink_to_fit();
        }
        let wrong =
            vector.iter().enumerate().filter(|&(place, &found)| found != number(*seed, place));
        let places: Vec<usize> = wrong.map(|(place, _)| place).collect();
        if let (Some(&first), Some(&last)) = (places.first(), places.last()) {
            note(format!("now at {:?} of {}", vector.as_ptr(), vector.capacity()));
            note(format!("{} of {} numbers, {first} to {last}", places.len(), vector.len()));
            lost("a number of a vector", (&raw const vector[first]).addr(), vector[first]);
        }
    }
}

/// A map that is inserted into and removed from.
pub(crate) fn maps(mut job: Job) {
    let mut map: HashMap<u64, Vec<u8>> = HashMap::new();
    while job.goes_on() {
        for _ in 0..256 {
            let key = job.random.next() % 20_000;
            let len = usize::from(byte(key, 1000));
            if let Some(value) = map.remove(&key) {
                check("a value of a map", &value, key, 0);
                if value.len() != len {
                    lost("the length of a value of a map", value.as_ptr().addr(), key);
                }
            } else {
                let mut value = vec![0; len];
                fill(&mut value, key, 0);
                map.insert(key, value);
            }
        }
        if job.random.one_in(100) {
            map.shrink_to_fit();
        }
    }
}

/// Large blocks that are reallocated: the C library remaps their pages.
pub(crate) fn blocks(mut job: Job) {
    let layout = |bytes| Layout::from_size_align(bytes, 16).expect("a small alignment");
    let mut bytes = 300 << 10;
    // SAFETY: the layout is not empty.
    let mut block = unsafe { alloc(layout(bytes)) };
    let mut filled = 0;
    let seed = mix(77);
    while job.goes_on() {
        if block.is_null() {
            handle_alloc_error(layout(bytes));
        }
        // SAFETY: the block has so many bytes, all but the last of which were written to before;
        // the rest is written to first.
        unsafe { block.add(filled).write_bytes(1, bytes - filled) };
        // SAFETY: as above; nobody else has the block.
        let content = unsafe { slice::from_raw_parts_mut(block, bytes) };
        fill(&mut content[filled..], seed, filled);
        if job.random.one_in(8) {
            check("a block", content, seed, 0);
        } else {
            let from = job.random.below(bytes);
            let end = bytes.min(from + 10_000);
            check("a block", &content[from..end], seed, from);
        }
        let wanted = (1 << 17) + job.random.below(6 << 20);
        // SAFETY: the block was allocated with this layout; the new size is not zero.
        block = unsafe { realloc(block, layout(bytes), wanted) };
        filled = bytes.min(wanted);
        bytes = wanted;
    }
    // SAFETY: the block was allocated with this layout.
    unsafe { dealloc(block, layout(bytes)) };
}

/// Much is freed at once, and the C library gives memory back to the system.
pub(crate) fn trim(mut job: Job) {
    while job.goes_on() {
        let mut held: Vec<(Vec<u8>, u64)> = (0..200)
            .map(|_| {
                let seed = job.random.next();
                let mut bytes = vec![0; 1 + job.random.below(60_000)];
                fill(&mut bytes, seed, 0);
                (bytes, seed)
            })
            .collect();
        // Every other one stays, for gaps that can be given back within what stays.
        let mut place = 0;
        held.retain(|_| {
            place += 1;
            place % 2 == 0
        });
        // SAFETY: it gives back what nobody uses, and may be called at any time.
        unsafe { libc::malloc_trim(0) };
        for (bytes, seed) in held {
            check("a vector behind a gap", &bytes, seed, 0);
        }
    }
}
