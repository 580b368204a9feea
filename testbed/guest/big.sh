# I/O from and to memory of the second RAM bank, at guest-physical 0x200000000 (xen/include/public/arch-arm.h).
set -o pipefail
grep -i 'system ram' /proc/iomem | sed 's/^/%% /'
bank=0x200000000
bio fill /dev/vda 5 4M --offset 16M --above $bank | sed 's/^/%% /' || exit 1
bio verify /dev/vda 5 4M --offset 16M --above $bank | sed 's/^/%% /' || exit 1
bio hammer /dev/vda --depth 8 --ops 100 --len 8M | sed 's/^/%% /' || exit 1
