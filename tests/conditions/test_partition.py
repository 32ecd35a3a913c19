"""The partition: total, disjoint, hashed, saved; sampling by the prior; every refusal with its message."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from msd.conditions.partition import Partition
from msd.diffusion.draw import Draw, Slice
from msd.errors import PartitionError

UNEVEN = Partition(parts=((3, 0), (1,), (4, 2)), prior=(0.1, 0.2, 0.3, 0.15, 0.25), method="file")


def even_prior(num):
    return (1 / num,) * num


@st.composite
def partitions(draw):
    """Any division of up to 12 classes into parts, with any positive prior."""
    num = draw(st.integers(1, 12))
    num_parts = draw(st.integers(1, num))
    order = draw(st.permutations(range(num)))
    cuts = sorted(draw(st.sets(st.integers(1, num - 1), min_size=num_parts - 1, max_size=num_parts - 1))) if num > 1 else []
    parts = [tuple(order[start:stop]) for start, stop in zip([0, *cuts], [*cuts, num], strict=True)]
    raw = draw(st.lists(st.floats(0.01, 1), min_size=num, max_size=num))
    return Partition(parts=tuple(parts), prior=tuple(value / sum(raw) for value in raw))


@given(partitions())
def test_assign_agrees_with_the_parts(partition):
    """Each class is assigned to the one part that lists it, and every class has one."""
    owner = partition.assign(range(partition.num_conditions)).tolist()
    assert all(condition in partition.parts[part] for condition, part in enumerate(owner))
    assert sorted(condition for part in partition.parts for condition in part) == list(range(partition.num_conditions))


@given(partitions())
def test_weights_are_the_prior_given_the_part(partition):
    """P(class | part) P(part) is the prior; weights are zero outside the part and sum to one."""
    total = torch.zeros(partition.num_conditions)
    for part in range(partition.num_parts):
        weights = partition.weights(part)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
        assert set(weights.nonzero().flatten().tolist()) == set(partition.parts[part])
        total += weights * partition.part_prior[part]
    torch.testing.assert_close(total, torch.tensor(partition.prior), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(partition.weights(), torch.tensor(partition.prior), rtol=1e-4, atol=1e-6)
    assert sum(partition.part_prior) == pytest.approx(1)


@given(partitions(), st.randoms(use_true_random=False))
def test_hash_is_of_the_division_alone(partition, random):
    """Order within a part and the method do not count."""
    shuffled = tuple(tuple(random.sample(part, len(part))) for part in partition.parts)
    assert Partition(parts=shuffled, prior=partition.prior, method="random").hash == partition.hash


@given(partitions())
def test_round_trip_through_json(partition):
    """What was saved comes back equal, with the same hash."""
    value = json.loads(json.dumps(partition.to_json()))
    again = Partition.from_json(value, source="memory")
    assert again == partition
    assert again.hash == partition.hash


def test_hash_changes_with_the_division_and_the_prior():
    """A moved class, exchanged parts (students) and another prior are other partitions."""
    moved = Partition(parts=((3,), (1, 0), (4, 2)), prior=UNEVEN.prior)
    exchanged = Partition(parts=((1,), (3, 0), (4, 2)), prior=UNEVEN.prior)
    other_prior = Partition(parts=UNEVEN.parts, prior=even_prior(5))
    assert len({UNEVEN.hash, moved.hash, exchanged.hash, other_prior.hash}) == 4


def test_whole_is_one_part():
    """The single student owns every class with the global prior."""
    whole = Partition.whole([0.5, 0.25, 0.25])
    assert whole.parts == ((0, 1, 2),)
    assert whole.part_prior == (1.0,)
    assert whole.method == "whole"
    torch.testing.assert_close(whole.weights(0), whole.weights())


@pytest.mark.parametrize("part", [None, 0, 1, 2])
def test_sample_draws_only_from_the_part_and_by_its_prior(part):
    """No class from outside, and counts that a chi-square test takes for the part's prior."""
    num = 20000
    drawn = UNEVEN.sample(part, num, Draw(0, "test"))
    assert drawn.shape == (num,)
    assert drawn.dtype == torch.int64
    inside = sorted(UNEVEN.parts[part]) if part is not None else [0, 1, 2, 3, 4]
    counts = drawn.bincount(minlength=5)
    assert int(counts[inside].sum()) == num
    expected = torch.tensor([UNEVEN.prior[condition] for condition in inside], dtype=torch.float64)
    expected = expected / expected.sum() * num
    statistic = float(((counts[inside] - expected) ** 2 / expected).sum())
    assert statistic <= stats.chi2.ppf(0.9999, len(inside) - 1) if len(inside) > 1 else statistic == pytest.approx(0)
    assert torch.equal(drawn, UNEVEN.sample(part, num, Draw(0, "test")))


def test_each_process_gets_its_rows_of_the_global_keys():
    """Two ranks' keys, one after the other, are those of one process."""
    ranks = [UNEVEN.sample(2, 10, Draw(3, "test", slice=Slice(rank, 2))) for rank in range(2)]
    assert torch.equal(torch.cat(ranks), UNEVEN.sample(2, 10, Draw(3, "test")))


def test_partitions_are_made_saved_and_reported_without_torch(tmp_path):
    """A plan needs partitions, and must not take seconds."""
    code = (
        "import sys; from pathlib import Path\n"
        "from msd.conditions.splits import SplitRequest, make_partition\n"
        "from msd.conditions.partition import Partition\n"
        "import numpy as np\n"
        "rows = np.random.default_rng(0).standard_normal((6, 3))\n"
        "for method in ('contiguous', 'random'):\n"
        "    partition = make_partition(method, SplitRequest(6, 2), (1 / 6,) * 6)\n"
        "    partition.save(Path(sys.argv[1])); Partition.load(Path(sys.argv[1])).report(rows)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "p.json")], check=False).returncode == 0


@pytest.mark.parametrize(
    ("parts", "prior", "message"),
    [
        (((0, 1), ()), even_prior(2), r"part 1 is empty; give it a class"),
        (((0, 1), (1, 2)), even_prior(3), r"class 1 is in part 0 and in part 1; remove it"),
        (((0, 1, 1), (2,)), even_prior(3), r"class 1 is in part 0 and in part 0"),
        (((0,), (2,)), even_prior(3), r"class 1 is in no part; list it or set rest: 1"),
        ((), even_prior(1), r"class 0 is in no part"),
        (((0, 1, 5),), even_prior(3), r"class 5 in part 0 does not exist; classes are 0 to 2"),
        (((0, 1), (2, -1)), even_prior(3), r"class -1 in part 1 does not exist"),
        (((0,), (1,)), (0.5, 0.4), r"the prior sums to 0\.9; make it non-negative and sum to 1"),
        (((0,), (1,)), (1.5, -0.5), r"prior\[0\] 1\.5 is out of range; give a number from 0 to 1"),
        (((0,), (1,)), (1.0, 0.0), r"part 1 has prior 0, so its student would never be asked"),
    ],
)
def test_impossible_partitions_are_refused(parts, prior, message):
    """Each way to be no partition is named, with the class and the part."""
    with pytest.raises(PartitionError, match=message):
        Partition(parts=parts, prior=prior)


@pytest.mark.parametrize("label", [-1, 5, 1000])
def test_assign_refuses_labels_outside(label):
    """A label that no part could own is named with the valid range, wherever it is in the batch."""
    with pytest.raises(PartitionError, match=rf"class {label} is outside the partition; classes are 0 to 4"):
        UNEVEN.assign(torch.tensor([0, label, 2]))


def test_save_and_load(tmp_path):
    """The file holds the division, and loading it gives an equal partition."""
    path = tmp_path / "deep" / "partition.json"
    UNEVEN.save(path)
    assert Partition.load(path) == UNEVEN
    assert json.loads(path.read_text())["hash"] == UNEVEN.hash
    assert [child.name for child in path.parent.iterdir()] == ["partition.json"]


def edit_parts(value):
    value["parts"] = [[3], [1, 0], [4, 2]]


def edit_prior(value):
    value["prior"] = [0.2] * 5


def edit_hash(value):
    value["hash"] = "0" * 64


@pytest.mark.parametrize("edit", [edit_parts, edit_prior, edit_hash])
def test_an_edited_file_is_refused(tmp_path, edit):
    """A file whose content no longer fits its hash is refused by name, also when it is a valid partition."""
    value = UNEVEN.to_json()
    edit(value)
    path = tmp_path / "partition.json"
    path.write_text(json.dumps(value))
    with pytest.raises(PartitionError, match=r"partition\.json was edited: its hash no longer fits"):
        Partition.load(path)


@pytest.mark.parametrize("key", ["schema", "num_conditions", "parts", "prior", "method", "hash"])
def test_a_file_without_a_key_is_not_a_partition(key):
    """Each missing key is refused, naming the source and the key."""
    value = UNEVEN.to_json()
    del value[key]
    with pytest.raises(PartitionError, match=rf"here\.json is not a saved partition .*{key}"):
        Partition.from_json(value, source="here.json")


def test_a_file_with_an_unknown_key_is_not_a_partition():
    """What this version does not understand it does not pass over in silence."""
    with pytest.raises(PartitionError, match=r"here\.json is not a saved partition \(it has an unknown field 'rest'"):
        Partition.from_json(UNEVEN.to_json() | {"rest": 1}, source="here.json")


@pytest.mark.parametrize(
    ("schema", "message"),
    [(1, r"made by an older msd \(schema 1\); remove it and make it again"), (3, r"a newer msd .* update msd")],
)
def test_a_partition_of_another_schema_is_refused_before_anything_else(schema, message):
    """Also when nothing else in it makes sense."""
    with pytest.raises(PartitionError, match=rf"here\.json was {message}" if schema == 1 else message):
        Partition.from_json({"schema": schema, "parts": "another layout"}, source="here.json")


@pytest.mark.parametrize("value", [[], "text", 3, None, {"parts": 1, "prior": [1.0]}, UNEVEN.to_json() | {"parts": 1}])
def test_other_json_is_not_a_partition(value):
    """JSON of another shape is refused rather than crashing."""
    with pytest.raises(PartitionError, match="is not a saved partition"):
        Partition.from_json(value, source="x")


def test_missing_and_damaged_files_are_refused(tmp_path):
    """A path that is not there and a file that is not JSON are both PartitionErrors with the path."""
    with pytest.raises(PartitionError, match=r"none\.json \(a saved partition\) does not exist"):
        Partition.load(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"parts": [[0')
    with pytest.raises(PartitionError, match=r"half\.json \(a saved partition\) cannot be read"):
        Partition.load(tmp_path / "half.json")


@pytest.mark.parametrize("offset", [0.0, 8.0])
def test_report_coherence_of_opposite_clusters(offset):
    """Classes at +e and -e about any centre: cosine 1 within a part, -1 across, coherence 2; mixed parts are below 0."""
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]]) + offset
    alike = Partition(parts=((0, 1), (2, 3)), prior=even_prior(4)).report(embeddings)
    assert [row["coherence"] for row in alike["parts"]] == [2.0, 2.0]
    # Mixed: within -1; across 4 pairs of which half are 1 and half -1, mean 0.
    mixed = Partition(parts=((0, 2), (1, 3)), prior=even_prior(4)).report(embeddings)
    assert [row["coherence"] for row in mixed["parts"]] == [-1.0, -1.0]


def test_report_sizes_priors_and_balance():
    """Sizes and priors are the partition's; balance is the largest part's prior over the smallest's."""
    report = UNEVEN.report(np.random.default_rng(0).standard_normal((5, 3)))
    assert [row["size"] for row in report["parts"]] == [2, 1, 2]
    assert [row["prior"] for row in report["parts"]] == pytest.approx([0.25, 0.2, 0.55])
    assert report["balance"] == pytest.approx(2.75)
    assert report["hash"] == UNEVEN.hash
    assert report["parts"][1]["coherence"] is None  # one class has nobody to be alike to
    assert report["parts"][0]["coherence"] is not None
    assert all(row["coherence"] is None for row in UNEVEN.report(None)["parts"])
    assert Partition.whole(even_prior(3)).report(np.eye(3))["parts"][0]["coherence"] is None
