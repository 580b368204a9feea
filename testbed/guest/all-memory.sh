# Reads more than the guest's memory through the page cache, twice, so that all of it takes part in I/O, and
# verifies what was written before and between.
set -o pipefail
bio fill /dev/vda 9 8M --offset 32M >/dev/null || exit 1
for round in 1 2; do
    dd if=/dev/vda of=/dev/null bs=1M 2>/dev/null || exit 1
    echo "%% round $round"
    bio verify /dev/vda 9 8M --offset 32M >/dev/null || exit 1
    bio hammer /dev/vda --depth 32 --ops 200 --len 16M | sed 's/^/%% /' || exit 1
done
