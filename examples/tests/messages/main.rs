//! Every message that an operator can meet stands in `docs/messages.md`, which is made from the
//! sources: `UPDATE_MESSAGES=1 cargo test -p xen-virtio-examples --test messages` writes it anew.
//!
//! So a change of a message is seen in review as what an operator will read, and one that doesn't
//! say what it is about is refused.

mod collect;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use collect::{Level, Message, collect};

/// The programs, then the libraries whose errors they print.
const SOURCES: [(&str, &[&str]); 15] = [
    ("xen-virtio-blk", &["examples/xen-virtio-blk"]),
    ("vhost-user-blk", &["examples/vhost-user-blk/src"]),
    ("virtio-rng", &["examples/virtio-rng"]),
    ("virtio-console", &["examples/virtio-console"]),
    ("xen-virtio-backend", &["xen-virtio-backend/src"]),
    ("backend-process", &["backend-process/src"]),
    ("virtio-blk-dev", &["virtio-blk-dev/src"]),
    ("virtio-dev", &["virtio-dev/src"]),
    ("virtio-pci-dev", &["virtio-pci-dev/src"]),
    ("virtio-worker", &["virtio-worker/src"]),
    ("xen-evtchn", &["xen-evtchn/src"]),
    ("xen-foreignmem", &["xen-foreignmem/src"]),
    ("xen-ioreq", &["xen-ioreq/src"]),
    ("xen-store", &["xen-store/src"]),
    ("xen-virtio-sandbox", &["xen-virtio-sandbox/src"]),
];

const HEADER: &str = "\
# Messages

Every message of the programs, and of the libraries whose errors they print, in the order of the
sources. `error`, `warn`, `info` and `debug` are levels of the log; `because` is the text of an error,
which stands in a log line's field `error`, in a device's error node or behind the program's name when
it ends; `text` is a part of one of these, or of what `check` prints. `{…}` stands for a value.

This page is made from the sources, by
`UPDATE_MESSAGES=1 cargo test -p xen-virtio-examples --test messages`.
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below a directory that are not built for tests only, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.expect("a directory entry").path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if matches!(stem.as_str(), "tests" | "fake" | "fakes") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Each source's name and what it can say, with the file it says it in.
fn messages() -> Vec<(&'static str, Vec<(PathBuf, Message)>)> {
    let of_source = |directories: &[&str]| {
        let files = directories.iter().flat_map(|directory| files(&root().join(directory)));
        files
            .flat_map(|file| {
                let text = fs::read_to_string(&file).expect("a source file");
                let messages = collect(&text);
                messages.into_iter().map(move |message| (file.clone(), message))
            })
            .collect()
    };
    SOURCES.map(|(name, directories)| (name, of_source(directories))).into()
}

#[test]
fn every_message_stands_in_the_list() {
    let mut page = HEADER.to_owned();
    for (name, messages) in messages() {
        assert!(name.starts_with("virtio-rng") || !messages.is_empty(), "{name} says nothing");
        write!(page, "\n## {name}\n\n").unwrap();
        for (_, Message { level, text, .. }) in messages {
            writeln!(page, "* {level}: {text}").unwrap();
        }
    }
    let path = root().join("docs/messages.md");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let (now, then): (Vec<_>, Vec<_>) = (page.lines().collect(), kept.lines().collect());
    let new: Vec<_> = now.iter().filter(|line| !then.contains(line)).collect();
    let gone: Vec<_> = then.iter().filter(|line| !now.contains(line)).collect();
    assert!(
        page == kept,
        "docs/messages.md is not what the sources say; new: {new:#?}, gone: {gone:#?}; \
         UPDATE_MESSAGES=1 writes it"
    );
}

#[test]
fn a_warning_or_error_in_the_log_says_what_it_is_about() {
    let mut nameless = Vec::new();
    for (_, messages) in messages() {
        for (file, message) in messages {
            let serious = matches!(message.level, Level::Warn | Level::Error);
            if serious && !message.has_values {
                nameless.push(format!("{}: {}", file.display(), message.text));
            }
        }
    }
    assert!(nameless.is_empty(), "no field and no value:\n{}", nameless.join("\n"));
}

/// Words that say with a picture what the systems' own words say without.
const FIGURES: [&str; 22] = [
    "let go",
    "letting go",
    "taken on",
    "takes on",
    "take on",
    "told of",
    "has to do with",
    " lives",
    "'s hands",
    "survive",
    "patience",
    "broke:",
    " gone",
    "left behind",
    "gave up",
    "gave the",
    "given the",
    "given up",
    "mend ",
    "shrunk",
    " anew",
    "after all",
];

#[test]
fn a_message_is_in_plain_words() {
    let mut figures = Vec::new();
    for (_, messages) in messages() {
        for (file, message) in messages {
            let text = message.text.to_lowercase();
            if FIGURES.iter().any(|figure| text.contains(figure)) {
                figures.push(format!("{}: {}", file.display(), message.text));
            }
        }
    }
    assert!(figures.is_empty(), "say it literally:\n{}", figures.join("\n"));
}

#[test]
fn an_error_does_not_repeat_its_source() {
    // Printed with its sources (`{:#}`), it would say the same twice.
    let mut twice = Vec::new();
    for (_, messages) in messages() {
        for (file, message) in messages {
            if message.level == Level::Because && message.repeats_source {
                twice.push(format!("{}: {}", file.display(), message.text));
            }
        }
    }
    assert!(twice.is_empty(), "the source is in the text, too:\n{}", twice.join("\n"));
}
