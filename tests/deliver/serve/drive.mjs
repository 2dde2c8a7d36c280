// Drives a real Chromium through one scenario of the page and prints what it saw as JSON; test_page.py judges it.
// node drive.mjs SCENARIO ADDRESS PLAYWRIGHT-FOLDER CHROMIUM [FILE ...]

import { createRequire } from "node:module";
import { join } from "node:path";

const [scenario, address, playwright, executablePath, ...files] = process.argv.slice(2);
const { chromium } = createRequire(join(playwright, "x.js"))("playwright-core");

const bars = (page, id) => page.locator(`#${id} li`).evaluateAll((rows) =>
  Object.fromEntries(rows.map((row) => [row.querySelector(".name").textContent, parseFloat(row.querySelector(".share").textContent)])));
const said = (page) => page.locator("#said").textContent();
const box = (page, what) => page.locator(what).first().evaluate((one) => {
  const { top, bottom, left, width } = one.getBoundingClientRect();
  return { top, bottom, left, width };
});
const sizes = (page, what) => page.locator(what).evaluateAll((all) =>
  all.filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .map((one) => [parseFloat(getComputedStyle(one).fontSize), one.textContent]).sort((a, b) => b[0] - a[0]));
const choose = async (page, file) => {
  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.click("#choose")]);
  await chooser.setFiles(file);
};
const answered = (page) => page.waitForFunction(() => !/Looking|No photograph/.test(document.querySelector("#said").textContent));

const SCENARIOS = {
  async upload(page) {
    await choose(page, files[0]);
    await page.waitForSelector("#on-server li");
    return {
      said: await said(page),
      bars: await bars(page, "on-server"),
      time: await page.textContent("#on-server .time"),
      early: await page.isVisible("#early"),
      teacher: await page.locator("#by-teacher").count() ? await bars(page, "by-teacher") : null,
      alt: await page.getAttribute("#preview", "alt"),
      shown: await page.isVisible("#preview"),
    };
  },
  async layout(page) {
    const seen = {};
    for (const [name, width, height] of [["desktop", 1280, 800], ["phone", 390, 844]]) {
      await page.setViewportSize({ width, height });
      await page.evaluate(() => document.querySelector("#answers").replaceChildren());
      await choose(page, files[0]);
      await page.waitForSelector("#by-teacher li");
      await page.waitForFunction(() => document.querySelector("#drop").classList.contains("filled"));
      seen[name] = {
        answer: await box(page, "#said"),
        student: await box(page, "#on-server .bars"),
        teacher: await box(page, "#by-teacher .bars"),
        rows: await page.evaluate(() => ["#on-server", "#by-teacher"].map((id) =>
          [...document.querySelectorAll(`${id} .bars li`)].map((row) => [row.querySelector(".name").textContent, Math.round(row.getBoundingClientRect().top)]))),
        sizes: await sizes(page, "#photograph *"),
        scrolled: await page.evaluate(() => window.scrollY),
      };
    }
    return { ...seen, said: await said(page), also: await page.textContent("#also"), facts: await page.textContent("#facts") };
  },
  async strange(page) {
    const seen = [];
    for (const file of files) {
      await page.evaluate(() => document.querySelector("#said").replaceChildren("No photograph"));
      await choose(page, file);
      await answered(page);
      await page.waitForTimeout(500);
      if (await page.evaluate(() => document.querySelector("#said").className === "answer")) await page.waitForSelector("p#in-browser", { timeout: 60000 });
      seen.push(await page.evaluate(() => {
        const said = document.querySelector("#said");
        const { color, borderLeftWidth } = getComputedStyle(said);
        return {
          said: said.textContent, kind: said.className, color, border: parseFloat(borderLeftWidth), ink: getComputedStyle(document.body).color,
          unshown: document.querySelector("#unshown").checkVisibility() ? document.querySelector("#unshown").textContent : "",
          beside: document.querySelector("p#in-browser")?.textContent ?? "",
        };
      }));
    }
    return { seen };
  },
  async sections(page) {
    await page.waitForTimeout(1000);
    const shown = (what) => page.locator(what).evaluateAll((all) => all.filter((one) => one.checkVisibility()).map((one) => one.id || one.getAttribute("href")));
    return { shown: await shown("main > section"), links: await shown("nav a") };
  },
  async drop(page) {
    const bytes = (await import("node:fs")).readFileSync(files[0]).toString("base64");
    const transfer = await page.evaluateHandle((text) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], "dropped.png", { type: "image/png" }));
      return data;
    }, bytes);
    await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
    await page.waitForSelector("#on-server li");
    return { bars: await bars(page, "on-server") };
  },
  async camera(page) {
    await page.click("#take");
    await page.waitForFunction(() => document.querySelector("#video").videoWidth > 0);
    await page.click("#shoot");
    await page.waitForSelector("#on-server li");
    return { bars: await bars(page, "on-server"), open: await page.evaluate(() => document.querySelector("#camera").open) };
  },
  async invalid(page) {
    await choose(page, files[0]);
    await answered(page);
    const refused = await said(page);
    const cards = await page.locator("#answers > *").count();
    await choose(page, files[1]); // and the page goes on
    await page.waitForSelector("#on-server li");
    return { refused, cards, after: await said(page) };
  },
  async browser(page) {
    await page.waitForFunction(async () => (await (await fetch("/api/state")).json()).browser === "ready", null, { timeout: 60000, polling: 500 });
    await page.reload();
    await page.waitForFunction(() => document.querySelector("#facts").textContent.includes("parameters"));
    const seen = [];
    for (const file of files) {
      await choose(page, file);
      await page.waitForSelector("#in-browser li", { timeout: 60000 });
      seen.push({ server: await bars(page, "on-server"), browser: await bars(page, "in-browser"), time: await page.textContent("#in-browser .time") });
      await page.evaluate(() => document.querySelector("#in-browser").remove());
    }
    return { seen };
  },
  async readied(page) {
    let asked = 0;
    page.on("request", (request) => { asked += request.url().includes("/api/classify"); });
    const unready = async (route) => {
      const state = await (await route.fetch()).json();
      await route.fulfill({ json: { ...state, browser: "preparing" } });
    };
    await page.route("**/api/state", unready);
    await page.reload();
    await page.waitForFunction(() => document.querySelector("#facts").textContent.includes("parameters"));
    await choose(page, files[0]);
    await page.waitForSelector("#on-server li");
    await page.evaluate(() => { document.querySelector("#on-server").dataset.same = "yes"; });
    const before = await page.textContent("#in-browser .time");
    await page.unroute("**/api/state", unready);
    await page.waitForFunction((text) => ![text, "Looking …"].includes(document.querySelector("#in-browser .time").textContent), before, { timeout: 60000 });
    return { before, after: await page.textContent("#in-browser .time"), same: await page.getAttribute("#on-server", "data-same"), asked };
  },
  async unprepared(page) {
    await choose(page, files[0]);
    await page.waitForSelector("#on-server li");
    return { words: await page.textContent("#in-browser") };
  },
  async gallery(page) {
    await page.waitForFunction(() => / images of \d+\.$/.test(document.querySelector("#found").textContent), null, { timeout: 60000 });
    const counts = {};
    for (const show of ["wrong", "unsure", "all"]) {
      await Promise.all([page.waitForResponse((r) => r.url().includes(`show=${show}`)), page.evaluate((value) => {
        const radio = document.querySelector(`input[value=${value}]`);
        radio.checked = true;
        radio.dispatchEvent(new Event("change", { bubbles: true }));
      }, show)]);
      await page.waitForTimeout(200);
      counts[show] = { words: await page.textContent("#found"), pictures: await page.locator("#pictures li").count(), crosses: await page.locator("#pictures .wrong").count() };
    }
    await Promise.all([page.waitForResponse((r) => r.url().includes("label=1")), page.selectOption("#label", "1")]);
    await page.waitForTimeout(200);
    const labels = await page.locator("#pictures .pair:first-of-type").allTextContents();
    const loaded = await page.locator("#pictures img").first().evaluate((img) => img.decode().then(() => img.naturalWidth));
    const alts = await page.locator("#pictures img").evaluateAll((all) => all.map((img) => img.alt));
    await page.locator("#pictures button").first().click();
    await page.waitForSelector("#on-server li");
    return { counts, labels, loaded, alts, preview: await page.getAttribute("#preview", "alt"), bars: await bars(page, "on-server") };
  },
  async faultless(page) {
    await page.waitForFunction(() => / images of \d+\.$/.test(document.querySelector("#found").textContent), null, { timeout: 60000 });
    await page.waitForSelector("#pictures li");
    const first = await page.evaluate(() => document.querySelector("input[name=show]:checked").value);
    await Promise.all([page.waitForResponse((r) => r.url().includes("show=wrong")), page.check("input[value=wrong]")]);
    await page.waitForFunction(() => document.querySelector("#found").textContent.startsWith("0 images"));
    return { first, then: await page.evaluate(() => document.querySelector("input[name=show]:checked").value) };
  },
  async keyboard(page) {
    const reached = [];
    for (let n = 0; n < 40; n++) {
      await page.keyboard.press("Tab");
      const here = await page.evaluate(() => {
        const active = document.activeElement;
        const ring = getComputedStyle(active).outlineStyle !== "none";
        return { what: active.id || active.getAttribute("href") || active.name || active.tagName.toLowerCase(), ring };
      });
      if (here.what === "body" || (here.what === "choose" && reached.some((before) => before.what === "choose"))) break;
      reached.push(here);
    }
    await page.focus("#choose");
    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Enter")]);
    await chooser.setFiles(files[0]);
    await page.waitForSelector("#on-server li");
    await page.focus("input[name=show]");
    await Promise.all([page.waitForResponse((r) => r.url().includes("show=unsure")), page.keyboard.press("ArrowDown")]);
    await Promise.all([page.waitForResponse((r) => r.url().includes("show=all")), page.keyboard.press("ArrowDown")]);
    await page.waitForSelector("#pictures button");
    await page.waitForTimeout(300);
    await page.focus("#pictures button");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelector("#preview").alt.startsWith("Validation image"));
    return { reached, preview: await page.getAttribute("#preview", "alt") };
  },
  async live(page) {
    const before = await page.textContent("#stages h3");
    process.stdout.write("ready\n"); // the test writes an epoch now
    await page.waitForFunction((text) => document.querySelector("#stages h3").textContent !== text, before);
    await page.waitForSelector("#stages svg");
    return { before, after: await page.textContent("#stages h3"), facts: await page.textContent("#facts"), label: await page.getAttribute("#stages svg", "aria-label") };
  },
  async exits(page) {
    const [photo, picture] = files;
    await choose(page, photo);
    await page.waitForSelector("#on-server li");
    const before = await page.textContent("#on-server .time");
    await page.focus("#early");
    await Promise.all([page.waitForResponse((r) => r.url().includes("early=true")), page.keyboard.press("Space")]);
    const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none");
    await page.waitForSelector("#on-server li");
    await page.screenshot({ path: picture });
    return { before, ring, after: await page.textContent("#on-server .time"), words: await page.textContent("#early-words") };
  },
  async leaderboard(page) {
    await page.waitForSelector("#board tbody tr");
    return { rows: await page.locator("#board tbody tr").allTextContents() };
  },
  async pictures(page) {
    const [folder, photo] = files;
    await choose(page, photo);
    await page.waitForSelector("#on-server li");
    const wide = {};
    for (const colorScheme of ["light", "dark"]) {
      for (const width of [320, 390, 1200]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        await page.screenshot({ path: join(folder, `${colorScheme}-${width}.png`) });
        wide[`${colorScheme}-${width}`] = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      }
    }
    return { wide };
  },
};

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  page.setDefaultTimeout(30000);
  const problems = [];
  const foreign = [];
  page.on("filechooser", () => {}); // from now on files are asked for here: set up later, the first keystroke is faster
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) foreign.push(url);
  });
  await page.goto(address);
  await page.waitForFunction(() => !document.querySelector("#facts").textContent.startsWith("Loading"));
  const seen = await SCENARIOS[scenario](page);
  console.log(JSON.stringify({ ...seen, problems, foreign }));
} finally {
  await browser.close();
}
