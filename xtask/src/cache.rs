//! What was built once stays: each artefact is a directory named by a hash of its recipe.

use crate::log::Log;
use crate::progress::Step;
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Everything an artefact is made from; the same recipe, the same directory.
pub(crate) struct Recipe {
    name: &'static str,
    expected: Duration,
    hash: Sha256,
}

impl Recipe {
    /// `expected` is how many seconds the step takes on two cores, until it was once measured here.
    pub(crate) fn new(name: &'static str, expected: u64) -> Self {
        Self { name, expected: Duration::from_secs(expected), hash: Sha256::new() }
            .part("name", name)
    }

    /// Adds a version, a text or a file's content.
    pub(crate) fn part(mut self, label: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.hash.update(format!("{label} {}\n", content.len()));
        self.hash.update(content);
        self
    }

    /// Adds an artefact it is made from.
    pub(crate) fn input(self, artefact: &Artefact) -> Self {
        self.part("input", artefact.key.as_bytes())
    }

    fn key(self) -> String {
        let digest = self.hash.finalize();
        let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.name)
    }
}

/// A finished artefact.
#[derive(Clone, Debug)]
pub(crate) struct Artefact {
    key: String,
    dir: PathBuf,
}

impl Artefact {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path = self.path(name);
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// Where an artefact is made.
pub(crate) struct Workshop<'a> {
    /// What is put here becomes the artefact.
    pub(crate) out: &'a Path,
    /// Scratch space that outlives an interruption, and is removed after success.
    pub(crate) work: &'a Path,
    pub(crate) log: &'a Log,
}

/// Where the cache is: `$XDG_CACHE_HOME/xen-virtio` (`~/.cache/xen-virtio`).
pub(crate) fn dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => std::env::home_dir().context("no home directory for the cache")?.join(".cache"),
    };
    Ok(base.join("xen-virtio"))
}

/// The user's cache of the testbed, held by one process at a time.
pub(crate) struct Cache {
    root: PathBuf,
    measured: Mutex<BTreeMap<String, u64>>,
    _lock: Lock,
}

impl Cache {
    /// Opens the cache, waiting for its holder.
    pub(crate) fn open() -> Result<Self> {
        Self::at(dir()?)
    }

    pub(crate) fn at(root: PathBuf) -> Result<Self> {
        for dir in ["", "work", "logs", "debs"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let lock = Lock::take(&root.join("lock"), "another run is using the cache")?;
        let measured = fs::read(root.join("times.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Ok(Self { root, measured: Mutex::new(measured), _lock: lock })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The log of a step.
    pub(crate) fn log(&self, step: &str) -> Result<Log> {
        Log::create(self.root.join("logs").join(format!("{step}.log")))
    }

    /// The artefact of the recipe: found, or made now.
    pub(crate) fn get(
        &self,
        recipe: Recipe,
        make: impl FnOnce(&Workshop<'_>) -> Result<()>,
    ) -> Result<Artefact> {
        let (name, expected) = (recipe.name, recipe.expected);
        let key = recipe.key();
        let dir = self.root.join(&key);
        if !dir.exists() {
            let out = self.root.join(format!("{key}.partial"));
            if out.exists() {
                fs::remove_dir_all(&out)?;
            }
            fs::create_dir(&out)?;
            let work = self.root.join("work").join(&key);
            fs::create_dir_all(&work)?;
            let log = self.log(name)?;
            self.timed(name, expected, || {
                make(&Workshop { out: &out, work: &work, log: &log })
                    .with_context(|| format!("building {name}"))
            })?;
            fs::rename(&out, &dir).with_context(|| format!("keeping {}", dir.display()))?;
            self.forget_interrupted(name)?;
        }
        Ok(Artefact { key, dir })
    }

    /// The finished artefacts of this name, whatever their recipe was, the newest first.
    pub(crate) fn kept(&self, name: &str) -> Result<Vec<Artefact>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let key = entry.file_name().into_string().unwrap_or_default();
            if is_key(&key, name) {
                kept.push((entry.metadata()?.modified()?, Artefact { key, dir: entry.path() }));
            }
        }
        kept.sort_by_key(|(made, _)| std::cmp::Reverse(*made));
        Ok(kept.into_iter().map(|(_, artefact)| artefact).collect())
    }

    /// Removes what interrupted builds of this name have left, whatever their recipe was.
    fn forget_interrupted(&self, name: &str) -> Result<()> {
        let hash = |file: &str| is_key(file, name);
        for dir in [self.root.clone(), self.root.join("work")] {
            for entry in fs::read_dir(&dir)? {
                let file = entry?.file_name().into_string().unwrap_or_default();
                let working = dir.ends_with("work") && hash(&file);
                if working || file.strip_suffix(".partial").is_some_and(hash) {
                    fs::remove_dir_all(dir.join(file))?;
                }
            }
        }
        Ok(())
    }

    /// Runs a step under the clock, and remembers how long it took.
    pub(crate) fn timed<T>(
        &self,
        name: &str,
        expected: Duration,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let known = self.times().get(name).copied();
        let step = Step::start(name, known.map_or(expected, Duration::from_secs));
        let result = run()?;
        let took = step.done();
        let mut measured = self.times();
        measured.insert(name.to_owned(), took.as_secs());
        fs::write(self.root.join("times.json"), serde_json::to_vec(&*measured)?)?;
        Ok(result)
    }

    fn times(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a directory's name is that of an artefact of this name.
fn is_key(file: &str, name: &str) -> bool {
    file.strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// An exclusive lock on a file, released when dropped.
pub(crate) struct Lock(
    #[expect(dead_code, reason = "the lock lives as long as the file is open")] File,
);

impl Lock {
    /// Takes the lock; says why it waits if it has to.
    pub(crate) fn take(path: &Path, busy: &str) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        if !flock(&file, libc::LOCK_EX | libc::LOCK_NB) {
            eprintln!("  {busy} ({}): waiting", path.display());
            while !flock(&file, libc::LOCK_EX) {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    bail!("locking {}: {error}", path.display());
                }
            }
        }
        Ok(Self(file))
    }
}

fn flock(file: &File, operation: i32) -> bool {
    // SAFETY: flock takes a descriptor, open for as long as `file` is borrowed, and no pointers.
    unsafe { libc::flock(file.as_raw_fd(), operation) == 0 }
}

#[cfg(test)]
mod tests {
    use super::{Cache, Recipe};
    use anyhow::bail;
    use std::fs;
    use std::path::PathBuf;

    fn root(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-cache-{name}-{}", std::process::id()))
    }

    #[test]
    fn an_artefact_is_made_once_for_a_recipe() {
        let root = root("once");
        let cache = Cache::at(root.clone()).unwrap();
        let mut made = 0;
        for (content, expected) in [("a", 1), ("a", 1), ("b", 2), ("a", 2)] {
            let artefact = cache
                .get(Recipe::new("thing", 1).part("content", content), |shop| {
                    made += 1;
                    Ok(fs::write(shop.out.join("file"), content)?)
                })
                .unwrap();
            assert_eq!((made, artefact.read("file").unwrap().as_str()), (expected, content));
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_kept_is_listed_by_its_whole_name_the_newest_first() {
        let root = root("kept");
        let cache = Cache::at(root.clone()).unwrap();
        for (name, content) in [("thing", "a"), ("thing-else", "x"), ("thing", "b")] {
            let recipe = Recipe::new(name, 1).part("content", content);
            let make = |shop: &super::Workshop<'_>| Ok(fs::write(shop.out.join("file"), content)?);
            cache.get(recipe, make).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let kept = cache.kept("thing").unwrap();
        let content: Vec<_> = kept.iter().map(|kept| kept.read("file").unwrap()).collect();
        assert_eq!(content, ["b", "a"]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn parts_do_not_run_together() {
        let key = |a: &str, b: &str| Recipe::new("thing", 1).part("p", a).part("p", b).key();
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("a", "b"), key("a", "b"));
    }

    #[test]
    fn an_interrupted_build_finds_its_work_and_keeps_nothing_half_made() {
        let root = root("interrupted");
        let cache = Cache::at(root.clone()).unwrap();
        let other = root.join("work").join(format!("thing-else-{}", "0".repeat(16)));
        fs::create_dir_all(&other).unwrap();
        let recipe = |content| Recipe::new("thing", 1).part("content", content);
        for content in ["first", "second"] {
            let failed = cache.get(recipe(content), |shop| {
                fs::write(shop.out.join("half"), "")?;
                fs::write(shop.work.join("progress"), content)?;
                bail!("interrupted")
            });
            assert!(format!("{:#}", failed.unwrap_err()).contains("interrupted"));
        }
        let artefact = cache.get(recipe("second"), |shop| {
            assert!(!shop.out.join("half").exists());
            fs::copy(shop.work.join("progress"), shop.out.join("whole"))?;
            Ok(())
        });
        assert_eq!(artefact.unwrap().read("whole").unwrap(), "second");
        let left: Vec<_> = fs::read_dir(root.join("work")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only what has another name is left");
        assert!(!fs::read_dir(&root).unwrap().flatten().any(|entry| {
            entry.path().extension().is_some_and(|extension| extension == "partial")
        }));
        fs::remove_dir_all(root).unwrap();
    }
}
