//! The command line.

use clap::{Args, Parser, Subcommand};

/// A virtio block backend for Xen: serves the disks that xl.cfg marks `specification=virtio`.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the disks of every guest until SIGTERM. SIGUSR1 logs what each disk has done.
    Run(RunArgs),
    /// Say what this domain can do as a backend, and what to do about what is missing.
    Check,
}

/// How `run` serves.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Descriptors in each disk's queue: a power of two up to 1024.
    #[arg(long, default_value_t = 256, value_parser = queue_size)]
    pub queue_size: u16,
}

fn queue_size(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(size) if size.is_power_of_two() && (4..=1024).contains(&size) => Ok(size),
        _ => Err("should be a power of two from 4 to 1024".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_queue_size_that_no_ring_can_have_is_refused() {
        for size in ["0", "3", "2048", "-1", "x"] {
            let error = Cli::try_parse_from(["xen-virtio-blk", "run", "--queue-size", size]);
            assert!(error.is_err(), "{size}");
        }
        assert!(Cli::try_parse_from(["xen-virtio-blk", "run", "--queue-size", "128"]).is_ok());
    }
}
