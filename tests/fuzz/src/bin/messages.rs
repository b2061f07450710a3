//! Any words as a message between a program and a device process: what is let through names only what there is,
//! and is written as it was read; and what may be said is understood.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uhmm::{
    FaultAccess,
    ring::{Command, Limits, Order, Report, Words},
    units::{BLOCK_PAGES, PageNumber, PageRange},
};
use uhmm_fuzz::Input;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut size = || usize::try_from(input.number(&[])).expect("64 bits");
    let (frames, kernels, workers, pages) = (size(), size(), size(), size());
    let limits = Limits { frames, kernels, workers, pages, page_bytes: 1 << input.below(20) };
    let sizes = [frames, kernels, workers, pages, BLOCK_PAGES];
    let known = sizes.map(|size| size as u64);
    while !input.is_empty() {
        let kinds = [1, 2, 3, 16, 17, 18, 32, 33, 34, 0, 255];
        let kind = kinds[input.below(kinds.len())];
        let mut words: Words = [0; 8];
        words[0] = kind | input.number(&[]) << 8;
        let count = input.below(8);
        words[1..=count].fill_with(|| input.number(&known));
        heard(words, &limits);
    }
});

fn heard(words: Words, limits: &Limits) {
    let within = |pages: PageRange| {
        assert!(!pages.is_empty() && pages.end() <= PageNumber(limits.pages));
        assert!(pages.start().in_block() + pages.len() <= BLOCK_PAGES);
    };
    if let Ok(command) = Command::parse(words, limits) {
        assert_eq!(command.encode(), words);
        match command {
            Command::Commit { pages, frame, .. } => {
                within(pages);
                assert!(frame.checked_add(pages.len()).is_some_and(|end| end <= limits.frames));
            }
            Command::Invalidate { pages } => within(pages),
            Command::Stop => {}
        }
    }
    if let Ok(order) = Order::parse(words, limits) {
        assert_eq!(order.encode(), words);
        if let Order::Launch { kernel, first, count, .. } = order {
            assert!(kernel < limits.kernels && first.checked_add(count).is_some());
        }
    }
    if let Ok(report) = Report::parse(words, limits) {
        assert_eq!(report.encode(), words);
        let (Report::Fault { worker, .. }
        | Report::Done { worker }
        | Report::Failed { worker, .. }) = report;
        assert!(worker < limits.workers);
        if let Report::Fault { address, .. } = report {
            assert!(address / limits.page_bytes < limits.pages);
        }
    }
    said(words, limits);
}

/// Makes a message that may be said of some words, if they are enough for one.
fn said(words: Words, limits: &Limits) {
    let [head, one, two, three, four, five, six, seven] = words;
    let flag = head >> 8 & 1 == 1;
    let below = |word: u64, limit: usize| word.checked_rem(limit as u64).map(|word| word as usize);
    if let (Some(first), Some(frame)) = (below(one, limits.pages), below(three, limits.frames)) {
        let first = PageNumber(first);
        let most = (BLOCK_PAGES - first.in_block()).min(limits.pages - first.0);
        let most = most.min(limits.frames - frame);
        let pages = PageRange::of(first, 1 + below(two, most).expect("one fits"));
        let commit = Command::Commit { pages, frame, write: flag };
        assert_eq!(Command::parse(commit.encode(), limits), Ok(commit));
        let invalidate = Command::Invalidate { pages };
        assert_eq!(Command::parse(invalidate.encode(), limits), Ok(invalidate));
    }
    if let Some(kernel) = below(one, limits.kernels) {
        let count = three.min(u64::MAX - two);
        let launch =
            Order::Launch { kernel, first: two, count, arguments: [four, five, six, seven] };
        assert_eq!(Order::parse(launch.encode(), limits), Ok(launch));
    }
    let served = Order::Served { commands: one };
    assert_eq!(Order::parse(served.encode(), limits), Ok(served));
    let refused = Order::Refused { cause: None };
    assert_eq!(Order::parse(refused.encode(), limits), Ok(refused));
    let Some(worker) = below(three, limits.workers) else { return };
    if let Some(address) = below(one, limits.pages.saturating_mul(limits.page_bytes)) {
        let accesses =
            [FaultAccess::Prefetch, FaultAccess::Read, FaultAccess::Write, FaultAccess::Atomic];
        let fault = Report::Fault { worker, address, access: accesses[two as usize % 4] };
        assert_eq!(Report::parse(fault.encode(), limits), Ok(fault));
    }
    let done = Report::Done { worker };
    assert_eq!(Report::parse(done.encode(), limits), Ok(done));
    let failed = Report::Failed { worker, item: one, error: [two, four, five, six, seven] };
    assert_eq!(Report::parse(failed.encode(), limits), Ok(failed));
}
