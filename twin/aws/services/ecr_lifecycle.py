"""Which images a repository's lifecycle policy expires: https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html

What stands in an image index ("manifest list") is neither counted nor expired while the index is there. The page says the second; a
real preview said both (https://github.com/DefangLabs/pulumi-defang/pull/466).
"""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase

DAY = 86_400  # seconds; an expired image is gone within so many


@dataclass(frozen=True)
class Image:
    digest: str
    tags: tuple[str, ...]
    pushed: float
    children: tuple[str, ...] = ()  # of an index: the digests of its manifests


def expired(policy: str, images: list[Image], now: float) -> set[str]:
    """The digests that one evaluation of the policy expires."""
    referenced = {child for image in images for child in image.children}
    candidates = [image for image in images if image.digest not in referenced]
    gone: set[str] = set()
    decided: set[str] = set()  # by the tags of a rule of higher priority
    for rule in sorted(json.loads(policy)["rules"], key=lambda rule: rule["rulePriority"]):
        selection = rule["selection"]
        # A later rule counts what an earlier one has expired, and expires nothing that an earlier one has selected.
        selected = [image for image in candidates if selects(selection, image.tags)]
        gone |= {image.digest for image in beyond_limit(selection, selected, now)} - decided
        decided |= {image.digest for image in selected}
    return gone


def selects(selection: dict, tags: tuple[str, ...]) -> bool:
    """Every pattern or prefix of the list is that of some tag of the image."""
    if selection["tagStatus"] != "tagged":
        return selection["tagStatus"] == "any" or not tags
    if patterns := selection.get("tagPatternList"):
        return all(any(fnmatchcase(tag, pattern) for tag in tags) for pattern in patterns)
    return all(any(tag.startswith(prefix) for tag in tags) for prefix in selection["tagPrefixList"])


def beyond_limit(selection: dict, images: list[Image], now: float) -> list[Image]:
    """Those that are too many, or too old; of two that were pushed in one second the later one is the newer."""
    if selection["countType"] == "sinceImagePushed":
        return [image for image in images if now - image.pushed > selection["countNumber"] * DAY]
    places = {image.digest: place for place, image in enumerate(images)}
    newest_first = sorted(images, key=lambda image: (image.pushed, places[image.digest]), reverse=True)
    return newest_first[selection["countNumber"] :]
