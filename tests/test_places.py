"""How addresses, servers and networks are written in settings, and how addresses are compared."""

import pytest

from drain import config
from drain.errors import ConfigError
from drain.places import matches
from drain.settings import Config


def load(**more: str) -> Config:
    return config.load({"DRAIN_ENV_FILE": "/dev/null", **more}, complete=False)[0]


@pytest.mark.parametrize(
    ("patterns", "address"),
    [
        ("alice@example.org", "alice@example.org"),
        ("alice@example.org", "ALICE@Example.ORG."),
        ("Alice@EXAMPLE.org", "alice@example.org"),
        ("@example.org", "anybody@example.org"),
        ("*@example.org", "anybody@example.org"),
        ("bob@x.test, @example.org", "anybody@example.org"),
        ("@b\u00fccher.example", "a@xn--bcher-kva.example"),
        ("<>", ""),
        ("<>,@example.org", "a@example.org"),
    ],
)
def test_a_pattern_means_an_address(patterns: str, address: str) -> None:
    assert matches(address, load(ALLOWED_FROM=patterns).allowed_from)


@pytest.mark.parametrize(
    ("patterns", "address"),
    [
        ("", "alice@example.org"),
        ("", ""),
        ("@example.org", ""),
        ("alice@example.org", "malice@example.org"),
        ("alice@example.org", "alice+tag@example.org"),
        ("@example.org", "alice@sub.example.org"),
        ("@example.org", "alice@example.org.evil.test"),
        ("@example.org", "alice@evilexample.org"),
        ("@example.org", "alice@example.org@evil.test"),
        ("@example.org", "alice"),
        ("<>", "alice@example.org"),
    ],
)
def test_a_pattern_means_no_other(patterns: str, address: str) -> None:
    assert not matches(address, load(ALLOWED_FROM=patterns).allowed_from)


@pytest.mark.parametrize(
    "value", ["example.org", "*", "@", "alice@", "a b@example.org", "alice@@example.org", "<alice@example.org>", "*@*"]
)
def test_what_is_no_pattern_is_refused_and_never_taken_for_all(value: str) -> None:
    with pytest.raises(ConfigError, match="ALLOWED_FROM"):
        load(ALLOWED_FROM=value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("smtp.example.net", (("smtp.example.net", 587),)),
        ("a.example, b.example:2525", (("a.example", 587), ("b.example", 2525))),
        ("[2001:db8::1]:465,2001:db8::2", (("2001:db8::1", 465), ("2001:db8::2", 587))),
        ("192.0.2.1:25", (("192.0.2.1", 25),)),
    ],
)
def test_smarthosts_have_a_port_or_the_usual_one(value: str, found: tuple[tuple[str, int], ...]) -> None:
    assert load(SMARTHOST_HOST=value).smarthosts == found


def test_the_usual_port_is_that_of_the_tls() -> None:
    assert load(SMARTHOST_HOST="a.example", SMARTHOST_TLS="implicit").smarthosts == (("a.example", 465),)
    assert load(SMARTHOST_HOST="a.example", SMARTHOST_PORT="2525").smarthosts == (("a.example", 2525),)


@pytest.mark.parametrize(
    "value", ["smtp://a.example", "a.example:0", "a.example:x", "a.example:99999", "/run/socket", "a b"]
)
def test_what_is_no_server_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="SMARTHOST_HOST"):
        load(SMARTHOST_HOST=value)


@pytest.mark.parametrize("value", ["192.0.2.1/24", "example.org", "192.0.2.0/33", "all"])
def test_what_is_no_network_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="RELAY_ALLOWED_CIDRS"):
        load(RELAY_ALLOWED_CIDRS=value)


def test_the_relays_secrets_are_shown_as_stars() -> None:
    loaded = load(
        MAIL_DOMAIN="example.org",
        SMARTHOST_PASS="hunter2",
        RELAY_API_KEY="key-1",
        RELAY_API_URL="https://x.test/?token=abc",
    )
    assert config.shown(loaded)["SMARTHOST_PASS"] == "***"
    words = str(config.shown(loaded))
    assert not any(secret in words for secret in ("hunter2", "key-1", "abc"))
