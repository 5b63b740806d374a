"""Contrastive prompts written by a language model (sections 4.1 and 10 of the paper).

    write = LLMWriter(cache=folder)
    write("a black colored car", ["colors", "counting"])              # ["a red colored car", ...]
    write.many({prompt: categorise(prompt) for prompt in prompts})    # {prompt: [...]}

The writer keeps every answer with the request that made it: nobody pays twice for the same question, and a second run
needs neither a key nor a network.

**What is asked.** Section 4.1 of the paper prints the instruction, its table 3 the examples. The listing of the
assembly (algorithm 10) is an image, absent from the text at hand: the order of the parts is that of section 4.1, while
the sentence that asks for a list and the way the parts are set apart are ours. We leave out a comma that the print
carries inside a caption ("marshmallows,"). All eight inputs of table 3 are prompts of TIA2's comprehensive set
themselves: asked for one of these, the model sees an answer to that very prompt. The paper's model, gpt-4-0613, knows
no structured output, and neither do all servers that speak its protocol, so the answer is free text.

**The API key** comes from the environment alone, and nothing that leaves this module holds it: errors of the client
become text of our own and are never chained, and the server's words are withheld if they repeat the key.
"""

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from textnorm_lib.study.errors import ConfigError, DataError, StoreError, StudyError, check_regular
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import digest, write_atomically

if TYPE_CHECKING:
    from openai import OpenAI

INSTRUCTION = "Create captions that are different from the original input used for the text-to-image generation model"
REFERENCE = ", referencing the provided failure cases"
FORMAT = 'Answer with one list, ["caption", "caption", ...], and nothing else.'
LONGEST_ANSWER = 20_000  # characters; the longest released list has 1,785
LONGEST_CAPTION = 400  # characters; the longest released caption has 95

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

# Table 3: for each category a prompt and contrastive captions for it.
_TABLE_3 = {
    "text": (
        "A sign that says 'Diffusion'.",
        "A sign misspelled as 'Difision'.; A sign containing a bizarre accent 'Difśion'.",
    ),
    "style": (
        "Greek statue of a man tripping over a cat.",
        """Greek statue of a man; Greek statue of two men; Greek statue of two men tripping over a cat.;
        Greek statue of a man tripping over a dog.; Greek statue of two men tripping over a dog.;
        Greek statue of a man tripping over a ball.""",
    ),
    "composition": (
        "A red car and a white sheep.",
        """A red car and two white sheep.; A red car and a herd of sheep.;
        A red car and a dominant white sheep among the gray ones.; A red car with two real sheep on the side.""",
    ),
    "counting": (
        "Four cars on the street.",
        "Two cars on the street.; Three cars on the street.; Five cars on the street.; Six cars on the street.",
    ),
    "creative": (
        "A heart made of chocolate",
        """a star made of caramel; a flower made of marshmallows; a diamond made of gummy bears;
        a moon made of licorice; a sun made of jelly beans; a butterfly made of lollipops; a crown made of cotton candy;
        a rainbow made of skittles; a cloud made of cotton candy; a tree made of chocolate-covered pretzels;
        a snowflake made of peppermint candies; a fish made of sour gummies; a bird made of chocolate-covered almonds;
        a car made of chocolate bars; a house made of chocolate cookies; a boat made of chocolate-covered strawberries;
        an airplane made of chocolate truffles; a guitar made of chocolate wafer sticks;
        a camera made of chocolate coins; a dinosaur made of chocolate eggs""",
    ),
    "location": (
        "A glowing mushroom in the forest",
        """a sparkling flower in the garden; a luminous firefly in the night sky; a shimmering starfish in the ocean;
        a radiant sunflower in the field; a glowing jellyfish in the deep sea; a gleaming diamond in the jewelry store;
        a luminescent moon in the night sky; a glowing firefly in the meadow; a sparkling gemstone in the cave;
        a luminous butterfly in the garden; a shimmering seashell on the beach; a radiant rainbow in the sky;
        a glowing lantern in the dark; a luminescent lightning bug in the field; a sparkling crystal in the cave;
        a shimmering waterfall in the forest; a radiant star in the night sky; a glowing firefly in the park;
        a luminous pearl in the oyster; a sparkling diamond in the jewelry box""",
    ),
    "colors": (
        "A blue bird and a brown bear.",
        """A pair of bears, one blue and the other brown.; A blue bear and a brown bear, no bird in sight.;
        Two bears, both brown, no blue bird.; Two bears, one brown and the other unexpectedly blue.""",
    ),
    "spatial": (
        "An umbrella on top of a spoon.",
        """A spoon.; An umbrella.; An umbrella on the right of a spoon.; An umbrella on the left of a spoon.;
        An umbrella at the bottom of a spoon.; Two umbrellas on top of a spoon.""",
    ),
}


class Example(NamedTuple):
    """A prompt and contrastive captions for it."""

    prompt: str
    captions: tuple[str, ...]


FEW_SHOT = {
    category: Example(prompt, tuple(" ".join(caption.split()) for caption in captions.split(";")))
    for category, (prompt, captions) in _TABLE_3.items()
}


# ---- what is asked, and how the answer is read


def few_shot_prompt(prompt: str, categories: Sequence[str]) -> str:
    """What to send for ``prompt``: one example for each of ``categories``, in their order; there may be none.

    Raises ``ConfigError`` for an unknown or repeated category, ``DataError`` for a prompt that is not one line of text.
    """
    if isinstance(categories, str) or len(set(categories)) < len(categories) or not FEW_SHOT.keys() >= set(categories):
        raise ConfigError(f"categories = {categories!r}: give a list of different ones out of {', '.join(FEW_SHOT)}")
    if not isinstance(prompt, str) or not prompt.strip() or not prompt.isprintable():
        raise DataError(f"prompt {prompt!r:.80}: give one line of text")
    examples = [
        f"Category: {category.capitalize()}\n"
        f"Input: {_quoted(FEW_SHOT[category].prompt)}\nOutput: {_quoted(FEW_SHOT[category].captions)}"
        for category in categories
    ]
    instruction = f"{INSTRUCTION}{REFERENCE if categories else ''}. {FORMAT}"
    return "\n\n".join([instruction, *examples, f"Input: {_quoted(prompt)}\nOutput:"])


def answer_length(categories: Sequence[str]) -> float:
    """Characters to expect of an answer: the mean of table 3 over these categories, or over all if there are none."""
    lengths = [len(_quoted(FEW_SHOT[category].captions)) for category in categories or FEW_SHOT]
    return sum(lengths) / len(lengths)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class AnswerError(DataError):
    """An answer that holds no list of captions, or one that cannot be trusted; the message is the reason alone."""


class Answer(NamedTuple):
    """The captions of an answer, and what was dropped from it."""

    captions: list[str]
    own: int  # times the prompt itself was among them
    duplicates: int


def parse_answer(text: str, prompt: str) -> Answer:
    """The captions in ``text``, without ``prompt`` itself and without duplicates, in their order.

    Two captions are the same if only case, white space or a final full stop differ. From its first bracket to its last
    ``text`` must be one list of strings in JSON; prose, a code fence or an object may surround it. Nothing is evaluated
    or guessed, since a caption lost or made up changes a reward. Raises ``AnswerError`` for anything else, for more
    than ``LONGEST_ANSWER`` characters, for an entry that is empty, longer than ``LONGEST_CAPTION`` or not plain text
    (control characters, Markdown), and where only the prompt is left.
    """
    if len(text) > LONGEST_ANSWER:
        raise AnswerError(f"it has {len(text):,} characters, more than {LONGEST_ANSWER:,}")
    try:
        entries = json.loads(text[text.find("[") : text.rfind("]") + 1])
    except (ValueError, RecursionError):
        raise AnswerError("it holds no list, or not one plain list as JSON writes it") from None
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise AnswerError("its list is empty or holds something else than strings in quotation marks")
    captions = [_caption(entry, number) for number, entry in enumerate(entries, start=1)]
    others = [caption for caption in captions if _same(caption) != _same(prompt)]
    distinct: dict[str, str] = {}
    for caption in others:
        distinct.setdefault(_same(caption), caption)
    if not distinct:
        raise AnswerError("its list holds nothing but the prompt itself")
    return Answer(list(distinct.values()), len(captions) - len(others), len(others) - len(distinct))


def _caption(entry: str, number: int) -> str:
    caption = " ".join(entry.split())
    if not caption:
        raise AnswerError(f"entry {number} is empty")
    if len(caption) > LONGEST_CAPTION:
        raise AnswerError(f"entry {number} has {len(caption):,} characters, more than {LONGEST_CAPTION}")
    if any(unicodedata.category(character)[0] == "C" or character in "\u2028\u2029" for character in entry):
        raise AnswerError(f"entry {number} holds control or invisible characters")
    if "**" in caption or "`" in caption:
        raise AnswerError(f"entry {number} holds Markdown")
    return caption


def _same(caption: str) -> str:
    return " ".join(caption.split()).casefold().removesuffix(".")


# ---- asking a server


class Reply(NamedTuple):
    """A server's answer and what it says about it."""

    text: str
    finish_reason: str  # "stop", or e.g. "length" where the answer was cut off
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class Estimate:
    """What a run would ask for, on the high side: by 42% for the answers behind the released comprehensive set."""

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
    for ``base_url`` (any server that speaks chat completions; OpenAI's by default) once the folder ``cache`` lacks an
    answer. The server is not part of an answer's key: give a server with another model of the same name another folder.
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

        Raises as ``few_shot_prompt``, ``AnswerError`` for an answer without a clear list, ``ConfigError`` where a key
        is missing, ``StoreError`` for a damaged file in the cache, ``StudyError`` where the server gives no answer.
        """
        request = self._request(prompt, categories)
        reply = self._cached(request) or self._ask(prompt, request)
        return self._captions({prompt: request}, {prompt: reply})[prompt]

    def many(self, prompts: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """The contrastive prompts of each of ``prompts`` (prompt -> categories), ``concurrency`` requests at a time.

        A failed request ends the run; an answer without a clear list does so only when all are there. After either, and
        after an interruption, the next run asks for what is missing alone. Raises as a single call does.
        """
        requests = {prompt: self._request(prompt, categories) for prompt, categories in prompts.items()}
        replies = {prompt: self._cached(request) for prompt, request in requests.items()}
        replies |= self._ask_all({prompt: requests[prompt] for prompt, reply in replies.items() if reply is None})
        return self._captions(requests, replies)

    def dry_run(self, prompts: Mapping[str, Sequence[str]], *, prices: tuple[float, float] | None = None) -> Estimate:
        """Print what ``many`` would send and how much it is at ``prices`` per million tokens in and out; ask nobody."""
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
        """The caller's client or one of our own, with a key that a header can carry: errors would quote any other."""
        import openai

        client = self.client
        if client is None:
            if not os.environ.get(KEY):
                raise ConfigError(
                    f"{KEY} is not set and not every answer is in the cache; "
                    "set it (to any word if the server needs none)"
                )
            client = openai.OpenAI(base_url=self.base_url, max_retries=RETRIES, timeout=TIMEOUT)
        if not isinstance(client, openai.OpenAI):
            raise ConfigError(f"client is of type {type(client).__name__}; give an openai.OpenAI")
        if not re.fullmatch(r"[!-~]*", client.api_key):
            raise ConfigError("the API key holds white space or a character that is not ASCII; set it again")
        return client

    def _request(self, prompt: str, categories: Sequence[str]) -> dict[str, Any]:
        """The chat completion to ask for; its hash names the file that keeps the answer."""
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
            return reply
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise StoreError(f"{path}: cannot be read as a kept answer ({reason}); delete it to ask again") from None

    def _ask(self, prompt: str, request: dict[str, Any]) -> Reply:
        """Ask the server and keep what it answers, of use or not."""
        outcome = _outcome(self._client, request)
        if isinstance(outcome, str):
            raise StudyError(f"prompt {prompt!r:.80}: {outcome}")
        asked = datetime.now(UTC).isoformat(timespec="seconds")
        kept = {"request": request, "reply": outcome._asdict(), "asked": asked}
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
        """What the replies hold; prints what was dropped, raises one line for all that hold no list."""
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
        own = sum(answer.own for answer in answers.values())
        duplicates = sum(answer.duplicates for answer in answers.values())
        if own or duplicates:
            dropped = f"{duplicates} duplicates and {own} of the prompt itself"
            print(f"contrastive prompts: dropped {dropped}", file=sys.stderr)
        return {prompt: answer.captions for prompt, answer in answers.items()}


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
