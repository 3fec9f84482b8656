// Tiles as they lie in a TIFF: by range requests, or from the whole file where the host answers none.

const WHOLE_BYTES = 256 * 2 ** 20; // a larger file is not fetched whole
const SLOTS = 4096; // numbers of a table of offsets that are fetched at a time

/** A host that sends whole files only, and a file too large for that. */
export class NoRanges extends Error {}

/** A file on a host. */
export class RemoteFile {
  #url;
  #first = null;
  #whole = null;

  constructor(url) {
    this.#url = url;
  }

  /** Bytes of the file, as an ArrayBuffer. The first read finds out whether the host answers ranges. */
  async read(at, size, signal) {
    if (this.#first === null) {
      const first = this.#open(at, size);
      this.#first = first;
      first.catch(() => (this.#first = null)); // asked again next time
      return first;
    }
    await this.#first;
    if (this.#whole) return this.#whole.slice(at, at + size).arrayBuffer();
    const response = await this.#fetch(at, size, signal);
    if (response.status !== 206) throw new Error(`the host answers a range with ${response.status}`);
    return response.arrayBuffer();
  }

  #fetch(at, size, signal) {
    return fetch(this.#url, { headers: { Range: `bytes=${at}-${at + size - 1}` }, signal });
  }

  /** Read for the first time; a host that answers no ranges is sending the file, which is kept if it is small. */
  async #open(at, size) {
    const response = await this.#fetch(at, size);
    if (response.status === 206) return response.arrayBuffer();
    if (!response.ok) throw new Error(`the host answers ${response.status}`);
    if (Number(response.headers.get("Content-Length") ?? Infinity) > WHOLE_BYTES) {
      await response.body.cancel();
      throw new NoRanges();
    }
    this.#whole = await response.blob();
    return this.#whole.slice(at, at + size).arrayBuffer();
  }
}

/** The tiles of a slide whose table is known (`wsigen/viewing/tile_table.py`). */
export class TiffTiles {
  #file;
  #table;
  #blocks = new Map();

  constructor(url, table) {
    this.#file = new RemoteFile(url);
    this.#table = table;
  }

  /** A decoded tile; level 0 is the finest. */
  async tile(level, row, column, signal) {
    const index = row * this.#table.levels[level].across + column;
    const [at, size] = await Promise.all([this.#number(level, "offsets", index), this.#number(level, "counts", index)]);
    if (!size) return createImageBitmap(white(this.#table.tile)); // not scanned: the file holds nothing there
    return this.#decode(await this.#file.read(at, size, signal));
  }

  /** Whether the host can be used at all. */
  async ready() {
    await this.#number(this.#table.levels.length - 1, "offsets", 0);
  }

  async #number(level, name, index) {
    const block = Math.floor(index / SLOTS);
    const key = `${level}/${name}/${block}`;
    if (!this.#blocks.has(key)) {
      const numbers = this.#numbers(this.#table.levels[level], name, block);
      numbers.catch(() => this.#blocks.delete(key)); // asked again next time
      this.#blocks.set(key, numbers);
    }
    return (await this.#blocks.get(key))[index % SLOTS];
  }

  /** A block of the table; its numbers are 2, 4 or 8 bytes each. */
  async #numbers(level, name, block) {
    const [at, bytes] = level[name];
    const first = block * SLOTS;
    const count = Math.min(SLOTS, level.across * level.down - first);
    const view = new DataView(await this.#file.read(at + first * bytes, count * bytes));
    const { little } = this.#table;
    return Float64Array.from({ length: count }, (_, i) => {
      if (bytes === 8) return Number(view.getBigUint64(8 * i, little));
      return bytes === 4 ? view.getUint32(4 * i, little) : view.getUint16(2 * i, little);
    });
  }

  async #decode(bytes) {
    if (this.#table.compression === "jpeg") {
      return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
    }
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const rgb = new Uint8Array(await new Response(stream).arrayBuffer());
    return createImageBitmap(toImage(rgb, this.#table.tile, this.#table.differences));
  }
}

function white(side) {
  const image = new ImageData(side, side);
  image.data.fill(255);
  return image;
}

/** RGB of a square tile to an image; differences along a row are added up first. */
function toImage(rgb, side, differences) {
  const image = new ImageData(side, side);
  const out = image.data;
  for (let row = 0, from = 0, to = 0; row < side; row++) {
    let red = 0, green = 0, blue = 0;
    for (let column = 0; column < side; column++, from += 3, to += 4) {
      red = differences ? (red + rgb[from]) & 255 : rgb[from];
      green = differences ? (green + rgb[from + 1]) & 255 : rgb[from + 1];
      blue = differences ? (blue + rgb[from + 2]) & 255 : rgb[from + 2];
      out[to] = red;
      out[to + 1] = green;
      out[to + 2] = blue;
      out[to + 3] = 255;
    }
  }
  return image;
}

/** What OpenSeadragon shows: the tiles of the file, tiles made by the server, or the picture alone. */
export async function tileSource(record) {
  const { width, height } = record;
  if (record.table) {
    const tiles = new TiffTiles(record.file, record.table);
    try {
      await tiles.ready();
    } catch (error) {
      if (!(error instanceof NoRanges)) throw error;
      return { source: pictureOf(record), limited: "This host sends whole files only, and the slide is larger than 256 MB: "
        + "only its picture is shown. 'wsigen view', buckets, nginx and Apache send ranges." };
    }
    const last = record.table.levels.length - 1;
    const fetchTile = (level, y, x, signal) => tiles.tile(last - level, y, x, signal);
    return { source: custom(width, height, record.table.tile, last, record.file, fetchTile) };
  }
  if (record.served) {
    const { url, tile, levels } = record.served;
    const fetchTile = async (level, y, x, signal) => {
      const response = await fetch(`${url}${levels - 1 - level}/${y}/${x}`, { signal });
      if (!response.ok) throw new Error((await response.text()).slice(0, 300));
      return createImageBitmap(await response.blob(), { colorSpaceConversion: "none" });
    };
    return { source: custom(width, height, tile, levels - 1, url, fetchTile) };
  }
  return { source: pictureOf(record), limited: "Browsers cannot decode the tiles of this slide: only its picture is shown. "
    + "'wsigen view' shows all of it." };
}

function pictureOf(record) {
  return { type: "image", url: record.picture };
}

function custom(width, height, tileSize, maxLevel, name, fetchTile) {
  return {
    width,
    height,
    tileSize,
    minLevel: 0,
    maxLevel,
    getTileUrl: (level, x, y) => `${name}#${level}/${y}/${x}`,
    downloadTileStart(job) {
      const aborted = new AbortController();
      job.userData.aborted = aborted;
      const { level, x, y } = job.tile;
      fetchTile(level, y, x, aborted.signal).then(
        (bitmap) => job.finish(bitmap, null, "imageBitmap"),
        (error) => job.fail(String(error.message ?? error), null),
      );
    },
    downloadTileAbort: (job) => job.userData.aborted?.abort(),
  };
}
