"""The way into the mail server, or into the smarthost: TCP, TLS, AUTH (RFC 5321, 3207, 4954)."""

import base64
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from drain.errors import ConfigError, MailServerRefused, MailServerUnavailable
from drain.places import is_loopback
from drain.setting import Secret
from drain.text import clean

_CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class Server:
    """Where a server is and how to log in to it.

    ``name`` is what it is to a person, ``settings`` the beginning of its settings' names.
    No ``user``: there is no login. ``ehlo`` is the name that we give. ``check`` takes the
    place of the usual verification of a certificate: it is called right after the
    handshake, and raises `OSError` for a server that is not to be used.
    """

    host: str
    port: int
    user: str
    password: Secret
    tls: str  # as INJECT_TLS
    ca_file: str
    name: str = "mail server"
    settings: str = "INJECT"
    ehlo: str = "localhost"  # smtplib would look its own name up in the DNS
    check: Callable[[ssl.SSLSocket], None] | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.host}:{self.port}"


def connect(server: Server) -> smtplib.SMTP:
    """A connection that has said EHLO, under TLS where that is due.

    Raises:
        OSError, smtplib.SMTPException: there is none to be had.
        MailServerUnavailable: it offers no STARTTLS where that is due.
        ConfigError: the CA file cannot be read.
    """
    if server.tls == "implicit":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, server.ehlo, timeout=_CONNECT_SECONDS, context=verified(server)
        )
    else:
        smtp = smtplib.SMTP(server.host, server.port, server.ehlo, timeout=_CONNECT_SECONDS)
    try:
        if server.tls == "implicit":
            _check(smtp, server)
        smtp.ehlo_or_helo_if_needed()
        if server.tls in {"auto", "starttls"}:
            _start_tls(smtp, server)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _start_tls(smtp: smtplib.SMTP, server: Server) -> None:
    # Without a pinned certificate loopback is as private as it gets; with one,
    # a server that offers no TLS may be another program on its port.
    needed = server.tls == "starttls" or bool(server.ca_file) or not is_loopback(server.host)
    if smtp.has_extn("starttls"):
        smtp.starttls(context=verified(server) if needed else _unverified())
        _check(smtp, server)
        smtp.ehlo_or_helo_if_needed()
    elif needed:
        raise MailServerUnavailable(
            f"The {server} offers no STARTTLS, and {server.settings}_TLS or {server.settings}_TLS_CA_FILE asks for it.",
            "If that is not another program on its port, set INJECT_TLS=auto and no CA file."
            if server.settings == "INJECT"
            else "Is its port right, and is it one with STARTTLS?",
        )


def _check(smtp: smtplib.SMTP, server: Server) -> None:
    if server.check is not None:
        assert isinstance(smtp.sock, ssl.SSLSocket), "TLS was begun"
        server.check(smtp.sock)


def verified(server: Server) -> ssl.SSLContext:
    """TLS that verifies, against the CA file if there is one; or leaves it to the server's own `check`.

    Raises:
        ConfigError: the CA file cannot be used.
    """
    if server.check is not None:
        return _unverified()
    try:
        context = ssl.create_default_context(cafile=server.ca_file or None)
    except OSError as error:
        raise ConfigError(f"{server.settings}_TLS_CA_FILE {server.ca_file} cannot be read: {error}.") from error
    if server.ca_file:
        # The file may be the server's own certificate: that is enough then, and
        # its name need not be an address of loopback.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = not is_loopback(server.host)
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def log_in(smtp: smtplib.SMTP, server: Server) -> None:
    """AUTH.

    Raises:
        MailServerRefused: not with this user and password, or not at all.
        MailServerUnavailable: not now.
        ConfigError: the password is none that the server's ways to log in can carry.
    """
    try:
        mechanisms = smtp.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in mechanisms:
            # Not smtplib's own: it takes ASCII only, RFC 4616 says UTF-8.
            token = base64.b64encode(f"\0{server.user}\0{server.password.reveal()}".encode()).decode("ascii")
            code, text = smtp.docmd("AUTH", f"PLAIN {token}")
            if code != 235:
                raise smtplib.SMTPAuthenticationError(code, text)
        else:
            smtp.login(server.user, server.password.reveal())
    except UnicodeError as error:
        raise ConfigError(
            f"The {server} offers no AUTH PLAIN, and other ways to log in take ASCII only.",
            "Use a password without letters outside ASCII.",
        ) from error
    except smtplib.SMTPNotSupportedError as error:
        raise MailServerRefused(
            f"The {server} offers no login.",
            _no_login_hint(smtp, server),
        ) from error
    except smtplib.SMTPAuthenticationError as error:
        words = clean(f"{error.smtp_code} {_decoded(error.smtp_error)}")
        if 400 <= error.smtp_code < 500:
            raise MailServerUnavailable(f"The {server} cannot check a login now: {words}.") from error
        raise MailServerRefused(
            f"The {server} refused the login of {clean(server.user)}: {words}.",
            f"Check {server.settings}_USER and {server.settings}_PASS.",
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        raise MailServerUnavailable(f"The {server} broke off at AUTH: {clean(str(error))}.") from error


def _no_login_hint(smtp: smtplib.SMTP, server: Server) -> str:
    if server.settings == "INJECT":
        return "drain wants AUTH even on loopback: turn it on for this port."
    if smtp.has_extn("starttls") and server.tls == "none":
        return "It offers STARTTLS, and perhaps a login after it: set SMARTHOST_TLS=starttls."
    return "Is its port right? One that wants no login has SMARTHOST_USER and SMARTHOST_PASS empty."


def _decoded(words: bytes | str) -> str:
    return words.decode("utf-8", "replace") if isinstance(words, bytes) else words
