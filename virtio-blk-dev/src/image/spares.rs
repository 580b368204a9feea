use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// Open file descriptions of an image, for engines in a process that can't open it again.
///
/// A description is in use while anybody else holds it. The engine that gets it next also gets the
/// write-back errors of the time in between.
#[derive(Debug)]
pub(super) struct Spares(Mutex<Vec<Arc<File>>>);

impl Spares {
    pub(super) fn new(files: Vec<File>) -> Self {
        Self(Mutex::new(files.into_iter().map(Arc::new).collect()))
    }

    /// One that nobody uses.
    pub(super) fn take(&self) -> Option<Arc<File>> {
        // Under the lock only, so that a count of one can't be another call's about to take it.
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.iter().find(|file| Arc::strong_count(file) == 1).cloned()
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_one_user_and_is_free_when_that_is_gone() {
        let spares = Spares::new((0..2).map(|_| tempfile::tempfile().unwrap()).collect());
        let [first, second] = [spares.take().unwrap(), spares.take().unwrap()];
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(spares.take().is_none());
        let freed = Arc::as_ptr(&first);
        drop(first);
        assert_eq!(Arc::as_ptr(&spares.take().unwrap()), freed);
    }
}
