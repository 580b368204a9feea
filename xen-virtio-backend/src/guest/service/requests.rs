//! How the guest's accesses are answered.

use tracing::warn;
use virtio_dev::{PendingWrite, WriteOutcome};
use xen_ioreq::RequestKind;

use super::{STOP_INTERVALS, Service};
use crate::{
    backend::{Backend, Device},
    guest::placed::find,
    host::Host,
    pci::{Target, frame, target},
    register_address::RegisterAddress,
};

/// How many requests are answered before the thread looks at what else there is to do.
const MAX_REQUESTS: u32 = 256;

impl<H: Host, B: Backend> Service<H, B> {
    /// Answers every trap that waits now. No queue is waited for: a reset or a queue's end, whose answers mean that
    /// the device has let go of the guest's memory, is answered when that is so.
    ///
    /// True if there may be more: a guest that never stops asking must not keep its thread from what
    /// the handshake asks.
    pub(super) fn answer_requests(&mut self) -> Result<bool, xen_ioreq::Error> {
        for _ in 0..MAX_REQUESTS {
            let Some(request) = self.server.next_request()? else { return Ok(false) };
            match request.kind() {
                RequestKind::Read { addr, size } => {
                    let mut data = [0xff; 8];
                    let bytes = &mut data[..usize::from(size)];
                    match find(&self.devices, addr, size) {
                        Some((id, register)) => {
                            if let Some(placed) = self.devices.get_mut(&id) {
                                placed.device.read(register, bytes);
                            }
                        }
                        None if matches!(target(addr, size), Some(Target::Frame(_))) => {
                            frame::read(bytes);
                        }
                        None => {}
                    }
                    request.complete_read(u64::from_le_bytes(data));
                }
                RequestKind::Write { addr, size, data } => {
                    let data = &data.to_le_bytes()[..usize::from(size)];
                    let found = find(&self.devices, addr, size);
                    let Some((id, register)) = found else {
                        // The driver may take the answer for the end of a device that has not stopped yet.
                        if let Some((id, _)) = find(&self.stopping, addr, size) {
                            self.pending.push((id, PendingWrite::Reset, request.defer()));
                        } else {
                            request.complete();
                            self.write_to_frame(addr, size, data);
                        }
                        continue;
                    };
                    let Some(placed) = self.devices.get_mut(&id) else { continue };
                    match placed.device.write(register, data) {
                        WriteOutcome::Notify(queue) => {
                            // The vCPU goes on before the queue is looked at.
                            request.complete();
                            placed.device.kick(queue);
                        }
                        WriteOutcome::Pending(write) => {
                            self.pending.push((id, write, request.defer()));
                            self.stop_interval = STOP_INTERVALS.0;
                        }
                        WriteOutcome::Done | WriteOutcome::Ignored(_) => {
                            let is_config = matches!(register, RegisterAddress::PciConfig(_));
                            match is_config.then(|| placed.moved()).flatten() {
                                None => request.complete(),
                                Some(moved) => {
                                    // Its next access may be to where the registers are now.
                                    let request = request.defer();
                                    self.follow(moved);
                                    request.complete();
                                }
                            }
                        }
                    }
                }
                RequestKind::Invalidate => {
                    let retired = self.memory.invalidate();
                    // The vCPU doesn't wait for unmapping.
                    request.complete();
                    self.unmapper.unmap(retired);
                }
                kind => {
                    if let Some(dropped) = self.limit.allow() {
                        warn!(
                            domid = self.domid,
                            ?kind,
                            dropped,
                            "Xen sent a request of a kind that virtio does not have; it was answered without effect"
                        );
                    }
                    request.complete();
                }
            }
        }
        Ok(true)
    }

    fn write_to_frame(&self, addr: u64, size: u8, data: &[u8]) {
        if let (Some(Target::Frame(offset)), Some(bus)) = (target(addr, size), &self.bus)
            && let Some(spi) = frame::raised_by(offset, data)
        {
            bus.raise(spi);
        }
    }
}
