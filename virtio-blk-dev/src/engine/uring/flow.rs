use std::io;
use std::os::fd::AsFd;

use super::bounce_buffers::NoMemory;
use super::slots::Stage;
use super::{UringEngine, sqe};
use crate::engine::no_room::is_no_room;
use crate::engine::{Command, Completion, Io, Operation};
use crate::image::RangeCall;

/// Submission and completion of operations.
impl UringEngine {
    /// An operation that changes the image must lie within it: the kernel would extend the file.
    pub(super) fn check_change(&self, io: &Io) -> io::Result<()> {
        match io.operation() {
            Operation::Read(_) | Operation::Flush => Ok(()),
            _ => self.image.may_change(io.offset(), io.remaining()),
        }
    }

    /// Submits what is committed, as far as the ring has room. `batch` operations of it are new.
    pub(super) fn submit_committed(&mut self, batch: usize) {
        self.push(batch);
        // This includes entries that the kernel had no memory for before.
        if self.ring.queued() > 0 {
            self.ring.enter();
        }
        if self.ring.is_broken() {
            self.run_unsubmitted();
            self.push(0);
        }
    }

    /// Carries out the operations in a broken ring that the kernel never took.
    fn run_unsubmitted(&mut self) {
        if std::mem::replace(&mut self.fallback_done, true) {
            return;
        }
        for index in self.slots.indices() {
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if slot.position.is_some_and(|position| self.ring.was_left(position)) {
                slot.position = None;
                if let (Some(bounce), Some(buffer)) = (&mut self.bounce, slot.buffer.take()) {
                    bounce.put(buffer);
                }
                self.run_sync(index);
            }
        }
    }

    fn push(&mut self, batch: usize) {
        while self.committed > 0 {
            let Some(index) = self.waiting.pop_front() else { break };
            self.committed = self.committed.saturating_sub(1);
            let Some(slot) = self.slots.get_mut(index) else { continue };
            if std::mem::take(&mut slot.try_inline) {
                let attempt = self.inline.attempt(self.image.as_fd(), &mut slot.io, batch);
                if let Some(result) = attempt {
                    self.finish(index, result);
                    continue;
                }
            }
            if self.ring.is_broken() {
                self.run_sync(index);
                continue;
            }
            if !self.ring.has_room() {
                self.requeue(index);
                break;
            }
            let entry = match (&mut self.bounce, slot.io.operation().data()) {
                (Some(bounce), Some(data))
                    if slot.needs_bounce || bounce.is_needed(&slot.io, data) =>
                {
                    if bounce.is_possible(&slot.io, data) {
                        let mut buffer = match bounce.take() {
                            Ok(Some(buffer)) => buffer,
                            Ok(None) => {
                                self.requeue(index);
                                break;
                            }
                            Err(NoMemory) => {
                                self.fail(index, libc::ENOMEM);
                                continue;
                            }
                        };
                        let Some(transfer) = bounce.begin(&slot.io, data, &mut buffer) else {
                            bounce.put(buffer);
                            self.fail(index, libc::EFAULT);
                            continue;
                        };
                        slot.buffer = Some(buffer);
                        Some(sqe::bounced(slot, self.target, transfer))
                    } else {
                        None
                    }
                }
                _ => sqe::entry(slot, self.target),
            };
            match entry {
                None => self.run_sync(index),
                Some(entry) => {
                    let entry = entry.user_data(u64::from(index));
                    // SAFETY: segments and memory are the `Io`'s, whose existence keeps the
                    // memory mapped. It rests in its slot, where nobody but `complete` changes or
                    // takes it, until the completion is there, or the kernel is known never to
                    // have had the entry; else `drop` leaks it. The same is
                    // true of its bounce buffer.
                    let position = unsafe { self.ring.push(&entry) };
                    slot.position = Some(position);
                }
            }
        }
    }

    /// Puts an operation in front of those that wait.
    fn requeue(&mut self, index: u32) {
        self.waiting.push_front(index);
        self.committed = self.committed.saturating_add(1);
    }

    fn finish(&mut self, index: u32, result: io::Result<()>) {
        if let Some(io) = self.slots.remove(index) {
            self.done.push(Completion { io, result });
        }
    }

    /// Fails an operation that isn't in the kernel.
    fn fail(&mut self, index: u32, errno: i32) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.io.set_no_space();
        }
        self.finish(index, Err(io::Error::from_raw_os_error(errno)));
    }

    /// Carries out an operation that the ring can't, synchronously.
    fn run_sync(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let result = match slot.stage {
            Stage::Operation => self.sync_engine.perform(&mut slot.io),
            Stage::Sync => self.sync_engine.flush(),
        };
        self.finish(index, result);
    }

    /// Processes a completion from the ring; `None` if its operation isn't complete yet.
    pub(super) fn complete(&mut self, index: u32, result: i32) -> Option<Completion> {
        let slot = self.slots.get_mut(index)?;
        slot.position = None;
        let (data, buffer) = (slot.io.operation().data(), slot.buffer.take());
        let bounced = buffer.is_some();
        let mut moved = u64::from(result.unsigned_abs());
        if let (Some(bounce), Some(mut buffer)) = (&mut self.bounce, buffer) {
            if let Some(data) = data.filter(|_| result >= 0) {
                moved = bounce.end(&slot.io, data, &mut buffer, moved);
            }
            bounce.put(buffer);
        }
        let is_transfer = data.is_some();
        let result = match (slot.io.operation(), slot.stage, result) {
            (.., n) if n < 0 => Err(n.saturating_neg()),
            (Operation::Read(_) | Operation::Write(_), ..) => {
                slot.io.advance(moved);
                if slot.io.remaining() > 0 && moved > 0 { Err(libc::EINTR) } else { Ok(()) }
            }
            (Operation::Flush, ..) | (_, Stage::Sync, _) => Ok(()),
            _ if slot.io.is_durable() => {
                slot.stage = Stage::Sync;
                Err(libc::EINTR)
            }
            _ => Ok(()),
        };
        let again = match result {
            Err(libc::EINTR | libc::ECANCELED) => true,
            Err(libc::EAGAIN) if !slot.force_async => {
                slot.force_async = true;
                true
            }
            // The memory isn't aligned as direct I/O needs, or can't be pinned.
            Err(errno @ (libc::EFAULT | libc::EINVAL)) if is_transfer && !bounced => {
                match &mut self.bounce {
                    Some(bounce) => {
                        if errno == libc::EFAULT {
                            bounce.unpinnable();
                        }
                        !std::mem::replace(&mut slot.needs_bounce, true)
                    }
                    None => false,
                }
            }
            _ => false,
        };
        if again {
            self.requeue(index);
            return None;
        }
        let result = result.map_err(io::Error::from_raw_os_error);
        if slot.stage == Stage::Operation
            && slot.io.operation().is_range()
            && result.as_ref().is_err_and(RangeCall::is_unsupported)
        {
            // The file system doesn't have this mode, or doesn't take this range: the image falls back to
            // other calls, as it does for the synchronous engine.
            self.run_sync(index);
            return None;
        }
        let mut io = self.slots.remove(index)?;
        let result = result.map_err(|error| self.classify_no_space(&mut io, error));
        let result = match (result, io.operation()) {
            (Err(error), _) => Err(error),
            (Ok(()), Operation::Read(_)) if io.remaining() > 0 => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            (Ok(()), Operation::Write(_)) if io.remaining() > 0 => {
                Err(io::ErrorKind::WriteZero.into())
            }
            _ => Ok(()),
        };
        Some(Completion { io, result })
    }

    /// Tells what an `ENOSPC` of a durable write means. The kernel returns it for a write that it had no
    /// room for, which loses nothing, and for one that it took and couldn't store. The latter is a write-back
    /// error, which is also reported to the other open file description.
    fn classify_no_space(&self, io: &mut Io, error: io::Error) -> io::Error {
        let is_durable_write = io.is_durable() && io.command() == Command::Write;
        if !is_no_room(&error) || !is_durable_write || self.sync_engine.flusher.is_none() {
            return error;
        }
        match self.sync_engine.flush() {
            Ok(()) => {
                io.set_no_space();
                error
            }
            Err(lost) => lost,
        }
    }
}
