//! A program whose device process means it no good: it says and writes what it likes, between the steps of the program
//! and wherever the program waits for it, hangs, and dies. It gets what launches name and what was moved there; it is
//! believed as long as what it says makes sense, and not beyond; what it did not have stays what it is.
#![no_main]

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use uhmm::{
    Options,
    mm::model::{Model, ModelOptions},
    ring::Limits,
    units::{BLOCK_PAGES, PageSize},
};
use uhmm_fuzz::Input;
use uhmm_soft::{
    self as soft, ARGUMENTS, AccessError, Bus, Kernel, KernelStartError, Soft, Worker,
    fuzzing::{self, Between, Program},
};

#[path = "../host/memory.rs"]
mod memory;
#[path = "../host/process.rs"]
mod process;
#[path = "../host/run.rs"]
mod run;

use memory::{Memory, PAGE, PAGES, World};
use process::{Process, with};
use run::Run;

const MOST_WORKERS: usize = 3;

/// What the program's side knows of kernels: their names, and how many there are.
static KERNELS: &[Kernel] =
    &[Kernel { name: "one", run: unused }, Kernel { name: "other", run: unused }];

fn unused(_: &mut Worker<'_>, _: usize, _: &[u64; ARGUMENTS]) -> Result<(), AccessError> {
    unreachable!("kernels run in the other process")
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    fuzzing::play(process::turn);
    let page_size = PageSize::new(PAGE).expect("a power of two");
    let pages = 4 * BLOCK_PAGES;
    let staging_pages = 64 * BLOCK_PAGES;
    let options = ModelOptions { page_size, pages, staging_pages, ..ModelOptions::default() };
    let model = Model::new(options);
    let space = Options::new().engine_memory(256 << 20).open_on(model.clone());
    let space = space.expect("an address space");
    let others =
        [soft::Options::new(24 * PAGE), soft::Options::new(24 * PAGE).behind_bus(Bus::new())]
            .map(|options| Soft::start(&space, options).expect("a device"));
    World { model, space, others }
});

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    // SAFETY: the bytes outlive the run, which ends with this call.
    let data: &'static [u8] = unsafe { &*std::ptr::from_ref(data) };
    let mut input = Input(data);
    let limits = Limits {
        frames: 1 + input.below(2 * PAGES),
        kernels: KERNELS.len(),
        workers: 1 + input.below(MOST_WORKERS),
        pages: world.space.page_limit().0,
        page_bytes: PAGE,
    };
    let how = input.byte();
    let obliges = how & 1 == 1;
    let patience = if how & 2 == 2 { Duration::ZERO } else { Duration::from_secs(3600) };
    let between = Arc::new(Between::new(&limits, KERNELS));
    let mut process = Process::new(&between, limits, input, obliges);
    process.is_honest &= !patience.is_zero();
    process::set(Some(process));
    let mut memory = Memory::map(world);
    let started = Program::start(&world.space, &between, limits, patience, |program| {
        let mut run = Run::new(program, &mut memory, &between, limits);
        while !with(|process| process.input.is_empty()) {
            run.step();
        }
        run.end();
    });
    memory.check_all(with(|process| process.is_honest), with(|process| process.wrote));
    match started {
        Ok(()) => {}
        Err(KernelStartError::Refused | KernelStartError::NotReady { .. }) => {
            assert!(!with(|process| process.is_honest), "it was ready");
        }
        Err(error) => panic!("{error}"),
    }
    memory.unmap();
    process::set(None);
});
