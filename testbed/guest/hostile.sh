# A hostile driver in place of the kernel's. Of the environment: GROUPS, those of `hostile list` with
# commas between them; all, if none is named.
for device in /sys/bus/platform/drivers/virtio-mmio/*.virtio*; do
    echo "${device##*/}" >/sys/bus/platform/drivers/virtio-mmio/unbind || exit 1
done
echo "%% actions listed $(hostile list | wc -l)"
hostile write || exit 1
echo "%% hostile ready"
sleep 8
status=0
hostile run $(echo "${GROUPS:-}" | tr , ' ') || status=1
case ${GROUPS:-read-only} in
*read-only*) hostile --base 0x2000200 run read-only || status=1 ;;
esac
echo "%% hostile done"
[ "$status" = 0 ]
