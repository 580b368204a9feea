//! The interrupts that devices on the bus raise by messages.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use backend_process::chain;
use tracing::{debug, warn};
use virtio_worker::LogLimit;
use xen_ioreq::{DomId, eventfd::EventFds};

use super::{
    frame::SET_SPI,
    layout::{FRAME, LAST_SPI},
};
use crate::host::InterruptLine;

/// The interrupts of one guest that devices on its bus raise by messages. Clones are the same.
pub(crate) struct SpiLines<M: EventFds>(Arc<Shared<M>>);

struct Shared<M: EventFds> {
    domid: DomId,
    model: Arc<M>,
    /// Those that a device has in its table.
    lines: Mutex<BTreeMap<u32, Weak<InterruptLine<M>>>>,
    limit: LogLimit,
}

/// Why a message raises no interrupt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLine {
    /// It goes elsewhere than to the frame.
    #[error(
        "a message of {data:#x} to {address:#x} raises no interrupt: the guest's GICv2m frame takes a number from 32 to {LAST_SPI} at {:#x}",
        FRAME.start() + SET_SPI
    )]
    Message {
        /// Where the driver has it sent.
        address: u64,
        /// What it has sent.
        data: u32,
    },
    /// Xen doesn't raise it.
    #[error(
        "domain {domid} has no interrupt {spi} to be raised, or it is a physical device's: write nr_spis in its xl.cfg as the command `device-tree` says that has made its device tree, and keep `irqs` out of these"
    )]
    Spi {
        /// The guest.
        domid: DomId,
        /// The interrupt.
        spi: u32,
        /// What Xen said.
        source: io::Error,
    },
}

impl<M: EventFds> SpiLines<M> {
    pub(crate) fn new(domid: DomId, model: Arc<M>) -> Self {
        let (lines, limit) = (Mutex::new(BTreeMap::new()), LogLimit::new());
        Self(Arc::new(Shared { domid, model, lines, limit }))
    }

    /// The interrupt that such a message raises.
    pub(crate) fn of_message(
        &self,
        address: u64,
        data: u32,
    ) -> Result<Arc<InterruptLine<M>>, NoLine> {
        if address != FRAME.start() + SET_SPI || !(32..=LAST_SPI).contains(&data) {
            return Err(NoLine::Message { address, data });
        }
        let spi = data;
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&spi).and_then(Weak::upgrade) {
            return Ok(line);
        }
        // Lowering an edge does nothing, but where the interrupt can't be raised.
        if let Err(source) = self.0.model.set_irq_level(spi, false) {
            return Err(NoLine::Spi { domid: self.0.domid, spi, source });
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(InterruptLine::new(Arc::clone(&self.0.model), spi));
        lines.insert(spi, Arc::downgrade(&line));
        Ok(line)
    }

    /// Raises an interrupt for the guest's own write to the frame.
    pub(crate) fn raise(&self, spi: u32) {
        if let Err(error) = self.0.model.set_irq_level(spi, true)
            && let Some(dropped) = self.0.limit.allow()
        {
            debug!(
                domid = self.0.domid,
                spi,
                %error,
                dropped,
                "an interrupt that the guest has written to its GICv2m frame is not raised"
            );
        }
    }

    /// Says that a device's driver waits for interrupts that don't come.
    pub(crate) fn tell(&self, device: &dyn fmt::Display, error: &NoLine) {
        if let Some(dropped) = self.0.limit.allow() {
            warn!(%device, error = %chain(error), dropped, "the guest's driver has asked for an interrupt that can't be raised");
        }
    }
}

impl<M: EventFds> Clone for SpiLines<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
