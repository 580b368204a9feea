//! Debian's source packages, unpacked and patched.

use crate::apt::Source;
use crate::cache::Workshop;
use crate::debian::Debian;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Unpacks a downloaded source package into a new directory, and applies Debian's patches.
pub(crate) fn unpack(
    shop: &Workshop<'_>,
    debian: &Debian<'_>,
    source: &Source,
    tree: &Path,
) -> Result<()> {
    fs::create_dir(tree)?;
    for (ending, strip) in [(".orig.tar", "1"), (".debian.tar", "0")] {
        let archive = debian.file(source.file(ending)?);
        shop.log.run(
            Command::new("tar")
                .arg("-C")
                .arg(tree)
                .arg("--strip-components")
                .arg(strip)
                .arg("-xf")
                .arg(archive),
        )?;
    }
    let series = fs::read_to_string(tree.join("debian/patches/series"))?;
    for patch in
        series.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        shop.log.run(
            Command::new("patch")
                .current_dir(tree)
                .args(["-s", "-p1", "-i"])
                .arg(format!("debian/patches/{patch}")),
        )?;
    }
    Ok(())
}
