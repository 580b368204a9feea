//! The limit: the same calls of the kernel, with no device between.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use memmap2::MmapMut;
use xen_virtio_benches::{Kind, Request};

use crate::cell::{Cell, Op, Requests};
use crate::cpu::Meter;
use crate::window::{Latencies, Window};

/// Marks the write of a pair: its flush is the one to time.
const WRITE_OF_PAIR: u64 = 1 << 32;

/// pread and pwrite, one call after the other. Data goes round as many buffers as the cell is
/// deep, so that it falls into the caches as it does for the other devices.
pub(crate) fn pread(
    image: &File,
    cell: &Cell,
    mut requests: Requests,
    time: Duration,
    meter: &Meter,
) -> Result<Window> {
    let mut memory = buffers(cell)?;
    let mut latencies = Latencies::new()?;
    let before = meter.read()?;
    let start = Instant::now();
    let mut now = start;
    'window: loop {
        for buffer in memory.chunks_exact_mut(cell.bytes as usize) {
            let Request { kind, sector, .. } = requests.next();
            match kind {
                Kind::Read => image.read_exact_at(buffer, sector * 512).context("pread")?,
                _ => image.write_all_at(buffer, sector * 512).context("pwrite")?,
            }
            if cell.op.flushes() {
                image.sync_data().context("fdatasync")?;
            }
            let since = now;
            now = Instant::now();
            latencies.record(now - since);
            if now >= start + time {
                break 'window;
            }
        }
    }
    let after = meter.read()?;
    Ok(Window { elapsed: now - start, latencies, spent: before.until(&after), in_flight: 1 })
}

/// io_uring with registered buffers and file.
pub(crate) fn uring(
    image: &File,
    cell: &Cell,
    mut requests: Requests,
    time: Duration,
    meter: &Meter,
) -> Result<Window> {
    let mut memory = buffers(cell)?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::from(cell.depth) * 2)
        .context("making an io_uring")?;
    ring.submitter().register_files(&[image.as_raw_fd()]).context("registering the image")?;
    let iovecs: Vec<libc::iovec> = memory
        .chunks_exact_mut(cell.bytes as usize)
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: the buffers are mapped until after the ring is dropped, as `memory` was made first.
    unsafe { ring.submitter().register_buffers(&iovecs) }.context("registering buffers")?;

    let mut since = vec![Instant::now(); cell.depth.into()];
    let mut batch: Vec<u16> = (0..cell.depth).collect();
    let mut latencies = Latencies::new()?;
    let before = meter.read()?;
    let start = Instant::now();
    let mut now = start;
    while now < start + time {
        for &slot in &batch {
            push(&mut ring, slot, &requests.next(), &iovecs[usize::from(slot)], cell.op)?;
        }
        let submitted = Instant::now();
        batch.drain(..).for_each(|slot| since[usize::from(slot)] = submitted);
        ring.submit_and_wait(1).context("io_uring_enter")?;
        now = Instant::now();
        for completed in ring.completion() {
            if let Some(slot) = finished(&completed, cell)? {
                latencies.record(now - since[usize::from(slot)]);
                batch.push(slot);
            }
        }
    }
    let after = meter.read()?;
    // The kernel must be done with the buffers before they go.
    while batch.len() < usize::from(cell.depth) {
        ring.submit_and_wait(1).context("io_uring_enter")?;
        for completed in ring.completion() {
            batch.extend(finished(&completed, cell)?);
        }
    }
    let (elapsed, spent) = (now - start, before.until(&after));
    Ok(Window { elapsed, latencies, spent, in_flight: cell.depth })
}

/// Adds a request to the submission queue, in which there is room for two entries a slot.
fn push(
    ring: &mut IoUring,
    slot: u16,
    request: &Request,
    buffer: &libc::iovec,
    op: Op,
) -> Result<()> {
    let Request { kind, sector, len } = *request;
    let (file, start) = (types::Fixed(0), buffer.iov_base.cast::<u8>());
    let entry = match kind {
        Kind::Read => opcode::ReadFixed::new(file, start, len, slot).offset(sector * 512).build(),
        _ => opcode::WriteFixed::new(file, start, len, slot).offset(sector * 512).build(),
    };
    if op.flushes() {
        let flush = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
        let write = entry.flags(Flags::IO_LINK).user_data(u64::from(slot) | WRITE_OF_PAIR);
        enqueue(ring, &write)?;
        enqueue(ring, &flush.user_data(slot.into()))
    } else {
        enqueue(ring, &entry.user_data(slot.into()))
    }
}

fn enqueue(ring: &mut IoUring, entry: &Entry) -> Result<()> {
    // SAFETY: the entry names a registered buffer, which lives until the kernel is done with it.
    unsafe { ring.submission().push(entry) }.context("the submission queue is full")
}

/// The slot whose request is complete; `None` for the first half of a pair.
fn finished(completed: &io_uring::cqueue::Entry, cell: &Cell) -> Result<Option<u16>> {
    if completed.result() < 0 {
        return Err(io::Error::from_raw_os_error(-completed.result())).context("io_uring");
    }
    let tag = completed.user_data();
    let flush = cell.op.flushes() && tag & WRITE_OF_PAIR == 0;
    let expected = if flush { 0 } else { cell.bytes };
    ensure!(completed.result() as u32 == expected, "a short transfer: {completed:?}");
    Ok((tag & WRITE_OF_PAIR == 0).then_some(tag as u16))
}

/// A buffer for each request in flight, in fresh pages that have been touched.
fn buffers(cell: &Cell) -> Result<MmapMut> {
    let len = usize::from(cell.depth) * cell.bytes as usize;
    let mut memory = MmapMut::map_anon(len).context("mapping buffers")?;
    memory.fill(0x5a);
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Client;
    use crate::cpu::Side;
    use crate::image::Image;

    #[test]
    fn every_load_runs() {
        const LEN: u64 = 1 << 20;
        let image = Image::create(&std::env::temp_dir(), LEN).unwrap();
        let client = Side::this_thread(0);
        let meter = Meter { client, device: None };
        for op in [Op::Read, Op::Write, Op::Mix, Op::WriteFlush] {
            let cell = Cell { op, bytes: 4096, depth: 4, queues: 1, client: Client::Spins };
            let time = Duration::from_millis(5);
            let requests = || cell.requests(LEN, 1);
            let window = pread(image.file(), &cell, requests(), time, &meter).unwrap();
            assert_eq!(window.in_flight, 1, "one call at a time");
            assert!(window.elapsed >= time);
            let window = uring(image.file(), &cell, requests(), time, &meter).unwrap();
            assert_eq!(window.in_flight, 4);
            assert!(window.elapsed >= time);
        }
    }
}
