//! What the model does, call by call, on several threads, and against an oracle.

#[cfg(not(shuttle))]
mod bulk;
mod in_place;
#[cfg(not(any(shuttle, miri)))]
mod oracle;
#[cfg(not(shuttle))]
mod program;
mod threads;

use super::{Model, areas::READ_WRITE};
use crate::{
    mm::{Backing, Mm as _, Protection},
    units::{PageNumber, PageRange},
};

const READ_ONLY: Protection = Protection { read: true, write: false, execute: false };
const NONE: Protection = Protection { read: false, write: false, execute: false };

#[cfg(not(shuttle))]
fn model() -> Model {
    Model::new(super::ModelOptions::default())
}

fn range(start: usize, end: usize) -> PageRange {
    PageRange::new(PageNumber(start), PageNumber(end))
}

fn address(model: &Model, page: PageNumber) -> usize {
    model.page_size().address_of(page)
}

/// Maps private anonymous memory at `pages`.
fn map(model: &Model, pages: PageRange) {
    let mapped = model.map(Some(pages.start()), pages.len(), READ_WRITE, Backing::PrivateAnonymous);
    assert_eq!(mapped, Ok(pages));
}

/// Maps private anonymous memory at `pages`, traps it, and makes each page one whose bytes are all
/// its number.
fn map_trapped(model: &Model, pages: PageRange) {
    map(model, pages);
    for page in pages.pages() {
        store(model, page, number(page));
    }
    model.trap(pages).unwrap();
}

fn number(page: PageNumber) -> u8 {
    u8::try_from(page.0 % 256).unwrap()
}

fn store(model: &Model, page: PageNumber, byte: u8) {
    let data = vec![byte; model.page_size().bytes()];
    model.store(address(model, page), &data).unwrap();
}

fn load(model: &Model, page: PageNumber) -> u8 {
    let mut data = vec![0; model.page_size().bytes()];
    model.load(address(model, page), &mut data).unwrap();
    assert!(data.iter().all(|&byte| byte == data[0]), "a mixed page: {data:?}");
    data[0]
}
