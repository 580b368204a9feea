//! The builder of a transport.

use virtio_dev::{
    ControlPlane, ControlPlaneBuilder, ControlState, Error, IrqLine, Notifications, VirtioDevice,
};

use super::MmioTransport;

/// Builds an [`MmioTransport`]. It says which features the transport offers for the host, besides those
/// of the device. `VERSION_1` and `RING_RESET` are always offered.
#[must_use]
pub struct MmioTransportBuilder<D> {
    control: ControlPlaneBuilder<D>,
    line: Box<dyn IrqLine>,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// A builder of a transport for `device`, with its interrupts going to `line`.
    pub fn builder(device: D, line: impl IrqLine + 'static) -> MmioTransportBuilder<D> {
        MmioTransportBuilder { control: ControlPlane::builder(device), line: Box::new(line) }
    }

    /// A transport for `device` after a reset, with its interrupts going to `line` and the features
    /// that a [`builder`](Self::builder) offers by default.
    ///
    /// # Errors
    /// As for [`MmioTransportBuilder::build`].
    pub fn new(device: D, line: impl IrqLine + 'static) -> Result<Self, Error> {
        Self::builder(device, line).build()
    }
}

impl<D: VirtioDevice> MmioTransportBuilder<D> {
    /// Whether the driver's addresses go through the platform, see
    /// [`ControlPlaneBuilder::access_platform`].
    pub fn access_platform(self, on: bool) -> Self {
        Self { control: self.control.access_platform(on), ..self }
    }

    /// Whether the platform orders accesses in a way of its own, see
    /// [`ControlPlaneBuilder::order_platform`].
    pub fn order_platform(self, on: bool) -> Self {
        Self { control: self.control.order_platform(on), ..self }
    }

    /// Whether a driver may put ring positions into its notifications, see
    /// [`ControlPlaneBuilder::notification_data`].
    pub fn notification_data(self, on: bool) -> Self {
        Self { control: self.control.notification_data(on), ..self }
    }

    /// The transport after a reset.
    ///
    /// # Errors
    /// As for [`ControlPlaneBuilder::build`].
    pub fn build(self) -> Result<MmioTransport<D>, Error> {
        Ok(MmioTransport { control: self.control.build(Notifications::Line(self.line))? })
    }

    /// A transport in the state `state`, which another one was in. Call
    /// [`resume`](MmioTransport::resume) next, which takes its queues into service. If an interrupt is
    /// pending the line is raised once, as it may not have been raised when the state was taken.
    ///
    /// # Errors
    /// As for [`ControlPlaneBuilder::restore`].
    pub fn restore(self, state: &ControlState) -> Result<MmioTransport<D>, Error> {
        let line = Notifications::Line(self.line);
        Ok(MmioTransport { control: self.control.restore(state, line)? })
    }
}
