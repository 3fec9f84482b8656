"""A place of a slide made anew, before and after, as a picture: python examples/editing.py FOLDER PICTURE.jpg

Slide, drawing and edited slide are left in the folder.
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import wsigen
from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image

SIZE, STEPS, EDGE, TEXT = (1024, 768), 16, 8, 26
OUTLINE = [(330, 250), (470, 190), (640, 215), (735, 330), (700, 490), (560, 580), (400, 545), (310, 420)]


def main(folder: str, output: str) -> None:
    """Make a slide of stroma, and tumour in its middle."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    slide, edited, regions = home / "slide.ome.tiff", home / "edited.ome.tiff", home / "drawn.geojson"
    geometry = {"type": "Polygon", "coordinates": [[*OUTLINE, OUTLINE[0]]]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "Tumor"}}}
    regions.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}), encoding="utf-8")
    if not slide.exists():
        wsigen.generate(slide, class_name="Stroma", size=SIZE, seed=3, steps=STEPS, progress=True)
    wsigen.edit(slide, edited, regions=regions, seed=1, steps=STEPS, overwrite=True, progress=True)
    sheet = Image.new("RGB", (2 * (SIZE[0] + EDGE) + EDGE, SIZE[1] + TEXT + EDGE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (path, title) in enumerate(((slide, "before, with the region that was drawn"), (edited, "after"))):
        x = EDGE + column * (SIZE[0] + EDGE)
        sheet.paste(Image.fromarray(open_image(path).read(0, Box(0, 0, SIZE[1], SIZE[0]))), (x, TEXT))
        draw.text((x, TEXT - 22), title, fill="black", font=ImageFont.load_default(16))
    corners = [(EDGE + x, TEXT + y) for x, y in OUTLINE]
    for width, colour in ((5, "white"), (3, (200, 0, 0))):
        draw.line([*corners, corners[0]], fill=colour, width=width, joint="curve")
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4), Image.Resampling.LANCZOS).save(output, quality=85)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("python examples/editing.py FOLDER PICTURE.jpg")
    main(*sys.argv[1:])
