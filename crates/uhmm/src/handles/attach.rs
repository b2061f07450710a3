//! A device is attached: its memory is mapped, set aside where it is to be, and made known.

use core::{mem::ManuallyDrop, ptr::NonNull};

use thiserror::Error;

use super::{Attachment, attachment::Inner};
use crate::{
    device::{Copying, DeviceState, Kind, set_aside},
    driver::{Device, MAX_DEVICES},
    engine::{Engine, SpaceRef},
    engine_box_as,
    engine_memory::{EngineBox, EngineMemoryError, SpawnError, thread},
    mirror::Table,
    mm::{Errno, Mm, Stop},
    policy,
    shared::Shared,
    sync::{Lock, SignalsBlocked},
    units::{NumaNode, PageRange},
};

/// Why a device could not be attached.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AttachError {
    /// a device without memory
    #[error("a device needs at least one frame of memory")]
    NoFrames,
    /// more memory than can be numbered
    #[error("a device cannot have {frames} frames: {most} at most")]
    TooManyFrames {
        /// Frames asked for.
        frames: usize,
        /// The most that there can be.
        most: usize,
    },
    /// as many devices are attached as there can be
    #[error("{MAX_DEVICES} devices are attached already: detach one first")]
    TooManyDevices,
    /// the memory cannot be mapped, or that on the way to it
    #[error("memory of {frames} frames for a device cannot be mapped: {errno}")]
    Staging {
        /// Frames to be mapped.
        frames: usize,
        /// The system's error.
        errno: Errno,
    },
    /// the system gives no memory of the node
    #[error("memory of NUMA node {node} is not to be had: {errno}")]
    Node {
        /// The node.
        node: NumaNode,
        /// The system's error: `EINVAL` where there is no such node, or the process may not use it.
        errno: Errno,
    },
    /// the system has not the memory that is to be set aside for the device's frames
    #[error("memory of {frames} frames is not to be had for a device: the system gives {had}")]
    SetAside {
        /// Frames asked for.
        frames: usize,
        /// Frames that there is memory for.
        had: usize,
    },
    /// The thread that gives its memory up ahead of need cannot be started.
    #[error(transparent)]
    Thread(#[from] SpawnError),
    /// No engine memory.
    #[error(transparent)]
    Memory(#[from] EngineMemoryError),
}

/// Staging that nobody knows of yet. It is unmapped unless it is [taken](Self::take).
struct NewStaging<'e, M: Mm> {
    engine: &'e Engine<M>,
    pages: PageRange,
}

impl<M: Mm> NewStaging<'_, M> {
    /// The staging, which is the caller's from now on.
    fn take(self) -> PageRange {
        ManuallyDrop::new(self).pages
    }
}

impl<M: Mm> Drop for NewStaging<'_, M> {
    fn drop(&mut self) {
        // SAFETY: nobody knows of it.
        unsafe { self.engine.mm.unmap_staging(self.pages) };
    }
}

impl<M: Mm> Engine<M> {
    /// Maps what staging a device of a kind takes, with the memory that is set aside. No lock is held
    /// meanwhile, as that may take long.
    fn map_memory(&self, kind: &Kind, frames: usize) -> Result<NewStaging<'_, M>, AttachError> {
        let mapped = kind.staging_for(frames, self.mm.memory_pages());
        let pages = self
            .mm
            .map_staging(mapped)
            .map_err(|errno| AttachError::Staging { frames: mapped, errno })?;
        let staging = NewStaging { engine: self, pages };
        let Some((pages, node)) = kind.aside(pages, frames) else { return Ok(staging) };
        if let Some(node) = node {
            self.mm.bind_staging(pages, node).map_err(|errno| AttachError::Node { node, errno })?;
        }
        if let Some(had) = self.mm.pages_available(node)
            && had < frames
        {
            return Err(AttachError::SetAside { frames, had });
        }
        let mut had = 0;
        while had < frames {
            let openings = self.gate.openings();
            let rest = PageRange::new(pages.start().plus(had), pages.end());
            let done = set_aside(rest, node, &self.mm);
            had += done.pages;
            match done.stop {
                None => {}
                Some(Stop::Changing) => self.gate.wait_opened(openings),
                Some(_) => return Err(AttachError::SetAside { frames, had }),
            }
        }
        Ok(staging)
    }
}

impl<D: Device, M: Mm> Attachment<D, M> {
    /// Attaches a device with memory of a kind.
    pub(crate) fn new(
        space: &SpaceRef<M>,
        device: EngineBox<D>,
        frames: usize,
        kind: Kind,
    ) -> Result<Self, AttachError> {
        let most = Kind::most_frames();
        if frames == 0 {
            return Err(AttachError::NoFrames);
        }
        if frames > most {
            return Err(AttachError::TooManyFrames { frames, most });
        }
        let device = engine_box_as!(device, dyn Device);
        let engine = &space.engine;
        let memory = &engine.memory;
        // Before memory is set aside for nothing.
        if !engine.devices.have_room(&SignalsBlocked::new()) {
            return Err(AttachError::TooManyDevices);
        }
        let staging = engine.map_memory(&kind, frames)?;
        let signals = SignalsBlocked::new();
        let state = engine
            .devices
            .add(&signals, |index| {
                let made = kind.with(staging.pages, frames, memory)?;
                let state = DeviceState::new(index, device, made, frames, memory)?;
                Shared::try_new(state, memory)
            })
            .ok_or(AttachError::TooManyDevices)??;
        staging.take();
        if let Some(copying) = state.copying() {
            copying.transit.fill_reserve(&engine.mm, &signals);
        }
        let everything = engine.all_pages();
        let table = Table::Device(state.clone());
        // From where it stays: taking a box apart ends pointers made before.
        let device = NonNull::from(&*state.device).cast();
        let registration = match engine.mirrors.subscribe(everything, table) {
            Ok(registration) => ManuallyDrop::new(registration),
            Err(error) => {
                engine.devices.remove(state.index, &signals);
                // SAFETY: nothing ever moved there.
                unsafe { engine.mm.unmap_staging(state.staging()) };
                return Err(error.into());
            }
        };
        engine.view.note_device(state.index, frames);
        // Where there is no memory for it, the value's drop detaches the device.
        let inner = Inner {
            space: space.clone(),
            state: state.clone(),
            evictor: Lock::new(None),
            registration,
        };
        let inner = Shared::try_new(inner, memory)?;
        drop(signals);
        if state.copying().is_some_and(Copying::is_far) && policy::evicts_in_background(frames) {
            let space = space.clone();
            state.ahead.start();
            let evictor = thread::spawn(memory, c"uhmm-evictor", move |signals| {
                space.engine.evict_in_background(&state, signals);
            })?;
            *inner.evictor.lock(&SignalsBlocked::new()) = Some(evictor);
        }
        Ok(Self { inner, device })
    }
}
