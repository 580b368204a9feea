# Runs the case when dom0 is up, and shuts dom0 down. A case that exits early never gets to the closing line, which is
# end.sh's, and is no pass.
. /testbed/lib.sh
. /testbed/case.sh
stop_streams
systemctl poweroff
