use std::io;

/// Descriptors that aren't those of the [`ImageFacts`](crate::ImageFacts) they come with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// Another number of them.
    #[error(
        "the image's files are {expected} descriptors, but {found} came with its facts: pass on all that \
         `ImageFiles::into_parts` gave, in its order"
    )]
    Count {
        /// As the facts say.
        expected: usize,
        /// As they came.
        found: usize,
    },
    /// One of them is of another kind.
    #[error(
        "descriptor {index} of the image's files should be {expected}: pass on all that \
         `ImageFiles::into_parts` gave, in its order"
    )]
    Kind {
        /// Its place among them.
        index: usize,
        /// What it should be.
        expected: &'static str,
    },
    /// One of them can't be asked what it is.
    #[error("descriptor {index} of the image's files can't be examined")]
    Examine {
        /// Its place among them.
        index: usize,
        /// What the system said.
        source: io::Error,
    },
}
