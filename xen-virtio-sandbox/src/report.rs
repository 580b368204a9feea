use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::{Layer, SandboxError};

/// State of a [`Layer`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Active.
    On,
    /// Active, with the limitation given.
    Partial(Cow<'static, str>),
    /// Not active, for the reason given: the kernel doesn't support it, or the process lacks
    /// privileges.
    Missing(Cow<'static, str>),
    /// Not active, as requested.
    Off,
}

impl State {
    /// `On`, or `Missing` if the error means that the kernel doesn't support the call.
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
    /// The state by the result of a call that only queries: `Missing` if the kernel doesn't know it.
    pub(crate) fn if_known(result: libc::c_long, missing: &'static str) -> Self {
        match result == -1 && is_unknown(&io::Error::last_os_error()) {
            true => Self::Missing(missing.into()),
            false => Self::On,
        }
    }

    /// A layer that requires root, in a process that isn't.
    pub(crate) fn not_root() -> Self {
        Self::Missing("the process doesn't run as root".into())
    }
}

/// Whether an error means that the kernel doesn't support the call or its flags.
pub(crate) fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP))
}

/// Which layers of the sandbox are active, and why the others aren't.
///
/// `{}` formats it as one line, `{:#}` as a table with one line per layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    layers: Vec<(Layer, State)>,
}

impl Report {
    pub(crate) fn add(&mut self, layer: Layer, state: State) {
        self.layers.push((layer, state));
    }

    /// All layers, in order, and their states.
    pub fn layers(&self) -> impl Iterator<Item = (Layer, &State)> {
        self.layers.iter().map(|(layer, state)| (*layer, state))
    }

    /// The state of one layer.
    #[must_use]
    pub fn state(&self, layer: Layer) -> Option<&State> {
        self.layers().find(|(l, _)| *l == layer).map(|(_, state)| state)
    }

    /// Whether no layer is missing or off.
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
    fn a_report_says_which_layers_are_on_and_why_others_are_not() {
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
