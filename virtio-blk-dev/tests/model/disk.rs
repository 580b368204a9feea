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
        changes
            .iter()
            .filter(|change| above.is_none_or(|above| change.answered >= above))
            .any(|change| change.content.is_none_or(|content| content == *found))
    }
}
