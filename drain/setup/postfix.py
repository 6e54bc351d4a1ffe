"""Postfix: its files, its login, its start."""

import contextlib
import datetime
import os
import re
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from drain.errors import ConfigError
from drain.setup import certificate, relay_login
from drain.setup.changes import File
from drain.setup.command import find, run
from drain.setup.plan import Plan, Relay, Smarthost
from drain.setup.postfix_place import Place, owner_of_mail, postfix_group, steps
from drain.setup.template import filled
from drain.setup.wanted import Step, Wanted
from drain.text import clean

_PACKAGES = "apt install postfix sasl2-bin libsasl2-modules"
_PROGRAMS = ("postfix", "postconf", "saslpasswd2", "sasldblistusers2")
_RELAY_USER = "postfix"
_SUBMIT_USERS = "root"
_SYSTEMS_CAS = "/etc/ssl/certs/ca-certificates.crt"
_DIST_MASTER = Path("/usr/share/postfix/master.cf.dist")
# Dot-string of RFC 5321 4.1.2 and RFC 6531, without what means something in a line of texthash, in the
# name of a folder, in main.cf ($), in inline:{} or to Postfix itself (a hyphen at the beginning).
_LOCAL_PART = re.compile(r"(?!-)[\w!%&'*+^`|~?-]+(?:\.[\w!%&'*+^`|~?-]+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SETS = re.compile(r"^(\w+) =.*\n", re.MULTILINE)
_SMTPD_CONF = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {}\n"


def wanted(plan: Plan, environ: Mapping[str, str]) -> Wanted:
    """What a Postfix in /etc/postfix, or the folder that MAIL_CONFIG names, shall be; changes nothing.

    Raises:
        ConfigError: Postfix is not here, or this is not root, or a setting does not fit, or something is in the way.
        Unavailable: Postfix does not answer.
    """
    if os.geteuid() != 0:
        raise ConfigError("Postfix is set up by root.", "sudo drain setup postfix")
    missing = [name for name in _PROGRAMS if find(name, environ) is None]
    if missing:
        raise ConfigError(f"Postfix is not whole here: no {', '.join(missing)}.", _PACKAGES)
    place = Place.of(environ)
    place.check_port(plan.port, environ)
    key, public = place.etc / "drain-key.pem", place.etc / "drain-cert.pem"
    made = certificate.kept_or_made(public, key, plan.hostname, datetime.datetime.now(datetime.UTC))
    uid, gid = owner_of_mail()
    values = {
        "CONFIG_DIR": str(place.etc),
        "QUEUE_DIR": str(place.queue),
        "DATA_DIR": str(place.data),
        "LOG_FILE": place.log,
        "HOSTNAME": plan.hostname,
        "MAIL_DOMAINS": " ".join(plan.domains),
        "MAILDIR_BASE": str(place.maildirs),
        "MAIL_UID": str(uid),
        "MAIL_GID": str(gid),
        "TLS_LEVEL": "encrypt",
        "TLS_CERT": str(public),
        "TLS_KEY": str(key),
    }
    main, master = filled("postfix-main.cf", values), filled("postfix-master.cf", {"INJECT_PORT": str(plan.port)})
    outbound, passwords, login = _outbound(plan, place)
    if outbound:
        main, master = merged(main, outbound), master + filled("postfix-relay-master.cf", {})
    dovecot = {name: values[name] for name in ("MAILDIR_BASE", "MAIL_UID", "MAIL_GID", "TLS_CERT", "TLS_KEY")}
    dovecot |= {"USERS_FILE": "/etc/dovecot/users", "IMAPS_PORT": "993"}
    files = (
        *made.files(public, key, plan),
        *passwords,
        File(place.etc / "sasl" / "sasldb2", _sasldb(plan, place, environ), 0o640, (0, postfix_group()), secret=True),
        File(place.etc / "sasl" / "smtpd.conf", _SMTPD_CONF.format(place.etc / "sasl" / "sasldb2").encode()),
        File(place.etc / "mailboxes", mailboxes(place.etc / "mailboxes", plan)),
        File(place.etc / "dovecot.conf", filled("dovecot.conf", dovecot).encode()),
        File(place.etc / "master.cf", master.encode(), nobodys=_bytes(_DIST_MASTER)),
        File(place.etc / "main.cf", main.encode()),
    )
    return Wanted(
        before=(*steps(place, environ), *login),
        files=files,
        after=(),
        check=partial(place.check, environ),
        settings=plan.settings,
        start=partial(place.start, environ),
        closing=_closing(plan, place),
        opening=_opening(plan, place, environ) if not files[-1].done else (),
        runs=partial(place.runs, environ),
    )


def _outbound(plan: Plan, place: Place) -> tuple[str, list[File], list[Step]]:
    """The part of main.cf, the file with the password, and the step that makes the login."""
    common = {"CONFIG_DIR": str(place.etc), "SUBMIT_USERS": _SUBMIT_USERS, "OWN_ADDRESS": plan.admin}
    if isinstance(plan.outbound, Relay):
        file = place.etc / "relay-password"
        kept = re.search(rf"^\S+ {_RELAY_USER}:(\S+)$", (_bytes(file) or b"").decode("utf-8", "replace"), re.MULTILINE)
        password, step = relay_login.password(plan.outbound, _RELAY_USER, kept[1] if kept else "")
        line = f"[127.0.0.1]:{plan.outbound.port} {_RELAY_USER}:{password.reveal()}\n"
        part = filled("postfix-relay.cf", {**common, "RELAY_PORT": str(plan.outbound.port)})
        return part, [File(file, line.encode(), 0o600, secret=True)], [step]
    if isinstance(plan.outbound, Smarthost):
        hosts = [f"[{host}]:{port}" for host, port in plan.outbound.places]
        login = _login(plan.outbound.user, plan.outbound.password.reveal())
        lines = "".join(f"{host} {login}\n" for host in hosts) if plan.outbound.user else ""
        part = filled("postfix-smarthost.cf", {**common, "RELAYHOST": ", ".join(hosts), **_tls(plan.outbound)})
        return part, [File(place.etc / "smarthost-password", lines.encode(), 0o600, secret=True)], []
    return "", [], []


def _login(user: str, password: str) -> str:
    """Both as they stand in smarthost-password, which has no way to quote them."""
    for name, word in (("SMARTHOST_USER", user), ("SMARTHOST_PASS", password)):
        if _CONTROL.search(word) or word != word.strip():
            raise ConfigError(f"{name} has control characters, or blanks around it, and Postfix cannot have that.")
    if ":" in user:
        raise ConfigError("SMARTHOST_USER has a colon in it, and Postfix cannot have that.")
    return f"{user}:{password}"


def _tls(smarthost: Smarthost) -> dict[str, str]:
    return {
        "LOGIN": "yes" if smarthost.user else "no",
        "TLS_LEVEL": "none" if smarthost.tls == "none" else "secure",
        "TLS_FROM_FIRST_BYTE": "yes" if smarthost.tls == "implicit" else "no",
        # In main.cf a $ begins a parameter's name.
        "TLS_CA_FILE": str(Path(smarthost.ca_file or _SYSTEMS_CAS).expanduser().absolute()).replace("$", "$$"),
    }


def merged(main: str, part: str) -> str:
    """Both, with each parameter once: of two lines Postfix takes the last, and warns at every step."""
    again = {found[1] for found in _SETS.finditer(part)}
    return _SETS.sub(lambda found: "" if found[1] in again else found[0], main) + "\n" + part


def _sasldb(plan: Plan, place: Place, environ: Mapping[str, str]) -> bytes:
    """The database of logins: as it is, if it has this one alone; else a new one."""
    user, _, realm = plan.user.rpartition("@") if "@" in plan.user else (plan.user, "", plan.hostname)
    password = plan.password.reveal().encode()
    file = place.etc / "sasl" / "sasldb2"
    there = _bytes(file) or b""
    # Berkeley DB has value and key of a record side by side, each after a byte 1 (H_KEYDATA).
    record = b"\x01%s\x01%s\0%s\0userPassword" % (password, user.encode(), realm.encode())
    # What was deleted is still among the bytes, so there must be no other, and the list must have it.
    if record in there and there.count(b"\0userPassword") == 1:
        with contextlib.suppress(ConfigError):
            if run(["sasldblistusers2", "-f", str(file)], environ).split() == [f"{user}@{realm}:", "userPassword"]:
                return there
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sasldb2"
        run(["saslpasswd2", "-p", "-c", "-f", str(path), "-u", realm, user], environ, stdin=password)
        return path.read_bytes()


def mailboxes(path: Path, plan: Plan) -> bytes:
    """The person's lines as they are, and what is missing of those that have to be there."""
    text = (_bytes(path) or b"").decode("utf-8", "surrogateescape")
    there = {line.split()[0].lower() for line in text.splitlines() if line.strip()}
    lines = [text if text.endswith("\n") or not text else f"{text}\n"]
    for address in plan.mailboxes:
        local, _, domain = address.rpartition("@")
        if not _LOCAL_PART.fullmatch(local):
            raise ConfigError(f"{clean(address)!r} cannot be a mailbox of Postfix.", "Choose another name.")
        maildir = f"{domain}/{local}".lower()
        wanted_ = {address: f"{maildir}/"}
        if plan.junk_folder and "+" not in local:
            wanted_[f"{local}+junk@{domain}"] = f"{maildir}/.Junk/"
        lines += [f"{one} {folder}\n" for one, folder in wanted_.items() if one.lower() not in there]
    return "".join(lines).encode("utf-8", "surrogateescape")


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def _opening(plan: Plan, place: Place, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What becomes of mail that waits, since it was taken from its senders."""
    queue, number = place.waiting(environ)
    if not number:
        return ()
    mails = f"{number} mail{'s wait' if number > 1 else ' waits'} in Postfix's queue {queue}"
    if queue != place.queue:
        return (f"{mails}, which is not looked at any more once the queue is {place.queue}.",)
    if plan.outbound is None:
        return (f"{mails}. What is for other domains than {', '.join(plan.domains)} will not leave, and stays there.",)
    way = "drain's relay" if isinstance(plan.outbound, Relay) else "the smarthost"
    return (f"{mails}. What is for other domains than {', '.join(plan.domains)} will go to {way}.",)


def _closing(plan: Plan, place: Place) -> tuple[str, ...]:
    own = f"A mailbox more: `drain setup postfix --mailbox NAME`, or a line in {place.etc}/mailboxes."
    read = (
        f"To read the mail, Dovecot: apt install dovecot-imapd; cp {place.etc}/dovecot.conf /etc/dovecot/dovecot.conf; "
        f"a line `{plan.admin}:HASH` for each mailbox in /etc/dovecot/users (HASH by `doveadm pw -s ARGON2ID`), "
        "chown root:dovecot and chmod 640 for it; systemctl restart dovecot."
    )
    if isinstance(plan.outbound, Relay):
        enabled = (
            () if plan.outbound.enabled else ("RELAY_ENABLED is not true: outgoing mail waits for `drain relay`.",)
        )
        send = "To send, mail programs log in to drain's relay: `drain relay user add NAME --from ADDRESS`."
        return own, read, send, *enabled
    if isinstance(plan.outbound, Smarthost):
        return own, read, "Mail of root's goes straight to the smarthost; mail programs log in there themselves."
    return own, read, "Nothing is sent from here: `--outbound relay` or `smarthost` changes that."
