"""What a Frechet distance may be called: "FID" only if it was taken as the papers take theirs, else its kind and count.

The papers' protocol (EDM, DMD, MSD on ImageNet at 64x64): Inception's features of 50,000 samples, as many of each class,
against mean and covariance of the whole training set. Needs no torch.
"""

from __future__ import annotations

FID, INCEPTION_METRIC, LITE0_METRIC = "FID", "FID-Inception", "FID-Lite0"
NUM_SAMPLES = 50_000
_COUNTED = " samples)"


def shortfalls(num_samples: int, is_balanced: bool, num_reference: int | None, num_images: int | None) -> list[str]:
    """In what a distance on Inception's features is not the protocol's, in a few words each; `num_reference` of the
    `num_images` real ones were looked at (None: whoever made the reference knows)."""
    found = []
    if num_samples != NUM_SAMPLES:
        found.append(f"{num_samples:,} samples, not {NUM_SAMPLES:,}")
    if not is_balanced:
        found.append("conditions drawn by their prior, not as many of each")
    if num_reference is not None and num_images is not None and num_reference < num_images:
        found.append(f"a reference of {num_reference:,} of {num_images:,} images")
    return found


def called(metric: str, num_samples: int, short: list[str]) -> str:
    """The name of a Frechet distance, from its features' `metric` and its `shortfalls`: the only place that gives it."""
    if metric != INCEPTION_METRIC:
        return metric
    return f"{metric} ({num_samples:,}{_COUNTED}" if short else FID


def counted(name: str, num_samples: int) -> str:
    """A name as a title has it, with the number of samples, which a name may say already."""
    return name if name.endswith(_COUNTED) else f"{name} on {num_samples} samples"


def explained(name: str) -> str:
    """Whose features a distance of that name is of, and what it compares, for the reader of a page."""
    if name == FID:
        return (
            f"features of FID's Inception-v3, by the papers' protocol ({NUM_SAMPLES:,} samples, as many of each class): it "
            "compares with numbers that were taken by the same weights and reference"
        )
    if name.startswith(INCEPTION_METRIC):
        return "features of FID's Inception-v3, but not by the papers' protocol: it compares rows of this page, not pages"
    whose = "ImageNet's EfficientNet-Lite0" if name == LITE0_METRIC else "this data set's own network"
    return f"features of {whose}: it compares rows of this page, not pages"
