"""Every figure and table of the paper: what it says, and what in this study stands for it.

Only the paper's own words and numbers are typed here, with their sections. ``judge_paper_items`` reads all others, and
every verdict that a number can decide, from the tables that the notebooks made.
"""

import re
from dataclasses import asdict, dataclass

import pandas as pd

from textnorm_lib.judging.claims import verdict
from textnorm_lib.stats.names import FOUR, PAIR, SET_ORDER, UNDER_TEXTNORM
from textnorm_lib.study.printed import Tables, quote, row_of, table_of
from textnorm_lib.study.store import digest, step

NONE, NO_NUMBER = "–", "shown; no number to compare"


@dataclass(frozen=True)
class PaperItem:
    """One row: ``made_as`` names figures and tables of this study, ``notebooks`` those that make them.

    ``released``, ``ours`` and ``verdict`` are texts with references in braces, written as ``study/printed.py``
    says. Of these ``{same .764 | ...}`` says whether there is the paper's number, and ``{judge | ...}`` what a row's
    interval (low to high) says of the claim that its difference is above zero.
    """

    name: str
    shows: str
    notebooks: tuple[str, ...]
    made_as: tuple[str, ...]
    paper: str
    released: str = NONE
    ours: str = NONE
    verdict: str = NO_NUMBER


def _claim(part: str, source: str = "ours") -> str:
    """A claim's difference in notebook 08's table, with its interval and number of prompts."""
    row = f"tab40_claims; claim~{part}, source={source}"
    return f"{{{row}; difference [low, high]}} ({{{row}; n_prompts}})"


def _said(part: str, source: str = "ours") -> str:
    return f"{{tab40_claims; claim~{part}, source={source}; verdict}}"


def _judged(part: str) -> dict[str, str]:
    return {"ours": _claim(part), "verdict": _said(part)}


def _auroc(table: str, reward: str) -> str:
    row = f"{table}; set=all, reward={reward}, metric=auroc"
    return f"{{{row}; mean [low, high]}} ({{{row}; n_prompts}})"


def _same(number: str, reward: str) -> str:
    return f"release: {{same {number} | tab01_ablation; set=all, reward={reward}, metric=auroc; mean}}; here: "


def _over_pickscore(set_name: str) -> tuple[str, str, str]:
    """TextNorm's AUROC minus PickScore's on a set: the release's, ours, and both verdicts."""
    row = f"set={set_name}, metric=auroc, reward=pickscore, reference="
    released = f"tab13_paired_differences; {row}textnorm; difference [low, high]"
    ours = f"tab25_textnorm_tests; {row}{_ENSEMBLE}; difference [low, high]"
    return f"{{{released}}}", f"{{{ours}}}", f"release: {{judge | {released}}}; here: {{judge | {ours}}}"


def _by_both(
    name: str, shows: str, made_as: tuple[tuple[str, ...], ...], paper: tuple[str, str], part: str
) -> list[PaperItem]:
    """Two rows, of models tuned by RWR and by DDPO."""
    ways = zip(("RWR", "DDPO"), (_05, _06), made_as, paper, strict=True)
    return [
        PaperItem(f"{name}, {way}", shows, (notebook,), names, said, **_judged(f"{way}: {part}"))
        for way, notebook, names, said in ways
    ]


_ENSEMBLE = UNDER_TEXTNORM + PAIR
_01, _02, _02B, _03 = "01_build_tia2", "02_benchmark_rewards", "02b_benchmark_mini_rewards", "03_textnorm_ablations"
_04, _05, _06 = "04_best_of_n", "05_rwr_finetuning", "06_ddpo_finetuning"
_PROMPTS = ", ".join(f"{{tab05_tia2_statistics; set={name}; prompts}}" for name in SET_ORDER)
_FIGURE_6 = ("fig59_rwr_judged", "tab35_rwr_judged"), ("fig64_ddpo_judged", "tab38_ddpo_judged")
_FIGURE_9 = ("fig51_best_of_n_judged", "tab30_best_of_n_judged")

PAPER_ITEMS = (
    *_by_both(
        "Figures 1 and 5",
        "Images of tuned models; here the base's rating minus that of a model tuned on CLIP or BLIP-2, the smallest of "
        "those tuned",
        (("fig58_rwr_samples", "tab33_rwr_verdicts"), ("fig63_ddpo_samples", "tab36_ddpo_verdicts")),
        ("by eye: poorly aligned rewards make images worse (5.3)",) * 2,
        "a model tuned on a poorly aligned reward ends below the base",
    ),
    *_by_both(
        "Figure 5, last column",
        "Images of the model tuned on TextNorm; here its rating minus each other's, the smallest of those tuned",
        (("fig58_rwr_samples", "fig55_rwr_gains"), ("fig63_ddpo_samples", "fig61_ddpo_gains")),
        ("by eye: TextNorm's are better aligned (5.3)",) * 2,
        "TextNorm's model ends with a higher",
    ),
    PaperItem(
        "Figures 2 and 8",
        "Images on which rewards and people disagree",
        (_02B,),
        ("fig31_mini_disagreements",),
        "examples (3.1, 8.4)",
    ),
    PaperItem(
        "Figure 3",
        "A drawing of the method; here .05 minus the softmax share of unlike prompts (PickScore)",
        (_03,),
        ("fig44_softmax_shares",),
        "next to nothing, no number (4.1)",
        ours=_claim("next to nothing to the softmax (pickscore"),
        verdict=f"PickScore: {_said('next to nothing to the softmax (pickscore')}; "
        f"ImageReward: {_said('next to nothing to the softmax (imagereward')}",
    ),
    PaperItem(
        "Section 3.1, statistics",
        "Prompts of the three sets and together; images of all",
        (_01,),
        ("tab05_tia2_statistics", "tab15_mini_statistics"),
        "100, 150, 300; 50 images a prompt (3.1)",
        f"{_PROMPTS}; {{tab05_tia2_statistics; set=all; images}}",
        "{tab15_mini_statistics; set=all; prompts} prompts; {tab15_mini_statistics; set=all; images} images",
        "release: {same 27,500 | tab05_tia2_statistics; set=all; images}",
    ),
    PaperItem(
        "Section 4.3, main table",
        "Seven metrics, three sets; here AUROC over all prompts, and the smallest of TextNorm's 84 advantages",
        (_02, _03),
        ("tab04_metric_comparison", "tab13_paired_differences", "tab22_textnorm_rewards"),
        "TextNorm best throughout (4.3)",
        f"{_auroc('tab04_metric_comparison', 'textnorm')}; smallest {_claim('(the smallest of 84', 'released')}",
        f"{_auroc('tab22_textnorm_rewards', _ENSEMBLE)}; smallest {_claim('(the smallest of 84')}",
        f"release: {_said('(the smallest of 84', 'released')}; here: {_said('(the smallest of 84')}",
    ),
    PaperItem(
        "Table 1, row 1",
        "AUROC of PickScore; the best of four rewards",
        (_02, _03),
        ("tab01_ablation", "tab22_textnorm_rewards"),
        ".764 (table 1)",
        _auroc("tab01_ablation", "pickscore"),
        _auroc("tab22_textnorm_rewards", "pickscore"),
        _same(".764", "pickscore") + _said("PickScore agrees with people better"),
    ),
    PaperItem(
        "Table 1, row 2",
        "AUROC of PickScore under TextNorm with random prompts; worse than without",
        (_03,),
        ("tab21_ablation", "fig39_contrastive_sources", "tab22_textnorm_rewards"),
        ".641 (table 1)",
        "not in the release",
        _auroc("tab22_textnorm_rewards", "random:pickscore"),
        _said("Random prompts make a reward worse"),
    ),
    PaperItem(
        "Table 1, row 3",
        "AUROC of PickScore under TextNorm with suitable prompts; better than without",
        (_03,),
        ("tab21_ablation", "fig39_contrastive_sources", "tab22_textnorm_rewards"),
        ".780 (table 1)",
        "not in the release",
        _auroc("tab22_textnorm_rewards", "textnorm:pickscore"),
        _said("TextNorm with suitable prompts improves"),
    ),
    PaperItem(
        "Table 1, row 4",
        "AUROC of ImageReward and PickScore together under TextNorm; better than PickScore",
        (_02, _03),
        ("tab01_ablation", "fig42_ensembles", "tab22_textnorm_rewards"),
        ".822 (table 1)",
        _auroc("tab01_ablation", "textnorm"),
        _auroc("tab22_textnorm_rewards", _ENSEMBLE),
        _same(".822", "textnorm") + _said("TextNorm's ensemble is better than PickScore"),
    ),
    PaperItem(
        "Figure 4",
        "The best of n images; here how much rating BLIP-2's choice loses when n grows four times",
        (_04,),
        ("fig50_best_of_n_images", "tab31_gold_fits"),
        "by eye: BLIP-2's gets worse (5.2)",
        **_judged("BLIP-2's choice gets worse"),
    ),
    *_by_both(
        "Figure 6, alignment",
        "Share of decided prompts won by TextNorm's model minus 2/3, the smallest of the rivals that were tuned",
        _FIGURE_6,
        ("about twice as many wins as losses (5.4)", "even more wins (5.4)"),
        "in alignment TextNorm's model wins twice as often",
    ),
    PaperItem(
        "Figure 6, quality, RWR",
        "Share of decided prompts won by TextNorm's model minus 2/5",
        (_05,),
        _FIGURE_6[0],
        "comparable or slightly better (5.4)",
        **_judged("RWR: TextNorm's model looks hardly worse"),
    ),
    PaperItem(
        "Figure 6, quality, DDPO",
        "Share of decided prompts lost by TextNorm's model minus 1/2",
        (_06,),
        _FIGURE_6[1],
        "at the expense of quality (5.4)",
        **_judged("DDPO: TextNorm's model looks worse"),
    ),
    PaperItem(
        "Section 7.2, settings",
        "Settings of RWR and DDPO",
        (_05, _06),
        (),
        "a table (7.2)",
        verdict="no result; a test compares the profile `paper` with them",
    ),
    PaperItem(
        "Section 8.1, prompts",
        "Prompts by category; here how many ask for text, and for something creative",
        (_01,),
        ("tab06_categories",),
        "eight categories (8.1)",
        "{tab06_categories; category=text; prompts} and {tab06_categories; category=creative; prompts}, by our rule",
        verdict="the release carries no categories",
    ),
    PaperItem(
        "Table 2, figure 7",
        "What annotators are told, and the page on which they vote",
        (_01,),
        (),
        "three answers, relabelling (8.2)",
        verdict="made: the page at the end of notebook 01; no number",
    ),
    PaperItem(
        "Section 8.3, heat maps of pairs",
        "AUROC of each composition prompt; here the mean of TextNorm minus PickScore",
        (_02, _03),
        (
            *(f"fig{11 + i}_heatmap_pairs_{name}" for i, name in enumerate((*FOUR, "textnorm"))),
            "fig49_mini_heatmaps_composition",
        ),
        "TextNorm best, by colour (8.3)",
        *_over_pickscore("composition"),
    ),
    PaperItem(
        "Section 8.3, heat maps of counts",
        "AUROC of each counting prompt; here the mean of TextNorm minus PickScore",
        (_02, _03),
        (
            *(f"fig{16 + i}_heatmap_counts_{name}" for i, name in enumerate((*FOUR, "textnorm"))),
            "fig48_mini_heatmaps_counting",
        ),
        "TextNorm best, by colour (8.3)",
        *_over_pickscore("counting"),
    ),
    PaperItem(
        "Figure 9, alignment",
        "Best of n: share of decided prompts won by TextNorm's choice minus 1/2, the smallest of twelve",
        (_04,),
        _FIGURE_9,
        "consistently better (9)",
        **_judged("TextNorm's choice is better aligned"),
    ),
    PaperItem(
        "Figure 9, how much",
        "Share of decided prompts won against ImageReward and PickScore minus 2/3",
        (_04,),
        _FIGURE_9,
        "two to three times as many wins as losses (9)",
        **_judged("In alignment TextNorm wins twice as often"),
    ),
    PaperItem(
        "Figure 9, quality",
        "Share of decided prompts won against ImageReward and PickScore minus 2/5",
        (_04,),
        _FIGURE_9,
        "comparable, or minor compromises (9)",
        **_judged("TextNorm's choice looks hardly worse"),
    ),
    PaperItem(
        "Table 3, algorithm 10",
        "Contrastive prompts by a language model; here entries of the composition sets that share no content word",
        (_03,),
        ("tab20_released_lint",),
        "sets without numbers (10)",
        "{tab20_released_lint; set=composition, fault=nothing in common; entries} of "
        "{tab20_released_lint; set=composition, fault=nothing in common; all_entries}",
        verdict="the writer is here and tested; no model was asked",
    ),
)


COLUMNS = ["item", "shows", "notebooks", "made_as", "paper", "released", "ours", "verdict", "profile"]
ABSENT, SAME, OTHER = "not made here", "the same number", "another number"
ROWS = digest([asdict(item) for item in PAPER_ITEMS])  # other rows are another question
_REFERENCE = re.compile(r"\{(?:(same \S+|judge) \| )?([^}]+)\}")


@step(1)
def judge_paper_items(tables: Tables, *, profile: str, rows: str) -> pd.DataFrame:
    """A row per item of the paper, as texts: ``COLUMNS``, with the numbers as the tables have them.

    ``rows``: ``ROWS``, with which the result's key changes. A text that refers to a table that was not made says so.
    Raises ``DataError`` for a reference that fits no cell.
    """
    judged = []
    for item in PAPER_ITEMS:
        told = [_told(text, tables) for text in (item.released, item.ours, item.verdict)]
        lists = [", ".join(names) or NONE for names in (item.notebooks, item.made_as)]
        judged.append((item.name, item.shows, *lists, item.paper, *told, profile if item.ours != NONE else NONE))
    return pd.DataFrame(judged, columns=COLUMNS)


def tables_read() -> list[str]:
    """The names of all tables that the rows refer to."""
    texts = [text for item in PAPER_ITEMS for text in (item.released, item.ours, item.verdict)]
    return sorted({table_of(reference) for text in texts for _, reference in _REFERENCE.findall(text)})


def _told(text: str, tables: Tables) -> str:
    """The text with what its references give."""
    if any(table_of(reference) not in tables.names for _, reference in _REFERENCE.findall(text)):
        return ABSENT

    def given(found: re.Match) -> str:
        asked, reference = found.groups()
        if asked == "judge":
            row, _ = row_of(tables, reference)
            return verdict([row["low"]], [row["high"]])
        number = quote(tables, reference)
        if asked:
            return SAME if number == asked.removeprefix("same ") else OTHER
        return number

    return _REFERENCE.sub(given, text)
