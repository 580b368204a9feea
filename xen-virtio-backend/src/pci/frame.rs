//! A GICv2m frame: a page to which a device writes an interrupt's number, by which it is raised (Arm Base System
//! Architecture, appendix "GICv2m architecture").

/// `MSI_SETSPI_NS`: where the number is written.
pub(crate) const SET_SPI: u64 = 0x40;

/// What the guest reads. Which interrupts the frame has is in the device tree, where Linux looks first; `MSI_TYPER`
/// tells of none, and the identification registers of no implementer, so that no driver applies another's quirks.
pub(crate) fn read(data: &mut [u8]) {
    data.fill(0);
}

/// The interrupt that a write of the guest's own raises.
pub(crate) fn raised_by(offset: u64, data: &[u8]) -> Option<u32> {
    let number = <[u8; 4]>::try_from(data).ok().filter(|_| offset == SET_SPI)?;
    Some(u32::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_written_to_setspi_raises_an_interrupt_and_nothing_else_does() {
        assert_eq!(raised_by(0x40, &[96, 0, 0, 0]), Some(96));
        assert_eq!(raised_by(0x40, &[96, 0]), None);
        assert_eq!(raised_by(0x44, &[96, 0, 0, 0]), None);
    }

    #[test]
    fn the_frame_reads_as_of_no_implementer() {
        let mut data = [0xff; 4];
        read(&mut data);
        assert_eq!(data, [0; 4]);
    }
}
