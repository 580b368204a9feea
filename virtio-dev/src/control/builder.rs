//! The builder of a control plane.

use super::ControlPlane;
use super::service::Service;
use crate::state::is_queue_size;
use crate::{ControlState, Error, Interrupt, Notifications, Status, VirtioDevice, feature};

/// Builds a [`ControlPlane`]. It says which features are offered for the transport and the host,
/// besides those of the device. `VERSION_1` and `RING_RESET` are always offered.
#[must_use]
pub struct ControlPlaneBuilder<D> {
    device: D,
    offered: u64,
    required: u64,
}

impl<D: VirtioDevice> ControlPlane<D> {
    /// A builder of the control plane of `device`.
    pub fn builder(device: D) -> ControlPlaneBuilder<D> {
        let offered = feature::VERSION_1 | feature::RING_RESET;
        ControlPlaneBuilder { device, offered, required: 0 }
    }
}

impl<D: VirtioDevice> ControlPlaneBuilder<D> {
    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Whether the addresses that the driver gives go through the platform: an IOMMU, or Xen's grants
    /// (`VIRTIO_F_ACCESS_PLATFORM`, virtio 1.2 §6). If so, the feature is offered, and a driver that
    /// doesn't take it is refused (§6.2), as its addresses could not be used.
    pub fn access_platform(mut self, on: bool) -> Self {
        self.required = if on { feature::ACCESS_PLATFORM } else { 0 };
        self
    }

    /// Whether the platform orders the accesses of driver and device in a way of its own, so that the
    /// driver needs the barriers of hardware devices (`VIRTIO_F_ORDER_PLATFORM`, virtio 1.2 §6).
    /// The feature is offered and not required. A device in software that runs on the driver's
    /// processors does not need it.
    pub fn order_platform(self, on: bool) -> Self {
        self.offer(feature::ORDER_PLATFORM, on)
    }

    /// Whether a driver may put ring positions into its notifications
    /// (`VIRTIO_F_NOTIFICATION_DATA`, virtio 1.2 §2.9). They are ignored.
    pub fn notification_data(self, on: bool) -> Self {
        self.offer(feature::NOTIFICATION_DATA, on)
    }

    fn offer(mut self, feature: u64, on: bool) -> Self {
        self.offered = if on { self.offered | feature } else { self.offered & !feature };
        self
    }

    /// The control plane after a reset, of a transport that notifies the driver this way.
    ///
    /// # Errors
    /// A device that offers features of the rings or the transport that are not a
    /// [`DEVICE`](feature::DEVICE)'s to offer, or that has a queue of an impossible size.
    pub fn build(self, notifications: Notifications) -> Result<ControlPlane<D>, Error> {
        let Self { device, offered, required } = self;
        let foreign = device.features() & feature::RESERVED & !feature::DEVICE;
        if foreign != 0 {
            return Err(Error::UnsupportedFeatures(foreign));
        }
        let sizes = device.queue_max_sizes();
        if sizes.len() > usize::from(u16::MAX) {
            return Err(Error::TooManyQueues(sizes.len()));
        }
        for (index, &size) in sizes.iter().enumerate() {
            if !is_queue_size(size) {
                return Err(Error::QueueSize { index, size });
            }
        }
        let regs = ControlState::after_reset(sizes);
        let service = vec![Service::Stopped; regs.queues.len()];
        let interrupt = Interrupt::new(notifications);
        Ok(ControlPlane { device, interrupt, offered: offered | required, required, regs, service })
    }

    /// A control plane in the state `state`, which another one was in. Call
    /// [`resume`](ControlPlane::resume) next, which takes its queues into service. If an interrupt is
    /// pending on a [line](Notifications::Line), that is raised once, as it may not have been raised
    /// when the state was taken.
    ///
    /// # Errors
    /// As for [`build`](Self::build); also a state that this device can't have been in.
    pub fn restore(
        self,
        state: &ControlState,
        notifications: Notifications,
    ) -> Result<ControlPlane<D>, Error> {
        let mut control = self.build(notifications)?;
        state.check(control.device.queue_max_sizes())?;
        let status = state.status;
        control.regs = state.clone();
        if status.is_negotiated() {
            if !control.features_valid(status.contains(Status::FEATURES_OK)) {
                return Err(Error::State("the device no longer takes its features"));
            }
            let features = control.regs.driver_features;
            control.device.accept_features(features);
        }
        if !control.device.restore_state(&state.device) {
            return Err(Error::State("the device does not take its own part"));
        }
        control.interrupt.restore(status, state.interrupt_status, state.config_generation);
        Ok(control)
    }
}
