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
    /// Nothing, or what no driver may do: the register keeps its value.
    Ignore,
    /// Writing 0.
    Reset,
    /// Set the bits; none of them has an effect of its own.
    Set(Status),
    /// Set the bits if the features are valid, all but `FEATURES_OK` otherwise.
    CheckFeatures(Status),
    /// `DRIVER_OK`: go live.
    GoLive,
}

/// Each state and the states a driver may go to by one write (virtio 1.2 §3.1.1).
///
/// Wider than the letter where real drivers are: `ACKNOWLEDGE` and `DRIVER` may come in one write,
/// and a write that repeats the state is harmless. `DRIVER_OK` never comes in the same write as
/// `FEATURES_OK`, whose acceptance the driver has to read back in between.
const MOVES: [(Status, Status); 5] = {
    const A: Status = Status::ACKNOWLEDGE;
    const AD: Status = A.union(Status::DRIVER);
    const ADF: Status = AD.union(Status::FEATURES_OK);
    const ADFO: Status = ADF.union(Status::DRIVER_OK);
    [(Status::empty(), A), (Status::empty(), AD), (A, AD), (AD, ADF), (ADF, ADFO)]
};

impl Status {
    /// What writing `value` in this state means.
    pub(crate) fn write(self, value: u32) -> Move {
        if value == 0 {
            return Move::Reset;
        }
        let Some(new) = u8::try_from(value).ok().and_then(Status::from_bits) else {
            return Move::Ignore;
        };
        // The device alone sets and clears DEVICE_NEEDS_RESET, whatever the driver writes there.
        let old = self.difference(Status::DEVICE_NEEDS_RESET);
        let new = new.difference(Status::DEVICE_NEEDS_RESET);
        if old.contains(Status::FAILED) {
            return Move::Ignore;
        }
        if new.contains(Status::FAILED) {
            return Move::Set(Status::FAILED);
        }
        if !MOVES.contains(&(old, new)) {
            return Move::Ignore;
        }
        let added = new.difference(old);
        if added.contains(Status::DRIVER_OK) {
            Move::GoLive
        } else if added.contains(Status::FEATURES_OK) {
            Move::CheckFeatures(added)
        } else {
            Move::Set(added)
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
        assert_eq!(write(A | D | F, 15), Move::GoLive);
        assert_eq!(
            write(0, 3),
            Move::Set(Status::ACKNOWLEDGE | Status::DRIVER),
            "two steps in one write"
        );
    }

    #[test]
    fn every_other_pair_is_refused_or_failed_or_reset() {
        for from in 0..=255u8 {
            let Some(old) = Status::from_bits(from) else {
                continue;
            };
            for value in 0..=0x1ff_u32 {
                match old.write(value) {
                    Move::Reset => assert_eq!(value, 0),
                    Move::Set(Status::FAILED) => assert!(value & 0x80 != 0 && from & 0x80 == 0),
                    Move::Ignore => {}
                    _ => {
                        let (from, to) = (from & !0x40, value as u8 & !0x40);
                        assert!(
                            [(0, 1), (0, 3), (1, 3), (3, 11), (11, 15)].contains(&(from, to)),
                            "{from:#x} to {to:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_jump_past_feature_negotiation() {
        assert_eq!(write(A | D, u32::from(A | D | O)), Move::Ignore);
        assert_eq!(write(A | D, u32::from(A | D | F | O)), Move::Ignore);
    }

    #[test]
    fn bits_cannot_be_cleared_and_unknown_ones_mean_nothing() {
        assert_eq!(write(A | D, 2), Move::Ignore);
        assert_eq!(write(A, 0x23), Move::Ignore);
        assert_eq!(write(A, 0x100), Move::Ignore, "not the reset either");
    }

    #[test]
    fn needs_reset_is_the_devices_own() {
        assert_eq!(write(A | D | 64, 11 | 64), write(A | D, 11));
        assert_eq!(write(A | D | 64, 11), write(A | D, 11));
        assert_eq!(write(A, 1 | 64), Move::Ignore);
    }

    #[test]
    fn after_failed_only_a_reset() {
        assert_eq!(write(A | D | 128, 11 | 128), Move::Ignore);
        assert_eq!(write(A | D | 128, 0), Move::Reset);
    }
}
