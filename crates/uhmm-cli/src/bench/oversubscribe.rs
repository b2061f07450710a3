//! `oversubscribe_stream` and `oversubscribe_random`: a device works on four times as much as its
//! memory holds.

mod random;
mod stream;

use uhmm::AddressSpace;
use uhmm_soft::{Options, Soft};

use super::engine::{close_space, open_space};
use super::memory::Area;
use super::rounds::Pair;
use super::{BenchError, Context};

pub(super) use random::random;
pub(super) use stream::stream;

/// Pages that the device's memory holds.
const DEVICE: usize = 1024;

/// Pages that it works on.
const PAGES: usize = 4 * DEVICE;

/// Rounds take long: one for each ten that were asked for.
fn few<'a>(context: &Context<'a>) -> Context<'a> {
    Context { rounds: context.rounds.div_ceil(10), ..*context }
}

/// Our side: an address space, a device with little memory, and the area.
struct Ours {
    soft: Soft,
    space: AddressSpace,
    area: Area,
}

impl Ours {
    fn open(area: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let space = open_space()?;
        context.cpus.main.bind_handlers()?;
        let options = Options::new(context.page.bytes_in(DEVICE)).keep_pages();
        let soft = Soft::start(&space, options)
            .map_err(BenchError::while_doing("the device cannot be started"))?;
        space
            .adopt(area.all()?)
            .map_err(BenchError::while_doing("the memory cannot be adopted"))?;
        Ok(Self { soft, space, area })
    }

    /// Has the kernel run once for each item.
    fn run<K>(&self, items: usize, kernel: K) -> Result<(), BenchError>
    where
        K: Fn(&mut uhmm_soft::Worker<'_>, usize) -> Result<(), uhmm_soft::AccessError>
            + Send
            + Sync
            + 'static,
    {
        // SAFETY: callers' kernels touch numbers of the area, which lives until this returns, and
        // nobody else touches them meanwhile.
        unsafe { self.soft.run(0..items, kernel) }
            .map_err(BenchError::while_doing("the device cannot work on the memory"))
    }

    fn close(self) -> Result<Area, BenchError> {
        let Self { soft, space, area } = self;
        drop(soft);
        close_space(space)?;
        Ok(area)
    }
}

fn once_each(
    context: &Context<'_>,
    mut ours: impl FnMut() -> Result<[f64; 1], BenchError>,
    mut floor: impl FnMut() -> Result<[f64; 1], BenchError>,
) -> Result<Pair, BenchError> {
    let [pair] = context.in_turns(&mut ours, &mut floor)?;
    Ok(pair)
}

fn expect(name: &str, found: u64, expected: u64) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    let what = format!("{name} has {found} where {expected} was to be");
    Err(BenchError::failed("the measurement is void", what))
}
