"""Images that are damaged, lead elsewhere or change while they are read; files that an extra reads."""

from __future__ import annotations

import builtins
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data.layouts import (
    Pictures,
    in_folders,
    random_pictures,
    with_dataset_json,
    write_files,
    write_parquet,
    write_zip,
)
from msd.data.cache import findings, open_images
from msd.errors import DataError
from msd.recipe import DataSection

PICTURES = random_pictures()
FILES = in_folders(PICTURES)


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_parquet_file_is_refused_in_one_sentence(tmp_path: Path, cache: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    broken = text(tmp_path / "broken.parquet", "PAR1 nothing PAR1")
    with pytest.raises(DataError, match=r"broken\.parquet is damaged \(.*\); restore it"):
        open_images(DataSection(source=str(broken)))
    parquet.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"has no column image and label \(it has a, b\); rename"):
        open_images(DataSection(source=str(tmp_path / "other.parquet")))
    parquet.write_table(pa.table({"image": [FILES[0][1]], "label": pa.array([None], pa.int64())}), tmp_path / "null.parquet")
    with pytest.raises(DataError, match=r"row 0 has the label None, neither a number nor a name"):
        open_images(DataSection(source=str(tmp_path / "null.parquet")))
    table = pa.table({"image": [{"bytes": None, "path": "/etc/passwd"}] * 2, "label": [0, 1]})
    parquet.write_table(table, tmp_path / "paths.parquet")
    with pytest.raises(DataError, match="its bytes are not in the file"):
        open_images(DataSection(source=str(tmp_path / "paths.parquet")))


def test_a_saved_dataset_leads_nowhere_else(tmp_path: Path, cache: Path) -> None:
    text(tmp_path / "set" / "state.json", json.dumps({"_data_files": [{"filename": "../../etc/passwd"}]}))
    with pytest.raises(DataError, match="should be a plain name, without a path"):
        open_images(DataSection(source=str(tmp_path / "set")))


def test_a_missing_extra_is_named(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = text(tmp_path / "set.parquet", "PAR1")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=re.escape('; pip install "multi-student-distillation[datasets]".')):
        open_images(DataSection(source=str(source)))


def damage(files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The second file cut, and one more that is none."""
    return [files[0], (files[1][0], files[1][1][:-40]), *files[2:], ("2/z.jpg", b"no image")]


def test_damaged_images_are_named_and_counted_and_skipped_if_asked(tmp_path: Path, cache: Path) -> None:
    for source in (write_files(tmp_path / "set", damage(FILES)), write_zip(tmp_path / "set.zip", damage(FILES))):
        with pytest.raises(
            DataError, match=r"the first of 2 such of 13; mend or remove them, or set data\.skip_damaged=true\."
        ):
            open_images(DataSection(source=str(source)))
        data = DataSection(source=str(source), skip_damaged=True)
        assert len(open_images(data)) == 11
        found, _ = findings(data)
        assert found.num_images == 11
        assert sorted(one.partition(":")[0] for one in found.damaged) == ["1/image 1.png", "2/z.jpg"]
        assert found.classes == {"0": 4, "1": 3, "2": 4}


def test_where_all_are_damaged_there_is_nothing_to_skip_to(tmp_path: Path, cache: Path) -> None:
    source = write_files(tmp_path / "set", [("a/1.png", b"-"), ("b/2.png", b"-")])
    with pytest.raises(DataError, match=r"none of the 2 images of .*; give a source that can be read\."):
        open_images(DataSection(source=str(source), skip_damaged=True))


def test_a_crc_that_is_wrong_in_a_zip_is_damage(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "set.zip", FILES)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        offset = archive.infolist()[3].header_offset
    content[offset + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged \(.*\); mend or remove it"):
        open_images(DataSection(source=str(path)))


def test_a_link_in_a_zip_is_not_followed(tmp_path: Path, cache: Path) -> None:
    path = write_zip(tmp_path / "set.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        member = zipfile.ZipInfo("0/link.png")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"0/link\.png is damaged \(it is a link\)"):
        open_images(DataSection(source=str(path)))


def test_a_list_does_not_lead_through_a_link(tmp_path: Path, cache: Path) -> None:
    source = write_files(tmp_path / "set", with_dataset_json(PICTURES))
    write_files(tmp_path / "elsewhere", with_dataset_json(PICTURES))
    labels = [["out/00000/img00000000.png", 0], ["00000/img00000001.png", 1]]
    (source / "dataset.json").write_text(json.dumps({"labels": labels}))
    (source / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link to a folder"):
        open_images(DataSection(source=str(source)))


def test_links_to_images_are_followed(tmp_path: Path, cache: Path) -> None:
    whole = write_files(tmp_path / "whole", FILES)
    for name, _ in FILES:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(whole / name)
    assert open_images(DataSection(source=str(tmp_path / "set"))).hash == open_images(DataSection(source=str(whole))).hash


def test_a_source_that_changes_while_it_is_read_is_told(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_files(tmp_path / "set", FILES)
    told: list[Pictures] = []

    def change(done: int, total: int) -> None:
        if not told:
            write_files(source, [("0/new.png", FILES[0][1])])
        told.append([])

    with pytest.raises(DataError, match=r"set was changed while it was read; give the command again\."):
        open_images(DataSection(source=str(source)), change)
    assert len(open_images(DataSection(source=str(source)))) == 13


def test_a_parquet_folder_with_an_odd_file_says_which(tmp_path: Path, cache: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    source = write_parquet(tmp_path / "set", PICTURES)
    parquet.write_table(pa.table({"a": [1]}), source / "z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet lacks the column image or label that others have; leave it out\."):
        open_images(DataSection(source=str(source)))
