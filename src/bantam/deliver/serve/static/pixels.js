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
  return Array.from({ length: count }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - radius * stretch + 0.5));
    const end = Math.min(inputs, Math.trunc(centre + radius * stretch + 0.5));
    const weights = Array.from({ length: end - first }, (_, j) => filter((first + j - centre + 0.5) / stretch));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [first, weights.map((weight) => weight / sum)];
  });
}

// `image` is {width, height, data: three numbers a pixel}; `box` is left, top, side; `finish` is applied after each pass.
function resample(image, [left, top, side], size, filter, finish) {
  const across = taps(image.width, left, side, size, filter);
  const down = taps(image.height, top, side, size, filter);
  const middle = new Float32Array(image.height * size * 3);
  const [firstRow, [lastRow, lastWeights]] = [down[0][0], down[size - 1]];
  for (let y = firstRow; y < lastRow + lastWeights.length; y++) {
    for (let x = 0; x < size; x++) {
      const [first, weights] = across[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let j = 0; j < weights.length; j++) sum += weights[j] * image.data[(y * image.width + first + j) * 3 + c];
        middle[(y * size + x) * 3 + c] = finish(sum);
      }
    }
  }
  const data = new Float32Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const [first, weights] = down[y];
    for (let at = 0; at < size * 3; at++) {
      let sum = 0;
      for (let j = 0; j < weights.length; j++) sum += weights[j] * middle[(first + j) * size * 3 + at];
      data[y * size * 3 + at] = finish(sum);
    }
  }
  return { width: size, height: size, data };
}

const toByte = (value) => Math.min(255, Math.max(0, Math.floor(value + 0.5)));

async function decoded(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
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
  const image = await decoded(file);
  const side = Math.min(image.width, image.height);
  let [left, top] = [(image.width - side) / 2, (image.height - side) / 2];
  if (side === stored) [left, top] = [Math.floor(left), Math.floor(top)];
  const square = resample(image, [left, top, side], stored, FILTERS.cubic, toByte);
  const planes = new Float32Array(views.length * 3 * size * size);
  views.forEach(([share, x0, y0, mirrored], n) => {
    const part = rounded(share * stored);
    let seen = cut(square, rounded(x0 * stored), rounded(y0 * stored), part);
    if (part !== size) seen = resample(seen, [0, 0, part], size, FILTERS.triangle, (value) => value);
    for (let y = 0; y < size; y++) {
      for (let x = 0; x < size; x++) {
        const to = mirrored ? size - 1 - x : x;
        for (let c = 0; c < 3; c++) planes[((n * 3 + c) * size + y) * size + to] = seen.data[(y * size + x) * 3 + c] / 255;
      }
    }
  });
  return planes;
}
