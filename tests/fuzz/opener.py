"""Throws bytes at the opener: nothing may come out of it but a mail, `NotMail` or `KeyMissing`.

Run by test_fuzz.py; by hand, as long as you like::

    python -m tests.fuzz.opener CORPUS_FOLDER -runs=10000000
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["drain"]):
    from drain import mailbridge, sealed
    from drain.errors import KeyMissing, NotMail

from tests.sealing import bridge, opener, plaintext_of, seal

OPENER = opener(Path(tempfile.mkdtemp(prefix="drain-fuzz-")))
INSIDE = {"from": "b@y.test", "to": "a@x.test", "senderIp": None, "raw": "A: b\n", "receivedAt": "t"}


def changed(whole: bytes, data: bytes) -> bytes:
    """*whole* with *data* over a part of it."""
    place = int.from_bytes(data[:2], "big") % len(whole)
    return whole[:place] + data[2:] + whole[place + len(data[2:]) :]


SABOTAGE = "--sabotage"

SEALED, BRIDGED = seal(), bridge(INSIDE)
MADE: list[Callable[[bytes], bytes]] = [
    lambda data: changed(BRIDGED, data),
    lambda data: changed(SEALED, data),
    lambda data: b"DRN" + data,
]


def structured(names: Sequence[str], data: bytes) -> dict[str, Any]:
    """JSON with these names, each with a value of a kind that *data* says, or without one."""
    source = atheris.FuzzedDataProvider(data)
    kinds: list[Callable[[], Any]] = [
        lambda: source.ConsumeUnicode(8),  # half characters too
        lambda: None,
        lambda: source.ConsumeInt(4),
        source.ConsumeBool,
        lambda: [source.ConsumeUnicode(2)],
        lambda: {source.ConsumeUnicode(2): None},
        source.ConsumeRegularFloat,
    ]
    made = {}
    for name in names:
        kind = source.ConsumeIntInRange(0, len(kinds) + 8)
        if kind <= len(kinds):  # mostly text, or no value would be asked for but the first
            made[name] = kinds[kind % len(kinds)]()
        else:
            made[name] = "text"
    return made


def test_one_input(data: bytes) -> None:
    """One input; its first byte says as what: an object, or what an opened one held."""
    way, data = data[:1], data[1:]
    number = way[0] if way else 0
    try:
        if number >= 208:
            sealed._unpack(plaintext_of(structured(("to", "from", "received", "ip", "token"), data)))
        elif number >= 160:
            sealed._unpack(data)
        elif number >= 96:
            opened = OPENER.open(data, {"to": data.decode("latin-1")})
            assert opened.mail.raw
            assert len(opened.mail.identity) == 64
        elif number >= 64:
            OPENER.open(data, {})
        elif number >= 40:
            mailbridge._contents(data)
        elif number >= 3:
            fields = structured(("to", "from", "raw", "senderIp", "receivedAt"), data)
            mailbridge._contents(json.dumps(fields).encode())
        else:
            OPENER.open(MADE[number](data), {})
    except (NotMail, KeyMissing) as error:
        if not str(error):
            raise AssertionError("no words") from error


def seeds(folder: Path) -> None:
    """Inputs to begin with: what is good in each way."""
    header = json.dumps({"to": "a@x.test", "from": "", "received": "t", "ip": None, "token": "x"}).encode()
    good = {
        0: b"\x00\x00" + BRIDGED,
        1: b"\x00\x00" + SEALED,
        2: SEALED[3:],
        40: json.dumps(INSIDE).encode(),
        64: b"A: b\n",
        65: BRIDGED,
        96: b"=?utf-8?B?YUB4?=",
        160: plaintext_of(header),
        208: bytes(range(99)),
        3: bytes(range(99)),
    }
    for way, data in good.items():
        (folder / f"way-{way}").write_bytes(bytes([way]) + data)


def careless_text_of(values: Mapping[str, Any], name: str, *, optional: bool = False, limit: int | None = 0) -> str:
    """A fault to be found: it takes it for granted that what is there is text."""
    del limit
    value = values.get(name)
    if value is None:
        if optional:
            return ""
        raise NotMail("damaged", "It has no such field.")
    return str(value.strip())


if __name__ == "__main__":
    if SABOTAGE in sys.argv:
        sys.argv.remove(SABOTAGE)
        sealed.text_of = careless_text_of  # type: ignore[attr-defined]
    if folders := [Path(word) for word in sys.argv[1:] if not word.startswith("-")]:
        seeds(folders[0])
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
