"""The stand-ins of the paper's models: the published sizes, files that the study's loaders read, written whole."""

import json
import re
import shutil
from collections import namedtuple
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import stand_in_models, stand_ins
from benchmarks.stand_ins import NOTE, STAND_INS, main, study_prompts
from textnorm_lib.images.sampling import autocast, load_pipeline
from textnorm_lib.optimise.denoising import ddim_steps
from textnorm_lib.rewards import clip, convert, load_reward, pretrained
from textnorm_lib.study.weights import PUBLISHED, VARIABLE, Weights

DIFFUSION, BASE, CLIP, PICKSCORE, IMAGEREWARD, BLIP2 = STAND_INS
REWARDS = {"clip": CLIP, "pickscore": PICKSCORE, "imagereward": IMAGEREWARD, "blip2": BLIP2}
PROMPTS = ["a realistic photo of a deer", "a realistic photo of two frogs", "Confused grizzly bears!"]
ALL_PROMPTS = study_prompts()


@pytest.fixture(scope="module")
def written(one_thread, tmp_path_factory) -> Path:
    """All six, small."""
    root = tmp_path_factory.mktemp("stand_ins") / "to"
    assert main(["--to", str(root), "--toy"]) == 0
    return root


@pytest.fixture
def root(written, monkeypatch) -> Path:
    """The folder that the variable names."""
    monkeypatch.setenv(VARIABLE, str(written))
    return written


@cache
def built(name: str, toy: bool) -> torch.nn.Module:
    """The network without memory."""
    with torch.device("meta"):
        return STAND_INS[name].build(ALL_PROMPTS, toy=toy)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_is_one_for_every_published_model_the_study_knows():
    assert set(STAND_INS) == set(PUBLISHED)


@pytest.mark.parametrize("name", STAND_INS)
def test_the_files_are_those_that_loading_wants_and_no_pickles(name, root):
    files = set(_bytes(root / name))
    wanted = {CLIP: clip.FILES, DIFFUSION: ["model_index.json"], BASE: ["model_index.json"]}
    assert {*PUBLISHED[name].files, *wanted.get(name, pretrained.FILES), NOTE} <= files
    assert {Path(file).suffix for file in files} <= {".safetensors", ".json", ".txt"}
    assert name in (root / name / NOTE).read_text() and "random weights" in (root / name / NOTE).read_text()
    assert Weights(name).path == root / name


def test_all_six_toys_take_a_few_megabytes_and_nothing_else_is_left(root):
    assert sum(map(len, _bytes(root).values())) < 12e6
    assert {path.relative_to(root).as_posix() for path in root.glob("*/*")} == set(STAND_INS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("name", "side"), [(DIFFUSION, 64), (BASE, 32)])
def test_images_are_finite_and_differ_by_prompt_and_by_seed(name, side, dtype, root):
    pipeline = load_pipeline(name)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    with autocast("cpu", dtype):
        images = pipeline(
            [*PROMPTS[:2], PROMPTS[0]], num_inference_steps=3, generator=generators, output_type="np"
        ).images
    assert images.shape == (3, side, side, 3) and np.isfinite(images).all()
    assert images.std(axis=(1, 2)).min() > 0.02, "not one plain colour"
    for other in images[1:]:
        assert np.abs(images[0] - other).max() > 2 / 255


@pytest.mark.parametrize(
    ("name", "scheduler", "prediction", "upcast"),
    [(DIFFUSION, "DDIMScheduler", "v_prediction", True), (BASE, "PNDMScheduler", "epsilon", False)],
)
def test_a_pipeline_is_set_up_as_the_published_one(name, scheduler, prediction, upcast, root):
    pipeline = load_pipeline(name)
    configuration = pipeline.scheduler.config
    assert type(pipeline.scheduler).__name__ == scheduler and configuration.prediction_type == prediction
    assert (configuration.steps_offset, configuration.set_alpha_to_one, configuration.clip_sample) == (1, False, False)
    assert pipeline.unet.config.upcast_attention == upcast and pipeline.vae_scale_factor == 8
    assert pipeline.safety_checker is None and type(pipeline.feature_extractor).__name__ == "CLIPImageProcessor"
    assert pipeline.tokenizer.model_max_length == 77 and pipeline.tokenizer.pad_token_id == 0
    assert ddim_steps(pipeline.scheduler, 4).decisions == 4, "what DDPO needs of it"


@pytest.mark.parametrize(
    ("name", "options"), [*((name, {}) for name in REWARDS), ("blip2", {"head": "itc"})], ids=[*REWARDS, "blip2-itc"]
)
def test_scores_are_finite_and_differ_by_prompt_and_by_image(name, options, root):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    scores = load_reward(name, folder=Weights(REWARDS[name]).path, **options).score_matrix(images, PROMPTS)
    assert np.isfinite(scores).all()
    assert min(np.ptp(scores, axis=0).min(), np.ptp(scores, axis=1).min()) > 1e-3


@pytest.mark.parametrize("name", STAND_INS)
def test_a_prompts_words_are_one_token_each(name, root):
    folder = root / name
    tokenizer = pretrained.load_tokenizer(folder / "tokenizer" if name in (DIFFUSION, BASE) else folder)
    for prompt in ALL_PROMPTS[::50]:
        assert len(tokenizer(prompt).input_ids) == len(prompt.split()) + 2
    assert tokenizer.unk_token_id not in tokenizer("zebras, 3!").input_ids[1:-1]


@pytest.mark.parametrize("name", STAND_INS)
def test_weights_are_stored_in_the_published_precision(name, root):
    halves = {
        key
        for file in (root / name).rglob("*.safetensors")
        for key, value in load_file(file).items()
        if value.dtype != torch.float32
    }
    assert all(key.startswith("vision_model.") and "post_layernorm" not in key for key in halves)
    assert bool(halves) == (name == BLIP2), "EVA is published in half precision"


# Of the published models; of ImageReward and BLIP-2 what scoring needs, as the converter leaves it.
PARAMETERS = {
    (DIFFUSION, "unet"): 865_910_724,
    (DIFFUSION, "text_encoder"): 340_387_840,
    (DIFFUSION, "vae"): 83_653_863,
    (BASE, ""): 865_910_724 + 340_387_840 + 83_653_863,
    (CLIP, ""): 151_277_313,
    (PICKSCORE, ""): 986_109_441,
    (IMAGEREWARD, "vision_model"): 303_301_632,
    (IMAGEREWARD, ""): 446_206_689,
    (BLIP2, "vision_model"): 985_952_256,
    (BLIP2, ""): 1_172_032_258,
}


@pytest.mark.parametrize(("name", "part"), PARAMETERS)
def test_at_full_size_there_are_as_many_parameters_as_published(name, part):
    weights = built(name, toy=False).get_submodule(part).parameters()
    assert sum(value.numel() for value in weights) == PARAMETERS[name, part]


class _Shapes:
    """A published checkpoint, of which only shapes are known."""

    def __init__(self, network: torch.nn.Module, *renamings) -> None:
        self._shapes = {rename(key): value.shape for rename in renamings for key, value in network.state_dict().items()}

    def shape(self, name: str, axes: int) -> torch.Size:
        assert len(self._shapes[name]) == axes
        return self._shapes[name]


def test_imagereward_is_set_up_as_the_converter_does():
    network = built(IMAGEREWARD, toy=False)
    made = convert._imagereward_model(_Shapes(network, convert._imagereward_name), convert.IMAGEREWARD)
    assert made.config_json() == network.config_json()


def test_blip2_is_set_up_as_the_converter_does():
    network = built(BLIP2, toy=False)
    source = _Shapes(network, lambda key: convert._renamed(key, convert._BLIP2_NAMES))
    eva = _Shapes(network, lambda key: convert._renamed(key.removeprefix("vision_model."), convert._VISION_NAMES))
    assert convert._blip2_model(source, eva, convert.BLIP2).config.to_dict() == network.config.to_dict()


def _kinds(network: torch.nn.Module) -> set[tuple[str, str]]:
    """Where which class is, of all layers one."""
    return {(re.sub(r"\d+", "#", name), type(module).__name__) for name, module in network.named_modules()}


def _but_for_sizes(value):
    """A configuration in which every number that may be a size is like any other."""
    if isinstance(value, dict):
        return {key: _but_for_sizes(one) for key, one in value.items() if not str(key).startswith("_")}
    if isinstance(value, list | tuple):
        return [_but_for_sizes(one) for one in value]
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _configurations(name: str, toy: bool) -> list:
    network = built(name, toy)
    if name == CLIP:
        return [_but_for_sizes(stand_in_models._clip_config(ALL_PROMPTS, toy))]
    if name == IMAGEREWARD:
        return [_but_for_sizes(json.loads(network.config_json()))]
    found = [module.config for module in (network, *network.children()) if hasattr(module, "config")]
    return [_but_for_sizes(one.to_dict() if hasattr(one, "to_dict") else dict(one)) for one in found]


@pytest.mark.parametrize("name", STAND_INS)
def test_a_toy_differs_in_sizes_alone(name):
    toy, full = built(name, toy=True), built(name, toy=False)
    assert _kinds(toy) == _kinds(full)
    assert _configurations(name, toy=True) == _configurations(name, toy=False) != []
    assert sum(value.numel() for value in toy.parameters()) < 1e6


def test_at_full_size_berts_vocabulary_is_as_long_as_the_published_one():
    words = stand_in_models.bert_words(ALL_PROMPTS, toy=False)
    assert len(words) == len(set(words)) == 30522
    assert set(" ".join(ALL_PROMPTS).split()) <= set(words)


def test_the_same_bytes_are_written_each_time_and_for_each_alone(root, tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for name in (BLIP2, BASE, CLIP):
        assert main(["--to", str(tmp_path), "--toy", "--only", name]) == 0
        assert _bytes(tmp_path / name) == _bytes(root / name)
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers are touched"


def test_a_second_call_passes_over_what_is_there(root, capsys):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert main(["--to", str(root), "--toy"]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert capsys.readouterr().out.count("is there already (a stand-in), passed over\n") == 6


def test_a_name_given_twice_is_written_once_and_an_empty_folder_is_filled(root, tmp_path):
    (tmp_path / CLIP).mkdir(parents=True)
    assert main(["--to", str(tmp_path), "--toy", "--only", CLIP, CLIP]) == 0
    assert _bytes(tmp_path / CLIP) == _bytes(root / CLIP)


def test_other_weights_are_passed_over_and_said_to_be_no_stand_in(root, tmp_path, capsys):
    shutil.copytree(root / CLIP, tmp_path / CLIP)
    (tmp_path / CLIP / NOTE).unlink()
    before = _bytes(tmp_path)
    assert main(["--to", str(tmp_path), "--toy", "--only", CLIP]) == 0
    assert _bytes(tmp_path) == before and f"{CLIP} is there already (no stand-in)" in capsys.readouterr().out


def _refused(arguments: list[str], capsys) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_stand_in_of_another_size_is_refused(root, capsys):
    said = _refused(["--to", str(root), "--only", CLIP], capsys)
    assert said == f"stand-ins: {root / CLIP} holds a stand-in of another size; remove it, or choose another folder\n"


def test_a_folder_that_lacks_a_file_is_refused(root, tmp_path, capsys):
    shutil.copytree(root / BASE, tmp_path / BASE)
    (tmp_path / BASE / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    said = _refused(["--to", str(tmp_path), "--toy"], capsys)
    assert f"{tmp_path / BASE} is there but lacks vae/diffusion_pytorch_model.safetensors; remove it" in said
    assert list(tmp_path.glob("*/*")) == [tmp_path / BASE], "nothing is begun"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interruption_leaves_nothing_half_written_and_the_next_call_goes_on(failure, tmp_path, monkeypatch):
    def write(folder: Path, *_, **__) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise failure

    arguments = ["--to", str(tmp_path), "--toy", "--only", CLIP, PICKSCORE]
    with monkeypatch.context() as patch:
        patch.setitem(STAND_INS, PICKSCORE, STAND_INS[PICKSCORE]._replace(write=write))
        if isinstance(failure, OSError):
            assert main(arguments) == 2
        else:
            with pytest.raises(KeyboardInterrupt):
                main(arguments)
    assert {path.parent.parent for path in tmp_path.rglob("*") if path.is_file()} == {(tmp_path / CLIP).parent}
    assert main(arguments) == 0
    assert (tmp_path / PICKSCORE / NOTE).is_file()


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(stand_ins.shutil, "disk_usage", lambda _: usage(30e9, 11e9, 19e9))
    said = _refused(["--to", str(tmp_path / "deep" / "to")], capsys)
    assert "19.4 GB are needed and 19.0 GB are free" in said and "--toy" in said
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--to", str(tmp_path / "file"), "--toy", "--only", CLIP]) == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in said and "Not a directory" in said


def test_an_unknown_name_is_refused_with_those_known(capsys):
    with pytest.raises(SystemExit):
        main(["--to", "nowhere", "--only", "clip"])
    said = capsys.readouterr().err
    assert "'clip'" in said and CLIP in said
