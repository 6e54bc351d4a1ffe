"""Where mail lies in the bucket, and under which names."""

from dataclasses import dataclass

from drain.bucket import IDENTITY, moved_name


@dataclass(frozen=True)
class Prefixes:
    """Where mail lies in the bucket."""

    pending: str
    processed: str
    quarantine: str

    def moved(self, to: str, identity: str, key: str) -> str:
        """The name under the prefix *to* of what lies under *key* now."""
        if key.startswith(self.processed):  # replayed: it is there
            return key
        if not key.startswith(self.quarantine):
            return moved_name(to, identity, key, self.pending)
        name = IDENTITY.sub("", key.removeprefix(self.quarantine))
        return moved_name(to, identity, name, self.quarantine)
