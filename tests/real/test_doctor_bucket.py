"""`drain doctor` at R2's simulator, which checks signatures and compares dates as R2 does."""

from drain import assembly, config as configuration
from drain.doctor import bucket as check
from drain.doctor.finding import Level
from drain.settings import Config
from tests.real.r2 import R2

PREFIXES = ("pending/", "processed/", "quarantine/")


def settings(r2: R2, **more: str) -> Config:
    environ = {
        "R2_ENDPOINT_URL": r2.endpoint_url,
        "R2_ACCESS_KEY_ID": r2.access_key_id,
        "R2_SECRET_ACCESS_KEY": r2.secret_access_key,
        "R2_BUCKET": r2.bucket,
        "DRAIN_ENV_FILE": "/dev/null",
        **more,
    }
    return configuration.load(environ, complete=False)[0]


def test_keys_with_all_rights_are_ok_and_nothing_is_left(r2: R2) -> None:
    r2.put("pending/waits", b"mail")
    found = list(check.rights(assembly.bucket(settings(r2)), PREFIXES))
    assert [finding.level for finding in found] == [Level.OK] * 3
    assert r2.keys() == ["pending/waits"]


def test_a_wrong_secret_is_named(r2: R2) -> None:
    found = list(check.rights(assembly.bucket(settings(r2, R2_SECRET_ACCESS_KEY="0" * 64)), PREFIXES))
    assert [finding.level for finding in found] == [Level.FAILURE, Level.UNKNOWN]
    assert "the secret access key is wrong" in found[0].words


def test_rules_that_are_not_told_are_unknown(r2: R2) -> None:
    """The simulator has no lifecycle rules."""
    config = settings(r2)
    found = check.lifecycle(assembly.bucket(config), assembly.prefixes(config), alert_days=3)
    assert [finding.level for finding in found] == [Level.UNKNOWN]
