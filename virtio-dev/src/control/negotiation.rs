//! Writes to the status and to the feature registers.

use super::ControlPlane;
use crate::halves::{high, join, low};
use crate::status::Transition;
use crate::{Ignored, Queues, Status, VirtioDevice, WriteOutcome, feature};

impl<D: VirtioDevice> ControlPlane<D> {
    pub(super) fn write_status(&mut self, value: u32, queues: &mut impl Queues<D>) -> WriteOutcome {
        let status = self.status();
        let ignored = WriteOutcome::Ignored;
        match status.write(value) {
            Transition::Reset => return self.reset(queues),
            Transition::Unchanged => {}
            Transition::Invalid => return ignored(Ignored::Status(status)),
            _ if self.regs.reset_pending => return ignored(Ignored::ResetPending),
            Transition::Failed => {
                self.interrupt.set_status(Status::FAILED);
                queues.failed();
                self.stop_all(queues);
            }
            Transition::Set(bits) => self.interrupt.set_status(bits),
            Transition::FeaturesOk(bits) => {
                if !self.features_valid(true) {
                    return ignored(Ignored::FeaturesRefused);
                }
                self.interrupt.set_status(bits);
                self.accept_features();
            }
            Transition::DriverOk(bits) => {
                if !status.contains(Status::FEATURES_OK) {
                    if !self.features_valid(false) {
                        return ignored(Ignored::FeaturesRefused);
                    }
                    self.accept_features();
                }
                self.interrupt.set_status(bits);
                queues.driver_ok(self.features());
                self.start_all(queues);
            }
        }
        WriteOutcome::Done
    }

    /// Tells the device of the driver's features. What the driver reads of the configuration may
    /// depend on them, and it may have read it before (virtio 1.2 §2.5).
    fn accept_features(&mut self) {
        let before = self.device.config().to_vec();
        self.device.accept_features(self.regs.driver_features);
        if self.device.config() != before {
            self.interrupt.next_generation();
        }
    }

    /// Replaces one page: what an earlier negotiation left there is removed.
    pub(super) fn write_driver_features(&mut self, value: u32) -> WriteOutcome {
        if self.status().is_negotiated() {
            return WriteOutcome::Ignored(Ignored::FeaturesFinal);
        }
        let features = self.regs.driver_features;
        self.regs.driver_features = match self.regs.driver_features_sel {
            0 => join(high(features), value),
            1 => join(value, low(features)),
            _ => return WriteOutcome::Ignored(Ignored::FeaturePage),
        };
        WriteOutcome::Done
    }

    /// Whether the device works with the driver's choice. A driver that sets `FEATURES_OK` knows
    /// `VERSION_1` and must take it; one that doesn't is served all the same, which virtio 1.2
    /// §6.2 leaves to the device.
    pub(super) fn features_valid(&self, features_ok: bool) -> bool {
        let driver = self.regs.driver_features;
        let version_1 = if features_ok { feature::VERSION_1 } else { 0 };
        let required = version_1 | self.required;
        driver & !self.device_features() == 0
            && driver & required == required
            && self.device.validate_features(driver)
    }
}
