// A photograph's pixels as training saw them: upright, centre square, bicubic with antialiasing; then, where the student
// looks at another size than the stored one, bilinear with antialiasing. The filters are those of Pillow and of PyTorch,
// which browsers do not have: their own scaling would give other pixels, and other answers.

const cubic = (x) => {
  const a = -0.5; // Keys, "Cubic convolution interpolation for digital image processing", 1981
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? ((d - 5) * d + 8) * d * a - 4 * a : 0;
};
const triangle = (x) => Math.max(0, 1 - Math.abs(x));
const FILTERS = { cubic: [cubic, 2], triangle: [triangle, 1] };

// For each of `count` outputs over [start, start + length): the first input and the weights, which add up to 1.
function taps(inputs, start, length, count, [filter, radius]) {
  const scale = length / count;
  const stretch = Math.max(scale, 1);
  const shrink = 1 / stretch; // a division would round otherwise than Pillow's multiplication
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - radius * stretch + 0.5));
    const end = Math.min(inputs, Math.trunc(centre + radius * stretch + 0.5));
    const weights = Array.from({ length: end - first }, (_, j) => filter((first + j - centre + 0.5) * shrink));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// How weights are rounded, and sums of weighted pixels: as Pillow does with bytes, in whole numbers of 2^-22; or not at all.
const UNIT = 2 ** 22;
const BYTES = {
  weight: (weight) => Math.trunc(weight * UNIT + (weight < 0 ? -0.5 : 0.5)),
  sum: (sum) => Math.min(255, Math.max(0, Math.floor((sum + UNIT / 2) / UNIT))),
};
const EXACT = { weight: (weight) => weight, sum: (sum) => sum };

// One pass along x or along y. Of the other side only [from, to) is looked at, and is the whole side of what comes out.
// Images are {width, height, data: three numbers a pixel}.
function pass(image, list, alongX, [from, to], rounded) {
  const [size, lines] = [list.length, to - from];
  const [step, nextLine] = alongX ? [3, image.width * 3] : [image.width * 3, 3];
  const data = new Float32Array(size * lines * 3);
  list.forEach(([first, weights], i) => {
    for (let line = 0; line < lines; line++) {
      const out = (alongX ? line * size + i : i * lines + line) * 3;
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        let at = (from + line) * nextLine + first * step + c;
        for (let j = 0; j < weights.length; j++, at += step) sum += weights[j] * image.data[at];
        data[out + c] = rounded.sum(sum);
      }
    }
  });
  return alongX ? { width: size, height: lines, data } : { width: lines, height: size, data };
}

// A square of `image`, by its left, top and side, at `size`. Bytes are rounded after each pass, so it matters which is first.
function resample(image, [left, top, side], size, filter, rounded) {
  const prepared = (inputs, start) => taps(inputs, start, side, size, filter).map(([first, weights]) => [first, weights.map(rounded.weight)]);
  const [x, y] = [prepared(image.width, left), prepared(image.height, top)];
  const used = (list) => [list[0][0], list[size - 1][0] + list[size - 1][1].length];
  const moved = (list) => list.map(([first, weights]) => [first - list[0][0], weights]);
  // Pillow 13 begins with y where the height shrinks by more than twice as many pixels as the width.
  if (image.height - size > 2 * Math.max(0, image.width - size)) {
    return pass(pass(image, y, false, used(x), rounded), moved(x), true, [0, size], rounded);
  }
  return pass(pass(image, x, true, used(y), rounded), moved(y), false, [0, size], rounded);
}

// The centre of an image as training stores it: `stored` pixels a side.
export function square(image, stored) {
  const side = Math.min(image.width, image.height);
  let [left, top] = [(image.width - side) / 2, (image.height - side) / 2];
  if (side === stored) [left, top] = [Math.floor(left), Math.floor(top)];
  return resample(image, [left, top, side], stored, FILTERS.cubic, BYTES);
}

async function decoded(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" }).catch(() => {
    throw new Error("this browser does not read such pictures; the server does");
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // what transparent parts lie over
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    data[to++] = rgba[from];
    data[to++] = rgba[from + 1];
    data[to++] = rgba[from + 2];
  }
  return { width, height, data };
}

// Half to even, as Python rounds.
const rounded = (x) => (x % 1 === 0.5 && Math.floor(x) % 2 === 0 ? Math.floor(x) : Math.round(x));

// A square part of a square image, as an image.
function cut(image, left, top, side) {
  const data = new Float32Array(side * side * 3);
  for (let y = 0; y < side; y++) {
    const from = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + side * 3), y * side * 3);
  }
  return { width: side, height: side, data };
}

// RGB in 0..1, planes, Float32Array [views, 3, size, size]. A view is a square of the stored image: its side, left and top as
// shares of the image's side, whether it is mirrored, and the weight of its answer, which does not matter here.
export async function looks(file, stored, size, views) {
  const image = square(await decoded(file), stored);
  const planes = new Float32Array(views.length * 3 * size * size);
  views.forEach(([share, x0, y0, mirrored], n) => {
    const part = rounded(share * stored);
    let seen = cut(image, rounded(x0 * stored), rounded(y0 * stored), part);
    if (part !== size) seen = resample(seen, [0, 0, part], size, FILTERS.triangle, EXACT);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const to = mirrored ? size - 1 - x : x;
        for (let c = 0; c < 3; c++) planes[((n * 3 + c) * size + y) * size + to] = seen.data[(y * size + x) * 3 + c] / 255;
      }
    }
  });
  return planes;
}
