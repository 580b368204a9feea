//! What operators ask of the backend.

use super::{
    device::DeviceConfig,
    toolstack::{FakeToolstack, LONGEST},
};
use crate::{
    backend::Backend,
    control::{Replies, Reply, StatusOf},
};

impl<B: Backend> FakeToolstack<B> {
    /// What the devices that are there have done so far.
    ///
    /// # Panics
    /// As of [`status`](Self::status).
    pub fn figures(&mut self) -> Vec<B::Figures> {
        self.status().devices.into_iter().filter_map(|device| device.figures).collect()
    }

    /// What the backend knows of each device.
    ///
    /// # Panics
    /// The figures don't come within a minute, or the backend was stopped.
    pub fn status(&mut self) -> StatusOf<B> {
        self.backend().ask_figures();
        self.settle_until(LONGEST, |toolstack| toolstack.has_figures());
        self.backend().status()
    }

    /// What comes of it when an operator has a device do something.
    ///
    /// # Errors
    /// It refuses, or isn't served.
    ///
    /// # Panics
    /// There is no answer within a minute, or the backend was stopped.
    pub fn order(&mut self, device: &DeviceConfig, order: B::Order) -> Result<String, String> {
        let (replies, answer) = Replies::channel();
        self.backend().order(device.id(), order, replies);
        let mut answers = Vec::new();
        self.settle_until(LONGEST, |_| match answer.try_recv() {
            Ok(Reply::Done(result)) => {
                answers.push(result);
                true
            }
            _ => false,
        });
        answers.pop().expect("an answer")
    }
}
