//! The files of a package, as they will lie in the root of a system.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Paths without a leading slash, and what lies there.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<String, File>);

struct File {
    mode: u32,
    content: Vec<u8>,
}

impl Tree {
    pub(super) fn file(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), File { mode: 0o644, content: content.into() });
    }

    pub(super) fn program(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.0.insert(path.to_owned(), File { mode: 0o755, content: content.into() });
    }

    /// As `path`.gz, without a name or a time in it.
    pub(super) fn compressed(&mut self, path: &str, content: &[u8]) -> Result<()> {
        self.file(&format!("{path}.gz"), gzip(content)?);
        Ok(())
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// In KiB, as dpkg's `Installed-Size` counts: each file and directory rounded up.
    pub(super) fn installed_size(&self) -> usize {
        let mut dirs: Vec<_> =
            self.paths().flat_map(|path| Path::new(path).ancestors().skip(1)).collect();
        dirs.sort();
        dirs.dedup();
        dirs.len() + self.0.values().map(|file| file.content.len().div_ceil(1024)).sum::<usize>()
    }

    /// Writes all of it below `dir`, which is emptied first. Modes don't depend on the umask.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        for (path, file) in &self.0 {
            let path = dir.join(path);
            let parent = path.parent().unwrap_or(dir);
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
            let written = fs::write(&path, &file.content).and_then(|()| chmod(&path, file.mode));
            written.with_context(|| format!("writing {}", path.display()))?;
            for parent in parent.ancestors().take_while(|parent| parent.starts_with(dir)) {
                chmod(parent, 0o755)
                    .with_context(|| format!("the mode of {}", parent.display()))?;
            }
        }
        Ok(())
    }
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = Command::new("gzip")
        .args(["-9", "-n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting gzip")?;
    let mut input = gzip.stdin.take().context("gzip has no standard input")?;
    std::thread::scope(|scope| {
        // Both pipes at once, or a long text would fill one while gzip waits at the other.
        let writer = scope.spawn(move || input.write_all(content));
        let out = gzip.wait_with_output()?;
        match writer.join() {
            Ok(written) => written.context("writing to gzip")?,
            Err(_) => bail!("the thread that writes to gzip panicked"),
        }
        if !out.status.success() {
            bail!("gzip failed ({})", out.status);
        }
        Ok(out.stdout)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_size_counts_files_and_directories_in_whole_kibibytes() {
        let mut tree = Tree::default();
        tree.file("usr/share/a", vec![0; 1]);
        tree.program("usr/b", vec![0; 1025]);
        // ".", "usr", "usr/share"; 1 and 2 KiB.
        assert_eq!(tree.installed_size(), 3 + 1 + 2);
    }

    #[test]
    fn what_is_compressed_is_the_same_each_time() {
        let text = vec![b'x'; 1 << 20];
        assert_eq!(gzip(&text).unwrap(), gzip(&text).unwrap());
        assert!(gzip(&text).unwrap().len() < 1 << 12);
    }
}
