use xen_virtio_sandbox::Delegated;

use super::*;

const KEY: GuestKey = GuestKey { domid: 7, sharing: Sharing::Grant };

/// A launcher whose processes listen in `run`, and have their cgroups in `cgroups`.
fn exec(run: &Path, cgroups: &Path) -> Exec {
    let isolation = Isolation::default();
    let cgroups = Cgroups { delegated: Some(Delegated::at(cgroups)), isolation };
    Exec { dir: run.to_owned(), isolation, ids: None, cgroups, log_filter: None }
}

/// What it finds of an earlier supervisor's: the server of each process, and whether that runs.
fn found(exec: &Exec) -> Vec<(GuestKey, ServerId, bool)> {
    let all = exec.earlier().into_iter();
    all.map(|Earlier { key, server, launched }| (key, server, launched.is_some())).collect()
}

#[test]
fn the_server_of_a_process_is_found_while_it_listens_and_when_it_does_not_any_more() {
    let (run, cgroups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exec = exec(run.path(), cgroups.path());
    let cgroup = cgroups.path().join("guest-7-grant");
    fs::create_dir(&cgroup).unwrap();
    assert_eq!(found(&exec), []);
    ServerFile::new(run.path(), KEY).write(3).unwrap();
    let listener = listen_at(&exec.address(KEY).unwrap().1).unwrap();
    assert_eq!(found(&exec), [(KEY, 3, true)]);
    assert!(!cgroup.join("cgroup.kill").exists());

    drop(listener);
    for _ in 0..2 {
        assert_eq!(found(&exec), [(KEY, 3, false)]);
        // It may have closed the socket only.
        assert_eq!(fs::read_to_string(cgroup.join("cgroup.kill")).unwrap(), "1");
        assert!(!run.path().join("7-grant").exists());
    }
    exec.forget(KEY);
    assert_eq!(found(&exec), []);
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
}

#[test]
fn a_process_whose_server_is_not_known_is_left_alone() {
    let (run, cgroups) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exec = exec(run.path(), cgroups.path());
    let _listener = listen_at(&exec.address(KEY).unwrap().1).unwrap();
    assert_eq!(found(&exec), []);
    assert!(run.path().join("7-grant").exists());
}
