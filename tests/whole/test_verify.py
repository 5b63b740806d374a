"""``run_all.sh verify``: images that are made anew may differ by another processor's rounding, and by nothing else."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.__main__ import same_images
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.tia2.labels import VOTES

IMAGES = 200


@pytest.fixture
def stored():
    generator = np.random.default_rng(0)
    votes = pd.DataFrame(generator.integers(-1, 2, (IMAGES, len(VOTES))), columns=list(VOTES))
    return votes.assign(**{name: generator.normal(size=IMAGES) for name in REWARDS})


def test_rounding_is_forgiven(stored):
    again = stored.assign(clip=stored["clip"] + 1e-3)
    again.loc[:2, "vote_1"] = 1 - again.loc[:2, "vote_1"]  # three votes of 600
    alike, told = same_images(again, stored)
    assert alike and told.startswith("200 images made anew: 9")


@pytest.mark.parametrize("column", [*VOTES, *REWARDS])
def test_other_images_are_found(stored, column):
    again = stored.assign(**{column: stored[column].sample(frac=1, random_state=0).to_numpy()})
    alike, told = same_images(again, stored)
    assert not alike and "of the votes" in told


def test_the_row_numbers_do_not_matter(stored):
    assert same_images(stored, stored.set_axis(range(7, 7 + IMAGES)))[0]
