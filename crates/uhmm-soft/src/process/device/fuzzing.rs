//! The device process's side, for a fuzzer that plays the program: what its threads do, the fuzzer has them do.

use core::{cell::RefCell, ptr::NonNull};

use super::*;
use crate::process::fuzzing::Between;

/// A device process.
pub struct Process {
    /// It was leaked, and is this value's.
    device: NonNull<Device>,
    commands: RefCell<Commands>,
    orders: Vec<RefCell<Receiver<'static>>>,
}

impl Process {
    /// As a device process begins. None where it does not serve, or has no memory to.
    pub fn open(between: &Between, kernels: &'static [Kernel]) -> Option<Self> {
        let mut device = Device::open(between.file(), kernels, std::process::id())?.ok()?;
        // Whoever started the fuzzer is there as long as a program would be.
        let parent = rustix::process::getppid()?.as_raw_nonzero().get();
        device.program = parent.unsigned_abs();
        let device: &'static Device = Box::leak(Box::new(device));
        let orders = (0..device.limits.workers).map(|number| device.orders(number).into());
        Some(Self {
            commands: device.commands().into(),
            orders: orders.collect(),
            device: device.into(),
        })
    }

    fn device(&self) -> &'static Device {
        // SAFETY: it lives until this is dropped, and is used by functions of this alone.
        unsafe { self.device.as_ref() }
    }

    /// What may be named.
    pub fn limits(&self) -> &Limits {
        &self.device().limits
    }

    /// Applies the commands that there are. Answers as what the process would end.
    ///
    /// # Panics
    /// It does so already.
    pub fn keep_table(&self) -> u8 {
        self.device().keep_table(&mut self.commands.borrow_mut()) as u8
    }

    /// Whether a worker is at work further up on the stack.
    pub fn is_working(&self, worker: usize) -> bool {
        self.orders[worker].try_borrow_mut().is_err()
    }

    /// Whether nobody is about to report further up on the stack.
    pub fn can_report(&self) -> bool {
        !matches!(self.device().reports.try_lock(), Err(std::sync::TryLockError::WouldBlock))
    }

    /// Has a worker carry out the orders that there are. Answers as what the process would end.
    ///
    /// # Panics
    /// It does so already.
    pub fn work(&self, worker: usize) -> u8 {
        let mut orders = self.orders[worker].borrow_mut();
        let (device, orders) = (self.device(), &mut *orders);
        let work = AssertUnwindSafe(|| device.work(worker, orders));
        let Err(ended) = std::panic::catch_unwind(work);
        match ended.downcast::<Exit>() {
            Ok(exit) => *exit as u8,
            Err(other) => std::panic::resume_unwind(other),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: both were leaked as the process began, and nothing borrows from them any more.
        unsafe {
            let device = Box::from_raw(self.device.as_ptr());
            let mapping = core::ptr::from_ref(device.mapping).cast_mut();
            drop(device);
            drop(Box::from_raw(mapping));
        }
    }
}
