"""How a prediction becomes numbers: the peers' protocol to the digit, and the image's own size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from risbench.benchmark.data.cache import resized_mask
from risbench.benchmark.data.release import Sample
from risbench.benchmark.train.losses import raised
from risbench.core.errors import OptionError
from risbench.core.metrics import intersection_union

Protocol = Literal["peer", "native"]
PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
# The side at which LAVT, RMSIN and who follows them score, whatever the image's own.
PEER_SIDE: Final = 480

# Either logits (h, w) of any size, or a mask of the image's own size.
Prediction = Tensor | NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """One sample's counts in pixels at the protocol's size: common, together, of the truth, of the prediction.

    `astray` is how many connected pieces of the prediction, of at least a tenth of its largest, miss the truth; `others` how many other
    objects of the image it covers by half or more, of what of them is not the truth's.
    """

    id: str
    image: str
    intersection: int
    union: int
    truth: int
    predicted: int
    pixels: int
    astray: int
    others: int

    @property
    def iou(self) -> float:
        """Intersection over union; 0 where both are empty, as in the peers' code."""
        return self.intersection / self.union if self.union else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def check_protocol(protocol: str) -> Protocol:
    """Return a protocol by its name.

    Raises:
        OptionError: there is none of this name.
    """
    found = next((known for known in PROTOCOLS if known == protocol), None)
    if found is None:
        raise OptionError(f"--protocol {protocol}: must be one of {', '.join(PROTOCOLS)}")
    return found


def truth_at(sample: Sample, protocol: Protocol) -> NDArray[np.bool_]:
    """Return a sample's mask at the protocol's size: native, or 480 x 480 by nearest neighbours."""
    return resized_mask(sample.mask, PEER_SIDE) if protocol == "peer" else sample.mask


def mask_at(prediction: Prediction, size: Sequence[int]) -> NDArray[np.bool_]:
    """Return a prediction as a mask (height, width): the object is where the raised logit is above 0; a tie is background.

    Logits are raised as in training, bilinearly and corner on corner; masks by nearest neighbours.
    """
    if isinstance(prediction, Tensor):
        found: NDArray[np.bool_] = (raised(prediction[None, None], size)[0, 0] > 0).cpu().numpy()
        return found
    return prediction if prediction.shape == tuple(size) else resized_mask(prediction, size[0])


def score(samples: Sequence[Sample], predictions: Sequence[Prediction], others: Sequence[Sample], protocol: Protocol) -> list[Scored]:
    """Return the counts of the samples of one image; `others` are all samples of it, from which other objects are known."""
    truths = {sample.id: truth_at(sample, protocol) for sample in others}
    made = []
    for sample, prediction in zip(samples, predictions, strict=True):
        truth = truths[sample.id] if sample.id in truths else truth_at(sample, protocol)
        found = mask_at(prediction, truth.shape)
        common, union = intersection_union(found, truth)
        made.append(
            Scored(
                id=sample.id,
                image=sample.image,
                intersection=common,
                union=union,
                truth=int(np.count_nonzero(truth)),
                predicted=int(np.count_nonzero(found)),
                pixels=truth.size,
                astray=_astray(found, truth),
                others=_others_covered(sample, found, truth, truths),
            )
        )
    return made


def _astray(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> int:
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    areas = statistics[1:count, cv2.CC_STAT_AREA]
    if not len(areas):
        return 0
    hit = np.bincount(labels[truth], minlength=count)[1:count]
    return int(((areas >= 0.1 * areas.max()) & (hit == 0)).sum())


def _others_covered(sample: Sample, found: NDArray[np.bool_], truth: NDArray[np.bool_], truths: Mapping[str, NDArray[np.bool_]]) -> int:
    """Return how many other objects are covered by half; several sentences about one object are one."""
    seen: list[NDArray[np.bool_]] = [truth]
    covered = 0
    for name, other in truths.items():
        if name == sample.id or any(_same(other, before) for before in seen):
            continue
        seen.append(other)
        own = other & ~truth
        apart = 2 * np.count_nonzero(own) >= np.count_nonzero(other)
        covered += apart and 2 * np.count_nonzero(found & own) >= np.count_nonzero(own) > 0
    return int(covered)


def _same(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    common, union = intersection_union(one, other)
    return union > 0 and common * 2 >= union


def stacked(logits: Tensor, height: int, width: int) -> list[Prediction]:
    """Return logits (n, 1, h, w) of a padded image one by one, without what belongs to the padding."""
    return list(torch.unbind(logits[:, 0, : -(-height // 4), : -(-width // 4)]))
