//! What an action finds.

use anyhow::{Result, bail};

/// An error that says what was wrong, unless it holds.
pub(crate) fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { bail!(wrong()) }
}

/// An error unless two values are the same.
pub(crate) fn same<T: PartialEq + std::fmt::LowerHex>(what: &str, is: T, wanted: T) -> Result<()> {
    let holds = is == wanted;
    ensure(holds, || format!("{what} is {is:#x}, not {wanted:#x}"))
}
