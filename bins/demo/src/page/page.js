"use strict";
// What a trader wants to see of his stream. The WebSocket client itself is session.js, in a worker.

const $ = (id) => document.getElementById(id);
const CLASSES = [
  { name: "rejections, risk", target: 1_000 },
  { name: "orders, trades", target: 5_000 },
  { name: "accounts, positions", target: 100_000 },
  { name: "system, expiries", target: 1_000_000 },
];
const FEED_MAX = 150;
const DROP_MS = 3_000;

// ---- Numbers -------------------------------------------------------------------------------------------------------

/** Milliseconds with their fraction, of nanoseconds that came as text (see session.js). */
const milliseconds = (ns) => Number(BigInt(ns) / 1000n) / 1000;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const cents = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
function duration(us) {
  if (us < 1_000) return `${Math.max(us, 0).toFixed(0)} µs`;
  if (us < 100_000) return `${(us / 1_000).toFixed(us < 10_000 ? 2 : 1)} ms`;
  return us < 1_000_000 ? `${(us / 1_000).toFixed(0)} ms` : `${(us / 1_000_000).toFixed(2)} s`;
}
function clockTime(ns) {
  const ms = milliseconds(ns), date = new Date(ms);
  return `${date.toTimeString().slice(0, 8)}.${String(Math.floor(ms % 1000)).padStart(3, "0")}`;
}

// ---- The feed ------------------------------------------------------------------------------------------------------

const element = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

const TITLES = {
  order_accepted: "Order accepted", order_rejected: "Order rejected", order_partially_filled: "Partly filled",
  order_filled: "Order filled", order_canceled: "Order canceled", order_expired: "Order expired",
  trade_executed: "Trade", trade_canceled: "Trade canceled", account_open: "Account opened",
  account_update: "Account", position_update: "Position", position_profit: "Valuation",
  risk_alert: "Risk alert", margin_call: "Margin call", position_limit: "Position limit",
  system_notice: "Notice", trading_session_start: "Session starts", trading_session_end: "Session ends",
  market_halt: "Trading halted",
};

/** What a payload says, as pieces of text; pieces with a class are emphasised. */
function words(p) {
  const side = (direction) => ({ text: direction, className: direction === "BUY" ? "buy" : "sell" });
  const price = (value) => (value ? `@ ${cents.format(value)}` : "at the market");
  switch (p.type) {
    case "order_accepted": return [side(p.direction), ` ${p.offset.toLowerCase()} ${p.volume} ${p.instrument_id} ${price(p.price)}`, { dim: p.order_id }];
    case "order_rejected": return [p.reason, { dim: `${p.error_code} · ${p.order_id}` }];
    case "order_partially_filled": return [`${p.filled_volume} of ${p.filled_volume + p.remaining_volume} ${p.instrument_id}, average ${cents.format(p.average_price)}`, { dim: p.order_id }];
    case "order_filled": return [`${p.filled_volume} ${p.instrument_id}, average ${cents.format(p.average_price)}`, { dim: p.order_id }];
    case "order_canceled": return [p.reason, { dim: p.order_id }];
    case "order_expired": return [`${p.unfilled_volume} ${p.instrument_id}: ${p.reason}`, { dim: p.order_id }];
    case "trade_executed": return [side(p.direction), ` ${p.offset.toLowerCase()} ${p.volume} ${p.instrument_id} ${price(p.price)}`, { dim: `${p.trade_id} · ${p.order_id}` }];
    case "account_open": return [`${p.account_name}, ${cents.format(p.init_cash)}`];
    case "account_update": return [`available ${cents.format(p.available)}, margin ${cents.format(p.margin)}`, { dim: `risk ${(p.risk_ratio * 100).toFixed(0)} %` }];
    case "position_update": return [`${p.instrument_id} long ${p.volume_long}, short ${p.volume_short}`, { dim: `profit ${cents.format(p.profit_long + p.profit_short)}` }];
    case "position_profit": return [`${p.instrument_id} at ${cents.format(p.settle_price)}: ${cents.format(p.float_profit)}`];
    case "risk_alert": return [`${p.severity.toLowerCase()}: ${p.message}`, { dim: p.suggestion }];
    case "margin_call": return [`${p.message} until ${clockTime(p.deadline).slice(0, 5)}`];
    case "position_limit": return [p.message];
    case "system_notice": return [`${p.title}: ${p.content}`];
    case "trading_session_start": case "trading_session_end": return [`${p.name}, ${p.trading_day}`];
    case "market_halt": return [`${p.instrument_id || "the whole market"}: ${p.reason}`];
    default: return [JSON.stringify(p)];
  }
}

class Feed {
  constructor(list) {
    this.list = list;
    this.waiting = [];
    this.paused = false;
  }

  /** Shown with the next frame; while paused, only the newest are kept. */
  add(row) {
    this.waiting.push(row);
    if (this.waiting.length > FEED_MAX) this.waiting.shift();
  }

  mark(text) { this.add({ mark: text }); }

  clear() {
    this.waiting.length = 0;
    this.list.replaceChildren();
  }

  draw() {
    if (this.paused || !this.waiting.length) return;
    const atTop = this.list.scrollTop < 8;
    const before = this.list.scrollHeight;
    const rows = document.createDocumentFragment();
    for (const row of this.waiting.reverse()) rows.append(row.mark ? element("li", "mark", row.mark) : this.row(row));
    this.waiting = [];
    this.list.prepend(rows);
    while (this.list.childElementCount > FEED_MAX) this.list.lastElementChild.remove();
    // Whoever scrolled down to read keeps his place.
    if (!atTop) this.list.scrollTop += this.list.scrollHeight - before;
  }

  row({ data, seq, stream, us, replay }) {
    const item = element("li", `p${data.priority}${replay ? "" : " new"}`);
    const what = element("span", "what");
    what.append(element("b", "", TITLES[data.message_type] ?? data.message_type), "  ");
    for (const piece of words(data.payload)) {
      if (typeof piece === "string") what.append(piece);
      else if (piece.dim) what.append("  ", element("i", "", piece.dim));
      else what.append(element("span", piece.className, piece.text));
    }
    const took = element("span", "took", replay ? "replayed" : duration(us));
    took.title = replay ? "missed while disconnected" : "from publish to this browser";
    item.append(element("time", "", clockTime(data.timestamp)), element("span", "tag", `P${data.priority}`), what, took);
    item.addEventListener("click", (event) => {
      if (event.target.tagName === "PRE") return;
      const open = item.querySelector("pre");
      if (open) open.remove();
      else item.append(element("pre", "", JSON.stringify({ stream, seq, ...data }, null, 2)));
    });
    return item;
  }
}

// ---- The panels ----------------------------------------------------------------------------------------------------

const feed = new Feed($("feed"));
const strips = CLASSES.map(({ name, target }, index) => {
  const lane = element("div", `lane p${index}`), facts = element("div"), title = element("h3", "", `P${index} `);
  title.append(element("span", "", name));
  const mine = element("p"), all = element("p"), canvas = element("canvas");
  facts.append(title, mine, all);
  lane.append(facts, canvas);
  $("latency").append(lane);
  const strip = new Charts.Strip(canvas, `--p${index}`, target);
  return { strip, mine, all, target };
});
const sparks = {
  published: new Charts.Line($("spark-published"), "--p1", 60),
  delivered: new Charts.Line($("spark-delivered"), "--p2", 60),
  you: new Charts.Line($("spark-you"), "--p3", 60),
};
const equityLine = new Charts.Line($("equity-line"), "--accent", 240, { fromZero: false });
let session = null, received = 0, gaps = 0, resumes = 0, replayed = 0, positions = new Map(), alarmUntil = 0, changed = true;

function signed(target, value) {
  target.textContent = cents.format(value);
  target.className = value > 0 ? "up" : value < 0 ? "down" : "";
}

function showAccount(update) {
  $("equity").textContent = cents.format(update.balance + update.position_profit);
  $("available").textContent = cents.format(update.available);
  $("margin").textContent = cents.format(update.margin);
  $("frozen").textContent = cents.format(update.frozen);
  signed($("floating"), update.position_profit);
  signed($("realised"), update.close_profit);
  $("risk").textContent = `${(update.risk_ratio * 100).toFixed(0)} %`;
  const fill = $("risk-fill");
  // The meter ends at 150 %: the marks stand at 80 % and at 100 %.
  fill.style.width = `${Math.min(update.risk_ratio / 1.5, 1) * 100}%`;
  fill.dataset.level = update.risk_ratio >= 1 ? 2 : update.risk_ratio >= .8 ? 1 : 0;
  $("account-at").textContent = `as of ${clockTime(update.timestamp)}`;
  equityLine.add(update.balance + update.position_profit);
}

function showPositions() {
  const rows = [...positions.values()].filter((p) => p.long || p.short).sort((a, b) => a.id.localeCompare(b.id));
  if (!rows.length) {
    const none = element("tr", "none"), cell = element("td", "", "none");
    cell.colSpan = 5;
    none.append(cell);
    $("positions").replaceChildren(none);
    return;
  }
  $("positions").replaceChildren(...rows.map((p) => {
    const row = element("tr");
    row.append(element("td", "", p.id), element("td", "", p.long || "–"), element("td", "", p.short || "–"), element("td", "", p.price ? cents.format(p.price) : "–"));
    const profit = element("td");
    signed(profit, p.profit);
    row.append(profit);
    return row;
  }));
}

/** What a payload changes in the panels. */
function apply(p) {
  const position = (id) => positions.get(id) ?? positions.set(id, { id, long: 0, short: 0, price: 0, profit: 0 }).get(id);
  switch (p.type) {
    case "account_update": showAccount(p); break;
    case "position_update": Object.assign(position(p.instrument_id), { long: p.volume_long, short: p.volume_short, profit: p.profit_long + p.profit_short }); changed = true; break;
    case "position_profit": Object.assign(position(p.instrument_id), { price: p.settle_price, profit: p.float_profit }); changed = true; break;
    case "trade_executed": position(p.instrument_id).price = p.price; changed = true; break;
    case "margin_call": case "position_limit": case "risk_alert":
      $("alarm").textContent = `${TITLES[p.type]}: ${p.message}`;
      $("alarm").hidden = false;
      alarmUntil = performance.now() + 12_000;
  }
}

/** What the session tells. */
const told = {
  state({ state, text }) {
    $("state").dataset.state = state;
    $("state").textContent = text;
    $("drop").disabled = state !== "live";
  },
  notifications({ arrivals }) {
    for (const arrival of arrivals) {
      received++;
      if (arrival.missed) $("replayed").textContent = whole.format(++replayed);
      if (!arrival.replay) strips[arrival.data.priority].strip.add(performance.now(), arrival.us);
      apply(arrival.data.payload);
      feed.add(arrival);
    }
  },
  snapshot: ({ payloads }) => payloads.forEach(apply),
  mark: ({ text }) => feed.mark(text),
  resumed() { $("resumes").textContent = whole.format(++resumes); },
  gap({ stream, position, prev }) {
    $("gaps").textContent = whole.format(++gaps);
    feed.mark(`gap in the ${stream} stream: at ${position}, the gateway continues from ${prev}; resuming`);
  },
  position({ user, all }) {
    $("position-user").textContent = whole.format(user.seq);
    $("position-all").textContent = whole.format(all.seq);
    $("epoch").textContent = user.epoch;
  },
};

function watch(user) {
  session?.postMessage({ type: "end" });
  feed.clear();
  positions = new Map();
  received = gaps = resumes = replayed = 0;
  for (const id of ["gaps", "resumes", "replayed"]) $(id).textContent = "0";
  for (const id of ["equity", "available", "margin", "frozen", "floating", "realised", "risk", "account-at"]) $(id).textContent = "–";
  $("alarm").hidden = true;
  strips.forEach(({ strip }) => strip.clear());
  equityLine.clear();
  sparks.you.clear();
  changed = true;
  $("who").textContent = `of ${user}`;
  try { history.replaceState(null, "", `?user=${user}`); } catch { /* a file or a frame */ }
  const started = new Worker("/session.js");
  // What an earlier session still has to say concerns nobody.
  started.onmessage = ({ data }) => { if (session === started) told[data.type](data); };
  started.postMessage({ type: "watch", user });
  session = started;
}

// ---- Rhythm --------------------------------------------------------------------------------------------------------

// Eyes need no more, and the machine has an exchange to run.
const DRAW_EVERY_MS = 160;
let drawnAt = 0;
function draw(now) {
  requestAnimationFrame(draw);
  if (now - drawnAt < DRAW_EVERY_MS) return;
  drawnAt = now;
  feed.draw();
  if (changed) {
    changed = false;
    showPositions();
  }
  for (const { strip } of strips) {
    strip.trim(now);
    strip.draw(now);
  }
  equityLine.draw();
  Object.values(sparks).forEach((spark) => spark.draw());
  if (alarmUntil && now > alarmUntil) {
    alarmUntil = 0;
    $("alarm").hidden = true;
  }
}

let receivedBefore = 0;
async function look() {
  for (const { strip, mine, target } of strips) {
    const q = strip.quantiles();
    mine.replaceChildren();
    if (!q) { mine.append("nothing yet"); continue; }
    mine.append("p50 ", element("b", "", duration(q.p50)), "  p99 ", element("b", q.p99 < target ? "met" : "missed", duration(q.p99)));
  }
  const rate = Math.max(received - receivedBefore, 0);
  receivedBefore = received;
  $("you-rate").textContent = whole.format(rate);
  sparks.you.add(rate);
  let seen = null;
  try { seen = await (await fetch("/api/look")).json(); } catch { /* the demo has ended; the state says so */ }
  if (!seen) return;
  $("bus-published").textContent = whole.format(seen.published_rate);
  $("bus-delivered").textContent = whole.format(seen.delivered_rate);
  $("bus-sessions").textContent = whole.format(seen.sessions);
  $("bus-total").textContent = compact.format(seen.delivered);
  sparks.published.add(seen.published_rate);
  sparks.delivered.add(seen.delivered_rate);
  seen.classes.forEach(({ run }, index) => {
    strips[index].all.textContent = run ? `all ${seen.users}: p99 ${duration(run.p99)}` : "";
  });
}
setInterval(look, 1000);

// ---- Controls ------------------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(theme) { document.documentElement.dataset.theme = theme ?? (dark.matches ? "dark" : "light"); }
function storedTheme() { try { return localStorage.getItem("theme") ?? undefined; } catch { return undefined; } }
setTheme(storedTheme());
dark.addEventListener("change", () => setTheme(storedTheme()));
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", theme); } catch { /* then it is for this page only */ }
  setTheme(theme);
});
$("drop").addEventListener("click", () => session?.postMessage({ type: "drop", ms: DROP_MS }));
$("kill").addEventListener("click", () => {
  feed.mark("kill -9 of the gateway");
  fetch("/api/kill-gateway", { method: "POST", headers: { "X-Bellwire-Demo": "1" } }).catch(() => {});
});
$("user").addEventListener("change", (event) => watch(event.target.value));
$("pause").addEventListener("click", ({ target }) => {
  feed.paused = !feed.paused;
  target.setAttribute("aria-pressed", feed.paused);
  target.textContent = feed.paused ? "Go on" : "Pause";
});
for (const chip of document.querySelectorAll(".chip")) {
  chip.addEventListener("click", () => {
    const show = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", show);
    $("feed").dataset[`hide${chip.dataset.class}`] = show ? "" : "1";
  });
}

async function start() {
  const users = await (await fetch("/api/users")).json();
  const groups = new Map();
  for (const { id, kind } of users) {
    if (!groups.has(kind)) groups.set(kind, Object.assign(element("optgroup"), { label: `${kind}s` }));
    groups.get(kind).append(Object.assign(element("option", "", id), { value: id }));
  }
  $("user").append(...groups.values());
  const asked = new URLSearchParams(location.search).get("user");
  const user = users.some(({ id }) => id === asked) ? asked : users[Math.min(2, users.length - 1)].id;
  $("user").value = user;
  requestAnimationFrame(draw);
  watch(user);
}
start().catch((error) => told.state({ state: "down", text: `the demo does not answer: ${error.message}` }));
