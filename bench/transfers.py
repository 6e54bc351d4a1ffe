"""Passes over a backlog: on a far link and a near one, on a narrow one, of big mail and of sealed mail."""

from collections import Counter
from collections.abc import Mapping

from bench.figures import AT_LEAST, AT_MOST, Figure, Goal, Turn, Work, mib, scaled
from bench.link import Link
from bench.runs import DRAIN, PEER, Cost, Stage
from drain import keys

FAR_SECONDS = 0.1
_SMALL = 20_000
_MEGABYTE = 1_000_000
_BIG = 25 * 1024 * 1024  # the most that Cloudflare takes
_RATE = 20e6 / 8  # bytes a second


def far(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """Time at 100 ms: drain with all mails; the peer with few and with twice as many, since it takes each alike."""
    mails, few = turn.of(500, 20), turn.of(20, 2)
    with Link(stage.endpoint.port, round_trip_seconds=FAR_SECONDS) as link:
        costs = []
        for count in (few, 2 * few):
            stage.load(count, _SMALL)
            costs.append(stage.cost(PEER, count, link.port))
        stage.load(mails, _SMALL)
        drain = stage.cost(DRAIN, mails, link.port)
    peer = scaled(costs[0].seconds, costs[1].seconds, few, 2 * few, mails)
    return {
        "time, peer ÷ drain": peer / drain.seconds,
        "time, drain": drain.seconds,
        "time, peer, scaled": peer,
        "a mail, peer, of the first": costs[0].seconds / few,
        "a mail, peer, of the others": (costs[1].seconds - costs[0].seconds) / few,
    }


def near(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """Both with all mails, without a link between; and what each asked of the bucket."""
    mails = turn.of(500, 20)
    costs: dict[tuple[str, ...], Cost] = {}
    connections: dict[tuple[str, ...], int] = {}
    for command in (PEER, DRAIN):
        stage.load(mails, _SMALL)
        costs[command] = stage.cost(command, mails)
        connections[command] = stage.endpoint.connections()
    # Of drain, which was the last.
    asked = Counter(stage.endpoint.requests())
    calls = {"GET": asked.pop("GetObject", 0), "COPY": asked.pop("CopyObject", 0)}
    calls["delete"] = asked.pop("DeleteObject", 0)
    lists = asked.pop("ListObjectsV2", 0)
    peer, drain = costs[PEER], costs[DRAIN]
    return {
        "time, peer ÷ drain": peer.seconds / drain.seconds,
        "CPU, drain ÷ peer": drain.cpu_seconds / peer.cpu_seconds,
        "mails a second, drain": mails / drain.seconds,
        "mails a second, peer": mails / peer.seconds,
        "CPU a mail, drain": drain.cpu_seconds / mails * 1000,
        "CPU a mail, peer": peer.cpu_seconds / mails * 1000,
        **{f"{name} a mail": count / mails for name, count in calls.items()},
        "LIST a thousand mails": lists / -(-mails // 1000),
        "other requests": asked.total(),
        "connections, drain": connections[DRAIN],
        "connections, peer": connections[PEER],
        "peak, drain": mib(drain.peak_bytes),
        "peak, peer": mib(peer.peak_bytes),
    }


def narrow(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """How much of a link's bandwidth is used."""
    mails = turn.of(100, 4)
    stage.load(mails, _MEGABYTE)
    with Link(stage.endpoint.port, round_trip_seconds=FAR_SECONDS, bytes_per_second=_RATE) as link:
        drain = stage.cost(DRAIN, mails, link.port)
    return {"achieved ÷ link's": mails * _MEGABYTE / drain.seconds / _RATE, "time": drain.seconds}


def big(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """The memory that the largest mails want."""
    mails = turn.of(20, 2)
    stage.load(mails, turn.of(_BIG, _MEGABYTE))
    drain = stage.cost(DRAIN, mails)
    return {"peak": mib(drain.peak_bytes), "time": drain.seconds}


def sealed(stage: Stage, turn: Turn) -> Mapping[str, float]:
    """What opening costs."""
    mails = turn.of(500, 20)
    key = stage.folder / "key.pem"
    if not key.exists():
        keys.make(key)
    stage.load(mails, _SMALL)
    plain = stage.cost(DRAIN, mails)
    stage.load(mails, _SMALL, sealed_for=key)
    opened = stage.cost(DRAIN, mails, settings={"PRIVATE_KEY_FILE": str(key)})
    return {
        "CPU, sealed ÷ plain": opened.cpu_seconds / plain.cpu_seconds,
        "CPU a mail, sealed": opened.cpu_seconds / mails * 1000,
        "CPU a mail, plain": plain.cpu_seconds / mails * 1000,
    }


_ONE = Goal(AT_MOST, 1.0)
_SCALED = (
    "The peer's time for 500 mails is that of 20, and 480 times what a mail more takes in a pass over 40: "
    "the start counts once. `of the first` is the pass over 20, start and all, by 20."
)

WORKS = (
    Work(
        "far",
        "500 mails of 20 KB, 100 ms",
        far,
        (
            Figure("time, peer ÷ drain", Goal(AT_LEAST, 50.0), note=_SCALED),
            Figure("time, drain", unit="s"),
            Figure("time, peer, scaled", unit="s", note=_SCALED),
            Figure("a mail, peer, of the first", unit="s", note=_SCALED),
            Figure("a mail, peer, of the others", unit="s", note=_SCALED),
        ),
    ),
    Work(
        "near",
        "500 mails of 20 KB, 0 ms",
        near,
        (
            Figure("time, peer ÷ drain", Goal(AT_LEAST, 2.0)),
            Figure("CPU, drain ÷ peer", _ONE),
            Figure("mails a second, drain"),
            Figure("mails a second, peer"),
            Figure("CPU a mail, drain", unit="ms"),
            Figure("CPU a mail, peer", unit="ms"),
            Figure("GET a mail", _ONE),
            Figure("COPY a mail", _ONE),
            Figure("delete a mail", _ONE),
            Figure("LIST a thousand mails", _ONE),
            Figure("other requests", Goal(AT_MOST, 0.0)),
            Figure("connections, drain"),
            Figure("connections, peer"),
            Figure("peak, drain", unit="MiB"),
            Figure("peak, peer", unit="MiB"),
        ),
    ),
    Work(
        "narrow",
        "100 mails of 1 MB, 20 Mbit/s, 100 ms",
        narrow,
        (
            Figure(
                "achieved ÷ link's",
                Goal(AT_LEAST, 0.9),
                note="Bytes of the objects by the time from the process's start to its end, by the link's rate.",
            ),
            Figure("time", unit="s"),
        ),
    ),
    Work(
        "big", "20 mails of 25 MiB", big, (Figure("peak", Goal(AT_MOST, 160.0), unit="MiB"), Figure("time", unit="s"))
    ),
    Work(
        "sealed",
        "500 mails of 20 KB, sealed",
        sealed,
        (
            Figure("CPU, sealed ÷ plain", Goal(AT_MOST, 1.2)),
            Figure("CPU a mail, sealed", unit="ms"),
            Figure("CPU a mail, plain", unit="ms"),
        ),
    ),
)
