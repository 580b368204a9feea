//! Makes documents of a library's README and of its crate documentation, for rustdoc to test.

use std::path::Path;
use std::{env, fs};

fn main() {
    let package = env::var("CARGO_PKG_NAME").expect("set by cargo");
    let library = package.strip_prefix("outside-").expect("a package named after its library");
    let library = Path::new("../../..").join(library);
    let (readme, source) = (library.join("README.md"), library.join("src/lib.rs"));
    for path in [&readme, &source] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let readme = fs::read_to_string(readme).expect("a README");
    assert!(!readme.contains("```rust,ignore"), "a snippet that nobody compiles");
    let source = fs::read_to_string(source).expect("the library's source");
    let doc: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let doc: String =
        doc.iter().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    let out = env::var("OUT_DIR").expect("set by cargo");
    for (name, text) in [("readme.md", readme), ("crate.md", doc)] {
        fs::write(Path::new(&out).join(name), text).expect("a file in OUT_DIR");
    }
}
