# The steps of install.sh on Debian and its kin: as root for the whole machine (PLACE=system), or
# for one person (PLACE=own); started by systemd, or where there is none by cron.
# shellcheck shell=sh

UNITS='drain.service drain-once.service drain.timer drain-relay.service drain-recipients.service
    drain-recipients.timer drain-failed@.service'
USER_UNITS='drain.service drain-once.service drain.timer drain-relay.service drain-failed@.service'
HARDENED='drain drain-once drain-relay drain-recipients'
SERVER_PACKAGES='postfix sasl2-bin libsasl2-modules'

if [ "$PLACE" = system ]; then
    STEPS='packages account program command settings server units start doctor'
    FROM=systemd/system UNIT_FOLDER=/etc/systemd/system
    # Units have theirs from systemd; who types `drain` has not.
    init_environment="STATE_DIR=$STATE RELAY_KEY_FILE=$(dirname "$ENV_FILE")/relay.key"
else
    STEPS='packages program command settings server units start doctor'
    FROM=systemd/user UNIT_FOLDER=$HOME/.config/systemd/user
    UNITS=$USER_UNITS HARDENED=''
fi

questions() {
    if [ "$PLACE" = own ]; then
        DRAIN_MAIL_SERVER=none # it needs root
    else
        usual=postfix
        if command -v maddy >/dev/null; then usual=maddy; fi
        choose DRAIN_MAIL_SERVER $usual 'postfix maddy none' \
            'Which mail server shall drain hand the mail to? It is set up on loopback only. Postfix comes from
Debian, Maddy you have installed before; none: there is one already, or you set it up yourself.'
    fi
    if [ "$init" = systemd ]; then
        choose DRAIN_START service 'service timer none' \
            'service: drain looks every minute, and takes outgoing mail; timer: a pass every few minutes, and
nothing in memory between; none: you start it yourself.'
    else
        choose DRAIN_START cron 'cron none' \
            'cron: a pass every minute; none: you start it yourself (drain run).'
    fi
}

manager() {
    if [ "$PLACE" = system ]; then run systemctl "$@"; else run systemctl --user "$@"; fi
}

words_packages="what Debian has: Python$(if [ "$PLACE" = system ]; then echo ', the mail server'; fi)"
do_packages() {
    needed=
    case $DRAIN_MAIL_SERVER in
    maddy)
        command -v maddy >/dev/null ||
            fail 69 "Maddy is not here. Debian has no package of it: install it as https://maddy.email says, then again."
        ;;
    postfix)
        needed=$SERVER_PACKAGES
        # drain writes its configuration; without one it does not start.
        if [ -z "$dry" ] && ! installed postfix && command -v debconf-set-selections >/dev/null; then
            echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
        fi
        ;;
    esac
    # The processors of 32 bits: of cffi there is no wheel for them, and pip builds it.
    case $(uname -m):$(dpkg --print-architecture 2>/dev/null) in # the second: 32 bits on a kernel of 64
    armv6*) fail 69 "this processor (armv6) is too old: the package cryptography has nothing for it. A Zero 2 will do." ;;
    *:armhf | arm*) needed="$needed gcc libc6-dev libffi-dev python3-dev" ;;
    esac
    missing=
    for package in $needed; do installed "$package" || missing="$missing $package"; done
    if [ -n "$missing" ] && [ -n "$dry" ]; then
        run apt-get install "$missing"
    elif [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # several words
        packages $missing
    fi
    if [ -z "$dry" ]; then needs_python; fi
}
undo_packages() { say "      kept: packages of Debian, which others may need by now"; }

words_account='a user drain, with /etc/drain and /var/lib/drain'
do_account() {
    for folder in "$STATE" "$(dirname "$ENV_FILE")"; do
        # systemd takes no link for a StateDirectory=, and --purge would leave what it points to.
        if [ -L "$folder" ]; then fail 78 "$folder is a link. Mount what it points to there (mount --bind), or move it."; fi
    done
    put systemd/system/sysusers.conf /etc/sysusers.d/drain.conf 644
    put systemd/system/tmpfiles.conf /etc/tmpfiles.d/drain.conf 644
    if command -v systemd-sysusers >/dev/null; then
        run systemd-sysusers drain.conf
        run systemd-tmpfiles --create drain.conf
    else
        getent passwd drain >/dev/null ||
            run useradd --system --user-group --home-dir "$STATE" --shell /usr/sbin/nologin drain
        run install -d -m 700 -o drain -g drain "$STATE"
        run install -d -m 750 -o root -g drain "$(dirname "$ENV_FILE")"
    fi
}
undo_account() {
    run rm -f /etc/sysusers.d/drain.conf /etc/tmpfiles.d/drain.conf
    if [ -n "$purge" ] && getent passwd drain >/dev/null; then run userdel drain; fi
}

words_command="the command $BIN"
do_command() {
    ours || fail 73 "$BIN is there already, and is not drain's. Move it away, then once more."
    if [ "$PLACE" = system ]; then
        put systemd/drain.sh "$BIN" 755
    else
        [ "$(readlink "$BIN")" = "$PROGRAM" ] || { run mkdir -p "$(dirname "$BIN")" && run ln -sfn "$PROGRAM" "$BIN"; }
        case ":$PATH:" in
        *:"$(dirname "$BIN")":*) ;;
        *) say "      It is not in your PATH: add $(dirname "$BIN") to it in ~/.profile." ;;
        esac
    fi
}
undo_command() { if ours; then run rm -f "$BIN"; fi; }

# Whether the command is drain's, or not there.
ours() {
    if [ "$PLACE" = own ]; then
        [ "$(readlink "$BIN")" = "$PROGRAM" ] || ! [ -e "$BIN" ]
    else
        ! [ -e "$BIN" ] || grep -qF "$DIR/current" "$BIN"
    fi
}

words_settings="settings and keys, $ENV_FILE"
words_server='the mail server'

words_units='what starts drain'
do_units() {
    changed=
    if [ "$init" = systemd ]; then
        for unit in $UNITS; do put "$FROM/$unit" "$UNIT_FOLDER/$unit" 644; done
        for service in $HARDENED; do
            put "$FROM/hardening.conf" "$UNIT_FOLDER/$service.service.d/hardening.conf" 644
        done
        if [ -n "$changed" ]; then manager daemon-reload; fi
        restart=$restart$changed
    elif [ "$DRAIN_START" = none ]; then
        no_cron
    elif [ "$PLACE" = system ]; then
        cron_of_the_machine
    else
        cron_of_a_person
    fi
}
undo_units() {
    for unit in $UNITS; do
        [ -e "$UNIT_FOLDER/$unit" ] || continue
        case $init:$unit in
        systemd:*@* | none:*) ;;
        *) manager disable --now "$unit" || : ;; # it is taken away all the same
        esac
        run rm -f "$UNIT_FOLDER/$unit"
    done
    for service in $HARDENED; do
        folder=$UNIT_FOLDER/$service.service.d
        [ -d "$folder" ] || continue
        run rm -f "$folder/hardening.conf"
        # What `systemctl edit` wrote is the person's, and stays.
        run rmdir --ignore-fail-on-non-empty "$folder"
    done
    if [ "$init" = systemd ]; then
        manager daemon-reload
        manager reset-failed 'drain*' || : # or those that failed are remembered
    fi
    no_cron
}

MARK='# drain: written by its install.sh'

cron_of_the_machine() {
    # Not by /etc/cron.d, which other packages make too. Some ways to become root leave sbin out.
    (PATH=$PATH:/usr/sbin:/sbin && command -v cron || command -v crond) >/dev/null ||
        fail 69 "there is neither systemd nor cron to start drain. DRAIN_START=none goes without."
    line="* * * * * drain DRAIN_ENV_FILE=$ENV_FILE $PROGRAM once --quiet"
    if [ -z "$dry" ]; then printf '%s\n%s\n' "$MARK" "$line" >"$DIR/cron"; fi
    put "$DIR/cron" /etc/cron.d/drain 644
}

cron_of_a_person() {
    command -v crontab >/dev/null || fail 69 "there is neither systemd nor cron to start drain. DRAIN_START=none goes without."
    # In a crontab % is a line end, and a quote ends where one begins.
    quoted=$(printf '%s' "$PROGRAM" | sed "s/'/'\\\\''/g; s/%/\\\\%/g")
    line="* * * * * '$quoted' once --quiet $MARK"
    if crontab -l 2>/dev/null | grep -qxF "$line"; then return; fi
    { crontab_of_others && echo "$line"; } | run crontab - || fail 69 "crontab did not take the line: $line"
}

no_cron() {
    if [ "$PLACE" = system ]; then
        run rm -f /etc/cron.d/drain
    elif crontab -l 2>/dev/null | grep -qF "$MARK"; then
        crontab_of_others | run crontab -
    fi
}

crontab_of_others() { crontab -l 2>/dev/null | grep -vF "$MARK" || :; }

words_start='the start'
do_start() {
    if ! settings_complete; then return; fi
    if [ "$init" != systemd ]; then return; fi
    case $DRAIN_START in
    service)
        manager disable --now drain.timer
        # `drain run` takes outgoing mail beside its passes.
        if sends; then manager disable --now drain-relay.service; fi
        starts drain.service
        ;;
    timer)
        manager disable --now drain.service
        starts drain.timer
        if sends; then starts drain-relay.service; fi
        ;;
    none) manager disable --now drain.service drain.timer ;;
    esac
    if [ "$PLACE" = own ]; then linger; fi
}
undo_start() { stop_drain; }

starts() {
    manager enable "$1" || fail 75 "$1 cannot be enabled; systemd's words are above."
    if [ -n "$restart" ]; then
        manager restart "$1"
    else
        manager start "$1"
    fi || fail 75 "$1 did not start; \`journalctl -u $1 -e\` says why."
}

sends() { "$BIN" config 2>/dev/null | grep -qix 'RELAY_ENABLED=true'; }

linger() {
    [ "$(loginctl show-user --property=Linger "$(user)" 2>/dev/null)" != Linger=yes ] || return 0
    run loginctl enable-linger ||
        say "      It ends when you log out, and does not start with the machine: sudo loginctl enable-linger $(user)"
}

stop_drain() {
    if [ "$init" != systemd ]; then return; fi
    for unit in drain.timer drain.service drain-once.service drain-relay.service; do
        [ ! -e "$UNIT_FOLDER/$unit" ] || manager stop "$unit" || :
    done
}

start_drain() {
    if [ "$init" != systemd ]; then return; fi
    for unit in drain.timer drain.service drain-relay.service; do
        if systemd_has_enabled "$unit"; then manager start "$unit" || :; fi
    done
}

systemd_has_enabled() {
    if [ "$PLACE" = system ]; then systemctl -q is-enabled "$1"; else systemctl --user -q is-enabled "$1"; fi 2>/dev/null
}

words_doctor='the look at everything'

finish() {
    say ""
    if [ "$PLACE" = own ]; then
        say "The mail server needs root: sudo env DRAIN_ENV_FILE='$ENV_FILE' '$PROGRAM' setup postfix (or maddy)"
        say "What is left to do at Cloudflare and in the DNS: drain init --steps"
    else
        say "What is left to do at Cloudflare and in the DNS: sudo drain init --steps"
    fi
}
