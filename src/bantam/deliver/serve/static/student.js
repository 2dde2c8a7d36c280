// The student in this browser, by ONNX Runtime Web: its two files are served from here, nothing comes from elsewhere.

import { looks } from "/static/pixels.js";

let loading = null;

async function load() {
  const ort = await import("/static/ort/ort.wasm.bundle.min.mjs");
  ort.env.wasm.numThreads = 1; // more need headers that forbid much else, and the net is too small to gain by them
  ort.env.wasm.wasmPaths = { wasm: "/static/ort/ort-wasm-simd-threaded.wasm" };
  const answer = await fetch("/api/student.onnx");
  if (!answer.ok) throw new Error((await answer.json()).error);
  const session = await ort.InferenceSession.create(await answer.arrayBuffer());
  return { ort, session };
}

function logSoftmax(logits) {
  const largest = Math.max(...logits);
  const log = Math.log(logits.reduce((sum, value) => sum + Math.exp(value - largest), 0)) + largest;
  return logits.map((value) => value - log);
}

// Probabilities of the file's classes, with the milliseconds of decoding and of the net.
export async function classify(file, { stored, size, views }) {
  loading ??= load();
  loading.catch(() => { loading = null; }); // so that the next photograph tries again
  const first = !loading.warm;
  const { ort, session } = await loading;
  const began = performance.now();
  const planes = await looks(file, stored, size, views);
  const count = views.length;
  const input = { [session.inputNames[0]]: new ort.Tensor("float32", planes, [count, 3, size, size]) };
  if (first) await session.run(input); // the first run makes its plans, and its time says nothing
  loading.warm = true;
  const decoded = performance.now();
  const logits = (await session.run(input))[session.outputNames[0]];
  const ended = performance.now();
  const classes = logits.data.length / count;
  const rows = Array.from({ length: count }, (_, n) => logSoftmax(Array.from(logits.data.slice(n * classes, (n + 1) * classes))));
  const mean = rows[0].map((_, k) => rows.reduce((sum, row, n) => sum + views[n][4] * row[k], 0));
  return { probabilities: logSoftmax(mean).map(Math.exp), decode_ms: decoded - began, ms: ended - decoded };
}
