"use strict";
// A client of protocol v1, in a worker: what a notification took to get here is told by the clock, not by how busy the
// page is with drawing.
//
// It is written as any client may be: a plain WebSocket with the sub-protocols "bellwire.v1.json" and "bearer.<token>",
// and the client's one rule, that a frame's `prev` must be the position.

/** How many notifications of the past a new session begins with. */
const HISTORY = 30;

// Nanoseconds since 1970 do not fit into a JavaScript number: JSON.parse would round them to 256 ns. They are quoted
// before parsing, and BigInt reads them. Inside a string every quote is escaped, so `"timestamp":` can only be a key.
const NANOSECONDS = /"(timestamp|deadline|resume_at)":(-?\d{16,})/g;
const parseFrame = (text) => JSON.parse(text.replace(NANOSECONDS, '"$1":"$2"'));
/** Milliseconds, with microseconds behind the point. */
const milliseconds = (ns) => Number(BigInt(ns) / 1000n) / 1000;

// The wall clock in fine steps. Date.now() cuts its milliseconds off, so each reading of it against performance.now() is
// a lower bound of their distance, and the greatest of many readings is the distance. One is taken with every frame;
// windows of half a minute follow a wall clock that is corrected.
const WINDOW_MS = 30_000;
const clock = { now: -Infinity, before: -Infinity, since: 0 };
function readClock() {
  const fine = performance.now();
  if (fine - clock.since > WINDOW_MS) Object.assign(clock, { before: clock.now, now: -Infinity, since: fine });
  clock.now = Math.max(clock.now, Date.now() - fine);
}
function wallMs() {
  const fine = performance.now();
  readClock();
  return fine + Math.max(clock.now, clock.before);
}
// A few ticks to begin with.
for (const until = performance.now() + 4; performance.now() < until;) readClock();

const tell = (type, facts = {}) => postMessage({ type, ...facts });

/** One user's WebSocket: connects, resumes, and follows `prev` and `seq`. */
class Session {
  constructor(user) {
    this.user = user;
    this.positions = { user: null, all: null };
    // Up to which position what comes was missed while the connection was down.
    this.missed = { user: 0, all: 0 };
    this.tries = 0;
    this.over = false;
    this.connect();
  }

  async connect() {
    if (this.over) return;
    tell("state", { state: "wait", text: "connecting" });
    try {
      const response = await fetch(`/api/session/${this.user}`);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { url, token } = await response.json();
      if (this.over) return;
      this.socket = new WebSocket(url, ["bellwire.v1.json", `bearer.${token}`]);
    } catch (error) {
      this.retry(`demo not reachable: ${error.message}`);
      return;
    }
    this.socket.onmessage = (event) => {
      const arrived = wallMs();
      this.frame(parseFrame(event.data), arrived);
    };
    this.socket.onclose = (event) => this.closed(event);
  }

  end() {
    this.over = true;
    clearTimeout(this.timer);
    if (this.socket) this.socket.close();
  }

  /** Cuts the connection as a bad network would, and comes back later. */
  drop(ms) {
    this.stayAway = ms;
    if (!this.socket) return;
    // What is still in the socket's queue counts as missed: it will be replayed.
    this.socket.onmessage = null;
    this.socket.close();
  }

  closed(event) {
    if (this.over) return;
    if (event.code >= 4500 && event.code < 5000) {
      tell("state", { state: "down", text: `refused: ${event.code} ${event.reason}` });
      return;
    }
    this.retry(event.reason || (this.stayAway ? "dropped on purpose" : "connection lost"));
  }

  retry(why) {
    const wait = this.stayAway ?? Math.min(250 * 2 ** this.tries++, 5_000) * (.7 + Math.random() * .6);
    this.stayAway = undefined;
    tell("state", { state: "down", text: `${why}, back in ${(wait / 1000).toFixed(1)} s` });
    this.timer = setTimeout(() => this.connect(), wait);
  }

  send(frame) { this.socket.send(JSON.stringify(frame)); }

  frame(frame, arrived) {
    switch (frame.op) {
      case "auth_ok": return this.subscribe(frame.streams);
      case "subscribed": return this.subscribed(frame.streams);
      case "notification": return this.take(frame, [{ seq: frame.seq, data: frame.data }], arrived);
      case "batch": return this.take(frame, frame.items, arrived);
      case "replay_end": return void this.step(frame);
      case "heartbeat":
        for (const [stream, state] of Object.entries(frame.streams)) this.step({ stream, ...state });
        return;
      case "snapshot": return tell("snapshot", { payloads: frame.items.map((item) => item.data.payload) });
      case "resync":
        this.positions[frame.stream] = { epoch: frame.epoch, seq: frame.head };
        return tell("mark", { text: `the ${frame.stream} stream starts anew: ${frame.why}` });
      case "error": return tell("mark", { text: `error ${frame.code}: ${frame.msg}` });
      case "goodbye":
        this.stayAway = frame.reconnect_after_ms;
        return;
    }
  }

  /** Resumes where the last connection ended; the first time it begins with the last few notifications. */
  subscribe(streams) {
    const resume = {};
    for (const [stream, state] of Object.entries(streams)) {
      this.positions[stream] ??= { epoch: state.epoch, seq: Math.max(state.oldest - 1, state.head - HISTORY, 0) };
      const { epoch, seq } = this.positions[stream];
      resume[stream] = { epoch, seq };
    }
    this.send({ op: "subscribe", id: 1, snapshot: true, resume });
  }

  subscribed(streams) {
    this.tries = 0;
    const again = this.connectedBefore;
    this.connectedBefore = true;
    let missed = 0;
    for (const [stream, state] of Object.entries(streams)) {
      this.missed[stream] = again && state.recovered ? state.to : 0;
      missed += this.missed[stream] && state.to - this.positions[stream].seq;
    }
    if (again) {
      tell("resumed");
      tell("mark", { text: missed ? `reconnected: the gateway replays the ${missed} notifications that were missed` : "reconnected, nothing was missed" });
    }
    tell("state", { state: "live", text: "live" });
    tell("position", this.positions);
  }

  /** The client's one rule. A gap is never ignored: the session starts over from its position. */
  step({ stream, prev, seq }) {
    const position = this.positions[stream];
    if (prev !== position.seq) {
      tell("gap", { stream, position: position.seq, prev });
      this.drop(0);
      return false;
    }
    position.seq = seq;
    tell("position", this.positions);
    return true;
  }

  take(frame, items, arrived) {
    if (!this.step(frame)) return;
    const { stream, replay = false } = frame;
    tell("notifications", {
      arrivals: items.map(({ seq, data }) => {
        const us = (arrived - milliseconds(data.timestamp)) * 1000;
        return { data, seq, stream, replay, us, missed: seq <= this.missed[stream] };
      }),
    });
  }
}

let session = null;
onmessage = ({ data: { type, user, ms } }) => {
  switch (type) {
    case "watch": session = new Session(user); break;
    case "drop": session?.drop(ms); break;
    case "end":
      session?.end();
      close();
  }
};
