//! What `check` says of one thing.

use std::fmt;

/// How a finding bears on serving disks.
pub(super) enum Verdict {
    Fine,
    /// Served without it, but slower or not for every guest.
    Lacking {
        remedy: String,
    },
    /// Nothing can be served.
    Missing {
        remedy: String,
    },
}

/// What was looked at, and what was found.
pub(super) struct Finding {
    pub(super) what: &'static str,
    pub(super) found: String,
    pub(super) verdict: Verdict,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, remedy) = match &self.verdict {
            Verdict::Fine => ("ok     ", None),
            Verdict::Lacking { remedy } => ("lacking", Some(remedy)),
            Verdict::Missing { remedy } => ("MISSING", Some(remedy)),
        };
        write!(f, "{mark}  {:<22} {}", self.what, self.found)?;
        remedy.map_or(Ok(()), |remedy| write!(f, "\n         -> {remedy}"))
    }
}
