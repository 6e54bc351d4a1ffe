"""``python -m bench``: the table, on standard output."""

import argparse
import compileall
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sqlite3
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import drain
from bench import works
from bench.endpoint import Endpoint
from bench.figures import Row, table
from bench.runs import Stage
from bench.sink import Sink

_PACKAGES = ("boto3", "botocore", "urllib3", "cryptography")
_FSYNCS = 50
_FSYNC_BYTES = 10_000


def main(argv: Sequence[str] | None = None) -> int:
    """1 if there is an error among the rows; a goal that is not met is none."""
    arguments = _arguments(argv)
    if arguments.list:
        for work in works.WORKS.values():
            print(f"{work.name:10}{work.what}")
        return 0
    # As an installed drain is; where Python may not write them, each start would compile it all.
    compileall.compile_dir(Path(drain.__file__).parent, quiet=2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    busy, begun = os.getloadavg()[0], time.monotonic()
    rows: list[Row] = []
    try:
        with _stage() as stage:
            machine = _machine(stage.folder, busy)
            for name in arguments.only or works.WORKS:
                rows += works.measured(works.WORKS[name], stage, arguments.rounds, quick=arguments.quick)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    machine["seconds"] = round(time.monotonic() - begun)
    print("\n".join([*(f"{name}: {value}" for name, value in machine.items()), ""]))
    if arguments.quick:
        print("Quick: this shows that everything runs; the figures say nothing.\n")
    print("\n".join(table(rows)))
    if arguments.json:
        about = {"machine": machine, "quick": arguments.quick, "rounds": arguments.rounds}
        text = json.dumps({**about, "rows": [row.as_json() for row in rows]}, indent=1, ensure_ascii=False)
        arguments.json.write_text(f"{text}\n", encoding="utf-8")
    return int(any(row.error for row in rows))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What drain costs, beside a plain drain.")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of each work (default: 3)")
    parser.add_argument("--only", type=_names, metavar="NAME[,NAME]", help="these works only")
    parser.add_argument("--quick", action="store_true", help="small counts: whether it runs, not what it costs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("--list", action="store_true", help="say what the works are, and end")
    arguments = parser.parse_args(argv)
    if arguments.rounds < 1:
        parser.error("--rounds wants one or more")
    return arguments


def _names(given: str) -> list[str]:
    names = given.split(",")
    for name in names:
        if name not in works.WORKS:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(works.WORKS)}")
    return names


@contextlib.contextmanager
def _stage() -> Iterator[Stage]:
    # Where the ledgers lie: on a disk, if the person's folder for temporary files is on one.
    with tempfile.TemporaryDirectory(prefix="drain-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Endpoint(folder) as endpoint, Sink() as sink:
            yield Stage(endpoint, sink, folder)


def _machine(folder: Path, busy: float) -> dict[str, object]:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return {
        "machine": f"{os.cpu_count()} CPUs ({platform.machine()}), load {busy:.2f} before",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}, SQLite {sqlite3.sqlite_version}",
        "packages": ", ".join(versions),
        "one fsync of 10 KB, ms": round(_fsync(folder) * 1000, 2),
    }


def _fsync(folder: Path) -> float:
    """Seconds, the median."""
    taken = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(_FSYNCS):
            file.write(b"\0" * _FSYNC_BYTES)
            file.flush()
            begun = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
