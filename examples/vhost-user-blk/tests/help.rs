//! What `vhost-user-blk --help` says is kept, so that a change of it is seen in review:
//! `UPDATE_HELP=1 cargo test -p vhost-user-blk --test help` writes it anew.

use std::{fs, path::Path};

use clap::CommandFactory;
use vhost_user_blk::args::Args;

#[test]
fn the_help_is_the_one_that_is_kept() {
    let help = Args::command().render_long_help().to_string();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/help/vhost-user-blk.txt");
    if std::env::var_os("UPDATE_HELP").is_some() {
        fs::write(&kept, &help).unwrap();
    }
    assert_eq!(fs::read_to_string(kept).unwrap_or_default(), help, "UPDATE_HELP=1 writes it");
    assert!(help.starts_with("Serves a disk image as a vhost-user-blk device"), "{help}");
}
