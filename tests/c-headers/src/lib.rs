//! Compares numbers and layouts with those in C headers, by having the C compiler assert them: for the tests of
//! libraries that write down the ABI of Xen or Linux.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// C headers that a library's ABI is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Headers {
    /// What every program begins with: the includes, and what they need.
    pub prelude: &'static str,
    /// What to install if they are missing.
    pub packages: &'static str,
}

impl Headers {
    /// Compares each C expression, a constant, with our value.
    ///
    /// # Errors
    /// What the compiler says: a value differs, or a header is missing; or that there is no compiler.
    pub fn compare<V: Display>(&self, checks: &[(&str, V)]) -> Result<(), String> {
        self.compare_with("", checks)
    }

    /// As [`compare`](Self::compare), with further definitions after the prelude.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn compare_with<V: Display>(
        &self,
        definitions: &str,
        checks: &[(&str, V)],
    ) -> Result<(), String> {
        let Self { prelude, packages } = self;
        let mut program = format!("#include <stdint.h>\n{prelude}\n{definitions}\n");
        for (expression, ours) in checks {
            let _ = writeln!(
                program,
                "_Static_assert((uint64_t)({expression}) == {ours}ULL, \"{expression} is not {ours}\");"
            );
        }
        let mut cc = Command::new("cc")
            .args(["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cc: {error}: install a C compiler and {packages}"))?;
        let mut stdin = cc.stdin.take().ok_or("no pipe to cc")?;
        stdin.write_all(program.as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        let output = cc.wait_with_output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{said}\nIf a header is missing, install {packages}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERRNO: Headers = Headers { prelude: "#include <errno.h>", packages: "libc6-dev" };

    #[test]
    fn a_number_is_as_the_header_has_it() {
        assert_eq!(ERRNO.compare(&[("ENOENT", 2), ("EIO", 5)]), Ok(()));
        assert_eq!(ERRNO.compare_with("#define OURS ENOENT", &[("OURS", 2)]), Ok(()));
    }

    #[test]
    fn a_wrong_number_is_noticed() {
        let error = ERRNO.compare(&[("ENOENT", 2), ("EIO", 6)]).unwrap_err();
        assert!(error.contains("EIO is not 6") && !error.contains("ENOENT is not"), "{error}");
    }

    #[test]
    fn a_header_that_is_missing_is_named_and_what_to_install() {
        let headers = Headers { prelude: "#include <xen/no.h>", packages: "libxen-dev" };
        let error = headers.compare(&[("ENOENT", 2)]).unwrap_err();
        assert!(error.contains("xen/no.h") && error.contains("install libxen-dev"), "{error}");
    }
}
