//! How much of a guest's memory may be mapped.

use std::{fs, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::amount::amount;

/// The least that is of use: a few chunks of 2 MiB.
const LEAST: u64 = 16 << 20;
/// No default is less, however small this domain is.
const LEAST_BY_DEFAULT: u64 = 64 << 20;

/// `--map-budget`, for each guest.
///
/// A page that is mapped from a guest costs this domain a page frame. Where Xen offers address space for them
/// ("extended regions") and the kernel takes it, that is its `struct page`, 64 bytes. Else it is a page of this
/// domain's own memory, which the kernel gives back to Xen for the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapBudget {
    /// A part of this domain's memory: an eighth where a page costs a page; else four times that memory, whose
    /// `struct page`s are a sixteenth of it.
    #[default]
    Automatic,
    /// So many bytes.
    Bytes(u64),
}

impl MapBudget {
    /// How much of a guest's memory may be mapped, in bytes. To be asked when something of a guest was
    /// mapped: only then can it be seen what a page costs.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Automatic => {
                let read = |path| fs::read_to_string(path).unwrap_or_default();
                automatic(&read("/proc/meminfo"), &read("/proc/iomem"))
            }
        }
    }
}

/// The default for a domain whose `/proc/meminfo` and `/proc/iomem` these are.
fn automatic(meminfo: &str, iomem: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()?.checked_mul(1024)
    });
    // What drivers/xen/unpopulated-alloc.c of Linux calls the address space that it took.
    let unpopulated = iomem.lines().any(|line| line.trim_end().ends_with(" : Xen scratch"));
    let total = total.unwrap_or_default();
    let budget = if unpopulated { total.saturating_mul(4) } else { total / 8 };
    budget.max(LEAST_BY_DEFAULT)
}

impl FromStr for MapBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match amount(text, 1024) {
            Some(bytes) if bytes >= LEAST => Ok(Self::Bytes(bytes)),
            _ => Err(format!("{text:?} should be a size of 16M or more, as 512M or 2G")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:        1048576 kB\nMemFree:          123456 kB\n";
    const SCRATCH: &str = "40000000-7fffffff : System RAM\n100000000-107ffffff : Xen scratch\n";

    #[test]
    fn a_guest_gets_by_default_what_costs_dom0_a_part_of_its_memory() {
        assert_eq!(automatic(MEMINFO, "40000000-7fffffff : System RAM\n"), 128 << 20);
        assert_eq!(automatic(MEMINFO, SCRATCH), 4 << 30);
        assert_eq!(automatic("", ""), LEAST_BY_DEFAULT);
    }

    #[test]
    fn a_budget_is_a_size() {
        assert_eq!("512M".parse(), Ok(MapBudget::Bytes(512 << 20)));
        assert_eq!("16777216".parse(), Ok(MapBudget::Bytes(16 << 20)));
        for text in ["", "G", "1M", "-1G", "1T", "99999999999G"] {
            assert!(text.parse::<MapBudget>().is_err(), "{text}");
        }
    }
}
