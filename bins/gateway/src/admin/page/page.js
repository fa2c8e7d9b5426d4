"use strict";
// Asks the API once a second and shows what changed. Everything is put in as text, never as markup: a lane's name is
// somebody else's word.

const SPAN_MIN_MS = 60_000;
const SPAN_MS = 300_000;
const EVERY_MS = 1_000;
const CLASSES = ["P0", "P1", "P2", "P3"];

const at = (id) => document.getElementById(id);
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const number = (value) => value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
const history = CLASSES.map(() => []);
let before = null;

/** Bytes for people. */
function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit++; }
  return `${count.toFixed(count < 10 && unit ? 1 : 0)} ${units[unit]}`;
}

/** A duration for people. */
function duration(ms) {
  const seconds = Math.floor(ms / 1000);
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

/** The quantile of what was counted between two looks, in microseconds; null if nothing was. */
function quantile(ends, now, then, share) {
  const counts = now.map((count, index) => count - then[index]);
  const total = sum(counts);
  if (total <= 0) return null;
  let seen = 0;
  for (let index = 0; index < counts.length; index++) {
    seen += counts[index];
    if (seen >= total * share) return ends[index];
  }
  return null;
}

function cell(row, text, kind) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (kind) cell.className = kind;
  return cell;
}

function fill(id, rows, empty) {
  const body = document.createElement("tbody");
  body.id = id;
  for (const write of rows) write(body.insertRow());
  if (!rows.length) cell(body.insertRow(), empty, "soft").colSpan = 9;
  at(id).replaceWith(body);
}

function showClasses(now, then, seconds) {
  const ends = now.overview.latency.bucket_ends_us;
  fill("classes", CLASSES.map((name, index) => (row) => {
    const of = (stage, share) => quantile(ends, now.overview.latency[stage][index], then.overview.latency[stage][index], share);
    const pushed = sum(now.overview.latency.push[index]) - sum(then.overview.latency.push[index]);
    history[index].push({ at: now.at, us: of("push", .99) });
    while (history[index].length && history[index][0].at < now.at - SPAN_MS) history[index].shift();
    row.className = `p${index}`;
    cell(row, name, "mark");
    cell(row, number(pushed / seconds), "n");
    cell(row, Charts.time(of("push", .5)), "n");
    cell(row, Charts.time(of("push", .99)), "n");
    cell(row, Charts.time(of("ring_wait", .99)), "n");
    cell(row, Charts.time(of("journal", .99)), "n");
  }), "");
  draw();
}

function draw() {
  const newest = before ? before.at : Date.now();
  // A page that was opened just now shows a minute, and then more and more.
  const oldest = Math.min(newest, ...history.map((samples) => samples[0]?.at ?? newest));
  const span = Math.max(SPAN_MIN_MS, Math.min(SPAN_MS, newest - oldest));
  Charts.latencies(at("latency"), history, newest, span);
}

function showLanes(now, then, seconds) {
  const lanes = now.lanes.lanes;
  at("lane-note").textContent = now.lanes.refused ? `${number(now.lanes.refused)} refused: see below` : "";
  fill("lanes", lanes.map((lane) => (row) => {
    const known = then.lanes.lanes.find((other) => other.key === lane.key);
    const name = cell(row, lane.name);
    const words = lane.quarantined ? " quarantined" : !lane.attached ? " gone" : lane.producer_alive === false ? " no producer" : "";
    const state = document.createElement("span");
    state.textContent = words;
    state.className = lane.quarantined ? "bad" : "soft";
    name.append(state);
    cell(row, number(known ? (sum(lane.read) - sum(known.read)) / seconds : null), "n");
    const fills = document.createElement("div");
    fills.className = "fills";
    (lane.rings || []).forEach((ring, index) => {
      const meter = document.createElement("meter");
      meter.className = `p${index}`;
      meter.max = ring.capacity_bytes;
      meter.low = meter.high = ring.capacity_bytes * .8;
      meter.optimum = 0;
      meter.value = ring.unread_bytes ?? 0;
      meter.title = `${CLASSES[index]}: ${bytes(ring.unread_bytes)} unread of ${bytes(ring.capacity_bytes)}, at most ${bytes(ring.high_water_bytes)}`;
      fills.append(meter);
    });
    cell(row, "").append(fills);
    const refused = lane.rings ? sum(lane.rings.map((ring) => ring.refused)) : null;
    cell(row, number(refused), refused ? "n bad" : "n");
    const lost = sum(lane.lost) + sum(lane.rejected);
    cell(row, number(lost), lost ? "n bad" : "n");
  }), "no producer has opened a lane yet");
}

function showFacts({ overview, sessions }) {
  const all = (field) => sum(sessions.shards.map((shard) => shard[field]));
  const fact = (words, value, isBad) => (row) => { cell(row, words); cell(row, value, isBad ? "n bad" : "n"); };
  fill("closes", [
    fact("conflated for slow clients", number(all("conflated"))),
    fact("handshakes failed", number(all("handshakes_failed"))),
    ...sessions.closes.map(({ code, reason, count }) => fact(`${code} ${reason.replaceAll("_", " ")}`, number(count))),
  ], "");
  const { journal, process } = overview;
  const mismatch = all("user_mismatch"), unreadable = all("unreadable");
  fill("facts", [
    fact("journal files", bytes(journal.bytes)),
    fact("kept in them", bytes(journal.retained_bytes)),
    fact("written since the start", bytes(journal.written_bytes)),
    fact("disk", journal.disk_full ? "full: nothing is read" : journal.disk_tight ? "nearly full" : "has room", journal.disk_full || journal.disk_tight),
    fact("files", `${number(process.open_fds)} of ${number(process.max_fds)}`, process.open_fds > process.max_fds * .9),
    fact("replayed", number(all("replayed"))),
    fact("foreign on the send path", number(mismatch), mismatch),
    fact("unreadable entries", number(unreadable), unreadable),
  ], "");
}

function showErrors({ errors }) {
  fill("errors", errors.errors.slice(0, 12).map((error) => (row) => {
    cell(row, new Date(error.last_ms).toLocaleTimeString("en-GB"));
    cell(row, number(error.count), "n");
    cell(row, error.text, error.level === "error" ? "text bad" : "text");
  }), "none");
}

function show(now) {
  const { overview, lanes, sessions, streams } = now;
  at("gateway").textContent = overview.gateway;
  at("about").textContent = `bus ${overview.bus}, version ${overview.version}, up ${duration(overview.uptime_ms)}`;
  at("state").dataset.state = overview.ready ? "ready" : "fault";
  at("state").textContent = overview.ready ? "ready" : overview.faults.map((fault) => fault.fault).join("; ");
  at("sessions").textContent = number(sum(sessions.shards.map((shard) => shard.sessions)));
  at("streams").textContent = number(streams.streams);
  at("memory").textContent = bytes(overview.process.resident_bytes);
  showFacts(now);
  showErrors(now);
  const then = before && before.overview.uptime_ms <= overview.uptime_ms ? before : null;
  const seconds = then ? (now.at - then.at) / 1000 : 1;
  const read = (look) => sum(look.lanes.lanes.map((lane) => sum(lane.journalled)));
  const delivered = (look) => sum(look.sessions.shards.map((shard) => shard.delivered));
  if (then) {
    at("rate-in").textContent = number(Math.max(0, read(now) - read(then)) / seconds);
    at("rate-out").textContent = number((delivered(now) - delivered(then)) / seconds);
    at("cpu").textContent = `${((overview.process.cpu_seconds - then.overview.process.cpu_seconds) / seconds * 100).toFixed(0)} %`;
  }
  before = now;
  showLanes(now, then || now, seconds);
  if (then) showClasses(now, then, seconds);
}

async function look() {
  try {
    const names = ["overview", "lanes", "sessions", "streams", "errors"];
    const answers = await Promise.all(names.map(async (name) => {
      const response = await fetch(`/api/v1/${name}`, { signal: AbortSignal.timeout(5_000) });
      if (!response.ok) throw new Error(`${name}: ${response.status}`);
      return [name, await response.json()];
    }));
    show({ at: Date.now(), ...Object.fromEntries(answers) });
  } catch (error) {
    at("state").dataset.state = "fault";
    at("state").textContent = "no answer from the gateway";
    console.warn(error);
  }
  setTimeout(look, EVERY_MS);
}

addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
look();
