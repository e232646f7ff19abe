"use strict";
/* The board's page. Names come from anywhere, so what is shown goes through textContent only, and nothing is ever parsed as HTML.
 * The state of the page stands in its address (S below), so that a link shows what the sender sees. */

const $ = (id) => document.getElementById(id);
const el = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const svg = (name, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
};
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

/* ---- the address ---- */

const DEFAULTS = { rollup: "touchpoint", window: "", sort: "n", dir: "down", q: "", show: "", id: "", zoom: "", heat: "", wallboard: "", theme: "" };
const S = { ...DEFAULTS };
for (const [key, value] of new URLSearchParams(location.search)) if (Object.hasOwn(S, key)) S[key] = value;

function remember() {
  const query = new URLSearchParams();
  for (const key in DEFAULTS) if (S[key] !== DEFAULTS[key]) query.set(key, S[key]);
  const text = query.toString();
  history.replaceState(null, "", text ? "?" + text : location.pathname);
  const wall = new URLSearchParams(query);
  S.wallboard ? wall.delete("wallboard") : wall.set("wallboard", "1");
  $("wall").href = "?" + wall;
  say($("wall"), S.wallboard ? "Desk" : "Wallboard");
}

/* A token behind the # is not sent to anybody, and does not stay in the address. */
let token = new URLSearchParams(location.hash.slice(1)).get("token") || sessionStorage.getItem("livenps-token") || "";
if (location.hash.includes("token=")) history.replaceState(null, "", location.pathname + location.search);
const ask = (path, signal) => fetch(path, {
  signal, cache: "no-store", headers: token ? { Authorization: "Bearer " + token } : {},
});

/* ---- words and numbers ---- */

const MINUS = "\u2212";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const number = (value) => whole.format(value).replace("-", MINUS);
const fixed = (value, digits) => value.toFixed(digits).replace("-", MINUS);
const signed = (value, digits = 0) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "" : value > 0 ? "+" : MINUS) + text;
};
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const moment = (ms, length) => length > 2 * 86400e3
  ? new Date(ms).toLocaleDateString("en-GB", { day: "numeric", month: "short" })
  : new Date(ms).toLocaleTimeString("en-GB", length > 3600e3 ? { hour: "2-digit", minute: "2-digit" } : undefined);
const WORDS = [["d", 86400e3, "day"], ["h", 3600e3, "hour"], ["m", 60e3, "minute"], ["s", 1e3, "second"]];
const long = (name) => {
  const found = WORDS.find(([letter]) => letter === name.slice(-1)), count = parseInt(name, 10);
  return found && count ? `${count} ${found[2]}${count > 1 ? "s" : ""}` : name;
};
const span = (ms) => {
  if (ms < 10e3) return fixed(ms / 1e3, 1) + " s";
  for (const [letter, unit] of WORDS) if (ms >= 2 * unit || unit === 1e3) return Math.round(ms / unit) + " " + { d: "days", h: "h", m: "min", s: "s" }[letter];
};
/* Ids are percent-encoded. Only what is harmless to look at is decoded: what turns the writing direction round stays as it is. */
const part = (id) => id === "~other" ? "all other names" : id.replace(/%(3A|25|7B|7D|7C|7E)/g, decodeURIComponent);
const label = (id) => id.split("|").map(part).join(" × ");
const TITLES = { touchpoint: "Touchpoints", channel: "Channels", segment: "Segments", stage: "Stages", all: "All" };
const title = (rollup) => TITLES[rollup] || rollup.split("|").join(" × ");

/* ---- what is known ---- */

let start = null;             // /api/start
let F = {};                   // field -> place in a row
let sets = [new Map(), new Map(), new Map()]; // the whole, the stages, the rows: id -> row
let health = null;            // the last event of that name
let healthAt = 0;             // when it came, by our own clock
let connected = false, loaded = false;
const get = (row, field) => row && row.length > 1 ? row[F[field]] : null;
const windowOf = (name) => start.windows.find((w) => w.name === name) || start.windows[0];

/* Why there is no score, in words; "" when there is one. */
function why(row) {
  if (!row || row.length < 2) return "no data yet";
  if (get(row, "nps") !== null) return "";
  if (!get(row, "n")) return "quiet: no answers";
  return `withheld: ${number(get(row, "n"))} of ${start.minimum_n} answers`;
}

/* ---- the whole, the journey ---- */

function intervalBar() {
  const box = el("div", "interval"), range = el("i"), mark = el("b"), goal = el("u");
  box.append(range, mark, goal);
  return { box, update(row) {
    const nps = get(row, "nps"), low = get(row, "nps_low"), high = get(row, "nps_high"), target = get(row, "target");
    range.hidden = mark.hidden = nps === null;
    goal.hidden = target === null;
    if (nps !== null) {
      range.style.left = (low + 100) / 2 + "%";
      range.style.width = Math.max(1, (high - low) / 2) + "%";
      mark.style.left = (nps + 100) / 2 + "%";
    }
    if (target !== null) goal.style.left = (target + 100) / 2 + "%";
    box.title = nps === null ? why(row) : `95 % interval ${signed(low)} to ${signed(high)}` + (target === null ? "" : `, target ${signed(target)}`);
  } };
}

function splitBar() {
  const box = el("div", "split"), parts = [el("span", "p"), el("span", "a"), el("span", "d")];
  box.append(...parts);
  return { box, update(row) {
    const counts = ["promoters", "passives", "detractors"].map((field) => get(row, field));
    const known = counts[0] !== null;
    parts.forEach((each, i) => { each.style.flexGrow = known ? counts[i] : 0; each.hidden = !known || !counts[i]; });
    box.title = known ? `${number(counts[0])} promoters, ${number(counts[1])} passives, ${number(counts[2])} detractors` : why(row);
  } };
}

function changeText(row) {
  const change = get(row, "change"), verdict = get(row, "change_verdict");
  if (change === null) return ["–", ""];
  if (verdict > 0) return ["▲ " + signed(change, 1), "better"];
  if (verdict < 0) return ["▼ " + signed(change, 1), "worse"];
  return [signed(change, 1), "quiet"];
}

function targetText(row) {
  const target = get(row, "target"), state = get(row, "target_state");
  if (target === null) return ["–", "quiet"];
  if (state === null) return [signed(target), "quiet"];
  return state > 0 ? [signed(target) + " ✓ met", "better"] : state < 0 ? [signed(target) + " ✗ missed", "worse"] : [signed(target) + " undecided", "quiet"];
}

function facts(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([name, value, className], i) => {
    let box = list.children[i];
    if (!box) {
      box = el("div");
      box.append(el("dt"), el("dd"));
      list.append(box);
    }
    say(box.firstChild, name);
    say(box.lastChild, value);
    box.lastChild.className = className || "";
  });
}

const wholeBar = intervalBar(), wholeSplit = splitBar();
const scale = el("div", "scale"), words = el("div", "split-words");
scale.append(el("span", "", MINUS + "100"), el("span", "", "0"), el("span", "", "+100"));
words.append(el("span"), el("span"), el("span"));
$("whole-bar").append(wholeBar.box, scale);
$("whole-split").append(wholeSplit.box, words);

function drawWhole() {
  const row = sets[0].get("all"), missing = why(row), nps = get(row, "nps_rounded");
  say($("whole-nps"), nps === null ? "–" : signed(nps));
  say($("whole-note"), missing || `${signed(get(row, "nps_low"))} to ${signed(get(row, "nps_high"))}` + (get(row, "reliable") ? "" : ", few answers"));
  say($("whole-title"), "The whole, " + long(S.window));
  document.title = (nps === null ? "" : signed(nps) + " ") + "livenps " + start.namespace;
  wholeBar.update(row);
  wholeSplit.update(row);
  const known = get(row, "promoters") !== null;
  ["promoters", "passives", "detractors"].forEach((field, i) => say(words.children[i], known ? `${number(get(row, field))} ${field}` : ""));
  const [change, className] = changeText(row);
  const verdict = { 1: "better", [-1]: "worse", 0: "no significant change" }[get(row, "change_verdict")];
  const pairs = [["answers", row && get(row, "n") !== null ? number(get(row, "n")) : "–"],
    [health && health.window && health.window.previous_complete === 0 ? "change (the time before is not whole)" : `change to the ${long(S.window)} before`,
      get(row, "change") === null ? "–" : `${change} ${verdict}`, className]];
  if (get(row, "target") !== null) pairs.push(["target", ...targetText(row)]);
  pairs.push(["CSAT", get(row, "csat_mean") === null ? "–" : fixed(get(row, "csat_mean"), 2)],
    ["CES", get(row, "ces_mean") === null ? "–" : fixed(get(row, "ces_mean"), 2)],
    ["volume", get(row, "interactions") === null ? "–" : number(get(row, "interactions"))],
    ["response rate", get(row, "response_rate") === null ? "–" : fixed(get(row, "response_rate"), 1) + " %"]);
  facts($("whole-facts"), pairs);
}

const journey = new Map();
function drawJourney() {
  const usual = ["before", "during", "after"], list = $("journey");
  const there = [...sets[1].keys()].sort((a, b) => (usual.indexOf(a) + 9) % 9 - (usual.indexOf(b) + 9) % 9 || (a < b ? -1 : 1));
  const ids = [...new Set([...usual, ...there])].slice(0, 8);
  if ([...journey.keys()].join("\n") !== ids.join("\n")) {
    journey.clear();
    list.replaceChildren();
    for (const id of ids) {
      const item = el("li"), score = el("span", "big"), bar = intervalBar(), note = el("span", "note"), change = el("span");
      item.append(el("span", "stage", label(id)), score, bar.box, note, change);
      list.append(item);
      journey.set(id, { score, bar, note, change });
    }
  }
  for (const [id, at] of journey) {
    const row = sets[1].get(id), nps = get(row, "nps_rounded"), missing = why(row);
    say(at.score, nps === null ? "–" : signed(nps));
    say(at.note, missing || `${number(get(row, "n"))} answers`);
    const [change, className] = changeText(row);
    say(at.change, get(row, "change") === null ? "" : change + (className === "quiet" ? " not significant" : ""));
    at.change.className = className || "quiet";
    at.bar.update(row);
  }
}

/* ---- the table: only the rows that are seen exist ---- */

const by = (field) => (row) => get(row, field);
const COLUMNS = [
  { key: "name", title: "Name", className: "name", text: (row) => [label(row[0])] },
  { key: "nps", title: "NPS", className: "nps", value: by("nps"), text: (row) => [get(row, "nps_rounded") === null ? "–" : signed(get(row, "nps_rounded"))] },
  { key: "interval", title: "Interval", help: "95 % interval of the NPS, from -100 to 100", className: "flex", value: (row) => get(row, "nps_low"), draw: intervalBar, words: true },
  { key: "split", title: "Split", help: "promoters, passives, detractors", className: "flex wide", value: (row) => get(row, "promoters") === null ? null : get(row, "promoters") / (get(row, "n") || 1), draw: splitBar },
  { key: "n", title: "Answers", className: "right", value: by("n"), text: (row) => [get(row, "n") === null ? "–" : number(get(row, "n")) + (get(row, "nps") !== null && !get(row, "reliable") ? " few" : "")] },
  { key: "change", title: "Change", className: "right", value: by("change"), text: changeText },
  { key: "target", title: "Target", className: "right wide wall", value: (row) => get(row, "target") === null ? null : (get(row, "target_state") ?? -2) * 1000 + get(row, "target"), text: targetText },
  { key: "csat", title: "CSAT", className: "right wide", value: by("csat_mean"), text: (row) => [get(row, "csat_mean") === null ? "–" : fixed(get(row, "csat_mean"), 2)] },
  { key: "ces", title: "CES", className: "right wide", value: by("ces_mean"), text: (row) => [get(row, "ces_mean") === null ? "–" : fixed(get(row, "ces_mean"), 2)] },
  { key: "volume", title: "Volume", className: "right wide", value: by("interactions"), text: (row) => [get(row, "interactions") === null ? "–" : number(get(row, "interactions"))] },
  { key: "response", title: "Response", className: "right wide", value: by("response_rate"), text: (row) => [get(row, "response_rate") === null ? "–" : fixed(get(row, "response_rate"), 1) + " %"] },
];
let order = [];               // ids in the order of the table
let orderAt = 0, sortTimer = 0;
const pool = [];              // rows that exist
const SHOW = {
  changed: (row) => !!get(row, "change_verdict"), scored: (row) => get(row, "nps") !== null,
  missed: (row) => get(row, "target_state") < 0 && get(row, "target_state") !== null,
  met: (row) => get(row, "target_state") > 0, undecided: (row) => get(row, "target_state") === 0,
};

function makeHead() {
  $("grid-head").replaceChildren(...COLUMNS.map((column) => {
    const cell = el("div", "cell " + column.className.replace("flex", "")), button = el("button", "", column.title);
    cell.setAttribute("role", "columnheader");
    button.type = "button";
    button.tabIndex = 0;
    button.dataset.sort = column.key;
    if (column.help) button.title = column.help;
    button.onclick = () => {
      if (S.sort === column.key) S.dir = S.dir === "down" ? "up" : "down";
      else { S.sort = column.key; S.dir = column.key === "name" ? "up" : "down"; }
      remember();
      sortRows(true);
      loadHeat();
    };
    cell.append(button);
    return cell;
  }));
}

/* Rows do not jump about while they are being read: live, the order is looked at again every few seconds only. */
function sortRows(now) {
  const left = 3000 - (performance.now() - orderAt);
  if (!now && left > 0 && order.length && order.every((id) => sets[2].has(id))) {
    sortTimer = sortTimer || setTimeout(() => sortRows(true), left);
    return;
  }
  clearTimeout(sortTimer);
  sortTimer = 0;
  const column = COLUMNS.find((each) => each.key === S.sort) || COLUMNS[4];
  const sign = S.dir === "up" ? 1 : -1, wanted = S.q.toLowerCase(), keep = Object.hasOwn(SHOW, S.show) && SHOW[S.show];
  const found = [];
  for (const [id, row] of sets[2]) {
    if (wanted && !label(id).toLowerCase().includes(wanted)) continue;
    if (keep && !keep(row)) continue;
    found.push([column.value ? column.value(row) : label(id).toLowerCase(), id]);
  }
  found.sort((a, b) => {
    if (a[0] === b[0]) return a[1] < b[1] ? -1 : 1;
    if (a[0] === null) return 1; // what has no value stands last either way
    if (b[0] === null) return -1;
    return a[0] < b[0] ? -sign : sign;
  });
  order = found.map((each) => each[1]);
  orderAt = performance.now();
  [...$("grid-head").children].forEach((cell, i) => cell.setAttribute("aria-sort", COLUMNS[i] === column ? (sign > 0 ? "ascending" : "descending") : "none"));
  if (!S.wallboard) say($("count"), order.length === sets[2].size ? number(order.length) : `${number(order.length)} of ${number(sets[2].size)}`);
  $("grid").setAttribute("aria-rowcount", order.length + 1);
  $("grid-empty").hidden = order.length > 0 || !loaded;
  say($("grid-empty"), sets[2].size ? "Nothing matches the filter." : "No data yet: nothing was counted in this namespace.");
  drawRows();
}

function makeRow() {
  const box = el("div", "row"), cells = [];
  box.setAttribute("role", "row");
  for (const column of COLUMNS) {
    const cell = el("div", "cell " + column.className), drawn = column.draw && column.draw(), note = column.words && el("span", "quiet");
    cell.setAttribute("role", "gridcell");
    if (drawn) cell.append(drawn.box);
    if (note) cell.append(note);
    box.append(cell);
    cells.push({ cell, drawn, note, base: cell.className });
  }
  box.onclick = () => choose(box.dataset.id);
  $("grid-body").append(box);
  return { box, cells, row: null };
}

const PAGE_MS = 15000;
let rowHeight = 40;
function drawRows() {
  const grid = $("grid"), body = $("grid-body");
  /* Nobody scrolls a wallboard: it turns the pages, of whole rows. */
  const fit = Math.max(1, Math.floor(grid.clientHeight / rowHeight - .65) - 1), pages = Math.max(1, Math.ceil(order.length / fit));
  const top = S.wallboard ? Math.floor(performance.now() / PAGE_MS) % pages * fit : 0;
  const first = S.wallboard ? top : Math.max(0, Math.floor(grid.scrollTop / rowHeight) - 4);
  const count = Math.min(order.length - first, S.wallboard ? fit : Math.ceil(grid.clientHeight / rowHeight) + 8);
  body.style.height = (S.wallboard ? count : order.length) * rowHeight + "px";
  if (S.wallboard) say($("count"), pages > 1 ? `${number(first + 1)} to ${number(first + count)} of ${number(order.length)}` : "");
  while (pool.length < count) pool.push(makeRow());
  pool.forEach((each, i) => {
    const id = order[first + i], row = i < count ? sets[2].get(id) : null;
    each.box.hidden = !row;
    if (!row) { each.row = null; return; }
    each.box.style.transform = `translateY(${(first + i - top) * rowHeight}px)`;
    const chosen = id === S.id;
    if (each.box.getAttribute("aria-selected") !== String(chosen)) each.box.setAttribute("aria-selected", chosen);
    each.box.setAttribute("aria-rowindex", first + i + 2);
    if (chosen) { each.box.id = "chosen"; } else if (each.box.id) each.box.removeAttribute("id");
    if (each.row === row) return;
    each.row = row;
    each.box.dataset.id = id;
    COLUMNS.forEach((column, c) => {
      const at = each.cells[c];
      if (at.drawn) {
        const missing = column.words ? why(row) : "";
        at.drawn.update(row);
        at.drawn.box.hidden = !!missing;
        if (at.note) say(at.note, missing);
      } else {
        const [text, className] = column.text(row);
        say(at.cell, text);
        at.cell.className = at.base + (className ? " " + className : "");
        if (column.key === "name") at.cell.title = text;
      }
    });
  });
  $("chosen") ? grid.setAttribute("aria-activedescendant", "chosen") : grid.removeAttribute("aria-activedescendant");
}

function choose(id) {
  if (!id || id === S.id) return;
  S.id = id;
  remember();
  drawRows();
  loadTrend();
  drawHeat();
}

$("grid").addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
$("grid").addEventListener("keydown", (event) => {
  if (event.target !== $("grid")) return;
  const page = Math.max(1, Math.floor($("grid").clientHeight / rowHeight) - 2), at = order.indexOf(S.id);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: order.length - 1 }[event.key];
  if (to === undefined || !order.length) return;
  event.preventDefault();
  const next = Math.min(order.length - 1, Math.max(0, to)), top = next * rowHeight, grid = $("grid");
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + 2 * rowHeight > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + 2 * rowHeight - grid.clientHeight;
  choose(order[next]);
});
new ResizeObserver(() => {
  rowHeight = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || 40;
  drawRows();
}).observe($("grid"));

/* ---- trends ---- */

const END = 0, NPS = 1, LOW = 2, HIGH = 3, N = 4, COMPLETE = 5;
const hasTrend = () => start && start.trends.includes(S.rollup);
let trend = null;             // {id, window, points}
let trendTimer = 0, trendAbort = null, cross = -1;

async function readTrends(window, ids, signal) {
  const query = new URLSearchParams({ rollup: S.rollup, window });
  for (const id of ids) query.append("id", id);
  const reply = await ask("/api/trend?" + query, signal);
  if (!reply.ok) throw new Error("status " + reply.status);
  return (await reply.json()).series;
}
/* A trend has a point for every 120th of its window. */
const spacing = (name) => Math.max(2500, windowOf(name).length_ms / 120);

async function loadTrend() {
  if (!start || S.wallboard) return;
  clearTimeout(trendTimer);
  if (trendAbort) trendAbort.abort();
  if (!S.id || !hasTrend()) { trend = null; drawTrend(); return; }
  const id = S.id, window = S.zoom || S.window;
  if (trend && (trend.id !== id || trend.window !== window)) cross = -1;
  trendAbort = new AbortController();
  try {
    const [series] = await readTrends(window, [id], trendAbort.signal);
    if (id !== S.id || window !== (S.zoom || S.window)) return;
    trend = { id, window, points: series.points };
    drawTrend();
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  trendTimer = setTimeout(loadTrend, Math.min(60000, spacing(window)));
}

function nice(low, high) {
  const step = high - low > 150 ? 50 : high - low > 60 ? 20 : 10, ticks = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) ticks.push(at);
  return ticks;
}

function drawTrend() {
  const box = $("trend"), text = $("trend-text");
  say($("trend-title"), S.id ? label(S.id) : "Trend");
  const nothing = (words) => { box.replaceChildren(); say(text, words); };
  if (!S.id) return nothing("Choose a row of the table to see its trend.");
  if (!hasTrend()) return nothing(`There are no trends of ${title(S.rollup)}: the setting trends does not list them.`);
  if (!trend || trend.id !== S.id) return nothing("Reading the trend.");
  const points = trend.points, length = windowOf(trend.window).length_ms;
  const scored = points.filter((p) => p[NPS] !== null);
  if (!points.length) return nothing(`No point yet: the first is written when ${span(length / 120)} of the window have passed.`);
  const end = Math.max(points[points.length - 1][END], health && health.health && health.health.as_of_ms || 0), from = end - length;
  const shown = points.filter((p) => p[END] >= from);
  const target = get(sets[2].get(S.id), "target");
  let low = Math.min(0, ...shown.map((p) => p[LOW] ?? 0), target ?? 0), high = Math.max(0, ...shown.map((p) => p[HIGH] ?? 0), target ?? 0);
  low = Math.max(-100, Math.floor((low - 3) / 10) * 10);
  high = Math.min(100, Math.ceil((high + 3) / 10) * 10);
  const width = Math.max(260, box.clientWidth), height = Math.max(140, box.clientHeight), left = 34, right = 38, top = 8, bottom = 22;
  const x = (ms) => left + (ms - from) / length * (width - left - right), y = (nps) => top + (high - nps) / (high - low) * (height - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  for (const tick of nice(low, high)) {
    picture.append(svg("line", { class: tick ? "axis" : "axis zero", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, signed(tick)));
  }
  for (let i = 0; i <= 2; i++) {
    const at = from + length * i / 2;
    picture.append(svg("text", { x: x(at), y: height - 4, "text-anchor": i === 0 ? "start" : i === 2 ? "end" : "middle" }, moment(at, length)));
  }
  if (target !== null) picture.append(svg("line", { class: "target", x1: left, x2: width - right, y1: y(target), y2: y(target) }));
  /* A silence ends the line: it is not drawn through what is not known. */
  for (let i = 0; i < shown.length;) {
    let j = i;
    while (j < shown.length && shown[j][NPS] !== null && (j === i || shown[j][END] - shown[j - 1][END] < 3.5 * length / 120)) j++;
    const run = shown.slice(i, j);
    if (run.length > 1) {
      picture.append(svg("path", { class: "band", d: "M" + run.map((p) => `${x(p[END])},${y(p[HIGH])}`).join("L") + "L" + run.slice().reverse().map((p) => `${x(p[END])},${y(p[LOW])}`).join("L") + "Z" }),
        svg("path", { class: "line", d: "M" + run.map((p) => `${x(p[END])},${y(p[NPS])}`).join("L") }));
    } else if (run.length === 1) {
      picture.append(svg("line", { class: "line", x1: x(run[0][END]), x2: x(run[0][END]), y1: y(run[0][LOW]), y2: y(run[0][HIGH]) }), svg("circle", { class: "dot", cx: x(run[0][END]), cy: y(run[0][NPS]), r: 3 }));
    }
    i = Math.max(j, i + 1);
  }
  for (const p of shown) if (p[NPS] !== null && !p[COMPLETE]) picture.append(svg("circle", { class: "dot part", cx: x(p[END]), cy: y(p[NPS]), r: 2.5 }));
  const last = scored[scored.length - 1];
  if (last) picture.append(svg("circle", { class: "dot", cx: x(last[END]), cy: y(last[NPS]), r: 4 }), svg("text", { class: "now", x: x(last[END]) + 7, y: y(last[NPS]) + 5 }, signed(last[NPS])));
  if (target !== null) picture.append(svg("text", { x: left + 4, y: y(target) - 5 }, "target " + signed(target)));
  const seen = shown[cross];
  if (seen) {
    picture.append(svg("line", { class: "cross", x1: x(seen[END]), x2: x(seen[END]), y1: top, y2: height - bottom }));
    if (seen[NPS] !== null) picture.append(svg("circle", { class: "dot", cx: x(seen[END]), cy: y(seen[NPS]), r: 4 }));
  }
  box.replaceChildren(picture);
  box.dataset.from = from;
  const partly = shown.some((p) => !p[COMPLETE]) ? " Hollow points: not all had been read." : "";
  say(text, seen ? `${moment(seen[END], length)}: ` + (seen[NPS] === null ? (seen[N] ? "withheld, too few answers" : "no answers") : `${signed(seen[NPS], 1)}, interval ${signed(seen[LOW], 1)} to ${signed(seen[HIGH], 1)}, ${number(seen[N])} answers`)
    : !scored.length ? `No score in these ${long(trend.window)}: too few answers.`
      : `Last ${long(trend.window)}: lowest ${signed(Math.min(...scored.map((p) => p[NPS])))}, highest ${signed(Math.max(...scored.map((p) => p[NPS])))}, now ${signed(last[NPS])}. Each point is the score of the ${long(trend.window)} before it.${partly}`);
}

$("trend").addEventListener("pointermove", (event) => {
  if (!trend || !trend.points.length) return;
  const box = $("trend").getBoundingClientRect(), length = windowOf(trend.window).length_ms, from = Number($("trend").dataset.from);
  const ms = from + (event.clientX - box.left - 34) / (box.width - 72) * length;
  const shown = trend.points.filter((p) => p[END] >= from);
  cross = shown.reduce((best, p, i) => Math.abs(p[END] - ms) < Math.abs(shown[best][END] - ms) ? i : best, 0);
  drawTrend();
});
$("trend").addEventListener("pointerleave", () => { cross = -1; drawTrend(); });
$("trend").addEventListener("blur", () => { cross = -1; drawTrend(); });
$("trend").addEventListener("keydown", (event) => {
  if (!trend || !trend.points.length || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  event.preventDefault();
  const shown = trend.points.filter((p) => p[END] >= Number($("trend").dataset.from)).length;
  cross = cross < 0 ? shown - 1 : Math.min(shown - 1, Math.max(0, cross + (event.key === "ArrowRight" ? 1 : -1)));
  drawTrend();
});
new ResizeObserver(() => drawTrend()).observe($("trend"));

/* ---- the heat map ---- */

const HEAT_ROWS = 15, HEAT_COLUMNS = 60, HEAT_STEP = 8;
let heat = { key: "", series: [] }, heatTimer = 0, heatBusy = false, heatAgain = false;

/* Which rows: a page of the table's order. A page that is gone, because a filter left fewer rows, is the last one there is. */
const heatPages = () => Math.max(1, Math.ceil(order.length / HEAT_ROWS));
const heatPage = () => Math.min(Math.max(1, parseInt(S.heat, 10) || 1), heatPages());
function turnHeat(step) {
  const page = Math.min(Math.max(1, heatPage() + step), heatPages());
  S.heat = page > 1 ? String(page) : "";
  remember();
  drawHeatPages();
  loadHeat();
}
$("heat-before").onclick = () => turnHeat(-1);
$("heat-after").onclick = () => turnHeat(1);
function drawHeatPages() {
  const page = heatPage(), first = (page - 1) * HEAT_ROWS, many = order.length > HEAT_ROWS && hasTrend();
  $("heat-pages").hidden = !many;
  $("heat-before").disabled = page <= 1;
  $("heat-after").disabled = page >= heatPages();
  say($("heat-page"), many ? `Rows ${number(first + 1)} to ${number(Math.min(order.length, first + HEAT_ROWS))} of ${number(order.length)}` : "");
}

async function loadHeat() {
  clearTimeout(heatTimer);
  if (!start || S.wallboard) return;
  if (heatBusy) { heatAgain = true; return; } // what is asked for has changed meanwhile
  heatAgain = false;
  const page = heatPage(), ids = order.slice((page - 1) * HEAT_ROWS, page * HEAT_ROWS);
  const window = S.zoom || S.window, key = [S.rollup, window].join(" ");
  if (hasTrend() && ids.length) {
    heatBusy = true;
    try {
      let series = [];
      for (let i = 0; i < ids.length; i += HEAT_STEP) series = series.concat(await readTrends(window, ids.slice(i, i + HEAT_STEP)));
      if (key === [S.rollup, S.zoom || S.window].join(" ")) heat = { key, window, series };
    } catch { /* the next round comes */ }
    heatBusy = false;
    if (heatAgain) { loadHeat(); return; }
  } else {
    heat = { key, window, series: [] };
  }
  drawHeat();
  heatTimer = setTimeout(loadHeat, order.length ? Math.min(60000, spacing(window)) : 1000);
}

const shade = (nps) => "h" + Math.max(0, Math.min(10, Math.round((nps + 100) / 20)));

function drawHeat() {
  const box = $("heat"), text = $("heat-text");
  if (!start) return;
  say($("heat-title"), `${title(S.rollup)} over the last ${long(S.zoom || S.window)}`);
  drawHeatPages();
  if (!hasTrend()) { box.replaceChildren(); say(text, `There are no trends of ${title(S.rollup)}: the setting trends does not list them.`); return; }
  if (!heat.series.some((each) => each.points.length)) { box.replaceChildren(); say(text, "No points yet."); return; }
  const length = windowOf(heat.window).length_ms, name = 180, line = 22, width = Math.max(560, box.clientWidth), height = heat.series.length * line + 20;
  const end = Math.max(...heat.series.map((each) => each.points.length ? each.points[each.points.length - 1][END] : 0)), from = end - length;
  const cell = (width - name) / HEAT_COLUMNS;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "list" });
  heat.series.forEach((each, r) => {
    const group = svg("g", { class: each.id === S.id ? "series chosen" : "series", role: "listitem" }), words = label(each.id);
    group.append(svg("text", { x: 0, y: r * line + 15 }, words.length > 24 ? words.slice(0, 23) + "…" : words));
    if (!each.points.length) group.append(svg("text", { class: "axis-text", x: name, y: r * line + 15 }, "no answers in this time"));
    /* Of the points that fall into a column the last one is shown. */
    const columns = new Array(HEAT_COLUMNS).fill(null);
    for (const p of each.points) {
      const c = Math.ceil((p[END] - from) / length * HEAT_COLUMNS) - 1;
      if (c >= 0 && c < HEAT_COLUMNS) columns[c] = p;
    }
    columns.forEach((p, c) => {
      const at = { x: name + c * cell + .5, y: r * line + 2, width: cell - 1, height: line - 4, rx: 2 };
      if (!p) return;
      const mark = p[NPS] !== null ? svg("rect", { ...at, class: shade(p[NPS]) })
        : p[N] ? svg("rect", { ...at, class: "hw" }) : svg("rect", { ...at, y: at.y + 8, height: 2, class: "hn" });
      mark.append(svg("title", {}, `${words}, ${moment(p[END], length)}: ` + (p[NPS] !== null ? `${signed(p[NPS])}, ${number(p[N])} answers` : p[N] ? "withheld, too few answers" : "no answers")));
      group.append(mark);
    });
    group.addEventListener("click", () => choose(each.id));
    picture.append(group);
  });
  for (let i = 0; i <= 4; i++) {
    const at = from + length * i / 4;
    picture.append(svg("text", { class: "axis-text", x: name + (width - name) * i / 4, y: height - 4, "text-anchor": i === 0 ? "start" : i === 4 ? "end" : "middle" }, moment(at, length)));
  }
  box.replaceChildren(picture);
  say(text, "In the table's order.");
}

function makeLegend() {
  const scaleBox = el("span"), picture = svg("svg", { width: 132, height: 12, "aria-hidden": "true" });
  for (let i = 0; i <= 10; i++) picture.append(svg("rect", { x: i * 12, y: 0, width: 11, height: 12, rx: 2, class: "h" + i }));
  scaleBox.append(`${MINUS}100 `, picture, "+100");
  const entry = (attributes, words) => {
    const box = el("span"), mark = svg("svg", { width: 14, height: 12, "aria-hidden": "true" });
    mark.append(svg("rect", { x: .5, y: .5, width: 13, height: 11, rx: 2, ...attributes }));
    box.append(mark, words);
    return box;
  };
  $("heat-legend").replaceChildren(scaleBox, entry({ class: "hw" }, "withheld"), entry({ class: "hn", y: 5, height: 2 }, "no answers"));
}

/* ---- health, and the line that says how things are ---- */

/* Who is idle commits once a second all the same, so an old commit says that nobody writes any more. In a replay's namespace the clock
 * is event time: there the moment stands alone. */
function lastCommit(h) {
  if (!h.last_commit_ms) return ["not known"];
  const age = h.as_of_ms - h.last_commit_ms;
  return age < 0 || age > 86400e3 ? [new Date(h.last_commit_ms).toLocaleString("en-GB")]
    : [`${clock(h.last_commit_ms)}, ${span(age)} ago`, age > 10e3 ? "worse" : ""];
}

function drawHealth() {
  const h = health && health.health, w = health && health.window;
  if (!h || h.as_of_ms === undefined) {
    facts($("health"), [["state", !health ? "not read yet" : health.redis ? "nobody writes" : "Redis is away"]]);
    facts($("health-more"), []);
    return;
  }
  const rejected = Object.keys(h).filter((key) => key.startsWith("rejected:"));
  const sum = rejected.reduce((total, key) => total + h[key], 0);
  facts($("health"), [
    ["as of", clock(h.as_of_ms)],
    ["lag", h.lag_ms === undefined ? "not known" : span(h.lag_ms), h.complete ? "" : "worse"],
    ["read through", h.low_watermark_ms === undefined ? "not known" : clock(h.low_watermark_ms)],
    [`the last ${long(S.window)}`, w && w.complete ? "whole" : "not whole", w && w.complete ? "" : "worse"],
    ["instances that commit", number(h.instances), h.instances ? "" : "worse"],
    ["last commit", ...lastCommit(h)],
    ["aggregated by", String(h.aggregator)],
    ["accepted", number(h.accepted)], ["late", number(h.late)], ["rejected", number(sum)], ["offsets lost", number(h.gap), h.gap ? "worse" : ""],
  ]);
  const more = rejected.sort((a, b) => h[b] - h[a]).map((key) => ["rejected: " + key.slice(9), number(h[key])]);
  more.push(["duplicates", number(h.duplicate)], ["holes", number(h.holes)], ["log", `${number(h.log_bytes / 1024)} of ${number(h.log_max_bytes / 1024)} KB`], ["begun", `${number(h.genesis)} time${h.genesis === 1 ? "" : "s"}`]);
  if (h.capped) more.push(["names", "more than series_max: some are counted together", "worse"]);
  for (const key of Object.keys(h)) if (key.startsWith("position:")) {
    const lag = h["lag:" + key.slice(9)];
    more.push(["partition " + key.slice(9), `next offset ${number(h[key])}, ` + (lag === undefined ? "lag not known" : span(lag) + " behind")]);
  }
  facts($("health-more"), more.slice(0, 200));
}

/* One line; what is worst comes first. */
function drawStatus() {
  const h = health && health.health, w = health && health.window, age = performance.now() - healthAt;
  let text, bad = true;
  if (!connected && age > 3000) {
    text = "Connection lost: this page shows what was last known" + (health && h && h.as_of_ms ? `, as of ${clock(h.as_of_ms)}` : "") + ". Trying again.";
  } else if (!health) {
    [text, bad] = ["Reading.", false];
  } else if (!health.redis) {
    text = "Redis is away: what follows is old. Trying again. " + health.why;
  } else if (h.as_of_ms === undefined) {
    text = sets[2].size ? "Stale: nobody writes, so what follows is old. Is livenps-consumer run running?" : "No data yet, and nobody writes: is livenps-consumer run running?";
  } else if (!h.complete) {
    text = h.instances ? `Catching up: records of the last ${h.lag_ms === undefined ? "while" : span(h.lag_ms)} are still being read, so the scores are not whole.`
      : "Nobody reads: the scores move with the clock, but new answers are not counted.";
  } else if (w && !w.complete) {
    text = `Warming up: what was before ${new Date(w.covered_since_ms).toLocaleString("en-GB")} is not known, so the last ${long(S.window)} are not whole yet.`;
  } else {
    [text, bad] = ["Live and whole", false];
  }
  say($("status"), text);
  $("state").className = bad ? "status bad" : "status";
  /* Apart from the words, which are read aloud when they change. */
  say($("as-of"), bad || !h ? "" : `· as of ${clock(h.as_of_ms)}`);
  document.documentElement.classList.toggle("old", bad && (!connected || !health || !health.redis || h.as_of_ms === undefined));
}
setInterval(() => { drawStatus(); if (S.wallboard && start) drawRows(); }, 1000);

/* ---- the stream ---- */

let streamAbort = null, failures = 0, heardAt = 0, drawing = false, round = 0;

/* However much comes, the page is drawn once per frame. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawWhole();
    drawJourney();
    sortRows(false);
    drawRows();
  });
}

function take(name, data) {
  heardAt = performance.now();
  connected = true;
  if (name === "health") {
    health = data;
    healthAt = heardAt;
    drawHealth();
    drawStatus();
  } else if (name === "picture" || name === "change") {
    const first = !loaded;
    if (name === "picture") sets = data.sets.map(() => new Map());
    loaded = true;
    data.sets.forEach((set, i) => {
      for (const row of set.rows) sets[i].set(row[0], row);
      for (const id of set.gone) sets[i].delete(id);
    });
    if (first) {
      drawWhole(); drawJourney(); sortRows(true);
      if (!S.id && order.length && !S.wallboard) choose(order[0]); else loadTrend();
      loadHeat();
    }
    draw();
  }
}

function unauthorised() {
  connected = false;
  $("token-form").hidden = false;
  $("token").focus();
  say($("status"), "A token is needed.");
}
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("livenps-token", token);
  $("token-form").hidden = true;
  begin();
});

const query = () => "?" + new URLSearchParams({ rollup: S.rollup, window: S.window });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function stream(mine) {
  streamAbort = new AbortController();
  const reply = await ask("/api/live" + query(), streamAbort.signal);
  if (reply.status === 401) { unauthorised(); round++; return; }
  if (!reply.ok) throw new Error("status " + reply.status);
  heardAt = performance.now();
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (mine !== round) return;
    if (done) throw new Error("closed");
    heardAt = performance.now();
    if (!value.includes("\n\n") && !(rest.length && value.startsWith("\n"))) { rest.push(value); continue; }
    const events = (rest.join("") + value).split("\n\n");
    rest = [events.pop()];
    for (const event of events) {
      let name = "", data = "";
      for (const each of event.split("\n")) {
        if (each.startsWith("event: ")) name = each.slice(7);
        else if (each.startsWith("data: ")) data += each.slice(6);
      }
      if (name) { failures = 0; take(name, JSON.parse(data)); }
    }
  }
}

/* Where something on the way does not let a stream through. */
async function poll() {
  const reply = await ask("/api/views" + query());
  if (reply.status === 401) { unauthorised(); round++; return; }
  const data = await reply.json();
  if (reply.status === 503) { take("health", { redis: false, why: data.error }); return; }
  if (!reply.ok) throw new Error("status " + reply.status);
  take("picture", data);
  take("health", data.health);
}

async function follow(mine) {
  for (failures = 0; mine === round;) {
    try {
      if (failures >= 3 && failures % 20) { await poll(); failures++; await pause(2000); continue; }
      await stream(mine);
    } catch (error) {
      if (mine !== round) return;
      failures++;
      connected = performance.now() - heardAt < 3000;
      drawStatus();
    }
    if (mine === round) await pause(Math.min(5000, 300 * failures));
  }
}
/* The server says something every second: silence is a lost connection that nobody told us of. */
setInterval(() => { if (streamAbort && failures === 0 && performance.now() - heardAt > 15000) { connected = false; streamAbort.abort(); heardAt = performance.now(); } }, 1000);

/* ---- choices, and the beginning ---- */

function choice(box, entries, current, attribute, role, pick) {
  box.replaceChildren(...entries.map(([value, text, titleText]) => {
    const button = el("button", "", text);
    button.type = "button";
    button.setAttribute("role", role);
    button.setAttribute(attribute, value === current());
    button.tabIndex = value === current() ? 0 : -1;
    button.dataset.value = value;
    if (titleText) button.title = titleText;
    button.onclick = () => {
      pick(value);
      for (const each of box.children) { each.setAttribute(attribute, each === button); each.tabIndex = each === button ? 0 : -1; }
    };
    return button;
  }));
  box.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = [...box.children], at = all.indexOf(document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const next = all[(at + step + all.length) % all.length];
    next.focus();
    next.click();
  };
}

function restart() {
  remember();
  sets = [new Map(), new Map(), new Map()];
  order = [];
  loaded = false;
  heat = { key: "", series: [] };
  trend = null;
  $("grid").scrollTop = 0;
  drawWhole(); drawJourney(); sortRows(true); drawTrend(); drawHeat();
  round++;
  if (streamAbort) streamAbort.abort();
  follow(round);
}

const THEMES = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };
function setTheme() {
  S.theme ? document.documentElement.dataset.theme = S.theme : delete document.documentElement.dataset.theme;
  say($("theme"), THEMES[S.theme] || THEMES[""]);
}
$("theme").onclick = () => {
  const all = Object.keys(THEMES);
  S.theme = all[(all.indexOf(S.theme) + 1) % all.length];
  setTheme();
  remember();
};
$("filter").addEventListener("input", () => { S.q = $("filter").value; remember(); $("grid").scrollTop = 0; sortRows(true); loadHeat(); });
$("show").addEventListener("change", () => { S.show = $("show").value; remember(); $("grid").scrollTop = 0; sortRows(true); loadHeat(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/INPUT|SELECT/.test(event.target.tagName)) { event.preventDefault(); $("filter").focus(); }
});

async function begin() {
  try {
    const reply = await ask("/api/start");
    if (reply.status === 401) return unauthorised();
    if (!reply.ok) throw new Error("status " + reply.status);
    start = await reply.json();
  } catch {
    drawStatus();
    setTimeout(begin, 1000);
    return;
  }
  start.fields.forEach((field, i) => { F[field] = i + 1; });
  if (!start.windows.some((each) => each.name === S.window)) S.window = start.window;
  DEFAULTS.window = start.window;
  if (!start.rollups.includes(S.rollup)) S.rollup = start.rollups.includes("touchpoint") ? "touchpoint" : start.rollups[0];
  if (S.zoom && !start.windows.some((each) => each.name === S.zoom)) S.zoom = "";
  say($("namespace"), start.namespace);
  document.title = "livenps " + start.namespace;
  const windows = start.windows.map((each) => [each.name, each.name, long(each.name)]);
  choice($("windows"), windows, () => S.window, "aria-checked", "radio", (value) => {
    S.window = value;
    S.zoom = "";
    for (const each of $("zooms").children) each.setAttribute("aria-checked", each.dataset.value === value);
    restart();
  });
  choice($("zooms"), windows, () => S.zoom || S.window, "aria-checked", "radio", (value) => {
    S.zoom = value === S.window ? "" : value;
    remember();
    trend = null;
    drawTrend(); loadTrend(); loadHeat();
  });
  choice($("tabs"), start.rollups.filter((each) => each !== "all").map((each) => [each, title(each)]), () => S.rollup, "aria-selected", "tab", (value) => {
    S.rollup = value;
    S.id = "";
    restart();
  });
  restart();
}

document.documentElement.classList.toggle("wallboard", !!S.wallboard);
setTheme();
$("filter").value = S.q;
$("show").value = S.show;
remember();
makeHead();
makeLegend();
begin();
