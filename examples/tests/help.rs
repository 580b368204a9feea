//! What `xen-virtio-blk --help` says is kept, so that a change of it is seen in review:
//! `UPDATE_HELP=1 cargo test -p xen-virtio-examples --test help` writes it anew.

use std::{fs, path::Path};

use clap::CommandFactory;
use xen_virtio_blk::args::Cli;

#[test]
fn the_help_of_the_program_and_of_each_command_is_the_one_that_is_kept() {
    let mut program = Cli::command();
    program.build();
    let mut help = program.render_long_help().to_string();
    for command in program.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        help += &format!("\n---\n\n{}", command.render_long_help());
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/help/xen-virtio-blk.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::write(&kept, &help).unwrap();
    }
    assert_eq!(fs::read_to_string(kept).unwrap_or_default(), help, "UPDATE_HELP=1 writes it");
    assert!(help.starts_with("A virtio block backend for Xen"), "{help}");
    assert!(!help.contains("examples of"), "it is about the program, not its package");
}

#[test]
fn the_program_goes_by_its_own_name_and_not_its_packages() {
    let mut program = Cli::command();
    program.build();
    let version = program.render_version().to_string();
    assert!(version.starts_with("xen-virtio-blk "), "{version}");
    for command in [&program].into_iter().chain(program.get_subcommands()) {
        let usage = command.clone().render_usage().to_string();
        assert!(usage.starts_with("Usage: xen-virtio-blk"), "{usage}");
    }
}
