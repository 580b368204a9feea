use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::wear::Wear;
use super::{Topology, sys};

/// The attributes of a block device in sysfs.
#[derive(Debug)]
pub(super) struct Device {
    directory: PathBuf,
}

impl Device {
    /// The device with this number.
    pub(super) fn new(number: u64) -> Self {
        let (major, minor) = (libc::major(number), libc::minor(number));
        Self { directory: format!("/sys/dev/block/{major}:{minor}").into() }
    }

    /// The device of a special file.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self::new(metadata.rdev())
    }

    /// An attribute of its queue. For a partition that of its disk.
    fn queue(&self, attribute: &str) -> Option<u64> {
        let queue = |directory: &str| number(&self.directory.join(directory).join(attribute));
        queue("queue").or_else(|| queue("../queue"))
    }

    /// The unit of its discards, if it supports them. If that is not a power of two, its greatest divisor
    /// that is one.
    pub(super) fn discard_unit(&self, logical_block_size: u32) -> Option<u32> {
        let granularity = self.queue("discard_granularity").filter(|bytes| *bytes > 0)?;
        self.queue("discard_max_bytes").filter(|bytes| *bytes > 0)?;
        let unit = 1u32.checked_shl(granularity.trailing_zeros()).unwrap_or(1 << 31);
        Some(unit.max(logical_block_size))
    }

    /// Whether it has a command to write zeroes.
    pub(super) fn zeroes(&self) -> bool {
        self.queue("write_zeroes_max_bytes").is_some_and(|bytes| bytes > 0)
    }

    /// Its logical block size.
    pub(super) fn logical_block_size(&self) -> Option<u32> {
        self.queue("logical_block_size")?.try_into().ok()
    }

    /// Its wear, if it is an eMMC (not a partition) that reports it.
    pub(super) fn wear(&self) -> Option<Wear> {
        let open = |name| File::open(self.directory.join("device").join(name)).ok();
        let wear = Wear::new(open("pre_eol_info")?, open("life_time")?);
        wear.read().is_some().then_some(wear)
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A block device's topology. Values other than its logical block size may be missing or inconsistent.
pub(super) fn topology(device: &File) -> io::Result<Topology> {
    let logical = sys::device_int(device, libc::BLKSSZGET)?;
    let int = |request| sys::device_int(device, request).ok();
    let physical = int(libc::BLKPBSZGET).unwrap_or(logical);
    Ok(Topology {
        logical_block_size: logical,
        physical_block_size: physical,
        alignment_offset: int(sys::BLKALIGNOFF).unwrap_or(0),
        min_io_size: int(sys::BLKIOMIN).unwrap_or(0),
        opt_io_size: int(sys::BLKIOOPT).unwrap_or(0),
    })
}

/// Whether the device supports secure erase. This is not in sysfs. But since Linux 5.19 (`release`) the
/// kernel checks the support before the range, and a range from byte 1 is invalid, as no sector begins there:
/// so the error tells.
pub(super) fn erases_securely(device: &File, release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let refusal = || sys::device_range(device, sys::BLKSECDISCARD, 1, 1).err();
    version >= (5, 19) && refusal().and_then(|e| e.raw_os_error()) == Some(libc::EINVAL)
}

/// The kernel's release, as `uname -r` has it.
pub(super) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::Lifetime;
    use super::*;

    fn lifetime(device: &Device) -> Option<Lifetime> {
        device.wear()?.read()
    }

    fn device(attributes: &[(&str, &str)]) -> (tempfile::TempDir, Device) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in attributes {
            let path = root.path().join("disk").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let directory = root.path().join("disk");
        (root, Device { directory })
    }

    #[test]
    fn the_unit_of_discards_is_a_power_of_two_and_a_block_at_least() {
        for (granularity, max, unit) in [
            ("4096\n", "1073741824\n", Some(4096)),
            ("512\n", "1073741824\n", Some(4096)),
            ("1572864\n", "1073741824\n", Some(524288)), // a RAID of 3 × 512 KiB
            ("0\n", "1073741824\n", None),
            ("4096\n", "0\n", None),
            ("absurd\n", "1073741824\n", None),
        ] {
            let (_root, device) = device(&[
                ("queue/discard_granularity", granularity),
                ("queue/discard_max_bytes", max),
            ]);
            assert_eq!(device.discard_unit(4096), unit, "{granularity:?} {max:?}");
        }
    }

    #[test]
    fn a_partition_has_the_queue_of_its_disk_but_not_its_wear() {
        let (_root, mut device) = device(&[
            ("queue/write_zeroes_max_bytes", "512\n"),
            ("device/pre_eol_info", "0x01\n"),
            ("device/life_time", "0x02 0x0b\n"),
            ("part/partition", "1\n"),
        ]);
        let wear = Lifetime {
            pre_eol_info: 1,
            device_lifetime_est_typ_a: 2,
            device_lifetime_est_typ_b: 11,
        };
        assert_eq!((device.zeroes(), lifetime(&device)), (true, Some(wear)));
        device.directory.push("part");
        assert_eq!((device.zeroes(), lifetime(&device)), (true, None));
    }

    #[test]
    fn wear_that_is_undefined_or_unreadable_is_none() {
        for (pre_eol_info, life_time) in [
            ("0x00\n", "0x00 0x00\n"),
            ("0x01\n", "0x02\n"),
            ("1\n", "0x02 0x02\n"),
            ("0x01\n", "0x02 0x12345\n"),
            ("", ""),
        ] {
            let (_root, device) =
                device(&[("device/pre_eol_info", pre_eol_info), ("device/life_time", life_time)]);
            assert_eq!(lifetime(&device), None, "{pre_eol_info:?} {life_time:?}");
        }
    }
}
