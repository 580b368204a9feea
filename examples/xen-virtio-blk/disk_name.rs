//! What operators call a disk.

/// A disk's name in `xl.cfg`, by its number (Xen's docs/man/xen-vbd-interface.7.pandoc): 51712 is xvda. The number, if it
/// is none of an xvd.
pub(crate) fn disk_name(devid: u32) -> String {
    let (disk, partition) = match devid {
        0xca00..=0xcaff => ((devid & 0xff) >> 4, devid & 0xf),
        0x1000_0000..=0x1fff_ffff => ((devid & 0x0fff_ffff) >> 8, devid & 0xff),
        _ => return devid.to_string(),
    };
    let mut letters = Vec::new();
    // As the columns of a spreadsheet: z is followed by aa.
    let mut rest = disk + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    let letters: String = letters.into_iter().rev().collect();
    match partition {
        0 => format!("xvd{letters}"),
        partition => format!("xvd{letters}{partition}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_name_of_the_interface_document() {
        for (devid, name) in [
            (51712, "xvda"),
            (51713, "xvda1"),
            (51728, "xvdb"),
            (51952, "xvdp"),
            ((1 << 28) | (16 << 8), "xvdq"),
            ((1 << 28) | (26 << 8) | 3, "xvdaa3"),
            ((1 << 28) | (701 << 8), "xvdzz"),
            ((1 << 28) | (702 << 8), "xvdaaa"),
            (2048, "2048"),
            (0, "0"),
        ] {
            assert_eq!(disk_name(devid), name);
        }
    }
}
