use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::{Layer, SandboxError};

/// What became of a [`Layer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Entered.
    On,
    /// Entered, but for what this says.
    Partial(Cow<'static, str>),
    /// Not entered, because the kernel or the process lacks what this says.
    Missing(Cow<'static, str>),
    /// Not entered, as the caller asked for.
    Off,
}

impl State {
    /// `On`, or `Missing` if the kernel's answer is that it has no such thing.
    ///
    /// # Errors
    /// Any other answer.
    pub(crate) fn unless_unknown(
        layer: Layer,
        what: &'static str,
        missing: &'static str,
        result: Result<(), impl Into<io::Error>>,
    ) -> Result<Self, SandboxError> {
        match result.map_err(Into::into) {
            Ok(()) => Ok(Self::On),
            Err(error) if is_unknown(&error) => Ok(Self::Missing(missing.into())),
            Err(error) => Err(SandboxError::layer(layer, what)(error)),
        }
    }
}

impl State {
    /// What a system call says that changes nothing: `On`, unless it is unknown.
    pub(crate) fn if_known(result: libc::c_long, missing: &'static str) -> Self {
        match result == -1 && is_unknown(&io::Error::last_os_error()) {
            true => Self::Missing(missing.into()),
            false => Self::On,
        }
    }

    /// Of a layer that takes root.
    pub(crate) fn not_root() -> Self {
        Self::Missing("the process isn't root's, who alone may enter it".into())
    }
}

/// Whether an error says that the kernel doesn't have what it was asked for.
pub(crate) fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP))
}

/// Which layers of the sandbox are on, and why the others aren't.
///
/// It displays as one line, or with `{:#}` as a table with a line for each layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    layers: Vec<(Layer, State)>,
}

impl Report {
    pub(crate) fn add(&mut self, layer: Layer, state: State) {
        self.layers.push((layer, state));
    }

    /// The layers in their order, and what became of each.
    pub fn layers(&self) -> impl Iterator<Item = (Layer, &State)> {
        self.layers.iter().map(|(layer, state)| (*layer, state))
    }

    /// What became of one layer.
    #[must_use]
    pub fn state(&self, layer: Layer) -> Option<&State> {
        self.layers().find(|(l, _)| *l == layer).map(|(_, state)| state)
    }

    /// Whether every layer is on, as far as the kernel has it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.layers.iter().any(|(_, state)| matches!(state, State::Missing(_) | State::Off))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            for (i, (layer, state)) in self.layers.iter().enumerate() {
                let end = if i == 0 { "" } else { "\n" };
                write!(f, "{end}{layer:<18} ")?;
                match state {
                    State::On => f.write_str("on")?,
                    State::Partial(but) => write!(f, "on, but {but}")?,
                    State::Missing(why) => write!(f, "MISSING: {why}")?,
                    State::Off => f.write_str("off")?,
                }
            }
            return Ok(());
        }
        let on = |(_, state): &&(Layer, State)| matches!(state, State::On | State::Partial(_));
        let on: Vec<_> = self.layers.iter().filter(on).map(|(layer, _)| layer.name()).collect();
        write!(f, "on: {}", if on.is_empty() { "nothing".to_owned() } else { on.join(", ") })?;
        for (layer, state) in &self.layers {
            match state {
                State::On => {}
                State::Partial(but) => write!(f, "; {layer} is partial: {but}")?,
                State::Missing(why) => write!(f, "; {layer} is MISSING: {why}")?,
                State::Off => write!(f, "; {layer} is OFF")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.add(Layer::EmptyRoot, State::On);
        report.add(Layer::Identity, State::Off);
        report.add(Layer::Landlock, State::Partial("no signals".into()));
        report.add(Layer::Seccomp, State::Missing("the kernel has none".into()));
        report
    }

    #[test]
    fn a_report_says_what_is_on_and_why_the_rest_is_not() {
        assert_eq!(
            report().to_string(),
            "on: empty-root, landlock; identity is OFF; landlock is partial: no signals; seccomp \
             is MISSING: the kernel has none"
        );
        assert_eq!(
            format!("{:#}", report()),
            "empty-root         on\n\
             identity           off\n\
             landlock           on, but no signals\n\
             seccomp            MISSING: the kernel has none"
        );
    }

    #[test]
    fn a_report_is_complete_only_if_each_layer_is_on() {
        let with = |state| {
            let mut report = Report::default();
            report.add(Layer::EmptyRoot, State::On);
            report.add(Layer::Landlock, state);
            report
        };
        assert!(with(State::On).is_complete());
        assert!(with(State::Partial("no signals".into())).is_complete());
        assert!(!with(State::Off).is_complete());
        assert!(!with(State::Missing("the kernel has none".into())).is_complete());
    }

    #[test]
    fn what_the_kernel_lacks_is_reported_and_what_it_refuses_is_an_error() {
        let state = |errno| {
            let result = Err::<(), _>(io::Error::from_raw_os_error(errno));
            State::unless_unknown(Layer::Ipc, "unshare", "no namespaces", result)
        };
        for errno in [libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP] {
            assert_eq!(state(errno).unwrap(), State::Missing("no namespaces".into()));
        }
        let error = state(libc::EPERM).unwrap_err();
        assert_eq!(error.to_string(), "sandbox layer ipc-namespace: unshare failed");
    }
}
