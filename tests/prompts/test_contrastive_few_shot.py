"""The text that goes out to a language model, and what may come back: one list of captions, or a reason."""

import json
import random
import re

import pytest

from textnorm_lib.prompts.few_shot import FEW_SHOT, LONGEST_CAPTION, AnswerError, few_shot_prompt, parse_answer
from textnorm_lib.prompts.templates import CATEGORIES

PROMPT = "a black colored car"
CAPTIONS = ["a red colored car", "two black cars"]
LIST = json.dumps(CAPTIONS)


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
