//! The device status and the moves a driver may make.

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
        /// The device gave up and wants a reset.
        const DEVICE_NEEDS_RESET = 64;
        /// The driver gave up.
        const FAILED = 128;
    }
}

/// What a write to the status register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Nothing: the register holds what is written.
    Keep,
    /// What no driver may do: the register keeps its value.
    Refuse,
    /// Writing 0.
    Reset,
    /// `FAILED`: the driver gave up.
    Fail,
    /// Set the bits; none of them has an effect of its own.
    Set(Status),
    /// Set the bits, `FEATURES_OK` among them, if the features are valid.
    CheckFeatures(Status),
    /// Set the bits, `DRIVER_OK` among them, and go live; without `FEATURES_OK` only if the
    /// features are valid.
    GoLive(Status),
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
    pub(crate) fn write(self, value: u32) -> Move {
        if value == 0 {
            return Move::Reset;
        }
        let Some(new) = u8::try_from(value).ok().and_then(Status::from_bits) else {
            return Move::Refuse;
        };
        // The device alone sets and clears DEVICE_NEEDS_RESET, whatever the driver writes there.
        let old = self.difference(Status::DEVICE_NEEDS_RESET);
        let new = new.difference(Status::DEVICE_NEEDS_RESET);
        if new == old {
            return Move::Keep;
        }
        if old.contains(Status::FAILED) {
            return Move::Refuse;
        }
        if new.contains(Status::FAILED) {
            return Move::Fail;
        }
        if !new.contains(old) {
            return Move::Refuse;
        }
        let added = new.difference(old);
        let (features_ok, driver_ok) =
            (added.contains(Status::FEATURES_OK), added.contains(Status::DRIVER_OK));
        if (features_ok || driver_ok) && !old.contains(Status::DRIVER) {
            return Move::Refuse;
        }
        match (features_ok, driver_ok) {
            (false, false) => Move::Set(added),
            (false, true) => Move::GoLive(added),
            // Too late: the device works with the features that it found at DRIVER_OK.
            (true, false) if old.contains(Status::DRIVER_OK) => Move::Refuse,
            (true, false) => Move::CheckFeatures(added),
            (true, true) => Move::Refuse,
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

    fn write(from: u8, value: u32) -> Move {
        Status::from_bits(from).unwrap().write(value)
    }

    #[test]
    fn the_road_to_driver_ok() {
        assert_eq!(write(0, 1), Move::Set(Status::ACKNOWLEDGE));
        assert_eq!(write(A, 3), Move::Set(Status::DRIVER));
        assert_eq!(write(A | D, 11), Move::CheckFeatures(Status::FEATURES_OK));
        assert_eq!(write(A | D | F, 15), Move::GoLive(Status::DRIVER_OK));
        assert_eq!(
            write(0, 3),
            Move::Set(Status::ACKNOWLEDGE | Status::DRIVER),
            "two steps in one write"
        );
    }

    #[test]
    fn acknowledge_may_be_left_out_or_come_late() {
        assert_eq!(write(0, 2), Move::Set(Status::DRIVER));
        assert_eq!(write(D, 10), Move::CheckFeatures(Status::FEATURES_OK));
        assert_eq!(write(D | F, 14), Move::GoLive(Status::DRIVER_OK));
        for (from, to) in [(2, 3), (10, 11), (14, 15), (6, 7)] {
            assert_eq!(write(from, to), Move::Set(Status::ACKNOWLEDGE), "{from} to {to}");
        }
        let both = Status::ACKNOWLEDGE | Status::FEATURES_OK;
        assert_eq!(write(D, 11), Move::CheckFeatures(both));
    }

    #[test]
    fn every_other_pair_is_refused_or_failed_or_reset() {
        // ACKNOWLEDGE aside, these are the moves.
        const MOVES: [(u8, u8); 5] = [(0, D), (D, D | F), (D | F, D | F | O), (D, D | O), (0, 0)];
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
                    Move::Reset => assert_eq!(value, 0),
                    Move::Fail => assert!(value & 0x80 != 0 && from & 0x80 == 0),
                    Move::Keep => assert_eq!(from, to),
                    Move::Refuse => {}
                    Move::Set(added) | Move::CheckFeatures(added) | Move::GoLive(added) => {
                        assert_eq!(from & !to, 0, "{from:#x} to {to:#x} clears");
                        assert_eq!(from | added.bits(), to, "{from:#x} to {to:#x}");
                        let states = (from & !A, to & !A);
                        assert!(
                            MOVES.contains(&states) || states.0 == states.1,
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
            assert_eq!(write(from, to.into()), Move::Refuse, "{from:#x} to {to:#x}");
        }
    }

    #[test]
    fn driver_ok_without_features_ok_begins_and_makes_the_features_final() {
        assert_eq!(write(A | D, (A | D | O).into()), Move::GoLive(Status::DRIVER_OK));
        assert_eq!(write(A | D | O, (A | D | O | F).into()), Move::Refuse);
    }

    #[test]
    fn bits_cannot_be_cleared_and_unknown_ones_mean_nothing() {
        assert_eq!(write(A | D, 2), Move::Refuse);
        assert_eq!(write(A, 0x23), Move::Refuse);
        assert_eq!(write(A, 0x100), Move::Refuse, "not the reset either");
    }

    #[test]
    fn needs_reset_is_the_devices_own() {
        assert_eq!(write(A | D | 64, 11 | 64), write(A | D, 11));
        assert_eq!(write(A | D | 64, 11), write(A | D, 11));
        assert_eq!(write(A, 1 | 64), Move::Keep);
    }

    #[test]
    fn after_failed_only_a_reset() {
        assert_eq!(write(A | D, 131), Move::Fail);
        assert_eq!(write(A | D, 128), Move::Fail);
        assert_eq!(write(A | D | 128, 131), Move::Keep);
        assert_eq!(write(A | D | 128, 11 | 128), Move::Refuse);
        assert_eq!(write(A | D | 128, 0), Move::Reset);
    }
}
