//! Which of many ranges overlap one: the innermost loop of a search.
//!
//! All places of a node are compared, with no branch: a wrong guess at one would cost more than the
//! comparisons that it saves. Vector units compare signed numbers best, so most trees have those.

use core::iter::zip;

/// The number of a page, as a tree keeps it.
pub(super) trait Bound: Copy + Ord + Default {
    /// A bit for each place at which `starts` and `lasts` have the first and the last page of a
    /// range with a page from `start` to `last`. There are less than 64 places, a multiple of four;
    /// the bits behind them mean nothing.
    fn overlapping<const N: usize>(
        starts: &[Self; N],
        lasts: &[Self; N],
        start: Self,
        last: Self,
    ) -> u64;
}

impl Bound for usize {
    fn overlapping<const N: usize>(
        starts: &[Self; N],
        lasts: &[Self; N],
        start: Self,
        last: Self,
    ) -> u64 {
        portable(starts, lasts, start, last)
    }
}

impl Bound for i32 {
    fn overlapping<const N: usize>(
        starts: &[Self; N],
        lasts: &[Self; N],
        start: Self,
        last: Self,
    ) -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every processor of this architecture has SSE2.
        return unsafe { sse2(starts, lasts, start, last) };
        #[cfg(not(target_arch = "x86_64"))]
        portable(starts, lasts, start, last)
    }
}

/// Places that make a vector of bits of 32 bits each.
const PART: usize = 32;

/// The bit of each place of a part: compilers make better vectors of a table than of shifts.
const BITS: [u32; PART] = {
    let mut bits = [0; PART];
    let mut place = 0;
    while place < PART {
        bits[place] = 1 << place;
        place += 1;
    }
    bits
};

fn portable<K: Copy + Ord>(starts: &[K], lasts: &[K], start: K, last: K) -> u64 {
    let mut all = 0;
    for (part, (starts, lasts)) in zip(starts.chunks(PART), lasts.chunks(PART)).enumerate() {
        let mut bits = 0;
        for ((&from, &to), &bit) in zip(zip(starts, lasts), &BITS) {
            bits |= if from > last || start > to { 0 } else { bit };
        }
        all |= u64::from(bits) << (part * PART);
    }
    all
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn sse2<const N: usize>(starts: &[i32; N], lasts: &[i32; N], start: i32, last: i32) -> u64 {
    use core::arch::x86_64::{
        _mm_castsi128_ps, _mm_cmpgt_epi32, _mm_movemask_ps, _mm_or_si128, _mm_set_epi32,
        _mm_set1_epi32,
    };
    // The compiler makes one load of this.
    let vector = |&[a, b, c, d]: &[i32; 4]| _mm_set_epi32(d, c, b, a);
    let (start, last) = (_mm_set1_epi32(start), _mm_set1_epi32(last));
    let mut misses = 0;
    let fours = zip(starts.as_chunks::<4>().0, lasts.as_chunks::<4>().0);
    for (four, (starts, lasts)) in fours.enumerate() {
        let after = _mm_cmpgt_epi32(vector(starts), last);
        let miss = _mm_or_si128(after, _mm_cmpgt_epi32(start, vector(lasts)));
        let bits = _mm_movemask_ps(_mm_castsi128_ps(miss)).cast_unsigned();
        misses |= u64::from(bits) << (4 * four);
    }
    !misses
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    #![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

    use proptest::prelude::*;

    use super::{Bound, portable};
    use crate::testing::cases;

    const PLACES: usize = if cfg!(miri) { 8 } else { 60 };

    fn number() -> impl Strategy<Value = i32> {
        prop_oneof![6 => -20..20, 1 => any::<i32>(), 1 => Just(i32::MIN), 1 => Just(i32::MAX)]
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn all_ways_see_the_same(
            ranges in proptest::collection::vec((number(), number()), PLACES),
            (start, last) in (number(), number()),
        ) {
            let starts = core::array::from_fn::<_, PLACES, _>(|at| ranges[at].0);
            let lasts = core::array::from_fn::<_, PLACES, _>(|at| ranges[at].1);
            let overlaps = |&at: &usize| starts[at] <= last && start <= lasts[at];
            let expected: u64 = (0..PLACES).filter(overlaps).map(|at| 1 << at).sum();
            let places = (1 << PLACES) - 1;
            assert_eq!(i32::overlapping(&starts, &lasts, start, last) & places, expected);
            assert_eq!(portable(&starts, &lasts, start, last) & places, expected);
        }
    }
}
