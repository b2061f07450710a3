//! Opening an address space: with what options, and that there is one a process.

use core::{ffi::CStr, mem::ManuallyDrop};

#[cfg(not(any(shuttle, miri)))]
use super::on_signal::{self, SignalSet};
use super::{AddressSpace, OpenError, claim::Claim, handlers::Inbox};
use crate::{
    engine::{Engine, HANDLERS, SpaceRef},
    engine_memory::{EngineMemory, EngineMemoryError, EngineVec, SpawnError, thread},
    mm::{self, Mm, linux::Linux},
    shared::Shared,
    view::View,
};

/// How an address space is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    engine_memory: usize,
    #[cfg(not(any(shuttle, miri)))]
    bring_back_on: SignalSet,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            engine_memory: Self::DEFAULT_ENGINE_MEMORY,
            #[cfg(not(any(shuttle, miri)))]
            bring_back_on: SignalSet::default(),
        }
    }
}

impl Options {
    /// How much engine memory there may be unless said otherwise, in bytes. It is address space;
    /// memory is taken as it is needed.
    pub const DEFAULT_ENGINE_MEMORY: usize =
        if cfg!(any(shuttle, miri)) { 8 << 20 } else { 16 << 30 };

    /// The least engine memory that an address space can work with, in bytes.
    pub const LEAST_ENGINE_MEMORY: usize = 4 << 20;

    /// Options that are all as by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits engine memory to `bytes`. It holds at most eight bytes for each page that is away, 64
    /// for each block, and the devices' page tables.
    #[must_use]
    pub const fn engine_memory(self, bytes: usize) -> Self {
        Self { engine_memory: bytes, ..self }
    }

    /// Has all that is away come back when the process gets `signal`, for a debugger or a core dump,
    /// which see holes where pages are away. It can be called for several signals.
    ///
    /// A signal that would leave a core dump (`SIGABRT`, `SIGSEGV` and their like) waits until all is
    /// back, five seconds at most, and then does so, or goes to the handler that the program had before. Any other is spent by it: `SIGUSR2`, say, does not
    /// end the process then, and pages come back as soon as they can, and may leave again. A handler
    /// that the program had before is called then; one that it installs later takes this one's place.
    #[cfg(not(any(shuttle, miri)))]
    #[must_use]
    pub const fn bring_back_on(self, signal: i32) -> Self {
        Self { bring_back_on: self.bring_back_on.with(signal), ..self }
    }

    /// Opens this process's address space.
    ///
    /// # Forks
    /// Before libc forks, all that is away comes back: the child has it. A child created by the bare
    /// system call (`clone` without `CLONE_VM`) has it too where this process had `CAP_SYS_PTRACE` as
    /// it opened the address space: such a fork takes as long as copying what is away. Else such a child does not have the areas that a device has taken a page from,
    /// as after `MADV_DONTFORK`, and ends by SIGSEGV where it touches them. `vfork`, `posix_spawn`
    /// and threads share the memory, and see no difference.
    ///
    /// No child has the address space, its devices, or their memory: the values that stand for them
    /// are not to be used there, but for `AddressSpace`, which may be dropped. A child may open its
    /// own.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(self) -> Result<AddressSpace, OpenError> {
        self.check()?;
        let claim = Claim::new()?;
        let linux = Linux::open_telling_forks()?;
        #[cfg_attr(any(shuttle, miri), expect(unused_mut, reason = "no signals come there"))]
        let mut space = self.open_claimed(linux, Some(claim))?;
        #[cfg(not(any(shuttle, miri)))]
        {
            super::fork::watch(&space.space.engine);
            if !self.bring_back_on.is_empty() {
                let engine = space.space.engine.clone();
                space.handlers.try_reserve(1)?;
                space.signals = self.bring_back_on;
                space.handlers.try_push(on_signal::start(&engine, &engine.memory)?)?;
                on_signal::handle(self.bring_back_on)?;
            }
        }
        Ok(space)
    }

    /// Opens an address space of a memory management of the caller's, such as the model's.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on<M: Mm>(self, mm: M) -> Result<AddressSpace<M>, OpenError> {
        self.check()?;
        self.open_claimed(mm, None)
    }

    const fn check(self) -> Result<(), OpenError> {
        if self.engine_memory < Self::LEAST_ENGINE_MEMORY {
            return Err(OpenError::TooLittleEngineMemory {
                asked: self.engine_memory,
                least: Self::LEAST_ENGINE_MEMORY,
            });
        }
        Ok(())
    }

    /// What others see, of the one address space of a process.
    fn view<M: Mm>(mm: &M, memory: &EngineMemory, shown: bool) -> Result<View, EngineMemoryError> {
        #[cfg(not(any(shuttle, miri)))]
        if shown && let Ok(view) = View::shown(mm.page_size().bytes()) {
            return Ok(view);
        }
        let _ = (mm, shown);
        View::own(memory)
    }

    fn open_claimed<M: Mm>(
        self,
        mm: M,
        claim: Option<Claim>,
    ) -> Result<AddressSpace<M>, OpenError> {
        let memory = EngineMemory::map(self.engine_memory)?;
        let view = Self::view(&mm, &memory, claim.is_some())?;
        let engine = Engine::new(mm, &memory, view)?;
        let engine = Shared::try_new(engine, &memory)?;
        let mut handlers = EngineVec::try_with_capacity(&memory, HANDLERS)?;
        for (number, name) in NAMES.iter().enumerate().take(HANDLERS) {
            let handled = engine.clone();
            let started = Inbox::new(&memory).map_err(SpawnError::from).and_then(|inbox| {
                thread::spawn(&memory, name, move |signals| handled.handle(number, inbox, signals))
            });
            match started {
                Ok(handler) => handlers.try_push(handler)?,
                Err(error) => {
                    engine.stop();
                    return Err(error.into());
                }
            }
        }
        // Not before: who forks may hold locks of libc that starting threads needs.
        if let Err(errno) = engine.mm.tell_forks() {
            engine.mm.stop_telling_forks();
            engine.stop();
            return Err(mm::linux::OpenError::Memory(errno).into());
        }
        Ok(AddressSpace {
            space: ManuallyDrop::new(SpaceRef { engine }),
            handlers: ManuallyDrop::new(handlers),
            claim,
            #[cfg(not(any(shuttle, miri)))]
            signals: SignalSet::default(),
            closed: false,
        })
    }
}

const NAMES: [&CStr; 2] = [c"uhmm-handler-0", c"uhmm-handler-1"];
