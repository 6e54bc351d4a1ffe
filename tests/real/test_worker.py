"""The Worker in workerd: what it accepts and refuses, and that drain opens what it stores."""

import base64
import contextlib
import datetime
import hashlib
import hmac
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from drain.errors import KeyMissing, NotMail
from drain.keys import KeyRing
from drain.opener import Kind, Opener
from drain.recipients import KEY as LIST
from tests import sealing
from tests.real.edge import Edge, Message, patched
from tests.real.house import corpus
from tests.real.worker import (
    ALICE,
    BOB,
    IMPATIENT,
    LIMIT,
    PEM,
    PLAIN,
    RAW,
    SEALED,
    SEALED_WITHOUT_TOKEN,
    SENDER,
    TOKEN,
    Worker,
    believing_all,
    check_that_a_fault_is_noticed,
    digests,
    public_pem,
)
from tests.vectors import make

# -- what is stored --


def test_a_mail_of_the_real_route_is_one_sealed_object_that_drain_opens(worker: Worker) -> None:
    assert worker.edge.post(RAW, ALICE, SENDER, "sealed") == 200
    opened = worker.only()
    assert (opened.kind, opened.mail.raw) == (Kind.SEALED, RAW)
    assert (opened.mail.recipient, opened.mail.sender) == (ALICE, SENDER)


def test_it_holds_when_it_was_received_in_utc(worker: Worker) -> None:
    before = datetime.datetime.now(datetime.UTC)
    assert worker.take(Message(RAW)).outcome == "accepted"
    received = worker.only().received
    assert received.endswith("Z")
    moment = datetime.datetime.fromisoformat(received)
    second = datetime.timedelta(seconds=1)
    assert before - second <= moment <= datetime.datetime.now(datetime.UTC) + second


@pytest.mark.parametrize(
    ("to", "sender"),
    [
        (ALICE, ""),
        ("Alice+News@EXAMPLE.test", "Carol@Example.NET"),
        ("grüße@münchen.example", "用户@例子.example"),
        ('"a\\"b c"@example.test', "o'brien@example.net"),
        (ALICE, "x" * 10_000 + "@example.net"),
        ("\u2028\x00\x7f🔑@example.test", "\ud7ff\ue000@example.net"),
    ],
)
def test_the_envelope_is_what_cloudflare_said_to_the_letter(worker: Worker, to: str, sender: str) -> None:
    assert worker.take(Message(RAW, to, sender)).outcome == "accepted"
    mail = worker.only().mail
    assert (mail.recipient, mail.sender) == (to, sender)


def check_the_names(worker: Worker) -> None:
    for to in (ALICE, "Alice@Example.TEST", "grüße@münchen.example"):
        text = to.encode() + b"\n" + RAW
        keyed = hmac.new(TOKEN.encode(), text, hashlib.sha256).hexdigest()
        plain = hashlib.sha256(text).hexdigest()
        for settings, digest in (
            (SEALED, keyed),
            (SEALED_WITHOUT_TOKEN, plain),
            ({**PLAIN, "ORIGIN_TOKEN": TOKEN}, keyed),
            (PLAIN, plain),
            # A newline that a shell put behind the secret is no part of it.
            ({**SEALED, "ORIGIN_TOKEN": f" {TOKEN}\n"}, keyed),
        ):
            worker.edge.clear()
            assert worker.take(Message(RAW, to), settings).outcome == "accepted"
            assert worker.edge.keys() == [f"pending/{digest}"], "the name is another"


def test_the_name_is_a_keyed_digest_of_recipient_and_mail(worker: Worker) -> None:
    check_the_names(worker)


def check_a_retry(worker: Worker) -> None:
    for settings in (SEALED, SEALED_WITHOUT_TOKEN, PLAIN):
        worker.edge.clear()
        assert worker.take(Message(RAW), settings).outcome == "accepted"
        before = worker.state()
        # Only its date, in seconds, would tell that a plain object was written again.
        time.sleep(1.1 if settings is PLAIN else 0)
        assert worker.take(Message(RAW), settings).outcome == "accepted"
        assert worker.state() == before, "it was written again"


def test_another_try_of_the_same_mail_is_accepted_and_writes_nothing(worker: Worker) -> None:
    check_a_retry(worker)


def test_the_same_mail_to_two_recipients_makes_two_objects(worker: Worker) -> None:
    for to in (ALICE, BOB):
        assert worker.edge.post(RAW, to, SENDER, "sealed") == 200
    assert {opened.mail.recipient for opened in worker.stored().values()} == {ALICE, BOB}


# -- bytes --

ODD_MAILS = {
    "one byte": b"x",
    "NUL": b"Subject: \0\r\n\r\n\0\0\r\n",
    "every byte": b"Subject: bytes\r\n\r\n" + bytes(range(256)) * 9,
    "not UTF-8": b"Subject: gr\xfc\xdfe\r\n\r\n\xc3\x28 \xed\xa0\x80\r\n",
    "bare LF": b"Subject: x\n\nline\n.\n",
    "bare CR": b"Subject: x\r\rline\r",
    "all line ends": b"A: b\n\r\n\r\n\rc\r\r\n\n",
    "no final newline": b"Subject: x\r\n\r\nend",
    "BOM": b"\xef\xbb\xbfSubject: x\r\n\r\n\xef\xbb\xbf",
    "UTF-16": "Subject: x\r\n\r\n".encode("utf-16"),
    "looks sealed": b"DRN1" + bytes(60),
    "blanks": b" \r\n\t\r\n ",
    "64 KiB and a byte": os.urandom(65537),
}


def check_the_bytes(worker: Worker) -> None:
    for name, raw in ODD_MAILS.items():
        worker.edge.clear()
        assert worker.take(Message(raw)).outcome == "accepted"
        assert worker.only().mail.raw == raw, f"the bytes of {name!r} are others"


def test_any_bytes_come_home_as_they_were_sent(worker: Worker) -> None:
    check_the_bytes(worker)


def test_every_mail_of_the_corpus_comes_home_as_it_was_sent(worker: Worker) -> None:
    mails = {f"{name}@example.test": raw for name, raw in corpus().items()}
    for to, raw in mails.items():
        assert worker.take(Message(raw, to, pieces=(997, 1, 64))).outcome == "accepted"
    assert worker.stored_by_recipient() == digests(mails)


def test_the_corpus_comes_home_by_the_real_route_too_as_far_as_that_takes_it(worker: Worker) -> None:
    mails = {}
    for name, raw in corpus().items():
        status, words = worker.edge.post_for_words(raw, f"{name}@example.test", SENDER, "sealed")
        if status == 200:
            mails[f"{name}@example.test"] = raw
        else:  # Miniflare's own, before the Worker is asked: no Message-ID, no From
            assert "could not be parsed" in words or "(reading 'address')" in words, words
    assert worker.stored_by_recipient() == digests(mails)
    assert len(mails) == 52


@pytest.mark.parametrize("pieces", [(1,), (7, 1), (4096, 1, 3), (65536,)])
@pytest.mark.parametrize("size", [None, 0, 1, 999])
def test_neither_how_the_stream_is_cut_nor_a_wrong_raw_size_changes_a_mail(
    worker: Worker, pieces: tuple[int, ...], size: int | None
) -> None:
    raw = bytes(range(200)) * 10
    assert worker.take(Message(raw, pieces=pieces, size=size)).outcome == "accepted"
    assert worker.only().mail.raw == raw


def test_a_large_mail_is_whole_whatever_raw_size_says(worker: Worker) -> None:
    raw = os.urandom(3_000_000)
    for size in (None, 1, 2_999_999):
        worker.edge.clear()
        assert worker.take(Message(raw, pieces=(100_000, 65_537), size=size)).outcome == "accepted"
        assert worker.only().mail.raw == raw


def check_what_is_left_of_a_mail(worker: Worker) -> None:
    for size in (len(RAW) + 1, 3_000_001, LIMIT):
        outcome = worker.take(Message(RAW, pieces=(100,), size=size))
        assert outcome.outcome == "thrown", "it was taken for the whole"
        assert f"ended after {len(RAW)} of {size} bytes" in outcome.words
    assert worker.edge.keys() == []


def test_a_mail_that_ends_before_its_size_is_not_stored(worker: Worker) -> None:
    """What is stored would be taken for the whole; the sender has to try again."""
    check_what_is_left_of_a_mail(worker)


def check_many_at_once(worker: Worker) -> None:
    mails = {f"{number}@example.test": os.urandom(300) * (number % 7 * 20 + 1) for number in range(40)}

    def take(to: str) -> str:
        return worker.take(Message(mails[to], to, pieces=(997,)), slow_ms=20).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = set(pool.map(take, mails))
    try:
        stored = worker.stored_by_recipient()
    except (KeyMissing, NotMail):
        stored = {}
    assert stored == digests(mails), "a mail was mixed with others"
    assert outcomes == {"accepted"}


def test_many_mails_at_once_in_one_isolate_do_not_mix(worker: Worker) -> None:
    check_many_at_once(worker)


def test_the_same_mail_eight_times_at_once_is_one_object(worker: Worker) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: worker.edge.post(RAW, ALICE, SENDER, "sealed"), range(8)))
    assert statuses == [200] * 8
    assert worker.only().mail.raw == RAW


@pytest.mark.parametrize("size", [None, 1])
def test_a_stream_that_is_none_of_bytes_is_read_too(worker: Worker, size: int | None) -> None:
    """Cloudflare's is; but no mail shall wait for a runtime that thinks otherwise."""
    raw = RAW + os.urandom(300_000)
    assert worker.take(Message(raw, pieces=(65_537,), scripted=True, size=size)).outcome == "accepted"
    assert worker.only().mail.raw == raw


def test_a_mail_whose_stream_breaks_off_is_not_stored(worker: Worker) -> None:
    assert worker.take(Message(RAW, pieces=(20,), breaks=True)).outcome == "thrown"
    assert worker.edge.keys() == []


def test_a_mail_of_exactly_25_mib_is_accepted(worker: Worker) -> None:
    raw = os.urandom(LIMIT)
    assert worker.take(Message(raw)).outcome == "accepted"
    assert worker.only().mail.raw == raw


def check_the_limit(worker: Worker) -> None:
    for settings in (SEALED, PLAIN):
        outcome = worker.take(Message(bytes(LIMIT + 1)), settings)
        assert outcome.outcome == "rejected", "it was not rejected"
        assert "25 MiB" in outcome.words
    assert worker.edge.keys() == []


def test_a_larger_mail_is_rejected_and_not_stored(worker: Worker) -> None:
    check_the_limit(worker)


# -- who handed it to Cloudflare --

_HOP = b"Received: from mx.example.net (203.0.113.7)\r\n        by cloudflare-email.net (unknown) id 4Xq\r\n"
_HOP += b"        for <alice@example.test>; Mon, 02 Mar 2026 10:00:00 +0000\r\n"
_ARC = b'ARC-Seal: i=1; a=rsa-sha256; s=2024; d=cloudflare-email.net;\r\n\tb="x"\r\nReceived-SPF: pass\r\n'
_MARK = b"X-CF-SpamH-Score: 0\r\n"
_FORGED = _HOP.replace(b"203.0.113.7", b"192.0.2.66")
_NAMED = _HOP.replace(b"mx.example.net", b"x (192.0.2.66) by cloudflare-email.net (unknown)")
IPS = {
    "Cloudflare's lines": (_HOP + _ARC + _MARK + RAW, "203.0.113.7"),
    "Cloudflare's lines with LF": ((_HOP + _ARC + _MARK + RAW).replace(b"\r\n", b"\n"), "203.0.113.7"),
    "IPv6": (_HOP.replace(b"203.0.113.7", b"2001:db8::7") + _ARC + _MARK + RAW, "2001:db8::7"),
    "a name of the mark in lower case": (_HOP + _ARC + _MARK.lower() + RAW, "203.0.113.7"),
    "forged lines below": (_HOP + _ARC + _MARK + _FORGED + _MARK + RAW, "203.0.113.7"),
    "all on one line": (_HOP.replace(b"\r\n        ", b" ") + _ARC + _MARK + RAW, "203.0.113.7"),
    "a name with an address in it": (_NAMED + _ARC + _MARK + RAW, "203.0.113.7"),
    "such a name, on one line": (_NAMED.replace(b"\r\n        ", b" ") + _ARC + _MARK + RAW, ""),
    "no such lines": (RAW, ""),
    "no mark": (_FORGED + _ARC + RAW, ""),
    "the line below the mark": (_MARK + _FORGED + RAW, ""),
    "the line below the mark, with another mark": (_ARC + _MARK + _FORGED + _MARK + RAW, ""),
    "another line on top": (b"X-Other: 1\r\n" + _FORGED + _ARC + _MARK + RAW, ""),
    "another server's line": (_FORGED.replace(b"cloudflare-email.net", b"mx.example.test") + _MARK + RAW, ""),
    "another server's longer name": (_FORGED.replace(b"email.net (", b"email.net.example.org (") + _MARK + RAW, ""),
    "no address": (_FORGED.replace(b"192.0.2.66", b"unknown") + _MARK + RAW, ""),
    "a mark far below": (_FORGED + b"X: y\r\n" * 20_000 + _MARK + RAW, ""),
    "a mark within a line": (_FORGED + b"Subject: " + _MARK + RAW, ""),
}


def check_the_ip(worker: Worker) -> None:
    for name, (raw, ip) in IPS.items():
        worker.edge.clear()
        assert worker.take(Message(raw)).outcome == "accepted"
        opened = worker.only()
        assert (opened.ip, opened.mail.raw) == (ip, raw), f"{name}: the address is another"


def test_the_address_of_the_sender_is_taken_from_cloudflares_own_line_alone(worker: Worker) -> None:
    check_the_ip(worker)


# -- secrecy --


def readable(edge: Edge, words: list[str]) -> list[str]:
    """Which of these words can be read in a key, a header or a body, in any case, as they are or in base64 or hex."""
    found = []
    for key in edge.keys(""):
        head = edge.s3.head_object(Bucket=edge.bucket, Key=key)["ResponseMetadata"]["HTTPHeaders"]
        answer = edge.s3.get_object(Bucket=edge.bucket, Key=key)
        texts = [key, json.dumps(head), json.dumps(answer["ResponseMetadata"]["HTTPHeaders"])]
        whole = b"\n".join([*map(str.encode, texts), answer["Body"].read()]).lower()
        found += [word for word in words if any(spelling in whole for spelling in _spellings(word.encode()))]
    return found


def _spellings(word: bytes) -> Iterator[bytes]:
    for text in {word, word.lower(), word.upper()}:
        yield text.lower()
        yield text.hex().encode()
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + text)
            # Without the letters that share bits with what stands before and behind.
            yield encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4].lower()


SECRETS = [
    "carol@example.net",
    "alice@example.test",
    "Minutes of the meeting",
    "Nobody else needs",
    "203.0.113.7",
    TOKEN,
]
TELLING = _HOP + _ARC + _MARK + RAW


def check_that_nothing_is_readable(worker: Worker) -> None:
    for settings in (SEALED, SEALED_WITHOUT_TOKEN, {**SEALED, **PLAIN}):
        assert worker.take(Message(TELLING, sender=SENDER), settings).outcome == "accepted"
    assert len(worker.edge.keys()) == 2
    assert readable(worker.edge, SECRETS) == [], "something can be read"
    for key in worker.edge.keys("pending/"):
        assert worker.edge.get(key)[1] == {}, "there is metadata"


def test_nothing_of_a_sealed_mail_can_be_read_in_the_bucket(worker: Worker) -> None:
    check_that_nothing_is_readable(worker)


@pytest.mark.parametrize("word", SECRETS)
def test_where_something_can_be_read_it_is_found(worker: Worker, word: str) -> None:
    noise = os.urandom(20)
    for body, metadata in (
        (noise + word.encode() + noise, {}),
        (noise + word.upper().encode(), {}),
        (base64.b64encode(noise + word.encode() + noise), {}),
        (base64.b64encode(b"xy" + word.lower().encode()), {}),
        (word.encode().hex().upper().encode(), {}),
        (b"", {"to": word}),
        (b"", {"x": base64.b64encode(b"x" + word.encode()).decode()}),
    ):
        worker.edge.put("pending/x", body, metadata)
        assert readable(worker.edge, SECRETS) == [word]
    worker.edge.clear()
    worker.edge.put(f"pending/{word}", b"")
    assert readable(worker.edge, SECRETS) == [word]


def test_what_the_worker_writes_to_its_log_and_what_it_throws_tells_nothing_either(worker: Worker) -> None:
    worker.edge.put(LIST, b"garbage")
    settings = {**SEALED, "WAKE_URL": "http://127.0.0.1:1/"}
    assert worker.afresh().take(Message(TELLING, sender=SENDER), settings).outcome == "accepted"
    status, thrown = worker.edge.post_for_words(TELLING, ALICE, SENDER, "keyless")
    assert status == 500
    expected = ("The list of recipients is not used", "WAKE_URL did not answer")
    due = time.monotonic() + 10
    while not all(words in worker.edge.log() for words in expected):
        assert time.monotonic() < due, worker.edge.log()[-2000:]
        time.sleep(0.02)
    written = worker.edge.log() + thrown
    assert not [word for word in [*SECRETS, PEM.splitlines()[1]] if word in written]


# -- keys --


def openssl(*arguments: str) -> str:
    """What openssl prints."""
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "spelling",
    [
        lambda pem: pem,
        lambda pem: pem.replace("\n", "\r\n"),
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: pem.strip(),
        lambda pem: f"\n  {pem}  \n\n",
        lambda pem: pem.replace("\n", " "),
        lambda pem: pem.splitlines()[1],
    ],
    ids=["as it is", "CRLF", "\\n in letters", "no last newline", "blanks around", "one line", "base64 alone"],
)
def test_a_key_made_by_openssl_works_however_its_lines_end(
    worker: Worker, tmp_path: Path, spelling: Callable[[str], str]
) -> None:
    key = tmp_path / "key.pem"
    openssl("genpkey", "-algorithm", "X25519", "-out", str(key))
    public = openssl("pkey", "-in", str(key), "-pubout")
    assert worker.take(Message(RAW), {"DRAIN_PUBLIC_KEY": spelling(public)}).outcome == "accepted"
    worker = replace(worker, opener=Opener(KeyRing([key], None)))
    assert worker.only().mail.raw == RAW


def test_a_changed_key_is_used_at_once(worker: Worker, tmp_path: Path) -> None:
    files = sealing.key_files(tmp_path, sealing.KEY, sealing.OTHER_KEY)
    for number, key in enumerate((sealing.KEY, sealing.OTHER_KEY, sealing.KEY)):
        worker.edge.clear()
        settings = {"DRAIN_PUBLIC_KEY": public_pem(key.public_key())}
        assert worker.take(Message(RAW), settings).outcome == "accepted"
        with_that_key = replace(worker, opener=Opener(KeyRing([files[number % 2]], None)))
        assert with_that_key.only().mail.raw == RAW


NO_KEYS = {
    "words": "garbage",
    "a blank": " ",
    "base64 of nothing": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
    "cut off": PEM[:60],
    "one byte more": PEM.replace("\n-----END", "AA==\n-----END"),
    "RSA": public_pem(generate_rsa_key(65537, 2048).public_key()),
    "Ed25519": public_pem(Ed25519PrivateKey.generate().public_key()),
    "P-256": public_pem(generate_ec_key(SECP256R1()).public_key()),
    "the private key": sealing.pem(sealing.KEY).decode(),
    # The shared secret would be zeros, whoever computes it (RFC 9180 7.1.4).
    "of low order": public_pem(X25519PublicKey.from_public_bytes(bytes(32))),
}


@pytest.mark.parametrize("key", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_with_a_key_that_is_none_the_sender_tries_again(worker: Worker, key: str) -> None:
    for more in ({}, PLAIN):
        outcome = worker.take(Message(RAW), {"DRAIN_PUBLIC_KEY": key, **more})
        assert outcome.outcome == "thrown"
        assert not [line for line in key.split() if len(line) > 20 and line in outcome.words]
        assert worker.edge.keys() == []


def check_that_a_key_is_needed(worker: Worker) -> None:
    for settings in ({}, {"DRAIN_PUBLIC_KEY": ""}, {"ORIGIN_TOKEN": TOKEN}):
        outcome = worker.take(Message(RAW), settings)
        assert outcome.outcome == "thrown", "it was not thrown"
        assert "ALLOW_PLAINTEXT" in outcome.words
        assert worker.edge.keys() == []


def test_without_a_key_the_sender_tries_again(worker: Worker) -> None:
    check_that_a_key_is_needed(worker)
    assert worker.edge.post(RAW, ALICE, SENDER, "keyless") == 500
    assert worker.edge.keys() == []


def test_with_a_token_that_drain_would_read_in_another_way_the_sender_tries_again(worker: Worker) -> None:
    for token in ("one, two", "", " \n", "tökén", "two\nlines"):
        outcome = worker.take(Message(RAW), {**SEALED, "ORIGIN_TOKEN": token})
        assert (outcome.outcome, outcome.words) == ("thrown", "ORIGIN_TOKEN is not printable ASCII without a comma.")
    assert worker.edge.keys() == []


# -- plain mail --


def check_that_plain_mail_has_to_be_asked_for(worker: Worker) -> None:
    for word in ("", "false", "1", "yes", "True", "TRUE", " true", "true "):
        outcome = worker.take(Message(RAW), {"ALLOW_PLAINTEXT": word})
        assert outcome.outcome == "thrown", f"{word!r}: it was not thrown"
    assert worker.edge.keys() == []


def test_mail_is_stored_in_the_clear_only_for_the_word_true(worker: Worker) -> None:
    check_that_plain_mail_has_to_be_asked_for(worker)


def check_that_a_key_wins(worker: Worker) -> None:
    assert worker.take(Message(RAW), {**SEALED, **PLAIN}).outcome == "accepted"
    with contextlib.suppress(NotMail):
        assert worker.only().kind is Kind.SEALED
        return
    raise AssertionError("it is not sealed")


def test_with_a_key_mail_is_sealed_whatever_is_allowed(worker: Worker) -> None:
    check_that_a_key_wins(worker)


@pytest.mark.parametrize(
    ("to", "kept"),
    [
        (ALICE, ALICE),
        ("Alice+News@EXAMPLE.test", "Alice+News@EXAMPLE.test"),
        ("grüße@münchen.example", "grüße@münchen.example"),
        ("🔑" * 50 + "@example.test", "🔑" * 50 + "@example.test"),
        ("a\r\nx-amz-meta-from: b@example.test", "a\r\nx-amz-meta-from: b@example.test"),
        ("x" * 241 + "@example.test", "x" * 241 + "@example.test"),
        ("x" * 242 + "@example.test", ""),
        ("x" * 10_000 + "@example.test", ""),
        ("ü" * 10_000 + "@example.test", ""),
        ("", ""),
    ],
)
def test_a_plain_object_has_the_envelope_beside_it_in_short_ascii(worker: Worker, to: str, kept: str) -> None:
    for number, message in enumerate((Message(RAW, to=to, sender=""), Message(RAW, to=ALICE, sender=to))):
        worker.edge.clear()
        assert worker.take(message, PLAIN).outcome == "accepted"
        (key,) = worker.edge.keys()
        body, metadata = worker.edge.get(key)
        assert body == RAW
        assert set(metadata) == {"to", "from"}
        for value in metadata.values():
            assert value.isascii()
            assert value.isprintable()
            assert len(value) < 400
        opened = believing_all(worker).only()
        assert opened.kind is Kind.PLAIN
        assert (opened.mail.recipient, opened.mail.sender) == ((kept, ""), (ALICE, kept))[number]


@pytest.mark.parametrize("name", ODD_MAILS.keys() - {"looks sealed"})
def test_any_bytes_are_stored_in_the_clear_as_they_were_sent(worker: Worker, name: str) -> None:
    assert worker.take(Message(ODD_MAILS[name]), PLAIN).outcome == "accepted"
    assert believing_all(worker).only().mail.raw == ODD_MAILS[name]


# -- a bucket in trouble --


def check_a_failing_put(worker: Worker) -> None:
    for settings in (SEALED, SEALED_WITHOUT_TOKEN, PLAIN):
        outcome = worker.take(Message(RAW), {**settings, "WAKE_URL": worker.home.url}, failing=["put"])
        assert outcome.outcome == "thrown", f"it was {outcome.outcome}"
        assert outcome.waited == ()
    assert worker.edge.keys() == []
    assert worker.home.wakes.empty()


def test_what_could_not_be_stored_is_tried_again_and_never_refused_and_wakes_nobody(worker: Worker) -> None:
    check_a_failing_put(worker)


def test_a_put_that_failed_after_all_was_written_is_tried_again_and_makes_one_object(worker: Worker) -> None:
    assert worker.take(Message(RAW), late_failing=["put"]).outcome == "thrown"
    before = worker.state()
    assert worker.take(Message(RAW)).outcome == "accepted"
    assert worker.state() == before
    assert worker.only().mail.raw == RAW


def test_one_mail_costs_one_put_and_nothing_else(worker: Worker) -> None:
    assert worker.take(Message(RAW), SEALED_WITHOUT_TOKEN).calls == ("put",)
    assert worker.take(Message(RAW), PLAIN).calls == ("put",)


# -- WAKE_URL --


def check_the_wake(worker: Worker) -> None:
    outcome = worker.take(Message(RAW), {**SEALED, "WAKE_URL": worker.home.url})
    wake = worker.home.wakes.get(timeout=10)
    assert wake.stored == worker.edge.keys("pending/"), "the mail was not there yet"
    assert (wake.method, wake.body) == ("POST", b"")
    assert (outcome.outcome, outcome.waited) == ("accepted", ("done",))
    assert worker.home.wakes.empty()


def test_home_is_woken_when_the_mail_is_stored(worker: Worker) -> None:
    check_the_wake(worker)


def test_home_is_woken_by_the_real_route_too(worker: Worker) -> None:
    assert worker.edge.post(RAW, ALICE, SENDER, "waking") == 200
    wake = worker.home.wakes.get(timeout=10)
    assert (wake.method, wake.body) == ("POST", b"")
    assert len(wake.stored) == 1


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1/", "http://nowhere.invalid/", "nonsense"])
def test_a_home_that_is_not_there_changes_nothing(worker: Worker, url: str) -> None:
    outcome = worker.take(Message(RAW), {**SEALED, "WAKE_URL": url})
    assert (outcome.outcome, outcome.waited) == ("accepted", ("done",) if url else ())
    assert worker.only().mail.raw == RAW


def test_a_home_that_answers_with_an_error_changes_nothing(worker: Worker) -> None:
    worker.home.status = 500
    check_the_wake(worker)


def check_a_hanging_wake(worker: Worker) -> None:
    with worker.home.hanging():
        settings = {**SEALED, "WAKE_URL": worker.home.url}
        outcome = worker.take(Message(RAW), settings, patience_ms=300)
        # The handler has ended, and home has not answered yet.
        assert (outcome.outcome, outcome.waited) == ("accepted", ("pending",))
    assert worker.only().mail.raw == RAW


def test_a_home_that_hangs_does_not_hold_up_the_sender(worker: Worker) -> None:
    check_a_hanging_wake(worker)


def test_a_home_that_hangs_is_given_up(worker: Worker) -> None:
    patched(*IMPATIENT)
    with worker.home.hanging():
        settings = {**SEALED, "WAKE_URL": worker.home.url}
        outcome = replace(worker, variant="impatient").take(Message(RAW), settings, patience_ms=1500)
        assert outcome.waited == ("done",)


def test_without_wake_url_there_is_no_request(worker: Worker) -> None:
    assert worker.take(Message(RAW)).waited == ()
    assert worker.home.wakes.empty()


# -- HPKE --


def check_the_rfcs_vector(worker: Worker) -> None:
    case = json.loads((Path(make.__file__).parent / "rfc9180.json").read_text("utf-8"))[0]
    given = {name: bytes.fromhex(case[name]) for name in case.keys() - {"description", "aead"}}
    enc, ciphertext = worker.edge.seal(
        given["pt"],
        public_key=given["pkRm"],
        info=given["info"],
        aad=given["aad"],
        ephemeral=(given["skEm"], given["pkEm"]),
        key_length=16,
        variant=worker.variant,
    )
    assert enc == given["enc"]
    assert ciphertext == given["ct"], "the ciphertext is another"


def test_hpke_gives_what_rfc_9180_says(worker: Worker) -> None:
    check_the_rfcs_vector(worker)


def check_our_vectors(worker: Worker) -> None:
    for case in json.loads(make.FILE.read_text("utf-8"))["good"]:
        key, ephemeral = bytes.fromhex(case["key"]), bytes.fromhex(case["ephemeral"])
        head = b"DRN1" + make.key_id(key)
        enc, ciphertext = worker.edge.seal(
            make.framed(case["header"].encode(), make.raw_of(case)),
            public_key=make.public(key),
            info=b"drain sealed v1" + make.key_id(key),
            ephemeral=(ephemeral, make.public(ephemeral)),
            variant=worker.variant,
        )
        body = head + enc + ciphertext
        if "object" in case:
            assert body.hex() == case["object"], "the object is another"
        else:
            assert hashlib.sha256(body).hexdigest() == case["object_sha256"]


def test_hpke_gives_the_objects_of_our_vectors(worker: Worker) -> None:
    check_our_vectors(worker)


def test_the_mails_of_our_vectors_get_their_names(worker: Worker) -> None:
    for case in json.loads(make.FILE.read_text("utf-8"))["good"]:
        worker.edge.clear()
        header = json.loads(case["header"])
        settings = SEALED_WITHOUT_TOKEN | ({} if case["token"] is None else {"ORIGIN_TOKEN": case["token"]})
        message = Message(make.raw_of(case), header["to"], header["from"])
        if not (case["token"] or "").isascii():
            continue  # the format has such tokens, the settings do not
        assert worker.take(message, settings).outcome == "accepted"
        assert worker.edge.keys() == [case["name"]], case["description"]


def test_every_seal_has_an_ephemeral_key_of_its_own(worker: Worker) -> None:
    encs = set()
    for _ in range(10):
        worker.edge.clear()
        worker.take(Message(RAW))
        (key,) = worker.edge.keys()
        encs.add(worker.edge.get(key)[0][12:44])
    assert len(encs) == 10


# -- that all this would be noticed --


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("overwrites", check_a_retry, "it was written again"),
        ("one buffer for all mails", check_many_at_once, "a mail was mixed with others"),
        ("decodes the mail", check_the_bytes, "the bytes of 'every byte' are others"),
        ("shows the recipient", check_that_nothing_is_readable, "something can be read"),
        ("shows the recipient in base64", check_that_nothing_is_readable, "something can be read"),
        ("recipient in lower case", check_the_names, "the name is another"),
        ("names without the token", check_the_names, "the name is another"),
        ("believes any Received line", check_the_ip, "no mark: the address is another"),
        ("takes more than 25 MiB", check_the_limit, "it was not rejected"),
        ("says nothing of a failed put", check_a_failing_put, "it was accepted"),
        ("rejects after a failed put", check_a_failing_put, "it was rejected"),
        ("plain whenever there is no key", check_that_a_key_is_needed, "it was not thrown"),
        ("plain for any word", check_that_plain_mail_has_to_be_asked_for, "'false': it was not thrown"),
        ("plain in spite of a key", check_that_a_key_wins, "it is not sealed"),
        ("waits for the wake", check_a_hanging_wake, "pending"),
        ("wakes too early", check_the_wake, "the mail was not there yet"),
        ("takes what is left of a mail", check_what_is_left_of_a_mail, "it was taken for the whole"),
        ("another label", check_the_rfcs_vector, "the ciphertext is another"),
        ("another label", check_our_vectors, "the object is another"),
    ],
)
def test_a_worker_with_this_fault_is_noticed(
    worker: Worker, fault: str, check: Callable[[Worker], None], words: str
) -> None:
    check_that_a_fault_is_noticed(worker, fault, check, words)
