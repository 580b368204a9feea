//! What ARCHITECTURE.md says of the code is there.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The text of every Rust file of the workspace but what was built.
fn rust_sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).expect("a directory of the workspace") {
        let path = entry.expect("a directory entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_sources(&path, text);
        } else if name.ends_with(".rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_invariants_name_tests_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let invariants = text.split("## Invariants").nth(1).expect("the section");
    let invariants = invariants.split("\n## ").next().unwrap_or_default();
    let mut sources = String::new();
    rust_sources(&root(), &mut sources);
    let is_name = |word: &&str| {
        word.matches('_').count() > 1 && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
    };
    let names: Vec<_> = quoted(invariants).filter(is_name).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let found = sources.contains(&format!("fn {name}("));
        assert!(found, "ARCHITECTURE.md names a test {name} that isn't there");
    }
}

#[test]
fn the_code_map_names_rooms_that_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rooms = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rooms: Vec<_> = rooms.filter(|room| room.ends_with('/')).collect();
    assert!(rooms.len() >= 10, "{rooms:?}");
    for room in rooms {
        assert!(root().join(room).is_dir(), "ARCHITECTURE.md names {room}, which isn't there");
    }
}

#[test]
fn there_is_one_table_of_threads_and_it_has_each_that_the_daemon_starts() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut tables = text.split("\n| thread |").skip(1);
    let table = tables.next().expect("a table of threads");
    assert_eq!(tables.count(), 0, "one table can be true, of two one will not be");
    let table = table.split("\n\n").next().unwrap_or_default();
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let mut started = String::new();
    let dirs = [
        "xen-virtio-backend/src",
        "examples/xen-virtio-blk",
        "backend-process/src",
        "virtio-worker/src",
    ];
    for dir in dirs {
        rust_sources(&root().join(dir), &mut started);
    }
    let started = started.matches("thread::Builder::new()").count();
    assert_eq!(rows.len(), started, "threads besides main: {rows:#?}");
}
