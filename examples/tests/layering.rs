//! The arrows between the workspace's crates, read from `cargo metadata`: the Xen crates don't
//! know virtio, the virtio crates don't know Xen, and only the library of backends, the examples and the benches see both.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every library, and exactly the libraries of ours it is built on.
const ARROWS: [(&str, &[&str]); 12] = [
    ("backend-process", &[]),
    ("virtio-blk-dev", &["virtio-dev"]),
    ("virtio-dev", &[]),
    ("virtio-mmio-dev", &["virtio-dev"]),
    ("virtio-pci-dev", &["virtio-dev"]),
    ("virtio-worker", &[]),
    ("xen-evtchn", &[]),
    ("xen-foreignmem", &[]),
    ("xen-ioreq", &["xen-evtchn", "xen-foreignmem"]),
    ("xen-store", &[]),
    (
        "xen-virtio-backend",
        &[
            "backend-process",
            "virtio-dev",
            "virtio-mmio-dev",
            "virtio-pci-dev",
            "virtio-worker",
            "xen-evtchn",
            "xen-foreignmem",
            "xen-ioreq",
            "xen-store",
            "xen-virtio-sandbox",
        ],
    ),
    ("xen-virtio-sandbox", &[]),
];

/// The packages where Xen and virtio meet. `testbed-inside` is a backend as the examples are.
const BOTH: [&str; 4] =
    ["testbed-inside", "xen-virtio-backend", "xen-virtio-benches", "xen-virtio-examples"];

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata of the workspace")
}

/// The names `package` depends on, as far as `counts` says so of the dependency's kind.
fn dependencies(package: &Package, counts: impl Fn(DependencyKind) -> bool) -> BTreeSet<&str> {
    package.dependencies.iter().filter(|d| counts(d.kind)).map(|d| d.name.as_str()).collect()
}

fn library<'a>(workspace: &'a Metadata, name: &str) -> &'a Package {
    let found = workspace.packages.iter().find(|p| p.name == name);
    found.unwrap_or_else(|| panic!("{name} is in ARROWS, but not in the workspace"))
}

fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|(library, _)| *library == name)
}

/// Whether `name` is about Xen. Public crates count too: one that drives the hypervisor or speaks
/// virtio has no place in the other family, whoever wrote it.
fn is_xen(name: &str) -> bool {
    name.starts_with("xen")
}

fn is_virtio(name: &str) -> bool {
    name.starts_with("virtio") || name.starts_with("vhost")
}

#[test]
fn every_published_crate_has_its_arrows_listed() {
    let workspace = workspace();
    let published: BTreeSet<_> = workspace
        .packages
        .iter()
        .filter(|p| p.publish.as_ref().is_none_or(|registries| !registries.is_empty()))
        .map(|p| p.name.as_str())
        .collect();
    let listed: BTreeSet<_> = ARROWS.iter().map(|(library, _)| *library).collect();
    assert_eq!(published, listed);
}

#[test]
fn libraries_are_built_on_exactly_the_listed_ones() {
    let workspace = workspace();
    for (name, arrows) in ARROWS {
        let mut built_on =
            dependencies(library(&workspace, name), |kind| kind != DependencyKind::Development);
        built_on.retain(|dependency| is_ours(dependency));
        assert_eq!(built_on, arrows.iter().copied().collect(), "what {name} is built on");
    }
}

#[test]
fn xen_crates_do_not_know_virtio() {
    let workspace = workspace();
    for (name, _) in ARROWS.iter().filter(|(name, _)| is_xen(name) && !BOTH.contains(name)) {
        // A test may drive a foreign virtio crate over the memory a Xen crate maps; never ours.
        for dependency in &library(&workspace, name).dependencies {
            let for_tests_only = dependency.kind == DependencyKind::Development;
            assert!(
                !is_virtio(&dependency.name) || (for_tests_only && !is_ours(&dependency.name)),
                "{name} depends on {}",
                dependency.name
            );
        }
    }
}

#[test]
fn virtio_crates_do_not_know_xen() {
    let workspace = workspace();
    for (name, _) in ARROWS.iter().filter(|(name, _)| is_virtio(name)) {
        for dependency in dependencies(library(&workspace, name), |_| true) {
            assert!(!is_xen(dependency), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn xen_and_virtio_meet_in_the_backend_library_the_examples_and_the_benches_only() {
    let workspace = workspace();
    let mut meeting = BTreeSet::new();
    for package in &workspace.packages {
        let mut sees = dependencies(package, |_| true);
        sees.insert(&package.name);
        sees.retain(|name| is_ours(name));
        if sees.iter().any(|name| is_xen(name)) && sees.iter().any(|name| is_virtio(name)) {
            meeting.insert(package.name.as_str());
        }
    }
    assert_eq!(meeting, BTreeSet::from(BOTH));
}
