"""Box-promptable mask models of transformers: SAM, SAM-HQ, SAM 2.1, the SAM 3 tracker, and their kin.

They come by folder or by name on the hub, through transformers' own loaders; nothing a repository ships as code is run, and nobody is
asked whether to: at every call transformers is told so, and its question, which a pipe could answer, is switched off besides.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

try:
    import transformers
    from huggingface_hub import constants
    from transformers import dynamic_module_utils
    from transformers.utils import hub
except ImportError as error:
    from risbench.core.errors import missing_extra

    raise missing_extra(error.name or "transformers", "train") from error

from risbench.core.errors import InputError, MissingRequirementError, OptionError
from risbench.sam.predictor import Predicted, SamPrompt

DECODE_BATCH: Final = 64
_REACH_TIMEOUT_S: Final = 10
_STABILITY_OFFSET: Final = 1.0
# The seconds for which transformers would wait for a "y"; at 0 it refuses without asking.
dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
NO_CODE: Final = "brings Python code of its own, which is never run here"
_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def load_hf(name: str, device: str = "cpu") -> tuple[Any, Any, str]:
    """Return (model in evaluation mode on `device`, its processor, sha256 of its weights) for a folder or a hub name.

    Raises:
        InputError: nothing of that name here or on the hub, or not a mask model that takes boxes.
    """
    digest = weights_digest(name)
    try:
        # Single precision: hub files in half would meet pixels in single.
        words: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
        model, report = transformers.AutoModelForMaskGeneration.from_pretrained(name, output_loading_info=True, **words)
        processor: Any = _processor_of(model).from_pretrained(name, trust_remote_code=False)
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        EOFError,
        SafetensorError,
        ImportError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        if wants_code(error):
            raise InputError(f"--checkpoint {name}: {NO_CODE}; give a model that transformers itself has") from None
        raise InputError(f"--checkpoint {name}: transformers cannot load it as a mask model ({_first_line(error)})") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"--checkpoint {name}: {len(missing)} tensors are missing from its file, {missing[0]} first; they would be random")
    broken = next(
        (key for key, value in model.state_dict().items() if value.is_floating_point() and not bool(torch.isfinite(value).all())), None
    )
    if broken is not None:
        raise InputError(f"--checkpoint {name}: {broken} holds values that are not finite numbers; the file is damaged")
    return model.eval().to(device), processor, digest


def wants_code(error: Exception) -> bool:
    """Return whether transformers failed because a folder or a name on the hub would have its own code run."""
    said = str(error)
    return "trust_remote_code" in said or "custom code" in said


def quiet() -> None:
    """Silence what transformers prints: what matters of its warnings is an error of ours."""
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _processor_of(model: Any) -> Any:
    """Return the processor class that takes boxes for a model; a video checkpoint's own configuration names another one."""
    name = type(model).__name__.removesuffix("Model") + "Processor"
    found = getattr(transformers, name, None)
    if found is None:
        raise ValueError(f"this version of transformers has no {name}")
    return found


def is_cached(name: str) -> bool:
    """Return whether weights of this name lie in the hub's cache here."""
    try:
        return any(hub.cached_file(name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False) for file in _WEIGHTS)
    except (OSError, ValueError):
        return False


def hub_trouble() -> str | None:
    """Return why the hub cannot be reached, None where it can: asked once and shortly, as its own client tries for more than a minute."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=_REACH_TIMEOUT_S):
            pass
    except urllib.error.HTTPError:
        pass  # it answers; what it has of a name its own client will say
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


def _reach_hub(name: str) -> None:
    reason = hub_trouble()
    if reason is not None:
        raise MissingRequirementError(
            f"--checkpoint {name}: there is no such folder, and {constants.ENDPOINT} cannot be reached ({reason}); give a folder"
        )


def weights_digest(name: str) -> str:
    """Return the sha256 of the weights in a folder or of a hub name: of the file, or of its shards' in order of name.

    Raises:
        InputError: there are none, or a file was named.
        MissingRequirementError: nothing of that name is here, and the hub cannot be reached.
    """
    quiet()
    place = Path(name)
    if place.is_file():
        raise InputError(
            f"--checkpoint {name}: is a file; --engine hf takes a folder, or a name on the hub; single files go with --engine sam"
        )
    if not place.is_dir() and not constants.HF_HUB_OFFLINE and not is_cached(name):
        _reach_hub(name)
    try:
        found = next(
            (path for file in _WEIGHTS if (path := hub.cached_file(name, file, _raise_exceptions_for_missing_entries=False))), None
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"--checkpoint {name}: neither a folder here nor a model that can be had from the hub ({_first_line(error)})"
        ) from None
    if found is None:
        raise InputError(f"--checkpoint {name}: holds no {' or '.join(_WEIGHTS)}")
    files = [Path(found)]
    if found.endswith(".json"):
        shards = sorted(set(json.loads(Path(found).read_text(encoding="utf-8"))["weight_map"].values()))
        files = [Path(str(hub.cached_file(name, shard))) for shard in shards]
    digests = []
    for file in files:
        with open(file, "rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]


class HfPredictor:
    """A mask model of transformers and the embedding of one image."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        self._device = next(model.parameters()).device
        self._pixels: NDArray[np.uint8] = np.zeros((1, 1, 3), np.uint8)
        self._embeddings: dict[str, Any] = {}

    @torch.inference_mode()
    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Encode an image (height, width, 3), 8-bit RGB."""
        self._pixels = pixels
        inputs = self._processor(images=pixels, return_tensors="pt").to(self._device)
        found = self._model.get_image_embeddings(inputs["pixel_values"])
        if isinstance(found, tuple):  # SAM-HQ's decoder also takes what lies between its encoder's blocks
            self._embeddings = {"image_embeddings": found[0], "intermediate_embeddings": found[1]}
        else:
            self._embeddings = {"image_embeddings": found}

    @torch.inference_mode()
    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted:
        """Return logits at the image's size for prompts with a box, or a polygon, whose extent is the box.

        Raises:
            OptionError: a prompt holds neither.
        """
        boxes = [_box_of(prompt, index) for index, prompt in enumerate(prompts)]
        parts = [self._decode(boxes[start : start + DECODE_BATCH]) for start in range(0, len(boxes), DECODE_BATCH)]
        return Predicted(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _decode(self, boxes: Sequence[list[float]]) -> tuple[Any, Any, Any]:
        inputs = self._processor(images=self._pixels, input_boxes=[list(boxes)], return_tensors="pt")
        given = inputs["input_boxes"].to(self._device, torch.float32)
        out = self._model(input_boxes=given, multimask_output=False, **self._embeddings)
        sizes = [inputs[key] for key in ("original_sizes", "reshaped_input_sizes") if key in inputs]
        masks = self._processor.post_process_masks(out.pred_masks.float().cpu(), *sizes, binarize=False)[0]
        values = masks[:, 0].float()
        wide = (values > -_STABILITY_OFFSET).flatten(1).sum(1).float()
        narrow = (values > _STABILITY_OFFSET).flatten(1).sum(1).float()
        return values.numpy(), out.iou_scores[0, :, 0].float().cpu().numpy(), (narrow / wide.clamp(min=1)).numpy()


def _box_of(prompt: SamPrompt, index: int) -> list[float]:
    if prompt.points or prompt.mask is not None:
        raise OptionError(f"prompt {index}: models of transformers are asked with boxes here, not with points or masks")
    if prompt.box is not None:
        return [float(value) for value in prompt.box]
    if prompt.polygon is None:
        raise OptionError(f"prompt {index}: models of transformers are asked with a box or a polygon")
    corners = np.asarray(prompt.polygon, dtype=np.float64)
    return [float(value) for value in (*corners.min(axis=0), *corners.max(axis=0))]
