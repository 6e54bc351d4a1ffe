"""The way to a mail server: TCP, its greeting, TLS."""

import dataclasses
import datetime
import smtplib
import socket
import ssl
from collections.abc import Iterator

from drain import login
from drain.doctor.finding import Finding
from drain.doctor.say import Say
from drain.errors import DrainError
from drain.inject import Session
from drain.login import Server
from drain.places import is_loopback
from drain.text import clean

_TCP_SECONDS = 10.0
_GREETING_SECONDS = 15.0
_SOON = datetime.timedelta(days=14)
# OpenSSL's x509_vfy.h: expired; for another name, or address.
_EXPIRED, _OTHER_NAME = {10}, {62, 64}


def reached(say: Say, server: Server) -> Finding:
    """Whether something listens there that greets as a mail server does; "ok" if so."""
    here = is_loopback(server.host)
    start = "Start the mail server" if here else "Is it running, and does its firewall let this machine in?"
    right = f"{'; ' if here else ' '}Are {server.settings}_HOST and {server.settings}_PORT right?"
    try:
        with socket.create_connection((server.host, server.port), _TCP_SECONDS) as connection:
            return (
                say.ok(f"The {server} accepts connections.")
                if server.tls == "implicit"
                else _greeting(say, server, connection)
            )
    except ConnectionRefusedError:
        words = f"The {server} refuses connections: nothing listens there."
    except (socket.gaierror, UnicodeError):  # the second for what can be no name
        words = f"The name {server.host} of the {server.name} is not found."
        start, right = "", f"Is {server.settings}_HOST right?"
    except TimeoutError:
        words = (
            f"The {server} cannot be reached: no answer within {_TCP_SECONDS:g} s, as where a firewall is in between."
        )
    except OSError as error:
        words = f"The {server} cannot be reached: {clean(error.strerror or str(error))}."
    return say.failure(words, start + right)


def _greeting(say: Say, server: Server, connection: socket.socket) -> Finding:
    other = (
        f"Another program may have that port: is {server.settings}_PORT right? "
        f"If it speaks TLS from the first byte, set {server.settings}_TLS=implicit."
    )
    connection.settimeout(_GREETING_SECONDS)
    try:
        first = connection.recv(512)
    except TimeoutError:
        return say.failure(f"The {server} accepts connections and says nothing for {_GREETING_SECONDS:g} s.", other)
    except OSError:
        first = b""
    said = clean(first.partition(b"\n")[0].decode("utf-8", "replace"), 200).strip()
    if first.startswith(b"220"):
        return say.ok(f"The {server} greets: {said}.")
    if not first:
        return say.failure(f"The {server} closes connections at once.", other)
    if first[:1] in b"45" and first[:3].isdigit():
        return say.failure(f"The {server} lets nobody in: {said}.", "Its log says why.")
    return say.failure(f"What answers at {server.host}:{server.port} is no mail server: {said}.", other)


def secured(say: Say, server: Server) -> Iterator[Finding]:
    """What TLS comes to there; a failure where no login can follow."""
    try:
        smtp = login.connect(server)
    except ssl.SSLCertVerificationError as error:
        yield _not_believed(say, server, error)
        return
    except ssl.SSLError as error:
        reason = clean((error.reason or str(error)).replace("_", " ").lower())
        yield say.failure(
            f"The {server} does not speak TLS with us: {reason}.",
            f"Does {server.settings}_TLS fit the port? Most often 587 wants starttls, and 465 implicit.",
        )
        return
    except DrainError as error:
        yield say.failure(str(error.args[0]), error.hint or f"Check {server.settings}_TLS_CA_FILE.")
        return
    except (OSError, smtplib.SMTPException) as error:
        yield say.failure(f"The {server} broke off before the login: {clean(str(error))}.", "Its log says why.")
        return
    try:
        if isinstance(smtp.sock, ssl.SSLSocket) and _verified(server):
            yield certificate(say, smtp.sock)
        else:
            yield _anybody(say, server, smtp.sock)
    finally:
        smtp.close()
    if server.tls in {"auto", "starttls"} and not is_loopback(server.host):
        yield from _in_the_clear(say, server)


def _verified(server: Server) -> bool:
    """Whether drain looks at its certificate, as `login` has it."""
    return server.tls in {"starttls", "implicit"} or bool(server.ca_file) or not is_loopback(server.host)


def _anybody(say: Say, server: Server, connection: socket.socket | None) -> Finding:
    how = "TLS, but its certificate is not looked at" if isinstance(connection, ssl.SSLSocket) else "no TLS"
    return say.warning(
        f"The {server}: {how}. While it is not running, any program on this machine can take its port, "
        "and with it the password and the mail.",
        f"Give it a certificate, and name that in {server.settings}_TLS_CA_FILE.",
    )


def _not_believed(say: Say, server: Server, error: ssl.SSLCertVerificationError) -> Finding:
    why = f"The {server} has a certificate that is not believed: {clean(error.verify_message, 200)}."
    if error.verify_code in _EXPIRED:
        return say.failure(why, "Renew it.")
    if error.verify_code in _OTHER_NAME:
        return say.failure(why, f"{server.settings}_HOST must be a name that is in it.")
    return say.failure(why, f"Name its CA, or the certificate itself, in {server.settings}_TLS_CA_FILE.")


def certificate(say: Say, tls: ssl.SSLSocket, next_: str = "Renew it.") -> Finding:
    """Which TLS is spoken, and until when its certificate is good; less than 14 days is a warning."""
    from cryptography import x509  # noqa: PLC0415 (not where there is no TLS)

    found = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
    ends = found.not_valid_after_utc
    words = f"{tls.version()}; its certificate is good until {ends:%Y-%m-%d %H:%M} UTC"
    left = ends - datetime.datetime.now(datetime.UTC)
    if left < datetime.timedelta(0):
        return say.failure(f"{words}, which is over.", next_)
    if left < _SOON:
        return say.warning(f"{words}: {left.days} days more.", next_)
    return say.ok(f"{words}.")


def _in_the_clear(say: Say, server: Server) -> Iterator[Finding]:
    try:
        session = Session(dataclasses.replace(server, user="", tls="none"))
    except DrainError:
        return
    if session.offers("auth"):
        yield say.warning(
            f"The {server} offers a login before TLS: a mail program can be brought to send its password in the clear.",
            "Postfix: `smtpd_tls_auth_only = yes`. Maddy has it so, but for `insecure_auth`.",
        )
    session.close()
