#!/bin/sh
# The command drain of the whole machine, installed as /usr/local/bin/drain. As root it becomes the user drain, so
# that nothing in the state folder is root's; anybody else is told to, but with DRAIN_ENV_FILE has settings of their own.
set -eu

program=/opt/drain/current/bin/drain
settings=/etc/drain state=/var/lib/drain credentials=/etc/credstore

case "$(id -un):${DRAIN_ENV_FILE:+own}:${1-}" in
root:*) ;;
drain:* | *:own:* | *:--version | *:--help | *:-h) exec "$program" "$@" ;;
*)
    printf 'drain: only root and the user drain may read its settings. Run: sudo drain %s\n' "$*" >&2
    exit 77
    ;;
esac

export DRAIN_ENV_FILE="${DRAIN_ENV_FILE:-$settings/drain.env}"
# The first word that is no option, as in `drain --json status`.
word=
for argument; do
    case $argument in -*) continue ;; esac
    word=$argument
    break
done
set -- "$program" "$@"
case $word in
# These read or write where only root may.
init | setup | keygen | backup | restore) ;;
*)
    word=
    # runuser leaves HOME as it was, and is where cron does not look.
    set -- runuser -u drain -- env HOME="$state" "$@"
    PATH="$PATH:/usr/sbin:/sbin"
    # On root's own terminal, the user drain could type for root. One of its own changes line ends, so only
    # a person gets that; what goes into a file or a pipe has none at all.
    if [ -t 0 ] && [ -t 1 ] && [ -t 2 ]; then
        shift
        set -- runuser --pty "$@"
    elif [ -t 0 ] || [ -t 1 ] || [ -t 2 ]; then
        set -- setsid -w "$@"
    fi
    ;;
esac

# Secrets that systemd hands to the units: here in a copy, for as long as this runs.
secrets=$(find "$credentials" -maxdepth 1 -name 'drain.*' 2>/dev/null || :)
if [ -z "$word$secrets" ]; then exec "$@"; fi
copy=
trap 'if [ -n "$copy" ]; then rm -rf "$copy"; fi' EXIT
trap 'exit 1' HUP INT TERM
if [ -n "$secrets" ]; then
    copy=$(mktemp -d /run/drain.XXXXXX)
    for secret in $secrets; do cp "$secret" "$copy/${secret##*/drain.}"; done
    chown -R drain: "$copy"
    export CREDENTIALS_DIRECTORY="$copy"
fi
code=0
"$@" || code=$?
case $word in
init | setup | keygen | restore)
    # Settings stay root's, and drain may read them; what is remembered is drain's, wherever STATE_DIR is.
    chown -Rh root:drain "$settings"
    chmod -R u=rwX,g=rX,o= "$settings"
    elsewhere=$("$program" config 2>/dev/null | sed -n 's/^STATE_DIR=//p' || :)
    for folder in "$state" "$elsewhere"; do
        # One that is not drain's may hold other people's things. With the dot also where it is a link.
        if [ -d "$folder" ] && [ "$(stat -c %U "$folder/.")" = drain ]; then chown -Rh drain: "$folder/."; fi
    done
    ;;
esac
exit "$code"
