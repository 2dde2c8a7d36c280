// The page: asks the server, and shows what it says.

import { at, bars, chart, element, percent, time } from "/static/elements.js";
import { classify as inBrowser } from "/static/student.js";

const POLL = 2000; // milliseconds between two looks at a training
const MAX_BYTES = 20 * 2 ** 20;

let state = {};
let shown = 0; // number of the photograph on the page: late answers to an earlier one are dropped
let waiting = null; // fills the browser's own card as soon as the student is ready there

async function ask(path, options) {
  const answer = await fetch(path, options);
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error ?? `the server says ${answer.status}`);
  return told;
}

// --- a photograph

async function look(file, words) {
  const mine = ++shown;
  waiting = null;
  const preview = at("preview");
  URL.revokeObjectURL(preview.src);
  preview.hidden = true;
  at("answers").replaceChildren();
  for (const id of ["also", "unshown"]) at(id).hidden = true;
  at("drop").classList.remove("filled");
  if (!state.finished) return say("The run is still training: there is no student yet.", "error");
  if (file.size > MAX_BYTES) return say("The photograph has more than 20 MB; scale it down.", "error");
  say("Looking …");
  preview.src = URL.createObjectURL(file);
  preview.alt = words;
  const kind = kindOf(file).catch(() => "a file");
  const seen = preview.decode().then(() => mine !== shown || filled("preview"), () => false);
  const asked = performance.now();
  let answer;
  try {
    const early = at("early").checked;
    const query = new URLSearchParams({ form: early ? state.forms[0] : at("form").value, teacher: at("teacher").checked, early });
    answer = await ask(`/api/classify?${query}`, { method: "POST", body: file });
  } catch (error) {
    if (mine === shown) say(sentence(error.message), "error");
    return;
  }
  seen.then(async (here) => {
    const name = await kind;
    if (here || mine !== shown) return;
    at("unshown").textContent = `${words}: ${name}, which this browser cannot show. The server reads it.`;
    filled("unshown");
  });
  const round = performance.now() - asked;
  if (mine !== shown) return;
  const p = answer.student.probabilities;
  const order = p.map((_, k) => k).sort((a, b) => p[b] - p[a]);
  const passes = state.views.length > 1 ? ` for ${state.views.length} views` : "";
  const card = (title, details, probabilities, id) => element("article", { class: "card", id },
    element("h3", {}, title), element("p", { class: "time" }, details), ...(probabilities ? bars(state.classes, probabilities, order) : []));
  const cards = [card(`Student (${answer.form})`,
    `${left(answer.student)}${time(answer.student.ms)}${answer.student.macs ? "" : passes}; decoding ${time(answer.decode_ms)}; there and back ${time(round)}`, p, "on-server")];
  if (answer.teacher) {
    const t = answer.teacher.probabilities;
    const best = t.indexOf(Math.max(...t));
    cards.push(card(`Teacher (${state.teacher})`, `${time(answer.teacher.ms)}${passes}`, t, "by-teacher"));
    at("also").textContent = best === order[0]
      ? `So says the teacher, ${percent(t[best])} sure.` : `The teacher says ${state.classes[best]}, ${percent(t[best])}.`;
    at("also").hidden = false;
  }
  const beside = (why) => element("p", { id: "in-browser", class: "small beside" }, why); // no card without an answer
  const place = unable(state.browser) ? beside(sentence(state.browser))
    : card("In this browser", "Looking …", null, "in-browser");
  cards.push(place);
  at("answers").replaceChildren(...cards);
  say([element("b", {}, state.classes[order[0]]), `, ${percent(p[order[0]])}, says the student.`], "answer");
  const here = async () => {
    const line = place.querySelector(".time");
    if (!line) return;
    if (state.browser !== "ready") {
      line.textContent = sentence(wait(state.browser));
      return;
    }
    line.textContent = "Looking …";
    try {
      const own = await inBrowser(file, state);
      if (mine !== shown) return;
      place.replaceWith(card("In this browser",
        `${time(own.ms)}${passes}; decoding ${time(own.decode_ms)}; nothing sent`, own.probabilities, "in-browser"));
    } catch (error) {
      const why = (await seen) ? sentence(error.message) : `This browser does not read ${await kind}; the server does.`;
      if (mine === shown) place.replaceWith(beside(why));
    }
  };
  if (state.browser === "preparing") waiting = here;
  await here();
}

// Where a photograph has left the net, and what that cost; nothing for one that had no exits to leave by.
function left({ exit, exits, macs, all_macs: all }) {
  if (!macs) return "";
  const millions = (n) => (n / 1e6).toFixed(1);
  return `Left at ${exit ? `exit ${exit} of ${exits}` : "the end"}, after ${millions(macs)} of ${millions(all)} million multiply-accumulates; `;
}

// What the page says of the photograph; `kind` is "answer", "error" or nothing.
function say(what, kind = "") {
  at("said").className = kind;
  at("said").replaceChildren(...[what].flat());
}

function filled(id) {
  at(id).hidden = false;
  at("drop").classList.add("filled");
  return true;
}

// What a file is that a browser may not read, by its first bytes.
async function kindOf(file) {
  const head = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (text.slice(4, 8) === "ftyp" && /^(hei|hev|mif1|msf1)/.test(text.slice(8))) return "HEIC";
  return /^(II\*\0|MM\0\*)/.test(text) ? "TIFF" : "a kind of picture";
}

const unable = (browser) => browser !== "ready" && browser !== "preparing";
const wait = (browser) => (browser === "preparing" ? "the student is being prepared for the browser; a moment" : browser);
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");

let last = null;
function photograph(file, words) {
  last = [file, words];
  look(file, words);
}

function chosen(event) {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be chosen again
  if (file) photograph(file, `Your photograph ${file.name}`);
}

async function take() {
  const dialog = at("camera");
  if (!navigator.mediaDevices?.getUserMedia) {
    at("capture").click(); // telephones open their camera
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    say("There is no camera, or this page may not use it; choose a photograph instead.", "error");
    return;
  }
  at("video").srcObject = stream;
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  dialog.showModal();
}

function shoot() {
  const video = at("video");
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  if (!canvas.width) return;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((file) => {
    at("camera").close();
    photograph(file, "The photograph you took");
  }, "image/jpeg", 0.95);
}

function readyToDrop() {
  const drop = at("drop");
  // A file dropped beside the field would otherwise replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    const files = event.dataTransfer.files;
    if (files.length === 1) photograph(files[0], `Your photograph ${files[0].name}`);
    else say(files.length ? "One photograph at a time, please." : "What was dropped is no file; choose a photograph.", "error");
  });
}

// --- the gallery

let offset = 0;
let complete = false; // whether the student has looked at all images

async function gallery(more) {
  const show = document.querySelector("input[name=show]:checked").value;
  const query = new URLSearchParams({ show, offset: more ? offset : 0 });
  if (at("label").value) query.set("label", at("label").value);
  const page = await ask(`/api/gallery?${query}`);
  if (!complete && page.done === page.of) {
    complete = true;
    if (show === "wrong" && !page.found && !at("label").value) { // nothing is wrong: then all are shown at first
      document.querySelector("input[value=all]").checked = true;
      return gallery(false);
    }
  }
  const items = page.items.map(picture);
  if (more) at("pictures").append(...items);
  else at("pictures").replaceChildren(...items);
  offset = page.offset + page.items.length;
  at("more").hidden = offset >= page.found;
  const of = page.done < page.of ? ` of the ${page.done.toLocaleString("en")} looked at so far, ${page.of.toLocaleString("en")} in all` : ` of ${page.of.toLocaleString("en")}`;
  at("found").textContent = page.done ? `${page.found.toLocaleString("en")} images${of}.` : "The student begins to look at them in a moment.";
  if (page.done < page.of && !more) setTimeout(() => { if (offset <= items.length) gallery(false).catch(complain); }, POLL);
  if (more && items.length) items[0].firstElementChild.focus();
}

function picture(item) {
  const [label, predicted] = [state.classes[item.label], state.classes[item.predicted]];
  const right = item.label === item.predicted;
  const address = `/api/validation/${item.index}.png`;
  const open = async () => {
    const file = await (await fetch(address)).blob();
    photograph(file, `Validation image ${item.id}, labelled ${label}`);
    at("photograph").scrollIntoView();
  };
  return element("li", {}, element("button", { type: "button", onclick: open },
    element("img", { src: address, alt: `Validation image ${item.id}`, loading: "lazy" }),
    element("span", { class: "pair" }, `is ${label}`),
    element("span", { class: right ? "pair" : "pair wrong" }, `${right ? "✓" : "✗"} ${predicted} ${percent(item.sure)}`)));
}

const complain = (error) => { at("found").textContent = sentence(error.message); };

// --- training and leaderboard

async function training() {
  const stages = await ask("/api/curves");
  state.training = stages.some((stage) => stage.rows.length || !stage.done); // else there is nothing to show
  sections();
  const parts = stages.filter((stage) => stage.rows.length || !stage.done).map((stage) => {
    const { name, epochs, rows, done } = stage;
    const progress = done ? "finished" : rows.length ? `epoch ${rows.length} of ${epochs}` : "no finished epoch yet";
    const head = element("h3", {}, `${name}: ${progress}`);
    if (!rows.length) return element("div", {}, head, element("p", { class: "small" }, "The curves appear with the first epoch."));
    const best = rows.reduce((a, b) => (b.accuracy > a.accuracy ? b : a));
    const common = { epochs: rows.map((row) => row.epoch), total: epochs };
    return element("div", {}, head,
      element("p", { class: "small" }, `${done ? "Best" : "Best so far"}: epoch ${best.epoch}, ${best.accuracy.toFixed(3)} ± ${best.standard_error.toFixed(3)}; ${(rows.at(-1).seconds / 60).toFixed(1)} minutes.`),
      element("div", { class: "charts" },
        chart({ ...common, title: "Validation accuracy ± standard error", kind: "first", values: rows.map((row) => row.accuracy), errors: rows.map((row) => row.standard_error), format: (v) => v.toFixed(2) }),
        chart({ ...common, title: "Training loss", kind: "second", values: rows.map((row) => row.loss), format: (v) => v.toFixed(2) })));
  });
  at("stages").replaceChildren(...parts);
  return stages.every((stage) => stage.done);
}

async function board() {
  const rows = await ask("/api/leaderboard").catch((error) => error);
  if (rows instanceof Error) {
    at("board").replaceChildren(element("p", {}, sentence(rows.message)));
    return;
  }
  const lines = rows.map((row) => row.baseline
    ? element("tr", { class: "line" }, element("td"), element("td", {}, `baseline ${row.baseline}`), element("td", { class: "number" }, row.accuracy.toFixed(5)), element("td"), element("td"))
    : element("tr", {}, element("td", { class: "number" }, String(row.place)), element("td", {}, row.name),
      element("td", { class: "number" }, `${row.accuracy.toFixed(5)} ± ${row.standard_error.toFixed(4)}`),
      element("td", { class: "number" }, row.at.slice(0, 16).replace("T", " ")), element("td", {}, row.notes.join("; "))));
  const head = ["", "Name", "Public accuracy", "Submitted (UTC)", "What is noise"].map((words) => element("th", { scope: "col" }, words));
  at("board").replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Leaderboard, to scroll" }, element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines))),
    element("p", { class: "small" }, "Private scores stay hidden here; ", element("code", {}, "bantam leaderboard LABELS --reveal"), " shows them."));
}

// --- the whole

function facts() {
  at("run").textContent = state.run;
  document.title = `Bantam: ${state.run}`;
  sections();
  if (!state.finished) {
    at("facts").textContent = "Still training: the student comes when it is finished, and this page will know.";
    return;
  }
  // The accuracy is that of what answers: with its views, or with one where a photograph may leave early.
  const early = at("early").checked;
  const refit = state.refit_of ? " before its refit, which has learned these images too," : "";
  const { value, standard_error: error, n } = early ? state.accuracy.plain : state.accuracy.shown;
  const form = at("form").value && at("form").value !== state.forms[0] ? ` as ${state.forms[0]}` : "";
  const looks = early ? "one view each, the whole way" : state.views.length > 1 ? `averaged over ${state.views.length} views, as here` : "one view each, as here";
  at("facts").textContent = `${state.family}, ${state.parameters.toLocaleString("en")} parameters, ${state.size} px; validation accuracy${form}${refit} ${value.toFixed(3)} ± ${error.toFixed(3)} on ${n.toLocaleString("en")} images, ${looks}.`;
}

// What a run has nothing for is not shown.
function sections() {
  for (const needs of document.querySelectorAll("[data-needs]")) needs.hidden = !state[needs.dataset.needs];
}

function switches() {
  at("form").replaceChildren(...state.forms.map((form) => element("option", { value: form }, form)));
  at("form-label").hidden = state.forms.length < 2;
  at("teacher-label").hidden = !state.teacher;
  at("early-label").hidden = !state.exits;
  if (state.exits) {
    const { confidence, calibrated } = state.exits;
    at("early-words").textContent = `leave at an early exit that is ${percent(confidence)} sure${calibrated ? "" : " (not calibrated: bantam exits)"}`;
  }
  at("label").append(...state.classes.map((name, k) => element("option", { value: k }, name)));
}

async function follow() {
  try {
    const before = state;
    state = { training: before.training, ...await ask("/api/state") };
    if (state.finished && !before.finished) switches();
    facts();
    if (state.finished && !before.finished) {
      if (state.gallery) gallery(false).catch(complain);
    }
    if (state.browser !== "preparing" && waiting) {
      waiting(); // beside the server's answer, which stays
      waiting = null;
    }
    const done = await training().catch((error) => { at("stages").textContent = sentence(error.message); return false; });
    if (done && state.finished && state.browser !== "preparing") return;
  } catch {
    at("facts").textContent = "The server does not answer; start bantam serve again.";
  }
  setTimeout(follow, POLL);
}

at("choose").addEventListener("click", () => at("file").click());
at("take").addEventListener("click", take);
at("shoot").addEventListener("click", shoot);
at("close").addEventListener("click", () => at("camera").close());
for (const id of ["file", "capture"]) at(id).addEventListener("change", chosen);
at("form").addEventListener("change", () => {
  facts();
  if (last) look(...last);
});
at("teacher").addEventListener("change", () => last && look(...last));
at("early").addEventListener("change", () => {
  at("form").disabled = at("early").checked; // the exits are those of the first form
  facts();
  if (last) look(...last);
});
at("switches").addEventListener("submit", (event) => event.preventDefault());
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filters").addEventListener("change", () => gallery(false).catch(complain));
at("more").addEventListener("click", () => gallery(true).catch(complain));
readyToDrop();
follow().then(() => { if (state.leaderboard) board(); });
