//! `xen-virtio-blk status`.

use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

use backend_process::output;

use xen_virtio_backend::control::Client;

use super::{
    json::Json,
    row::{Snapshot, rows},
    select::Selection,
    table::table,
};
use crate::{args::StatusArgs, disks::Disks};

/// Clears a terminal (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows the disks, and what they do.
///
/// # Errors
/// The daemon does not answer, or nobody reads what is printed.
pub fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let client = Client::<Disks>::new(&args.daemon.run_dir);
    let look = || -> anyhow::Result<Snapshot> {
        let (at, mut status) = (Instant::now(), client.status()?);
        if args.guest.is_some() {
            let selection = Selection { guest: args.guest.as_deref(), disk: None };
            let devices = selection.of(&status)?.into_iter().cloned().collect();
            status.devices = devices;
        }
        Ok(Snapshot { at, status })
    };
    let clears = args.watch && !args.json && io::stdout().is_terminal();
    let mut earlier = look()?;
    loop {
        thread::sleep(Duration::from_secs(args.interval));
        let later = look()?;
        let rows = rows(&earlier, &later);
        let unknown = &later.status.unknown;
        let text = match args.json {
            true => serde_json::to_string(&Json { disks: &rows, unknown_domains: unknown })?,
            false => table(&rows, unknown).trim_end().to_owned(),
        };
        match output::line(if clears { format!("{CLEAR}{text}") } else { text }) {
            // Whoever read it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        if !args.watch {
            return Ok(());
        }
        earlier = later;
    }
}
