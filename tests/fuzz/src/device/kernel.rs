//! A kernel that does what the bytes say, and holds what comes of it against the page table as it has to be.

use uhmm_soft::{ARGUMENTS, AccessError, Worker};

use crate::{
    At,
    program::{Program, some_page},
    with,
};

#[derive(Clone, Copy, Debug)]
enum Kind {
    Load,
    Store,
    Add,
    Read,
    Write,
    Ahead,
}

/// An access of so many bytes.
#[derive(Clone, Copy, Debug)]
struct Access {
    kind: Kind,
    address: usize,
    len: usize,
}

/// How many bytes are read or written at a time at most.
const MOST: usize = 32;

pub fn run(
    worker: &mut Worker<'_>,
    item: usize,
    arguments: &[u64; ARGUMENTS],
) -> Result<(), AccessError> {
    for _ in 0..4 {
        let Some((access, turns)) = with(|program| next(program, item, arguments)) else {
            return Err(AccessError::GivenUp { address: item });
        };
        let Access { kind, address, len } = access;
        let mut bytes = [0x5a ^ item as u8; MOST];
        let bytes = &mut bytes[..len];
        let number = u64::from_le_bytes([0xab; 8]) ^ address as u64;
        // SAFETY: what is reached is the memory that both processes have, of which nobody has a reference.
        let result = unsafe {
            match kind {
                Kind::Load => worker.load(address).map(|number: u64| {
                    bytes.copy_from_slice(&number.to_ne_bytes());
                }),
                Kind::Store => {
                    bytes.copy_from_slice(&number.to_ne_bytes());
                    worker.store(address, number)
                }
                Kind::Add => worker.fetch_add(address, 1_u64).map(|before| {
                    bytes.copy_from_slice(&before.wrapping_add(1).to_ne_bytes());
                }),
                Kind::Read => worker.read(address, bytes),
                Kind::Write => worker.write(address, bytes),
                Kind::Ahead => {
                    worker.prefetch(address, len << 12);
                    continue;
                }
            }
        };
        with(|program| done(program, access, turns, bytes, result));
        result?;
    }
    Ok(())
}

/// What a kernel is to do next, and how often it was the program's turn until now.
fn next(program: &mut Program, item: usize, arguments: &[u64; 4]) -> Option<(Access, usize)> {
    if !program.goes_on() {
        return None;
    }
    let page_bytes = program.limits.page_bytes;
    let input = &mut program.input;
    let kinds = [Kind::Load, Kind::Store, Kind::Add, Kind::Read, Kind::Write, Kind::Ahead];
    let kind = kinds[input.below(kinds.len())];
    let len = match kind {
        Kind::Load | Kind::Store | Kind::Add => 8,
        Kind::Read | Kind::Write | Kind::Ahead => 1 + input.below(MOST),
    };
    let page = some_page(input) * page_bytes;
    let address = match input.byte() % 8 {
        0 => arguments[0].wrapping_add(item as u64) as usize,
        1 => input.number(&[u64::MAX]) as usize,
        2 => page + input.below(page_bytes),
        3 => page + page_bytes - 8,
        _ => page + input.below(page_bytes / 8) * 8,
    };
    // What is written lies in one page, so that it is known where it went.
    let in_page = page_bytes - address % page_bytes;
    let (address, len) = match kind {
        Kind::Store => (address & !7, len),
        Kind::Write => (address, len.min(in_page)),
        _ => (address, len),
    };
    Some((Access { kind, address, len }, program.turns))
}

/// That an access went where it had to, or had to fail.
fn done(
    program: &mut Program,
    access: Access,
    turns: usize,
    bytes: &[u8],
    result: Result<(), AccessError>,
) {
    let Access { kind, address, len } = access;
    let Some(&At::Worker(worker)) = program.at.last() else { panic!("a worker runs kernels") };
    let page_bytes = program.limits.page_bytes;
    let quiet = program.turns == turns;
    let writes = matches!(kind, Kind::Store | Kind::Add | Kind::Write);
    let Some(end) = address.checked_add(len) else {
        return assert!(result.is_err(), "{access:x?} wraps");
    };
    // An access is of each page for itself, and it is not known where a page was as it was its turn.
    let one_page = address / page_bytes == (end - 1) / page_bytes;
    let places = (address..end).map(|at| {
        let entry = program.table.get(&(at / page_bytes));
        let entry = entry.filter(|(_, writable)| *writable || !writes);
        entry.map(|(frame, _)| frame * page_bytes + at % page_bytes)
    });
    let places: Option<Vec<_>> = places.collect();
    let pages = [address / page_bytes, (end - 1) / page_bytes];
    let (may, sure) = pages
        .map(|page| program.is_given(worker, page))
        .into_iter()
        .fold((true, true), |(may, sure), (may_one, sure_one)| (may && may_one, sure && sure_one));
    let aligned = !matches!(kind, Kind::Add) || address.is_multiple_of(8);
    if let Err(error) = result {
        let had_to = places.is_some() && sure && aligned && quiet;
        return assert!(!had_to, "{access:x?}: {error}");
    }
    assert!(may && aligned, "{access:x?} is not of what the launch names");
    if !one_page && !quiet {
        // Of the page before it is known no more that it was there.
        return;
    }
    let places = places.unwrap_or_else(|| panic!("{access:x?} has no translation"));
    for &at in [places.first(), places.last()].into_iter().flatten() {
        program.shadow.used(at / page_bytes, writes);
    }
    let mut there: Vec<_> = places.iter().map(|&at| program.shadow.byte(at)).collect();
    if let (Kind::Add, Ok(before)) = (kind, <[u8; 8]>::try_from(&there[..])) {
        there = u64::from_ne_bytes(before).wrapping_add(1).to_ne_bytes().to_vec();
    }
    if matches!(kind, Kind::Load | Kind::Read | Kind::Add) {
        assert_eq!(bytes, there, "{access:x?}, at {:#x} of the frames", places[0]);
    }
    for (&at, &byte) in places.iter().zip(bytes) {
        program.shadow.store(at, &[byte]);
    }
}
