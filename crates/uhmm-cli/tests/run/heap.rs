//! Work on a heap of the allocator of the test that this is a part of, alone and under chaos.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fs;
use std::path::Path;
use std::thread;

#[path = "library.rs"]
mod library;

/// Threads that allocate, resize, hand over and free, and look at what they have.
pub(super) fn work() {
    let rounds = 150_u64;
    let threads: Vec<_> = (0..4_u64)
        .map(|thread| {
            thread::spawn(move || {
                let mut kept: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
                let mut names: HashMap<String, Box<[u64]>> = HashMap::new();
                let mut number = thread + 1;
                let mut next = || {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    number >> 33
                };
                for round in 0..rounds * 200 {
                    let (key, len) = (next() % 300, next() % 3000);
                    let list = kept.entry(key).or_default();
                    if let Some(&first) = list.first() {
                        assert!(list.iter().zip(first..).all(|(&is, shall)| is == shall));
                    }
                    let first = round * 7;
                    list.clear();
                    list.extend(first..first + len);
                    list.shrink_to_fit();
                    if let Some(old) = names.insert(format!("{key}-{len}"), vec![key; 40].into()) {
                        assert!(old.iter().all(|&is| is == key));
                    }
                    if round % 1000 == 0 {
                        // A big one, as allocators map it.
                        let mut big = vec![round; 1 << 18];
                        big.resize(1 << 19, round + 1);
                        assert!(big[..1 << 18].iter().all(|&is| is == round));
                        assert!(big[1 << 18..].iter().all(|&is| is == round + 1));
                        names.retain(|name, list| name.starts_with(&format!("{}-", list[0])));
                    }
                }
                kept
            })
        })
        .collect();
    for thread in threads {
        let kept = thread.join().expect("it finds what it left");
        for list in kept.values().filter(|list| !list.is_empty()) {
            assert!(list.iter().zip(list[0]..).all(|(&is, shall)| is == shall));
        }
    }
}

/// Has this program do its work, which is the test `alone`, under chaos.
pub(super) fn under_chaos(name: &str) {
    let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stats-{name}.json"));
    let output = library::uhmm()
        .args(["run", "--chaos", "2000", "--stats"])
        .arg(&stats)
        .arg("--")
        .arg(env::current_exe().expect("this program is somewhere"))
        .args(["alone", "--exact"])
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    let stats = fs::read_to_string(stats).expect("it was written");
    let stats: serde_json::Value = serde_json::from_str(&stats).expect("it is JSON");
    // Its heap was away in good part.
    assert!(stats["counters"]["to_device_request"].as_u64() > Some(1000), "{stats}");
    assert!(stats["counters"]["cpu_faults"].as_u64() > Some(100), "{stats}");
}
