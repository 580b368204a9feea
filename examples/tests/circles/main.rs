//! No module of a library needs, directly or through others, what needs it: each can be read, tested
//! and moved with only what is below it.
//!
//! What counts as an arrow from a module to another of the same crate: a `use` of the other or of
//! something that is defined there, and a path in the code (`crate::a::b`, `super::…`, `child::…`).
//!
//! * Every module is a node of its own, a parent beside its children.
//! * An arrow ends where a thing is defined: re-exports are followed.
//! * Declaring a child is no arrow, nor is a re-export, unless the module uses the name itself.
//! * What is built only for tests (`#[cfg(test)]`) and what comments refer to doesn't count.

mod graph;
mod scan;

use cargo_metadata::{MetadataCommand, TargetKind};

use graph::Graph;

#[test]
fn no_library_has_a_circle_of_modules() {
    let workspace = MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata of the workspace");
    let mut found = Vec::new();
    let mut libraries = 0;
    for package in &workspace.packages {
        let mut targets = package.targets.iter();
        let Some(library) = targets.find(|target| target.kind.contains(&TargetKind::Lib)) else {
            continue;
        };
        libraries += 1;
        let circles = Graph::of(library.src_path.as_std_path()).circles();
        found.extend(circles.iter().map(|circle| format!("{}: {circle}", package.name)));
    }
    assert!(libraries > 6, "only {libraries} libraries found");
    assert!(found.is_empty(), "circles of modules:\n{}", found.join("\n"));
}

/// The circles of a crate with these files.
fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a source file");
    }
    Graph::of(&directory.path().join("lib.rs")).circles()
}

#[test]
fn a_circle_is_found_through_imports_and_through_paths_in_the_code() {
    let root = ("lib.rs", "mod a; mod b; mod c;");
    let back = ("c.rs", "fn f() { let x = vec![crate::a::A::new()]; }");
    let there =
        [("a.rs", "use crate::b::{self, B};"), ("b.rs", "pub use super::c::C as B; struct S(B);")];
    assert_eq!(circles(&[root, there[0], there[1], back]), ["a → c → a, with b"]);
    assert_eq!(circles(&[root, there[0], there[1], ("c.rs", "")]), [""; 0]);
}

#[test]
fn a_parent_that_uses_its_child_makes_a_circle_with_a_child_that_uses_it() {
    let child = ("a/b.rs", "use super::Parent; pub struct Child(Parent);");
    let uses = "mod b; pub use self::b::Child; pub struct Parent; fn f(_: Child) {}";
    let hands_on = "mod b; pub use self::b::Child; pub struct Parent;";
    assert_eq!(circles(&[("lib.rs", "mod a;"), ("a.rs", uses), child]), ["a → a::b → a"]);
    assert_eq!(circles(&[("lib.rs", "mod a;"), ("a/mod.rs", hands_on), child]), [""; 0]);
}

#[test]
fn a_reexport_leads_to_where_the_thing_is_defined() {
    let root = ("lib.rs", "mod a { mod b; mod c; pub use b::B; pub use c::C; } pub use a::B;");
    let b = ("a/b.rs", "pub struct B;");
    assert_eq!(
        circles(&[root, b, ("a/c.rs", "use super::B; use crate::B as D; struct C(B, D);")]),
        [""; 0]
    );
    let b = ("a/b.rs", "use crate::a::C; pub struct B(C);");
    assert_eq!(
        circles(&[root, b, ("a/c.rs", "pub(super) struct C(crate::B);")]),
        ["a::b → a::c → a::b"]
    );
}

#[test]
fn what_is_built_for_tests_only_does_not_count() {
    let root = ("lib.rs", "mod a; mod b;");
    let a = ("a.rs", "use crate::b::B; pub struct A;");
    for b in [
        "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
        "#[cfg(test)] use crate::a::{A, A as C}; pub struct B { #[cfg(test)] pub(crate) a: crate::a::A, b: u8 }",
        "pub struct B; impl B { #[cfg(test)] fn f<S, T>() { crate::a::A } }",
        "pub(in crate::a) struct B; /// [`A`](crate::a::A)\nfn f() {}",
    ] {
        assert_eq!(circles(&[root, a, ("b.rs", b)]), [""; 0], "{b}");
    }
    let b = ("b.rs", "#[cfg(any(test, feature = \"x\"))] pub fn f() { crate::a::A }");
    assert_eq!(circles(&[root, a, b]), ["a → b → a"]);
}
