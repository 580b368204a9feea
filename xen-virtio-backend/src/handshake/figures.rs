//! The figures of devices, which go on when a guest is rebooted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    figures::Figures,
    node::{DeviceId, Kind},
};

/// How long the figures of a device that has ended are kept for one that comes in its place. A guest takes some seconds
/// to be rebooted, and longer if it is created anew by hand.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// What is the same of a device and of the one in its place after a reboot of the guest: the guest's UUID, the device's
/// number there, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lineage {
    pub(super) uuid: String,
    pub(super) kind: Kind,
    pub(super) devid: u32,
    pub(super) text: String,
}

/// The figures of all devices.
pub(super) struct FigureBook<F> {
    live: BTreeMap<DeviceId, Live<F>>,
    /// Of devices that have ended, their sums.
    past: BTreeMap<Lineage, Past<F>>,
}

struct Live<F> {
    /// `None` if the guest has no UUID.
    lineage: Option<Lineage>,
    /// What was last heard.
    figures: Option<F>,
}

struct Past<F> {
    figures: F,
    /// When the last one has.
    ended: Instant,
}

impl<F: Figures> FigureBook<F> {
    pub(super) fn new() -> Self {
        Self { live: BTreeMap::new(), past: BTreeMap::new() }
    }

    /// A device is served from now on. Others for which `is_there` doesn't hold have ended: nobody may ever ask for
    /// figures, and a guest may be rebooted without end.
    pub(super) fn begin(
        &mut self,
        id: DeviceId,
        lineage: Option<Lineage>,
        is_there: impl Fn(DeviceId) -> bool,
    ) {
        self.end(id);
        self.sweep(is_there);
        self.live.insert(id, Live { lineage, figures: None });
    }

    /// What a device has done so far.
    pub(super) fn heard(&mut self, id: DeviceId, figures: F) {
        if let Some(live) = self.live.get_mut(&id) {
            live.figures = Some(figures);
        }
    }

    fn end(&mut self, id: DeviceId) {
        if let Some(Live { lineage: Some(lineage), figures: Some(figures) }) = self.live.remove(&id)
        {
            let sum = match self.past.remove(&lineage) {
                Some(past) => sum(figures, [&past.figures]),
                None => figures,
            };
            self.past.insert(lineage, Past { figures: sum, ended: Instant::now() });
        }
    }

    /// Devices for which `is_there` doesn't hold have ended. What was kept long enough is forgotten.
    pub(super) fn sweep(&mut self, is_there: impl Fn(DeviceId) -> bool) {
        let ended: Vec<_> = self.live.keys().copied().filter(|id| !is_there(*id)).collect();
        ended.into_iter().for_each(|id| self.end(id));
        let live = &self.live;
        self.past.retain(|lineage, past| {
            past.ended.elapsed() < KEPT
                || live.values().any(|its| its.lineage.as_ref() == Some(lineage))
        });
    }

    /// What a device has done, with those before it in its place. An earlier one may still be ending.
    pub(super) fn of(&self, id: DeviceId) -> Option<F> {
        let Live { lineage, figures } = self.live.get(&id)?;
        let Some(lineage) = lineage else { return figures.clone() };
        let is_other = |(other, live): &(&DeviceId, &Live<F>)| {
            **other != id && live.lineage.as_ref() == Some(lineage)
        };
        let others =
            self.live.iter().filter(is_other).filter_map(|(_, live)| live.figures.as_ref());
        let past = self.past.get(lineage).map(|past| &past.figures);
        Some(sum(figures.clone()?, others.chain(past)))
    }
}

fn sum<'a, F: Figures>(mut figures: F, others: impl IntoIterator<Item = &'a F>) -> F {
    others.into_iter().for_each(|other| figures.add(other));
    figures
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Count(u64);

    impl Figures for Count {
        fn add(&mut self, other: &Self) {
            self.0 += other.0;
        }
    }

    fn id(domid: u16) -> DeviceId {
        DeviceId { domid, kind: Kind::VirtioDisk, devid: 51712 }
    }

    fn lineage(uuid: &str, text: &str) -> Option<Lineage> {
        let id = id(1);
        Some(Lineage { uuid: uuid.into(), kind: id.kind, devid: id.devid, text: text.into() })
    }

    #[test]
    fn figures_go_on_over_reboots_of_the_guest() {
        let mut book = FigureBook::new();
        for (reboot, expected) in [(1, 10), (2, 20), (3, 30)] {
            book.begin(id(reboot), lineage("a", "root.img"), |_| true);
            assert_eq!(book.of(id(reboot)), None, "nothing was heard of it yet");
            book.heard(id(reboot), Count(4));
            book.heard(id(reboot), Count(10));
            assert_eq!(book.of(id(reboot)), Some(Count(expected)));
            book.sweep(|_| false);
            assert_eq!(book.of(id(reboot)), None, "it has ended");
        }
    }

    #[test]
    fn a_device_that_still_ends_counts_with_the_one_in_its_place() {
        let mut book = FigureBook::new();
        book.begin(id(1), lineage("a", "root.img"), |_| true);
        book.heard(id(1), Count(10));
        book.begin(id(2), lineage("a", "root.img"), |_| true);
        book.heard(id(2), Count(1));
        assert_eq!(book.of(id(2)), Some(Count(11)));
        book.heard(id(1), Count(12));
        book.sweep(|its| its == id(2));
        assert_eq!(book.of(id(2)), Some(Count(13)), "not twice");
    }

    #[test]
    fn figures_of_another_guest_or_another_image_are_not_added() {
        let mut book = FigureBook::new();
        for (domid, lineage) in [
            (1, lineage("a", "root.img")),
            (2, lineage("b", "root.img")),
            (3, lineage("a", "x")),
            (4, None),
            (5, None),
        ] {
            book.begin(id(domid), lineage, |_| true);
            book.heard(id(domid), Count(7));
            assert_eq!(book.of(id(domid)), Some(Count(7)));
            book.sweep(|_| false);
        }
    }

    #[test]
    fn a_guest_that_is_rebooted_without_end_leaves_no_more_than_one_device() {
        let mut book = FigureBook::new();
        for reboot in 1..1000 {
            book.begin(id(reboot), lineage("a", "root.img"), |its| its == id(reboot));
            book.heard(id(reboot), Count(1));
            assert_eq!(book.of(id(reboot)), Some(Count(reboot.into())));
        }
        assert_eq!((book.live.len(), book.past.len()), (1, 1));
    }

    #[test]
    fn another_device_with_the_same_number_begins_anew() {
        let mut book = FigureBook::new();
        book.begin(id(1), lineage("a", "root.img"), |_| true);
        book.heard(id(1), Count(7));
        book.begin(id(1), lineage("a", "other.img"), |_| true);
        assert_eq!(book.of(id(1)), None);
        book.heard(id(1), Count(1));
        assert_eq!(book.of(id(1)), Some(Count(1)));
    }
}
