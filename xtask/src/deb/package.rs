//! One package: what it consists of, and how it is made.

use super::licences::Licences;
use super::release::Release;
use super::tree::Tree;
use super::{read, recipe};
use crate::architecture::Architecture;
use crate::log::output;
use crate::paths;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAINTAINER: &str = "xen-virtio developers <xen-virtio@users.noreply.github.com>";
/// What dpkg runs, each from the recipe.
const SCRIPTS: [&str; 3] = ["postinst", "postrm", "prerm"];

/// What a package is made from.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) architecture: Architecture,
    pub(super) release: Release,
    pub(super) binary: PathBuf,
    /// Man pages and completions.
    pub(super) pages: PathBuf,
    pub(super) licences: Licences,
}

impl Package {
    /// Writes it to `dir`; gives where it is.
    pub(super) fn build(&self, dir: &Path) -> Result<PathBuf> {
        let stage = dir.join(format!("{}_{}", self.name, self.architecture.debian()));
        let tree = self.tree()?;
        tree.write(&stage)?;
        self.control(&tree, &stage)?.write(&stage.join("DEBIAN"))?;
        let file =
            format!("{}_{}_{}.deb", self.name, self.release.debian(), self.architecture.debian());
        let deb = dir.join(file);
        let mut dpkg = Command::new("dpkg-deb");
        // No file is later than this, in the package.
        dpkg.env("SOURCE_DATE_EPOCH", self.release.epoch.to_string());
        // xz is read by every dpkg; the default depends on the distribution.
        dpkg.args(["--root-owner-group", "-Zxz", "--build"]).arg(&stage).arg(&deb);
        output(&mut dpkg)?;
        Ok(deb)
    }

    /// What it installs.
    fn tree(&self) -> Result<Tree> {
        let mut tree = Tree::default();
        let name = self.name;
        let doc = |file: &str| format!("usr/share/doc/{name}/{file}");
        // A program for root alone.
        tree.program(&format!("usr/sbin/{name}"), read(&self.binary)?);
        for (path, file) in [
            (format!("etc/default/{name}"), "etc/default"),
            (format!("etc/{name}/disks.toml"), "etc/disks.toml"),
            (format!("usr/lib/systemd/system/{name}.service"), "systemd/xen-virtio-blk.service"),
            (format!("usr/lib/sysusers.d/{name}.conf"), "systemd/sysusers.conf"),
            (format!("usr/lib/tmpfiles.d/{name}.conf"), "systemd/tmpfiles.conf"),
            (format!("usr/share/lintian/overrides/{name}"), "debian/lintian-overrides"),
        ] {
            tree.file(&path, read(&recipe(file))?);
        }
        for page in paths::files_below(&self.pages.join("man"))? {
            tree.compressed(&format!("usr/share/man/man8/{}", name_of(&page)?), &read(&page)?)?;
        }
        let completions = self.pages.join("completions");
        for (dir, file) in [
            ("bash-completion/completions", name.to_owned()),
            ("zsh/vendor-completions", format!("_{name}")),
            ("fish/vendor_completions.d", format!("{name}.fish")),
        ] {
            tree.file(&format!("usr/share/{dir}/{file}"), read(&completions.join(&file))?);
        }
        let root = paths::root();
        for file in ["README.md", "docs/messages.md"] {
            let file = root.join(file);
            tree.compressed(&doc(name_of(&file)?), &read(&file)?)?;
        }
        // The unit's Documentation= names it.
        for page in ["install.md", "pci.md"] {
            tree.file(&doc(page), read(&root.join("docs").join(page))?);
        }
        tree.compressed(&doc("changelog"), &read(&root.join("CHANGELOG.md"))?)?;
        tree.compressed(&doc("changelog.Debian"), self.changelog()?.as_bytes())?;
        tree.compressed(&doc("third-party-licences"), self.licences.text().as_bytes())?;
        tree.file(&doc("copyright"), self.copyright(&root)?);
        Ok(tree)
    }

    /// What dpkg is told of `tree`, which lies in `stage`.
    fn control(&self, tree: &Tree, stage: &Path) -> Result<Tree> {
        let mut control = Tree::default();
        let text = String::from_utf8(read(&recipe("debian/control"))?)?;
        let fields = [
            ("VERSION", self.release.debian()),
            ("ARCHITECTURE", self.architecture.debian().to_owned()),
            ("MAINTAINER", MAINTAINER.to_owned()),
            ("SIZE", tree.installed_size().to_string()),
        ];
        let fill = |text: String, (field, value): &(&str, String)| {
            text.replace(&format!("@{field}@"), value)
        };
        control.file("control", fields.iter().fold(text, fill));
        let conffiles = tree.paths().filter(|path| path.starts_with("etc/"));
        control.file("conffiles", conffiles.map(|path| format!("/{path}\n")).collect::<String>());
        let mut md5sum = Command::new("md5sum");
        md5sum.arg("--").args(tree.paths().filter(|path| !path.starts_with("etc/")));
        control.file("md5sums", output(md5sum.current_dir(stage))?);
        for script in SCRIPTS {
            control.program(script, read(&recipe("debian").join(script))?);
        }
        Ok(control)
    }

    fn changelog(&self) -> Result<String> {
        let commit = self.release.commit.as_deref().unwrap_or("unknown");
        Ok(format!(
            "{} ({}) unstable; urgency=medium\n\n  * Built from commit {commit}.\n\n -- {MAINTAINER}  {}\n",
            self.name,
            self.release.debian(),
            self.release.date()?
        ))
    }

    fn copyright(&self, root: &Path) -> Result<String> {
        let text = String::from_utf8(read(&recipe("debian/copyright"))?)?;
        let mit = fs::read_to_string(root.join("LICENSE-MIT")).context("reading LICENSE-MIT")?;
        // As the format wants the lines of a text: indented, a point for an empty one.
        let lines = mit.lines().map(|line| match line.trim_end() {
            "" => " .\n".to_owned(),
            line => format!(" {line}\n"),
        });
        Ok(text
            .replace("@MIT@\n", &lines.collect::<String>())
            .replace("@LIBC@", self.licences.libc()))
    }
}

fn name_of(path: &Path) -> Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.with_context(|| format!("{} has no plain name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::verify;

    /// A package whose program and pages are placeholders.
    fn package(dir: &Path) -> Package {
        let mut pages = Tree::default();
        for command in
            ["", "-run", "-check", "-status", "-resize", "-limit", "-device-tree", "-log-level"]
        {
            pages.file(&format!("man/xen-virtio-blk{command}.8"), ".TH page 8\n");
        }
        for file in ["xen-virtio-blk", "_xen-virtio-blk", "xen-virtio-blk.fish"] {
            pages.file(&format!("completions/{file}"), "# placeholder\n");
        }
        pages.program("program", "#!/bin/sh\necho xen-virtio-blk 1.2.3\n");
        pages.write(&dir.join("pages")).unwrap();
        Package {
            name: "xen-virtio-blk",
            architecture: Architecture::Arm64,
            release: Release { version: "1.2.3".to_owned(), commit: None, epoch: 1_700_000_000 },
            binary: dir.join("pages/program"),
            pages: dir.join("pages"),
            licences: Licences::of("aarch64-unknown-linux-musl", &[]).unwrap(),
        }
    }

    fn field(deb: &Path, name: &str) -> String {
        output(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name))
            .unwrap()
            .trim()
            .to_owned()
    }

    #[test]
    fn a_package_has_the_listed_files_and_two_builds_of_it_are_equal() {
        if !crate::toolchain::quiet(Command::new("dpkg-deb").arg("--version")) {
            return println!("skipped: there is no dpkg-deb");
        }
        let dir = std::env::temp_dir().join(format!("xtask-deb-{}", std::process::id()));
        let package = package(&dir);
        let deb = package.build(&dir.join("first")).unwrap();
        let again = package.build(&dir.join("second")).unwrap();
        assert_eq!(fs::read(&deb).unwrap(), fs::read(again).unwrap());
        assert!(deb.ends_with("xen-virtio-blk_1.2.3-1_arm64.deb"), "{}", deb.display());
        assert_eq!(field(&deb, "Version"), "1.2.3-1");
        assert_eq!(field(&deb, "Architecture"), "arm64");
        assert_eq!(field(&deb, "Maintainer"), MAINTAINER);
        for finding in verify::all(&deb, &package, true).unwrap() {
            // Of placeholders, lintian has its own opinion.
            assert!(!finding.is_fault() || finding.is_lintians(), "{finding}");
        }
        let control = dir.join("control");
        output(Command::new("dpkg-deb").arg("--control").arg(&deb).arg(&control)).unwrap();
        let conffiles = fs::read_to_string(control.join("conffiles")).unwrap();
        assert_eq!(conffiles, "/etc/default/xen-virtio-blk\n/etc/xen-virtio-blk/disks.toml\n");
        for script in SCRIPTS {
            output(Command::new("sh").arg("-n").arg(control.join(script))).unwrap();
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
