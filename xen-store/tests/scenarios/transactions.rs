//! Transactions.

use xen_store::{Access, Perm, Store, StoreExt};

use crate::{World, errno, event, events, next};

pub(crate) fn transactions(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    other.watch("/t", "t").unwrap();
    assert_eq!(next(&*other), event("/t", "t"));
    let tx = store.transaction_start().unwrap();
    store.write(Some(tx), "/t/a", b"1").unwrap();
    store.mkdir(Some(tx), "/t/b").unwrap();
    store.rm(Some(tx), "/t/b").unwrap();
    store.set_perms(Some(tx), "/t/a", &[Perm::new(3, Access::Read)]).unwrap();
    assert_eq!(store.read(Some(tx), "/t/a").unwrap(), b"1");
    assert_eq!(store.directory(Some(tx), "/t").unwrap(), ["a"]);
    assert_eq!(errno(other.read(None, "/t/a")), "ENOENT");
    assert_eq!(errno(other.read(Some(tx), "/t/a")), "ENOENT");
    assert_eq!(events(&*other), []);
    store.transaction_end(tx, true).unwrap();
    assert_eq!(other.read(None, "/t/a").unwrap(), b"1");
    assert_eq!(other.get_perms(None, "/t/a").unwrap(), [Perm::new(3, Access::Read)]);
    assert!(events(&*other).contains(&event("/t/a", "t")));
    assert_eq!(errno(store.transaction_end(tx, true)), "ENOENT");
    assert_eq!(errno(store.write(Some(tx), "/t/a", b"2")), "ENOENT");
    let tx = store.transaction_start().unwrap();
    store.write(Some(tx), "/t/a", b"2").unwrap();
    store.transaction_end(tx, false).unwrap();
    assert_eq!(other.read(None, "/t/a").unwrap(), b"1");
    assert_eq!(events(&*other), []);
}

pub(crate) fn transaction_conflicts(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.write(None, "/c/a", b"0").unwrap();
    store.write(None, "/c/gone", b"0").unwrap();
    store.write(None, "/c/deep/x", b"0").unwrap();
    type Step<'a> = &'a dyn Fn(&dyn Store, xen_store::TxId);
    let reads: Step<'_> = &|s, tx| drop(s.read(Some(tx), "/c/a"));
    let misses: Step<'_> = &|s, tx| drop(s.read(Some(tx), "/c/new"));
    let lists: Step<'_> = &|s, tx| drop(s.directory(Some(tx), "/c"));
    let writes: Step<'_> = &|s, tx| drop(s.write(Some(tx), "/c/a", b"1"));
    let elsewhere: Step<'_> = &|s, tx| drop(s.write(Some(tx), "/elsewhere/x", b"1"));
    let conflicts = [
        (reads, "/c/a", true),
        (writes, "/c/a", true),
        (misses, "/c/new", true),
        (lists, "/c/fresh", true),
        (reads, "/c/other", false),
        (elsewhere, "/c/a", false),
    ];
    for (step, changed, conflict) in conflicts {
        let tx = store.transaction_start().unwrap();
        step(&*store, tx);
        other.write(None, changed, b"9").unwrap();
        let result = store.transaction_end(tx, true);
        assert_eq!(result.is_err(), conflict, "{changed}");
        assert!(!conflict || result.unwrap_err().is_again());
        assert_eq!(other.read(None, changed).unwrap(), b"9");
    }
    // What a transaction did itself is no conflict.
    let tx = store.transaction_start().unwrap();
    store.rm(Some(tx), "/c/gone").unwrap();
    assert!(!store.exists(Some(tx), "/c/gone").unwrap());
    store.rm(Some(tx), "/c/deep").unwrap();
    assert!(!store.exists(Some(tx), "/c/deep/x").unwrap());
    store.directory(Some(tx), "/c").unwrap();
    store.write(Some(tx), "/c/gone/a", b"").unwrap();
    store.read(Some(tx), "/c/gone/a").unwrap();
    store.transaction_end(tx, true).unwrap();
    assert!(store.exists(None, "/c/gone/a").unwrap());
}

pub(crate) fn transaction_helper(world: &World) {
    let (store, other) = (world.client(0), world.client(0));
    store.write(None, "/h/n", b"1").unwrap();
    let mut runs = 0;
    let result = store.transaction(|tx| {
        runs += 1;
        let value = store.read(Some(tx), "/h/n")?;
        if runs <= 3 {
            other.write(None, "/h/n", &[b'a' + runs])?;
        }
        store.write(Some(tx), "/h/seen", &value)?;
        Ok(value)
    });
    assert_eq!((result.unwrap(), runs), (b"d".to_vec(), 4));
    assert_eq!(other.read(None, "/h/seen").unwrap(), b"d");

    let mut runs = 0_u32;
    let result = store.transaction(|tx| {
        runs += 1;
        store.read(Some(tx), "/h/n")?;
        other.write(None, "/h/n", &runs.to_le_bytes())
    });
    assert!(result.unwrap_err().is_again());
    assert_eq!(runs, 32);

    let result = store.transaction(|tx| {
        store.write(Some(tx), "/h/never", b"")?;
        store.read(Some(tx), "/h/missing")
    });
    assert!(result.unwrap_err().is_not_found());
    assert!(!store.exists(None, "/h/never").unwrap());
}
