"""Contrastive prompts written by a language model (sections 4.1 and 10 of the paper).

    write = LLMWriter(cache=folder)
    write("a black colored car", ["colors", "counting"])                    # ["a red colored car", ...]
    await write.many({prompt: categorise(prompt) for prompt in prompts})    # {prompt: [...]}

Every answer is kept with the request that made it: the same question is never paid for twice, and a second run needs
neither a key nor a network.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textnorm_lib.contrastive.answers import Answer, AnswerError, parse_answer
from textnorm_lib.contrastive.chat import Patience, Reply, complete, open_client
from textnorm_lib.contrastive.few_shot import answer_length, few_shot_prompt
from textnorm_lib.errors import ConfigError, StoreError
from textnorm_lib.files import check_regular
from textnorm_lib.progress import progress
from textnorm_lib.store import digest, write_atomically

if TYPE_CHECKING:
    from openai import OpenAI

MODEL = "gpt-4-0613"
CHARACTERS_PER_TOKEN = 4  # the usual rule of thumb for English; exact counts would need each model's own tokenizer


@dataclass(frozen=True)
class Estimate:
    """What a run would ask for: four characters a token, an answer as long as the examples shown have it.

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

    ``client`` is an ``openai.OpenAI``; without one, it is opened for ``base_url`` with the key in ``OPENAI_API_KEY``
    when the first answer is missing from the folder ``cache``. The server is not part of what an answer is cached
    under: another one that serves another model by the same name needs another folder.
    """

    client: "OpenAI | None" = field(default=None, repr=False)
    model: str = MODEL
    _: KW_ONLY
    cache: Path
    base_url: str | None = field(default=None, repr=False)  # may hold a password
    temperature: float = 0.0
    frequency_penalty: float = 0.2
    concurrency: int = 4
    patience: Patience = field(default_factory=Patience)

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

    async def many(self, prompts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The contrastive prompts of each of ``prompts`` (prompt -> categories), ``concurrency`` requests at a time.

        A failed request ends the run; an answer without a clear list does so only when all are there. After either, and
        after an interruption, the next run asks for what is missing and no more. Raises as a single call does.
        """
        requests = {prompt: self._request(prompt, categories) for prompt, categories in prompts.items()}
        replies = {prompt: self._cached(request) for prompt, request in requests.items()}
        missing = [prompt for prompt, reply in replies.items() if reply is None]
        if missing:
            replies |= await self._ask_all({prompt: requests[prompt] for prompt in missing})
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
        return self.client or open_client(self.base_url)

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

    def _ask(self, prompt: str, request: dict[str, Any], stop: threading.Event | None = None) -> Reply:
        """Ask the server and keep what it answers, of use or not."""
        reply = complete(self._client, request, label=f"prompt {prompt!r:.80}", patience=self.patience, stop=stop)
        kept = {"request": request, "reply": reply._asdict(), "asked": datetime.now(UTC).isoformat(timespec="seconds")}
        write_atomically(self._file(request), json.dumps(kept, indent=1).encode())
        return reply

    async def _ask_all(self, requests: dict[str, dict[str, Any]]) -> dict[str, Reply]:
        """Threads over one client: unlike an asynchronous client it outlives the event loop of a single call."""
        loop, stop, pool = asyncio.get_running_loop(), threading.Event(), ThreadPoolExecutor(self.concurrency)
        _ = self._client  # opened once, and a missing key found, before the threads start
        asked = {
            prompt: loop.run_in_executor(pool, self._ask, prompt, request, stop) for prompt, request in requests.items()
        }
        done = asyncio.as_completed(asked.values())
        try:
            for reply in progress(done, "contrastive prompts", total=len(asked), unit="prompts"):
                await reply
        finally:  # what is under way may be paid for: it is waited for, one attempt long, and kept
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            await asyncio.gather(*asked.values(), return_exceptions=True)
        return {prompt: reply.result() for prompt, reply in asked.items()}

    def _captions(self, requests: dict[str, dict], replies: dict[str, Reply]) -> dict[str, list[str]]:
        """What the replies hold; says on standard error what was dropped, raises one line for all that hold no list."""
        answers: dict[str, Answer] = {}
        refused = []
        for prompt, reply in replies.items():
            try:
                answers[prompt] = _read(reply, prompt)
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


def _read(reply: Reply, prompt: str) -> Answer:
    if reply.finish_reason != "stop":
        raise AnswerError(f"the answer ended early (finish_reason = {reply.finish_reason!r:.40})")
    return parse_answer(reply.text, prompt)
