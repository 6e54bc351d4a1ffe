# For `./install.sh demo`, `test` and `bench`, which read this file: .venv/ and worker/node_modules/.
# shellcheck shell=sh

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

# environment WORD PIP_ARG...: .venv/ with the project and what the word needs.
environment() {
    word=$1
    shift
    # The mark is made last, so what an interrupted run left has none.
    if [ "$(cat ".venv/ready-to-$word" 2>/dev/null)" = "$(inputs)" ]; then return; fi

    needs_python
    echo "Installing drain into $PWD/.venv ..." >&2
    words=$(python3 -m venv --clear .venv 2>&1) ||
        fail 73 "cannot make $PWD/.venv: $(printf '%s\n' "$words" | tail -n 1)"
    # Debian's pip knows neither --group nor --build-constraint.
    pip_in .venv install --constraint tests/constraints.txt --upgrade pip
    # Editable: a change in drain/ needs no installation.
    pip_in .venv install --constraint tests/constraints.txt --build-constraint tests/constraints.txt --editable . "$@"
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

demo_() {
    environment demo
    exec .venv/bin/drain demo
}

for_tests() {
    environment test --group test --group lint
}

# It needs none of the Debian packages.
bench_() {
    for_tests
    exec .venv/bin/python -m bench "$@"
}

test_() {
    for_tests
    missing=
    for package in postfix sasl2-bin libsasl2-modules swaks shellcheck spamassassin spamd spamc clamav-daemon nsd \
        dovecot-imapd systemd debootstrap systemd-container proot runit; do
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
    exec .venv/bin/python -m pytest "$@"
}
