//! Which chains are in flight.

use super::fault::RingFault;

/// By the head of each chain, whether the device or the driver owns it.
///
/// The device owns it until its used entry is published, as the driver can't reuse its descriptors
/// before. So at most as many entries as the queue has are staged at a time.
pub(super) struct Heads {
    /// The number of the publication that gave, or is to give, the chain back; or [`IN_FLIGHT`].
    given_back: Vec<u64>,
    /// The number of the next publication. 64 bits don't wrap.
    publication: u64,
}

const IN_FLIGHT: u64 = u64::MAX;

impl Heads {
    pub(super) fn new(size: u16) -> Self {
        Self { given_back: vec![0; size.into()], publication: 1 }
    }

    /// The chain is in flight from now on.
    ///
    /// # Errors
    /// There is no such head, or the device has the chain already.
    #[inline]
    pub(super) fn take(&mut self, head: u16) -> Result<(), RingFault> {
        match self.given_back.get_mut(usize::from(head)) {
            Some(given_back) if *given_back < self.publication => {
                *given_back = IN_FLIGHT;
                Ok(())
            }
            Some(_) => Err(RingFault::HeadInFlight(head)),
            None => Err(RingFault::DescriptorIndex(head)),
        }
    }

    /// The chain is the driver's again, as if it had not been taken; `false` if it isn't in flight.
    pub(super) fn put_back(&mut self, head: u16) -> bool {
        let taken = self.given_back.get_mut(usize::from(head));
        taken
            .filter(|given_back| **given_back == IN_FLIGHT)
            .map(|given_back| *given_back = 0)
            .is_some()
    }

    /// The next publication gives the chain back.
    ///
    /// # Errors
    /// It isn't in flight.
    #[inline]
    pub(super) fn stage(&mut self, head: u16) -> Result<(), RingFault> {
        match self.given_back.get_mut(usize::from(head)) {
            Some(given_back) if *given_back == IN_FLIGHT => {
                *given_back = self.publication;
                Ok(())
            }
            _ => Err(RingFault::NotInFlight(head)),
        }
    }

    /// What is staged is the driver's again.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.publication = self.publication.wrapping_add(1);
    }
}
