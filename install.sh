#!/bin/sh
# Installs drain, upgrades it, takes it away; or shows, tests or measures it. Safe to run again at any time.
#
# This file has what all places share. systemd/steps.sh (Debian and its kin) and
# termux/steps.sh have the steps of theirs: for each step NAME do_NAME and undo_NAME, which
# look before they change anything, and what is said of it, words_NAME.
#
# shellcheck disable=SC2034,SC2317 # what is said of a step is read, and steps are called, by their names
set -eu
# What is installed is for others to read, whatever the person's own files are.
umask 022

# They would lead to another folder, to another project's modules, or pip somewhere else.
unset CDPATH PYTHONHOME PYTHONPATH PIP_NO_COMPILE PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_DRY_RUN PIP_REQUIRE_VIRTUALENV

usage() {
    cat >&2 <<'END'
usage: ./install.sh demo          show the main job with embedded servers
       ./install.sh test [ARG...] install what the tests need and run every check;
                                  the arguments go to pytest
       ./install.sh bench [ARG...] measure what it costs, in some ten minutes;
                                  the arguments go to python -m bench

       ./install.sh               install drain, or mend or upgrade what is installed
       ./install.sh upgrade       the same, without questions; what is not installed stays so
       ./install.sh uninstall     take the program away; keys, settings and ledger stay
       ./install.sh uninstall --purge   these too, after a typed word

options of install:
       --yes            ask nothing
       --answers FILE   answers, NAME=value: settings of drain, DRAIN_MAIL_SERVER, DRAIN_START
       --restore FILE   put this backup back first, on a new machine
       --dry-run        say every step, and change nothing

demo, test and bench write to this folder alone, to .venv/ and worker/node_modules/, and to temporary
folders. Debian packages that are missing are installed if this runs as root; anyone else is told the command.
END
    exit 64
}

# fail CODE WORD...: the codes are those of sysexits.h.
fail() {
    code=$1
    shift
    printf 'install.sh: %s\n' "$*" >&2
    exit "$code"
}

say() { printf '%s\n' "$*"; }

# Runs a command whose words matter only where it fails.
quietly() {
    # Without our lock, here and below: a server that is started would keep it for ever.
    words=$("$@" 2>&1 9>&-) || {
        code=$?
        printf '%s\n' "$words" >&2
        return "$code"
    }
}

# Runs a command that changes something, or with --dry-run says it.
run() {
    if [ -n "$dry" ]; then
        printf '      would run:'
        printf ' %s' "$@"
        echo
    else
        quietly "$@"
    fi
}

# The same for a command whose words are for the person.
told() {
    if [ -n "$dry" ]; then run "$@"; else "$@" 9>&-; fi
}

# put SOURCE TARGET MODE: a file that is whole or as it was; `changed` says whether it was another.
put() {
    if cmp -s "$1" "$2" && [ "$(stat -c %a "$2")" = "$3" ]; then return; fi
    changed=yes
    if [ -n "$dry" ]; then
        echo "      would write: $2"
        return
    fi
    mkdir -p "$(dirname "$2")" 2>/dev/null || fail 73 "cannot make $(dirname "$2")."
    rm -f "$2.new"
    { cp "$1" "$2.new" && chmod "$3" "$2.new" && mv -f "$2.new" "$2"; } 2>/dev/null || {
        rm -f "$2.new"
        fail 73 "cannot write $2."
    }
}

# --- Debian packages

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# Debian packages, for root; for anyone else the sentence that names the command.
packages() {
    if [ -n "$dry" ]; then
        run apt-get install "$@"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        as_root='su - -c'
        if command -v sudo >/dev/null; then as_root='sudo sh -c'; fi
        fail 69 "missing here: $*. Run: $as_root 'apt-get update && apt-get install --no-install-recommends $*'"
    fi
    command -v apt-get >/dev/null || fail 69 "missing here: $*, and there is no apt-get to install them with."
    echo "Installing $* ..." >&2
    # A fresh machine has no package lists and an old one stale ones; the others need no update.
    apt_install "$@" >/dev/null 2>&1 || {
        quietly apt-get update && quietly apt_install "$@"
    } || fail 69 "apt-get could not install $*; its words are above."
}

apt_install() {
    # The wait is for the upgrade that a fresh machine makes by itself.
    DEBIAN_FRONTEND=noninteractive \
        apt-get -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" </dev/null
}

not_too_old() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail 69 "drain needs Python 3.11 or newer, and python3 here is $(python3 -V 2>&1)."
}

needs_python() {
    command -v python3 >/dev/null || packages python3 python3-venv
    not_too_old
    # Debian leaves them out of its Python.
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
}

# pip_in VENV ARG...: pip with its failures as sentences.
pip_in() {
    venv=$1
    shift
    words=$("$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" 2>&1) || {
        case $words in
        *'after connection broken by'*) fail 69 "pip cannot reach its package index; is this machine online?" ;;
        *'HASHES'*) printf '%s\n' "$words" >&2
            fail 69 "what pip was given is not what requirements.txt names (its checksum is another); nothing was installed." ;;
        *'No space left on device'*) fail 73 "the disk is full: there is no room for drain in $venv." ;;
        esac
        printf '%s\n' "$words" >&2
        fail 69 "pip could not install what drain needs; its words are above."
    }
}

# --- Where this is

user() { id -un 2>/dev/null || :; } # the number, where it has no name

find_place() {
    init=none PLACE='' proot=''
    if [ -d /run/systemd/system ]; then init=systemd; fi # sd_booted(3)
    case ${PREFIX-} in
    */com.termux/*) if [ -x "$PREFIX/bin/pkg" ]; then PLACE=termux; fi ;;
    esac
    if [ -n "$PLACE" ]; then
        init=runit
        where="Termux. drain becomes a service of termux-services, started by Termux:Boot"
        DIR=$PREFIX/opt/drain BIN=$PREFIX/bin/drain
        STATE=$HOME/.local/state/drain BACKUPS=$HOME/.local/state/drain/backups ENV_FILE=$HOME/.config/drain/drain.env
    elif [ "$(id -u)" -eq 0 ]; then
        PLACE=system sudo='sudo '
        where="Debian or its kin, as root. drain gets a user of its own"
        DIR=/opt/drain BIN=/usr/local/bin/drain
        STATE=/var/lib/drain ENV_FILE=/etc/drain/drain.env
        # Not within what is drain's: root writes and deletes there.
        BACKUPS=/var/backups/drain
    else
        PLACE=own
        where="Debian or its kin, as $(user). drain becomes yours alone; as root it gets a user of its own"
        DIR=$HOME/.local/share/drain BIN=$HOME/.local/bin/drain
        STATE=$HOME/.local/state/drain BACKUPS=$HOME/.local/state/drain/backups ENV_FILE=$HOME/.config/drain/drain.env
        # Not everybody who is logged in has a manager: after su, or within a container.
        if ! systemctl --user show-environment >/dev/null 2>&1; then init=none; fi
    fi
    if [ "$PLACE" = system ] && [ "$init" = none ] && [ -d /data/data/com.termux/files/usr ]; then proot=yes; fi
    case $PLACE:$init in
    termux:*) ;;
    *:systemd) where="$where, and is started by systemd." ;;
    *) where="$where. There is no systemd here." ;;
    esac
    PROGRAM=$DIR/current/bin/drain
    export DRAIN_ENV_FILE="$ENV_FILE"
}

# --- Answers

# One line of a file of answers, without quotes; none of ours has any.
answered_in() {
    [ -r "$1" ] || return 0
    sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$2=//p" "$1" | tail -n 1 | tr -d "\"'" | sed 's/[[:space:]].*//'
}

# choose NAME DEFAULT 'ONE TWO' EXPLANATION: sets NAME from the environment, the file of answers, an
# earlier installation, the person, or the default.
choose() {
    eval "found=\${$1-}"
    if [ -z "$found" ] && [ -n "$answers" ]; then found=$(answered_in "$answers" "$1"); fi
    if [ -z "$found" ]; then
        found=$(answered_in "$DIR/answers" "$1")
        # Given in other circumstances: from another session, or before systemd came.
        case " $3 " in
        *" $found "*) ;;
        *) found= ;;
        esac
    fi
    if [ -z "$found" ] && [ -z "$yes" ] && [ -t 0 ]; then
        printf '\n%s\n' "$4"
        while :; do
            printf '%s (%s) [%s]: ' "$1" "$3" "$2"
            read -r found || fail 75 "nothing was changed: there was no answer."
            case " $3 " in
            *" ${found:-$2} "*) break ;;
            esac
        done
    fi
    found=${found:-$2}
    case " $3 " in
    *" $found "*) ;;
    *) fail 64 "$1 is $found, and has to be one of: $3." ;;
    esac
    eval "$1=\$found"
}

# note FILE LINE...: a file of ours, whole or as it was.
note() {
    target=$1
    shift
    if [ "$(cat "$target" 2>/dev/null)" = "$(printf '%s\n' "$@")" ]; then return; fi
    { printf '%s\n' "$@" >"$target.new" && mv -f "$target.new" "$target"; } 2>/dev/null || {
        rm -f "$target.new"
        fail 73 "cannot write $target."
    }
}

# --- The steps that all places share

# What makes a version what it is; with the Python, since an environment does not outlive it.
version() {
    sed -n 's/^__version__ = "\(.*\)"$/\1/p' drain/__init__.py | tr -d '\n'
    printf -- '-'
    {
        find drain -type f ! -name '*.pyc' -exec cksum {} + | LC_ALL=C sort
        cat requirements.txt pyproject.toml
        python3 -c 'import sys; print(sys.version)'
    } | cksum | cut -d ' ' -f 1
}

in_use() { readlink "$DIR/current" 2>/dev/null || :; }

words_program='the program'
do_program() {
    needs_python
    name=$(version)
    new=$DIR/versions/$name
    if ! [ -e "$new/complete" ]; then
        run mkdir -p "$DIR/versions" || fail 73 "cannot make $DIR."
        run rm -rf "$new" # what an interrupted run left
        half=$new
        make_environment "$new"
        run touch "$new/complete" || fail 73 "cannot write $new."
        half=
    fi
    put README.md "$DIR/README.md" 644
    put systemd/alert.sh "$DIR/systemd/alert.sh" 755
    put termux/alert.sh "$DIR/termux/alert.sh" 755
    if [ "$(in_use)" != "versions/$name" ] || [ -e "$DIR/unfinished" ]; then switch_to "versions/$name"; fi
}

make_environment() {
    if [ -n "$dry" ]; then
        echo "      would make: $1, with what requirements.txt names, and drain"
        return
    fi
    site='' until=''
    if [ "$PLACE" = termux ]; then
        # What is compiled comes from Termux's packages: pip would need a compiler for it.
        site=--system-site-packages until='/^# compiled/q'
    fi
    # shellcheck disable=SC2086 # none, or one word
    words=$(python3 -m venv $site --without-pip "$1" 2>&1 && "$1/bin/python" -m ensurepip --default-pip 2>&1) || {
        case $words in *'No space left on device'*) fail 73 "the disk is full: there is no room for drain in $1." ;; esac
        fail 73 "cannot make $1: $(printf '%s\n' "$words" | tail -n 1)"
    }
    { sed '/^# needed/q' requirements.txt >"$1/builds" && sed "$until" requirements.txt >"$1/needed"; } ||
        fail 73 "cannot write $1."
    # First what builds: pip by itself would fetch that without a checksum.
    pip_in "$1" install --require-hashes --no-deps --only-binary :all: --requirement "$1/builds"
    # Debian 12's pip would run setup.py otherwise.
    pip_in "$1" install --require-hashes --no-deps --no-build-isolation --use-pep517 --requirement "$1/needed"
    # Built elsewhere: this folder stays as it is.
    pip_in "$1" install --no-build-isolation --no-deps .
    quietly "$1/bin/drain" --version || fail 70 "what was installed does not run; its words are above."
}

# switch_to NAME: from then on it is the one in use. One that was before makes a backup first, and is
# in use again if the new one cannot use what it wrote; meanwhile the file `unfinished` names it.
switch_to() {
    old=$(cat "$DIR/unfinished" 2>/dev/null || in_use)
    if [ -z "$old" ] || ! [ -e "$DIR/$old/complete" ] || ! [ -r "$ENV_FILE" ]; then
        link_to "$1"
        return
    fi
    [ -e "$BIN" ] || do_command
    # One that does not run any more (Python was upgraded) makes no backup either: then the new one does.
    able=$DIR/$old
    quietly "$able/bin/drain" --version 2>/dev/null || able=$DIR/$1
    if ! [ -e "$DIR/unfinished" ]; then back_up "$able" "${1#versions/}"; fi
    stopped=yes restart=yes
    stop_drain
    if [ -z "$dry" ]; then note "$DIR/unfinished" "$old"; fi
    link_to "$1"
    if ! run "$BIN" ledger migrate; then
        link_to "$old"
        run rm -f "$DIR/unfinished"
        fail 70 "the new version cannot use what the old one wrote: the old one is in use again. Backup: $BACKUPS"
    fi
    run rm -f "$DIR/unfinished"
    forget_old "${old#versions/}" "${1#versions/}"
}

# The newest three stay. They hold passwords.
back_up() {
    kept=$BACKUPS/before-$2-$(date +%Y%m%dT%H%M%S).tar code=0
    say "      backup: $kept"
    run mkdir -p -m 700 "$BACKUPS"
    run "$1/bin/drain" backup "$kept" || code=$?
    case $code in
    0 | 66) ;; # 66: it lacks a file that drain.env names, and says which
    *) fail 75 "the backup before the upgrade failed, so nothing was changed. Mend that and try again." ;;
    esac
    # shellcheck disable=SC2010 # names of ours
    ls -1t "$BACKUPS" 2>/dev/null | grep '^before-.*\.tar$' | tail -n +4 |
        while read -r one; do run rm -f "$BACKUPS/$one"; done
}

# A link changed by rename: there is one at any moment.
link_to() {
    run ln -sfn "$1" "$DIR/current.new"
    run mv -fT "$DIR/current.new" "$DIR/current" || fail 73 "cannot write $DIR/current."
}

# The one before stays, for a way back.
forget_old() {
    for one in "$DIR/versions"/*; do
        case ${one##*/} in
        "$1" | "$2") ;;
        *) run rm -rf "$one" ;;
        esac
    done
}

undo_program() {
    run rm -rf "$DIR"
}

do_settings() {
    if [ -n "$backup" ] && ! [ -e "$ENV_FILE" ]; then
        # shellcheck disable=SC2086 # several words, or none
        told env $init_environment "$BIN" restore --yes "$backup" ||
            fail $? "the backup could not be put back; the sentence is above."
    fi
    set -- init --no-doctor
    if [ -n "$answers" ]; then set -- "$@" --answers "$answers"; fi
    if [ -n "$yes" ]; then set -- "$@" --yes; fi
    # shellcheck disable=SC2086 # several words, or none
    told env $init_environment "$BIN" "$@" ||
        fail $? "the settings are not finished; the sentence is above. ${sudo}./install.sh goes on from here."
}

settings_sum() { cksum "$ENV_FILE" 2>/dev/null || :; }

undo_settings() {
    if [ -z "$purge" ]; then
        say "      kept: $(dirname "$ENV_FILE") (settings and keys) and $STATE (ledger, mail that waits to be sent)"
    else
        run rm -rf "$(dirname "$ENV_FILE")" "$STATE" "$BACKUPS"
        if [ "$PLACE" = system ]; then run find /etc/credstore -maxdepth 1 -name 'drain.*' -delete; fi
    fi
}

do_server() {
    if [ "$word" = upgrade ]; then
        say "      left as it is"
        return
    fi
    case $DRAIN_MAIL_SERVER in
    none) say "      none: INJECT_HOST, INJECT_PORT, INJECT_USER and INJECT_PASS name the one that is there." ;;
    *)
        set -- setup "$DRAIN_MAIL_SERVER"
        if [ -n "$yes" ]; then set -- "$@" --yes; fi
        if [ -n "$proot_name" ]; then set -- "$@" --proot "$proot_name"; fi
        told "$BIN" "$@" ||
            fail $? "the mail server is not ready; the sentence is above. ${sudo}./install.sh goes on from here."
        ;;
    esac
}

undo_server() {
    if [ "$DRAIN_MAIL_SERVER" != none ]; then
        say "      kept: $DRAIN_MAIL_SERVER, its configuration and its mailboxes"
    fi
}

do_doctor() {
    code=0
    told "$BIN" doctor || code=$?
    case $dry$code in
    yes0) ;;
    0) say "Everything is as it should be." ;;
    1) say "Look at the lines with ! and ?: some cannot be known here, the others say what to do." ;;
    *) say "Do what the lines with x say; then: ${sudo}drain doctor" ;;
    esac
}

undo_doctor() { :; }

# Whether drain has all settings that it needs to start; else says what it lacks.
settings_complete() {
    if [ -z "$dry" ] && ! words=$("$BIN" config 2>&1 >/dev/null); then
        say "      Not started yet: $(printf '%s\n' "$words" | tail -n 1 | sed 's/^drain: //')"
        say "      Then once more: ${sudo}./install.sh"
        return 1
    fi
    stopped=
    [ "$before" = "$(settings_sum)" ] || restart=yes
}

# --- The words

steps() {
    total=0 number=0
    for name in $STEPS; do total=$((total + 1)); done
    for name in $STEPS; do
        number=$((number + 1))
        eval "words=\$words_$name"
        say "[$number/$total] $words"
        "$1_$name"
    done
}

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --yes) yes=yes ;;
        --dry-run) dry=yes ;;
        --purge) purge=yes ;;
        --answers)
            [ $# -gt 1 ] || usage
            shift
            answers=$(absolute "$1")
            ;;
        --restore)
            [ $# -gt 1 ] || usage
            shift
            backup=$(absolute "$1")
            ;;
        *) usage ;;
        esac
        shift
    done
    for file in "$answers" "$backup"; do
        [ -z "$file" ] || [ -r "$file" ] || fail 66 "$file cannot be read."
    done
}

# A path as it was meant where this was called.
absolute() {
    case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s' "$from/$1" ;;
    esac
}

# A second one would be in the way of this one. Without flock(1) there is nobody to ask.
alone() {
    if [ -n "$dry" ] || ! command -v flock >/dev/null; then return; fi
    # Asked before: a failed exec would end this without a word.
    (mkdir -p "$DIR" && : >>"$DIR/lock") 2>/dev/null || fail 73 "cannot write to $DIR."
    exec 9>>"$DIR/lock"
    flock -n 9 || fail 75 "another install.sh is at work; nothing was changed."
}

begin() {
    [ -n "${HOME-}" ] || fail 64 "HOME is not set."
    find_place
    case $PLACE in
    termux)
        # shellcheck source=termux/steps.sh
        . ./termux/steps.sh
        ;;
    *)
        # shellcheck source=systemd/steps.sh
        . ./systemd/steps.sh
        ;;
    esac
    say "This is $where"
}

# Whatever failed: the room is given back, and where drain was stopped mail goes on.
clear_up() {
    if [ -n "$half" ]; then rm -rf "$half"; fi
    if [ -n "$stopped" ]; then start_drain; fi
}

install_() {
    begin
    if [ -n "$proot" ]; then
        say "It is within Termux's proot. drain belongs outside, into Termux; the mail server may be in here:"
        say "run ./install.sh in Termux itself, with DRAIN_MAIL_SERVER=maddy."
        [ -n "$yes" ] || fail 64 "nothing was changed. --yes installs it in here all the same."
    fi
    if [ "$PLACE" = own ] && [ -e /opt/drain/current ] && [ -z "$yes" ]; then
        fail 64 "this machine has a drain already, in /opt/drain: sudo ./install.sh. Two on one bucket would share its mail."
    fi
    if command -v python3 >/dev/null; then not_too_old; fi
    questions
    alone
    before=$(settings_sum) restart=''
    # What pip would keep for another time is as large as what it installs.
    export PIP_NO_CACHE_DIR=1
    trap clear_up EXIT
    trap 'exit 75' HUP INT TERM
    if [ -z "$dry" ]; then note "$DIR/answers" "DRAIN_MAIL_SERVER=$DRAIN_MAIL_SERVER" "DRAIN_START=$DRAIN_START"; fi
    steps 'do'
    finish
}

upgrade_() {
    yes=yes
    find_place
    [ -e "$DIR/current" ] || fail 66 "there is no drain in $DIR to upgrade; ./install.sh installs it."
    install_
}

uninstall_() {
    begin
    if [ -n "$purge" ] && [ -z "$dry" ]; then
        say "This deletes $(dirname "$ENV_FILE") and $STATE too: the private keys, the settings, the ledger, the"
        say "backups of upgrades, and outgoing mail that was not sent yet. Mail that waits in the bucket can then not be read by anybody."
        printf 'Type "delete" to do so: '
        read -r word || word=
        [ "$word" = delete ] || fail 64 "nothing was changed."
    fi
    DRAIN_MAIL_SERVER=$(answered_in "$DIR/answers" DRAIN_MAIL_SERVER)
    DRAIN_MAIL_SERVER=${DRAIN_MAIL_SERVER:-none}
    backwards=
    for name in $STEPS; do backwards="$name $backwards"; done
    STEPS=$backwards
    alone
    steps 'undo'
    say "drain is uninstalled."
}

# A shell reads a script as it goes: an upgrade of this folder must not change one that runs.
main() {
    from=$PWD
    cd -- "$(dirname -- "$0")"
    # pip does without a cache that it cannot write; npm ends.
    if ! [ -w "${HOME:-/}" ]; then export npm_config_cache="$PWD/.venv/cache" PIP_NO_CACHE_DIR=1; fi

    yes='' dry='' purge='' answers='' backup='' proot_name='' init_environment='' sudo='' stopped='' half=''
    word=${1-install}
    case $word in
    --*) word=install ;;
    *) [ $# -eq 0 ] || shift ;;
    esac
    case $word in
    demo | test | bench)
        # shellcheck source=tests/environment.sh
        . ./tests/environment.sh
        "${word}_" "$@"
        ;;
    install | upgrade | uninstall)
        read_options "$@"
        "${word}_"
        ;;
    *) usage ;;
    esac
}

main "$@"; exit
