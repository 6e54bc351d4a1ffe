"""What the providers share that take JSON and build the message anew from it (`parts`)."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from drain.request import Response
from drain.text import clean
from drain.upstreams import Action, Fate, Shipment, for_all
from drain.upstreams.api import Api
from drain.upstreams.parts import Parts, Unsayable, parts_of


class JsonApi(ABC):
    """One of them, at *base_url*. ``title`` is its name in words, ``smtp`` its smarthost, ``path`` where mail is posted."""

    name: ClassVar[str]
    title: ClassVar[str]
    smtp: ClassVar[str]
    path: ClassVar[str]
    most_recipients: ClassVar[int]
    most_bytes: ClassVar[int]

    def __init__(self, base_url: str, api: Api) -> None:
        self._base = base_url.rstrip("/")
        self._api = api

    def objection(self, shipment: Shipment) -> str:
        """As `Upstream.objection`: it is of no use to change it, and its sender should know."""
        try:
            self._body(shipment)
        except Unsayable as error:
            return (
                f"{self.title} builds each message anew from its parts, which would change this one: {error}. "
                f"As it is it can go to {self.smtp} (RELAY_UPSTREAM=smtp)."
            )
        return ""

    def send(self, shipment: Shipment) -> Mapping[str, Fate]:
        """As `Upstream.send`.

        Raises:
            UpstreamDown, UpstreamRefused: it concerns all mail.
        """
        try:
            body = self._body(shipment)
        except Unsayable:
            # RFC 3463 5.6.3: conversion is not supported.
            words = clean(f"x-drain; {self.objection(shipment)}", 500)
            return for_all(shipment, Fate(Action.FAILED, "5.6.3", words))
        url = f"{self._base}{self.path}"
        headers = {"Content-Type": "application/json", **self._headers(shipment)}
        return self._api.send(shipment, url, body, headers, lambda response: self._judged(shipment, url, response))

    @abstractmethod
    def probe(self) -> str:
        """As `Upstream.probe`."""

    def rest(self) -> None:  # noqa: B027 (nobody has to do more)
        """Nothing is kept open."""

    def stop(self) -> None:
        """As `Upstream.stop`."""
        self._api.stop()

    def _body(self, shipment: Shipment) -> bytes:
        body = json.dumps(self._said(parts_of(shipment)), ensure_ascii=False).encode()
        if len(body) > self.most_bytes:
            raise Unsayable(f"it would have {len(body):,} bytes, and {self.title} takes {self.most_bytes:,}")
        return body

    def _headers(self, shipment: Shipment) -> Mapping[str, str]:  # noqa: ARG002 (for those that need it)
        """Header fields of the request beside the usual ones."""
        return {}

    @abstractmethod
    def _said(self, parts: Parts) -> dict[str, Any]:
        """The message as the provider wants it; raises `Unsayable`."""

    @abstractmethod
    def _judged(self, shipment: Shipment, url: str, response: Response) -> Mapping[str, Fate] | None:
        """As of `Api.send`."""
