//! `cargo xtask demo`: the main job, shown.

use crate::case::Case;
use crate::image::Image;
use crate::paths;
use crate::progress::human;
use crate::run::{self, Outcome};
use crate::testbed::Testbed;
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;

/// Where the guest's files are on each disk: the disk's name, the directory in its file system.
const FILES: [(&str, &str); 2] = [("root", "/data"), ("data", "/")];

/// True if everything held.
pub(crate) fn run() -> Result<bool> {
    let testbed = Testbed::build(false)?;
    let binaries = testbed.daemon()?;
    let case = Case::at("demo", paths::testbed("demo.sh"))?;
    println!(
        "\nThe guest's console (guest|), our daemon's log (daemon|) and what is checked (@@):\n"
    );
    let outcome = run::run(&testbed, &binaries, &case, &|line| {
        if ["guest| ", "daemon| ", "@@ "].iter().any(|prefix| line.starts_with(prefix)) {
            println!("{line}");
        }
    })?;
    println!();
    let fault = outcome.fault.clone().or_else(|| verify(&outcome).err().map(|e| format!("{e:#}")));
    table(&testbed, &outcome);
    match fault {
        None => println!("demo: PASS"),
        Some(fault) => {
            println!("the whole console: {}\ndemo: FAIL ({fault})", outcome.log.display());
            return Ok(false);
        }
    }
    Ok(true)
}

/// The guest's own sums, checked on the host; e2fsck has passed.
fn verify(outcome: &Outcome) -> Result<()> {
    for (disk, dir) in FILES {
        let image = outcome.disk(disk).context("a disk of the demo")?;
        let files = outcome.dir.join(format!("{disk}-files"));
        let count = check_sums(image, dir, &files)?;
        println!(
            "on the host: {disk}.img is clean (e2fsck), its {count} files have the guest's sha256"
        );
        fs::remove_dir_all(&files)?;
    }
    Ok(())
}

fn check_sums(image: &Image, dir: &str, to: &Path) -> Result<usize> {
    image.extract(dir, to)?;
    // debugfs keeps the directory's own name, unless it is the root.
    let files = to.join(dir.trim_start_matches('/'));
    let sums = fs::read_to_string(files.join("sums"))
        .with_context(|| format!("{} holds no {dir}/sums", image.path().display()))?;
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").context("a line of sums")?;
        let content = fs::read(files.join(name)).with_context(|| format!("{dir}/{name}"))?;
        let found: String =
            Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != sum {
            bail!("{dir}/{name} in {} is not what the guest wrote", image.path().display());
        }
    }
    match sums.lines().count() {
        0 => bail!("{dir}/sums in {} is empty", image.path().display()),
        count => Ok(count),
    }
}

fn table(testbed: &Testbed, outcome: &Outcome) {
    let lines = &outcome.console.lines;
    let note = |key: &str| {
        let prefix = format!("@@ note {key} ");
        lines.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap_or("?").to_owned()
    };
    let guest = lines.iter().find_map(|line| line.strip_prefix("guest| %% kernel ")).unwrap_or("?");
    println!();
    println!("{:<12} {} ({})", "Xen", note("xen"), testbed.versions.xen);
    println!("{:<12} {}", "dom0", note("dom0"));
    println!("{:<12} {guest} (Debian's own, unmodified)", "guest");
    println!("{:<12} {}", "took", human(outcome.took));
    println!();
    println!(
        "{:<22} {:>12} {:>9} {:>8} {:>11}",
        "disk, each boot", "features", "requests", "ioreqs", "interrupts"
    );
    for line in
        lines.iter().filter(|line| line.starts_with("daemon| ") && line.contains("disk totals"))
    {
        let word = |key: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or("?")
        };
        println!(
            "{:<22} {:>12} {:>9} {:>8} {:>11}",
            word("id"),
            word("features"),
            word("requests"),
            word("ioreqs"),
            word("interrupts")
        );
    }
    println!();
}
