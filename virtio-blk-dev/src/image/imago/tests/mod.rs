mod power_cut;
mod recorder;

pub(super) use recorder::Recorder;

#[allow(clippy::duplicate_mod)]
#[path = "../../../../tests/common/host.rs"]
mod host;
