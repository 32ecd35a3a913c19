"""The example of small students, shortened: it runs, its table has every line, and it measures what it says."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from msd.diffusion.draw import Draw

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import toy2d_small

    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        yield toy2d_small
    torch.set_num_threads(threads)


def run(toy: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["toy2d_small.py", *map(str, arguments)])
    toy.main()


def test_a_shortened_run_prints_every_line_and_draws(
    tmp_path: Path, toy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "toy.png"
    run(toy, monkeypatch, "--updates", 2, "--out", out)
    table = capsys.readouterr().out.split("seconds\n")[1].splitlines()
    assert [line[:30].strip() for line in table] == [f"{num}  {name}" for num in (1, 4) for name in toy.ROWS]
    assert all(0 < float(line[30:39]) < 1 for line in table)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_too_few_updates_for_adm_are_refused(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(toy, monkeypatch, "--updates", 1)
    assert "give 2 or more" in capsys.readouterr().err


def test_a_lost_arm_is_a_quarter_missing(toy: ModuleType) -> None:
    teacher = toy.toy2d.make_teacher()
    condition = torch.arange(8).repeat_interleave(5000)
    truth, other = (teacher.sample(condition, Draw(0, place)).view(8, -1, 2) for place in ("truth", "other"))
    assert toy.found(other, truth, teacher).eq(1).all()
    pinwheel = 1
    arm = torch.cdist(other[pinwheel], teacher.means[pinwheel]).argmin(1) % 4 == 0
    other[pinwheel, arm] = other[pinwheel, ~arm][0]
    shares = toy.found(other, truth, teacher)
    assert shares[pinwheel] == pytest.approx(0.75, abs=0.02)
    assert shares[2:].eq(1).all()


def test_adm_changes_neither_its_start_nor_the_classes_of_other_parts(toy: ModuleType) -> None:
    """What goes on from a line leaves it as it was, and no batch holds a class that is not the part's."""
    teacher = toy.toy2d.make_teacher()
    start = toy.fit(teacher, 0, 0)
    before = [{name: value.clone() for name, value in role.state_dict().items()} for role in (start.student, start.critic)]
    partition = toy.make_partition("contiguous", toy.SplitRequest(8, 4), (1 / 8,) * 8)
    done = toy.match(start, teacher, (), toy.Row("TSM", turns=2, gan=True), partition, part=1, updates=3, seed=0)
    for role, values in zip((start.student, start.critic), before, strict=True):
        assert all(torch.equal(value, values[name]) for name, value in role.state_dict().items())
    assert 0 < done.guessed < 1
    # A label's own weights move only where a batch held the label; Adam leaves what had no gradient where it was.
    for role, old in ((done.student, start.student), (done.critic, start.critic)):
        moved = (role.network.label.weight != old.network.label.weight).any(1)
        assert moved.nonzero().flatten().tolist() == [2, 3]
