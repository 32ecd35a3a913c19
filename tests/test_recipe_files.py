"""Where recipes come from: packaged names, files, what is typed beside them, and what a cohort keeps of its own."""

import pytest

from msd.errors import RecipeError
from msd.recipe import (
    load_recipe,
    revised,
)


def test_unknown_recipe_gets_the_nearest_name(tmp_path):
    """A misspelt packaged name is corrected; a name like none of them is answered with the list."""
    with pytest.raises(RecipeError, match=r"there is no recipe 'digit', .*; did you mean digits\?"):
        load_recipe("digit")
    with pytest.raises(RecipeError, match=r"there is no recipe '.*gone\.yaml'.* \(known: .*digits"):
        load_recipe(str(tmp_path / "xxxxxxxxxxxxxxxxxxxx" / "gone.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dm: [", r"\(a recipe\) cannot be read as YAML"),
        ("seed: 2024-99-99", r"\(a recipe\) cannot be read as YAML"),
        ("- a", "is not a recipe"),
        ("", "is not a"),
    ],
)
def test_files_that_are_no_recipe(tmp_path, text, message):
    """Broken YAML, a list and an empty file are refused by path."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=rf"mine\.yaml {message}"):
        load_recipe(str(path))


def test_own_recipe_by_path(tmp_path):
    """A file is named after itself unless it says otherwise; a relative partition file starts at its folder."""
    (tmp_path / "mine.yaml").write_text("partition: {method: file, file: splits/animals.yaml}\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.name == "mine"
    assert recipe.partition.file == str((tmp_path / "splits" / "animals.yaml").resolve())
    (tmp_path / "absolute.yaml").write_text("name: other\npartition: {method: file, file: /data/animals.yaml}\n")
    recipe = load_recipe(str(tmp_path / "absolute.yaml"))
    assert (recipe.name, recipe.partition.file) == ("other", "/data/animals.yaml")


def test_repeated_keys_are_refused_with_their_line(tmp_path):
    """YAML would take the last of two silently; here the second is named, wherever it is."""
    path = tmp_path / "mine.yaml"
    for text, key, line in (
        ("seed: 0\ndevice: cpu\nseed: 1\n", "seed", 3),
        ("dm:\n  weight: 1\n  batch_size: 3\n  weight: 2\n", "weight", 4),
        ("rows:\n  a: {dm.weight: 0}\n  b: {}\n  a: {}\n", "a", 4),
    ):
        path.write_text(text)
        with pytest.raises(RecipeError, match=rf"mine\.yaml .* cannot be read .*'{key}' is there twice on line {line}\)"):
            load_recipe(str(path))
    path.write_text("dm: &base {weight: 2}\npairs: {<<: {num_pairs: 100}, num_pairs: 200}\n")
    assert load_recipe(str(path)).pairs.num_pairs == 200


def test_relative_paths_begin_where_they_were_typed(tmp_path, monkeypatch):
    """Teacher, partition file and start: in a file at its folder, by --set at the working directory; words stay words."""
    here, there = (tmp_path / "here").resolve(), (tmp_path / "there").resolve()
    here.mkdir()
    there.mkdir()
    path = there / "mine.yaml"
    path.write_text(
        "teacher: {source: t}\nstudent: {start: s}\npartition: {method: file, file: p.yaml}\n"
        "rows: {a: {student.start: r}, b: {student: {start: teacher}}}\n"
    )
    monkeypatch.chdir(here)
    recipe = load_recipe(str(path))
    assert recipe.teacher.source == str(there / "t")
    assert recipe.student.start == str(there / "s")
    assert recipe.partition.file == str(there / "p.yaml")
    assert recipe.rows == {"a": {"student.start": str(there / "r")}, "b": {"student.start": "teacher"}}
    overrides = [
        "teacher.source=t",
        "student.start=../s",
        "partition={method: file, file: p.yaml}",
        "rows.b.student.start=r",
    ]
    recipe = load_recipe(str(path), overrides)
    assert recipe.teacher.source == str(here / "t")
    assert recipe.student.start == str(tmp_path.resolve() / "s")
    assert recipe.partition.file == str(here / "p.yaml")
    assert recipe.rows == {"a": {"student.start": str(there / "r")}, "b": {"student.start": str(here / "r")}}
    assert load_recipe(str(path), ["teacher.source=packaged:digits"]).teacher.source == "packaged:digits"
    assert load_recipe(str(path), ["student.start=teacher"]).student.start == "teacher"


def test_a_cohorts_recipe_is_revised_for_measuring_alone():
    """What decides a cohort can't be changed when it is measured; an unknown key keeps its own sentence."""
    stored = load_recipe("digits").model_dump(mode="json")
    changed = revised(stored, ["evaluation.num_samples=7"], allowed=("evaluation",), device="cuda")
    assert (changed.evaluation.num_samples, changed.device) == (7, "cuda")
    for override, message in (
        (
            "partition.num_parts=2",
            r"^partition\.num_parts decides what a cohort is, which eval only measures; set evaluation",
        ),
        ("rows.single.dm.weight=2", r"^rows\.single\.dm\.weight changes nothing that is measured; set evaluation\.\*"),
        ("device=cuda", r"--device"),
        ("evalution.seed=2", r"^evalution is not a recipe key; did you mean evaluation\?"),
        ("evaluation.sead=2", r"^evaluation\.sead is not a recipe key; did you mean seed\?"),
    ):
        with pytest.raises(RecipeError, match=message):
            revised(stored, [override], allowed=("evaluation",))
    assert revised(stored, ["partition.num_parts=2"]).partition.num_parts == 2
    assert stored == load_recipe("digits").model_dump(mode="json")


def test_a_rows_stored_recipe_can_be_measured():
    """Its pairs may have come from a row that it does not hold."""
    digits = load_recipe("digits", ["rows.post={pairs.source: single}"])
    stored = digits.variant(digits.rows["post"]).model_dump(mode="json")
    assert revised(stored, [], allowed=("evaluation",)).pairs.source == "single"
    with pytest.raises(RecipeError, match="there is no row 'single'"):
        revised(stored, [])
