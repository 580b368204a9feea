//! What holds for source files, whatever they do: for those of libraries, tests and programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file is one noun; one that outgrows this holds two.
const MAX_LINES: usize = 400;

const LIBRARIES: [&str; 12] = [
    "backend-process",
    "virtio-blk-dev",
    "virtio-dev",
    "virtio-mmio-dev",
    "virtio-pci-dev",
    "virtio-worker",
    "xen-evtchn",
    "xen-foreignmem",
    "xen-ioreq",
    "xen-store",
    "xen-virtio-backend",
    "xen-virtio-sandbox",
];

/// Printing and starting threads are the caller's to decide: a library that does either can't be
/// used in a daemon that logs to its own place, drops privileges, or pins its threads.
const PRINTS: [&str; 5] = ["print!(", "println!(", "eprint!(", "eprintln!(", "dbg!("];
const STARTS_THREADS: [&str; 3] = ["thread::spawn(", "thread::scope(", "thread::Builder"];

/// The libraries whose purpose it is to start threads: those of queues, whose user says which, when, where they run
/// and when they end; the one that writes a program's log; and those of a whole backend.
const THREADS: [&str; 3] = ["backend-process", "virtio-worker", "xen-virtio-backend"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The `.rs` files under these directories, and what is in them. What cargo has built and hidden directories are passed
/// over.
fn sources(mut directories: Vec<PathBuf>) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a source directory") {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                files.push((path, text));
            }
        }
    }
    files
}

/// The sources of the libraries, without their tests of interfaces.
fn library_sources() -> Vec<(PathBuf, String)> {
    let files = sources(LIBRARIES.map(|library| root().join(library).join("src")).into());
    assert!(files.len() >= LIBRARIES.len(), "a library without sources");
    files
}

/// Whether a file is built for tests only: a fake, or a module of tests of its own.
fn is_for_tests(path: &Path) -> bool {
    path.iter().any(|part| {
        let part = part.to_string_lossy();
        matches!(part.trim_end_matches(".rs"), "fake" | "fakes" | "tests")
    })
}

/// The lines before the file's tests, comments left out, numbered as an editor does.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().map(str::trim).zip(1..).map(|(line, number)| (number, line));
    numbered
        .take_while(|(_, line)| *line != "mod tests {")
        .filter(|(_, line)| !line.starts_with("//"))
}

#[test]
fn no_source_file_is_longer_than_400_lines() {
    let files = sources(vec![root()]);
    assert!(files.len() > library_sources().len(), "tests and programs have files, too");
    let long: Vec<_> = files
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines: {long:#?}");
}

#[test]
fn libraries_neither_print_nor_start_threads() {
    let (mut found, mut starters) = (Vec::new(), BTreeSet::new());
    for (path, text) in library_sources().iter().filter(|(path, _)| !is_for_tests(path)) {
        let excepted = THREADS.into_iter().find(|library| path.iter().any(|part| part == *library));
        for (number, line) in code(text) {
            let starts = STARTS_THREADS.iter().any(|pattern| line.contains(pattern));
            starters.extend(excepted.filter(|_| starts));
            if (starts && excepted.is_none()) || PRINTS.iter().any(|pattern| line.contains(pattern))
            {
                found.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "for the caller to do:\n{}", found.join("\n"));
    assert_eq!(starters, BTreeSet::from(THREADS), "the libraries that start threads");
}

#[test]
fn code_ends_where_the_tests_begin() {
    let text =
        "//! doc\nfn f() {\n    // why\n    g();\n}\n#[cfg(test)]\nmod tests {\n    h();\n}\n";
    let lines: Vec<_> = code(text).collect();
    assert_eq!(lines, [(2, "fn f() {"), (4, "g();"), (5, "}"), (6, "#[cfg(test)]")]);
}
