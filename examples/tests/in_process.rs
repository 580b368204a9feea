//! The example for readers does what it says.

#[path = "../examples/in_process.rs"]
#[expect(unreachable_pub, reason = "an example's main")]
mod in_process;

#[test]
fn the_example_reads_its_sector() {
    in_process::main().unwrap();
}
