"""Maddy, set up for drain: its configuration, its logins and mailboxes, its start; also in Termux' proot.

What stands in ``maddy.conf`` already about folders and ports on 127.0.0.1 is kept. What
has passwords in it, the way out, is in a file of its own beside it.
"""

import datetime
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from drain import config as configuration
from drain.errors import ConfigError
from drain.setup import certificate, maddy_former, maddy_program, relay_login, template
from drain.setup.changes import File, pending
from drain.setup.maddy_people import LONGEST_PASSWORD, People
from drain.setup.maddy_program import Maddy
from drain.setup.maddy_service import Service, older
from drain.setup.plan import Plan, Relay, Smarthost, as_owner
from drain.setup.wanted import Step, Wanted
from drain.text import clean

# None below 1024: in Termux nobody may listen there.
IMAP_PORT = 9143
LMTP_PORT = 9124
SUBMISSION_PORT = 9587
RELAY_USER = "maddy"
_OUTGOING = "drain-outgoing.conf"
_QUEUE = "outgoing"  # of maddy-smarthost.conf: its folder has its name
_SMARTHOST_CA = "smarthost-ca.pem"
_LARGEST = 1024 * 1024
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\n?")
_PLAIN = re.compile(r"[A-Za-z0-9/._@=+-]+")
_IMPOSSIBLE = re.compile(r'\\"|\\$|\{env:|\$\(|^[{}]?$|[^ -~\u00a1-\U0010ffff]')


def wanted(plan: Plan, environ: Mapping[str, str], proot: str = "", *, ask: bool = True) -> Wanted:
    """What Maddy shall be; changes nothing.

    *proot* is a distribution of proot-distro that it is in, or "". *ask*: on a terminal
    the person is asked for the passwords of mailboxes that nobody can log in to yet.

    Raises:
        ConfigError: Maddy is not there, or something that its configuration needs; or it cannot do
            what the plan has, or has now what would look gone then.
        Unavailable: it does not answer.
        WrongUse: *proot* can be no distribution.
    """
    _check(plan)
    maddy = maddy_program.find(_config(plan, environ), environ, proot)
    there = _read(maddy.config)
    way_out = _read(maddy.config.with_name(_OUTGOING))
    state = _folder("state_dir", there, maddy.state)
    ports = {
        "LMTP_PORT": _port("lmtp", there, LMTP_PORT),
        "IMAP_PORT": _port("imap", there, IMAP_PORT),
        "SUBMISSION_PORT": _port("submission", way_out, SUBMISSION_PORT),
    }
    runtime = _folder("runtime_dir", there, maddy.runtime)
    outgoing, before = _outgoing(plan, maddy, ports)
    main = _main(plan, maddy, {"STATE_DIR": state, "RUNTIME_DIR": runtime}, ports, outgoing=bool(outgoing))
    maddy_former.check_databases(there, main, state)
    queue = maddy.outside(state) / _QUEUE if isinstance(plan.outbound, Smarthost) else None
    maddy_former.check_queues(there + way_out, maddy.outside(state), queue)
    own = [*_certificate(plan, maddy), *outgoing, _private(maddy, maddy.config, main)]
    if maddy.owner:
        before += [_folder_step(maddy, folder) for folder in (state, runtime)]
    people = People(plan, maddy, state, ask)
    stale = bool(pending(own)) or older(maddy.outside(runtime), (file.path for file in own))
    service = Service(maddy, plan.port, stale)
    return Wanted(
        before=tuple(before),
        files=tuple(own),
        after=tuple(people.steps()),
        check=maddy.verify,
        settings={**plan.settings, "MADDY_CONFIG": str(maddy.config)},
        start=service.start,
        runs=service.runs,
        closing=(*_closing(plan, people, ports), *_left_over(plan, maddy)),
        listeners=_listeners(plan, ports),
    )


def _check(plan: Plan) -> None:
    for domain in plan.domains:
        if any(label.startswith("xn--") for label in domain.split(".")):
            # It looks mailboxes up by the U-label, and wants SMTPUTF8 then, which drain has no cause to say.
            raise ConfigError(
                f"Maddy cannot take mail for {clean(domain)}, a domain with letters outside ASCII.",
                "Use Postfix: `drain setup postfix`.",
            )
    if len(plan.password.reveal().encode()) > LONGEST_PASSWORD:
        raise ConfigError(
            f"INJECT_PASS has more than {LONGEST_PASSWORD} bytes, and Maddy takes no more.", "Make it shorter."
        )


# -- its files --


def _config(plan: Plan, environ: Mapping[str, str]) -> str:
    path = str(plan.env_file) if plan.env_file.exists() else os.devnull
    with as_owner(plan.env_file):
        return configuration.load({**environ, "DRAIN_ENV_FILE": path}, complete=False)[0].maddy_config


def _certificate(plan: Plan, maddy: Maddy) -> tuple[File, ...]:
    made = certificate.kept_or_made(*_pair(maddy), plan.hostname, datetime.datetime.now(datetime.UTC))
    group = maddy.owner[1] if maddy.owner else None
    if group is None:
        return made.files(*_pair(maddy), plan)
    return made.files(*_pair(maddy), plan, 0o640, (0, group))


def _pair(maddy: Maddy) -> tuple[Path, Path]:
    return maddy.config.with_name("certificate.pem"), maddy.config.with_name("certificate-key.pem")


def _private(maddy: Maddy, path: Path, content: str, *, secret: bool = False) -> File:
    """One of its files that nobody else need read."""
    owner = (0, maddy.owner[1]) if maddy.owner else None
    return File(path, content.encode(), 0o640 if owner else 0o600, owner, secret)


def _main(plan: Plan, maddy: Maddy, folders: Mapping[str, Path], ports: Mapping[str, str], *, outgoing: bool) -> str:
    tls = " ".join(_word(str(maddy.inside(path))) for path in _pair(maddy))
    text = template.filled(
        "maddy.conf",
        {
            **{name: _word(str(folder)) for name, folder in folders.items()},
            "LOG": "stderr",
            "HOSTNAME": plan.hostname,
            "MAIL_DOMAINS": " ".join(plan.domains),
            "INJECT_PORT": str(plan.port),
            "INJECT_USER": _word(plan.user.lower()),
            "LMTP_PORT": ports["LMTP_PORT"],
            "IMAP_PORT": ports["IMAP_PORT"],
            "TLS": f"file {tls}",
        },
    )
    return text + (f"\n# Outgoing mail.\nimport {_OUTGOING}\n" if outgoing else "")


def _outgoing(plan: Plan, maddy: Maddy, ports: Mapping[str, str]) -> tuple[list[File], list[Step]]:
    """The way out: its files, the first of them with the passwords, and what has to be done first."""
    if plan.outbound is None:
        return [], []
    path = maddy.config.with_name(_OUTGOING)
    values = {
        "MAIL_DOMAINS": " ".join(plan.domains),
        "LMTP_PORT": ports["LMTP_PORT"],
        "INJECT_USER": _word(plan.user),
        "INJECT_PASS": _word(plan.password.reveal(), "INJECT_PASS"),
        "SUBMISSION_PORT": ports["SUBMISSION_PORT"],
    }
    if isinstance(plan.outbound, Relay):
        kept = re.search(rf"^ *auth plain {RELAY_USER} (\S+)$", _read(path), re.MULTILINE)
        password, step = relay_login.password(plan.outbound, RELAY_USER, kept[1] if kept else "")
        values |= {
            "RELAY_PORT": str(plan.outbound.port),
            "RELAY_USER": RELAY_USER,
            "RELAY_PASS": _word(password.reveal(), "the relay's password"),
        }
        return [_private(maddy, path, template.filled("maddy-relay.conf", values), secret=True)], [step]
    values |= _smarthost(plan.outbound, maddy) | {"FIRST_DOMAIN": plan.domains[0]}
    files = [_private(maddy, path, template.filled("maddy-smarthost.conf", values), secret=True)]
    if plan.outbound.ca_file:
        # A copy: Maddy may not read everything that drain may, and sees other paths in a proot.
        files.append(File(maddy.config.with_name(_SMARTHOST_CA), _authorities(plan, Path(plan.outbound.ca_file))))
    return files, []


def _authorities(plan: Plan, path: Path) -> bytes:
    """The certificates in SMARTHOST_TLS_CA_FILE, and nothing else: everybody may read the copy.

    Whoever can write drain.env names the file, so it is read with no more rights than that.
    """
    with as_owner(plan.env_file):
        found = "".join(_CERTIFICATE.findall(_read(path)))
    if not found:
        raise ConfigError(f"SMARTHOST_TLS_CA_FILE {path} has no certificate in it (PEM), or is not there.")
    return found.encode()


def _smarthost(smarthost: Smarthost, maddy: Maddy) -> dict[str, str]:
    scheme = "tls" if smarthost.tls == "implicit" else "tcp"
    ca_file = _word(str(maddy.inside(maddy.config.with_name(_SMARTHOST_CA))))
    return {
        "TARGETS": " ".join(f"{scheme}://{_bracketed(host)}:{port}" for host, port in smarthost.places),
        "STARTTLS": "yes" if smarthost.tls == "starttls" else "no",
        "AUTH": _auth(smarthost),
        "TLS_CLIENT": f"{{ root_ca {ca_file} }}" if smarthost.ca_file else "{ }",
    }


def _auth(smarthost: Smarthost) -> str:
    if not smarthost.user:
        return "off"
    return f"plain {_word(smarthost.user, 'SMARTHOST_USER')} {_word(smarthost.password.reveal(), 'SMARTHOST_PASS')}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _word(word: str, setting: str = "") -> str:
    """One word of Maddy's configuration (its framework/config/lexer: in quotes only quotes are escaped).

    Raises:
        ConfigError: there is no way to write it; *setting* names what has it, for a secret.
    """
    if _PLAIN.fullmatch(word):
        return word
    if _IMPOSSIBLE.search(word):
        raise ConfigError(
            f"{setting or word} cannot be written in Maddy's configuration.",
            'It must not be a brace, have \\" or {env: or $( in it, or a \\ at its end.',
        )
    return '"' + word.replace('"', '\\"') + '"'


def _read(path: Path) -> str:
    """What is there, or ""."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Run this as root.") from error


def _folder(name: str, there: str, usual: Path) -> Path:
    found = re.search(rf'^{name}\s+"?(/[^"\n]*?)"?\s*$', there, re.MULTILINE)
    return Path(found[1]) if found else usual


def _port(endpoint: str, there: str, usual: int) -> str:
    found = re.search(rf"^{endpoint}\s+tcp://127\.0\.0\.1:(\d+)\s", there, re.MULTILINE)
    return found[1] if found else str(usual)


# -- around them --


def _folder_step(maddy: Maddy, folder: Path) -> Step:
    path = maddy.outside(folder)

    def done() -> bool:
        return path.is_dir() and (path.stat().st_uid, path.stat().st_gid) == maddy.owner

    def do() -> None:
        try:
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
            if maddy.owner:
                os.chown(path, *maddy.owner)
        except OSError as error:
            raise ConfigError(f"{path} cannot be made: {error}.", "Run this as root.") from error

    return Step(f"the folder {path} is made, for Maddy alone", done, do)


def _closing(plan: Plan, people: People, ports: Mapping[str, str]) -> Iterator[str]:
    for address in people.without_login():
        command = shlex.join(people.maddy.words("creds", "create", address))
        yield f"Nobody can log in as {address} yet: `{command}` makes a login, and asks for its password."
    yield (
        f"Mail programs on this machine read mail over IMAP at 127.0.0.1, port {ports['IMAP_PORT']}, with STARTTLS; "
        "the user name is the whole address."
    )
    if plan.outbound is not None:
        yield f"They send mail over SMTP at 127.0.0.1, port {ports['SUBMISSION_PORT']}, with STARTTLS and the same login."
    if isinstance(plan.outbound, Relay):
        domains = ",".join(f"@{domain}" for domain in plan.domains)
        yield f"It goes through drain's relay, for which ALLOWED_FROM has to have {domains}."
        if not plan.outbound.enabled:
            yield "The relay is not on: set RELAY_ENABLED=true, or have `drain relay` running."


def _left_over(plan: Plan, maddy: Maddy) -> Iterator[str]:
    path = maddy.config.with_name(_OUTGOING)
    if plan.outbound is None and path.exists():
        yield f"{path} is of no use any more and has passwords in it: remove it."


def _listeners(plan: Plan, ports: Mapping[str, str]) -> dict[str, int]:
    submission = {} if plan.outbound is None else {"submission": int(ports["SUBMISSION_PORT"])}
    return {"lmtp": int(ports["LMTP_PORT"]), "imap": int(ports["IMAP_PORT"]), **submission}
