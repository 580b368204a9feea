//! Where Debian comes from: a mirror's main archive, and the archive of security updates beside it.

use crate::apt::Sources;
use crate::host;
use crate::log::output;
use anyhow::{Context as _, Result};
use std::process::Command;

const VARIABLE: &str = "XEN_VIRTIO_MIRROR";
const SECURITY_VARIABLE: &str = "XEN_VIRTIO_SECURITY_MIRROR";

/// The URIs of a mirror's archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    main: String,
    /// None if neither the host's apt nor the mirror's own path tells where it is.
    security: Option<String>,
}

impl Mirror {
    /// The mirror that the environment names, or the one the host gets Debian itself from.
    pub(crate) fn find() -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|uri| !uri.is_empty());
        let (main, security) = (variable(VARIABLE), variable(SECURITY_VARIABLE));
        // A host that isn't Debian's has no apt to ask, and a named mirror needs none.
        let targets = if main.is_some() { Vec::new() } else { host_targets()? };
        let codename = host::os_release("VERSION_CODENAME").unwrap_or_default();
        Self::choose(main, security, &targets, &codename)
    }

    /// A named mirror has its own security archive, not the host's, which it may be meant to replace.
    fn choose(
        main: Option<String>,
        security: Option<String>,
        targets: &[Target],
        codename: &str,
    ) -> Result<Self> {
        let of_host = |suite: &str, label: &str| {
            let is = |target: &&Target| target.component == "main" && target.suite == suite;
            // A label tells Debian from others with a suite of the same name, once lists were fetched.
            let labelled = targets.iter().filter(is).find(|target| target.label == label);
            labelled.or_else(|| targets.iter().find(is)).map(|target| target.uri.clone())
        };
        let (main, beside) = match main {
            Some(named) => (named, None),
            None => {
                let found = of_host(codename, "Debian").with_context(|| {
                    format!("the host's apt knows no Debian mirror; set {VARIABLE} to one's URI")
                })?;
                (found, of_host(&format!("{codename}-security"), "Debian-Security"))
            }
        };
        let security = security.or(beside).or_else(|| sibling(&main));
        Ok(Self { main, security })
    }

    /// What an apt of this suite reads: the suite, and its security updates if there are any to reach.
    pub(crate) fn suite(&self, suite: &str) -> Sources {
        let security = self.security.as_ref().map(|uri| format!("{uri} {}", security_suite(suite)));
        Sources { required: vec![self.source(suite)], optional: security.into_iter().collect() }
    }

    /// A suite of the main archive, as apt's sources have it: `URI SUITE COMPONENT`.
    pub(crate) fn source(&self, suite: &str) -> String {
        format!("{} {suite} main", self.main)
    }
}

fn security_suite(suite: &str) -> String {
    format!("{suite}-security main")
}

/// The security archive beside a main archive: the directory `debian` is `debian-security` there,
/// also within a path like that of a snapshot, `archive/debian/20250520T000000Z`.
fn sibling(main: &str) -> Option<String> {
    let mut parts: Vec<&str> = main.split('/').collect();
    let last = parts.iter().rposition(|part| *part == "debian")?;
    parts[last] = "debian-security";
    Some(parts.join("/"))
}

/// One suite and component the host's apt is configured for.
pub(crate) struct Target {
    pub(crate) uri: String,
    pub(crate) suite: String,
    pub(crate) component: String,
    label: String,
}

/// The host's own apt configuration; without labels if it has no lists.
pub(crate) fn host_targets() -> Result<Vec<Target>> {
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(LABEL)";
    let arguments = ["indextargets", "--format", format, "Created-By: Packages"];
    let mut text = output(Command::new("apt-get").args(arguments))?;
    if text.is_empty() {
        text = output(Command::new("apt-get").args(arguments).arg("--no-release-info"))?;
    }
    Ok(text.lines().filter_map(target).collect())
}

fn target(line: &str) -> Option<Target> {
    let mut words = line.split('|').map(str::to_owned);
    Some(Target {
        uri: words.next()?,
        suite: words.next()?,
        component: words.next()?,
        label: words.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Mirror, sibling, target};

    fn choose(main: Option<&str>, security: Option<&str>, host: &[&str]) -> Mirror {
        let targets: Vec<_> = host.iter().copied().filter_map(target).collect();
        let owned = |uri: Option<&str>| uri.map(str::to_owned);
        Mirror::choose(owned(main), owned(security), &targets, "bookworm").unwrap()
    }

    const HOST: [&str; 4] = [
        "http://other.example/|bookworm|main|Other",
        "http://deb.example/debian/|bookworm|main|Debian",
        "http://deb.example/debian/|bookworm-updates|main|Debian",
        "http://security.example/updates/|bookworm-security|main|Debian-Security",
    ];

    #[test]
    fn a_suite_comes_with_its_security_updates_from_where_the_host_has_them() {
        let sources = choose(None, None, &HOST).suite("trixie");
        assert_eq!(sources.required, ["http://deb.example/debian/ trixie main"]);
        assert_eq!(sources.optional, ["http://security.example/updates/ trixie-security main"]);
    }

    #[test]
    fn a_named_mirror_has_the_security_archive_beside_it_and_not_the_hosts() {
        let sources = choose(Some("http://mine.example/debian"), None, &HOST).suite("bookworm");
        assert_eq!(sources.required, ["http://mine.example/debian bookworm main"]);
        assert_eq!(
            sources.optional,
            ["http://mine.example/debian-security bookworm-security main"]
        );
        let named = choose(Some("http://mine.example/debian"), Some("file:///srv/sec"), &[]);
        assert_eq!(named.suite("trixie").optional, ["file:///srv/sec trixie-security main"]);
    }

    #[test]
    fn a_mirror_without_a_known_security_archive_is_used_alone() {
        let sources = choose(Some("http://mine.example/packages"), None, &[]).suite("trixie");
        assert!(sources.optional.is_empty());
    }

    #[test]
    fn the_security_archive_replaces_the_last_directory_named_debian() {
        for (main, security) in [
            ("http://m.example/debian", "http://m.example/debian-security"),
            ("http://m.example/pub/debian/", "http://m.example/pub/debian-security/"),
            (
                "http://m.example/debian/a/debian/2025Z",
                "http://m.example/debian/a/debian-security/2025Z",
            ),
        ] {
            assert_eq!(sibling(main).as_deref(), Some(security));
        }
        assert_eq!(sibling("http://m.example/packages"), None);
    }
}
