//! The log's filter, changed while the program runs. A process has one log, so this is a program of its own.

use backend_process::{FilterError, Logging};
use tracing::{Level, enabled};

#[test]
fn the_log_contains_what_its_filter_lets_pass_from_then_on() {
    assert!(matches!(Logging::set_filter("debug"), Err(FilterError::NoLog)));
    let _log = Logging::start().unwrap();
    assert!(enabled!(Level::INFO) && !enabled!(Level::DEBUG));
    Logging::set_filter("debug").unwrap();
    assert!(enabled!(Level::DEBUG) && !enabled!(Level::TRACE));
    for wrong in ["", " ", "a=b=c", "debug,=,"] {
        let error = Logging::set_filter(wrong).unwrap_err();
        assert!(matches!(error, FilterError::Invalid { .. }), "{wrong:?}: {error}");
        assert!(enabled!(Level::DEBUG), "it stays as it was");
    }
    Logging::set_filter("error,somewhere=trace").unwrap();
    assert!(!enabled!(Level::WARN) && enabled!(target: "somewhere", Level::TRACE));
}
