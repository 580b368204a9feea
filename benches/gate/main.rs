//! The work that `cargo xtask gate` counts. Without an argument, lists it; with the name of an
//! entry, does it, and says how many requests that were and how many allocations. Instructions are
//! counted by callgrind, system calls by strace.

mod allocations;
mod count;
mod device;
mod entry;
mod guest;
mod memory;
mod mmio;
mod pci;
mod ring;
mod virtio_queue;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let entries = entry::all();
    let Some(wanted) = std::env::args().nth(1) else {
        for entry in entries {
            println!("{} {}", entry.name, if entry.gated { "gated" } else { "told" });
        }
        return ExitCode::SUCCESS;
    };
    match entries.iter().find(|entry| entry.name == wanted) {
        Some(entry) => {
            (entry.run)();
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("there is no entry {wanted}");
            ExitCode::FAILURE
        }
    }
}
