#!/data/data/com.termux/files/usr/bin/sh
# Shows each alert as an Android notification. In drain.env:
#
#     MAIL_ALERT_CMD=/data/data/com.termux/files/usr/opt/drain/termux/alert.sh
#
# Wants the app Termux:API (from where Termux is from), and its commands: pkg install termux-api
#
# An alert takes the place of the one before it of the same kind; so the last that is seen says how things are.
set -u

tell=termux-notification
if ! command -v "$tell" >/dev/null 2>&1; then
    echo "$tell is not here: pkg install termux-api, and install the app Termux:API." >&2
    exit 127
fi

case "${MAIL_ALERT_STATE:-on}" in
    over) state=': over' priority=low ;;
    again) state=': still so' priority=default ;;
    *) state='' priority=high ;;
esac
kind="${MAIL_ALERT_KIND:-alert}${MAIL_ALERT_SUBJECT:+ $MAIL_ALERT_SUBJECT}"
# The id is the same for the whole life of an alert.
id="drain-$(printf '%s' "$kind" | tr -c 'A-Za-z0-9' '-')"

# Without the app it waits for ever. `timeout` ends also what it has started.
printf '%s\n' "${MAIL_ALERT_MSG:-drain has an alert.}" |
    timeout -k 2 10 "$tell" --id "$id" --group drain --title "drain: $kind$state" --priority "$priority"
code=$?
if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
    echo "$tell did not answer: is the app Termux:API installed, and may it show notifications?" >&2
fi
exit "$code"
