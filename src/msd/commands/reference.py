"""`msd data reference`: the features of images as a file, so that samples can be measured where the images are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msd import checks
from msd.commands.console import Output
from msd.commands.data import section
from msd.data.images import ImageSet, load_images
from msd.errors import DataError
from msd.evaluation.features import Extractor, load_network
from msd.evaluation.reference import read_reference, reference_of, write_reference
from msd.evaluation.statistics import SUFFIX, forget, moments_of, read_statistics, write_statistics
from msd.files import probe
from msd.recipe import PACKAGED_PREFIX, DataSection, EvaluationSection, load_recipe, packaged_recipes
from msd.training.engine import Engine

MOST = 10_000
"""Images whose features a file holds at most: 3 MB of 128 each. Of means and covariances it is as many as there are."""
RECIPES = (".yaml", ".yml")


def wanted(
    images: str, features: str | None, overrides: list[str] | None = None, device: str | None = None
) -> tuple[DataSection, str, str]:
    """The images, the word for the feature network and the device that a command line means: `images` names a recipe, or a
    source of images, whose network must be named too. Raises RecipeError and DataError."""
    path = Path(images)
    is_file = path.is_file() and path.suffix.lower() not in RECIPES
    is_source = is_file or path.is_dir() or images.startswith(PACKAGED_PREFIX)
    own = None if features is None else EvaluationSection(features=features).features
    if images in packaged_recipes() or not is_source:
        recipe = load_recipe(images, overrides, device=device)
        return recipe.data, own or recipe.evaluation.features, recipe.device
    data = section(images, overrides)
    if own is None:
        raise DataError(f"{images} has no recipe that says whose features; add e.g. --features inception:FILE.")
    return data, own, device or "cpu"


def make_reference(
    data: DataSection,
    features: str,
    out: str | Path,
    output: Output,
    *,
    most: int = MOST,
    run_folder: Path | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write features of at most `most` of the images as the file `out`, by the network that `evaluation.features` names; as
    an .npz, mean and covariance of those of all images.

    Returns what it holds. Raises DataError, WeightsError for a network that doesn't fit, RunError for a file that cannot be
    written, all before the images are looked at.
    """
    path = checks.path(out, "the file of reference features", error=DataError)
    most = checks.whole(most, "most", 2, error=DataError)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give --out the name of a file, e.g. {path / 'reference.safetensors'}.")
    network = load_network(features, run_folder).on(Engine.on(device).device)
    probe(path.parent)
    images = load_images(data)
    network.check_fits(images.pixel_shape)
    found = (_moments if path.suffix == SUFFIX else _features)(images, network, path, most, output)
    return {
        "file": str(path),
        "num_bytes": path.stat().st_size,
        "metric": network.metric,
        "images": images.name,
        "of": len(images),
        "images_sha256": images.hash,
        "feature_network_sha256": network.sha256,
        "licence": images.licence,
        **found,
    }


def _features(images: ImageSet, network: Extractor, path: Path, most: int, output: Output) -> dict[str, Any]:
    with output.progress("looking at the images", min(most, len(images))) as advance:
        reference = reference_of(images, network, most, advance)
    write_reference(path, reference)
    written = read_reference(path, network)
    return {"holds": "features", "num_images": len(written), "sha256": written.sha256}


def _moments(images: ImageSet, network: Extractor, path: Path, most: int, output: Output) -> dict[str, Any]:
    with output.progress("looking at the images", len(images)) as advance:
        moments = moments_of(images, network, advance)
    write_statistics(path, moments, images, network)
    written = read_statistics(path, network)
    forget(images, network)
    return {"holds": "mean and covariance", "num_images": len(images), "sha256": written.sha256}
