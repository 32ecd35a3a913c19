"""Ways to divide classes: always total, disjoint and balanced; clusters recovered; the user's file read and checked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msd.conditions.splits import SPLITS, SplitRequest, make_partition
from msd.errors import PartitionError


def even_prior(num):
    return (1 / num,) * num


@st.composite
def requests(draw, max_conditions=40):
    num = draw(st.integers(1, max_conditions))
    seed = draw(st.integers(0, 1000))
    embeddings = np.random.default_rng(seed).standard_normal((num, 3))
    return SplitRequest(num, draw(st.integers(1, num)), seed, lambda: embeddings)


def assert_balanced_cover(method, request):
    partition = make_partition(method, request, even_prior(request.num_conditions))
    assert partition.method == method
    assert partition.num_parts == request.num_parts
    assert sorted(condition for part in partition.parts for condition in part) == list(range(request.num_conditions))
    sizes = [len(part) for part in partition.parts]
    assert max(sizes) - min(sizes) <= 1
    assert make_partition(method, request, even_prior(request.num_conditions)).hash == partition.hash
    return partition


@given(requests())
def test_contiguous_is_a_balanced_cover_of_blocks(request):
    """Total, disjoint, sizes within one, repeatable; and read part by part the classes are in order."""
    partition = assert_balanced_cover("contiguous", request)
    assert [condition for part in partition.parts for condition in part] == list(range(request.num_conditions))


@given(requests())
def test_random_is_a_balanced_cover(request):
    """Total, disjoint, sizes within one, and the same for the same seed."""
    partition = assert_balanced_cover("random", request)
    assert all(list(part) == sorted(part) for part in partition.parts)


@given(requests(max_conditions=16))
@settings(max_examples=20)
def test_balanced_kmeans_is_a_balanced_cover(request):
    """Total, disjoint, sizes within one, and repeatable, for any embeddings and any number of parts."""
    assert_balanced_cover("balanced-kmeans", request)


@pytest.mark.parametrize(("num", "num_parts"), [(11, 3), (16, 4), (20, 6)])
@pytest.mark.parametrize("seed", range(4))
def test_balanced_kmeans_is_a_fixed_point(num, num_parts, seed):
    """No exchange of two classes, and no move from a larger to a smaller part, is nearer to the parts' centres."""
    embeddings = np.random.default_rng(seed).standard_normal((num, 3)).astype(np.float32)
    request = SplitRequest(num, num_parts, seed, lambda: embeddings)
    partition = make_partition("balanced-kmeans", request, even_prior(request.num_conditions))
    rows = torch.from_numpy(embeddings).double()
    points = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
    centres = torch.stack([points[list(part)].mean(0) for part in partition.parts])
    cost = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist") ** 2
    for here, first in enumerate(partition.parts):
        for there, second in enumerate(partition.parts):
            rise = cost[list(first), there] - cost[list(first), here]
            fall = cost[list(second), there] - cost[list(second), here]
            assert float((rise[:, None] - fall[None, :]).min()) > -1e-9
            assert len(first) <= len(second) or float(rise.min()) > -1e-9


def test_random_depends_on_the_seed():
    """Ten seeds over 20 classes do not give one division."""
    hashes = {make_partition("random", SplitRequest(20, 4, seed), even_prior(20)).hash for seed in range(10)}
    assert len(hashes) == 10


def clustered(sizes, seed=0):
    """Embeddings in tight clusters around orthogonal directions, classes shuffled; and each class's cluster."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    cluster = cluster[torch.randperm(len(cluster), generator=generator)]
    noise = 0.1 * torch.randn(len(cluster), len(sizes), generator=generator)
    return (5 * torch.eye(len(sizes))[cluster] + noise).numpy(), cluster


@pytest.mark.parametrize("sizes", [(5, 5, 5), (4, 4, 3), (3, 3, 3, 3), (2, 1, 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_balanced_kmeans_recovers_clusters(sizes, seed):
    """Well-separated clusters of near-equal size are the parts, and such parts report coherence well above 0."""
    embeddings, cluster = clustered(sizes, seed)
    request = SplitRequest(len(cluster), len(sizes), seed, lambda: embeddings)
    partition = make_partition("balanced-kmeans", request, even_prior(len(cluster)))
    assert all(len({int(cluster[condition]) for condition in part}) == 1 for part in partition.parts)
    coherence = [row["coherence"] for row in partition.report(embeddings)["parts"] if row["size"] > 1]
    assert min(coherence) > 0.9


@pytest.mark.parametrize(("sizes", "balanced"), [((4, 2), [3, 3]), ((3, 3, 1), [2, 2, 3]), ((5, 1, 1, 1), [2, 2, 2, 2])])
def test_balanced_kmeans_balances_uneven_clusters(sizes, balanced):
    """Clusters larger than a part give up classes, and no more than needed: the small clusters stay together."""
    embeddings, cluster = clustered(sizes)
    request = SplitRequest(len(cluster), len(sizes), 0, lambda: embeddings)
    partition = make_partition("balanced-kmeans", request, even_prior(len(cluster)))
    assert sorted(len(part) for part in partition.parts) == balanced
    members = [[int(cluster[condition]) for condition in part] for part in partition.parts]
    assert all(sum(index in part for part in members) == 1 for index, size in enumerate(sizes) if size <= min(balanced))


def test_balanced_kmeans_ignores_what_all_classes_share():
    """Clusters that differ by 1 along an offset of 100, which dwarfs it, are still found."""
    cluster = torch.tensor([0, 1, 1, 0, 1, 0])
    noise = 0.02 * torch.randn(6, generator=torch.Generator().manual_seed(0))
    embeddings = torch.stack([100.0 + cluster, noise], dim=1)
    partition = make_partition("balanced-kmeans", SplitRequest(6, 2, 0, embeddings.numpy), even_prior(6))
    assert sorted(partition.parts) == [(0, 3, 5), (1, 2, 4)]


def test_balanced_kmeans_is_more_coherent_than_random():
    """The point of splitting by similarity: mean coherence above that of every one of ten random splits."""
    embeddings, _ = clustered((5, 5, 5))

    def coherence(method, seed):
        report = make_partition(method, SplitRequest(15, 3, seed, lambda: embeddings), even_prior(15)).report(embeddings)
        return sum(row["coherence"] for row in report["parts"])

    assert coherence("balanced-kmeans", 0) > max(coherence("random", seed) for seed in range(10))


def test_balanced_kmeans_needs_embeddings():
    """Without embeddings the message offers the methods that work."""
    with pytest.raises(PartitionError, match=r"needs class embeddings .* use contiguous or file"):
        make_partition("balanced-kmeans", SplitRequest(4, 2), even_prior(4))


@pytest.mark.parametrize("method", ["contiguous", "random"])
def test_splits_by_number_never_ask_for_embeddings(method):
    """A teacher without class embeddings, or whose weights are slow to read, can still be divided."""

    def refuse():
        raise AssertionError("asked for embeddings")

    make_partition(method, SplitRequest(6, 2, embeddings=refuse), even_prior(6))


def test_unknown_split_lists_the_known():
    """A wrong name is answered with all right ones."""
    with pytest.raises(PartitionError, match="there is no split 'kmeans'; choose one of " + ", ".join(SPLITS)):
        make_partition("kmeans", SplitRequest(4, 2), even_prior(4))


@pytest.mark.parametrize("num_parts", [0, -1, 5])
@pytest.mark.parametrize("method", ["contiguous", "random", "balanced-kmeans"])
def test_impossible_number_of_parts(method, num_parts):
    """More parts than classes, or none, is refused with the valid range."""
    with pytest.raises(PartitionError, match=rf"4 classes cannot be split into {num_parts} parts; .*between 1 and 4"):
        make_partition(method, SplitRequest(4, num_parts, 0, lambda: np.eye(4)), even_prior(4))


def split_by_file(folder, text, num_conditions=6):
    path = folder / "split.yaml"
    path.write_text(text)
    return make_partition("file", SplitRequest(num_conditions, 99, file=path), even_prior(num_conditions))


def test_file_names_all_parts(tmp_path):
    """Parts as written, in the written order; num_parts is the file's."""
    assert split_by_file(tmp_path, "parts: [[5, 1], [0, 2], [3, 4]]").parts == ((5, 1), (0, 2), (3, 4))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parts: [[5], [2]]\nrest: 1", ((5,), (2, 0, 1, 3, 4))),
        ("parts: [[5], []]\nrest: 1", ((5,), (0, 1, 2, 3, 4))),
        ("parts: [[0, 1, 2], [3, 4, 5]]\nrest: 0", ((0, 1, 2), (3, 4, 5))),
    ],
)
def test_file_rest_takes_the_unlisted(tmp_path, text, parts):
    """`rest` adds every class that no part lists, and nothing where all are listed."""
    assert split_by_file(tmp_path, text).parts == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: [[0, 1, 2], [3, 4]]", r"class 5 is in no part; list it or set rest: 1"),
        ("parts: [[0, 1, 2], [2, 3, 4, 5]]", r"class 2 is in part 0 and in part 1"),
        ("parts: [[0, 1, 2, 3, 4, 5], []]", r"part 1 is empty"),
        ("parts: [[0, 1, 2], [3, 4, 5, 6]]", r"class 6 in part 1 does not exist; classes are 0 to 5"),
        ("parts: [[0], [1]]\nrest: 2", r"rest: 2 in .*split\.yaml names no part; parts are 0 to 1"),
        ("parts: [[0], [1]]\nrest: -1", r"rest: -1 in .* names no part"),
        ("parts: [[0], [1]]\nrest: all", r"is not a division into parts \(rest should be a valid integer, not 'all'\)"),
        ("parts: [[0], [1]]\nrest: true", r"\(rest should be a valid integer, not True\)"),
        ("parts: [[0], [1]]\nrests: 1", r"split\.yaml is not .* \(it has an unknown field 'rests'\); write `parts: "),
        ("parts: [[0, 1], 2]", r"split\.yaml is not .* \(parts\.1 should be a valid array, not 2\)"),
        ("parts: [[0, one]]", r"there is no class 'one' \(part 0 in .*split\.yaml\); give a number from 0 to 5\."),
        ("parts: [[0, 1.0]]", r"\(parts\.0\.1 should be a class's number or name .* quotes\), not 1\.0\)"),
        ("parts: [[0, no]]", r"\(parts\.0\.1 should be a class's number or name .*for yes or no .*, not False\)"),
        ("parts: [[0, null]]", r"\(parts\.0\.1 should be a class's number or name .*, not None\)"),
        ("parts: {a: [0]}", r"\(parts should be a valid array, not a dict\)"),
        ("- [0, 1]", r"split\.yaml is not a division into parts \(it should be an object, not a list\)"),
        ("", r"\(it should be an object, not None\)"),
        ("parts: [[0, 1", r"split\.yaml \(a division into parts\) cannot be read as YAML"),
    ],
)
def test_faulty_files_are_refused(tmp_path, text, message):
    """Each fault of the user's file is named with the place and what to write."""
    with pytest.raises(PartitionError, match=message):
        split_by_file(tmp_path, text)


ANIMALS = ("cat", "dog", "no", "Z\u00fcrich", "1", "a, b")


def split_by_names(folder, text):
    path = folder / "split.yaml"
    path.write_text(text, encoding="utf-8")
    return make_partition("file", SplitRequest(6, 99, file=path, classes=ANIMALS), even_prior(6))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parts: [[cat, dog], ['no', Zu\u0308rich], ['1', 'a, b']]", ((0, 1), (2, 3), (4, 5))),
        ("parts: [[cat, 1], [2, '3', '1', 5]]", ((0, 1), (2, 3, 4, 5))),  # '1' is a name, 1 and '3' are numbers
        ("parts: [[dog], []]\nrest: 1", ((1,), (0, 2, 3, 4, 5))),
    ],
)
def test_a_file_may_name_classes(tmp_path, text, parts):
    """By name, by number or mixed; a text is a name before it is a number; the division is the same as by numbers."""
    found = split_by_names(tmp_path, text)
    assert found.parts == parts
    assert found.hash == split_by_file(tmp_path, f"parts: {[list(part) for part in parts]}").hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: [[cta], [0]]", r"there is no class 'cta' \(part 0 in .*split\.yaml\); did you mean cat\?"),
        ("parts: [[cat, dog], [CAT]]", r"there is no class 'CAT' .*; did you mean cat\?"),
        ("parts: [[cat, dog], [0, 2, 3, 4, 5]]", "class 'cat' is in part 0 and in part 1; remove it"),
        ("parts: [[cat, dog], [2, 3, 4]]", "class 'a, b' is in no part; list it or set rest: 1"),
        ("parts: [[cat, dog, 9], [2, 3, 4, 5]]", "class 9 in part 0 does not exist"),
        ("parts: [[cat, cat], [dog, 2, 3, 4, 5]]", "class 0 is in part 0 and in part 0"),
    ],
)
def test_faulty_names_in_a_file_are_refused(tmp_path, text, message):
    with pytest.raises(PartitionError, match=message):
        split_by_names(tmp_path, text)


def test_a_request_has_a_name_a_class():
    with pytest.raises(PartitionError, match="there are 2 names for 3 classes; give one a class"):
        SplitRequest(3, 1, classes=("a", "b"))
    assert SplitRequest(3, 1).classes == ("0", "1", "2")


def test_missing_file_and_missing_path(tmp_path):
    """A path that is not there, a folder in its place, and no path at all are three different messages."""
    with pytest.raises(PartitionError, match=r"gone\.yaml \(a division into parts\) does not exist; check partition\.file"):
        make_partition("file", SplitRequest(4, 2, file=tmp_path / "gone.yaml"), even_prior(4))
    with pytest.raises(PartitionError, match=r"cannot be read \(it is a folder\)"):
        make_partition("file", SplitRequest(4, 2, file=tmp_path), even_prior(4))
    with pytest.raises(PartitionError, match=r"needs the path of a YAML file; set partition\.file"):
        make_partition("file", SplitRequest(4, 2), even_prior(4))
