# Runs the case: its verbs, then its script. A script that exits early never gets to the
# closing line, and is no pass.
. /testbed/lib.sh
. /testbed/case.sh
stop_streams
echo "@@ end"
