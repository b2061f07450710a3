//! System calls with buffers on the heap.

use std::{
    fs::File,
    io::{IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::FromRawFd,
        unix::{fs::FileExt, net::UnixStream},
    },
    thread,
};

use crate::{
    random::{check, fill, lost},
    work::Job,
};

/// Reads and writes of a file, and of this process's own memory by the kernel.
pub(crate) fn files(mut job: Job) {
    // SAFETY: a new file without a name; the name given is for people.
    let number = unsafe { libc::memfd_create(c"uhmm-chaos".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(number >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was made just now and is nobody else's.
    let file = unsafe { File::from_raw_fd(number) };
    while job.goes_on() {
        let seed = job.random.next();
        let len = 1 + job.random.below(300_000);
        let place = job.random.below(1 << 20) as u64;
        let mut written = vec![0; len];
        fill(&mut written, seed, 0);
        file.write_all_at(&written, place).expect("the file can be written");
        let mut read = vec![0; len];
        file.read_exact_at(&mut read, place).expect("the file can be read");
        check("what a file gave back", &read, seed, 0);
        check("what was written to a file", &written, seed, 0);
        read.fill(0);
        copy_by_kernel(&written, &mut read);
        check("what the kernel copied", &read, seed, 0);
    }
}

/// Copies by `process_vm_readv`, on this process itself.
fn copy_by_kernel(from: &[u8], to: &mut [u8]) {
    let mut done = 0;
    while done < from.len() {
        let left = from.len() - done;
        let local = libc::iovec { iov_base: to[done..].as_mut_ptr().cast(), iov_len: left };
        let remote =
            libc::iovec { iov_base: from[done..].as_ptr().cast_mut().cast(), iov_len: left };
        // SAFETY: both describe memory that is borrowed as it is used.
        let read = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        assert!(read > 0, "process_vm_readv: {}", std::io::Error::last_os_error());
        done += read.cast_unsigned();
    }
}

/// Threads that talk by a pipe and a socket.
pub(crate) fn pipes(mut job: Job) {
    let (mut from, mut to) = std::io::pipe().expect("a pipe");
    let (mut here, mut there) = UnixStream::pair().expect("a pair of sockets");
    let echo = thread::spawn(move || {
        let mut buffer = Vec::new();
        loop {
            let mut head = [0; 8];
            if from.read_exact(&mut head).is_err() {
                return;
            }
            buffer.resize(usize::try_from(u64::from_le_bytes(head)).expect("small"), 0);
            from.read_exact(&mut buffer).expect("the other side is there");
            there.write_all(&buffer).expect("the other side is there");
        }
    });
    while job.goes_on() {
        let seed = job.random.next();
        let mut bytes = vec![0; 1 + job.random.below(50_000)];
        fill(&mut bytes, seed, 0);
        let head = (bytes.len() as u64).to_le_bytes().to_vec();
        let mut parts = [IoSlice::new(&head), IoSlice::new(&bytes)];
        let mut parts = &mut parts[..];
        let mut back = vec![0; bytes.len()];
        thread::scope(|scope| {
            let reader = scope.spawn(|| read_all(&mut here, &mut back));
            while !parts.is_empty() {
                let written = to.write_vectored(parts).expect("the other side is there");
                IoSlice::advance_slices(&mut parts, written);
            }
            reader.join().expect("no panic");
        });
        check("what came back through a pipe and a socket", &back, seed, 0);
    }
    drop(to);
    echo.join().expect("no panic");
}

/// Reads into both halves of a buffer at once.
fn read_all(from: &mut UnixStream, buffer: &mut [u8]) {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let (one, other) = rest.split_at_mut(rest.len() / 2);
        let mut parts = [IoSliceMut::new(one), IoSliceMut::new(other)];
        match from.read_vectored(&mut parts) {
            Ok(0) => lost("a socket's end", buffer.as_ptr().addr(), done as u64),
            Ok(read) => done += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("a socket: {error}"),
        }
    }
}
