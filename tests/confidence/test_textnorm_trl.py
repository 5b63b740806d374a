"""TextNorm as the reward of trl's DDPO trainer, on a random toy model with the miniature CLIP."""

from itertools import cycle

import numpy as np
import pytest
import torch
from toys import toy_pipeline

from textnorm_lib.confidence.textnorm import TextNormReward
from textnorm_lib.mini.generator import save_pipeline
from textnorm_lib.rewards import load_reward
from textnorm_lib.study.weights import Weights

SETS = {
    "a realistic photo of two frogs": ["a realistic photo of three frogs", "a realistic photo of a frog"],
    "a realistic photo of a deer": ["a realistic photo of two deer"],
}
EPOCHS, BATCH = 2, 4


@pytest.fixture(scope="module")
def of_trl(tmp_path_factory):
    """A small pipeline with random weights, as trl takes it: from a folder."""
    from accelerate import PartialState
    from trl import DefaultDDPOStableDiffusionPipeline

    folder = tmp_path_factory.mktemp("toy") / "pipeline"
    save_pipeline(toy_pipeline(list(SETS)), folder)
    PartialState()  # trl logs while it loads, and its logger refuses without this
    return DefaultDDPOStableDiffusionPipeline(str(folder), use_lora=True)


@pytest.mark.filterwarnings("ignore")  # deprecations inside trl and diffusers
def test_trls_ddpo_trainer_trains_on_it(of_trl, tmp_path):
    from trl import DDPOConfig, DDPOTrainer

    clip = load_reward("clip", folder=Weights("bundled:rewards/clip").path)
    reward, prompts, calls = TextNormReward([clip], SETS, 1.0), cycle(SETS), []

    def recorded(images, prompts, metadata):
        calls.append((images, prompts, *reward(images, prompts, metadata)))
        return calls[-1][2:]

    config = DDPOConfig(
        num_epochs=EPOCHS,
        mixed_precision="no",
        sample_num_steps=2,
        sample_batch_size=BATCH,
        sample_num_batches_per_epoch=1,
        train_batch_size=BATCH,
        save_freq=EPOCHS + 1,
        project_kwargs={"project_dir": str(tmp_path)},
    )
    trainer = DDPOTrainer(config, recorded, lambda: (next(prompts), {}), of_trl)
    adapter = [value for value in of_trl.unet.parameters() if value.requires_grad]
    before = [value.detach().clone() for value in adapter]
    trainer.train()

    assert len(calls) == EPOCHS
    for images, prompts, rewards, info in calls:
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        assert rewards.shape == (BATCH,) and ((rewards > 0) & (rewards < 1)).all() and rewards.std() > 0
        np.testing.assert_array_equal(rewards, reward.score(pixels, prompts))
        torch.testing.assert_close(info, {"clip": rewards, "spread": torch.zeros(BATCH)})
    assert all(value.isfinite().all() for value in adapter)
    assert any(not torch.equal(*pair) for pair in zip(adapter, before, strict=True))
