//! Whether it works, by trying: pages go to a device, are used there, and come back.

use std::time::Instant;

use uhmm::AddressSpace;
use uhmm::units::AddressRange;
use uhmm_soft::{InOut, Options, Soft, Worker};

/// Enough for a few whole pages, of any size.
const NUMBERS: usize = 1 << 16;

/// Says what was done, or why it could not be.
pub(super) fn try_all() -> Result<String, String> {
    let began = Instant::now();
    let space = AddressSpace::open().map_err(|error| error.to_string())?;
    let done = double(&space);
    let closed = space.close().map_err(|error| error.to_string());
    let pages = done?;
    closed?;
    Ok(format!(
        "{pages} pages went to a device, were used there and came back, in {:.1} ms.",
        began.elapsed().as_secs_f64() * 1e3
    ))
}

/// Has a device double numbers, and answers how many pages went there.
fn double(space: &AddressSpace) -> Result<u64, String> {
    let mut numbers: Vec<u64> = (0..NUMBERS as u64).collect();
    let size = space.page_size();
    let all = AddressRange::of_slice(&numbers).map_err(|error| error.to_string())?;
    let whole =
        AddressRange::of_pages(all.pages_within(size), size).map_err(|error| error.to_string())?;
    space.adopt(whole).map_err(|error| error.to_string())?;
    let device =
        Soft::start(space, Options::new(whole.len())).map_err(|error| error.to_string())?;
    let kernel = |worker: &mut Worker<'_>, item, numbers: &InOut<u64>| {
        let number = numbers.get(worker, item)?;
        numbers.set(worker, item, 2 * number)
    };
    device.launch(0..NUMBERS, kernel, &mut numbers[..]).map_err(|error| error.to_string())?;
    let counters = space.counters();
    drop(device);
    if numbers.iter().zip(0..).any(|(&number, place)| number != 2 * place) {
        return Err("a device computed something else than it should".to_owned());
    }
    let went = counters.to_device_fault + counters.to_device_neighbour;
    if went == 0 { Err("no page went to the device".to_owned()) } else { Ok(went) }
}
