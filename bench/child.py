"""A server in a process of its own: started, asked by lines of JSON over its standard input, ended.

It ends when that input does, so it outlives nobody who started it.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

_ROOT = Path(__file__).resolve().parents[1]
_ANSWER_SECONDS = 120.0  # to fill a bucket with 100,000 mails on a busy Pi
_END_SECONDS = 10.0


class Child:
    """The process, from ``with`` on. *settings* are what its server is made with, as JSON has them.

    Attributes:
        port: where it listens on 127.0.0.1; 0 before.
        pid: the process's; 0 before.
    """

    def __init__(self, module: str, **settings: Any) -> None:
        self._module = module
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.pid = 0

    def __enter__(self) -> Self:
        # A session of its own: Ctrl-C is for the parent, and what ends the child is its input's end.
        self._process = subprocess.Popen(  # noqa: S603 (ours)
            [sys.executable, "-m", self._module],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            # Not on the command line: a password may be among them.
            self.port = self._exchange(self._settings)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended before
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def ask(self, method: str, **arguments: Any) -> Any:
        """What that method of the server returns.

        Raises:
            RuntimeError: it failed (its traceback is on standard error), or does not answer.
        """
        return self._exchange([method, arguments])

    def _exchange(self, message: Any) -> Any:
        process = self._process
        if process is None:
            raise RuntimeError(f"{self._module} is not running.")
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise RuntimeError(f"{self._module} has ended.") from error
        if not select.select([process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise RuntimeError(f"{self._module} gave no answer in {_ANSWER_SECONDS:.0f} s.")
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} has ended.")
        return json.loads(line)


class Server(Protocol):
    """What runs in the child: it listens, on threads of its own, once it is made."""

    port: int


def serve(make: Callable[..., Server]) -> None:
    """In the child: makes the server, calls its methods as the parent asks, and ends with the parent."""
    server = make(**json.loads(sys.stdin.readline()))
    _say(server.port)
    for line in sys.stdin:
        method, arguments = json.loads(line)
        _say(getattr(server, method)(**arguments))
    os._exit(0)  # a thread may be in the middle of a connection


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
