//! The picture: addresses from top to bottom, time from left to right, and in each cell how much of
//! its pages a device held for how much of its time.
//!
//! Only pages that ever moved have a place, so the gaps between areas take no room; where one is left
//! out a line says so.

use super::holdings::{self, Pages};
use super::recorded::Recorded;

const COLUMNS: usize = 960;
const MOST_ROWS: usize = 384;

/// What the picture shows.
pub(super) struct Picture {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) pages_a_row: usize,
    /// Of each row the number of its first page.
    pub(super) first_pages: Vec<usize>,
    /// Of each device, by number, the cells row by row: 255 where it held all pages all the time.
    pub(super) devices: Vec<(usize, Vec<u8>)>,
}

/// One device's pages in one row, as time goes on.
#[derive(Clone, Copy, Default)]
struct Now {
    pages: usize,
    since: u64,
}

impl Picture {
    pub(super) fn of(recorded: &Recorded) -> Self {
        let pages = Pages::of(recorded);
        let (start, end) = recorded.span();
        let length = (end - start).max(1);
        let pages_a_row = pages.len().div_ceil(MOST_ROWS).max(1);
        let rows = pages.len().div_ceil(pages_a_row);
        let numbers = holdings::devices(recorded);
        // Pages times nanoseconds.
        let mut held = vec![vec![0_u128; rows * COLUMNS]; numbers.len()];
        let mut now = vec![vec![Now { pages: 0, since: start }; rows]; numbers.len()];
        let mut spread = |device: usize, row: usize, now: &mut Now, time: u64| {
            if now.pages > 0 {
                let cells = &mut held[device][row * COLUMNS..][..COLUMNS];
                add(cells, now.pages, now.since - start, time - start, length);
            }
            now.since = time;
        };
        holdings::follow(recorded, &pages, |time, place, before, after| {
            let row = place / pages_a_row;
            for (device, number) in numbers.iter().enumerate() {
                let is = |holder: u8| usize::from(holder) == number + 1;
                if is(before) || is(after) {
                    let now = &mut now[device][row];
                    spread(device, row, now, time);
                    now.pages = if is(after) { now.pages + 1 } else { now.pages.saturating_sub(1) };
                }
            }
        });
        for (device, rows) in now.iter_mut().enumerate() {
            for (row, now) in rows.iter_mut().enumerate() {
                spread(device, row, now, end);
            }
        }
        let full = |row: usize| {
            let pages = pages_a_row.min(pages.len() - row * pages_a_row);
            (pages as u128 * u128::from(length) / COLUMNS as u128).max(1)
        };
        let devices = numbers.into_iter().zip(held).map(|(number, cells)| {
            let share = |(cell, &held): (usize, &u128)| {
                u8::try_from((held * 255 / full(cell / COLUMNS)).min(255)).unwrap_or(255)
            };
            (number, cells.iter().enumerate().map(share).collect())
        });
        Self {
            columns: COLUMNS,
            rows,
            pages_a_row,
            first_pages: (0..rows).filter_map(|row| pages.page_at(row * pages_a_row)).collect(),
            devices: devices.collect(),
        }
    }
}

/// Adds `pages` for the time between two moments to the cells of a row that lasts `length`.
fn add(cells: &mut [u128], pages: usize, from: u64, to: u64, length: u64) {
    let columns = cells.len() as u128;
    let edge = |column: usize| {
        u64::try_from(column as u128 * u128::from(length) / columns).unwrap_or(length)
    };
    let at =
        |time: u64| usize::try_from(u128::from(time) * columns / u128::from(length)).unwrap_or(0);
    let last = at(to).min(cells.len() - 1);
    for (column, cell) in cells.iter_mut().enumerate().take(last + 1).skip(at(from).min(last)) {
        let (start, end) = (edge(column).max(from), edge(column + 1).min(to));
        *cell += u128::from(end.saturating_sub(start)) * pages as u128;
    }
}

#[cfg(test)]
mod tests {
    use super::add;

    #[test]
    fn time_is_spread_over_its_cells() {
        let mut cells = [0; 4];
        add(&mut cells, 2, 5, 25, 40);
        assert_eq!(cells, [10, 20, 10, 0]);
        add(&mut cells, 1, 25, 40, 40);
        assert_eq!(cells, [10, 20, 15, 10]);
        add(&mut cells, 1, 40, 40, 40);
        assert_eq!(cells, [10, 20, 15, 10]);
    }

    #[test]
    fn cells_of_an_uneven_length_hold_all_of_it() {
        let mut cells = [0; 7];
        add(&mut cells, 3, 0, 100, 100);
        assert_eq!(cells.iter().sum::<u128>(), 300);
    }
}
