//! The program.

use std::process::ExitCode;

use digest_backend::Digests;

fn main() -> ExitCode {
    xen_virtio_backend::main(Digests)
}
