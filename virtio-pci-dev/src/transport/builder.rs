//! The builder of a transport.

use virtio_dev::{ControlPlane, ControlPlaneBuilder, VirtioDevice};

use super::PciTransport;
use crate::config_space::ConfigSpace;
use crate::layout::Layout;
use crate::msix::{MsiLines, Table, VectorState};
use crate::{Error, PciState};

/// Builds a [`PciTransport`]. It says which features the transport offers for the host, besides those
/// of the device. `VERSION_1` and `RING_RESET` are always offered.
#[must_use]
pub struct PciTransportBuilder<D> {
    control: ControlPlaneBuilder<D>,
    lines: Box<dyn MsiLines>,
}

impl<D: VirtioDevice> PciTransport<D> {
    /// A builder of a transport for `device`, whose messages raise what `lines` says.
    pub fn builder(device: D, lines: impl MsiLines + 'static) -> PciTransportBuilder<D> {
        PciTransportBuilder { control: ControlPlane::builder(device), lines: Box::new(lines) }
    }

    /// A transport for `device` after a reset, with the features that a [`builder`](Self::builder)
    /// offers by default.
    ///
    /// # Errors
    /// As for [`PciTransportBuilder::build`].
    pub fn new(device: D, lines: impl MsiLines + 'static) -> Result<Self, Error> {
        Self::builder(device, lines).build()
    }

    /// Whether `device` can be a function: what [`build`](PciTransportBuilder::build) asks of it beside what every
    /// transport does, for an owner that has no other use for a device that can't.
    ///
    /// # Errors
    /// A device type without a PCI device ID; more queues, or a longer configuration space, than fit the BAR.
    pub fn check(device: &D) -> Result<(), Error> {
        parts(device).map(drop)
    }
}

impl<D: VirtioDevice> PciTransportBuilder<D> {
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
    /// Those of [`ControlPlaneBuilder::build`]; a device type without a PCI device ID; more queues, or
    /// a longer configuration space, than fit the BAR.
    pub fn build(self) -> Result<PciTransport<D>, Error> {
        let (layout, config) = parts(self.control.device())?;
        let vectors = vec![VectorState::default(); layout.vectors.into()];
        let msix = Table::new(self.queue_count(), &vectors, self.lines);
        let control = self.control.build(msix.messages())?;
        Ok(PciTransport { control, config, layout, msix })
    }

    /// A transport in the state `state`, which another one was in: pending messages are sent if they
    /// are not masked. Call [`resume`](PciTransport::resume) next, which takes its queues into service.
    ///
    /// # Errors
    /// As for [`build`](Self::build); also a state that this function can't have been in.
    pub fn restore(self, state: &PciState) -> Result<PciTransport<D>, Error> {
        let (layout, config) = parts(self.control.device())?;
        let config = config.restored(&state.config_space);
        let config = config.ok_or(Error::State("the configuration space is another one"))?;
        if state.vectors.len() != usize::from(layout.vectors) {
            return Err(Error::State("another number of vectors"));
        }
        if state.queue_vectors.len() != self.queue_count() {
            return Err(Error::State("another number of queues"));
        }
        let mut msix = Table::new(self.queue_count(), &state.vectors, self.lines);
        let control = self.control.restore(&state.control, msix.messages())?;
        msix.vectors().assign_config(state.config_vector);
        for (queue, vector) in (0..).zip(&state.queue_vectors) {
            msix.vectors().assign_queue(queue, *vector);
        }
        msix.set_function(config.function());
        Ok(PciTransport { control, config, layout, msix })
    }

    fn queue_count(&self) -> usize {
        self.control.device().queue_max_sizes().len()
    }
}

fn parts(device: &impl VirtioDevice) -> Result<(Layout, ConfigSpace), Error> {
    let (config, queues) = (device.config().len(), device.queue_max_sizes().len());
    let layout = Layout::new(config, queues).ok_or(Error::Bar { config, queues })?;
    let kind = device.device_type();
    let config = ConfigSpace::new(kind, &layout).ok_or(Error::DeviceType(kind))?;
    Ok((layout, config))
}
