"""``python -m benchmarks.consistency``: ways to keep a fine level true to the coarse one, on single windows.

A window of a real slide is drawn again at the model's finest level: the slide's own picture at a coarser um/px is enlarged,
encoded, noised to half of the noise (ZoomLDM's t = 500) and denoised, told the slide's grid if the model follows one.

* *none*: nothing but this start ties the levels.
* *picture*: the decoded picture is corrected, ``x + up(G - down(x))``, where G is the coarse picture. No passes, no calls.
* *pixels*: in some of the last steps the estimate is corrected, ``x0 <- E(D(x0) + up(G - down(D(x0))))``. Two
  passes of the autoencoder each, no model call.
* *Newton*: ZoomLDM's joint sampling (supplement; its released notebook), bounded to two corrections of the state in each of
  those steps: the residual goes through the autoencoder and the network by finite differences.

Measured of each: by how many grey levels the result, shrunk, differs from the coarse picture; KID against the real windows;
model calls and passes of the autoencoder for a window; CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.document import show, table
from wsigen.base.errors import ImageError
from wsigen.base.geometry import Box

if TYPE_CHECKING:
    from wsigen.models.model import Model

COMMAND = "python -m benchmarks.consistency"
METHODS = (("none", 0), ("picture", 0), ("pixels", 1), ("pixels", 4), ("Newton", 4))
"""And how many steps before the last are corrected."""
ROUNDS = 2
"""Newton's corrections in each of them."""

PROBE = 0.005
"""Length of the finite differences, of the released code."""

DAMPING = 0.5
"""Of a correction of the state, of the released code."""

Array = NDArray[np.float32]


@dataclass(slots=True)
class Cost:
    """What a window took."""

    calls: int = 0
    passes: int = 0
    cpu_s: float = 0.0


@dataclass(slots=True)
class Window:
    """A place of a slide: its pixels, the coarse picture of it, and its grid.

    Attributes
    ----------
    real, coarse : float32 (h, w, 3), grey levels
    grid : float32 (D + 1, p, p) or None
    """

    real: Array
    coarse: Array
    grid: Array | None


@dataclass(slots=True)
class Sampler:
    """Draws a window at the finest level, in one of the `METHODS`."""

    model: Model
    vae: Any
    ratio: int
    steps: int
    corrected_steps: int
    cost: Cost = field(default_factory=Cost)

    def draw(self, window: Window, method: str, seed: int) -> Array:
        """The pixels of a window drawn anew, float32 (h, w, 3)."""
        from wsigen.sampling.schedule import add_noise, ddim_step, make_schedule

        begin = process_time()
        schedule = make_schedule(self.model.abar, self.steps, 0.5)
        up = enlarged(window.coarse, self.ratio)
        latents = self.encode(up)
        noise = np.random.default_rng(seed).standard_normal(latents.shape, dtype=np.float32)
        x = add_noise(latents, noise, schedule.abar[0])
        for step in range(schedule.steps):
            now, then, t = schedule.abar[step], schedule.abar[step + 1], schedule.timesteps[step]
            x0 = self.estimate(x, t, now, window.grid)
            if schedule.steps - 1 - self.corrected_steps <= step < schedule.steps - 1:
                if method == "pixels":
                    x0 = self.encode(self.corrected(self.decode(x0), window.coarse))
                elif method == "Newton":
                    x, x0 = self._newton(x, x0, t, now, window)
            x = ddim_step(x, x0, now, then)
        self.cost.cpu_s += process_time() - begin
        made = self.decode(x)
        return self.corrected(made, window.coarse) if method == "picture" else made

    def corrected(self, rgb: Array, coarse: Array) -> Array:
        """A picture that is brought near the coarse one: cubic enlargement leaves a part of what changes from px to px."""
        return np.clip(rgb + enlarged(coarse - shrunk(rgb, self.ratio), self.ratio), 0, 255).astype(np.float32)

    def _newton(self, x: Array, x0: Array, t: int, abar: float, window: Window) -> tuple[Array, Array]:
        for _ in range(ROUNDS):
            rgb = self.decode(x0)
            residual = unit(enlarged(window.coarse - shrunk(rgb, self.ratio), self.ratio))
            towards = unit(self.encode(rgb + 127.5 * PROBE * residual) - self.encode(rgb))
            change = unit((self.estimate(x + PROBE * towards, t, abar, window.grid) - x0) / PROBE)
            x = x + np.float32(DAMPING) * change
            x0 = self.estimate(x, t, abar, window.grid)
        return x, x0

    def estimate(self, x: Array, t: int, abar: float, grid: Array | None) -> Array:
        """The network's clean latents, (C, p, p)."""
        from wsigen.base.classes import UNKNOWN
        from wsigen.models.conditioning import NULL, Condition
        from wsigen.sampling.schedule import predict_x0

        self.cost.calls += 1
        unknown = np.full(x.shape[1:], UNKNOWN, dtype=np.uint8)
        told = NULL if grid is None else Condition(class_map=unknown, grid=grid)
        prediction = self.model.predict(x[None], t, [told], 0)[0]
        return predict_x0(prediction, x, abar, self.model.prediction_type, self.model.clip)

    def encode(self, rgb: Array) -> Array:
        """Standardised latents of a picture."""
        import torch

        self.cost.passes += 1
        with torch.no_grad():
            made = self.vae.encode(torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(127.5) - 1)).latent_dist.mode()
        mean, std = self._scale
        return np.asarray((made[0].numpy() - mean) / std, dtype=np.float32)

    def decode(self, latents: Array) -> Array:
        """The picture of standardised latents, grey levels."""
        import torch

        self.cost.passes += 1
        mean, std = self._scale
        with torch.no_grad():
            rgb = self.vae.decode(torch.from_numpy(latents * std + mean)[None]).sample[0].numpy()
        return np.asarray(np.clip((rgb.transpose(1, 2, 0) + 1) * 127.5, 0, 255), dtype=np.float32)

    @property
    def _scale(self) -> tuple[Array, Array]:
        latent = self.model.card.latent
        mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (latent.mean, latent.std))
        return mean, std


def enlarged(picture: Array, ratio: int) -> Array:
    """A picture enlarged by cubic interpolation, float32."""
    from wsigen.slide.resample import taps, weighted

    height, width = picture.shape[0] * ratio, picture.shape[1] * ratio
    return np.asarray(
        weighted(picture, taps(0, height, height, picture.shape[0]), taps(0, width, width, picture.shape[1])), np.float32
    )


def shrunk(picture: Array, ratio: int) -> Array:
    """The area means of a picture."""
    height, width = picture.shape[0] // ratio, picture.shape[1] // ratio
    return picture.reshape(height, ratio, width, ratio, 3).mean(axis=(1, 3))


def unit(values: Array) -> Array:
    """Values over the largest of them."""
    return values / np.float32(max(float(np.abs(values).max()), 1e-12))


def windows_of(slide: Path, model: Model, ratio: int, count: int, seed: int) -> list[Window]:
    """Places of a slide that show tissue, drawn at random, at the model's finest um/px."""
    from wsigen.grids.mean_colour import mean_colours
    from wsigen.slide.reading import open_image

    card = model.card
    image, side, f = open_image(slide), model.card.crop_latent * model.card.latent.factor, model.card.latent.factor
    scale = (card.levels[0].mpp or 1.0) / (image.mpp or card.levels[0].mpp or 1.0)
    size = round(image.height / scale), round(image.width / scale)
    rng = np.random.default_rng(seed)
    found: list[Window] = []
    for _ in range(100 * count):
        y, x = (int(rng.integers(max(1, extent - side))) for extent in size)
        rgb = image.region(Box(y, x, y + side, x + side), size)
        if len(found) == count:
            break
        if rgb.mean() > 215:
            continue
        real = rgb.astype(np.float32)
        grid = None
        if card.grid is not None:
            cells = mean_colours(rgb[None], f)[0]
            mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (card.grid.mean, card.grid.std))
            grid = np.concatenate([(cells - mean) / std, np.ones_like(cells[:1])])
        found.append(Window(real, shrunk(real, ratio), grid))
    if not found:
        raise ImageError(f"{slide}: shows no tissue in windows of {side} px; give another slide")
    return found


def measure(
    model: Model, vae: Any, windows: list[Window], ratio: int, steps: int, say: Callable[[str], None]
) -> list[list[Any]]:
    """A row of the table for each method, without and with the grid."""
    from wsigen.evaluation.fidelity import kernel_distance
    from wsigen.models.extractors.extractors import open_extractor

    extractor = open_extractor("imagenet")
    real = extractor.features(_tiles([w.real for w in windows]))
    rows = []
    for told in (False, True) if windows[0].grid is not None else (False,):
        for method, corrected in METHODS:
            sampler, made, apart = Sampler(model, vae, ratio, steps, corrected), [], []
            for seed, window in enumerate(windows):
                used = window if told else Window(window.real, window.coarse, None)
                made.append(sampler.draw(used, method, seed))
                apart.append(float(np.abs(shrunk(made[-1], ratio) - window.coarse).mean()))
            kid, deviation = kernel_distance(real, extractor.features(_tiles(made)))
            cost, n = sampler.cost, len(windows)
            name = f"{method}, {corrected} steps" if corrected else method
            far = f"{np.mean(apart):.2f}", f"{1000 * kid:.1f} ± {1000 * deviation:.1f}"
            spent = f"{cost.calls / n:.0f}", f"{cost.passes / n:.0f}", f"{cost.cpu_s / n:.1f}"
            rows.append(["yes" if told else "no", name, *far, *spent])
            say(" | ".join(map(str, rows[-1])))
    return rows


def _tiles(pictures: list[Array]) -> NDArray[np.uint8]:
    """Quarters of pictures, uint8 (n, h / 2, w / 2, 3)."""
    half = pictures[0].shape[0] // 2
    cut = [p[y : y + half, x : x + half] for p in pictures for y in (0, half) for x in (0, half)]
    return np.rint(np.stack(cut)).astype(np.uint8)


def main() -> int:
    """Draw, measure, print; 1 if something is wrong with what was given."""
    args = _arguments()
    return show(COMMAND, lambda: _run(args), args.document)


def _run(args: argparse.Namespace) -> str:
    from diffusers import AutoencoderKL

    from wsigen.models.bundle import find_bundle
    from wsigen.models.model import load_model

    folder = find_bundle(args.model)
    model = load_model(folder)
    vae = AutoencoderKL.from_pretrained(str(folder / "vae"), use_safetensors=True).float().eval()  # never a pickle
    windows = windows_of(args.slide, model, args.ratio, args.windows, 0)
    rows = measure(model, vae, windows, args.ratio, args.steps, lambda line: print(line, file=sys.stderr, flush=True))
    head = ["told the grid", "method", "grey levels from the coarse picture", "KID x 1000", "calls", "passes", "CPU s"]
    side = windows[0].real.shape[0]
    what = (
        f"{len(windows)} windows of {side} px of `{args.slide.name}`, guided by pictures of {side // args.ratio} px, "
        f"{args.steps} steps at strength 1, model `{args.model}`, KID of quarters with `imagenet`"
    )
    return f"{what}:\n\n{table(head, rows)}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slide", type=Path, required=True, help="a real slide that the model has not seen")
    parser.add_argument("--model", default="default", help="bundle (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=24, help="default: %(default)s")
    parser.add_argument(
        "--ratio", type=int, default=4, help="um/px of the coarse picture over the fine one's (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--document", type=Path, metavar="FILE", help="rewrite the table in this document")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
