//! An error with its sources, on one line.

use std::{error::Error, fmt};

/// An error as a log line or an error node shows it: what failed, then its source, and the source of
/// that, each after a colon.
///
/// The project's errors leave their source out of their own text. Those of some other crates repeat
/// it there; it is then not written a second time.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn Error + 'a));

/// Shows `error` with its sources.
pub fn chain<'a>(error: &'a (dyn Error + 'a)) -> Chain<'a> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !last.ends_with(&text) {
                write!(f, ": {text}")?;
                last = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug)]
    struct Failed(&'static str, Option<Box<dyn Error + Send + Sync>>);

    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Failed {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|source| &**source as _)
        }
    }

    #[test]
    fn an_error_is_shown_with_all_of_its_sources() {
        let source = io::Error::other(Failed("the disk is full", None));
        let error = Failed("can't write b", Some(Box::new(source)));
        let error = Failed("can't save a", Some(Box::new(error)));
        assert_eq!(chain(&error).to_string(), "can't save a: can't write b: the disk is full");
    }

    #[test]
    fn a_source_that_stands_in_the_text_already_is_not_shown_twice() {
        let source = Failed("no: full", Some(Box::new(Failed("full", None))));
        let error = Failed("can't save: no: full", Some(Box::new(source)));
        assert_eq!(chain(&error).to_string(), "can't save: no: full");
    }
}
