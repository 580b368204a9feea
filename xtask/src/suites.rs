//! Debian's suites on one mirror, each with an apt of its own, and the choice among them.

use crate::apt::{Apt, Sources};
use crate::cache::Cache;
use crate::mirror::Mirror;
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::time::Duration;

pub(crate) struct Suites<'a> {
    cache: &'a Cache,
    /// Those whose lists were fetched by this process.
    refreshed: Vec<String>,
    /// The archives of security updates that could not be reached then.
    unreached: Vec<String>,
}

impl<'a> Suites<'a> {
    pub(crate) fn new(cache: &'a Cache) -> Self {
        Self { cache, refreshed: Vec::new(), unreached: Vec::new() }
    }

    /// A suite's apt, its lists as they were fetched last.
    pub(crate) fn kept(&self, suite: &str) -> Result<Apt> {
        // Without a mirror, what was downloaded is still there.
        let sources = Mirror::find().map_or_else(|_| Sources::default(), |m| m.suite(suite));
        let dir = self.cache.path(&format!("apt-{suite}"));
        Apt::new(dir, self.cache.path("debs"), "arm64", sources)
    }

    /// A suite's apt, its lists as the mirror has them now.
    pub(crate) fn refreshed(&mut self, suite: &str) -> Result<Apt> {
        Mirror::find()?;
        let apt = self.kept(suite)?;
        if !self.refreshed.iter().any(|done| done == suite) {
            let name = format!("lists-{suite}");
            let log = self.cache.log(&name)?;
            let unreached =
                self.cache.timed(&name, Duration::from_secs(10), || apt.update(&log))?;
            self.unreached.extend(unreached);
            self.refreshed.push(suite.to_owned());
        }
        Ok(apt)
    }

    /// The archives of security updates that could not be reached since they were last asked for.
    pub(crate) fn take_unreached(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unreached)
    }
}

/// A suite that something cannot be had from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassedOver {
    pub(crate) suite: String,
    pub(crate) why: String,
}

/// What the first suite gives that can give it, and those before it. An inner error passes over
/// a suite, an outer one ends the choice.
pub(crate) fn first<T>(
    suites: &[&str],
    mut get: impl FnMut(&str) -> Result<Result<T>>,
) -> Result<(T, Vec<PassedOver>)> {
    let mut passed_over = Vec::new();
    for suite in suites {
        match get(suite).with_context(|| format!("suite {suite}"))? {
            Ok(got) => return Ok((got, passed_over)),
            Err(why) => {
                passed_over
                    .push(PassedOver { suite: (*suite).to_owned(), why: format!("{why:#}") });
            }
        }
    }
    let mut error = "no suite has it".to_owned();
    for PassedOver { suite, why } in passed_over {
        write!(error, "\n  {suite}: {why}")?;
    }
    bail!(error)
}

#[cfg(test)]
mod tests {
    use super::first;
    use anyhow::{anyhow, bail};

    #[test]
    fn the_first_suite_that_can_be_had_is_taken_and_no_later_one_asked() {
        let mut asked = Vec::new();
        let (got, passed_over) = first(&["new", "old", "older"], |suite| {
            asked.push(suite.to_owned());
            Ok(if suite == "new" { Err(anyhow!("404")) } else { Ok(suite.to_owned()) })
        })
        .unwrap();
        assert_eq!((got.as_str(), asked), ("old", vec!["new".into(), "old".into()]));
        assert_eq!(passed_over.len(), 1);
        assert_eq!((passed_over[0].suite.as_str(), passed_over[0].why.as_str()), ("new", "404"));
        let (got, passed_over) = first(&["new", "old"], |suite| Ok(Ok(suite.to_owned()))).unwrap();
        assert_eq!((got.as_str(), passed_over.len()), ("new", 0));
    }

    #[test]
    fn without_any_each_suite_has_its_reason() {
        let error = first::<()>(&["new", "old"], |suite| Ok(Err(anyhow!("{suite} is 404"))));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("new: new is 404") && error.contains("old: old is 404"), "{error}");
    }

    #[test]
    fn what_is_no_reason_to_pass_over_ends_the_choice() {
        let mut asked = 0;
        let error = first::<()>(&["new", "old"], |_| {
            asked += 1;
            bail!("it may have a successor")
        });
        assert_eq!((asked, error.is_err()), (1, true));
    }
}
