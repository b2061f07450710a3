//! The thread that makes a setting busy.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use super::BenchError;
use super::machine::Cpu;

/// Bytes that the busy thread goes over again and again: enough for many translations.
const BUSY_BYTES: usize = 1 << 20;

/// Bytes between two of its accesses: a cache line, so that each page is touched often.
const BUSY_STRIDE: usize = 64;

/// A thread that keeps a CPU busy with this process's memory until the value is dropped, so that
/// changes of the page tables have to interrupt that CPU.
pub(super) struct BusyThread {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BusyThread {
    /// Starts the thread on a CPU, and returns once it runs there.
    pub(super) fn start(cpu: Cpu) -> Result<Self, BenchError> {
        let over = Arc::new(AtomicBool::new(false));
        let (ready, bound) = std::sync::mpsc::channel();
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let result = cpu.bind_this_thread();
            let ok = result.is_ok();
            // With nobody to tell, the measurement is over.
            let _ = ready.send(result);
            if !ok {
                return;
            }
            let mut memory = vec![1_u8; BUSY_BYTES];
            while !ends.load(Relaxed) {
                for byte in memory.iter_mut().step_by(BUSY_STRIDE) {
                    *byte = black_box(byte.wrapping_add(1));
                }
            }
        });
        let busy = Self { over, thread: Some(thread) };
        bound.recv().map_err(BenchError::while_doing("the busy thread ended"))??;
        Ok(busy)
    }
}

impl Drop for BusyThread {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}
