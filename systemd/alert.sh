#!/bin/sh
# Writes each alert into the journal, with its priority, and on the terminals of who is logged in. In drain.env:
#
#     MAIL_ALERT_CMD=/opt/drain/systemd/alert.sh
#
# To see them: journalctl -t drain-alert
set -u

message=${MAIL_ALERT_MSG:-drain has an alert.}
case "${MAIL_ALERT_STATE:-on}" in
    over) priority=notice ;;
    *) priority=err ;;
esac

# Nobody may be logged in, and a unit may forbid it.
if command -v wall >/dev/null 2>&1; then
    printf '%s\n' "$message" | timeout -k 1 5 wall >/dev/null 2>&1
fi
printf '%s\n' "$message" | timeout -k 1 10 systemd-cat -t drain-alert -p "$priority"
