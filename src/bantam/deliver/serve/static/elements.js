// Small pieces of the page: elements, percentages, bars, charts.

export const at = (id) => document.getElementById(id);
export const percent = (share) => `${(100 * share).toFixed(1)}%`;
export const time = (ms) => (ms < 10 ? `${ms.toFixed(1)}\u00a0ms` : ms < 10000 ? `${Math.round(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const SHOWN = 6; // classes shown at once; the others can be folded out

// Classes with their probabilities as bars, in `order`, so that cards side by side can be compared row by row.
export function bars(classes, probabilities, order) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  const row = (k) => element("li", k === best ? { class: "best" } : {},
    element("span", { class: "name" }, classes[k]),
    element("span", { class: "share" }, percent(probabilities[k])),
    drawn("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { class: "track", width: 100, height: 4 }),
      drawn("rect", { class: "fill", width: 100 * probabilities[k], height: 4 })));
  const parts = [element("ul", { class: "bars" }, ...order.slice(0, SHOWN).map(row))];
  if (order.length > SHOWN) {
    parts.push(element("details", {}, element("summary", {}, `${order.length - SHOWN} more classes`),
      element("ul", { class: "bars" }, ...order.slice(SHOWN).map(row))));
  }
  return parts;
}

// Round numbers from `low` to `high`, about `count` of them: steps of 1, 2 or 5 times a power of ten.
export function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const times = rough / power; // the nearest, by ratio
  const step = power * (times < Math.sqrt(2) ? 1 : times < Math.sqrt(10) ? 2 : times < Math.sqrt(50) ? 5 : 10);
  const first = Math.ceil(low / step - 1e-9);
  const numbers = Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return numbers.map((number) => Number(number.toFixed(digits)));
}

// The epochs that an axis names: round ones, and the last.
export function epochTicks(total) {
  const step = total < 6 ? 1 : Math.max(1, ticks(0, total, 5)[1]);
  const round = Array.from({ length: Math.floor(total / step) }, (_, n) => (n + 1) * step);
  const rest = total - (round.at(-1) ?? 0);
  if (rest) { // the last one is named in place of a round one that stands too near
    if (round.length > 1 && rest < step / 2) round.pop();
    round.push(total);
  }
  return round[0] > 1 ? [1, ...round] : round;
}

// A line over epochs, with its standard error as a band where `errors` are given.
export function chart({ title, kind, epochs, values, errors, total, format, from }) {
  const [width, height, left, bottom, top, right] = [420, 220, 44, 26, 10, 12];
  const spread = errors ?? values.map(() => 0);
  const least = from ?? Math.min(...values.map((v, i) => v - spread[i]));
  const most = Math.max(...values.map((v, i) => v + spread[i]), least + 1e-6);
  const [low, high] = [least, most + (most - least) * 0.02];
  const x = (epoch) => left + ((epoch - 1) / Math.max(total - 1, 1)) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - bottom - top);
  const last = values.length - 1;
  const words = `${title}: ${values.length} of ${total} epochs, from ${format(values[0])} to ${format(values[last])}`;
  const picture = drawn("svg", { class: `chart ${kind}`, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words });
  const heights = ticks(low, high, 4);
  const digits = Math.max(...heights.map((value) => (String(value).split(".")[1] ?? "").length));
  for (const value of heights) {
    picture.append(drawn("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(digits)));
  }
  for (const epoch of epochTicks(total)) {
    picture.append(drawn("text", { x: x(epoch), y: height - 8, "text-anchor": "middle" }, String(epoch)));
  }
  if (errors) {
    const edge = (sign) => epochs.map((epoch, i) => `${x(epoch)},${y(values[i] + sign * errors[i])}`);
    picture.append(drawn("polygon", { class: "band", points: [...edge(1), ...edge(-1).reverse()].join(" ") }));
  }
  picture.append(
    drawn("polyline", { class: "curve", points: epochs.map((epoch, i) => `${x(epoch)},${y(values[i])}`).join(" ") }),
    drawn("circle", { class: "point", cx: x(epochs[last]), cy: y(values[last]), r: 3.5 }));
  return element("figure", {}, picture, element("figcaption", {}, `${title}, by epoch`));
}
