//! The backend: its devices are never made.

use std::{
    fs, io,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use tracing::info;
use virtio_dev::WriteOutcome;
use xen_virtio_backend::{
    Backend, Device, Host, Opened, Parts, Refusal, RegisterAddress,
    node::{DeviceNode, DeviceType, NodeReader},
};

use crate::{Action, attempts, rings, xen};

/// What the process that is started next is to try.
const NEXT: &str = "/run/attempt";

/// The backend. Its devices seem to be of a kind that nobody else serves.
#[derive(Debug, Default)]
pub(crate) struct Attempts;

/// What a process tries, and how.
pub(crate) struct Prepared {
    text: String,
    /// Until it is tried.
    action: Mutex<Option<io::Result<Action>>>,
}

impl Backend for Attempts {
    const NAME: &'static str = "from-inside";

    type Config = ();
    type Resources = ();
    type Figures = ();
    type Order = ();
    type Setup = String;
    type Shared = Prepared;
    type Loaded = ();
    type Device<H: Host> = NoDevice;

    fn claims(&self, device_type: DeviceType) -> bool {
        device_type == DeviceType(4)
    }

    fn read(&self, _: &NodeReader<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn open(&self, _: &DeviceNode, (): &()) -> Result<Opened<()>, Refusal> {
        Ok(Opened { resources: (), files: Vec::new() })
    }

    fn setup(&self) -> String {
        fs::read_to_string(NEXT).unwrap_or_default().trim_end().to_owned()
    }

    fn threads(&self) -> u32 {
        // Of its own it may have 64.
        0
    }

    fn share(text: String) -> Prepared {
        let words: Vec<&str> = text.split(' ').collect();
        let prepared = match words[..] {
            [action, ref args @ ..] => attempts::prepare(action, args)
                .or_else(|| rings::prepare(action, args))
                .or_else(|| xen::prepare(action, args)),
            [] => None,
        };
        let action = prepared.unwrap_or_else(|| Err(io::Error::other("there is no such action")));
        Prepared { text, action: Mutex::new(Some(action)) }
    }

    fn load(Prepared { text, action }: &Prepared, (): &(), _: Opened<()>) -> Result<(), Refusal> {
        let action = action.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = match action {
            Some(Ok(action)) => match action() {
                Ok(done) => format!("attempt {text}: done: {done}"),
                Err(error) => format!("attempt {text}: refused: {error}"),
            },
            Some(Err(error)) => format!("attempt {text}: can't be prepared: {error}"),
            None => format!("attempt {text}: was made already"),
        };
        info!("{outcome}");
        Err(Refusal::new(outcome))
    }

    fn build<H: Host>(_: &DeviceNode, (): (), (): (), _: Parts<H>) -> Result<NoDevice, Refusal> {
        Err(Refusal::new("there is no device"))
    }
}

/// There is none.
pub(crate) enum NoDevice {}

impl Device for NoDevice {
    type Figures = ();
    type Order = ();

    fn read(&mut self, _: RegisterAddress, _: &mut [u8]) {
        match *self {}
    }

    fn write(&mut self, _: RegisterAddress, _: &[u8]) -> WriteOutcome {
        match *self {}
    }

    fn bar(&self) -> Option<Range<u64>> {
        match *self {}
    }

    fn kick(&mut self, _: u16) {
        match *self {}
    }

    fn figures(&self) {
        match *self {}
    }
}
