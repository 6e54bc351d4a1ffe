"""A mail's whole way: Worker in workerd, local R2, its S3 API, `drain once`, a real mail server's mailbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.real.edge import Edge, Message, Route
from tests.real.house import ALICE, REFUSED_BY_MADDY, SENDER, RealHouse, as_filed, corpus, corpus_as_filed
from tests.real.maddy import Maddy
from tests.sealing import KEY, key_files

TOKEN = "shared by both ends"
WORKER = {
    "DRAIN_PUBLIC_KEY": KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "ORIGIN_TOKEN": TOKEN,
}


@pytest.fixture(scope="module")
def running_edge() -> Iterator[Edge]:
    with Edge({"sealed": Route(WORKER)}, {}) as edge:
        yield edge


@pytest.fixture
def edge(running_edge: Edge) -> Edge:
    running_edge.clear()
    return running_edge


@pytest.fixture
def home(edge: Edge, server: object, tmp_path: Path) -> RealHouse:
    return RealHouse(edge, server, tmp_path / "state")  # type: ignore[arg-type]


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    return {"PRIVATE_KEY_FILE": str(key_files(tmp_path, KEY)[0]), "ORIGIN_TOKEN": TOKEN}


def test_all_77_mails_go_the_whole_way(edge: Edge, home: RealHouse, keys: dict[str, str]) -> None:
    """Byte for byte, but for the blank that Postfix takes from `Fro :` in one of them."""
    mails = corpus()
    routed = 0
    for name, raw in mails.items():
        # Two of the 77 are alike, and to one address they would be one mail.
        to = f"alice+{name}@example.test"
        if edge.post(raw, to, SENDER, "sealed") == 200:
            routed += 1
        else:  # the simulator's route takes no mail without Message-ID or From
            assert edge.call(Message(raw, to, SENDER), WORKER).outcome == "accepted"
    print(f"{routed} by the simulator's route for mail, {77 - routed} by a call of the handler")
    assert routed > 20
    assert len(edge.keys("pending/")) == 77
    stored = [edge.get(key)[0] for key in edge.keys("pending/")]
    assert not any(raw in body for body in stored for raw in mails.values())

    refused = REFUSED_BY_MADDY if isinstance(home.server, Maddy) else set()
    summary = home.pass_(**keys)
    assert summary["delivered"] == 77 - len(refused)
    assert home.filed(ALICE) == corpus_as_filed(home.server)
    assert len(edge.keys("processed/")) == 77 - len(refused)


def test_a_mail_of_25_mib_goes_the_whole_way(edge: Edge, home: RealHouse, keys: dict[str, str]) -> None:
    head = b"From: carol@example.net\r\nSubject: big\r\n\r\n"
    lines = (b"\xe4" * 998 + b"\r\n") * ((25 * 1024 * 1024 - len(head)) // 1000)
    assert edge.call(Message(head + lines, ALICE, SENDER), WORKER).outcome == "accepted"
    assert home.pass_(**keys)["delivered"] == 1
    assert home.filed(ALICE) == [as_filed(head + lines)]


def test_who_puts_mail_into_the_bucket_without_the_token_reaches_nobody(
    edge: Edge, home: RealHouse, keys: dict[str, str]
) -> None:
    raw = b"From: carol@example.net\r\nSubject: forged\r\n\r\n\r\n"
    stranger = {**WORKER, "ORIGIN_TOKEN": "a guess"}
    assert edge.call(Message(raw, ALICE, SENDER), stranger).outcome == "accepted"
    home.put("plain", raw)
    assert home.pass_(**keys)["quarantined"] == 2
    assert home.filed(ALICE) == []
