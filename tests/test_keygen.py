import datetime
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from drain import keygen, keys
from drain.errors import ConfigError
from drain.keygen import Place
from drain.keys import key_id, read_x25519

TODAY = datetime.date(2026, 1, 31)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(files=(), folder=tmp_path / "etc", env_file=tmp_path / "etc/drain.env", has_token=False)


def test_the_first_key_comes_with_a_token_and_with_the_commands_that_set_both(place: Place) -> None:
    words = keygen.first(place)
    key, token = place.folder / "drain-key.pem", place.folder / "origin-token"
    assert key_id(read_x25519(key)).hex() in words
    assert f"npx wrangler@4 secret put DRAIN_PUBLIC_KEY < {place.folder}/drain-key.pub.pem\n" in words
    assert f"npx wrangler@4 secret put ORIGIN_TOKEN < {token}\n" in words
    assert f"PRIVATE_KEY_FILE={key}\n" in words
    assert f"ORIGIN_TOKEN_FILE={token}\n" in words
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_no_secret_is_printed(place: Place) -> None:
    words = keygen.first(place)
    secret = (place.folder / "origin-token").read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{64}", secret)
    assert secret not in words
    assert (place.folder / "drain-key.pem").read_text().splitlines()[1] not in words


def test_a_token_that_is_set_is_left_alone(place: Place) -> None:
    words = keygen.first(replace(place, has_token=True))
    assert "ORIGIN_TOKEN_FILE" not in words
    assert not (place.folder / "origin-token").exists()


def test_the_first_key_goes_where_the_settings_say(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "a b/my.pem"
    words = keygen.first(replace(place, files=(path,), folder=path.parent))
    assert path.exists()
    assert f"PRIVATE_KEY_FILE='{path}'" in words


def test_there_is_only_one_first_key(place: Place) -> None:
    words = keygen.first(place)
    key = (place.folder / "drain-key.pem").read_bytes()
    again = keygen.first(place)
    assert again.replace(", there already", "") == words, "who lost the words gets them again"
    assert (place.folder / "drain-key.pem").read_bytes() == key
    with pytest.raises(ConfigError, match="--rotate"):
        keygen.first(replace(place, files=(place.folder / "drain-key.pem",)))
    with pytest.raises(ConfigError, match="names 2 files"):
        keygen.first(replace(place, files=(Path("/nowhere/a"), Path("/nowhere/b"))))


def test_a_rotated_key_stands_first_and_the_old_one_stays_until_its_mail_is_gone(place: Place) -> None:
    keygen.first(place)
    old = place.folder / "drain-key.pem"
    before = old.read_bytes()
    words = keygen.rotate(replace(place, files=(old,)), TODAY)
    new = place.folder / "drain-key-2.pem"
    assert f"PRIVATE_KEY_FILE={new}:{old}\n" in words
    assert f"npx wrangler@4 secret put DRAIN_PUBLIC_KEY < {place.folder}/drain-key-2.pub.pem\n" in words
    assert words.index("PRIVATE_KEY_FILE=") < words.index("wrangler"), "drain has to know the key first"
    assert f"{key_id(read_x25519(old)).hex()} ({old})" in words
    assert "2026-03-03" in words
    assert old.read_bytes() == before
    assert keygen.rotate(replace(place, files=(old,)), TODAY).replace(", there already", "") == words
    assert "drain-key-3.pem" in keygen.rotate(replace(place, files=(new, old)), TODAY)


def test_a_public_key_of_another_pair_is_not_given_to_the_worker(place: Place) -> None:
    """Mail would be sealed for a key that nobody has."""
    keygen.first(place)
    private, public = place.folder / "drain-key.pem", place.folder / "drain-key.pub.pem"
    good = public.read_bytes()
    public.unlink()
    keygen.first(place)
    assert public.read_bytes() == good
    private.unlink()
    with pytest.raises(ConfigError, match=r"pub\.pem is there already"):
        keygen.first(place)
    assert not private.exists()
    keys.make(place.folder / "other.pem")
    (place.folder / "other.pem").rename(private)
    with pytest.raises(ConfigError, match="is not the public half"):
        keygen.first(place)


def test_without_a_key_there_is_nothing_to_rotate(place: Place) -> None:
    with pytest.raises(ConfigError, match="no key to rotate"):
        keygen.rotate(place, TODAY)
    with pytest.raises(ConfigError, match="cannot be read"):
        keygen.rotate(replace(place, files=(Path("/nowhere/a"),)), TODAY)
