"""One answer from a server that speaks OpenAI's chat completions: bounded attempts, every failure one clear line.

The API key comes from the environment alone, and nothing that leaves this module holds it: errors of the client are
turned into text of our own and never chained, the server's words are withheld if they repeat the key.
"""

import json
import math
import os
import random
import re
import threading
import time
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from textnorm_lib.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "OPENAI_API_KEY"
LONGEST_BODY = 1_000_000  # bytes; some fifty times the longest answer of any use
_PLACEHOLDER = 8  # a shorter key is none, but what servers that need no key are given
_FRAGMENT = 16  # so many characters of a key in a row count as the key


@dataclass(frozen=True)
class Patience:
    """How long to wait for what; seconds."""

    attempts: int = 6
    first_wait: float = 1.0  # after the first failure; doubles each time, and up to half of it is left to chance
    longest_wait: float = 60.0  # between attempts; a server that asks for more is given up on
    timeout: float = 60.0  # of silence within an attempt

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0) or (name == "attempts" and value != int(value)):
                raise ConfigError(f"Patience: {name} = {value!r}; give a number greater than 0")


class Reply(NamedTuple):
    """A server's answer and what it says about it."""

    text: str
    finish_reason: str  # "stop", or e.g. "length" where the answer was cut off
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


class _Failure(NamedTuple):
    reason: str
    passing: bool  # whether another attempt may succeed
    retry_after: float = 0.0  # s, by the server's wish


def open_client(base_url: str | None) -> "OpenAI":
    """A client for ``base_url`` (None: OpenAI's own, or the variable OPENAI_BASE_URL) with the environment's key."""
    import openai

    if not os.environ.get(KEY):
        raise ConfigError(
            f"{KEY} is not set and not every answer is in the cache; set it (to any word for a server that needs none)"
        )
    return openai.OpenAI(base_url=base_url)


def complete(
    client: "OpenAI", request: dict[str, Any], *, label: str, patience: Patience, stop: threading.Event | None = None
) -> Reply:
    """The answer to ``request``; ``label`` names it in errors, ``stop`` ends the waiting between attempts.

    Status 408, 429 and 5xx, time-outs and broken connections are tried again. Raises ``StudyError`` when the attempts
    are used up, and at once for any other status and for an answer that is no chat completion.
    """
    stop = threading.Event() if stop is None else stop
    _check(client)
    # The client could retry by itself, but not with waits of our choice, nor stop when the run is interrupted.
    client = client.with_options(max_retries=0, timeout=patience.timeout)
    for attempt in range(1, patience.attempts + 1):
        outcome = _attempt(client, request)
        if isinstance(outcome, Reply):
            return outcome
        if not outcome.passing:
            raise StudyError(f"{label}: {outcome.reason}")
        if outcome.retry_after > patience.longest_wait:
            raise StudyError(
                f"{label}: {outcome.reason}, and the server asks to wait {outcome.retry_after:.0f} s, longer than "
                f"longest_wait = {patience.longest_wait:g} s; run again later, answers so far are kept"
            )
        backoff = min(patience.longest_wait, patience.first_wait * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
        if attempt < patience.attempts and stop.wait(max(backoff, outcome.retry_after)):
            raise StudyError(f"{label}: stopped before it was answered; run again to go on")
    raise StudyError(
        f"{label}: no answer in {patience.attempts} attempts (the last: {outcome.reason}); "
        "run again later, answers so far are kept"
    )


def _attempt(client: "OpenAI", request: dict[str, Any]) -> Reply | _Failure:
    import openai

    try:
        response = client.chat.completions.with_raw_response.create(**request)
    except openai.APITimeoutError:
        return _Failure(f"no answer within {client.timeout:g} s", passing=True)
    except openai.APIConnectionError as error:  # its cause may quote the request's headers
        return _Failure(f"connection failed ({type(error.__cause__).__name__})", passing=True)
    except openai.APIStatusError as error:
        return _status_failure(error, client)
    return _reply(response.http_response.content, client)


def _status_failure(error, client: "OpenAI") -> _Failure:
    """``error`` is an openai.APIStatusError."""
    status = error.status_code
    message = error.body.get("message") if isinstance(error.body, dict) else None
    words = " ".join(message.split()) if isinstance(message, str) else ""
    if _repeats(words, client):
        words = "its words are withheld, because they repeat the API key"
    reason = f"HTTP {status}" + (f": {words[:200]}" if words else "")
    if status in (408, 429) or status >= 500:
        return _Failure(reason, True, _retry_after(error.response.headers.get("retry-after", "")))
    remedy = {401: f"check {KEY}", 403: f"check {KEY} and what it allows", 404: "check the model's name and base_url"}
    return _Failure(f"the server refuses it ({reason}); {remedy.get(status, 'change the request')}", passing=False)


def _retry_after(value: str) -> float:
    """Seconds, from a number or a date; 0 where the header is neither."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _reply(body: bytes, client: "OpenAI") -> Reply | _Failure:
    if len(body) > LONGEST_BODY:
        return _Failure(f"the answer has {len(body):,} bytes, more than {LONGEST_BODY:,}; check base_url", False)
    try:
        content = json.loads(body)
        choice, usage = content["choices"][0], content.get("usage") or {}
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        model = content.get("model")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _Failure("the answer is no chat completion; check base_url", passing=False)
    if not isinstance(text, str | None):
        return _Failure("the answer is no chat completion; check base_url", passing=False)
    reply = Reply(text or "", str(reason), str(model), *(count if isinstance(count, int) else None for count in counts))
    if _repeats("".join(reply[:3]), client):
        return _Failure("the answer repeats the API key and is not kept; withdraw that key", passing=False)
    return reply


def _check(client: "OpenAI") -> None:
    """The client is of the right kind, and its key one that a header can carry: else errors would quote it."""
    import openai

    if not isinstance(client, openai.OpenAI):
        raise ConfigError(f"client is of type {type(client).__name__}; give an openai.OpenAI")
    if not re.fullmatch(r"[!-~]*", client.api_key):
        raise ConfigError("the API key holds white space or a character that is not ASCII; set it again")


def _repeats(text: str, client: "OpenAI") -> bool:
    """Whether ``text`` holds the API key or a long piece of it, whatever white space is put between.

    The key is a local variable here alone, where nothing raises: some tools print the locals of a traceback.
    """
    key, bare = client.api_key, re.sub(r"\s+", "", text)
    size = min(len(key), _FRAGMENT)
    pieces = (key[start : start + size] for start in range(len(key) - size + 1))
    return len(key) >= _PLACEHOLDER and any(piece in bare for piece in pieces)
