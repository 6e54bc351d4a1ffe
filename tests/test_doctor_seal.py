"""`drain doctor`: the private keys."""

import os
from pathlib import Path

import pytest

from drain.doctor import seal
from drain.doctor.finding import Finding, Level
from drain.keys import KeyRing, key_id, public_pem
from drain.opener import Opener
from drain.setting import Secret
from tests import sealing
from tests.sealing import KEY, OTHER_KEY, key_files, rsa_key


def looked(*files: Path, mailbridge: Path | None = None, token: str = "t", sealed_only: bool = True) -> list[Finding]:
    tokens = (Secret(token),) if token else ()
    return list(seal.check(files, mailbridge, Opener(KeyRing(files, mailbridge), tokens, sealed_only)))


def test_each_key_opens_what_is_sealed_for_it_and_is_named_by_its_id(tmp_path: Path) -> None:
    first, second = key_files(tmp_path, KEY, OTHER_KEY)
    found = looked(first, second)
    assert [finding.level for finding in found] == [Level.OK] * 3
    assert key_id(KEY).hex() in found[0].words
    assert key_id(OTHER_KEY).hex() in found[1].words
    assert "ORIGIN_TOKEN is set" in found[2].words


def test_the_probe_has_the_form_that_the_worker_writes(tmp_path: Path) -> None:
    """Held against the sealing of the tests, which is held against the Worker's."""
    probe, theirs = seal._sealed(KEY, "t"), sealing.seal(header={"token": "t"})
    assert probe[:12] == theirs[:12]
    opener = Opener(KeyRing(key_files(tmp_path, KEY), None), (Secret("t"),), sealed_only=True)
    assert opener.open(probe, {}).kind == opener.open(theirs, {}).kind


def test_no_key_at_all_is_a_failure() -> None:
    (finding,) = looked()
    assert finding.level is Level.FAILURE
    assert "drain keygen" in finding.next


def test_a_file_without_a_key_is_a_failure_beside_one_that_has_one(tmp_path: Path) -> None:
    (good,) = key_files(tmp_path, KEY)
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    found = looked(tmp_path / "none.pem", nonsense, good)
    assert [finding.level for finding in found[:3]] == [Level.FAILURE, Level.FAILURE, Level.OK]
    assert "none.pem cannot be read" in found[0].words
    assert "holds no private key" in found[1].words
    assert all(finding.next for finding in found[:2])


def test_a_key_of_another_kind_is_a_failure(tmp_path: Path) -> None:
    (path,) = key_files(tmp_path, rsa_key())
    assert "is not an X25519 key" in looked(path)[0].words


def test_a_key_that_does_not_open_the_probe_is_a_failure(tmp_path: Path) -> None:
    """The ring has read another key than is in the file now."""
    first, second = key_files(tmp_path, KEY, OTHER_KEY)
    found = list(seal.check([first], None, Opener(KeyRing([second], None), (), False)))
    assert found[0].level is Level.FAILURE
    assert "did not open a probe" in found[0].words


def test_the_public_half_of_another_key_beside_it_is_a_warning(tmp_path: Path) -> None:
    (path,) = key_files(tmp_path, KEY)
    path.with_suffix(".pub.pem").write_bytes(public_pem(KEY))
    assert [finding.level for finding in looked(path)] == [Level.OK, Level.OK]
    path.with_suffix(".pub.pem").write_bytes(public_pem(OTHER_KEY))
    _, finding, _ = looked(path)
    assert finding.level is Level.WARNING
    assert "is not the public half" in finding.words


def test_a_key_of_mailbridge_s_is_read_and_is_enough(tmp_path: Path) -> None:
    (path,) = key_files(tmp_path, rsa_key())
    assert [finding.level for finding in looked(mailbridge=path)] == [Level.OK]
    (failure,) = looked(mailbridge=tmp_path / "none.pem")
    assert failure.level is Level.FAILURE


@pytest.mark.parametrize(("token", "said"), [("", "ORIGIN_TOKEN is not set"), ("t", "REQUIRE_SEALED=false")])
def test_mail_that_anybody_could_have_made_is_a_warning(tmp_path: Path, token: str, said: str) -> None:
    found = looked(*key_files(tmp_path, KEY), token=token, sealed_only=False)
    assert found[-1].level is Level.WARNING
    assert said in found[-1].words


def test_the_token_is_not_shown(tmp_path: Path) -> None:
    token = os.urandom(8).hex()
    assert token not in str(looked(*key_files(tmp_path, KEY), token=token))
