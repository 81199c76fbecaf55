"""What a follower of a bucket is told, given what each listing and each change shows. Pure."""

from typing import Generic, TypeVar

from servery_common.contracts.message import Message
from servery_common.messaging.port import KvChange

M = TypeVar("M", bound=Message)


class View(Generic[M]):
    """What a follower knows of a bucket, and what each session changes about it.

    A key that a new listing lacks was deleted while nobody looked, if the bucket is still the same one. If
    the bucket was made anew, all of its keys are gone and none was deleted: those are ``missing``.
    """

    def __init__(self) -> None:
        self._incarnation = ""
        self._known: dict[str, int] = {}
        self._missing: set[str] = set()
        self._listed: set[str] | None = None

    def begin(self, incarnation: str) -> None:
        """A session begins: everything will be listed."""
        if self._incarnation and incarnation != self._incarnation:
            self._missing.update(self._known)
            self._known.clear()
        self._incarnation = incarnation
        self._listed = set()

    def put(self, key: str, revision: int, value: M) -> list[KvChange[M]]:
        """A value was listed or stored."""
        if self._listed is not None:
            self._listed.add(key)
        if self._known.get(key) == revision:
            return []
        self._known[key] = revision
        self._missing.discard(key)
        return [KvChange(kind="put", key=key, value=value, revision=revision)]

    def keep(self, key: str) -> None:
        """A value was listed or stored that cannot be read: the last good one stays in use."""
        if self._listed is not None:
            self._listed.add(key)

    def delete(self, key: str, revision: int) -> list[KvChange[M]]:
        """A delete marker was listed or stored."""
        if key not in self._known and key not in self._missing:
            return []
        self._known.pop(key, None)
        self._missing.discard(key)
        return [KvChange(kind="delete", key=key, revision=revision)]

    def caught_up(self) -> list[KvChange[M]]:
        """The listing is complete."""
        listed, self._listed = self._listed or set(), None
        vanished = [key for key in self._known if key not in listed]
        for key in vanished:
            del self._known[key]
        return [
            *(KvChange[M](kind="delete", key=key) for key in vanished),
            KvChange(kind="caught_up", incarnation=self._incarnation, missing=frozenset(self._missing)),
        ]
