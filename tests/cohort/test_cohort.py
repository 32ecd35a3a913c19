"""The delivered thing: the router is the partition, order and noise are the user's, and misfits refuse to load."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import msd
from builders import UNIFORM, save_student, tiny_denoiser
from msd.cohort.backends import EagerGenerator
from msd.cohort.manifest import Manifest, assemble, read_manifest
from msd.conditions.partition import Partition
from msd.diffusion.codec import CODECS, AffineCodec
from msd.diffusion.solvers import one_step
from msd.errors import ConditionError, PartitionError, WeightsError
from msd.networks.facts import FACTS, FILES, WEIGHTS, denoiser_hash, read_facts
from msd.networks.folder import load_denoiser


def damage(student: Path) -> None:
    content = bytearray((student / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (student / WEIGHTS).write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_each_label_is_answered_by_the_student_of_its_part(cohort: Manifest, halves: Partition) -> None:
    """Router = partition: every image equals that of the part's own student, run alone on the same noise."""
    loaded = msd.Cohort.load(cohort.folder)
    labels = torch.tensor([3, 0, 9, 3, 4, 1])
    noise = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = loaded.generate(labels, noise=noise)
    assert torch.equal(loaded.route(labels), halves.assign(labels))
    for index, label in enumerate(labels.tolist()):
        student = load_denoiser(cohort.student(label % 2))
        alone = one_step(student, noise[index : index + 1], labels[index : index + 1], 2.5)
        torch.testing.assert_close(images[index : index + 1], alone.clamp(-1, 1), atol=1e-5, rtol=1e-4)


def test_generate_as_the_readme_promises(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    images = loaded.generate(labels=[3, 3, 7], seed=0)
    assert images.dtype == torch.float32
    assert images.shape == (3, 1, 8, 8)
    assert images.min() >= -1
    assert images.max() <= 1
    assert torch.equal(images, loaded.generate(labels=[3, 3, 7], seed=0))
    assert not torch.equal(images, loaded.generate(labels=[3, 3, 7], seed=1))
    assert not torch.equal(images[0], images[1])


def test_only_the_students_asked_for_are_loaded(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([1, 3], noise=torch.zeros(2, 1, 8, 8))
    assert loaded.students.resident == (1,)


def test_a_student_opens_in_plain_diffusers(cohort: Manifest) -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    model = UNet2DModel.from_pretrained(cohort.student(0), low_cpu_mem_usage=False)
    student = load_denoiser(cohort.student(0))
    for ours, theirs in zip(student.network.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_image_depends_on_its_own_seed_and_label_alone(cohort: Manifest) -> None:
    """Bit for bit in any order and with any neighbours, as long as each student gets batches of one size."""
    loaded = msd.Cohort.load(cohort.folder)
    labels, seeds = [3, 0, 9, 4, 5, 2], [11, 12, 13, 14, 15, 16]
    images = loaded.generate(labels, seeds=seeds)
    order = [4, 2, 0, 5, 3, 1]
    assert torch.equal(loaded.generate([labels[i] for i in order], seeds=[seeds[i] for i in order]), images[order])
    neighbours = loaded.generate([3, 6, 1, 8, 7, 0], seeds=[11, 99, 98, 97, 96, 95])
    assert torch.equal(neighbours[0], images[0])


def test_an_image_does_not_depend_on_the_partition(tmp_path: Path) -> None:
    """The same student behind another router makes the same image of the same seed."""
    images = []
    for name, parts in (("one", (tuple(range(10)),)), ("two", ((1, 2, 3), (0, 4, 5, 6, 7, 8, 9)))):
        partition = Partition(parts=parts, prior=UNIFORM)
        students = [save_student(tmp_path / name / str(part), partition, part) for part in range(len(parts))]
        folder = assemble(tmp_path / name / "cohort", name, partition, students, recipe={}).folder
        images.append(msd.Cohort.load(folder).generate([2, 1, 3], seeds=[7, 8, 9]))
    assert torch.equal(*images)


def test_other_batches_differ_by_rounding_only(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    together = loaded.generate([3] * 33, seed=5)
    alone = torch.cat([loaded.generate([3], seed=5 + index) for index in range(33)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_seed_counts_up_from_image_to_image(cohort: Manifest) -> None:
    """EDM's convention: seed 5 for three images is the seeds 5, 6 and 7. Without any, they are fresh."""
    loaded = msd.Cohort.load(cohort.folder)
    assert torch.equal(loaded.generate([1, 2, 3], seed=5), loaded.generate([1, 2, 3], seeds=[5, 6, 7]))
    assert not torch.equal(loaded.generate([1]), loaded.generate([1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 0, "seeds": [1]}, "seed and seeds each say what an image comes from; give one of them"),
        ({"seed": 0, "noise": torch.zeros(1, 1, 8, 8)}, "seed and noise each say"),
        ({"seeds": [1, 2]}, "there are 2 seeds for 1 labels; give one a label"),
        ({"seeds": [-1]}, "seed -1 is out of range; choose seeds from 0 to"),
        ({"seed": 2**63}, "is out of range"),
    ],
)
def test_seeds_that_do_not_fit_are_refused(cohort: Manifest, arguments: dict, message: str) -> None:
    with pytest.raises(ConditionError, match=message):
        msd.Cohort.load(cohort.folder).generate([3], **arguments)


def test_what_is_generated_can_be_worked_on(cohort: Manifest) -> None:
    """Images are ordinary tensors, and a student in use can be copied and trained: neither is bound to inference."""
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([1], seed=0).add_(1)
    with loaded.student(1) as student:
        assert isinstance(student, EagerGenerator)
        copied = student.student.copy()
    copied(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.tensor([1])).sum().backward()


def test_students_come_and_go_under_a_limit(cohort: Manifest) -> None:
    """With room for one student, each request finds its own and the same images come out."""
    free, tight = msd.Cohort.load(cohort.folder), msd.Cohort.load(cohort.folder, max_bytes=1)
    for labels in ([1], [2], [1, 2], [2, 4, 6]):
        assert torch.equal(tight.generate(labels, seed=3), free.generate(labels, seed=3))
        assert len(tight.students.resident) == 1


def test_threads_may_share_a_cohort(cohort: Manifest) -> None:
    """Requests side by side, with room for one student at a time, each get their own images."""
    loaded = msd.Cohort.load(cohort.folder, max_bytes=1)
    requests = [([number % 10, (number + 1) % 10], number) for number in range(24)]
    expected = [loaded.generate(labels, seed=seed) for labels, seed in requests]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda request: loaded.generate(request[0], seed=request[1]), requests))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_an_image_does_not_depend_on_the_number_of_threads(cohort: Manifest) -> None:
    loaded = msd.Cohort.load(cohort.folder)
    images = loaded.generate([3] * 8, seed=0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.testing.assert_close(loaded.generate([3] * 8, seed=0), images, atol=1e-5, rtol=0)
    finally:
        torch.set_num_threads(before)


def test_an_unknown_backend_is_refused(cohort: Manifest) -> None:
    with pytest.raises(WeightsError, match="there is no backend 'lazy'; choose one of eager"):
        msd.Cohort.load(cohort.folder, backend="lazy")


def test_an_empty_request_is_an_empty_answer(cohort: Manifest) -> None:
    assert msd.Cohort.load(cohort.folder).generate([], seed=0).shape == (0, 1, 8, 8)


def test_a_label_outside_the_partition_is_named(cohort: Manifest) -> None:
    with pytest.raises(PartitionError, match="class 10 is outside the partition; classes are 0 to 9"):
        msd.Cohort.load(cohort.folder).generate([3, 10], seed=0)


def test_noise_of_a_wrong_shape_is_refused(cohort: Manifest) -> None:
    with pytest.raises(ConditionError, match=r"noise has shape \(2, 1, 8, 8\), not \(1, 1, 8, 8\)"):
        msd.Cohort.load(cohort.folder).generate([3], noise=torch.zeros(2, 1, 8, 8))


def test_students_and_router_of_two_partitions_refuse_to_load(cohort: Manifest) -> None:
    manifest = cohort.folder / "cohort.json"
    value = json.loads(manifest.read_text())
    other = Partition(parts=((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)), prior=UNIFORM)
    manifest.write_text(json.dumps(value | {"partition": other.to_json()}))
    with pytest.raises(WeightsError, match="students and router must come from one run"):
        msd.Cohort.load(cohort.folder)


def test_swapped_students_are_refused(tmp_path: Path, halves: Partition) -> None:
    students = [save_student(tmp_path / f"student-{part}", halves, part) for part in (1, 0)]
    with pytest.raises(WeightsError, match="trained for part 1"):
        assemble(tmp_path / "cohort", "test", halves, students, recipe={})
    assert not (tmp_path / "cohort").exists()
    assert not list(tmp_path.glob(".*"))


def test_damaged_weights_are_named(cohort: Manifest) -> None:
    damage(cohort.student(1))
    loaded = msd.Cohort.load(cohort.folder)
    loaded.generate([0], seed=0)
    with pytest.raises(WeightsError, match="is damaged: its checksum is not the recorded one"):
        loaded.generate([1], seed=0)


def test_a_missing_student_or_manifest_is_named(cohort: Manifest, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        msd.Cohort.load(tmp_path / "nowhere")
    (cohort.student(1) / "denoiser.json").unlink()
    with pytest.raises(WeightsError, match=r"denoiser.json .* does not exist"):
        msd.Cohort.load(cohort.folder)


def test_assembling_again_replaces_the_old_cohort(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    again = assemble(cohort.folder, "again", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert read_manifest(cohort.folder).name == again.name == "again"


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_assembling_the_same_students_again_writes_nothing(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    before = contents(cohort.folder)
    again = assemble(cohort.folder, "test", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert contents(cohort.folder) == before
    assert again == cohort


def test_a_damaged_copy_is_mended_by_assembling_again(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    damage(cohort.student(0))
    assemble(cohort.folder, "test", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    msd.Cohort.load(cohort.folder).generate([0], seed=0)


def truncate(student: Path) -> None:
    (student / WEIGHTS).write_bytes((student / WEIGHTS).read_bytes()[:-100])


def reconfigure(student: Path) -> None:
    edit(student / "config.json", norm_num_groups=8)


@pytest.mark.parametrize("harm", [truncate, damage, reconfigure])
def test_a_student_that_is_not_whole_leaves_the_old_cohort_alone(
    cohort: Manifest, tmp_path: Path, halves: Partition, harm: Callable[[Path], None]
) -> None:
    before = contents(cohort.folder)
    harm(tmp_path / "student-1")
    with pytest.raises(WeightsError, match=r"student-1.* is damaged: its checksum is not the recorded one"):
        assemble(cohort.folder, "new", halves, [tmp_path / "student-0", tmp_path / "student-1"], recipe={})
    assert contents(cohort.folder) == before
    assert not list(tmp_path.glob(".*"))


def test_a_cohort_is_neither_short_of_students_nor_of_too_many(cohort: Manifest, tmp_path: Path, halves: Partition) -> None:
    before = contents(cohort.folder)
    with pytest.raises(WeightsError, match="1 students do not make a cohort of 2 parts"):
        assemble(cohort.folder, "new", halves, [tmp_path / "student-0"], recipe={})
    assert contents(cohort.folder) == before


def test_a_cohort_has_one_teacher(tmp_path: Path) -> None:
    """The odd student is named, wherever it stands."""
    thirds = Partition(parts=((0, 1, 2), (3, 4, 5), (6, 7, 8, 9)), prior=UNIFORM)
    students = [
        save_student(tmp_path / f"student-{part}", thirds, part, teacher="other" if part == 0 else "usual")
        for part in range(3)
    ]
    with pytest.raises(WeightsError, match=r"student-0 was distilled from teacher other, the others usual"):
        assemble(tmp_path / "cohort", "test", thirds, students, recipe={})
    assert not (tmp_path / "cohort").exists()


@dataclass(frozen=True)
class Doubling:
    """A codec whose pixels are twice as wide and high as its noise, standing for a VAE."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels[:, :, ::2, ::2]

    def decode(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.repeat_interleave(2, -1).repeat_interleave(2, -2).clamp(-1, 1)

    def pixel_shape(self, noise_shape: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = noise_shape
        return channels, 2 * height, 2 * width


def test_noise_need_not_have_the_images_shape(tmp_path: Path, halves: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images come out in the pixels' shape, also of a request that several students answer."""
    monkeypatch.setitem(CODECS, "doubling", Doubling)
    students = [save_student(tmp_path / f"student-{part}", halves, part, codec=Doubling()) for part in range(2)]
    loaded = msd.Cohort.load(assemble(tmp_path / "cohort", "test", halves, students, recipe={}).folder)
    assert (loaded.noise_shape, loaded.pixel_shape) == ((1, 8, 8), (1, 16, 16))
    for labels in ([1], [1, 2, 3], []):
        assert loaded.generate(labels, seed=0).shape == (len(labels), 1, 16, 16)


def test_students_of_another_shape_are_refused(tmp_path: Path, halves: Partition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "doubling", Doubling)
    codecs = [None, Doubling()]
    students = [save_student(tmp_path / f"student-{part}", halves, part, codec=codecs[part]) for part in range(2)]
    with pytest.raises(WeightsError, match=r"student-1 makes pixels of shape \(1, 16, 16\), the others \(1, 8, 8\)"):
        assemble(tmp_path / "cohort", "test", halves, students, recipe={})


def test_the_manifest_says_what_it_holds(cohort: Manifest, tmp_path: Path) -> None:
    """Each student's identity and task, and nothing but what a student consists of is delivered."""
    (tmp_path / "student-0" / "notes.txt").write_text("mine")
    for part, entry in enumerate(cohort.facts["students"]):
        assert entry["hash"] == denoiser_hash(cohort.student(part)) == denoiser_hash(tmp_path / f"student-{part}")
        assert entry["task"] == f"task-{part}"
        assert sorted(path.name for path in cohort.student(part).iterdir()) == sorted(FILES)


def test_a_student_exchanged_for_another_of_the_same_part_is_refused(
    cohort: Manifest, tmp_path: Path, halves: Partition
) -> None:
    """Same partition, same part, sound weights, but of another run."""
    other = save_student(tmp_path / "other", halves, 1, teacher="another", codec=AffineCodec(0.1))
    for name in FILES:
        (cohort.student(1) / name).write_bytes((other / name).read_bytes())
    with pytest.raises(WeightsError, match=r"students/1 is not the student that cohort\.json lists"):
        msd.Cohort.load(cohort.folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 1, "partition": None}, r"made by an older msd \(schema 1\); make it again with `msd distill`"),
        ({"schema": 3, "partition": None}, r"newer msd \(schema 3, this one reads 2\); update msd"),
        ({"wings": 2}, "unknown field 'wings'"),
        ({"students": [{}]}, "has 1 students for 2 parts"),
        ({"students": [{}, {}]}, "student 0 in .* lacks 'part'"),
    ],
)
def test_a_manifest_of_another_layout_is_refused(cohort: Manifest, changes: dict, message: str) -> None:
    edit(cohort.folder / "cohort.json", **changes)
    with pytest.raises(WeightsError, match=message):
        read_manifest(cohort.folder)


def test_a_student_of_an_older_layout_is_refused(cohort: Manifest) -> None:
    edit(cohort.student(0) / FACTS, schema=1)
    with pytest.raises(WeightsError, match=r"saved by an older msd \(schema 1\)"):
        read_manifest(cohort.folder)


def test_a_manifest_is_read_without_torch(cohort: Manifest) -> None:
    code = "import sys; from pathlib import Path; from msd.cohort.manifest import read_manifest\n"
    code += "read_manifest(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(cohort.folder)], check=False).returncode == 0


def test_how_to_sample_is_saved_with_the_weights(cohort: Manifest) -> None:
    """A student that needs anything else told to it to sample right is a bug (DESIGN 4.2)."""
    facts = read_facts(cohort.student(0))
    assert facts["spec"]["sigma_init"] == 2.5
    assert facts["spec"]["parameterisation"] == {"kind": "edm", "sigma_data": 0.5}
    assert load_denoiser(cohort.student(0)).spec == tiny_denoiser(0, sigma_init=2.5).spec
