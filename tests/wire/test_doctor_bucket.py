"""`drain doctor`: the bucket, at an S3 that can be told what to refuse."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from drain import assembly, config as configuration
from drain.bucket import Bucket
from drain.demo.s3 import Fault, S3Server, StoredObject
from drain.doctor import bucket as check
from drain.doctor.finding import Finding, Level
from drain.prefixes import Prefixes
from tests.http_fake import Answer, FakeHttp, tls_server
from tests.support import House, free_port

PREFIXES = Prefixes("pending/", "processed/", "quarantine/")
NAMES = ("pending/", "processed/", "quarantine/")


def bucket(house: House, **settings: str) -> Bucket:
    return assembly.bucket(configuration.load(house.environ(**settings))[0])


def rights(house: House, **settings: str) -> list[Finding]:
    return list(check.rights(bucket(house, **settings), NAMES))


def levels(found: list[Finding]) -> list[Level]:
    return [finding.level for finding in found]


# -- the clock --


@pytest.mark.parametrize(
    ("off", "level", "said"),
    [
        (0, Level.OK, "agrees with R2's"),
        (-50, Level.OK, "agrees with R2's"),
        (70, Level.WARNING, "s ahead of R2's"),
        (-300, Level.WARNING, "5 minutes behind R2's"),
        (1000, Level.FAILURE, "R2 refuses every request"),
        (-86400, Level.FAILURE, "24 hours behind"),
    ],
)
def test_the_clock_is_held_against_the_date_of_an_answer(s3: S3Server, off: float, level: Level, said: str) -> None:
    (finding,) = check.clock(s3.endpoint_url, now=lambda: time.time() + off)
    assert finding.level is level
    assert said in finding.words
    assert bool(finding.next) is (level is not Level.OK)


def test_the_part_of_a_second_that_a_date_leaves_out_is_not_counted() -> None:
    with FakeHttp() as server:
        server.answer = lambda request: Answer(headers={"Date": "Fri, 15 Jan 2027 08:00:00 GMT"})
        for now, level in ((1_800_000_060.9, Level.OK), (1_800_000_061.1, Level.WARNING)):
            (finding,) = check.clock(server.url, now=lambda now=now: now)  # type: ignore[misc]
            assert finding.level is level


def test_a_slow_answer_is_not_a_wrong_clock(s3: S3Server) -> None:
    times = iter([time.time() - 100, time.time()])
    (finding,) = check.clock(s3.endpoint_url, now=lambda: next(times))
    assert finding.level is Level.OK


def test_without_an_answer_or_a_date_the_clock_is_unknown() -> None:
    (finding,) = check.clock(f"http://127.0.0.1:{free_port()}")
    assert finding.level is Level.UNKNOWN
    assert "refuses connections" in finding.words
    with FakeHttp() as server:
        for date in ({}, {"Date": "yesterday"}):
            server.answer = lambda request, date=date: Answer(headers=date)  # type: ignore[misc]
            (finding,) = check.clock(server.url)
            assert finding.level is Level.UNKNOWN
            assert "no date" in finding.words


def test_a_certificate_that_is_not_believed_leads_to_the_clock_too(tmp_path: Path) -> None:
    """By a clock that is years off every certificate is not yet good, or no more."""
    context, _ = tls_server(tmp_path)
    with FakeHttp(tls=context) as server:
        (finding,) = check.clock(server.url)
    assert finding.level is Level.UNKNOWN
    assert "look at `date` first" in finding.next


def test_a_clock_that_the_signature_shows_to_be_wrong_is_named_as_that(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(403, "RequestTimeTooSkewed")
    found = rights(house)
    assert levels(found) == [Level.FAILURE, Level.UNKNOWN]
    assert "the clock of this machine is wrong by more than 15 minutes" in found[0].words
    assert "Set the clock" in found[0].next


# -- what the token may do --


def test_a_token_with_all_rights_is_ok_and_nothing_is_left(house: House) -> None:
    house.put("waits")
    found = rights(house)
    assert levels(found) == [Level.OK] * 3
    assert house.keys() == ["pending/waits"]
    asked = house.s3.requests
    assert min(asked[name] for name in ("PutObject", "GetObject", "CopyObject", "DeleteObject")) > 0
    assert asked["ListObjectsV2"] == 3


def test_the_probe_is_under_no_prefix_that_a_pass_looks_at(house: House) -> None:
    seen: list[str] = []
    house.s3.fault = lambda operation, key: seen.append(key)
    rights(house)
    probes = {key for key in seen if key}
    assert len(probes) == 2
    # Every prefix of a configuration ends in a slash.
    assert not any("/" in key for key in probes)


def denied(*operations: str) -> Callable[[str, str], Fault | None]:
    return lambda operation, key: Fault(403, "AccessDenied") if operation in operations else None


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("ListObjectsV2", "Listing pending/ failed."),
        ("PutObject", "Writing (PutObject) failed."),
        ("GetObject", "Reading (GetObject) failed."),
        ("CopyObject", "Copying (CopyObject) failed."),
        ("DeleteObject", "Deleting (DeleteObject) failed."),
    ],
)
def test_a_right_that_is_missing_is_named(house: House, operation: str, said: str) -> None:
    house.s3.fault = denied(operation)
    found = rights(house)
    (failure,) = [finding for finding in found if finding.level is Level.FAILURE]
    assert failure.words.startswith(said)
    assert "the token may not do this (AccessDenied)" in failure.words
    assert failure.next == "It needs Object Read & Write on this bucket."
    left = house.keys()
    if operation == "DeleteObject":
        (warning,) = [finding for finding in found if finding.level is Level.WARNING]
        assert all(name in warning.words for name in left)
        assert len(left) == 2
    else:
        assert not left


def test_a_token_that_may_only_read_is_one_failure_and_the_rest_unknown(house: House) -> None:
    house.s3.fault = denied("PutObject", "CopyObject")
    assert levels(rights(house)) == [Level.OK, Level.FAILURE, Level.UNKNOWN]


def test_a_prefix_that_may_not_be_listed_is_named(house: House) -> None:
    asked: list[str] = []

    def fault(operation: str, key: str) -> Fault | None:
        asked.append(operation)
        return Fault(403, "AccessDenied") if len(asked) >= 3 else None

    house.s3.fault = fault
    assert rights(house)[0].words.startswith("Listing quarantine/ failed.")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"R2_SECRET_ACCESS_KEY": "0" * 64}, "the secret access key is wrong"),
        ({"R2_ACCESS_KEY_ID": "0" * 32}, "the access key id is unknown"),
        ({"R2_BUCKET": "other"}, "there is no such bucket"),
    ],
)
def test_wrong_keys_and_a_wrong_bucket_are_told_apart(house: House, settings: dict[str, str], said: str) -> None:
    found = rights(house, **settings)
    assert levels(found) == [Level.FAILURE, Level.UNKNOWN]
    assert said in found[0].words
    assert next(iter(settings)) in found[0].next


def test_an_r2_that_cannot_be_reached_is_a_failure(house: House) -> None:
    found = rights(house, R2_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    assert levels(found) == [Level.FAILURE, Level.UNKNOWN]
    assert "could not be reached" in found[0].words


def test_a_log_in_page_in_the_way_is_a_failure(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(body=b"<html><body>Welcome to the hotel</body></html>")
    found = rights(house)
    assert found[0].level is Level.FAILURE
    assert found[0].next


def test_a_probe_that_comes_back_changed_is_a_failure(house: House) -> None:
    def fault(operation: str, key: str) -> None:
        if operation == "GetObject":
            house.s3.objects[key] = StoredObject(b"x" * len(house.s3.objects[key].body))

    house.s3.fault = fault
    found = rights(house)
    assert Level.FAILURE in levels(found)
    assert "something else than was written" in found[1].words
    assert not house.keys()


def test_a_probe_that_is_gone_before_it_is_copied_is_a_failure(house: House) -> None:
    def fault(operation: str, key: str) -> None:
        if operation == "CopyObject":
            house.s3.objects.clear()

    house.s3.fault = fault
    found = rights(house)
    assert levels(found) == [Level.OK, Level.FAILURE]
    assert "found the probe changed or gone" in found[1].words


def test_a_bucket_lock_that_keeps_what_is_deleted_is_a_failure(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(body=b"") if operation == "DeleteObject" else None
    found = rights(house)
    assert found[-1].level is Level.FAILURE
    assert "Deleted, and still there" in found[-1].words


def test_a_put_whose_answer_is_lost_is_cleaned_up_too(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(500, after=True) if operation == "PutObject" else None
    found = rights(house)
    assert Level.FAILURE in levels(found)
    assert house.s3.requests["PutObject"] > 0
    assert not house.keys()


# -- lifecycle rules --


def rule(prefix: str, days: int | None = None, *, status: str = "Enabled", form: str = "filter", what: str = "") -> str:
    where = f"<Prefix>{prefix}</Prefix>"
    where = {"filter": f"<Filter>{where}</Filter>", "and": f"<Filter><And>{where}</And></Filter>", "old": where}[form]
    what = what or f"<Expiration><Days>{days}</Days></Expiration>"
    return f"<Rule><ID>r</ID><Status>{status}</Status>{where}{what}</Rule>"


PROCESSED = rule("processed/", 7)


def lifecycle(house: House, *rules: str, alert_days: float = 3) -> list[Finding]:
    body = f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>".encode()
    house.s3.fault = lambda operation, key: Fault(body=body) if operation == "GET" else None
    return list(check.lifecycle(bucket(house), PREFIXES, alert_days=alert_days))


def test_a_rule_for_processed_and_a_long_one_for_pending_are_ok(house: House) -> None:
    found = lifecycle(house, PROCESSED, rule("pending/", 30))
    assert levels(found) == [Level.OK, Level.OK]
    assert "after 30 days" in found[0].words
    assert "after 7 days" in found[1].words


def test_no_rule_for_pending_is_ok(house: House) -> None:
    assert levels(lifecycle(house, PROCESSED)) == [Level.OK, Level.OK]


@pytest.mark.parametrize("form", ["filter", "and", "old"])
@pytest.mark.parametrize("prefix", ["", "pend", "pending/", "pending/a"])
@pytest.mark.parametrize(("days", "level"), [(3, Level.FAILURE), (9, Level.WARNING), (10, Level.OK)])
def test_a_rule_that_deletes_pending_mail_soon_after_the_alert_is_told(
    house: House, form: str, prefix: str, days: int, level: Level
) -> None:
    found = lifecycle(house, PROCESSED, rule(prefix, days, form=form))[0]
    assert found.level is level
    assert f"after {days} days" in found.words


def test_a_rule_with_a_date_deletes_all_on_that_day_and_is_a_failure(house: House) -> None:
    what = "<Expiration><Date>2030-01-01T00:00:00.000Z</Date></Expiration>"
    found = lifecycle(house, PROCESSED, rule("pending/", what=what))[0]
    assert found.level is Level.FAILURE
    assert "a fixed date" in found.words


def test_without_an_alert_any_rule_for_pending_is_a_warning(house: House) -> None:
    found = lifecycle(house, PROCESSED, rule("pending/", 30), alert_days=0)[0]
    assert (found.level, found.next) == (Level.WARNING, "Set ALERT_DAYS=3.")


def test_a_rule_that_is_off_or_deletes_nothing_or_is_about_others_does_not_count(house: House) -> None:
    uploads = (
        "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"
    )
    others = [rule("pending/", 1, status="Disabled"), rule("", what=uploads), rule("backup/", 1)]
    found = lifecycle(house, PROCESSED, *others)
    assert levels(found) == [Level.OK, Level.OK]
    assert "No rule deletes" in found[0].words


@pytest.mark.parametrize("form", ["filter", "and", "old"])
def test_a_rule_about_others_does_not_count_in_any_form(house: House, form: str) -> None:
    found = lifecycle(house, PROCESSED, rule("backup/", 1, form=form))
    assert levels(found) == [Level.OK, Level.OK]


def test_no_rule_for_processed_is_a_warning_that_it_grows(house: House) -> None:
    for rules in ((), (rule("processed/old/", 7),)):
        found = lifecycle(house, *rules)
        assert levels(found) == [Level.OK, Level.WARNING]
        assert "grows for ever" in found[1].words


def test_a_rule_that_deletes_quarantine_is_a_warning(house: House) -> None:
    found = lifecycle(house, PROCESSED, rule("quarantine/", 7))
    assert levels(found) == [Level.OK, Level.OK, Level.WARNING]


def test_no_rules_at_all_is_told_by_an_error_and_is_none(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(404, "NoSuchLifecycleConfiguration")
    found = list(check.lifecycle(bucket(house), PREFIXES, alert_days=3))
    assert levels(found) == [Level.OK, Level.WARNING]


def test_rules_that_the_token_may_not_read_are_unknown_with_a_place_to_look(house: House) -> None:
    house.s3.fault = lambda operation, key: Fault(403, "AccessDenied")
    (finding,) = check.lifecycle(bucket(house), PREFIXES, alert_days=3)
    assert finding.level is Level.UNKNOWN
    assert "not for this token to read" in finding.words
    assert "Object lifecycle rules" in finding.next


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (403, "SignatureDoesNotMatch")])
def test_rules_that_cannot_be_read_for_another_reason_are_unknown(house: House, status: int, code: str) -> None:
    house.s3.fault = lambda operation, key: Fault(status, code)
    (finding,) = check.lifecycle(bucket(house), PREFIXES, alert_days=3)
    assert finding.level is Level.UNKNOWN
    assert code in finding.words


def test_an_endpoint_that_is_gone_leaves_the_rules_unknown(house: House, tmp_path: Path) -> None:
    gone = bucket(house, R2_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    (finding,) = check.lifecycle(gone, PREFIXES, alert_days=3)
    assert finding.level is Level.UNKNOWN
