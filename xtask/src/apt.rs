//! A private apt: Debian's packages of another suite or architecture, the host's own apt untouched.

use crate::log::{Log, output};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One binary package at one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// The file `apt-get download` makes of it.
    pub(crate) file: String,
}

impl Package {
    fn from_file(file: &str) -> Option<Self> {
        let mut parts = file.strip_suffix(".deb")?.splitn(3, '_');
        Some(Self {
            name: parts.next()?.to_owned(),
            version: parts.next()?.replace("%3a", ":"),
            architecture: parts.next()?.to_owned(),
            file: file.to_owned(),
        })
    }

    fn specifier(&self) -> String {
        let Self { name, version, architecture, .. } = self;
        if architecture == "all" {
            format!("{name}={version}")
        } else {
            format!("{name}:{architecture}={version}")
        }
    }
}

/// One source package: its files, apart from the .dsc, with their SHA-256.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) files: Vec<(String, String)>,
}

impl Source {
    /// The file whose name has this ending.
    pub(crate) fn file(&self, ending: &str) -> Result<&str> {
        self.files
            .iter()
            .map(|(file, _)| file.as_str())
            .find(|file| file.contains(ending) && !file.ends_with(".asc"))
            .with_context(|| format!("source {} {} has no {ending}", self.name, self.version))
    }
}

/// Where an apt gets packages from: lines without the leading `deb`, so `URI SUITE COMPONENT`. Of
/// the versions there are, the newest is taken, wherever it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) required: Vec<String>,
    /// Done without if they can't be reached.
    pub(crate) optional: Vec<String>,
}

/// An apt root of its own: lists, status, cache.
pub(crate) struct Apt {
    dir: PathBuf,
    debs: PathBuf,
    architectures: String,
    sources: Sources,
}

impl Apt {
    pub(crate) fn new(
        dir: PathBuf,
        debs: PathBuf,
        architectures: &str,
        sources: Sources,
    ) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install debian-archive-keyring");
        }
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), "")?;
        // Without this, apt takes nothing of backports unless it is told to, package by package.
        fs::write(
            dir.join("preferences"),
            "Package: *\nPin: release n=*-backports\nPin-Priority: 500\n",
        )?;
        let apt = Self { dir, debs, architectures: architectures.to_owned(), sources };
        apt.list(&apt.sources.optional)?;
        Ok(apt)
    }

    /// Writes the list of sources, with these of the optional ones.
    fn list(&self, optional: &[String]) -> Result<()> {
        let list: String = self
            .sources
            .required
            .iter()
            .chain(optional)
            .flat_map(|source| {
                ["deb", "deb-src"].map(|kind| format!("{kind} [signed-by={KEYRING}] {source}\n"))
            })
            .collect();
        Ok(fs::write(self.dir.join("sources.list"), list)?)
    }

    fn command(&self, program: &str) -> Command {
        let dir = self.dir.display();
        let native = self.architectures.split(',').next().unwrap_or_default();
        let mut command = Command::new(program);
        command.current_dir(&self.debs);
        for option in [
            format!("Dir::Etc::SourceList={dir}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::Etc::Preferences={dir}/preferences"),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={dir}/lists"),
            format!("Dir::State::status={dir}/status"),
            format!("Dir::Cache={dir}/cache"),
            format!("APT::Architecture={native}"),
            format!("APT::Architectures={}", self.architectures),
            "APT::Sandbox::User=root".to_owned(),
            "APT::Update::Post-Invoke-Success=true".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.arg("-q");
        command
    }

    /// Fetches the sources' lists; gives the optional sources that can't be reached.
    pub(crate) fn update(&self, log: &Log) -> Result<Vec<String>> {
        let update = || {
            let mut command = self.command("apt-get");
            command.args(["update", "--error-on=any"]);
            command
        };
        let optional = &self.sources.optional;
        if !optional.is_empty() && log.status(&mut update())?.success() {
            return Ok(Vec::new());
        }
        self.list(&[])?;
        log.run(&mut update())?;
        let (mut reached, mut unreached) = (Vec::new(), Vec::new());
        for source in optional {
            reached.push(source.clone());
            self.list(&reached)?;
            if !log.status(&mut update())?.success() {
                unreached.extend(reached.pop());
            }
        }
        // The lists of what wasn't reached go as well.
        self.list(&reached)?;
        log.run(&mut update())?;
        Ok(unreached)
    }

    /// Everything that installing these packages on an empty system brings, without recommendations.
    pub(crate) fn closure(&self, packages: &[&str]) -> Result<Vec<Package>> {
        let mut command = self.command("apt-get");
        command.args(["install", "--print-uris", "--no-install-recommends", "-y"]).args(packages);
        let text = output(&mut command)?;
        let mut closure: Vec<Package> = text
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| Package::from_file(line.split_whitespace().nth(1)?))
            .collect();
        closure.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(closure)
    }

    /// A field of the candidate of a package.
    pub(crate) fn field(&self, package: &str, field: &str) -> Result<String> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", package]);
        let text = output(&mut command)?;
        text.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.trim().to_owned())
            .with_context(|| format!("package {package} has no {field}"))
    }

    /// The candidate of one package, without its dependencies.
    pub(crate) fn candidate(&self, package: &str) -> Result<Package> {
        let name = package.split(':').next().unwrap_or(package).to_owned();
        let version = self.field(package, "Version")?;
        let architecture = self.field(package, "Architecture")?;
        let file = format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
        Ok(Package { name, version, architecture, file })
    }

    /// The name of the dependency of a package that begins with `prefix`.
    pub(crate) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let depends = self.field(package, "Depends")?;
        depends
            .split(',')
            .filter_map(|dependency| dependency.split_whitespace().next())
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .with_context(|| format!("{package} depends on no {prefix}…"))
    }

    pub(crate) fn source(&self, name: &str, version: &str) -> Result<Source> {
        let mut command = self.command("apt-get");
        command.args(["source", "--print-uris", &format!("{name}={version}")]);
        // apt-get leaves out the files that are in its working directory.
        command.current_dir(&self.dir);
        let files = output(&mut command)?
            .lines()
            .filter(|line| line.starts_with('\''))
            .filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                let file = words.next()?.to_owned();
                let sum = words.nth(1)?.strip_prefix("SHA256:")?.to_owned();
                (!file.ends_with(".dsc")).then_some((file, sum))
            })
            .collect();
        Ok(Source { name: name.to_owned(), version: version.to_owned(), files })
    }

    /// Downloads what is not there yet.
    pub(crate) fn download(&self, packages: &[Package], log: &Log) -> Result<()> {
        let absent: Vec<&Package> =
            packages.iter().filter(|package| !self.debs.join(&package.file).exists()).collect();
        if absent.is_empty() {
            return Ok(());
        }
        let mut command = self.command("apt-get");
        command.arg("download").args(absent.iter().map(|package| package.specifier()));
        log.run(command.current_dir(self.arriving()?))?;
        absent.iter().try_for_each(|package| self.arrived(&package.file))
    }

    /// Downloads a source package. Some mirrors have the tarballs but not the .dsc, of which
    /// apt-get then complains; the tarballs' sums are checked here, so nothing else is needed.
    pub(crate) fn download_source(&self, source: &Source, log: &Log) -> Result<()> {
        if source.files.iter().all(|(file, _)| self.debs.join(file).exists()) {
            return Ok(());
        }
        let wanted = format!("{}={}", source.name, source.version);
        let mut command = self.command("apt-get");
        command.args(["source", "--download-only", &wanted]);
        let status = log.status(command.current_dir(self.arriving()?))?;
        for (file, sum) in &source.files {
            let content = fs::read(self.arriving()?.join(file)).unwrap_or_default();
            if &sha256(&content) != sum {
                let log = log.path().display();
                bail!("{file} of the source {wanted} did not arrive whole ({status}); log: {log}");
            }
            self.arrived(file)?;
        }
        Ok(())
    }

    /// Where files are until they are whole.
    fn arriving(&self) -> Result<PathBuf> {
        let dir = self.debs.join("arriving");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn arrived(&self, file: &str) -> Result<()> {
        fs::rename(self.arriving()?.join(file), self.debs.join(file))
            .with_context(|| format!("keeping {file}"))
    }
}

fn sha256(content: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Unpacks packages into a directory whose `bin`, `sbin` and `lib` are merged into `usr`: packages
/// older than trixie's still have files there.
pub(crate) fn unpack(debs: &Path, packages: &[Package], into: &Path, log: &Log) -> Result<()> {
    for name in ["bin", "sbin", "lib"] {
        let (dir, link) = (format!("usr/{name}"), into.join(name));
        fs::create_dir_all(into.join(&dir))?;
        if !link.exists() {
            std::os::unix::fs::symlink(dir, link)?;
        }
    }
    for package in packages {
        // `dpkg-deb -x` would put a directory in the place of the link.
        const UNPACK: &str =
            "dpkg-deb --fsys-tarfile \"$0\" | tar -x --keep-directory-symlink -C \"$1\"";
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-c", UNPACK]).arg(debs.join(&package.file)).arg(into);
        log.run(&mut bash)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn a_signature_is_not_the_archive_it_signs() {
        let files =
            ["u-boot_1.orig.tar.bz2.asc", "u-boot_1.orig.tar.bz2", "u-boot_1-1.debian.tar.xz"];
        let files = files.map(|file| (file.to_owned(), String::new())).to_vec();
        let source = Source { name: "u-boot".to_owned(), version: "1-1".to_owned(), files };
        assert_eq!(source.file(".orig.tar").unwrap(), "u-boot_1.orig.tar.bz2");
        assert_eq!(source.file(".debian.tar").unwrap(), "u-boot_1-1.debian.tar.xz");
        assert!(source.file(".dsc").is_err());
    }
}
