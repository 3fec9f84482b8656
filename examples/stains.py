"""One slide in every stain of wsigen, as a picture: python examples/stains.py slide.ome.tiff docs/stains.jpg"""

import sys

from PIL import Image, ImageDraw, ImageFont

from wsigen.base.geometry import Box
from wsigen.slide.reading import open_image
from wsigen.slide.stain import known_stains

SHOWN, EDGE, TEXT, COLUMNS = 480, 8, 26, 3
GLASS = (243, 241, 244)  # of the embedded model


def main(slide: str, output: str) -> None:
    """Stain the left part of a slide that was made without a stain."""
    image = open_image(slide)
    side = min(image.height * 3 // 2, image.width)
    pixels = image.read(0, Box(0, 0, image.height, side))
    height = SHOWN * image.height // side
    names = known_stains()
    size = (COLUMNS * (SHOWN + EDGE) + EDGE, -(-len(names) // COLUMNS) * (height + TEXT) + EDGE)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, stain) in enumerate(names.items()):
        row, column = divmod(place, COLUMNS)
        x, y = EDGE + column * (SHOWN + EDGE), TEXT + row * (height + TEXT)
        picture = Image.fromarray(stain.apply(pixels, GLASS)).resize((SHOWN, height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x, y))
        draw.text((x, y - 21), name, fill="black", font=ImageFont.load_default(16))
    sheet.save(output, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
