"""Contrastive prompts written by a language model (sections 4.1 and 10 of the paper).

    write = LLMWriter(cache=folder)
    write("a black colored car", ["colors", "counting"])              # ["a red colored car", ...]
    write.many({prompt: categorise(prompt) for prompt in prompts})    # {prompt: [...]}

The writer keeps every answer with the request that made it: the same question is never paid for twice, and a second run
needs neither a key nor a network.

The API key comes from the environment alone, and nothing that leaves this module holds it: errors of the client become
text of our own and are never chained, and the server's words are withheld if they repeat the key.
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from textnorm_lib.prompts.few_shot import Answer, AnswerError, answer_length, few_shot_prompt, parse_answer
from textnorm_lib.study.errors import ConfigError, StoreError, StudyError, check_regular
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import digest, write_atomically

if TYPE_CHECKING:
    from openai import OpenAI

MODEL = "gpt-4-0613"
KEY = "OPENAI_API_KEY"
RETRIES, TIMEOUT = 6, 60.0  # s of silence; between attempts the client waits 0.5 s to 8 s, or 120 s if the server asks
CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; exact counts would need each model's own tokenizer
LONGEST_BODY = 1_000_000  # bytes of a response; some fifty times the longest answer of any use

_NO_COMPLETION = "the answer is no chat completion; check base_url"
_LATER = "run again later, answers so far are kept"
_REMEDIES = {
    401: f"check {KEY}",
    403: f"check {KEY} and what it allows",
    404: "check the model's name and base_url",
    **dict.fromkeys((408, 409, 429, *range(500, 600)), _LATER),
}


class Reply(NamedTuple):
    """A server's answer and what it says about it."""

    text: str
    finish_reason: str  # "stop", or e.g. "length" where the answer was cut off
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Estimate:
    """What a run would ask for: four characters per token, an answer as long as those of the examples shown.

    That errs on the high side: by 42% for the answers behind the released comprehensive set.
    """

    requests: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float | None  # in the prices' currency; None without prices

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost about {self.cost:,.3f}"
        tokens = f"about {self.input_tokens:,} tokens in and {self.output_tokens:,} out"
        return f"{self.requests} requests to make ({self.cached} more are cached): {tokens}{cost}"


@dataclass(frozen=True)
class LLMWriter:
    """Writes contrastive prompts; the defaults of model, temperature and frequency penalty are the paper's.

    ``client`` is an ``openai.OpenAI`` with time-out and retries of your choice. Without one, the writer opens its own
    for ``base_url`` (any server that speaks chat completions; OpenAI's by default) with the key in ``OPENAI_API_KEY``
    once the folder ``cache`` lacks an answer. The server is not part of what an answer is cached under: give a server
    that serves another model by the same name another folder.
    """

    client: "OpenAI | None" = field(default=None, repr=False)
    model: str = MODEL
    _: KW_ONLY
    cache: Path
    base_url: str | None = field(default=None, repr=False)  # may hold a password
    temperature: float = 0.0
    frequency_penalty: float = 0.2
    concurrency: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (("temperature", 0, 2), ("frequency_penalty", -2, 2), ("concurrency", 1, 64)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"LLMWriter: {name} = {getattr(self, name)!r}; give a number from {low} to {high}")
        if self.client is not None and self.base_url is not None:
            raise ConfigError("LLMWriter: base_url is for a client that is opened here; give it to your client instead")
        if not (self.base_url or "http://").startswith(("http://", "https://")):
            raise ConfigError("LLMWriter: base_url names no protocol; let it begin with http:// or https://")

    def __call__(self, prompt: str, categories: Sequence[str]) -> list[str]:
        """The contrastive prompts for ``prompt``: in the answer's order, without the prompt and without duplicates.

        Raises one line that names the prompt or the file: as ``few_shot_prompt`` for the arguments, ``AnswerError`` for
        an answer without a clear list, ``ConfigError`` where a key is needed and missing, ``StoreError`` for a damaged
        file in the cache, ``StudyError`` where the server gives no answer.
        """
        request = self._request(prompt, categories)
        reply = self._cached(request) or self._ask(prompt, request)
        return self._captions({prompt: request}, {prompt: reply})[prompt]

    def many(self, prompts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The contrastive prompts of each of ``prompts`` (prompt -> categories), ``concurrency`` requests at a time.

        A failed request ends the run; an answer without a clear list does so only when all are there. After either, and
        after an interruption, the next run asks for what is missing and no more. Raises as a single call does.
        """
        requests = {prompt: self._request(prompt, categories) for prompt, categories in prompts.items()}
        replies = {prompt: self._cached(request) for prompt, request in requests.items()}
        replies |= self._ask_all({prompt: requests[prompt] for prompt, reply in replies.items() if reply is None})
        return self._captions(requests, replies)

    def dry_run(self, prompts: Mapping[str, Sequence[str]], *, prices: tuple[float, float] | None = None) -> Estimate:
        """Print what ``many`` would send and about how much it is; asks no server.

        ``prices`` are those of a million tokens in a request and in an answer.
        """
        requests = {prompt: self._request(prompt, categories) for prompt, categories in prompts.items()}
        missing = [prompt for prompt, request in requests.items() if self._cached(request) is None]
        contents = [requests[prompt]["messages"][0]["content"] for prompt in missing]
        tokens_in = round(sum(map(len, contents)) / CHARACTERS_PER_TOKEN)
        tokens_out = round(sum(answer_length(prompts[prompt]) for prompt in missing) / CHARACTERS_PER_TOKEN)
        cost = None if prices is None else (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
        estimate = Estimate(len(missing), len(requests) - len(missing), tokens_in, tokens_out, cost)
        print(*contents, estimate, sep=f"\n{'-' * 60}\n")
        return estimate

    @cached_property
    def _client(self) -> "OpenAI":
        return _open_client(self.client, self.base_url)

    def _request(self, prompt: str, categories: Sequence[str]) -> dict[str, Any]:
        """The chat completion to ask for, whose hash names the kept answer."""
        return {
            "model": self.model,
            "temperature": float(self.temperature),
            "frequency_penalty": float(self.frequency_penalty),
            "messages": [{"role": "user", "content": few_shot_prompt(prompt, categories)}],
        }

    def _file(self, request: dict[str, Any]) -> Path:
        return Path(self.cache) / f"{digest(request)[:20]}.json"

    def _cached(self, request: dict[str, Any]) -> Reply | None:
        """The reply that is kept for ``request``; a damaged file is an error, because asking again may cost money."""
        path = self._file(request)
        try:
            check_regular(path)
            kept = json.loads(path.read_bytes())
            reply = Reply(**kept["reply"])
            if kept["request"] != request or not isinstance(reply.text, str):
                raise ValueError("it holds another request or no answer")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise StoreError(f"{path}: cannot be read as a kept answer ({reason}); delete it to ask again") from None
        return reply

    def _ask(self, prompt: str, request: dict[str, Any]) -> Reply:
        """Ask the server and keep what it answers, of use or not."""
        outcome = _outcome(self._client, request)
        if isinstance(outcome, str):
            raise StudyError(f"prompt {prompt!r:.80}: {outcome}")
        kept = {"request": request, "reply": outcome._asdict()}
        kept["asked"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomically(self._file(request), json.dumps(kept, indent=1).encode())
        return outcome

    def _ask_all(self, requests: dict[str, dict[str, Any]]) -> dict[str, Reply]:
        if not requests:
            return {}
        _ = self._client  # opened once, and a missing key found, before the threads start
        with ThreadPoolExecutor(self.concurrency) as pool:
            asked = {pool.submit(self._ask, prompt, request): prompt for prompt, request in requests.items()}
            try:
                done = progress(as_completed(asked), "contrastive prompts", total=len(asked), unit="prompts")
                return {asked[future]: future.result() for future in done}
            finally:  # what is under way may be paid for: it is waited for and kept
                pool.shutdown(cancel_futures=True)

    def _captions(self, requests: dict[str, dict], replies: dict[str, Reply]) -> dict[str, list[str]]:
        """What the replies hold; says on standard error what was dropped, raises one line for all that hold no list."""
        answers: dict[str, Answer] = {}
        refused = []
        for prompt, reply in replies.items():
            try:
                if reply.finish_reason != "stop":
                    raise AnswerError(f"the answer ended early (finish_reason = {reply.finish_reason!r:.40})")
                answers[prompt] = parse_answer(reply.text, prompt)
            except AnswerError as error:
                refused.append(f"prompt {prompt!r:.80}: {error}, see {self._file(requests[prompt])}")
        if refused:
            raise AnswerError(
                f"{len(refused)} of {len(replies)} answers cannot be used, {'; '.join(refused[:3])}"
                f"{'; ...' if len(refused) > 3 else ''}; delete a file to ask again, or leave the prompt out"
            )
        own, duplicates = (sum(getattr(a, name) for a in answers.values()) for name in ("own", "duplicates"))
        if own or duplicates:
            print(
                f"contrastive prompts: dropped {duplicates} duplicates and {own} of the prompt itself", file=sys.stderr
            )
        return {prompt: answer.captions for prompt, answer in answers.items()}


def _open_client(client: "OpenAI | None", base_url: str | None) -> "OpenAI":
    """``client`` or one of our own, whose key is one that a header can carry: else errors would quote it."""
    import openai

    if client is None:
        if not os.environ.get(KEY):
            raise ConfigError(
                f"{KEY} is not set and not every answer is in the cache; set it (to any word if the server needs none)"
            )
        client = openai.OpenAI(base_url=base_url, max_retries=RETRIES, timeout=TIMEOUT)
    if not isinstance(client, openai.OpenAI):
        raise ConfigError(f"client is of type {type(client).__name__}; give an openai.OpenAI")
    if not re.fullmatch(r"[!-~]*", client.api_key):
        raise ConfigError("the API key holds white space or a character that is not ASCII; set it again")
    return client


def _outcome(client: "OpenAI", request: dict[str, Any]) -> Reply | str:
    """The answer to ``request``, or why there is none after the client's retries; no error leaves, for it may quote."""
    import openai

    try:
        response = client.chat.completions.with_raw_response.create(**request)
    except openai.APITimeoutError:
        return f"the server does not answer in time; {_LATER}"
    except openai.APIConnectionError as error:
        return f"connection failed ({type(error.__cause__).__name__}); check base_url, or {_LATER}"
    except openai.APIStatusError as error:
        message = error.body.get("message") if isinstance(error.body, dict) else None
        wait = error.response.headers.get("retry-after")
        words = " ".join(f"{message or ''}{f' (Retry-After: {wait})' if wait else ''}".split())
        if _repeats(words, client):
            words = "its words are withheld, because they repeat the API key"
        remedy = _REMEDIES.get(error.status_code, "change the request")
        return f"the server answers HTTP {error.status_code}{words and ': '}{words[:200]}; {remedy}"
    return _reply(response.http_response.content, client)


def _reply(body: bytes, client: "OpenAI") -> Reply | str:
    if len(body) > LONGEST_BODY:
        return f"the answer has {len(body):,} bytes, more than {LONGEST_BODY:,}; check base_url"
    try:
        content = json.loads(body)
        choice, usage = content["choices"][0], content.get("usage") or {}
        text, reason, model = choice["message"]["content"], choice.get("finish_reason"), content.get("model")
        reply = Reply(text or "", str(reason), str(model), usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return _NO_COMPLETION
    if not isinstance(text, str | None):
        return _NO_COMPLETION
    if _repeats("".join(map(str, reply)), client):
        return "the answer repeats the API key and is not kept; withdraw that key"
    return reply


def _repeats(text: str, client: "OpenAI") -> bool:
    """Whether ``text`` holds the API key or 16 characters of it in a row, whatever white space is put between.

    A key of fewer than 8 characters is a placeholder, for servers that need none. The key is a local variable here
    alone, where nothing raises: some tools print the locals of a traceback.
    """
    key, bare = client.api_key, re.sub(r"\s+", "", text)
    size = min(len(key), 16)
    pieces = (key[start : start + size] for start in range(len(key) - size + 1))
    return len(key) >= 8 and any(piece in bare for piece in pieces)
