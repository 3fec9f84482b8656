"""Pictures for tests of the metrics: stained noise on glass, and pyramids of them."""

import numpy as np
from PIL import Image
from scipy import ndimage


def texture(height, width, seed, sigma=1.0, contrast=18.0, colour=(205, 140, 180)):
    """Smooth stained noise, uint8 [h, w, 3], pink like eosin."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (sigma, sigma, 0))
    noise = noise / noise.std() * contrast
    return np.clip(np.rint(noise + np.array(colour)), 0, 255).astype(np.uint8)


def slide_with_tissue(height=600, width=800, seed=0, box=(100, 150, 450, 600)):
    """Glass with one rectangle of tissue (y0, x0, y1, x1)."""
    out = np.full((height, width, 3), 243, np.uint8)
    y0, x0, y1, x1 = box
    out[y0:y1, x0:x1] = texture(y1 - y0, x1 - x0, seed)
    return out


def save(path, pixels, mpp=None):
    """Write a TIFF with its resolution, or any other picture without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in {".tif", ".tiff"}:
        import tifffile

        resolution = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(
            path, pixels, photometric="rgb", tile=(256, 256), compression="adobe_deflate", metadata=None, **resolution
        )
    else:
        Image.fromarray(pixels).save(path)
    return path
