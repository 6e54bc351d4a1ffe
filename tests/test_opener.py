import pytest
from hypothesis import given, strategies as st

from drain.errors import KeyMissing
from drain.opener import Kind, NotMail, open_object


def test_a_plain_object_is_a_mail_with_the_envelope_beside_it() -> None:
    opened = open_object(b"Subject: x\n\n", {"to": "a@x.test", "from": "b@y.test", "subject": "x"})
    assert opened.kind is Kind.PLAIN
    assert (opened.mail.raw, opened.mail.recipient, opened.mail.sender) == (b"Subject: x\n\n", "a@x.test", "b@y.test")


@pytest.mark.parametrize("body", [b"Subject: x\n\n", b"From a Mon\nSubject: x\n", b"Fro :x\n"])
def test_what_begins_like_a_mail_is_one_without_an_envelope_too(body: bytes) -> None:
    assert open_object(body, {}).mail.recipient == ""


@pytest.mark.parametrize("body", [b"DRN", b"\x00\x01", b"\n\nbody", b"{}", b"just words\n", b" folded: x\n"])
def test_anything_else_without_an_envelope_is_no_mail(body: bytes) -> None:
    """Else a damaged seal would be mailed to the catch-all."""
    with pytest.raises(NotMail):
        open_object(body, {})


def test_anything_with_an_envelope_is_a_mail() -> None:
    assert open_object(b"\n\nbody", {"to": "a@x.test"}).mail.raw == b"\n\nbody"


def test_an_empty_object_is_no_mail_even_with_an_envelope() -> None:
    with pytest.raises(NotMail):
        open_object(b"", {"to": "a@x.test"})


@pytest.mark.parametrize(
    "body", [b"DRN1" + bytes(60), b"DRN1", b'{"version":"v1","algorithm":"RSA-OAEP-256+A256GCM","wrappedKey":"x"}']
)
def test_a_sealed_object_waits_for_its_key_whatever_is_beside_it(body: bytes) -> None:
    for metadata in ({}, {"to": "a@x.test"}):
        with pytest.raises(KeyMissing):
            open_object(body, metadata)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (" a@x.test ", "a@x.test"),
        ("<a@x.test>", "a@x.test"),
        ("<>", ""),
        ("", ""),
        ("gr\u00c3\u00bc\u00c3\u009f@x.test", "grüß@x.test"),
        ("gr\u00fc@x.test", "grü@x.test"),
    ],
)
def test_addresses_are_read_as_they_are_written(value: str, address: str) -> None:
    assert open_object(b"A: b\n", {"to": value}).mail.recipient == address


@given(st.binary(max_size=100), st.dictionaries(st.sampled_from(["to", "from", "x"]), st.text(max_size=20)))
def test_no_object_makes_it_fail_in_another_way(body: bytes, metadata: dict[str, str]) -> None:
    try:
        opened = open_object(body, metadata)
    except (NotMail, KeyMissing):
        return
    assert opened.mail.raw == body
    assert len(opened.mail.identity) == 64
