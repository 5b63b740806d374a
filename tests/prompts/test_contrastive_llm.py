"""Contrastive prompts from a language model: what is asked and read, and a real server on the loopback that fails."""

import json
import logging
import math
import random
import re
import signal
import threading
import time
import traceback
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest
from openai import _base_client

from textnorm_lib.prompts import LLMWriter, llm
from textnorm_lib.prompts.llm import (
    FEW_SHOT,
    INSTRUCTION,
    LONGEST_CAPTION,
    AnswerError,
    answer_length,
    few_shot_prompt,
    parse_answer,
)
from textnorm_lib.prompts.templates import CATEGORIES
from textnorm_lib.study.errors import ConfigError, DataError, StoreError, StudyError

PROMPT, CATEGORIES_OF_PROMPT = "a black colored car", ["colors", "counting"]
CAPTIONS = ["a red colored car", "two black cars"]
LIST = json.dumps(CAPTIONS)
KEY = "sk-sentinel-4f9Qz81LmXw07Tb"


# --- The server -------------------------------------------------------------------------------------------------------


def said(text: object = LIST, *, finish_reason: object = "stop") -> tuple[int, dict, dict]:
    """A response: status, headers and body of a chat completion."""
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}
    return 200, {}, {"id": "1", "object": "chat.completion", "model": "toy", "choices": [choice], "usage": usage}


def failed(status: int, message: str = "no", **headers: str) -> tuple[int, dict, dict]:
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": {"message": message}}


class Handler(BaseHTTPRequestHandler):
    """Responds as the server's script says; its last entry stays. An entry may be a function of handler and request."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(asked)
            response = self.server.script[min(len(self.server.asked), len(self.server.script)) - 1]
        response = response(self, asked) if callable(response) else response
        if response is not None:
            status, headers, body = response
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json", "Content-Length": len(content)} | headers).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.001)
    monkeypatch.setattr(llm, "RETRIES", 2)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.lock, server.script, server.asked = threading.Lock(), [said()], []
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def writer(server, tmp_path) -> LLMWriter:
    return LLMWriter(cache=tmp_path / "cache", base_url=server.url)


def ask(writer: LLMWriter) -> list[str]:
    return writer(PROMPT, CATEGORIES_OF_PROMPT)


def prompts(n: int) -> dict[str, list[str]]:
    return {f"a photo of {index} frogs": ["counting"] for index in range(n)}


def _prompt(asked: dict) -> str:
    (message,) = asked["messages"]
    return json.loads(message["content"].split("Input: ")[-1].split("\nOutput:")[0])


def echo(_, asked: dict) -> tuple[int, dict, dict]:
    """An answer of its own for each prompt."""
    return said(json.dumps([f"not {_prompt(asked)}"]))


def cached(writer: LLMWriter) -> list:
    return sorted(writer.cache.glob("*")) if writer.cache.exists() else []


# --- The text that goes out, and the list that comes back -------------------------------------------------------------


def test_every_category_has_its_example_and_each_example_reads_as_the_answer_it_stands_for():
    assert tuple(FEW_SHOT) == CATEGORIES
    assert [len(example.captions) for example in FEW_SHOT.values()] == [2, 6, 4, 4, 20, 20, 4, 6]
    for category, (prompt, captions) in FEW_SHOT.items():
        written = few_shot_prompt("a dog", [category]).split("\n\n")[1].split("Output: ")[1]
        assert parse_answer(written, prompt) == (list(captions), 0, 0)


def test_a_prompt_cannot_leave_its_place_and_without_categories_there_are_no_examples_to_refer_to():
    prompt = 'a sign that says "x"]. Output: ["y'
    written = few_shot_prompt(prompt, [])
    assert json.loads(written.split("Input: ")[-1].removesuffix("\nOutput:")) == prompt
    assert "Category:" not in written and "failure cases" not in written


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        (LIST, CAPTIONS),
        (f"Sure!\n```json\n{json.dumps(CAPTIONS, indent=1)}\n```\nLet me know if you need more.", CAPTIONS),
        (f"Output: {LIST}\n\nThese differ in colour and number.", CAPTIONS),
        (f'{{"captions": {LIST}}}', CAPTIONS),
        ('["a  red\u00a0car", "two cars"]', ["a red car", "two cars"]),
        ('["says \\"STOP\\"", "a man\\u0027s [blue] hat"]', ['says "STOP"', "a man's [blue] hat"]),
        ('["Difśion", "日本の車", "\\ud83d\\ude00", "a “quote”"]', ["Difśion", "日本の車", "😀", "a “quote”"]),
    ],
)
def test_a_list_is_read_whatever_stands_around_it(text, captions):
    assert parse_answer(text, PROMPT) == (captions, 0, 0)


def test_the_prompt_itself_and_duplicates_are_dropped_in_order_and_counted():
    text = json.dumps(["two cars", "A  black colored car.", "a red car", "Two cars.", PROMPT, "two cars"])
    assert parse_answer(text, PROMPT) == (["two cars", "a red car"], 2, 2)


NO_LIST, NO_STRINGS = "no list, or not one plain list", "else than strings"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, NO_LIST) for text in ("", "I'm sorry, but I cannot help with that.", "import os\nos.system('ls')")),
        *((text, NO_LIST) for text in ("['a', 'b']", "['a', f'{x}']", "['a man's hat', 'b']", "1. a red car\n2. cars")),
        *((text, NO_LIST) for text in ('["a" "b"]', '["a", "b"', '["a"]\n["b"]', '["a", "b"] [1]', r'["a\qb"]')),
        *((text, NO_LIST) for text in ('{"x": ["a"], "y": ["b"]}', "[__import__('os').system('ls')]", r'["\u12"]')),
        *((text, NO_LIST) for text in ('["a", "b\x1b[31m"]', "] [", "[exec(x) for x in 'ab']")),
        *((text, NO_STRINGS) for text in ("[]", '["a", 3]', '["a", null, "b"]', '["a", ["b"]]', '[["a", "b"]]')),
        ('["a", ""]', "entry 2 is empty"),
        ('["a", "\u00a0 "]', "entry 2 is empty"),
        (json.dumps(["a", "b" * (LONGEST_CAPTION + 1)]), "entry 2 has 401 characters"),
        (json.dumps(["a" * 300] * 80), "characters, more than 20,000"),
        *((text, "entry 1 holds control") for text in (r'["a\u0000"]', r'["a\nb"]', r'["a\u2028b"]', '["b\u202e"]')),
        (r'["a", "\ud800"]', "entry 2 holds control"),
        ('["**a red car**"]', "entry 1 holds Markdown"),
        (json.dumps([PROMPT, PROMPT + "."]), "prompt itself"),
    ],
)
def test_an_answer_without_one_clear_list_is_refused_with_the_reason(text, reason):
    with pytest.raises(AnswerError, match=re.escape(reason)) as caught:
        parse_answer(text, PROMPT)
    assert "\n" not in str(caught.value)


def test_whatever_comes_the_parser_gives_clean_captions_or_its_own_error():
    rng = random.Random(0)
    pieces = ['["a red car", "two cars"]', *"[]\"'“”,\\-*•1.) \t\n\x00\x7fé\u202e\ud800{}:`", "a car", "\\u00", "\\'"]
    read = 0
    for _ in range(5000):
        text = "".join(rng.choices(pieces, k=rng.randint(1, 12)))
        try:
            captions = parse_answer(text, PROMPT).captions
        except AnswerError:
            continue
        read += 1
        assert captions and all(caption.strip() == caption != "" for caption in captions), text
        assert all(caption.isprintable() and len(caption) <= LONGEST_CAPTION for caption in captions), text
    assert read > 50


# --- What is asked ----------------------------------------------------------------------------------------------------


def test_the_request_is_the_papers(writer, server):
    assert ask(writer) == CAPTIONS
    asked = server.asked[0]
    assert (asked["model"], asked["temperature"], asked["frequency_penalty"]) == ("gpt-4-0613", 0.0, 0.2)
    assert set(asked) == {"model", "temperature", "frequency_penalty", "messages"}
    parts = asked["messages"][0]["content"].split("\n\n")
    assert parts[0].startswith(INSTRUCTION) and "failure cases" in parts[0]
    assert [part.splitlines()[0] for part in parts[1:3]] == ["Category: Colors", "Category: Counting"]
    assert '["Two cars on the street.", "Three cars on the street.",' in parts[2]
    assert parts[3] == f'Input: "{PROMPT}"\nOutput:' and len(parts) == 4


@pytest.mark.parametrize(
    ("prompt", "categories", "error", "message"),
    [(PROMPT, c, ConfigError, "categories = .* out of text, style") for c in ("text", ["texts"], ["text"] * 2, [""])]
    + [(p, [], DataError, "one line of text") for p in ("", "  ", "two\nlines", "a\x00b", "\ud800", None, 3, ["a"])],
)
def test_bad_arguments_are_refused_before_anything_is_asked(writer, server, prompt, categories, error, message):
    with pytest.raises(error, match=message):
        writer(prompt, categories)
    assert not server.asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({name: bad}, name) for name, bad in (("temperature", 2.1), ("temperature", math.nan), ("concurrency", 0))),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"client": openai.OpenAI(api_key="x"), "base_url": "http://x"}, "give it to your client"),
        ({"base_url": "127.0.0.1/v1"}, "begin with http"),
        ({"client": openai.AsyncOpenAI(api_key="x")}, r"AsyncOpenAI; give an openai\.OpenAI"),
    ],
)
def test_bad_options_are_refused_by_name(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        ask(LLMWriter(cache=tmp_path, **options))


# --- Servers that fail ------------------------------------------------------------------------------------------------


def cut(handler, _) -> None:
    """Half an answer, then nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def hang_up(handler, _) -> None:
    handler.close_connection = True


def slow(*_) -> None:
    time.sleep(0.5)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (failed(429, "slower", retry_after="0.01"), "HTTP 429: slower (Retry-After: 0.01)"),
        (failed(500, "out\nof order"), "HTTP 500: out of order"),
        *((failed(status), f"HTTP {status}: no") for status in (503, 408)),
        ((502, {}, b"<html>bad gateway</html>"), "HTTP 502"),
        *((failure, "connection failed (RemoteProtocolError); check base_url") for failure in (cut, hang_up)),
        (slow, "does not answer in time"),
    ],
    ids=["429", "500", "503", "408", "html", "cut", "hang-up", "slow"],
)
def test_what_may_pass_is_tried_again_a_bounded_number_of_times(writer, server, monkeypatch, failure, reason):
    monkeypatch.setattr(llm, "TIMEOUT", 0.2 if failure is slow else 30.0)
    server.script = [failure]
    with pytest.raises(StudyError, match=f"prompt '{PROMPT}': .*run again later") as caught:
        ask(writer)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == 3 and not cached(writer)

    server.script, server.asked = [failure, failure, said()], []
    assert ask(writer) == CAPTIONS and len(server.asked) == 3


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        *((failed(status, "no such model"), "change the request") for status in (400, 422)),
        *((failed(status, "no such model"), "check OPENAI_API_KEY") for status in (401, 403)),
        (failed(404, "no such model"), "check the model's name and base_url"),
        (failed(429, "no such model", retry_after="3600"), "run again later"),  # longer than the client will wait
    ],
)
def test_what_will_not_pass_fails_at_once_with_the_servers_words(writer, server, failure, remedy):
    server.script = [failure, said()]
    with pytest.raises(StudyError, match=f"prompt '{PROMPT}': .*HTTP {failure[0]}: no such model.*; {remedy}"):
        ask(writer)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_named_as_such(server, tmp_path):
    with pytest.raises(StudyError, match=r"connection failed \(ConnectError\); check base_url"):
        ask(LLMWriter(cache=tmp_path, base_url="http://127.0.0.1:9/v1"))


NO_COMPLETION = "the answer is no chat completion; check base_url"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        *((body, NO_COMPLETION) for body in (b"", b"{", b"<html>a login page</html>", b"\xff\xfe\xfd", b"[" * 200_000)),
        *((body, NO_COMPLETION) for body in ({}, {"choices": []}, {"choices": {"0": 1}}, [said()[2]])),
        ({"choices": [{"message": None, "finish_reason": "stop"}]}, NO_COMPLETION),
        *((said(content)[2], NO_COMPLETION) for content in (3, 0, [], [{"text": LIST}])),
        (said()[2] | {"usage": [1]}, NO_COMPLETION),
        (said(json.dumps(["a red car"] * 100_000))[2], "bytes, more than 1,000,000; check base_url"),
    ],
)
def test_a_body_that_is_no_chat_completion_is_refused_at_once_and_not_kept(writer, server, body, reason):
    server.script = [(200, {}, body)]
    with pytest.raises(StudyError, match=f"prompt '{PROMPT}': the answer .*{reason.removeprefix('the answer ')}"):
        ask(writer)
    assert len(server.asked) == 1 and not cached(writer)


# --- Answers that are kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (said('["a red car", "two', finish_reason="length"), "ended early (finish_reason = 'length')"),
        (said(LIST, finish_reason="content_filter"), "'content_filter'"),
        (said(LIST, finish_reason=None), "ended early"),
        (said(None), "no list"),
        (said("I cannot do that."), "no list"),
        (said('["\ud800"]'), "control"),
        (said("[" * 15_000), "no list"),
        (said("a" * 30_000), "30,000 characters"),
    ],
    ids=["cut off", "filtered", "unfinished", "null", "prose", "surrogate", "nested", "long"],
)
def test_an_answer_of_no_use_is_kept_and_refused_again_without_another_request(writer, server, response, reason):
    server.script = [response]
    for _ in range(2):
        with pytest.raises(AnswerError) as caught:
            ask(writer)
        (path,) = cached(writer)
        told = str(caught.value)
        assert reason in told and f"prompt '{PROMPT}'" in told and str(path) in told and "\n" not in told
    assert len(server.asked) == 1

    path.unlink()  # as the line says
    server.script = [said()]
    assert ask(writer) == CAPTIONS


def test_the_kept_answer_holds_its_request_and_a_second_run_needs_neither_server_nor_key(writer, server, monkeypatch):
    first = ask(writer)
    (path,) = cached(writer)
    kept = json.loads(path.read_text())
    assert kept["request"] == server.asked[0]
    usage = {"prompt_tokens": 12, "completion_tokens": 7}
    assert kept["reply"] == {"text": LIST, "finish_reason": "stop", "model": "toy"} | usage
    monkeypatch.delenv("OPENAI_API_KEY")
    again = LLMWriter(cache=writer.cache)
    assert ask(again) == first and again.many({PROMPT: CATEGORIES_OF_PROMPT}) == {PROMPT: first}
    assert len(server.asked) == 1


@pytest.mark.parametrize("options", [{"model": "other"}, {"temperature": 0.5}, {"frequency_penalty": 0.0}])
def test_another_request_is_asked_anew(writer, server, options):
    ask(writer)
    ask(LLMWriter(cache=writer.cache, base_url=server.url, **options))
    writer(PROMPT, CATEGORIES_OF_PROMPT[::-1])
    writer(PROMPT.capitalize(), CATEGORIES_OF_PROMPT)
    assert len(server.asked) == len(cached(writer)) == 4


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda text: "", lambda text: text[: len(text) // 2], lambda text: "[]", lambda text: "null"),
        *(lambda text: "[" * 100_000, lambda text: text.replace("black", "blue", 1), lambda text: f"{text}\xff"),
        lambda text: text.replace('"reply"', '"replies"'),
        lambda text: text.replace('"finish_reason"', '"reason"'),
        lambda text: re.sub(r'"text": ".*"', '"text": 3', text),
    ],
    ids=range(10),
)
def test_a_damaged_file_in_the_cache_is_named_and_nothing_is_asked(writer, server, damage):
    ask(writer)
    (path,) = cached(writer)
    whole = path.read_text()
    assert damage(whole) != whole
    path.write_bytes(damage(whole).encode("latin-1"))
    with pytest.raises(StoreError, match=f"{re.escape(str(path))}: cannot be read.*delete it to ask again") as caught:
        ask(writer)
    assert len(server.asked) == 1 and "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_a_folder_is_named_before_anything_is_asked(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=re.escape(str(tmp_path / "file"))):
        ask(LLMWriter(cache=tmp_path / "file", base_url=server.url))
    assert not server.asked


# --- Many prompts -----------------------------------------------------------------------------------------------------


def goes_on(writer, server, n: int, kept: int) -> None:
    """The next run asks for what is missing alone, and leaves what is kept as it is."""
    before = {path: path.stat().st_mtime_ns for path in cached(writer)}
    assert len(before) == kept
    server.script, server.asked = [echo], []
    answers = writer.many(prompts(n))
    assert answers == {prompt: [f"not {prompt}"] for prompt in prompts(n)} and list(answers) == list(prompts(n))
    assert len(set(map(_prompt, server.asked))) == len(server.asked) == n - kept
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_many_prompts_keep_to_the_bound_and_use_it(writer, server):
    together, places = threading.Barrier(3), threading.Semaphore(3)

    def meet(handler, asked):
        if not places.acquire(blocking=False):
            return failed(400, "a fourth at a time")
        together.wait(30)
        time.sleep(0.05)  # for a fourth to come too early
        places.release()
        return echo(handler, asked)

    server.script = [meet]
    answers = replace(writer, concurrency=3).many(prompts(12))
    assert answers == {prompt: [f"not {prompt}"] for prompt in prompts(12)} and list(answers) == list(prompts(12))
    assert sorted(map(_prompt, server.asked)) == sorted(prompts(12))


def test_a_failed_run_is_one_line_and_the_next_asks_for_what_is_missing_alone(writer, server):
    server.script = [*[echo] * 4, failed(400, "enough"), echo]
    writer = replace(writer, concurrency=1)
    with pytest.raises(StudyError, match=r"prompt 'a photo of 4 frogs': .*enough"):
        writer.many(prompts(20))
    assert len(server.asked) < 10
    goes_on(writer, server, 20, kept=len(server.asked) - 1)  # what had begun meanwhile is kept as well


def test_an_interrupted_run_keeps_what_it_had_and_goes_on(writer, server):
    both = threading.Barrier(2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))

    def interrupt(handler, asked):
        both.wait(30)
        time.sleep(0.3)
        return echo(handler, asked)

    server.script = [echo, echo, interrupt, interrupt, echo]
    writer = replace(writer, concurrency=2)
    with pytest.raises(KeyboardInterrupt):
        writer.many(prompts(10))
    assert len(server.asked) == 4
    goes_on(writer, server, 10, kept=4)


def test_what_is_dropped_is_said(writer, server, capsys):
    server.script = [said(json.dumps([*CAPTIONS, PROMPT, CAPTIONS[0]]))]
    assert ask(writer) == CAPTIONS
    assert "dropped 1 duplicates and 1 of the prompt itself" in capsys.readouterr().err


def test_an_answer_of_no_use_does_not_keep_the_others_from_being_asked(writer, server):
    server.script = [said("no"), echo, said("no"), echo]
    writer = replace(writer, concurrency=1)
    with pytest.raises(
        AnswerError, match=r"2 of 6 answers cannot be used, prompt 'a photo of 0 f.*'a photo of 2 frogs'"
    ):
        writer.many(prompts(6))
    assert len(server.asked) == 6
    usable = {prompt: categories for prompt, categories in prompts(6).items() if prompt[11] not in "02"}
    assert len(writer.many(usable)) == 4 and len(server.asked) == 6


def test_a_dry_run_shows_what_would_be_sent_and_asks_nothing(writer, server, monkeypatch, capsys):
    ask(writer)
    monkeypatch.delenv("OPENAI_API_KEY")
    dry = LLMWriter(cache=writer.cache)
    estimate = dry.dry_run({PROMPT: CATEGORIES_OF_PROMPT, "a dog": ["counting"], "a cat": []}, prices=(30.0, 60.0))
    printed = capsys.readouterr().out
    sent = [few_shot_prompt("a dog", ["counting"]), few_shot_prompt("a cat", [])]
    assert all(text in printed for text in sent) and PROMPT not in printed and str(estimate) in printed
    assert (estimate.requests, estimate.cached) == (2, 1)
    assert estimate.input_tokens == pytest.approx(sum(map(len, sent)) / 4, abs=1)
    assert estimate.output_tokens == pytest.approx((answer_length(["counting"]) + answer_length([])) / 4, abs=1)
    assert estimate.cost == pytest.approx((estimate.input_tokens * 30 + estimate.output_tokens * 60) / 1e6)
    assert dry.dry_run({"a dog": []}).cost is None
    assert len(server.asked) == 1 and len(cached(writer)) == 1


# --- The key ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", f"{KEY}\n", f" {KEY}", f"{KEY}é", f"{KEY} {KEY}"])
def test_a_key_that_is_missing_or_damaged_is_refused_without_showing_it(writer, server, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key) if key is not None else monkeypatch.delenv("OPENAI_API_KEY")
    reason = "white space or a character that is not ASCII" if key else "OPENAI_API_KEY is not set"
    for call in (lambda: ask(writer), lambda: writer.many(prompts(2))):
        with pytest.raises(ConfigError, match=reason) as caught:
            call()
        raised = caught.value.with_traceback(caught.tb.tb_next)  # the first frame is this test's, where ``key`` is
        assert KEY not in "".join(traceback.TracebackException.from_exception(raised, capture_locals=True).format())
    assert not server.asked


@pytest.mark.parametrize("key", [KEY, "car"], ids=["key", "placeholder"])  # "car" occurs in the answer, too
def test_the_server_gets_the_environments_key_or_the_clients(server, tmp_path, monkeypatch, key):
    seen = []
    server.script = [lambda handler, _: seen.append(handler.headers["Authorization"]) or said()]
    client = openai.OpenAI(api_key=key, base_url=server.url)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    assert ask(LLMWriter(cache=tmp_path / "1", base_url=server.url)) == CAPTIONS
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(LLMWriter(client, cache=tmp_path / "2")) == CAPTIONS
    assert seen == [f"Bearer {key}"] * 2


def _echoing(status: int, form: str):
    """A server that sends the request's Authorization header back."""

    def respond(handler, _):
        secret = handler.headers["Authorization"]
        return {
            "error": failed(status, f"bad header: Authorization: {secret}"),
            "broken": failed(status, f"bad header: {secret[:20]}\n{secret[20:]}"),
            "half": failed(status, f"bad header: {secret[: 7 + 20]}..."),
            "wait": failed(status, retry_after=secret),
            "html": (status, {}, f"<html>Authorization: {secret}</html>".encode()),
            "text": (status, {"Content-Type": "text/plain"}, secret.encode()),
            "answer": said(json.dumps(["a red car", secret])),
            "reason": said(finish_reason=secret),
            "model": (200, {}, said()[2] | {"model": secret}),
            "usage": (200, {}, said()[2] | {"usage": {"prompt_tokens": secret}}),
            "not json": (200, {}, secret.encode()),
        }[form]

    return respond


@pytest.mark.parametrize(
    ("status", "form"),
    [(status, form) for status in (401, 500) for form in ("error", "broken", "half", "wait", "html", "text")]
    + [(200, form) for form in ("answer", "reason", "model", "usage", "not json")],
)
@pytest.mark.parametrize("several", [False, True])
def test_a_key_that_the_server_sends_back_appears_nowhere(writer, server, caplog, capfd, status, form, several):
    caplog.set_level(logging.DEBUG)
    server.script = [_echoing(status, form)]
    with pytest.raises(StudyError) as caught:
        writer.many({PROMPT: []}) if several else ask(writer)
    assert server.asked and PROMPT in str(caught.value)
    raised, seen = caught.value, []
    while raised is not None:
        seen += [repr(raised), repr(vars(raised))]
        seen += traceback.TracebackException.from_exception(raised, capture_locals=True).format()
        raised = raised.__cause__ or raised.__context__
    logged = [record for record in caplog.records if form != "wait" or "httpcore" not in record.name]  # it logs headers
    seen += [record.getMessage() + repr(record.args) for record in logged] + list(capfd.readouterr())
    seen += [path.read_text() for path in cached(writer)] + [repr(writer), repr(writer.__dict__)]
    text = re.sub(r"\s", "", "\n".join(seen))
    assert PROMPT.replace(" ", "") in text
    assert not [start for start in range(len(KEY) - 15) if KEY[start : start + 16] in text]
