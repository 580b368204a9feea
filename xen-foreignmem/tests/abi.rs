//! The layouts and numbers against Xen's and Linux's headers, through the C compiler.
#![cfg(not(miri))]

use std::mem::{offset_of, size_of};

use c_headers::Headers;
use xen_foreignmem::{Layout, RESOURCE_GRANT_TABLE, RESOURCE_IOREQ_SERVER};

#[allow(dead_code)]
#[path = "../src/sys.rs"]
mod sys;

/// libxen-dev has privcmd.h as a program can include it, linux-libc-dev gntdev.h.
const HEADERS: Headers = Headers {
    prelude: "
#define __XEN_TOOLS__ 1
#include <stddef.h>
#include <sys/ioctl.h>
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/grant_table.h>
#include <linux/types.h>
#include <xen/sys/privcmd.h>
#include <xen/gntdev.h>
#define xen_mk_ullong(x) x ## ULL
",
    packages: "libxen-dev, linux-libc-dev and libc6-dev (Debian)",
};

fn check(definitions: &str, checks: &[(&str, u64)]) {
    HEADERS.compare_with(definitions, checks).unwrap_or_else(|error| panic!("{error}"));
}

/// The checks of a struct's size and of its fields' places.
macro_rules! layout {
    ($c:literal, $rust:ty, $($field_c:literal = $field:ident),+) => {
        [
            (concat!("sizeof(", $c, ")"), size_of::<$rust>() as u64),
            $((
                concat!("offsetof(", $c, ", ", $field_c, ")"),
                offset_of!($rust, $field) as u64,
            )),+
        ]
    };
}

#[test]
fn ioctl_numbers() {
    let number = |number: u32| u64::from(number);
    check(
        "",
        &[
            ("IOCTL_PRIVCMD_MMAPBATCH_V2", number(sys::PRIVCMD_MMAPBATCH_V2)),
            ("IOCTL_PRIVCMD_RESTRICT", number(sys::PRIVCMD_RESTRICT)),
            ("IOCTL_PRIVCMD_MMAP_RESOURCE", number(sys::PRIVCMD_MMAP_RESOURCE)),
            ("IOCTL_GNTDEV_MAP_GRANT_REF", number(sys::GNTDEV_MAP_GRANT_REF)),
            ("IOCTL_GNTDEV_UNMAP_GRANT_REF", number(sys::GNTDEV_UNMAP_GRANT_REF)),
            ("IOCTL_GNTDEV_GRANT_COPY", number(sys::GNTDEV_GRANT_COPY)),
        ],
    );
}

#[test]
fn privcmd_structs() {
    check(
        "",
        &layout!(
            "struct privcmd_mmapbatch_v2",
            sys::MmapBatchV2,
            "num" = num,
            "dom" = dom,
            "addr" = addr,
            "arr" = arr,
            "err" = err
        ),
    );
    check(
        "",
        &layout!(
            "struct privcmd_mmap_resource",
            sys::MmapResource,
            "dom" = dom,
            "type" = resource_type,
            "id" = id,
            "idx" = idx,
            "num" = num,
            "addr" = addr
        ),
    );
}

#[test]
fn gntdev_structs() {
    check(
        "",
        &layout!(
            "struct ioctl_gntdev_unmap_grant_ref",
            sys::UnmapGrantRef,
            "index" = index,
            "count" = count
        ),
    );
    check(
        "",
        &layout!(
            "struct ioctl_gntdev_grant_copy",
            sys::GrantCopy,
            "count" = count,
            "segments" = segments
        ),
    );
    check(
        "",
        &layout!(
            "struct gntdev_grant_copy_segment",
            sys::GrantCopySegment,
            "source" = source,
            "dest" = dest,
            "len" = len,
            "flags" = flags,
            "status" = status
        ),
    );
    let words = sys::MAP_GRANT_REF_HEADER_WORDS * size_of::<u64>();
    check(
        "",
        &[
            ("offsetof(struct ioctl_gntdev_map_grant_ref, count)", 0),
            ("offsetof(struct ioctl_gntdev_map_grant_ref, index)", 8),
            ("offsetof(struct ioctl_gntdev_map_grant_ref, refs)", words as u64),
            ("sizeof(struct ioctl_gntdev_grant_ref)", 8),
        ],
    );
}

/// A field's shift in the word that a struct or union is to us.
const SHIFT: &str = "#define SHIFT(type, field) (8 * offsetof(type, field))\n";

#[test]
fn words_that_stand_for_structs() {
    let shift = |word: u64| u64::from(word.trailing_zeros());
    let word = |end: sys::CopyEnd| (u64::from(end.gref()), u64::from(end.offset()));
    assert_eq!(word(sys::CopyEnd::grant(7, 9).with_domid(3)), (7, 9));
    assert_eq!(size_of::<sys::CopyEnd>(), 8);
    check(
        SHIFT,
        &[
            ("SHIFT(struct ioctl_gntdev_grant_ref, domid)", shift(sys::grant_ref_word(1, 0))),
            ("SHIFT(struct ioctl_gntdev_grant_ref, ref)", shift(sys::grant_ref_word(0, 1))),
            ("SHIFT(struct gntdev_grant_copy_segment, source.virt)", 0),
            ("SHIFT(struct gntdev_grant_copy_segment, source.foreign.ref)", 0),
            ("SHIFT(struct gntdev_grant_copy_segment, source.foreign.offset)", 32),
            ("SHIFT(struct gntdev_grant_copy_segment, source.foreign.domid)", 48),
        ],
    );
}

#[test]
fn xens_constants() {
    check(
        "",
        &[
            ("XENMEM_resource_ioreq_server", RESOURCE_IOREQ_SERVER.into()),
            ("XENMEM_resource_grant_table", RESOURCE_GRANT_TABLE.into()),
            ("GNTCOPY_source_gref", sys::GNTCOPY_SOURCE_GREF.into()),
            ("GNTCOPY_dest_gref", sys::GNTCOPY_DEST_GREF.into()),
            ("GNTST_okay", 0),
            ("-GNTST_general_error", 1),
            ("-GNTST_bad_gntref", 3),
            ("-GNTST_bad_page", 9),
            ("sizeof(domid_t)", size_of::<xen_foreignmem::DomId>() as u64),
            ("sizeof(grant_ref_t)", 4),
        ],
    );
}

#[test]
fn an_arm_guests_ram_banks() {
    let path = "/usr/include/xen/arch-arm.h";
    let header = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{path}: {error}: install {}", HEADERS.packages));
    // On another architecture the header can't be included as a whole.
    let is_ram = |line: &&str| line.starts_with("#define GUEST_RAM");
    let banks: String = header.lines().filter(is_ram).flat_map(|line| [line, "\n"]).collect();
    let [low, high] = Layout::arm().banks().to_vec().try_into().expect("there are two");
    check(
        &banks,
        &[
            ("GUEST_RAM0_BASE", low.start),
            ("GUEST_RAM0_BASE + GUEST_RAM0_SIZE", low.end),
            ("GUEST_RAM1_BASE", high.start),
            ("GUEST_RAM1_BASE + GUEST_RAM1_SIZE", high.end),
        ],
    );
}
