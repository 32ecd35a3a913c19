"""Checkpoints that are damaged, misnamed or forged: the newest that is proven whole is taken, and only our own files go."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from msd.errors import WeightsError
from msd.files import remove_own, sha256_file
from msd.fleet.jobs import tidy
from msd.recipe import RoleSection
from msd.training.bundle import Bundle
from msd.training.checkpoint import Checkpoints
from msd.training.checkpoint_files import INDEX, OWN
from msd.training.engine import Engine
from msd.training.loop import Stage

ENGINE = Engine.on("cpu")
ONE, TWO = "step-0000001.pt", "step-0000002.pt"


class _Small(Stage):
    name, num_steps, batch_size = "small", 4, 1

    def __init__(self, width: int = 2) -> None:
        self.roles = {"student": ENGINE.role(nn.Linear(width, 1), RoleSection(learning_rate=0.1), self.num_steps)}

    @property
    def bias(self) -> nn.Parameter:
        return self.roles["student"].module.bias


@pytest.fixture
def stage() -> _Small:
    return _Small()


@pytest.fixture
def checkpoints(tmp_path: Path, stage: _Small) -> Checkpoints:
    """Of two steps, after each of which the bias is the step."""
    saved = Checkpoints(tmp_path / "checkpoints", {"task": "one"})
    for step in (1, 2):
        nn.init.constant_(stage.bias, step)
        saved.save(step, stage)
    nn.init.constant_(stage.bias, 0)
    return saved


def be_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def be_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def flip_a_bit(path: Path) -> None:
    """Of the first tensor."""
    with zipfile.ZipFile(path) as archive:
        tensor = archive.read(next(name for name in archive.namelist() if name.endswith("data/0")))
    content = path.read_bytes()
    path.write_bytes(content.replace(tensor, bytes([tensor[0] ^ 1]) + tensor[1:], 1))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a pipe": be_pipe,
    "a folder": be_folder,
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "one bit": flip_a_bit,
    "garbage": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
}
INDEXES: dict[str, Callable[[Path], object]] = {
    "whole": lambda path: None,
    "missing": Path.unlink,
    "cut short": lambda path: path.write_text(path.read_text()[:-9]),
    "of another type": lambda path: path.write_text('{"file": "step-0000002.pt"}'),
    "a pipe": be_pipe,
    "a folder": be_folder,
}


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("kind", DAMAGES)
def test_the_newest_whole_checkpoint_is_taken(
    checkpoints: Checkpoints, stage: _Small, capsys: pytest.CaptureFixture[str], index: str, kind: str
) -> None:
    """Also when the list of them is lost, with it all checksums but those in the archives."""
    INDEXES[index](checkpoints.folder / INDEX)
    DAMAGES[kind](checkpoints.folder / TWO)
    assert checkpoints.restore(stage) == 1
    assert stage.bias.item() == 1
    assert capsys.readouterr().err.count("\n") == (0 if index in ("whole", "missing") else 1)
    checkpoints.save(3, stage)
    assert Checkpoints(checkpoints.folder, {"task": "one"}).restore(stage) == 3


@pytest.mark.parametrize("index", INDEXES)
def test_a_lost_list_loses_nothing(checkpoints: Checkpoints, stage: _Small, index: str) -> None:
    INDEXES[index](checkpoints.folder / INDEX)
    assert checkpoints.restore(stage) == 2
    assert stage.bias.item() == 2


@pytest.mark.parametrize("index", ["whole", "missing"])
@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
def test_where_all_are_damaged_the_advice_works(checkpoints: Checkpoints, stage: _Small, index: str, kind: str) -> None:
    INDEXES[index](checkpoints.folder / INDEX)
    for name in (ONE, TWO):
        DAMAGES[kind](checkpoints.folder / name)
    with pytest.raises(
        WeightsError, match=r"^all checkpoints in \S+ are damaged; remove that folder to train this again\.$"
    ):
        checkpoints.restore(stage)
    shutil.rmtree(checkpoints.folder)
    assert checkpoints.restore(stage) == 0


def forge(checkpoints: Checkpoints, content: object) -> None:
    """Another content under a checksum that fits."""
    path = checkpoints.folder / TWO
    torch.save(content, path)
    (checkpoints.folder / INDEX).write_text(json.dumps([{"file": TWO, "step": 2, "sha256": sha256_file(path)}]))


class _Trap:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("content", [_Trap(), [], {}, {"step": 2}, {"step": 1, "identity": {}, "roles": {}, "stage": {}}])
def test_what_is_no_state_of_ours_is_damaged(
    checkpoints: Checkpoints, stage: _Small, monkeypatch: pytest.MonkeyPatch, content: object
) -> None:
    """torch would advise to load it without its safeguard."""
    monkeypatch.chdir(checkpoints.folder)
    forge(checkpoints, content)
    with pytest.raises(WeightsError, match="are damaged; remove that folder") as raised:
        checkpoints.restore(stage)
    assert "weights_only" not in str(raised.value)
    assert not Path("ran").exists()


def test_a_state_that_does_not_fit_is_a_sentence(checkpoints: Checkpoints) -> None:
    with pytest.raises(
        WeightsError, match=r"step-0000002\.pt does not fit this stage \(.+\); remove \S+ to train"
    ) as raised:
        checkpoints.restore(_Small(width=3))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["../mine.pt", "{absolute}", "mine.pt", "step-0000001.pt/../../mine.pt", "", ".", "step-1.pt"]
)
def test_a_list_names_checkpoints_only(
    checkpoints: Checkpoints, stage: _Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """What else stands in it is never removed, nor read: the list is set aside."""
    mine = [tmp_path / "mine.pt", checkpoints.folder / "mine.pt"]
    for path in mine:
        path.write_text("mine")
    index = checkpoints.folder / INDEX
    entry = {"file": name.format(absolute=mine[0]), "step": 1, "sha256": "0" * 64}
    index.write_text(json.dumps([entry, *json.loads(index.read_text())]))
    for step in (3, 4, 5):
        checkpoints.save(step, stage)
    assert "checkpoints.json is not a list of checkpoints (0.file" in capsys.readouterr().err
    checkpoints.clear()
    assert [path.read_text() for path in mine] == ["mine", "mine"]
    assert sorted(os.listdir(checkpoints.folder)) == ["checkpoints.json.broken", "mine.pt"]


def test_only_our_own_files_go(checkpoints: Checkpoints, tmp_path: Path) -> None:
    others = ["step-1.pt", "step-00000001.pt.txt", "notes", "step-0000009.pth", "mystep-0000001.pt"]
    for name in others:
        (checkpoints.folder / name).touch()
    (checkpoints.folder / "step-0000007.pt").mkdir()
    (tmp_path / "elsewhere.pt").touch()
    (checkpoints.folder / "step-0000008.pt").symlink_to(tmp_path / "elsewhere.pt")
    checkpoints.clear()
    assert sorted(os.listdir(checkpoints.folder)) == sorted([*others, "step-0000007.pt", "step-0000008.pt"])
    assert (tmp_path / "elsewhere.pt").exists()


@pytest.mark.parametrize("place", ["stages", "stages/0-dm", "stages/0-dm/checkpoints"])
def test_nothing_goes_behind_a_link(tmp_path: Path, place: str) -> None:
    """A folder of somebody else's, with names like ours, in the place of one of a job's."""
    foreign = tmp_path / "foreign" / "0-dm" / "checkpoints"
    foreign.mkdir(parents=True)
    (foreign / ONE).touch()
    link = tmp_path / "job" / place
    link.parent.mkdir(parents=True)
    depth = place.count("/")
    link.symlink_to([tmp_path / "foreign", foreign.parent, foreign][depth])
    tidy(tmp_path / "job")
    remove_own(tmp_path / "job" / "stages/0-dm/checkpoints", OWN) if depth == 2 else None
    assert (foreign / ONE).exists()


def test_a_finished_job_is_tidied(checkpoints: Checkpoints, tmp_path: Path) -> None:
    place = tmp_path / "job" / "stages" / "0-dm"
    place.mkdir(parents=True)
    checkpoints.folder.rename(place / "checkpoints")
    tidy(tmp_path / "job")
    assert not list(place.iterdir())


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_bundle_is_a_sentence(tmp_path: Path, stage: _Small, kind: str) -> None:
    path = tmp_path / "bundle.safetensors"
    bundle = Bundle({name: role.weights() for name, role in stage.roles.items()})
    bundle.save(path)
    if kind == "one bit":  # which a checksum elsewhere tells
        return
    DAMAGES[kind](path)
    with pytest.raises(WeightsError, match=r"bundle\.safetensors cannot be read as safetensors \(.+\); remove it") as raised:
        Bundle.load(path)
    assert "\n" not in str(raised.value)


def test_a_file_of_other_tensors_is_no_bundle(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for name in ("weight", "student/weight", "student/average/weight"):
        save_file({name: torch.zeros(1)}, tmp_path / "bundle.safetensors")
        with pytest.raises(WeightsError, match="has no raw weights of the"):
            Bundle.load(tmp_path / "bundle.safetensors")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])
def test_a_machine_without_memory_is_no_damage(
    checkpoints: Checkpoints, stage: _Small, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A whole checkpoint must not be called damaged, and its folder removed, because it could not be held just now."""

    def load(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        checkpoints.restore(stage)
    assert (checkpoints.folder / TWO).exists()
