//! What `docs/write-your-own-backend.md` shows is the code as it is.

use std::{fs, path::Path};

/// Lines of code, without blank ones and comments, that the guide promises of its example.
const MAX_CODE_LINES: usize = 60;

const EXAMPLE: &str = "examples/virtio-rng/main.rs";

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An excerpt: the file it names, and its lines.
struct Excerpt<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
}

/// The blocks that begin with "```rust FILE".
fn excerpts(guide: &str) -> Vec<Excerpt<'_>> {
    let mut excerpts = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```").filter(|kind| !kind.is_empty()) {
            let block = lines.by_ref().take_while(|line| *line != "```").collect();
            if let Some(file) = kind.strip_prefix("rust") {
                excerpts.push(Excerpt { file: file.trim(), lines: block });
            }
        } else if line == "```" {
            lines.by_ref().find(|line| *line == "```");
        }
    }
    excerpts
}

/// Where `lines` stand in `text`, as they are.
fn position(text: &str, lines: &[&str]) -> Option<usize> {
    let text: Vec<_> = text.lines().collect();
    text.windows(lines.len()).position(|window| window == lines)
}

#[test]
fn every_excerpt_of_the_guide_is_in_the_file_it_names() {
    let guide = read("docs/write-your-own-backend.md");
    let excerpts = excerpts(&guide);
    assert!(excerpts.len() >= 6, "{} excerpts", excerpts.len());
    let mut before = 0;
    for Excerpt { file, lines } in excerpts {
        let excerpt = lines.join("\n");
        let at = position(&read(file), &lines);
        let at = at.unwrap_or_else(|| panic!("not in {file}:\n{excerpt}"));
        if file == EXAMPLE {
            assert!(at >= before, "the guide goes back in {file}:\n{excerpt}");
            before = at + lines.len();
        }
    }
}

#[test]
fn every_file_that_the_guide_links_to_is_there() {
    let guide = read("docs/write-your-own-backend.md");
    let links: Vec<_> =
        guide.split("](../").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links {
        read(link);
    }
}

#[test]
fn the_example_is_as_short_as_the_guide_says() {
    let code = read(EXAMPLE);
    let lines = code.lines().map(str::trim).filter(|line| {
        let comment = line.starts_with("//");
        !line.is_empty() && !comment
    });
    let lines = lines.count();
    assert!(lines <= MAX_CODE_LINES, "{lines} lines of code");
}

#[test]
fn excerpts_are_found_as_they_are_marked() {
    let guide =
        "a\n```sh\nx\n```\n```rust f.rs\n    y\n\n    z\n```\n```\n```\n```rust g.rs\n```\n";
    let found: Vec<_> = excerpts(guide).iter().map(|e| (e.file, e.lines.clone())).collect();
    assert_eq!(found, [("f.rs", vec!["    y", "", "    z"]), ("g.rs", vec![])]);
    assert_eq!(position("a\n  b\n  c\n", &["  b", "  c"]), Some(1));
    assert_eq!(position("a\n  b\n  c\n", &["b"]), None);
}
