"""Numbers in texts come from tables: one cell each, printed in the field's way, and words that depend on them hold."""

import pytest

from textnorm_lib.study.errors import DataError
from textnorm_lib.study.printed import Tables, fill, quote, untrue

CSV = """set,reward,mean,low,high,n_prompts,share_good,kl,verdict
all,clip,0.7641,0.7502,0.7788,525,0.4164,33.25,holds
all,a longer name,-0.02,,,27500,0.5,,does not hold
"""
ROW = "tab01_toy; set=all, reward=clip"


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "tab01_toy.csv").write_text(CSV)
    return Tables(tmp_path, ("tab01_toy",))


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (f"{ROW}; mean", ".764"),
        (f"{ROW}; mean [low, high]", ".764 [.750,\u00a0.779]"),
        (f"{ROW}; n_prompts", "525"),
        (f"{ROW}; share_good %", "41.6%"),
        (f"{ROW}; kl", "33.2"),
        (f"{ROW}; verdict", "holds"),
        ("tab01_toy; reward~longer; n_prompts", "27,500"),
        ("tab01_toy; reward~longer; mean [low, high]", "-.020 [–,\u00a0–]"),
        ("tab01_toy; reward~longer; kl", "–"),
    ],
)
def test_a_reference_gives_one_cell_as_it_is_printed(tables, reference, text):
    assert quote(tables, reference) == text


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("tab01_toy; set=all; mean", "2 rows of tab01_toy fit"),
        ("tab01_toy; reward=blip2; mean", "0 rows of tab01_toy fit"),
        ("tab01_toy; colour=red; mean", "tab01_toy has no column 'colour'; use one of set, reward"),
        ("tab01_toy; red; mean", "tab01_toy has no column 'red'"),
        (f"{ROW}; median", "tab01_toy has no column 'median'"),
        (f"{ROW}; mean [low, top]", "tab01_toy has no column 'top'"),
        ("tab02_toy; set=all; mean", "with a table of"),
        ("tab01_toy; mean", "write 'table; column=value, ...; column'"),
    ],
)
def test_a_reference_that_fits_no_cell_or_several_is_an_error_that_says_why(tables, reference, said):
    with pytest.raises(DataError, match="'tab0") as caught:
        quote(tables, reference)
    assert said in str(caught.value)


def test_a_page_gets_the_numbers_of_the_tables_and_keeps_those_of_tables_that_are_not_there(tables):
    page = f"It is <!--= {ROW}; mean -->.9<!--/-->, and <!--= tab09_none; a=b; c -->.8<!--/--> there."
    filled = fill(page, tables)
    assert filled == page.replace(".9", ".764")
    assert fill(filled, tables) == filled


def test_conditions_are_met_or_named(tables):
    held = [f"{ROW}; low > 0.75", f"{ROW}; low < 0.8", f"{ROW}; verdict = holds", "tab09_none; a=b; c > 1"]
    wrong = [f"{ROW}; low > 0.8", f"{ROW}; verdict = does not hold", "tab01_toy; reward~longer; low > -9"]
    page = "Words.".join(f"<!--? {condition} -->" for condition in held + wrong)
    assert untrue(page, tables) == wrong
    with pytest.raises(DataError, match="has no column 'median'"):
        untrue(f"<!--? {ROW}; median > 1 -->", tables)


def test_the_key_of_tables_changes_with_their_bytes_and_names(tables):
    other = Tables(tables.folder, ())
    assert tables.key != other.key
    before = tables.key
    (tables.folder / "tab01_toy.csv").write_text(CSV.replace("525", "524"))
    assert Tables(tables.folder, tables.names).key != before
