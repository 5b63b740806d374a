"""Prompts and names as nobody should write them: nothing runs, nothing breaks out of its place, nothing hangs."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import bundled_reward

from textnorm_lib.images.sampling import plan_images
from textnorm_lib.judging.labelling import ALIGNMENT, LabelItem, Session, open_session
from textnorm_lib.judging.widgets import alignment_interface
from textnorm_lib.prompts import random_prompts, rule_based
from textnorm_lib.prompts.linter import as_frame, lint
from textnorm_lib.prompts.templates import categorise, parse_composition, parse_counting
from textnorm_lib.rewards import load_reward
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.pages import as_html, harmless
from textnorm_lib.study.printed import as_csv, as_markdown, as_tex

EXAMPLES = 40
hostile = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = st.sampled_from([
    *("a dog", " and ", "two ", "\x00", "\x1b[31m", "\r\n", "\u2028", "\u202e", "\ufeff", "\U0001f469\u200d\U0001f467"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td>", "&#x3c;", "$(reboot)", "`id`", "; ls |"),
    *("\\input{x}", "\\", "$x_1^2$", "%", "&", "{", "#", "~", "|", "](javascript:alert(1))", "![x](http://e/x.png)"),
    *("../../etc/passwd", "/dev/zero", "'", '"', "{0}", "%s", "=1+1", "İ", "ﬀ"),
])  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=6).map("".join)
WRITABLE = TEXTS.filter(lambda text: not re.search("[\ud800-\udfff]", text))
LONG = ["a" * 100_000, "a " * 50_000, "a dog and " * 10_000, "a pencil sketch of " * 5_000, "a " + "photo " * 20_000]
LONG += ["[" * 20_000, "<" * 20_000, "|" * 20_000, "*" * 20_000, "\u202e" * 20_000, "two " + "x " * 30_000]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "1.png"
    Image.new("RGB", (8, 8)).save(path)
    return path


def refusal(call):
    """The study's own line, if there is one: short, and nothing in it steers a terminal."""
    try:
        call()
    except StudyError as error:
        assert str(error).isprintable() and len(str(error)) < 2500
        return str(error)
    return None


@hostile
@given(TEXTS)
def test_any_text_is_read_by_the_rules_or_refused_in_one_line(prompt):
    for read in (rule_based, parse_counting, parse_composition):
        refusal(lambda read=read: read(prompt))
    assert isinstance(categorise(prompt), tuple)


@pytest.mark.parametrize("prompt", LONG, ids=range(len(LONG)))
def test_a_text_of_any_length_costs_the_rules_and_the_linter_no_time(prompt):
    started = time.process_time()
    assert refusal(lambda: rule_based(prompt)) and refusal(lambda: parse_counting(prompt))
    categorise(prompt)
    lint(as_frame("long", {prompt: ["a cat", prompt]}))
    as_html(prompt[:5_000])
    assert time.process_time() - started < 20  # seconds; what goes back and forth takes minutes


@hostile
@given(WRITABLE, WRITABLE)
def test_the_linter_and_the_controls_take_any_text(prompt, other):
    faults = lint(as_frame("any", {prompt: [other, prompt]}))
    assert "prompt itself" in set(faults["fault"])
    drawn = random_prompts(prompt, [prompt, other, "a zebra crossing"], 1, seed=0)
    assert drawn[0] != prompt


@hostile
@given(WRITABLE)
def test_an_images_file_is_named_by_numbers_whatever_its_prompt(prompt):
    assert plan_images([prompt], 2, seed=0)["image"].tolist() == ["image_0_0.png", "image_0_1.png"]


@hostile
@given(TEXTS)
@example("../../x")
@example("a" * 5_000)
def test_an_annotators_file_stays_in_its_folder_and_is_named_in_plain_letters(image, tmp_path, name):
    folder = tmp_path / "labels"
    refusal(lambda: open_session(folder, [LabelItem("1", "p", ((image,),))], ALIGNMENT, annotator=name, seed=0).close())
    assert [path for path in tmp_path.rglob("*") if path.parent not in (folder, tmp_path)] == []
    assert all(re.fullmatch(r"[\w-]+\.jsonl(\.lock)?", path.name) for path in folder.glob("*"))


@hostile
@given(TEXTS)
def test_a_labelling_page_gets_a_prompt_as_text_and_the_file_gives_its_name_back(image, tmp_path, text):
    path = tmp_path / "labels.jsonl"
    path.unlink(missing_ok=True)
    for done in (0, 1):
        session = Session(path, [LabelItem(text, text, ((image,),))], ALIGNMENT, annotator="ana", seed=0)
        assert session.done == done
        if not done:
            assert alignment_interface(session).shown["prompt"] == text
            session.answer(session.current, "good")
        session.close()


def test_the_labelling_page_puts_text_in_as_text_only():
    script = Path(alignment_interface.__code__.co_filename).with_suffix(".js").read_text(encoding="utf-8")
    assert "textContent" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)


@hostile
@given(TEXTS)
def test_nothing_in_a_text_runs_or_is_fetched_on_a_page(text):
    page = harmless(as_html(text), lambda href: href if href.startswith("#") else None)
    tags = re.findall(r"<[^>]*>", page)
    assert not [
        tag for tag in tags if re.match(r"<\s*/?\s*(script|iframe|object|embed|style|link|meta|form)", tag, re.I)
    ]
    assert not [tag for tag in tags if re.search(r"\son\w+\s*=|javascript:", tag, re.I)]
    assert not [tag for tag in tags if " src=" in tag.replace(' src="data:image/', "")]


@hostile
@given(WRITABLE)
def test_a_text_stays_in_its_cell_of_csv_markdown_and_tex(text):
    table = pd.DataFrame({"prompt": [text], "value": [".5"]})
    content = as_csv(table)
    read = pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=str)
    assert read.shape == (1, 2) and read["value"].tolist() == [".5"]
    lines = as_markdown(table, "caption", "smoke").decode().split("\n")
    assert lines[3:] == ["", "caption (Profile: smoke.)", ""] and lines[2].count("|") == 3
    assert not re.search(r"<[A-Za-z/!?]|\]\(", lines[2])
    (row,) = [line for line in as_tex(table, "caption", "smoke").decode().split("\n") if r"& .5 \\" in line]
    cell = row.removesuffix(r" & .5 \\")
    assert not re.search(r"(?<!\\)[&%$#_{}]", re.sub(r"\\[A-Za-z]+ ", "", cell))
    assert set(re.findall(r"\\([A-Za-z]+)", cell)) <= {"textbackslash", "textasciitilde", "textasciicircum", "space"}


@pytest.mark.parametrize("name", ["clip", "blip2", "imagereward", "pickscore"])
def test_a_reward_scores_any_text_with_a_number_or_refuses_it_in_one_line(name):
    reward = load_reward(name, folder=bundled_reward(name))
    pixels = np.zeros((1, 64, 64, 3), np.uint8)

    @settings(hostile, max_examples=10)
    @given(TEXTS)
    @example("\ud800")
    @example("a" * 10_000)
    @pytest.mark.filterwarnings("ignore")
    def check(prompt):
        if not refusal(lambda: reward.score_matrix(pixels, [prompt, "a dog"])):
            assert np.isfinite(reward.score_matrix(pixels, [prompt, "a dog"])).all()

    check()
