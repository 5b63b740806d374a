"""A reward over a benchmark, with bundled miniatures and made-up images: what is scored, stored and resumed."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.scoring import own_scores, read_scores, score_images
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.weights import Weights

CLIP = Weights("bundled:rewards/clip")
SETTINGS = {"name": "clip", "dtype": "float32", "workers": 1}
PROMPTS = {"a realistic photo of a deer": 3, "a realistic photo of two frogs": 2}


@pytest.fixture
def made(tmp_path):
    """A folder of random images with its index, as ``make_images`` leaves it."""
    folder = tmp_path / "made"
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for number, (prompt, count) in enumerate(PROMPTS.items()):
        for image in range(count):
            rows.append(("counting", f"image_{number}_{image}.png", prompt))
            pixels = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / rows[-1][1])
    pd.DataFrame(rows, columns=["set", "image", "prompt"]).to_parquet(folder / "index.parquet")
    return folder


@pytest.fixture
def contrastive():
    deer = next(iter(PROMPTS))
    texts = ["two deer", "a frog", "two deer", deer]  # one twice, and the prompt itself
    return pd.DataFrame([(deer, text) for text in texts], columns=["prompt", "text"])


def _score(made, contrastive, folder, **changes):
    folder.mkdir(exist_ok=True)
    return score_images(made, contrastive, CLIP, **{**SETTINGS, **changes}, folder=folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_image_meets_its_prompt_and_that_prompts_contrasts_once(made, contrastive, tmp_path, workers):
    measured = _score(made, contrastive, tmp_path / "scores", workers=workers)
    scores = read_scores(tmp_path / "scores")
    deer, frogs = PROMPTS
    assert measured == {"scores": 3 * 3 + 2} and len(scores) == 11
    assert scores.query("prompt == @deer")["text"].tolist() == [deer, "two deer", "a frog"] * 3
    assert scores.query("prompt == @frogs")["text"].tolist() == [frogs] * 2
    reward = load_reward("clip", folder=CLIP.path)
    one = scores.query("image == 'image_0_1.png'")
    expected = reward.score_matrix([made / "image_0_1.png"], one["text"].tolist())[0]
    np.testing.assert_allclose(one["score"], expected, rtol=1e-4)


def test_a_stopped_run_goes_on_with_the_prompts_that_are_missing(made, contrastive, tmp_path):
    folder = tmp_path / "scores"
    _score(made, contrastive, folder)
    before = read_scores(folder)
    first, second = sorted(folder.glob("*.parquet"))
    first.unlink()
    kept = second.stat().st_mtime_ns
    assert _score(made, contrastive, folder) == {"scores": 9}
    pd.testing.assert_frame_equal(read_scores(folder), before)
    assert second.stat().st_mtime_ns == kept
    assert _score(made, contrastive, folder) == {"scores": 0}


def test_contrasts_of_a_prompt_without_images_are_refused(made, contrastive, tmp_path):
    stray = pd.concat([contrastive, pd.DataFrame({"prompt": ["a cup"], "text": ["two cups"]})])
    with pytest.raises(DataError, match=r"'a cup', of which .* has no image"):
        _score(made, stray, tmp_path / "scores")


def test_own_scores_stand_beside_the_labels(made, contrastive, tmp_path):
    _score(made, contrastive, tmp_path / "scores")
    labels = pd.read_parquet(made / "index.parquet").assign(label=1)[::-1]
    table = own_scores(labels, tmp_path / "scores", names=["clip"])
    assert table["image"].tolist() == labels["image"].tolist()
    reward = load_reward("clip", folder=CLIP.path)
    expected = reward.scores([made / name for name in labels["image"]], labels["prompt"].tolist())
    np.testing.assert_allclose(table["clip"], expected, rtol=1e-4)


def test_texts_that_are_cut_are_counted_in_one_line(made, tmp_path, capsys, recwarn):
    deer = next(iter(PROMPTS))
    long = pd.DataFrame([(deer, f"{number} deer and " * 40) for number in ("two", "three")], columns=["prompt", "text"])
    _score(made, long, tmp_path / "scores")
    lines = [line for line in capsys.readouterr().err.splitlines() if "cut off" in line]
    assert lines == ["clip: 2 texts are longer than it reads, their ends were cut off"]
    assert not [warning for warning in recwarn if "cut off" in str(warning.message)]
