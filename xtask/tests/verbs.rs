//! The verbs of the testbed's cases, as far as they need no dom0.

use std::path::Path;
use std::process::Command;

/// What a script that uses the verbs prints. Images go to a directory of its own, and the host's
/// disk is the library itself.
fn run(name: &str, script: &str) -> String {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/dom0/lib.sh");
    let dir = std::env::temp_dir().join(format!("xtask-verbs-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let script =
        format!(". \"$0\"\nIMAGES=$1\nlibrary=$0\nhost_disk() {{ echo \"$library\"; }}\n{script}");
    let out = Command::new("sh").args(["-uc", &script]).arg(library).arg(&dir).output().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn an_image_of_the_hosts_disk_is_a_file_of_its_own_each_time() {
    let said = run(
        "from",
        "first=$(image_from root) second=$(image_from root)\n\
         [ \"$first\" != \"$second\" ] && echo two\n\
         echo changed >\"$second\" && cmp \"$first\" \"$library\" && echo whole",
    );
    assert_eq!(said, "two\nwhole\n");
}

#[test]
fn an_empty_image_is_a_file_of_its_own_each_time() {
    let said = run(
        "empty",
        "first=$(image data 64k) && echo kept >\"$first\" && second=$(image data 128k)\n\
         cat \"$first\" && stat -c %s \"$second\"",
    );
    assert_eq!(said, "kept\n131072\n");
}
