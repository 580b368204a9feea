//! A case: a script for dom0, whose header says what machine it wants.

use crate::paths;
use crate::series::Series;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::PathBuf;

/// The backend, which most cases are about.
pub(crate) const DAEMON: &str = "xen-virtio-blk";

/// Which hypervisor boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hypervisor {
    /// Built here, with the IOREQ server.
    Ioreq,
    /// Debian's own, without.
    Debian,
}

/// What a disk of the host holds at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The Debian root file system.
    Rootfs,
    /// Nothing; so many MiB.
    Empty(u64),
}

/// By what guests reach their devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A virtio-mmio window for each.
    Mmio,
    /// A PCI bus.
    Pci,
}

impl Transport {
    /// As the backends' option has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
        }
    }
}

/// What is added to the name of a case that runs on a PCI bus.
const ON_PCI: &str = "-pci";

/// What a case's header declares.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) script: PathBuf,
    pub(crate) about: String,
    pub(crate) memory: u32,
    pub(crate) dom0_memory: u32,
    pub(crate) vcpus: u32,
    pub(crate) hypervisor: Hypervisor,
    /// The oldest Xen it works on, if not any.
    pub(crate) series: Option<Series>,
    /// By what its guests reach their devices.
    pub(crate) transport: Transport,
    /// Whether it is a case by the other transport, too.
    by_both: bool,
    /// Whether the stock kernel travels with it.
    pub(crate) stock_guest: bool,
    /// Whether U-Boot does, as a guest's firmware.
    pub(crate) uboot: bool,
    /// Whether dom0 runs systemd, and has the daemon's package instead of the daemon.
    pub(crate) systemd: bool,
    /// Whether our daemon does.
    pub(crate) daemon: bool,
    /// Other binaries of the examples that do.
    pub(crate) binaries: Vec<String>,
    /// Of the testbed's tools, those that slim guests have beside `bio`.
    pub(crate) tools: Vec<String>,
    /// Seconds of real time.
    pub(crate) time_limit: u64,
    pub(crate) disks: Vec<(String, Content)>,
    /// Disks whose ext4 must be clean afterwards.
    pub(crate) fsck: Vec<String>,
    /// Console lines that would be fatal elsewhere.
    pub(crate) allowed: Vec<String>,
    pub(crate) cmdline: String,
}

impl Case {
    /// The case of this name.
    pub(crate) fn load(name: &str) -> Result<Self> {
        let script = |name: &str| paths::testbed("cases").join(format!("{name}.sh"));
        if script(name).exists() {
            return Self::at(name, script(name));
        }
        let of_both = name.strip_suffix(ON_PCI).filter(|name| script(name).exists());
        let other = of_both.map(|name| Self::at(name, script(name))).transpose()?;
        let Some(case) = other.and_then(|case| case.on_pci()) else {
            bail!("there is no case {name}; `cargo xtask testbed list` names them");
        };
        Ok(case)
    }

    /// The same case on a PCI bus, if its header says that there is one.
    fn on_pci(&self) -> Option<Self> {
        // xl has `nr_spis` since then.
        let since = "4.20".parse().ok();
        self.by_both.then(|| Self {
            name: format!("{}{ON_PCI}", self.name),
            about: format!("{} (on a PCI bus)", self.about),
            series: self.series.max(since),
            transport: Transport::Pci,
            ..self.clone()
        })
    }

    /// The binaries of the examples that it brings to dom0.
    pub(crate) fn examples(&self) -> impl Iterator<Item = &str> {
        self.daemon.then_some(DAEMON).into_iter().chain(self.binaries.iter().map(String::as_str))
    }

    /// A script that is no case but runs like one.
    pub(crate) fn at(name: &str, script: PathBuf) -> Result<Self> {
        let text =
            fs::read_to_string(&script).with_context(|| format!("reading {}", script.display()))?;
        Self::parse(name, script, &text)
    }

    /// All cases, by name.
    pub(crate) fn all() -> Result<Vec<Self>> {
        paths::files_below(&paths::testbed("cases"))?
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
            .filter_map(|path| path.file_stem()?.to_str())
            .map(Self::load)
            .flat_map(|case| {
                let on_pci = case.as_ref().ok().and_then(Self::on_pci);
                [case].into_iter().chain(on_pci.map(Ok))
            })
            .collect()
    }

    /// Why it cannot run on Xen of this series, if so.
    pub(crate) fn unmet(&self, has: Series) -> Option<String> {
        let wanted = self.series.filter(|wanted| *wanted > has)?;
        Some(format!("wants Xen {wanted}, and this is {has}"))
    }

    fn parse(name: &str, script: PathBuf, text: &str) -> Result<Self> {
        let mut case = Self {
            name: name.to_owned(),
            script,
            about: String::new(),
            memory: 2048,
            dom0_memory: 768,
            vcpus: 1,
            hypervisor: Hypervisor::Ioreq,
            series: None,
            transport: Transport::Mmio,
            by_both: false,
            stock_guest: false,
            uboot: false,
            systemd: false,
            daemon: true,
            binaries: Vec::new(),
            tools: Vec::new(),
            time_limit: 300,
            disks: Vec::new(),
            fsck: Vec::new(),
            allowed: Vec::new(),
            cmdline: String::new(),
        };
        for line in text.lines().map_while(|line| line.strip_prefix('#')) {
            let Some((key, value)) = line.split_once(": ") else { continue };
            case.declare(key.trim(), value.trim())
                .with_context(|| format!("case {name}, `#{line}`"))?;
        }
        if case.about.is_empty() {
            bail!("case {name} has no `# about: …`");
        }
        Ok(case)
    }

    fn declare(&mut self, key: &str, value: &str) -> Result<()> {
        match (key, value) {
            ("about", _) => value.clone_into(&mut self.about),
            ("memory", _) => self.memory = value.parse()?,
            ("dom0-memory", _) => self.dom0_memory = value.parse()?,
            ("vcpus", _) => self.vcpus = value.parse()?,
            ("xen", "ioreq") => self.hypervisor = Hypervisor::Ioreq,
            ("xen", "debian") => self.hypervisor = Hypervisor::Debian,
            ("xen", _) => self.series = Some(value.parse()?),
            ("transport", "mmio") => self.by_both = false,
            ("transport", "both") => self.by_both = true,
            ("guest-kernel", "slim") => self.stock_guest = false,
            ("guest-kernel", "stock") => self.stock_guest = true,
            ("guest-firmware", "u-boot") => self.uboot = true,
            ("dom0", "systemd") => (self.systemd, self.daemon) = (true, false),
            ("daemon", "none") => self.daemon = false,
            ("binary", _) => self.binaries.push(value.to_owned()),
            ("tool", _) => self.tools.push(value.to_owned()),
            ("time-limit", _) => self.time_limit = value.parse()?,
            ("disk", _) => {
                let (name, content) =
                    value.split_once(' ').context("wants NAME and `rootfs` or a size in MiB")?;
                let content = match content.trim() {
                    "rootfs" => Content::Rootfs,
                    size => Content::Empty(size.trim_end_matches('M').parse()?),
                };
                self.disks.push((name.to_owned(), content));
            }
            ("host-fsck", _) => self.fsck.push(value.to_owned()),
            ("allow", _) => self.allowed.push(value.to_owned()),
            ("cmdline", _) => value.clone_into(&mut self.cmdline),
            _ => bail!("unknown declaration or value"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, Content, Hypervisor, Transport};

    fn parse(text: &str) -> anyhow::Result<Case> {
        Case::parse("x", "x.sh".into(), text)
    }

    #[test]
    fn a_header_declares_the_machine() {
        let case = parse("# about: a\n# memory: 8192\n# xen: debian\n# disk: root rootfs\n# disk: data 64M\n\n# vcpus: 9\n").unwrap();
        assert_eq!(
            (case.about.as_str(), case.memory, case.hypervisor),
            ("a", 8192, Hypervisor::Debian)
        );
        assert_eq!(
            case.disks,
            [("root".into(), Content::Rootfs), ("data".into(), Content::Empty(64))]
        );
        assert_eq!(case.vcpus, 1, "only the header counts");
        assert_eq!(case.series, None);
    }

    #[test]
    fn a_header_declares_hypervisor_and_series() {
        let case = parse("# about: a\n# xen: debian\n# xen: 4.19\n").unwrap();
        assert_eq!(
            (case.hypervisor, case.series),
            (Hypervisor::Debian, Some("4.19".parse().unwrap()))
        );
        let unmet = |series: &str| case.unmet(series.parse().unwrap());
        assert_eq!(unmet("4.17").as_deref(), Some("wants Xen 4.19, and this is 4.17"));
        assert_eq!((unmet("4.19"), unmet("4.20")), (None, None));
    }

    #[test]
    fn a_case_by_both_transports_is_two() {
        let case = parse("# about: a\n# transport: both\n").unwrap();
        let on_pci = case.on_pci().unwrap();
        assert_eq!((on_pci.name.as_str(), on_pci.transport), ("x-pci", Transport::Pci));
        assert!(on_pci.unmet("4.19".parse().unwrap()).is_some(), "xl has no nr_spis");
        assert_eq!(case.unmet("4.17".parse().unwrap()), None);
        assert!(parse("# about: a\n").unwrap().on_pci().is_none());
    }

    #[test]
    fn a_mistaken_header_is_named() {
        for text in [
            "# about: a\n# memry: 1\n",
            "# about: a\n# memory: much\n",
            "# about: a\n# xen: other\n",
            "# about: a\n# xen: 4\n",
            "# daemon: none\n",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_names_the_binaries_it_brings() {
        let examples =
            |text: &str| parse(text).unwrap().examples().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(examples("# about: a\n"), ["xen-virtio-blk"]);
        assert_eq!(examples("# about: a\n# daemon: none\n# binary: virtio-rng\n"), ["virtio-rng"]);
    }

    #[test]
    fn a_header_names_what_its_guests_bring() {
        let case = parse("# about: a\n# tool: hostile\n# guest-firmware: u-boot\n").unwrap();
        assert_eq!((case.tools, case.uboot), (vec!["hostile".to_owned()], true));
        let case = parse("# about: a\n").unwrap();
        assert!(case.tools.is_empty() && !case.uboot);
        assert!(parse("# about: a\n# guest-firmware: other\n").is_err());
        let case = parse("# about: a\n# dom0: systemd\n").unwrap();
        assert!(case.systemd && case.examples().next().is_none(), "the package has the daemon");
    }

    #[test]
    fn every_case_of_the_checkout_parses() {
        assert!(!Case::all().unwrap().is_empty());
    }
}
