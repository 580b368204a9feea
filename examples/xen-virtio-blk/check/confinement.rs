//! How far the processes of guests can be confined here.

use std::{fs, ops::Range};

use backend_process::chain;
use xen_virtio_sandbox::{AccountError, Delegated, IdRange, Layer, State, probe};

use super::finding::{Finding, Verdict};

/// What the cgroup of a guest's process is limited by.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn findings() -> [Finding; 3] {
    let report = probe();
    let database = ["passwd", "group", "subuid", "subgid"]
        .map(|file| fs::read_to_string(format!("/etc/{file}")).unwrap_or_default());
    let delegated = Delegated::find().ok().flatten().is_some();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").ok();
    [
        sandbox(report.layers()),
        users(IdRange::of_user(IdRange::USER), &database),
        cgroup(delegated, controllers.as_deref()),
    ]
}

/// What this kernel has to confine a process, and this user may use.
fn sandbox<'a>(layers: impl Iterator<Item = (Layer, &'a State)>) -> Finding {
    let what = "sandbox of guests";
    let (mut on, mut partial, mut missing) = (0_u32, Vec::new(), Vec::new());
    for (layer, state) in layers {
        match state {
            State::Partial(but) => partial.push(format!("{layer}: {but}")),
            State::Missing(why) => missing.push(format!("{layer}: {why}")),
            State::On => on += 1,
            _ => {}
        }
    }
    if missing.is_empty() {
        let mut found = format!("each of its {} layers can be had", on as usize + partial.len());
        if !partial.is_empty() {
            found = format!("{found}, in part: {}", partial.join("; "));
        }
        return Finding { what, found, verdict: Verdict::Fine };
    }
    missing.extend(partial);
    Finding {
        what,
        found: format!("in part only: {}", missing.join("; ")),
        verdict: Verdict::Lacking {
            remedy: "run as root, on a kernel that has what is named (Debian's has); otherwise a guest that takes over \
                     the process that serves it can do more here than it should"
                .into(),
        },
    }
}

/// A user for the process of each guest, so that one can't trace or signal another.
fn users(range: Result<IdRange, AccountError>, database: &[String; 4]) -> Finding {
    let what = "users of guests";
    let lacking = |found, remedy| Finding { what, found, verdict: Verdict::Lacking { remedy } };
    let ids = range.and_then(|range| Ok((range.for_domain(1)?, IdRange::LEN - 1)));
    let (first, count) = match ids {
        Ok(found) => found,
        Err(AccountError::NoUser { name }) => {
            return lacking(
                format!("no user {name}: the processes of all guests run as the daemon's user"),
                format!(
                    "create it with {} unused ids after its own, as the Debian package does: adduser --system --group \
                     --no-create-home --uid 1879048192 {name}",
                    IdRange::LEN - 1
                ),
            );
        }
        Err(error) => {
            return lacking(
                chain(&error).to_string(),
                format!("give the user {} another id", IdRange::USER),
            );
        }
    };
    let range = |first: u32| u64::from(first)..u64::from(first) + u64::from(count);
    let (uids, gids) = (range(first.uid()), range(first.gid()));
    let [passwd, group, subuid, subgid] = database;
    let taken = owner(passwd, &uids, 2, None)
        .or_else(|| owner(group, &gids, 2, None))
        .or_else(|| owner(subuid, &uids, 1, Some(2)))
        .or_else(|| owner(subgid, &gids, 1, Some(2)));
    match taken {
        Some(name) => lacking(
            format!("some of the ids from {} to {} are {name}'s", uids.start, uids.end - 1),
            format!(
                "give the user {} an id with {count} unused ones after it: guests whose ids are another user's are not \
                 served, and subordinate ids must not overlap",
                IdRange::USER
            ),
        ),
        None => {
            let found = format!("ids from {} to {}", uids.start, uids.end - 1);
            Finding { what, found, verdict: Verdict::Fine }
        }
    }
}

/// Who has one of these ids, by lines as of passwd(5) or subuid(5): in which fields the first one is, and how many.
fn owner(lines: &str, ids: &Range<u64>, first: usize, count: Option<usize>) -> Option<String> {
    lines.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let number = |field: usize| fields.get(field)?.parse::<u64>().ok();
        let first = number(first)?;
        let end = first.saturating_add(count.map_or(Some(1), number)?);
        (first < ids.end && ids.start < end).then(|| fields[0].to_owned())
    })
}

/// Limits for the process of each guest.
fn cgroup(delegated: bool, controllers: Option<&str>) -> Finding {
    let what = "cgroups of guests";
    let there: Vec<_> = controllers.unwrap_or_default().split_whitespace().collect();
    let missing: Vec<_> = CONTROLLERS.into_iter().filter(|name| !there.contains(name)).collect();
    let (found, remedy) = match (controllers, &missing[..]) {
        (None, _) => (
            "no cgroup v2 at /sys/fs/cgroup: --guest-memory-max and --guest-cpu-quota don't hold"
                .to_owned(),
            "boot with systemd.unified_cgroup_hierarchy=1, or mount it there",
        ),
        (Some(_), []) => {
            let found = match delegated {
                true => "one is delegated to this process",
                false => "version 2; a service gets them by Delegate=, as the package's has",
            };
            return Finding { what, found: found.into(), verdict: Verdict::Fine };
        }
        (Some(_), missing) => (
            format!("no controller {}: what it limits is not limited", missing.join(", ")),
            "boot a kernel that has it, with cgroup_enable=memory if that is what is missing",
        ),
    };
    Finding { what, found, verdict: Verdict::Lacking { remedy: remedy.into() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xen_virtio_sandbox::Ids;

    fn is_fine(finding: &Finding) -> bool {
        matches!(finding.verdict, Verdict::Fine)
    }

    #[test]
    fn a_layer_that_the_kernel_lacks_is_named_with_the_reason() {
        let mut layers = Layer::ALL.map(|layer| (layer, State::On));
        let finding = |layers: &[(Layer, State)]| {
            sandbox(layers.iter().map(|(layer, state)| (*layer, state)))
        };
        let complete = finding(&layers);
        assert!(is_fine(&complete) && complete.found.contains("13 layers"), "{complete}");
        layers[11].1 = State::Partial("no signals".into());
        let partial = finding(&layers);
        assert!(is_fine(&partial), "{partial}");
        assert!(
            partial.found.contains("13 layers") && partial.found.contains("landlock: no signals")
        );
        layers[12].1 = State::Missing("the kernel has no CONFIG_SECCOMP_FILTER".into());
        let missing = finding(&layers);
        assert!(matches!(missing.verdict, Verdict::Lacking { .. }));
        let text =
            "in part only: seccomp: the kernel has no CONFIG_SECCOMP_FILTER; landlock: no signals";
        assert_eq!(missing.found, text);
    }

    #[test]
    fn users_of_guests_are_missing_or_somebody_elses_or_fine() {
        let none = || [(); 4].map(|()| String::new());
        let range = || Ok(IdRange::new(Ids::new(1_879_048_192, 1_879_048_192).unwrap()));
        let fine = users(range(), &none());
        assert!(is_fine(&fine), "{fine}");
        assert_eq!(fine.found, "ids from 1879048193 to 1879080943");
        let missing = users(Err(AccountError::NoUser { name: "guests".into() }), &none());
        assert!(missing.to_string().contains("adduser") && !is_fine(&missing), "{missing}");
        for (file, line, taken) in [
            (0, "joe:x:1879080943:7::/:/bin/sh", true),
            (0, "xen-virtio-guest:x:1879048192:1879048192::/:/bin/sh", false),
            (0, "joe:x:1879080944:1879048200::/:/bin/sh", false),
            (1, "joe:x:1879048193:", true),
            (2, "joe:1879000000:65536", true),
            (2, "joe:100000:65536", false),
            (3, "joe:1879048193:1", true),
            (3, "joe:1879048193", false),
            (3, "joe:1:18446744073709551615", true),
        ] {
            let mut database = none();
            database[file] = format!("root:0:0\n\nnonsense\n{line}\n");
            let found = users(range(), &database);
            assert_eq!(!is_fine(&found), taken, "{line}: {found}");
            assert!(!taken || found.found.contains("joe's"), "{found}");
        }
    }

    #[test]
    fn controllers_that_are_missing_are_named() {
        for delegated in [false, true] {
            assert!(is_fine(&cgroup(delegated, Some("cpuset cpu io memory pids\n"))));
        }
        let missing = cgroup(false, Some("cpuset cpu io pids\n"));
        assert!(!is_fine(&missing) && missing.found.contains("controller memory:"), "{missing}");
        assert!(cgroup(false, None).found.contains("no cgroup v2"));
    }
}
