// Runs the page's own pixels.js on pictures in a file: node squares.mjs PIXELS.JS LIST.JSON PICTURES OUT
// LIST.JSON has [width, height, stored] of each; PICTURES their RGB bytes, one behind the other; OUT gets the squares' bytes.

import { readFileSync, writeFileSync } from "node:fs";

const [script, list, pictures, out] = process.argv.slice(2);
// By its text, since a file named .js is no module to node.
const { square } = await import(`data:text/javascript;base64,${readFileSync(script).toString("base64")}`);
const bytes = readFileSync(pictures);
let at = 0;
const squares = JSON.parse(readFileSync(list, "utf8")).map(([width, height, stored]) => {
  const data = bytes.subarray(at, at + width * height * 3);
  at += data.length;
  const seen = square({ width, height, data }, stored);
  if (seen.width !== stored || seen.height !== stored) throw new Error(`${seen.width} x ${seen.height} for ${stored}`);
  return Buffer.from(Uint8Array.from(seen.data));
});
writeFileSync(out, Buffer.concat(squares));
