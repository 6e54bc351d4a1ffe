# The steps of install.sh in Termux: packages of Termux's, services of termux-services (runit),
# and a script for the app Termux:Boot.
# shellcheck shell=sh disable=SC2034,SC2154 # what is said of a step is read by its name; install.sh sets the rest

STEPS='packages program command settings services server boot start doctor'
PACKAGES='python python-ensurepip-wheels python-cryptography termux-services termux-api'
DISTRIBUTION=debian
BOOT_SCRIPT=$HOME/.termux/boot/10-drain
# The first session after their installation has them not yet.
export SVDIR="$PREFIX/var/service" LOGDIR="$PREFIX/var/log"

if [ -z "${MAIL_ALERT_CMD-}" ] && [ -z "$(if [ -n "$answers" ]; then answered_in "$answers" MAIL_ALERT_CMD; fi)" ]; then
    init_environment="MAIL_ALERT_CMD=$DIR/termux/alert.sh"
fi

questions() {
    usual=none
    if has_debian; then usual=maddy; fi
    choose DRAIN_MAIL_SERVER $usual 'maddy none' \
        'Which mail server shall drain hand the mail to? maddy: Maddy in a Debian of proot-distro, which is set
up on loopback only; none: there is one already, or you set it up yourself.'
    choose DRAIN_START service 'service none' \
        'service: drain looks every minute, and takes outgoing mail; none: you start it yourself.'
    if [ "$DRAIN_MAIL_SERVER" = maddy ]; then proot_name=$DISTRIBUTION; fi
}

words_packages='what Termux has: Python, cryptography, termux-services, termux-api'
do_packages() {
    if ! all_packages; then
        say "      Installing ..."
        # Left to itself, dpkg asks what to do with a changed configuration file.
        # shellcheck disable=SC2086 # several words
        DEBIAN_FRONTEND=noninteractive run pkg install -y -o Dpkg::Options::=--force-confold $PACKAGES </dev/null ||
            fail 69 "pkg could not install $PACKAGES; its words are above. Is this phone online? Then: pkg upgrade"
        [ -n "$dry" ] || all_packages ||
            fail 69 "Termux's packages are too old for drain, or do not fit each other. First: pkg upgrade"
    fi
    if [ "$DRAIN_MAIL_SERVER" = maddy ]; then a_debian; fi
    if [ -n "$dry" ] && ! command -v python3 >/dev/null; then
        say "      What follows can be said once Python is here: pkg install python"
        exit
    fi
}
undo_packages() { say "      kept: packages of Termux, which others may need by now"; }

# As pyproject.toml wants them.
all_packages() {
    python3 - 2>/dev/null <<'END' || return 1
import sys, venv, ensurepip, cryptography
sys.exit(sys.version_info < (3, 11) or int(cryptography.__version__.split(".")[0]) < 47)
END
    for one in sv svlogd service-daemon termux-notification; do command -v "$one" >/dev/null || return 1; done
}

# Maddy within it is for the person to put there; `drain setup maddy` says how.
a_debian() {
    command -v proot-distro >/dev/null ||
        run pkg install -y proot-distro </dev/null ||
        fail 69 "pkg could not install proot-distro; its words are above."
    if ! has_debian; then
        say "      Installing a Debian ..."
        run proot-distro install "$DISTRIBUTION" </dev/null ||
            fail 69 "proot-distro could not install $DISTRIBUTION; its words are above."
    fi
}

# Where proot-distro has it: since 5.0, and before.
has_debian() {
    [ -d "$PREFIX/var/lib/proot-distro/containers/$DISTRIBUTION/rootfs" ] ||
        [ -d "$PREFIX/var/lib/proot-distro/installed-rootfs/$DISTRIBUTION" ]
}

words_command="the command $BIN"
do_command() { [ "$(readlink "$BIN")" = "$PROGRAM" ] || run ln -sfn "$PROGRAM" "$BIN"; }
undo_command() { run rm -f "$BIN"; }

words_settings="settings and keys, $ENV_FILE"
words_server='the mail server'

words_services="the service, $SVDIR/drain"
do_services() {
    changed=
    service drain run finish log/run
    restart=$restart$changed
    if [ "$DRAIN_MAIL_SERVER" = maddy ]; then
        service maddy run control/t
        # The next step starts it.
        supervise maddy
        run rm -f "$SVDIR/maddy/down"
    fi
}
undo_services() {
    # Out of runit's sight first, which would start it again.
    if [ -d "$SVDIR/drain" ]; then
        run touch "$SVDIR/drain/down"
        run mv "$SVDIR/drain" "$SVDIR/.drain"
    fi
    if supervised .drain; then run sv -w 20 force-shutdown "$SVDIR/.drain" || :; fi
    run rm -rf "$SVDIR/.drain"
    if [ -n "$purge" ]; then run rm -rf "$LOGDIR/sv/drain"; fi
}

# service NAME FILE...: runit sees it when it is whole, and does not start it yet.
service() {
    service=$1
    shift
    folder=$SVDIR/$service
    if ! [ -d "$folder/log" ]; then
        folder=$SVDIR/.$service
        run rm -rf "$folder" "$SVDIR/$service"
        put /dev/null "$folder/down" 600
        put termux/drain/log/run "$folder/log/run" 700
    fi
    for file; do put "termux/$service/$file" "$folder/$file" 700; done
    if [ "$folder" != "$SVDIR/$service" ]; then run mv "$folder" "$SVDIR/$service"; fi
}

words_boot="the start with the phone, $BOOT_SCRIPT"
do_boot() { put termux/boot/10-drain "$BOOT_SCRIPT" 700; }
undo_boot() { run rm -f "$BOOT_SCRIPT"; }

words_start='the start'
do_start() {
    if ! settings_complete; then return; fi
    if [ "$DRAIN_START" = none ]; then
        stop_drain
        put /dev/null "$SVDIR/drain/down" 600
        return
    fi
    run timeout -k 5 30 termux-wake-lock || say "      Android did not give Termux its wake lock; drain may sleep."
    supervise drain
    run rm -f "$SVDIR/drain/down"
    if [ -n "$restart" ]; then
        run sv -w 20 restart drain
    else
        run sv -w 20 start drain
    fi || fail 75 "drain did not start; $LOGDIR/sv/drain/current says why."
}
undo_start() { stop_drain; }

stop_drain() { if supervised drain; then run sv -w 20 stop drain || :; fi; }
start_drain() { if supervised drain && ! [ -e "$SVDIR/drain/down" ]; then run sv up drain || :; fi; }

supervised() { sv status "$SVDIR/$1" >/dev/null 2>&1; }

# Until runit looks after the service: it looks for new ones every 5 s (runsvdir(8)).
supervise() {
    if [ -n "$dry" ]; then
        run service-daemon start
        return
    fi
    # It fails where it runs already.
    if ! supervised "$1"; then service-daemon start >/dev/null 2>&1 || :; fi
    seconds=0
    until supervised "$1"; do
        [ $seconds -lt 15 ] || fail 75 "termux-services does not see its service $1. End Termux, open it again, and try again."
        seconds=$((seconds + 1))
        sleep 1
    done
}

words_doctor='the look at everything'

finish() {
    say ""
    say "By hand, once: install the apps Termux:Boot and Termux:API from where Termux is from, and open each once;"
    say "Android's settings: Apps, Termux, Battery: Unrestricted. termux/README.md says why, and what else may help."
    say "What is left to do at Cloudflare and in the DNS: drain init --steps"
    say "How it is: sv status drain; its log: tail -f $LOGDIR/sv/drain/current"
}
