//! A kernel goes through all of it, page by page, and adds one to every number.
//!
//! The floor is what a program does without shared addresses: two buffers, each half of the device's
//! memory; one thread copies the next part in and the last one out while another works on the part between.
//! The work on a page is the same on both sides, to the instruction: its numbers are copied out of the
//! device's memory, changed, and copied back.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::super::memory::{Area, Backing};
use super::super::report::Rows;
use super::super::{BenchError, Context, NewRow};
use super::{DEVICE, Ours, PAGES, expect, few, once_each};

/// Pages of each of the floor's two buffers.
const BUFFER: usize = DEVICE / 2;

/// Numbers that are worked on at a time: what the smallest page has, so they divide any.
const PIECE: usize = (4 << 10) / size_of::<u64>();

/// All of it, page after page.
pub(in super::super) fn stream(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let context = &few(context);
    let [ours, floor] = Area::filled([PAGES; 2], context.page, Backing::BasePages)?;
    let ours = Ours::open(ours, context)?;
    let buffers = Buffers::of(floor);
    let (page, numbers) = (context.page, context.page.bytes() / size_of::<u64>());
    let address = ours.area.pointer(0, PAGES).addr().get();
    let by_device = || {
        let start = Instant::now();
        ours.run(PAGES, move |worker, item| {
            let mut piece = [0_u64; PIECE];
            for first in (0..numbers).step_by(PIECE) {
                let at = address + page.bytes_in(item) + first * size_of::<u64>();
                // SAFETY: as said at `Ours::run`.
                unsafe { worker.load_slice(at, &mut piece) }?;
                change(&mut piece, first);
                // SAFETY: as above.
                unsafe { worker.store_slice(at, &piece) }?;
            }
            Ok(())
        })?;
        Ok([per_page(start)])
    };
    let by_hand = || {
        let start = Instant::now();
        buffers.stream()?;
        Ok([per_page(start)])
    };
    let pair = once_each(context, by_device, by_hand)?;
    let rounds = u64::from(context.rounds_in_all());
    let area = ours.close()?;
    for (name, area) in [("ours", &area), ("the floor", &buffers.area)] {
        check(name, area, |_| rounds)?;
    }
    rows.add(row("all pages in order", "ns a page", Some(1.3)).measured(pair));
    Ok(())
}

/// What is done to a piece of the numbers of a page, from its number `first` on: all but the page's
/// mark are changed.
fn change(piece: &mut [u64; PIECE], first: usize) {
    for number in &mut piece[usize::from(first == 0)..] {
        *number = number.wrapping_add(1);
    }
}

/// An error where a page has lost its mark or a number is not `expected`.
fn check(name: &str, area: &Area, expected: impl Fn(usize) -> u64) -> Result<(), BenchError> {
    let numbers = area.page_size().bytes() / size_of::<u64>();
    for page in 0..area.pages() {
        area.touch(page)?;
        for number in [1, numbers / 2, numbers - 1] {
            expect(name, area.word(page, number).load(Relaxed), expected(page))?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per_page(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / PAGES as f64
}

/// The floor of the stream: memory of the program, which is copied into one of two buffers and out
/// again.
struct Buffers {
    area: Area,
    numbers: usize,
    /// Those that nobody works on: both, between two rounds.
    free: Cell<Vec<Vec<u64>>>,
}

/// A buffer on its way: the first page of the area that it is of, and its content.
struct Part {
    first: usize,
    content: Vec<u64>,
}

impl Buffers {
    fn of(area: Area) -> Self {
        let numbers = area.page_size().bytes() / size_of::<u64>();
        let free = (0..2).map(|_| vec![0; BUFFER * numbers]).collect();
        Self { area, numbers, free: Cell::new(free) }
    }

    /// One thread copies, one works; each buffer goes to and fro between them.
    fn stream(&self) -> Result<(), BenchError> {
        let numbers = self.numbers;
        let (to_work, work) = mpsc::channel::<Part>();
        let (to_copy, done) = mpsc::channel::<Part>();
        let ended = || BenchError::failed("the floor cannot be measured", "its thread ended");
        thread::scope(move |scope| {
            // Its thread ends when no part can come any more.
            let to_work = to_work;
            scope.spawn(move || {
                for mut part in work {
                    for page in part.content.chunks_mut(numbers) {
                        let mut piece = [0_u64; PIECE];
                        for (number, in_buffer) in page.chunks_mut(PIECE).enumerate() {
                            piece.copy_from_slice(in_buffer);
                            change(&mut piece, number * PIECE);
                            in_buffer.copy_from_slice(&piece);
                        }
                    }
                    if to_copy.send(part).is_err() {
                        break;
                    }
                }
            });
            let mut free = self.free.take();
            let mut under_way = 0;
            for first in (0..PAGES).step_by(BUFFER) {
                let mut content = match free.pop() {
                    Some(content) => content,
                    None => self.copy_out(done.recv().map_err(|_| ended())?),
                };
                under_way = 2.min(under_way + 1);
                self.area.read(first, &mut content);
                to_work.send(Part { first, content }).map_err(|_| ended())?;
            }
            for _ in 0..under_way {
                free.push(self.copy_out(done.recv().map_err(|_| ended())?));
            }
            self.free.set(free);
            Ok(())
        })
    }

    fn copy_out(&self, part: Part) -> Vec<u64> {
        self.area.write(part.first, &part.content);
        part.content
    }
}
