//! The subcommand `device-tree`.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, ensure};

use crate::args::DeviceTreeArgs;

/// Writes the tree to the standard output, and what xl.cfg needs beside it to the standard error.
///
/// # Errors
/// There is no such tree, or nobody who takes it.
pub fn device_tree(args: &DeviceTreeArgs) -> anyhow::Result<()> {
    let tree = args.tree()?;
    let mut out = io::stdout().lock();
    ensure!(
        !out.is_terminal(),
        "the device tree is not text: write it to a file, as with `xen-virtio-blk device-tree >/etc/xen/pci.dtb`"
    );
    let written = out.write_all(&tree.to_dtb()).and_then(|()| out.flush());
    written.context("the device tree can't be written")?;
    let lines = format!(
        "# {tree}. In the guest's xl.cfg, with the path of the file that this is written to:\n\
         device_tree = \"/etc/xen/pci.dtb\"\n\
         nr_spis = {}\n",
        tree.nr_spis()
    );
    // What matters is written.
    let _ = io::stderr().write_all(lines.as_bytes());
    Ok(())
}
