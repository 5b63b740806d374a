"""A worker: a process of another environment that answers one request at a time over pipes.

The other side, reference_worker.py, says what a message looks like. Whatever happens to the process, death, silence or
rubbish, is one ``DataError``; it never outlives the object that started it.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from textnorm_lib.errors import DataError

_LONGEST_LINE, _LONGEST_PAYLOAD = 2**16, 2**26  # bytes of a reply
_LAST_WORDS = 4096  # bytes of standard error that are kept


class Reply(NamedTuple):
    """The answer to a request: what the worker spent on it, the most memory that it has had so far, any scores."""

    seconds: float
    peak_mib: float
    error: str | None
    scores: np.ndarray | None


class WorkerProcess:
    """Starts ``command`` in a group of its own, with no access to the hub; a request may take ``time_limit`` seconds.

    ``label`` begins and ``remedy`` ends every message of failure.
    """

    def __init__(self, command: list[str], *, label: str, time_limit: float, remedy: str) -> None:
        self.time_limit, self._label, self._remedy = time_limit, label, remedy
        self._ended = ""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        try:
            self._process = subprocess.Popen(command, **pipes, env={**os.environ, **offline}, start_new_session=True)
        except OSError as error:
            raise DataError(f"{label}: {command[0]} cannot be started ({error.strerror}); {remedy}") from error
        self._said = bytearray()
        self._listener = threading.Thread(target=_listen, args=(self._process.stderr, self._said), daemon=True)
        self._listener.start()
        self._end = weakref.finalize(self, _end, self._process)

    def ask(self, do: str, *, about: str = "", image: np.ndarray | None = None, **fields: Any) -> Reply:
        """Send a request and wait for its reply.

        Raises ``DataError`` if the reply is an error (``about`` says in what; the worker stays) or if there is none.
        """
        if self._ended:
            raise DataError(f"{self._label}: its worker has ended ({self._ended}); load it again")
        try:
            with self._limited() as late:
                self._send({"do": do, **fields}, image)
                reply = self._receive()
        except (EOFError, BrokenPipeError):
            if late.is_set():
                raise self.failure(f"gave no answer to {do!r} in {self.time_limit:g} s (time_limit)") from None
            raise self.failure(f"{self._status()} while it was to {do}") from None
        except _Rubbish as error:
            raise self.failure(f"wrote {str(error)!r} where the reply to {do!r} was due") from None
        except BaseException:  # an interrupt: the reply still to come would be taken for that to the next request
            self.close("interrupted")
            raise
        if reply.error is not None:
            raise DataError(f"{self._label}: {about or do}: {reply.error}")
        return reply

    def failure(self, what: str) -> DataError:
        """End the process, for this reason; the error to raise."""
        self.close(what)
        self._listener.join(1.0)
        lines = bytes(self._said).decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return DataError(f"{self._label}: its worker {what}; it said last: {last[-300:]!r}; {self._remedy}")

    def close(self, why: str = "closed") -> None:
        """End the process; a second call does nothing."""
        self._ended = self._ended or why
        self._end()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[threading.Event]:
        """End the process if this takes longer than ``time_limit``; the event says that it did."""
        late = threading.Event()
        timer = threading.Timer(self.time_limit, lambda: (late.set(), end_group(self._process)))
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _send(self, request: dict[str, Any], image: np.ndarray | None) -> None:
        payload = io.BytesIO()
        if image is not None:
            np.savez(payload, image=image)
        line = json.dumps({**request, "bytes": len(payload.getbuffer())}).encode() + b"\n"
        self._process.stdin.write(line + payload.getbuffer())
        self._process.stdin.flush()

    def _receive(self) -> Reply:
        line = self._process.stdout.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            raise EOFError
        try:
            header = json.loads(line)
            if not 0 <= header["bytes"] <= _LONGEST_PAYLOAD:
                raise ValueError
            payload = self._process.stdout.read(header["bytes"])
            if len(payload) < header["bytes"]:
                raise EOFError
            scores = np.load(io.BytesIO(payload), allow_pickle=False)["scores"] if payload else None
            return Reply(float(header["seconds"]), float(header["peak_mib"]), header.get("error"), scores)
        except EOFError:
            raise
        except Exception as error:  # of many kinds, by what it wrote
            raise _Rubbish(line[:80].decode(errors="replace")) from error

    def _status(self) -> str:
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if status == -signal.SIGKILL:
            return "was killed, as the system does where memory runs out,"
        return f"ended with exit status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


class _Rubbish(Exception):
    """What a worker wrote is no reply."""


def end_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a group of its own, and that group, unless it was waited for before; wait for it."""
    if process.returncode is None:  # or else its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen) -> None:
    end_group(process)
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # half a request
            pipe.close()


def _listen(stream: io.BufferedReader, said: bytearray) -> None:
    """Keep the end of what a process writes to standard error: it would stand still before a full pipe."""
    with stream:
        while chunk := stream.read1(2**16):
            said += chunk
            del said[:-_LAST_WORDS]
