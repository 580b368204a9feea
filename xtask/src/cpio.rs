//! Initramfs archives: the "newc" cpio format of Linux's driver-api/early-userspace/buffer-format.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

enum Entry {
    Dir,
    File { mode: u32, content: Vec<u8> },
    Symlink(String),
}

/// An archive in the making: paths without a leading slash, all owned by root, no times.
#[derive(Default)]
pub(crate) struct Archive(BTreeMap<String, Entry>);

impl Archive {
    /// An archive with `bin`, `sbin` and `lib` merged into `usr`, as Debian's are.
    pub(crate) fn merged_usr() -> Self {
        let mut archive = Self::default();
        for dir in ["bin", "sbin", "lib"] {
            archive.dir(&format!("usr/{dir}"));
            archive.symlink(dir, &format!("usr/{dir}"));
        }
        for dir in ["proc", "sys", "dev", "tmp", "run", "mnt", "root"] {
            archive.dir(dir);
        }
        archive
    }

    pub(crate) fn dir(&mut self, path: &str) {
        self.parents(path);
        self.0.entry(path.to_owned()).or_insert(Entry::Dir);
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::Symlink(target.to_owned()));
    }

    pub(crate) fn bytes(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.parents(path);
        self.0.insert(path.to_owned(), Entry::File { mode, content: content.into() });
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.bytes(path, mode, content);
        Ok(())
    }

    /// A program of a Debian tree with the libraries it needs.
    pub(crate) fn program(&mut self, tree: &Path, path: &str) -> Result<()> {
        self.file(path, 0o755, &tree.join(path))?;
        for library in needed(&tree.join(path))? {
            self.library(tree, &library).with_context(|| format!("needed by {path}"))?;
        }
        Ok(())
    }

    /// A shared library of a Debian tree with those it needs.
    pub(crate) fn library(&mut self, tree: &Path, name: &str) -> Result<()> {
        // The loader is where the ABI has it; the libraries are in the multiarch directory.
        let places =
            ["usr/lib", "usr/lib64", "usr/lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
                .map(|dir| format!("{dir}/{name}"));
        let Some(place) = places.into_iter().find(|place| tree.join(place).exists()) else {
            bail!("no package brought {name}");
        };
        if self.0.contains_key(&place) { Ok(()) } else { self.program(tree, &place) }
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_owned()).or_insert(Entry::Dir);
        }
    }

    /// Writes the archive, padded so that another may follow.
    pub(crate) fn write(&self, to: &mut impl Write) -> Result<()> {
        for (inode, (path, entry)) in self.0.iter().enumerate() {
            let (mode, content): (u32, &[u8]) = match entry {
                Entry::Dir => (0o040_755, &[]),
                Entry::File { mode, content } => (0o100_000 | mode, content),
                Entry::Symlink(target) => (0o120_777, target.as_bytes()),
            };
            record(to, u32::try_from(inode)? + 1, mode, path, content)?;
        }
        record(to, 0, 0, "TRAILER!!!", &[])
    }

    pub(crate) fn write_to(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        self.write(&mut file)?;
        file.flush().with_context(|| format!("writing {}", path.display()))
    }
}

/// One header, name and content, each padded to four bytes.
fn record(to: &mut impl Write, inode: u32, mode: u32, path: &str, content: &[u8]) -> Result<()> {
    let (name_size, size) = (u32::try_from(path.len())? + 1, u32::try_from(content.len())?);
    // magic; then ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
    // rdevmajor, rdevminor, namesize, check.
    let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
    write!(to, "070701")?;
    for field in fields {
        write!(to, "{field:08x}")?;
    }
    to.write_all(path.as_bytes())?;
    to.write_all(&[0])?;
    to.write_all(&[0; 3][..padding(110 + path.len() + 1)])?;
    to.write_all(content)?;
    to.write_all(&[0; 3][..padding(content.len())])?;
    Ok(())
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

/// The shared libraries a program names, whatever its machine.
fn needed(program: &PathBuf) -> Result<Vec<String>> {
    let text = crate::log::output(Command::new("readelf").arg("-d").arg(program))?;
    Ok(text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::Archive;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::default();
        archive.bytes("a/deep/file", 0o755, "content");
        archive.symlink("link", "a/deep/file");
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let mut cpio = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let words: Vec<Vec<&str>> =
            listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words.len(), 4, "{listing}");
        assert!(words.iter().any(|w| w[0] == "drwxr-xr-x" && w.last() == Some(&"a/deep")));
        assert!(
            words
                .iter()
                .any(|w| w[0] == "-rwxr-xr-x" && w[4] == "7" && w.last() == Some(&"a/deep/file"))
        );
        assert!(words.iter().any(|w| w.ends_with(&["link", "->", "a/deep/file"])));
    }
}
