"""Notebooks become pages that lead to each other, describe their pictures, ask for nothing and run nothing."""

import re
import subprocess
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from textnorm_lib.__main__ import main
from textnorm_lib.study import pages
from textnorm_lib.study.store import CHECKOUT

WIDGET = "application/vnd.jupyter.widget-view+json"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # one dot, a PNG
)
ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "<svg onload=alert(1)><script>alert(1)</script></svg>",
    '<a href="javascript:alert(1)">click</a>',
    "<a href='data:text/html,<script>alert(1)</script>'>click</a>",
    '<a href="http://[">click</a>',
    '<iframe src="https://example.org"></iframe>',
    '<div style="background: url(https://example.org/a.png)">text</div>',
    "<style>@import url(https://example.org/a.css)</style>",
    '<link rel="stylesheet" href="https://example.org/a.css">',
    '<meta http-equiv="refresh" content="0; url=https://example.org">',
    '<form action="https://example.org"><button>send</button></form>',
    "<script>alert(1)",
    r"$\text{<script>alert(1)</script>} </math><img src=x onerror=alert(1)>$",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(**data):
    return new_output("display_data", data={kind.replace("_", "/"): value for kind, value in data.items()})


def cell(*outputs, source="1", **metadata):
    return new_code_cell(source, outputs=list(outputs), metadata=metadata)


FIRST = "# 01 · First\n\n**Question.** Is $n > 1$, or more,\nenough?\n\nMore."


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A checkout with two notebooks and an appendix; returns a function that runs some cells and gives their page."""
    monkeypatch.setattr(pages, "CHECKOUT", tmp_path)
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(tmp_path / "artifacts"))
    runs = tmp_path / "artifacts" / "runs" / "smoke"
    runs.mkdir(parents=True)
    for folder in ("notebooks", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "docs" / "data card.md").write_text("# Card")
    texts = {"01_first": FIRST, "02_second": "# 02 · Second", "A1_more": "# A1 · More"}
    for name, text in texts.items():
        notebook = new_notebook(cells=[new_markdown_cell(text)])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
        if name != "A1_more":
            nbformat.write(notebook, runs / f"{name}.ipynb")

    def page_of(*cells, name="01_first"):
        nbformat.write(new_notebook(cells=[new_markdown_cell(texts[name]), *cells]), runs / f"{name}.ipynb")
        *_, index = pages.make_pages("smoke")
        return soup(index.parent / f"{name}.html")

    return page_of


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def folder_of(tmp_path):
    return tmp_path / "artifacts" / "html" / "smoke"


# ---- the pages and the way through them


def test_the_index_has_every_page_in_order_with_its_question(study, tmp_path):
    study()
    index = soup(folder_of(tmp_path) / "index.html")
    entries = index.main("li")
    assert [entry.a["href"] for entry in entries] == ["01_first.html", "02_second.html", "A1_more.html"]
    assert [entry.a.text for entry in entries] == ["01 · First", "02 · Second", "A1 · More"]
    question = entries[0]("p")[1]
    assert question.annotation.extract().text == "n > 1" and question.text == "Is n>1, or more, enough?"
    assert "the profile smoke" in index.main.p.text


def test_each_page_leads_to_the_one_before_the_index_and_the_one_after_at_top_and_bottom(study, tmp_path):
    study()
    expected = {
        "01_first": ["index.html", "02_second.html"],
        "02_second": ["01_first.html", "index.html", "A1_more.html"],
        "A1_more": ["02_second.html", "index.html"],
    }
    for name, links in expected.items():
        navigations = soup(folder_of(tmp_path) / f"{name}.html")("nav")
        assert [[link["href"] for link in navigation("a")] for navigation in navigations] == [links, links]


def test_a_notebook_that_was_not_run_is_named_in_the_index_and_left_out_of_the_way(study, tmp_path):
    (tmp_path / "artifacts" / "runs" / "smoke" / "02_second.ipynb").unlink()
    page = study()
    assert page.select_one("nav a[rel=next]")["href"] == "A1_more.html"
    assert "Not run for this profile: 02_second.ipynb." in soup(folder_of(tmp_path) / "index.html").text


LEADS_TO = {
    "02_second.ipynb": "02_second.html",
    "02_second.ipynb#The-toy": "02_second.html#The-toy",
    "#The-toy": "#The-toy",
    "../docs/data%20card.md#rights": "../../../docs/data%20card.md#rights",
    "https://example.org/a.ipynb": "https://example.org/a.ipynb",
    "mailto:who@example.org": "mailto:who@example.org",
    **dict.fromkeys(("09_none.ipynb", "../docs/none.md", "../../outside.md", "/etc/hostname", "//example.org/a", "")),
    **dict.fromkeys(("javascript:alert(1)", "file:///etc/hostname", "%00", "a" * 5_000)),
}


@pytest.mark.parametrize("form", ["[text](<{}>)", '<a href="{}">text</a>'], ids=["markdown", "html"])
def test_a_link_leads_from_the_page_to_where_it_led_from_the_notebook_or_is_plain_text(study, form):
    page = study(*(new_markdown_cell(f"See {form.format(link)}.") for link in LEADS_TO))
    paragraphs = [found for found in page("p") if found.text.startswith("See")]
    assert [found.text for found in paragraphs] == ["See text."] * len(LEADS_TO)
    assert [found.a and found.a.get("href") for found in paragraphs] == list(LEADS_TO.values())


def test_a_page_outside_the_checkout_has_no_links_into_it(study, tmp_path, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "artifacts" / "runs").rename(elsewhere / "runs")
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "artifacts").symlink_to(elsewhere)
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(elsewhere))
    page = study(new_markdown_cell("[the card](<../docs/data card.md>)"))
    assert "the card" in page.text
    assert str(tmp_path) not in str(page)


# ---- what stands on them


def test_formulas_are_set_in_the_page_with_their_source(study):
    page = study(new_markdown_cell(r"As $\tau \to 0$:" + "\n\n" + r"$$\frac{a < b}{c}$$" + "\n\nnot `$x$`"))
    formulas = page("math")
    assert [formula.annotation.text for formula in formulas] == ["n > 1", r"\tau \to 0", r"\frac{a < b}{c}"]
    assert [formula.get("display") for formula in formulas] == [None, None, "block"]
    assert [part.name for part in formulas[2].mfrac(recursive=False)] == ["mrow", "mi"]
    assert "$x$" in [code.text for code in page("code")]


def test_a_comma_stays_with_the_formula_before_it(study):
    page = study(new_markdown_cell("With $a$, $b$ or $c$.\n\n$$d$$,"))
    together = page.main("span", class_="together")[-2:]
    assert [(found.math.annotation.text, found.contents[-1]) for found in together] == [("a", ","), ("c", ".")]


@pytest.mark.parametrize("tex", [r"\nosuchthing{x} < 1", r"\text{<script>} \frac{1}", "{" * 100_000], ids=repr)
def test_a_formula_that_cannot_be_set_is_shown_as_it_is_written_and_said_so(study, capsys, tex):
    page = study(new_markdown_cell(f"Here ${tex}$."))
    assert tex in [code.text for code in page("code")]
    assert tex in capsys.readouterr().err


def test_every_formula_of_the_notebooks_can_be_set(capsys):
    for path in sorted(CHECKOUT.glob("notebooks/*.ipynb")):
        texts = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
        pages.harmless(pages.as_html("\n\n".join(texts)), lead=str)
    assert "cannot be set" not in capsys.readouterr().err


def test_pictures_keep_their_alt_text_and_one_without_is_given_some(study):
    described = shown(image_png=PIXEL)
    described.metadata["image/png"] = {"alt": 'CLIP > "BLIP" & more'}
    page = study(cell(described, shown(image_png=PIXEL)), new_markdown_cell(f"![](data:image/png;base64,{PIXEL})"))
    alts = [image["alt"] for image in page("img")]
    assert alts[0] == 'CLIP > "BLIP" & more'
    assert len(alts) == 3 and all(alts)


def test_a_table_is_kept_and_scrolls_within_itself(study):
    frame = "<style scoped>.dataframe {top: 0}</style><table class='dataframe'><tr><td>0.71</td></tr></table>"
    page = study(new_markdown_cell("| a | b |\n| --- | --- |\n| 1 | 2 |"), cell(shown(text_html=frame)))
    assert [table.td.text for table in page.select(".wide > table")] == ["1", "0.71"]
    assert ".dataframe {top" not in page.main.text


def test_words_in_a_table_begin_at_the_left_and_numbers_do_not(study):
    frame = pd.DataFrame({"verdict": ["holds", "cannot be told", "–"], "value": [0.5, "[.1, .2]", "none"]})
    page = study(cell(shown(text_html=frame.to_html())))
    words = [cell.text for cell in page.select("table.dataframe .words")]
    assert words == ["verdict", "holds", "cannot be told", "–"]


def test_a_widget_is_a_sentence_and_the_state_of_widgets_is_left_out(study):
    view = {WIDGET: {"model_id": "1"}, "text/plain": "<Interface object at 0x7f>"}
    page = study(cell(new_output("execute_result", data=view, execution_count=1)))
    assert "needs a running kernel" in page.main.text and "Interface object" not in page.main.text


def test_javascript_outputs_are_dropped_whole(study):
    page = study(cell(shown(**{"application_javascript": "alert(1)", "text_plain": "<Javascript object>"})))
    assert "alert" not in page.main.text and "Javascript" not in page.main.text


def test_of_a_progress_bar_the_last_state_stays_and_warnings_stay(study):
    page = study(cell(stream("a warning\nstep:  0%\rstep: 50%\rstep: 100%\r\nanother\n", "stderr")))
    assert page.select_one(".output_stderr pre").text.split("\n") == ["a warning", "step: 100%", "another", ""]


def test_the_parameters_of_the_run_are_marked_as_such(study):
    page = study(cell(source='profile = "smoke"', tags=["injected-parameters"]))
    assert "profile" in page.select_one(".celltag_injected-parameters").text


# ---- what they do not do


@pytest.mark.parametrize("attack", ATTACKS)
def test_html_in_prompts_tables_pictures_and_text_does_not_run(study, attack):
    described = shown(image_png=PIXEL)
    described.metadata["image/png"] = {"alt": attack}
    outputs = [stream(attack), shown(text_html=f"<table><tr><td>{attack}</td></tr></table>"), described]
    outputs += [shown(text_plain=attack), shown(text_markdown=attack)]
    error = new_output("error", ename="E", evalue=attack, traceback=[attack])
    text = new_markdown_cell(f"# {attack}\n\nA {attack} b")
    page = study(cell(*outputs, source=f"prompt = {attack!r}"), cell(error), text)
    assert not page.main(["script", "style", "svg", "iframe", "link", "meta", "form", "button", "noscript", "object"])
    for element in page.main(True):
        assert not [name for name in element.attrs if name.startswith("on")]
        assert "url(" not in element.get("style", "")
        assert not re.match(r"\s*(javascript|data):", element.get("href", ""), re.IGNORECASE)
        assert element.name != "img" or element["src"].startswith("data:image/")
    assert page.select_one(".output_stdout pre").text.strip() == attack


def test_a_page_asks_for_nothing_and_forbids_its_browser_to(study):
    page = study(new_markdown_cell("![far](https://example.org/a.png) ![near](a.png)"))
    assert "default-src 'none'" in page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert not page(["script", "link"]) and "@import" not in page.style.text and "url(" not in page.style.text
    assert page("img") == [] and "[far]" in page.text and "[near]" in page.text


def test_a_tag_that_one_cell_leaves_open_or_closes_does_not_reach_the_next(study):
    page = study(
        new_markdown_cell("<script>a <table><tr><td>b"), new_markdown_cell("</div></main>c"), cell(stream("d"))
    )
    assert page.main.select_one(".output_stdout pre").text.strip() == "d"
    assert [len(found.find_parents("td")) for found in page(class_=["text_cell", "code_cell"])] == [0, 0, 0, 0]


def test_no_folder_of_the_machine_stands_on_a_page(study, tmp_path):
    inside, home = tmp_path / "textnorm_lib" / "study/store.py", Path.home() / "secret.txt"
    said = f"File {inside}, line 3; {home}; file://{inside}; '{tmp_path}'; {tmp_path}x/kept"
    page = study(cell(stream(said), shown(text_html=f"<b title='{inside}'>{home}</b>"), source=f"# {inside}"))
    assert page.select_one(".output_stdout pre").text.strip() == (
        "File ./textnorm_lib/study/store.py, line 3; ~/secret.txt; ./textnorm_lib/study/store.py; '.'; "
        f"{tmp_path}x/kept"
    )
    text = str(page).replace(f"{tmp_path}x", "")
    assert str(tmp_path) not in text and f"{Path.home()}/" not in text


def test_the_same_runs_give_the_same_pages(study, tmp_path):
    def written():
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder_of(tmp_path).iterdir()}

    study()
    first = written()
    pages.make_pages("smoke")
    assert written() == first


# ---- the command


@pytest.mark.parametrize(
    ("profile", "said"), [("mini", "run ./run_all.sh mini first"), ("mimi", "mimi"), ("../smoke", "smoke")]
)
def test_what_is_wrong_with_a_profile_is_said_in_one_line(study, tmp_path, capsys, profile, said):
    assert main(["pages", profile]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and said in printed.err
    assert not folder_of(tmp_path).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_notebook_is_named_in_one_line(study, tmp_path, capsys, content):
    (tmp_path / "artifacts" / "runs" / "smoke" / "02_second.ipynb").write_text(content)
    assert main(["pages", "smoke"]) == 2
    printed = capsys.readouterr().err
    assert "02_second.ipynb" in printed and printed.count("\n") == 1


def test_it_says_how_many_pages_there_are_and_where(study, tmp_path, capsys):
    assert main(["pages", "smoke"]) == 0
    assert capsys.readouterr().out == f"pages: 3 notebooks in {folder_of(tmp_path)}; open index.html in a browser\n"


def test_run_all_has_the_command(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = - ] || echo "$*" >> {tmp_path}/log\n')
    python.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path)}

    def run_all(*arguments):
        return subprocess.run([CHECKOUT / "run_all.sh", *arguments], env=env, capture_output=True).returncode

    assert [run_all("html"), run_all("html", "smoke"), run_all("html", "smoke", "mini")] == [0, 0, 2]
    assert (tmp_path / "log").read_text() == "-m textnorm_lib pages\n-m textnorm_lib pages smoke\n"
