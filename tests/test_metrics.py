"""The metrics: read back by a strict parser of their format, and their file always whole."""

import os
import re
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from drain import metrics
from drain.errors import ConfigError
from drain.status import Pending, Status
from tests.test_page import EMPTY, HOSTILE, NOW, days, rich

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_LABELS = re.compile(rf"{_LABEL}(?:,|$)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)")
_UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


def parse(text: str) -> Samples:
    """The samples of a text in Prometheus' format 0.0.4; AssertionError for whatever it does not allow.

    https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details
    """
    assert text.endswith("\n")
    samples: Samples = {}
    helped, typed = set(), set()
    family = ""
    for line in text[:-1].split("\n"):
        if found := re.fullmatch(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\\\|\\n)+)", line):
            assert found[1] not in helped
            helped.add(found[1])
            continue
        if found := re.fullmatch(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)", line):
            family = found[1]
            assert family not in typed
            assert family in helped
            typed.add(family)
            continue
        found = _SAMPLE.fullmatch(line)
        assert found, line
        # All lines of a metric stand together, below its TYPE.
        assert found[1] == family
        labels = []
        rest = found[2] or ""
        while rest:
            label = _LABELS.match(rest)
            assert label, rest
            labels.append((label[1], re.sub(r"\\[\\n\"]", lambda escape: _UNESCAPED[escape[0]], label[2])))
            rest = rest[label.end() :]
        assert len({name for name, _ in labels}) == len(labels)
        key = (found[1], tuple(sorted(labels)))
        assert key not in samples
        samples[key] = float(found[5])
    return samples


def of(status: Status) -> dict[str, float]:
    """The samples, as ``name{label}`` of their only label's value."""
    found = parse(metrics.text(status))
    return {
        name + ("{" + ",".join(value for _, value in labels) + "}" if labels else ""): value
        for (name, labels), value in found.items()
    }


def test_the_parser_refuses_what_the_format_does_not_allow() -> None:
    good = '# HELP a_b Words.\n# TYPE a_b gauge\na_b{x="1\\n\\"\\\\",y=""} 1\n'
    assert parse(good) == {("a_b", (("x", '1\n"\\'), ("y", ""))): 1.0}
    for bad in (
        good[:-1],
        good.replace("gauge", "gage"),
        good.replace("a_b{", "a-b{"),
        good.replace('y=""', 'x=""'),
        good.replace('y=""', 'y="""'),
        good.replace('y=""', 'y="\\q"'),
        good + good,
        good + "c 1\n",
        good + 'a_b{x="1\\n\\"\\\\",y=""} 2\n',
        good.replace("} 1", "} one"),
        "# TYPE a gauge\na 1\n",
    ):
        with pytest.raises((AssertionError, ValueError)):
            parse(bad)


def test_all_that_is_known_is_there() -> None:
    found = of(rich())
    assert found["drain_pending_mails"] == 3
    assert found["drain_pending_oldest_timestamp_seconds"] == NOW - 900
    assert found["drain_last_pass_timestamp_seconds"] == NOW - 42
    assert found["drain_last_pass_success"] == 1
    assert found["drain_today_mails{delivered}"] == rich().today.delivered
    assert found["drain_week_mails{quarantined}"] == rich().week.quarantined
    assert found["drain_today_delay_p95_seconds"] == rich().days[-1].delay_p95
    assert found["drain_deferred_mails{greylisted}"] == 2
    assert found["drain_quarantine_mails{spam}"] == 11
    assert found["drain_unfinished_mails{injecting}"] == 1
    assert found["drain_missing_mails"] == 1
    assert found["drain_relay_mails{held}"] == 1
    assert found["drain_relay_week_mails{failed}"] == 2
    assert found["drain_alerts"] == 1
    assert found["drain_alert_since_timestamp_seconds{filter,ai}"] == NOW - 9000
    assert found["drain_schema_version{ledger}"] == 3
    assert found["drain_build_info{3.11.2,0.1.0}"] == 1


def test_what_is_not_known_is_left_out_and_not_nought() -> None:
    found = of(EMPTY)
    assert set(found) == {"drain_build_info{3.11.2,0.1.0}", "drain_unreadable_files", "drain_status_timestamp_seconds"}
    silent = of(replace(rich(), pending=Pending(seen_at=NOW, live=True, trouble="R2 is away.")))
    assert "drain_pending_mails" not in silent


def test_nothing_found_is_nought_where_it_was_looked() -> None:
    found = of(replace(EMPTY, days=days(), schemas={"ledger": 3, "logbook": 1}))
    assert found["drain_today_mails{delivered}"] == found["drain_missing_mails"] == found["drain_alerts"] == 0


def test_names_have_drain_in_front_and_base_units() -> None:
    for name in {key.split("{")[0] for key in of(rich())}:
        assert name.startswith("drain_")
        assert name.endswith(("_seconds", "_mails", "_info", "_version", "_files", "_alerts", "_success")), name


def test_words_of_strangers_come_through_whole_and_harmless() -> None:
    odd = f'{HOSTILE}\\n"\n'
    status = replace(rich(), quarantine={odd: 4})
    assert of(status)[f"drain_quarantine_mails{{{odd}}}"] == 4


def test_two_alerts_of_one_name_are_one_sample() -> None:
    """A file with the same sample twice is refused as a whole."""
    alerts = rich().alerts * 2
    assert of(replace(rich(), alerts=alerts))["drain_alerts"] == 1


# -- the file --


def test_the_file_is_readable_to_all_and_has_no_other_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "drain.prom"
    old = os.umask(0o077)
    try:
        metrics.write(path, "one\n", metrics.MODE)
        metrics.write(path, "two\n", metrics.MODE)
    finally:
        os.umask(old)
    assert path.read_text() == "two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_is_for_its_owner_until_a_person_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    metrics.write(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    metrics.write(path, "two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_who_reads_meanwhile_sees_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "drain.prom"
    sizes = (100_000, 200_000)
    metrics.write(path, "x" * sizes[0], metrics.MODE)
    done = threading.Event()
    seen: set[int] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(len(path.read_bytes()))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        metrics.write(path, "x" * sizes[number % 2], metrics.MODE)
    done.set()
    reader.join(10)
    assert seen
    assert seen <= set(sizes)


def test_what_is_beside_it_is_nothing_that_the_collector_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr(os, "fchmod", lambda *_: names.extend(path.name for path in tmp_path.iterdir()))
    metrics.write(tmp_path / "drain.prom", "one\n", metrics.MODE)
    assert len(names) == 1
    assert not names[0].endswith(".prom")
    assert names[0].startswith(".")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "drain.prom"
    link.symlink_to(tmp_path / "real" / "drain.prom")
    metrics.write(link, "one\n", metrics.MODE)
    assert link.is_symlink()
    assert (tmp_path / "real" / "drain.prom").read_text() == "one\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_another_s_link_is_replaced_and_what_it_points_at_stays(tmp_path: Path) -> None:
    secret = tmp_path / "drain.env"
    secret.write_text("INJECT_PASS=x\n")
    link = tmp_path / "drain.prom"
    link.symlink_to(secret)
    os.lchown(link, 65534, 65534)
    metrics.write(link, "one\n", metrics.MODE)
    assert secret.read_text() == "INJECT_PASS=x\n"
    assert not link.is_symlink()
    assert link.read_text() == "one\n"


def test_what_cannot_be_written_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/drain\.prom cannot be written: No such file or directory\."):
        metrics.write(tmp_path / "nowhere" / "drain.prom", "one\n")
    with pytest.raises(ConfigError, match="is not a file"):
        metrics.write(tmp_path, "one\n")
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_not_replaced_by_a_file() -> None:
    """Root could do that to /dev/null."""
    with pytest.raises(ConfigError, match="/dev/null is not a file"):
        metrics.write(Path("/dev/null"), "one\n")


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "drain.prom"
    metrics.write(path, "one\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        metrics.write(path, "two\n")
    assert path.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [path]
