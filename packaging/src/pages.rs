//! Man pages, in section 8: what `clap` knows of a command, and what only its operator needs to know.

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use xen_virtio_blk::args::Cli;

const SECTION: &str = "8";

/// Titles and texts that follow what `clap` writes.
type Chapters = &'static [(&'static str, &'static [(&'static str, &'static str)])];

const OF_PROGRAM: Chapters = &[(
    "SEE ALSO",
    &[(
        "",
        "xen-virtio-blk-run(8), xen-virtio-blk-check(8), xen-virtio-blk-status(8), xen-virtio-blk-resize(8), \
         xen-virtio-blk-limit(8), xen-virtio-blk-device-tree(8), xen-virtio-blk-log-level(8), xl(1), xl.cfg(5), \
         xl-disk-configuration(5), systemd(1); /usr/share/doc/xen-virtio-blk/install.md",
    )],
)];

const OF_RUN: Chapters = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "It ends at once. The processes of guests serve on, and are taken over when it is started again. They \
                 take no notice of any of these signals; by SIGKILL one ends, and its guest loses its disks.",
            ),
            (
                "SIGHUP",
                "Reads the size of each image anew; a guest's disk has the new size at once.",
            ),
            ("SIGUSR1", "Logs what each disk has done so far, and writes the metrics file."),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/xen-virtio-blk/disks.toml",
                "Settings of single disks, as the service has them read (--config).",
            ),
            ("/etc/default/xen-virtio-blk", "Options of the service."),
            ("/run/xen-virtio-blk/lock", "Locked while a daemon runs; holds its process id."),
            ("/run/xen-virtio-blk/control", "The socket where the other commands ask it."),
            ("/run/xen-virtio-blk/guests", "The sockets of the guests' processes, one for each."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It was told to end, and has."),
            (
                "1",
                "It could not start, or lost xenstored while it served no guest. The last line of the log says why.",
            ),
            ("2", "The command line is wrong."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "RUST_LOG",
                "What is logged, as \"debug\" or \"xen_virtio_blk=debug\"; otherwise \"info\".",
            ),
            ("NOTIFY_SOCKET, WATCHDOG_USEC", "Set by systemd; see sd_notify(3)."),
        ],
    ),
    ("SEE ALSO", &[("", "xen-virtio-blk(8), xen-virtio-blk-check(8), xl-disk-configuration(5)")]),
];

const OF_CHECK: Chapters = &[
    (
        "EXIT STATUS",
        &[
            ("0", "This domain can serve virtio disks."),
            ("1", "It can't: the lines marked MISSING say what to do."),
        ],
    ),
    ("SEE ALSO", &[("", "xen-virtio-blk(8), xen-virtio-blk-run(8)")]),
];

/// Of the commands that ask the daemon.
const OF_OPERATOR: Chapters = &[
    (
        "FILES",
        &[("/run/xen-virtio-blk/control", "The socket where the daemon hears. It is root's.")],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "It is done."),
            ("1", "It is not, or no daemon of this version runs. The last line says why."),
            ("2", "The command line is wrong."),
        ],
    ),
    ("SEE ALSO", &[("", "xen-virtio-blk(8), xen-virtio-blk-run(8)")]),
];

const OF_DEVICE_TREE: Chapters = &[
    (
        "EXIT STATUS",
        &[
            ("0", "The device tree is written."),
            ("1", "It is not. The last line says why."),
            ("2", "The command line is wrong."),
        ],
    ),
    (
        "SEE ALSO",
        &[(
            "",
            "xen-virtio-blk(8), xen-virtio-blk-run(8), xl.cfg(5); /usr/share/doc/xen-virtio-blk/pci.md",
        )],
    ),
];

/// The page of the program and of each command, by file name.
pub(crate) fn all() -> Result<Vec<(String, Vec<u8>)>> {
    // Its page would only say that there is --help.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands = [&program].into_iter().chain(program.get_subcommands());
    commands.map(|command| page(command, &program)).collect()
}

fn page(command: &Command, program: &Command) -> Result<(String, Vec<u8>)> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let version = program.get_version().unwrap_or_default();
    let chapters = match command.get_name() {
        "run" => OF_RUN,
        "check" => OF_CHECK,
        "device-tree" => OF_DEVICE_TREE,
        "status" | "resize" | "limit" | "log-level" => OF_OPERATOR,
        _ => OF_PROGRAM,
    };
    let mut text = Vec::new();
    Man::new(command.clone().name(name.clone()).version(version.to_owned()))
        .title(name.to_uppercase())
        .section(SECTION)
        .source(format!("{} {version}", program.get_name()))
        .manual("Xen virtio backends")
        .render(&mut text)?;
    for (title, entries) in chapters {
        let mut roff = Roff::new();
        roff.control("SH", [*title]);
        for (term, meaning) in *entries {
            if !term.is_empty() {
                roff.control("TP", []);
                roff.text([bold(*term)]);
            }
            roff.text([roman(*meaning)]);
        }
        roff.to_writer(&mut text)?;
    }
    Ok((format!("{name}.{SECTION}"), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn text(name: &str) -> String {
        let page = all().unwrap().into_iter().find(|(file, _)| file == name);
        String::from_utf8(page.expect("a page").1).unwrap()
    }

    #[test]
    fn the_program_and_each_command_have_a_page() {
        let pages = all().unwrap();
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        let commands = ["run", "check", "status", "resize", "limit", "device-tree", "log-level"];
        let its = commands.map(|command| format!("xen-virtio-blk-{command}.8"));
        assert_eq!(names[0], "xen-virtio-blk.8");
        assert_eq!(names[1..], its);
    }

    #[test]
    fn the_page_of_a_command_has_its_options_signals_and_files() {
        let run = text("xen-virtio-blk-run.8");
        for option in Cli::command().find_subcommand("run").expect("run").get_opts() {
            let long = option.get_long().expect("a long option").replace('-', "\\-");
            assert!(run.contains(&long), "{long}");
        }
        for part in ["SIGHUP", "disks.toml", "EXIT STATUS", "SEE ALSO"] {
            assert!(run.contains(part), "{part}");
        }
        assert!(text("xen-virtio-blk.8").contains("xen\\-virtio\\-blk\\-check(8)"));
    }

    /// groff's `man` macros warn of what they can't make sense of.
    #[test]
    fn groff_has_nothing_against_the_pages() {
        let Ok(version) = std::process::Command::new("groff").arg("--version").output() else {
            println!("skipped: there is no groff");
            return;
        };
        assert!(version.status.success());
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in all().unwrap() {
            let path = dir.path().join(&name);
            std::fs::write(&path, text).unwrap();
            let mut groff = std::process::Command::new("groff");
            groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&path).stdin(Stdio::null());
            let said = groff.output().unwrap();
            assert_eq!(String::from_utf8_lossy(&said.stderr), "", "{name}");
        }
    }
}
