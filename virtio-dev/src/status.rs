//! The device status, and how a driver may change it.

bitflags::bitflags! {
    /// The device status field (virtio 1.2 §2.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The guest has noticed the device.
        const ACKNOWLEDGE = 1;
        /// The guest knows how to drive it.
        const DRIVER = 2;
        /// The driver is set up: queues are live.
        const DRIVER_OK = 4;
        /// The negotiated features are accepted.
        const FEATURES_OK = 8;
        /// The device can't go on before a reset.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver can't drive the device.
        const FAILED = 128;
    }
}

/// What a write to the status register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// The register has the written value already.
    Unchanged,
    /// A driver may not write this value now: the register keeps its value.
    Invalid,
    /// A write of 0.
    Reset,
    /// The driver set `FAILED`.
    Failed,
    /// Set these bits. None of them starts anything.
    Set(Status),
    /// Set these bits, `FEATURES_OK` among them, if the features are valid.
    FeaturesOk(Status),
    /// Set these bits, `DRIVER_OK` among them, and start the queues; without `FEATURES_OK` only if
    /// the features are valid.
    DriverOk(Status),
}

impl Status {
    /// The features are final: the driver said so, or began without saying so.
    pub(crate) fn is_negotiated(self) -> bool {
        self.intersects(Self::FEATURES_OK.union(Self::DRIVER_OK))
    }

    /// Rings may be served and the driver notified.
    pub(crate) fn is_live(self) -> bool {
        self.intersection(Self::DRIVER_OK.union(Self::FAILED)) == Self::DRIVER_OK
    }

    /// What writing `value` in this state means.
    ///
    /// The order of virtio 1.2 §3.1.1 binds the driver. The device insists on what it depends on:
    ///
    /// * only a write of 0, the reset, clears bits;
    /// * `FEATURES_OK` and `DRIVER_OK` come after `DRIVER`, each in a write of its own, as the
    ///   driver has to read back in between whether its features were accepted;
    /// * after `FAILED` comes the reset.
    ///
    /// It does without `ACKNOWLEDGE`, which U-Boot leaves out after its second reset, and without
    /// `FEATURES_OK`, which OpenBSD's virtio_mmio never sets.
    pub(crate) fn write(self, value: u32) -> Transition {
        if value == 0 {
            return Transition::Reset;
        }
        let Some(new) = u8::try_from(value).ok().and_then(Status::from_bits) else {
            return Transition::Invalid;
        };
        // The device alone sets and clears DEVICE_NEEDS_RESET, whatever the driver writes there.
        let old = self.difference(Status::DEVICE_NEEDS_RESET);
        let new = new.difference(Status::DEVICE_NEEDS_RESET);
        if new == old {
            return Transition::Unchanged;
        }
        if old.contains(Status::FAILED) {
            return Transition::Invalid;
        }
        if new.contains(Status::FAILED) {
            return Transition::Failed;
        }
        if !new.contains(old) {
            return Transition::Invalid;
        }
        let added = new.difference(old);
        let (features_ok, driver_ok) =
            (added.contains(Status::FEATURES_OK), added.contains(Status::DRIVER_OK));
        if (features_ok || driver_ok) && !old.contains(Status::DRIVER) {
            return Transition::Invalid;
        }
        match (features_ok, driver_ok) {
            (false, false) => Transition::Set(added),
            (false, true) => Transition::DriverOk(added),
            // Too late: the device works with the features that it found at DRIVER_OK.
            (true, false) if old.contains(Status::DRIVER_OK) => Transition::Invalid,
            (true, false) => Transition::FeaturesOk(added),
            (true, true) => Transition::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u8 = 1;
    const D: u8 = 2;
    const O: u8 = 4;
    const F: u8 = 8;

    fn write(from: u8, value: u32) -> Transition {
        Status::from_bits(from).unwrap().write(value)
    }

    #[test]
    fn the_steps_to_driver_ok() {
        assert_eq!(write(0, 1), Transition::Set(Status::ACKNOWLEDGE));
        assert_eq!(write(A, 3), Transition::Set(Status::DRIVER));
        assert_eq!(write(A | D, 11), Transition::FeaturesOk(Status::FEATURES_OK));
        assert_eq!(write(A | D | F, 15), Transition::DriverOk(Status::DRIVER_OK));
        assert_eq!(
            write(0, 3),
            Transition::Set(Status::ACKNOWLEDGE | Status::DRIVER),
            "two steps in one write"
        );
    }

    #[test]
    fn acknowledge_may_be_left_out_or_come_late() {
        assert_eq!(write(0, 2), Transition::Set(Status::DRIVER));
        assert_eq!(write(D, 10), Transition::FeaturesOk(Status::FEATURES_OK));
        assert_eq!(write(D | F, 14), Transition::DriverOk(Status::DRIVER_OK));
        for (from, to) in [(2, 3), (10, 11), (14, 15), (6, 7)] {
            assert_eq!(write(from, to), Transition::Set(Status::ACKNOWLEDGE), "{from} to {to}");
        }
        let both = Status::ACKNOWLEDGE | Status::FEATURES_OK;
        assert_eq!(write(D, 11), Transition::FeaturesOk(both));
    }

    #[test]
    fn every_other_pair_is_refused_or_failed_or_reset() {
        // ACKNOWLEDGE aside, these are the transitions.
        const TRANSITIONS: [(u8, u8); 5] =
            [(0, D), (D, D | F), (D | F, D | F | O), (D, D | O), (0, 0)];
        for from in 0..=255u8 {
            let Some(old) = Status::from_bits(from) else {
                continue;
            };
            // No other state can be reached.
            if ![0, D, D | F, D | F | O, D | O].contains(&(from & (D | F | O))) {
                continue;
            }
            for value in 0..=0x1ff_u32 {
                let (from, to) = (from & !0x40, value as u8 & !0x40);
                match old.write(value) {
                    Transition::Reset => assert_eq!(value, 0),
                    Transition::Failed => assert!(value & 0x80 != 0 && from & 0x80 == 0),
                    Transition::Unchanged => assert_eq!(from, to),
                    Transition::Invalid => {}
                    Transition::Set(added)
                    | Transition::FeaturesOk(added)
                    | Transition::DriverOk(added) => {
                        assert_eq!(from & !to, 0, "{from:#x} to {to:#x} clears");
                        assert_eq!(from | added.bits(), to, "{from:#x} to {to:#x}");
                        let states = (from & !A, to & !A);
                        assert!(
                            TRANSITIONS.contains(&states) || states.0 == states.1,
                            "{from:#x} to {to:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn features_ok_and_driver_ok_come_after_driver_and_not_together() {
        for (from, to) in [(A, A | F), (A, A | O), (A | F, A | F | O), (A | D, A | D | F | O)] {
            assert_eq!(write(from, to.into()), Transition::Invalid, "{from:#x} to {to:#x}");
        }
    }

    #[test]
    fn driver_ok_without_features_ok_begins_and_makes_the_features_final() {
        assert_eq!(write(A | D, (A | D | O).into()), Transition::DriverOk(Status::DRIVER_OK));
        assert_eq!(write(A | D | O, (A | D | O | F).into()), Transition::Invalid);
    }

    #[test]
    fn bits_cannot_be_cleared_and_unknown_ones_mean_nothing() {
        assert_eq!(write(A | D, 2), Transition::Invalid);
        assert_eq!(write(A, 0x23), Transition::Invalid);
        assert_eq!(write(A, 0x100), Transition::Invalid, "not the reset either");
    }

    #[test]
    fn needs_reset_is_the_devices_own() {
        assert_eq!(write(A | D | 64, 11 | 64), write(A | D, 11));
        assert_eq!(write(A | D | 64, 11), write(A | D, 11));
        assert_eq!(write(A, 1 | 64), Transition::Unchanged);
    }

    #[test]
    fn after_failed_only_a_reset() {
        assert_eq!(write(A | D, 131), Transition::Failed);
        assert_eq!(write(A | D, 128), Transition::Failed);
        assert_eq!(write(A | D | 128, 131), Transition::Unchanged);
        assert_eq!(write(A | D | 128, 11 | 128), Transition::Invalid);
        assert_eq!(write(A | D | 128, 0), Transition::Reset);
    }
}
