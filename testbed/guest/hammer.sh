# THREADS threads with DEPTH requests each in flight, OPS requests each, all verified.
echo "%% cpus $(nproc)"
set -o pipefail
bio hammer /dev/vda --threads "$THREADS" --depth "$DEPTH" --ops "$OPS" --len 16M | sed 's/^/%% /'
