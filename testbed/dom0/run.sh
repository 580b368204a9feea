# Runs the case: its verbs, then its script; a script that stops early is no pass.
. /testbed/lib.sh
. /testbed/case.sh
stop_streams
