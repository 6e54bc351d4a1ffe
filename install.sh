#!/bin/sh
# Shows or tests drain on Debian and its kin. Asks nothing; safe to run again.
set -eu

# They would lead to another folder and to another project's modules.
unset CDPATH PYTHONHOME PYTHONPATH

usage() {
    cat >&2 <<'END'
usage: ./install.sh demo          show the main job with embedded servers
       ./install.sh test [ARG...] install what the tests need and run every check;
                                  the arguments go to pytest

Both write to this folder alone: .venv/ and worker/node_modules/. Debian packages that
are missing are installed if this runs as root; anyone else is told the command.
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

# Debian packages, for root; for anyone else the sentence that names the command.
packages() {
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

# Packages with daemons, which start neither now nor when the machine does: the tests start
# their own. In a subshell, for its trap.
idle_packages() (
    if [ "$(id -u)" -ne 0 ]; then packages "$@"; fi
    policy=/usr/sbin/policy-rc.d
    if ! [ -e $policy ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        trap 'exit 1' HUP INT TERM
        # 101: forbidden (invoke-rc.d(8)).
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    # Without a configuration postfix never starts.
    case " $* " in
    *' postfix '*) echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections ;;
    esac
    # It comes with clamav-daemon, and would fetch hundreds of megabytes of signatures.
    installed clamav-freshclam ||
        echo 'clamav-freshclam clamav-freshclam/autoupdate_freshclam select manual' | debconf-set-selections
    packages "$@"
    for package; do
        case $package in
        clamav-daemon | nsd | spamd) quietly update-rc.d "$package" disable ;;
        dovecot-imapd) quietly update-rc.d dovecot disable ;;
        esac
    done
)

installed() {
    dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed
}

# Runs a command whose words matter only where it fails.
quietly() {
    words=$("$@" 2>&1) || {
        code=$?
        printf '%s\n' "$words" >&2
        return "$code"
    }
}

# environment WORD PIP_ARG...: .venv/ with the project and what the word needs.
environment() {
    word=$1
    shift
    # The mark is made last, so what an interrupted run left has none.
    if [ "$(cat ".venv/ready-to-$word" 2>/dev/null)" = "$(inputs)" ]; then return; fi

    command -v python3 >/dev/null || packages python3 python3-venv
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail 69 "drain needs Python 3.11 or newer, and python3 here is $(python3 -V 2>&1)."
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv

    echo "Installing drain into $PWD/.venv ..." >&2
    words=$(python3 -m venv --clear .venv 2>&1) ||
        fail 73 "cannot make $PWD/.venv: $(printf '%s\n' "$words" | tail -n 1)"
    # Debian's pip knows neither --group nor --build-constraint.
    pip install --upgrade pip
    # Editable: a change in drain/ needs no installation.
    pip install --build-constraint tests/constraints.txt --editable . "$@"
    inputs | tee .venv/ready-to-demo >".venv/ready-to-$word"
}

inputs() {
    {
        cat pyproject.toml tests/constraints.txt
        # A virtual environment outlives neither its folder nor its Python.
        pwd
        .venv/bin/python -V
    } 2>&1 | cksum
}

pip() {
    words=$(.venv/bin/python -m pip "$@" --constraint tests/constraints.txt 2>&1) || {
        case $words in
        *'after connection broken by'*) fail 69 "pip cannot reach its package index; is this machine online?" ;;
        esac
        printf '%s\n' "$words" >&2
        fail 69 "pip could not install what drain needs; its words are above."
    }
}

# Cloudflare's simulator of R2, with a Node of its own.
simulator() {
    inputs=$(cat package.json package-lock.json | cksum)
    # npm begins by removing node_modules/, and with it the mark of an earlier time.
    if [ "$(cat node_modules/ready 2>/dev/null)" = "$inputs" ]; then return; fi
    echo "Installing the R2 simulator into $PWD/node_modules ..." >&2
    # npm 9, Debian 12's, clears node_modules/.bin/node away with the packages for other
    # machines, which have a command of that name too; rebuild puts it back.
    { quietly npm ci --ignore-scripts --no-audit --no-fund && quietly npm rebuild --ignore-scripts; } ||
        fail 69 "npm could not install the R2 simulator; its words are above."
    echo "$inputs" >node_modules/ready
}

demo() {
    environment demo
    exec .venv/bin/drain demo
}

test_() {
    environment test --group test --group lint
    missing=
    for package in postfix sasl2-bin libsasl2-modules swaks shellcheck spamassassin spamd spamc clamav-daemon nsd \
        dovecot-imapd; do
        installed "$package" || missing="$missing $package"
    done
    # By its command, since it also comes with Node's own packages.
    command -v npm >/dev/null || missing="$missing npm"
    # By its commands, since Ubuntu has it as a snap only and Chrome in its place.
    command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$missing chromium"
    # shellcheck disable=SC2086 # several words
    if [ -n "$missing" ]; then idle_packages $missing; fi
    (cd worker && simulator)

    .venv/bin/ruff check
    .venv/bin/ruff format --check
    .venv/bin/mypy
    shellcheck install.sh .ci/run systemd/*.sh termux/*.sh
    exec .venv/bin/python -m pytest "$@"
}

cd -- "$(dirname -- "$0")"
# pip does without a cache that it cannot write; npm ends.
if ! [ -w "${HOME:-/}" ]; then export npm_config_cache="$PWD/.venv/cache" PIP_NO_CACHE_DIR=1; fi

case ${1-} in
demo) demo ;;
test) shift && test_ "$@" ;;
*) usage ;;
esac
