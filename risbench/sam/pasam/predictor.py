"""PA-SAM on any encoder of the family: its files, and its predictor.

Source: Xie et al. 2024 (arXiv 2401.13051). Files that can be given: Meta's SAM, SAM's decoder alone, the published PA decoder, and
the published merged file, which carries both decoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import PromptEncoder, Sam
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's name for it

from risbench.core.errors import InputError, OptionError
from risbench.sam.compact.model import PIXEL_MEAN, PIXEL_STD
from risbench.sam.pasam.adapter import EdgeSource
from risbench.sam.pasam.decoder import PaDecoder, PaOutput, point_codes_of
from risbench.sam.predictor import Predicted, SamPrompt
from risbench.sam.weights import build_sam, read_state, resized

DECODE_BATCH: Final = 32
_STABILITY_OFFSET: Final = 1.0
_PREFIX: Final = "mask_decoder."
# SAM's own decoder in the published merged file.
_ORIGINAL: Final = "mask_decoder_ori."
Resize = Literal["squash", "pad"]


class PaSam(nn.Module):
    """An image encoder, a prompt encoder and the PA decoder; attribute names are SAM's.

    `plain_decoder` is the decoder that SAM had before, where a file holds it: what the adapter is compared with. `is_new` says that the
    adapter has not learnt anything yet.
    """

    def __init__(self, image_encoder: nn.Module, prompt_encoder: PromptEncoder, mask_decoder: PaDecoder) -> None:
        super().__init__()
        self.image_encoder, self.prompt_encoder, self.mask_decoder = image_encoder, prompt_encoder, mask_decoder
        self.plain_decoder: PaDecoder | None = None
        self.is_new = False

    @property
    def side(self) -> int:
        """The input's side in pixels."""
        return int(self.prompt_encoder.input_image_size[0])


def load_pasam(
    checkpoint: Path | str,
    decoder: Path | str | None = None,
    device: str = "cpu",
    *,
    image_side: int | None = None,
    edge_source: EdgeSource | None = None,
    fresh: bool = False,
) -> tuple[PaSam, str]:
    """Return (PA-SAM in evaluation mode on `device`, sha256 of the file that holds its adapter).

    Args:
        checkpoint: Meta's SAM or MobileSAM, or PA-SAM's merged file.
        decoder: a PA decoder, or SAM's decoder alone, in place of the checkpoint's own.
        device: where to put the model.
        image_side: another input size in pixels, a multiple of 16.
        edge_source: what the edges are taken from; None is "official" for an adapter in a file, as the published ones learnt with
            that, and "pixels" for a new one.
        fresh: give a SAM without adapter a new one, for training.

    Raises:
        InputError: a file cannot be used, holds other tensors, or holds no adapter and `fresh` is off.
    """
    state, digest = read_state(checkpoint)
    before = _without(_ORIGINAL, state) or (_without(_PREFIX, state) if decoder is not None or fresh else {})
    before = {key: value for key, value in before.items() if not key.startswith(("guiding_conv.", "prompt_adapter."))}
    state = {key: value for key, value in state.items() if not key.startswith(_ORIGINAL)}
    where = str(checkpoint)
    if decoder is not None:
        alone, digest = read_state(decoder)
        alone = {key.removeprefix(_PREFIX): value for key, value in alone.items()}
        if "mask_tokens.weight" not in alone:
            raise InputError(f"--checkpoint {decoder}: not a SAM decoder: mask_tokens.weight is missing")
        state = {key: value for key, value in state.items() if not key.startswith(_PREFIX)}
        state |= {_PREFIX + key: value for key, value in alone.items()}
        where = str(decoder)
    if image_side is not None and any(key.startswith("image_encoder.blocks.") for key in state):
        state = resized(state, image_side, str(checkpoint))
    plain: Sam = build_sam(state, str(checkpoint), image_side)
    is_new = not any(key.startswith(_PREFIX + "prompt_adapter.") for key in state)
    model = PaSam(plain.image_encoder, plain.prompt_encoder, PaDecoder(edge_source=edge_source or ("pixels" if is_new else "official")))
    model.is_new = is_new
    if is_new:
        if not fresh:
            raise InputError(f"--checkpoint {where}: holds no prompt adapter, so it is plain SAM: use --engine sam, or give a PA decoder")
        state |= _own(model, ("guiding_conv.", "prompt_adapter."))
    try:
        model.load_state_dict(state, strict=True)
        if before:
            plain_decoder = PaDecoder(adapted=False)
            plain_decoder.load_state_dict(before, strict=True)
            model.plain_decoder = plain_decoder
    except RuntimeError as error:
        raise InputError(f"--checkpoint {where}: {' '.join(str(error).split())[:400]}") from None
    return model.eval().to(device), digest


def _without(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _own(model: PaSam, starts: tuple[str, ...]) -> Mapping[str, Tensor]:
    names = tuple(_PREFIX + start for start in starts)
    return {key: value for key, value in model.state_dict().items() if key.startswith(names)}


def scaled_size(size: tuple[int, int], side: int, resize: Resize) -> tuple[int, int]:
    """Return the height and width that an image of a size is brought to in an input of `side` pixels."""
    if resize == "squash":
        return (side, side)
    scale = side / max(size)
    return (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))


def normalised(pixels: NDArray[np.uint8], side: int, device: str, resize: Resize = "squash") -> tuple[Tensor, Tensor]:
    """Return an image (height, width, 3) as the model's input (1, 3, S, S), normalised, and the same in 0-255; zeros beyond it."""
    rows, columns = scaled_size((int(pixels.shape[0]), int(pixels.shape[1])), side, resize)
    raw = torch.as_tensor(np.require(pixels, requirements=["C", "W"]), device=device).permute(2, 0, 1)[None].float()
    raw = F.interpolate(raw, (rows, columns), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    beyond = (0, side - columns, 0, side - rows)
    return F.pad((raw - mean) / std, beyond), F.pad(raw, beyond)


class PasamPredictor:
    """PA-SAM and the embedding of one image; all prompts of an image are decoded together.

    `squash` brings every image to the input's square, as the published code does; `pad` keeps its shape, as SAM does.
    With `adapter` off it is plain SAM: with the decoder that SAM had before where the model holds it, else with PA-SAM's, which has
    other mask tokens, upscaling and hypernetworks. `beside` another predictor of the model it uses that one's embedding.
    """

    def __init__(self, model: PaSam, resize: Resize = "squash", *, adapter: bool = True, beside: PasamPredictor | None = None) -> None:
        if resize not in ("squash", "pad"):
            raise OptionError(f"resize {resize}: must be squash or pad")
        self._model, self._resize, self._adapter, self._beside = model, resize, adapter, beside
        self._decoder = model.mask_decoder if adapter or model.plain_decoder is None else model.plain_decoder
        self._size = (0, 0)
        self._scaled = (0, 0)
        self._embedding: Tensor | None = None
        self._guide: Tensor | None = None

    @torch.inference_mode()
    def load(self, pixels: NDArray[np.uint8]) -> None:
        """Encode an image (height, width, 3), 8-bit RGB, and what the adapter looks at."""
        if self._beside is not None:
            self._size, self._scaled, self._embedding = self._beside._size, self._beside._scaled, self._beside._embedding
            self._guide = self._beside._guide if self._adapter else None
            return
        model, side = self._model, self._model.side
        height, width = int(pixels.shape[0]), int(pixels.shape[1])
        self._size, self._scaled = (height, width), scaled_size((height, width), side, self._resize)
        image, raw = normalised(pixels, side, str(next(model.parameters()).device), self._resize)
        embedding: Tensor = model.image_encoder(image)
        self._embedding = embedding
        grid = (embedding.shape[2], embedding.shape[3])
        self._guide = model.mask_decoder.guide(image, grid, raw) if self._adapter else None

    def predict(self, prompts: Sequence[SamPrompt]) -> Predicted:
        """Return logits at the image's size, in the prompts' order; a polygon is taken for the box around it.

        Raises:
            OptionError: a prompt holds neither box, polygon nor points.
        """
        height, width = self._size
        logits, scores = np.zeros((len(prompts), height, width), np.float32), np.zeros((len(prompts), 3), np.float32)
        kinds = []
        for number, prompt in enumerate(prompts):
            if prompt.box is None and prompt.polygon is None and not prompt.points:
                raise OptionError(f"prompt {number}: must hold a box, a polygon or a point")
            kinds.append((len(prompt.points), prompt.box is not None or prompt.polygon is not None))
        # prompts of one batch have tokens alike; padding without a mask would change the answers
        for kind in sorted(set(kinds)):
            members = [index for index, other in enumerate(kinds) if other == kind]
            for start in range(0, len(members), DECODE_BATCH):
                chosen = members[start : start + DECODE_BATCH]
                logits[chosen], scores[chosen] = self._decode([prompts[index] for index in chosen])
        return Predicted(logits, scores[:, 0], scores[:, 1], scores[:, 2] if self._adapter else None)

    @torch.inference_mode()
    def _decode(self, prompts: Sequence[SamPrompt]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self._embedding is not None, "load comes first"
        model, device = self._model, self._embedding.device
        ratio = np.array([self._scaled[1] / self._size[1], self._scaled[0] / self._size[0]])
        boxes = points = None
        if prompts[0].box is not None or prompts[0].polygon is not None:
            given = np.array([_box_of(prompt) for prompt in prompts]) * np.concatenate([ratio, ratio])
            boxes = torch.as_tensor(given, dtype=torch.float32, device=device)
        if prompts[0].points:
            every = np.array([prompt.points for prompt in prompts], dtype=np.float64)
            places = torch.as_tensor(every[..., :2] * ratio, dtype=torch.float32, device=device)
            points = (places, torch.as_tensor(every[..., 2], dtype=torch.float32, device=device))
        sparse, dense = model.prompt_encoder(points=points, boxes=boxes, masks=None)
        index = torch.zeros(len(prompts), dtype=torch.int64, device=device)
        codes = point_codes_of(model.prompt_encoder)
        found: PaOutput = self._decoder.decode(
            self._embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, index, self._guide, codes
        )
        values = found.masks[:, :1].float()
        if self._resize == "pad":
            side = model.side
            values = F.interpolate(values, (side, side), mode="bilinear", align_corners=False)[..., : self._scaled[0], : self._scaled[1]]
        values = F.interpolate(values, self._size, mode="bilinear", align_corners=False)[:, 0]
        wide, narrow = ((values > level).flatten(1).sum(1).float() for level in (-_STABILITY_OFFSET, _STABILITY_OFFSET))
        scores = torch.stack([found.iou[:, 0].float(), narrow / wide.clamp(min=1), found.uncertainty()], dim=1)
        return values.cpu().numpy(), scores.cpu().numpy()


def _box_of(prompt: SamPrompt) -> tuple[float, float, float, float]:
    if prompt.box is not None:
        return prompt.box
    corners = np.asarray(prompt.polygon, dtype=np.float64)
    (x_min, y_min), (x_max, y_max) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return (x_min, y_min, x_max, y_max)
