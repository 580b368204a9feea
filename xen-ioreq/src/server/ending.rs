//! How a server ends.

use std::thread;
use std::time::{Duration, Instant};

use xen_evtchn::EventChannel;
use xen_foreignmem::ForeignMemory;

use super::IoreqServer;
use crate::device_model::DeviceModel;
use crate::request::Request;
use crate::request_kind::RequestKind;
use crate::sys::STATE_IOREQ_NONE;

/// How long a server that ends waits for its vCPUs to take their last answers, as on a loaded host they may run late.
/// If one has not by then, as that of a guest that is paused, the server stays in Xen until the guest ends, disabled: the
/// vCPU takes its answer when it runs.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often it checks in that time whether the guest is gone.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(10);

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> IoreqServer<M, F, E> {
    /// Answers all waiting requests, and waits until the vCPUs have taken the answers. Whether one may still take its.
    fn answer_all(&mut self) -> bool {
        for (vcpu, port) in self.ports.iter().enumerate() {
            let slot = self.page.slot(vcpu);
            if self.deferred.is_kept(vcpu) {
                if self.deferred.take(vcpu, || slot.answer(Some(u64::MAX))) {
                    let _ = port.notify();
                }
            } else if let Some(raw) = slot.claim() {
                drop(Request {
                    page: &self.page,
                    ports: &self.ports,
                    deferred: &self.deferred,
                    failure: &mut self.failure,
                    vcpu: vcpu as u32,
                    raw,
                    kind: RequestKind::new(&raw),
                    data: u64::MAX,
                });
            }
        }
        let idle =
            || (0..self.ports.len()).all(|vcpu| self.page.slot(vcpu).state() == STATE_IOREQ_NONE);
        let (start, mut last_check) = (Instant::now(), Duration::ZERO);
        while !idle() {
            if start.elapsed() >= SHUTDOWN_GRACE {
                return true;
            }
            thread::sleep(Duration::from_micros(200));
            if start.elapsed().saturating_sub(last_check) >= LIVENESS_INTERVAL {
                last_check = start.elapsed();
                if matches!(self.liveness().is_alive(), Ok(false)) {
                    return false;
                }
            }
        }
        false
    }
}

impl<M: DeviceModel, F: ForeignMemory, E: EventChannel> Drop for IoreqServer<M, F, E> {
    fn drop(&mut self) {
        // This fails only if the guest is gone, and then no vCPU waits.
        if self.registration.is_own() && self.registration.set_state(false).is_ok() {
            // To destroy a server before its vCPUs have taken their answers is to have them read what Xen has freed.
            let left = self.answer_all();
            self.registration.set_own(!left);
        }
    }
}
