pub const SECTOR: usize = 512;

pub type Sector = [u8; SECTOR];

/// A change of a sector: when the driver asked for it, and when it saw it answered.
struct Change {
    content: Option<Sector>,
    request: usize,
    asked: u64,
    answered: u64,
}

/// The disk as the driver may find it, while it waits for some of its requests: those in flight at
/// the same time may be carried out in any order, sector by sector, and no others.
pub struct Disk {
    sectors: Vec<Vec<Change>>,
}

const NEVER: u64 = u64::MAX;

impl Disk {
    pub fn new(contents: &[u8]) -> Self {
        let change = |chunk: &[u8]| Change {
            content: Some(chunk.try_into().unwrap()),
            request: usize::MAX,
            asked: 0,
            answered: 0,
        };
        Self { sectors: contents.chunks(SECTOR).map(|chunk| vec![change(chunk)]).collect() }
    }

    /// Request `request` is in flight from `asked` on.
    pub fn ask(&mut self, changes: &[(usize, Option<Sector>)], request: usize, asked: u64) {
        for &(sector, content) in changes {
            self.sectors[sector].push(Change { content, request, asked, answered: NEVER });
        }
    }

    pub fn answer(&mut self, changes: &[(usize, Option<Sector>)], request: usize, answered: u64) {
        for &(sector, _) in changes {
            let all = self.sectors[sector].iter_mut();
            all.filter(|change| change.request == request)
                .for_each(|change| change.answered = answered);
        }
    }

    /// Whether a read that was in flight from `asked` until now may have found this.
    pub fn may_hold(&self, sector: usize, asked: u64, found: &[u8]) -> bool {
        let changes = &self.sectors[sector];
        // A change that was over before another began, which was over before the read began, is
        // not to be seen any more.
        let above = changes.iter().filter(|change| change.answered < asked).map(|c| c.asked).max();
        let visible =
            || changes.iter().filter(|change| above.is_none_or(|above| change.answered >= above));
        if visible().any(|change| change.content.is_none_or(|content| content == *found)) {
            return true;
        }
        // The page cache copies a sector while another thread writes it: a read that was in flight together with a
        // write may find some bytes of before and some of after (seen on ext4, with nothing but pread and pwrite).
        let is_written = visible().any(|change| change.answered >= asked);
        let has = |index: usize, byte: u8| {
            visible().filter_map(|change| change.content).any(|content| content[index] == byte)
        };
        is_written && found.iter().enumerate().all(|(index, byte)| has(index, *byte))
    }
}

#[test]
fn only_a_sector_that_was_written_meanwhile_may_be_a_mix_of_before_and_after() {
    let mut disk = Disk::new(&[1; SECTOR]);
    let (mut mix, mut other) = ([2; SECTOR], [2; SECTOR]);
    mix[100..].fill(1);
    other[7] = 3;
    assert!(!disk.may_hold(0, 1, &mix));
    let changes = [(0, Some([2; SECTOR]))];
    disk.ask(&changes, 1, 2);
    assert!(disk.may_hold(0, 3, &mix), "in flight together");
    assert!(!disk.may_hold(0, 3, &other));
    disk.answer(&changes, 1, 4);
    assert!(disk.may_hold(0, 3, &mix), "the write was in flight when the read began");
    assert!(!disk.may_hold(0, 5, &mix), "it was over");
}
