"""Where on this machine everything is that a backup has."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# What belongs to Maddy. The mails lie beside, in a folder of their own, which is not in a backup.
MADDY = ("imapsql.db", "credentials.db")
_USUAL = Path("/var/lib/maddy")
_STATE_DIR = re.compile(r'^\s*state_dir\s+("[^"\n]+"|\S+)\s*$', re.MULTILINE)
# What names in a backup cannot have.
_UNFIT = re.compile(r"^[.-]|[^A-Za-z0-9._-]")
_LARGEST_CONFIGURATION = 1024 * 1024


@dataclass(frozen=True)
class Places:
    """The paths. ``files`` are by label: a setting's name, or the file's own; ``keys`` as of `labelled`.

    ``relay`` is the folder of the queue; ``maddy`` are the folders that its databases
    may be in, the likeliest first.
    """

    ledger: Path
    relay: Path
    relay_key: Path
    files: Mapping[str, Path]
    keys: Mapping[str, Path]
    maddy: tuple[Path, ...]

    def maddy_database(self, name: str) -> Path | None:
        """Where the first of that name is."""
        for folder in self.maddy:
            try:
                if (folder / name).is_file():
                    return folder / name
            except OSError:  # a folder that is not ours to look into
                continue
        return None


def labelled(keys: Collection[Path], relay_key: Path) -> dict[str, Path]:
    """Private keys by the names of their files, whatever their order; what shares its name with another has its folder's digest behind."""
    names = {
        path: "relay.key" if path == relay_key else _UNFIT.sub("_", path.name)[-80:] for path in (*keys, relay_key)
    }
    times = Counter(names.values())
    labels = {}
    for path, name in names.items():
        digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]
        labels[name if times[name] == 1 or path == relay_key else f"{name}.{digest}"] = path
    return labels


def maddy_folders(maddy_config: Path | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """The folders that Maddy may keep its state in: its ``state_dir``, and the usual ones, also in a proot."""
    return tuple(dict.fromkeys(_maddy_folders(maddy_config, environ)))


def _maddy_folders(maddy_config: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    named = _state_dir(maddy_config) if maddy_config else None
    if named:
        yield named
    prefix = environ.get("PREFIX")  # Termux
    # proot-distro since 5.0, and before.
    layouts = ("containers/*/rootfs", "installed-rootfs/*")
    distros = Path(prefix) / "var/lib/proot-distro" if prefix else None
    for root in [root for layout in layouts for root in sorted(distros.glob(layout))] if distros else []:
        if named:
            yield root / named.relative_to("/")
        yield root / _USUAL.relative_to("/")
    if prefix:
        yield Path(prefix) / _USUAL.relative_to("/")
    yield _USUAL


def _state_dir(maddy_config: Path) -> Path | None:
    """The folder that Maddy's configuration names (https://maddy.email/reference/global-config/)."""
    try:
        with maddy_config.open(encoding="utf-8", errors="replace") as file:
            found = _STATE_DIR.findall(file.read(_LARGEST_CONFIGURATION))
    except OSError:
        return None
    path = Path(found[-1].strip('"')) if found else Path()
    return path if path.is_absolute() else None
