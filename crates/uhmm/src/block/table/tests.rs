//! What was made is found, in order, and nothing else.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use super::{BlockTable, LEAF_BLOCKS, LEAF_PAGES};
use crate::{
    testing::{alone, memory},
    units::{BLOCK_PAGES, BlockNumber, PageNumber, PageRange},
};

#[test]
fn blocks_that_were_made_are_found_in_order() {
    alone(|| {
        let memory = memory();
        let table = BlockTable::new(&memory, PageNumber(10 * LEAF_PAGES)).unwrap();
        for leaf in [1, 2, 5, 9] {
            let block = BlockNumber(leaf * LEAF_BLOCKS);
            let made = table.get_or_make(block).unwrap().unwrap();
            assert!(core::ptr::eq(made, table.get(block).unwrap()));
        }
        assert!(table.get_or_make(BlockNumber(1 << 40)).unwrap().is_none(), "beyond the limit");
        let inside_leaves = LEAF_PAGES + BLOCK_PAGES + 3;
        for (start, end) in [
            (0, 10 * LEAF_PAGES),
            (inside_leaves, inside_leaves + 1),
            (inside_leaves, 5 * LEAF_PAGES + 1),
            (3 * LEAF_PAGES - 1, 5 * LEAF_PAGES),
            (6 * LEAF_PAGES + 1, 9 * LEAF_PAGES),
            (9 * LEAF_PAGES + 1, 10 * LEAF_PAGES),
            (7, 7),
        ] {
            let pages = PageRange::new(PageNumber(start), PageNumber(end));
            let expected = pages
                .by_block()
                .filter_map(|part| Some((table.get(part.start().block())?, part)))
                .map(|(block, part)| (core::ptr::from_ref(block), part));
            let found =
                table.existing(pages).map(|(block, part)| (core::ptr::from_ref(block), part));
            assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{pages}");
        }
    });
}
