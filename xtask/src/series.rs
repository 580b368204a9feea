//! A release series of Xen, as in 4.20: xl and the hypervisor work only within one.

use anyhow::{Context as _, Result};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    major: u32,
    minor: u32,
}

impl Series {
    /// The series of a version, as in `4.20.4+63-g7abfd2bce2-0+deb13u1`.
    pub(crate) fn of_version(version: &str) -> Result<Self> {
        let mut numbers = version.split(['.', '+', '-', '~']);
        let mut number = || numbers.next()?.parse().ok();
        number()
            .zip(number())
            .map(|(major, minor)| Self { major, minor })
            .with_context(|| format!("{version:?} is no version of Xen"))
    }

    /// The series of a source tree, by its `xen/Makefile`.
    pub(crate) fn of_makefile(makefile: &str) -> Result<Self> {
        let number = |variable: &str| {
            makefile
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.split_whitespace().last() == Some(variable))
                .and_then(|(_, value)| value.trim().parse().ok())
                .with_context(|| format!("it sets no {variable}"))
        };
        Ok(Self { major: number("XEN_VERSION")?, minor: number("XEN_SUBVERSION")? })
    }
}

impl FromStr for Series {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (major, minor) = text.split_once('.').context("wants a series, as in 4.20")?;
        Ok(Self { major: major.parse()?, minor: minor.parse()? })
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::Series;

    fn series(text: &str) -> Series {
        text.parse().unwrap()
    }

    #[test]
    fn debians_versions_have_a_series() {
        for (version, expected) in [
            ("4.20.4+63-g7abfd2bce2-0+deb13u1", "4.20"),
            ("4.17.5+72-g01140da4e8-1", "4.17"),
            ("4.21~rc1-1", "4.21"),
            ("4.19-1", "4.19"),
        ] {
            assert_eq!(Series::of_version(version).unwrap(), series(expected), "{version}");
        }
        assert!(Series::of_version("unstable").is_err());
    }

    #[test]
    fn a_tree_has_the_series_of_its_makefile() {
        let makefile = "# All of it\nexport XEN_VERSION       = 4\nexport XEN_SUBVERSION    = 20\n\
                        export XEN_EXTRAVERSION ?= .4$(XEN_VENDORVERSION)\n\
                        export XEN_FULLVERSION   = $(XEN_VERSION).$(XEN_SUBVERSION)\n";
        assert_eq!(Series::of_makefile(makefile).unwrap(), series("4.20"));
        assert!(Series::of_makefile("XEN_VERSION = 4\n").is_err());
    }

    #[test]
    fn series_are_ordered_by_number() {
        assert!(series("4.9") < series("4.17") && series("4.20") < series("5.0"));
        assert_eq!(series("4.17").to_string(), "4.17");
        assert!("4".parse::<Series>().is_err() && "4.x".parse::<Series>().is_err());
    }
}
