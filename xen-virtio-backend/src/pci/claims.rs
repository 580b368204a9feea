//! Which parts of the bus are claimed of Xen.

use super::slot::{Slot, Slots};

/// The places whose configuration spaces one process of a guest answers: those of its own devices, and all that are
/// empty. A place of another process's device is left to that process, be it of this backend or another: each has an
/// IOREQ server of its own, and Xen takes the guest's access to the first that has claimed the address. Every place
/// has to be claimed by one of them, as an access that nobody answers is an external abort in the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claims {
    claimed: Slots,
    /// Places of which xenstore has a device.
    taken: Slots,
}

impl Claims {
    /// Xenstore has devices in these places, and in no others.
    pub(crate) fn set_taken(&mut self, taken: Slots) {
        self.taken = taken;
    }

    /// What has to change, if the process has devices in the places `own`.
    pub(crate) fn changes(self, own: Slots) -> impl Iterator<Item = Change> {
        Slot::all().filter_map(move |slot| {
            let wanted = own.contains(slot) || !self.taken.contains(slot);
            match (wanted, self.claimed.contains(slot)) {
                (true, false) => Some(Change::Claim(slot)),
                (false, true) => Some(Change::Leave(slot)),
                _ => None,
            }
        })
    }

    /// It was done.
    pub(crate) fn done(&mut self, change: Change) {
        match change {
            Change::Claim(slot) => self.claimed.insert(slot),
            Change::Leave(slot) => self.claimed.remove(slot),
        }
    }
}

/// What is to be done about one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// To claim its configuration space.
    Claim(Slot),
    /// To leave it to another process.
    Leave(Slot),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u64) -> Slot {
        Slot::of_window(0x0200_0000 + (number - 1) * 0x200).unwrap()
    }

    fn carry_out(claims: &mut Claims, own: Slots) -> Vec<Change> {
        let changes: Vec<_> = claims.changes(own).collect();
        changes.iter().for_each(|change| claims.done(*change));
        changes
    }

    #[test]
    fn two_processes_claim_all_places_and_neither_one_of_the_others_devices() {
        let (own, others) = (Slots::from_iter([slot(1)]), Slots::from_iter([slot(2)]));
        let all = Slots::from_iter([slot(1), slot(2)]);
        let (mut claims, mut its) = (Claims::default(), Claims::default());
        claims.set_taken(all);
        its.set_taken(all);
        carry_out(&mut claims, own);
        carry_out(&mut its, others);
        for place in Slot::all() {
            assert_eq!(claims.claimed.contains(place), place != slot(2));
            assert_eq!(its.claimed.contains(place), place != slot(1));
        }
    }

    #[test]
    fn an_empty_place_is_left_when_another_process_has_a_device_there_and_taken_back_after_it() {
        let own = Slots::from_iter([slot(1)]);
        let mut claims = Claims::default();
        claims.set_taken(own);
        assert_eq!(carry_out(&mut claims, own).len(), 32);
        claims.set_taken(Slots::from_iter([slot(1), slot(5)]));
        assert_eq!(carry_out(&mut claims, own), [Change::Leave(slot(5))]);
        claims.set_taken(own);
        assert_eq!(carry_out(&mut claims, own), [Change::Claim(slot(5))]);
        assert_eq!(carry_out(&mut claims, own), []);
    }
}
