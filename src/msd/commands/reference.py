"""`msd data reference`: the features of images as a file, so that samples can be measured where the images are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msd import checks
from msd.commands.console import Output
from msd.data.images import load_images
from msd.errors import DataError
from msd.evaluation.features import load_network
from msd.evaluation.reference import read_reference, reference_of, write_reference
from msd.files import probe
from msd.recipe import DataSection

MOST = 10_000
"""Images whose features a file holds at most: 3 MB of 128 each."""


def make_reference(
    data: DataSection, features: str, out: str | Path, output: Output, *, most: int = MOST, run_folder: Path | None = None
) -> dict[str, Any]:
    """Write features of at most `most` of the images as the file `out`, by the network that `evaluation.features` names.

    Returns what it holds. Raises DataError, WeightsError for a network that doesn't fit, RunError for a file that cannot be
    written, all before the images are looked at.
    """
    path = checks.path(out, "the file of reference features", error=DataError)
    most = checks.whole(most, "most", 2, error=DataError)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give --out the name of a file, e.g. {path / 'reference.safetensors'}.")
    network = load_network(features, run_folder)
    probe(path.parent)
    images = load_images(data)
    network.check_fits(images.pixel_shape)
    with output.progress("looking at the images", min(most, len(images))) as advance:
        reference = reference_of(images, network, most, advance)
    write_reference(path, reference)
    written = read_reference(path, network)
    return {
        "file": str(path),
        "sha256": written.sha256,
        "num_bytes": path.stat().st_size,
        "metric": written.metric,
        "images": written.name,
        "num_images": len(written),
        "of": written.num_images,
        "images_sha256": written.images_sha256,
        "feature_network_sha256": written.feature_network_sha256,
        "licence": written.licence,
    }
