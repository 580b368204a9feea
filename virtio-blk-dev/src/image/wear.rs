use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Lifetime;

/// The attributes in sysfs that tell the wear of an eMMC. They stay open, so that a process without a file
/// system can read them.
#[derive(Debug)]
pub(super) struct Wear {
    pre_eol_info: File,
    life_time: File,
}

impl Wear {
    pub(super) fn new(pre_eol_info: File, life_time: File) -> Self {
        Self { pre_eol_info, life_time }
    }

    /// In the order of [`new`](Self::new).
    pub(super) fn into_files(self) -> [File; 2] {
        [self.pre_eol_info, self.life_time]
    }

    /// The wear, read anew. All values undefined is no report.
    pub(super) fn read(&self) -> Option<Lifetime> {
        let (mut pre_eol_info, mut life_time) = ([0; 64], [0; 64]);
        let pre_eol_info = text(&self.pre_eol_info, &mut pre_eol_info)?;
        let life_time = text(&self.life_time, &mut life_time)?;
        let mut types = life_time.split_whitespace().map(hexadecimal);
        let lifetime = Lifetime {
            pre_eol_info: hexadecimal(pre_eol_info.trim())?,
            device_lifetime_est_typ_a: types.next()??,
            device_lifetime_est_typ_b: types.next()??,
        };
        (lifetime != Lifetime::default()).then_some(lifetime)
    }
}

/// An attribute's text. The kernel makes it anew for each read from its beginning.
fn text<'a>(attribute: &File, buffer: &'a mut [u8]) -> Option<&'a str> {
    let len = loop {
        match attribute.read_at(buffer, 0) {
            Ok(len) => break len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    };
    std::str::from_utf8(buffer.get(..len)?).ok()
}

fn hexadecimal(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
