// A client for a Bellwire gateway, for browsers: every notification once and in order, through lost connections, restarts of
// the gateway and reloads of the page. No dependencies. The protocol is explained in PROTOCOL.md beside this folder.
//
//   const client = new Bellwire("wss://push.example.com", {
//     token: () => fetch("/token").then((answer) => answer.text()),   // one that is good now
//     position: load(),                                               // {} at first
//     onNotification(stream, seq, notification, position) { ... save(position) },
//     onResync(stream, why) { ... },                                  // what was missed cannot be had: load the state anew
//     onState(state, detail) { ... },                                 // "connecting", "live", "waiting", "refused"
//   });
//   client.close();

const NORMAL = 1000;
const TOKEN_EXPIRED = 4503;
const UNKNOWN_POSITION = 4511;
const FAULTS_OF_OURS = [1002, 1003, 1007, 1009];
const BACK_OFF_MS = { first: 250, most: 30_000 };

// Times are 64-bit integers, which JSON.parse would round: they become BigInt where the engine shows a number's own text.
const exact = (key, value, context) =>
  typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source)
    ? BigInt(context.source)
    : value;

export class Bellwire {
  #url;
  #options;
  #position;
  #socket = null;
  #timer = null;
  #tries = 0;
  #closed = false;

  constructor(url, options) {
    this.#url = url;
    this.#options = { onNotification() {}, onResync() {}, onState() {}, ...options };
    this.#position = structuredClone(options.position ?? {});
    this.#connect();
    // A laptop that was closed, a network that is back: do not wait for the timer.
    this.online = () => this.#socket === null && this.#connect();
    addEventListener("online", this.online);
  }

  /** Ends it; what was delivered stays delivered, and the position can be used again. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    removeEventListener("online", this.online);
    this.#socket?.close(NORMAL);
  }

  /** Per stream, the epoch and the number of the last notification that `onNotification` was given. */
  get position() {
    return structuredClone(this.#position);
  }

  async #connect() {
    clearTimeout(this.#timer);
    if (this.#closed || this.#socket !== null) return;
    this.#options.onState("connecting", "");
    let socket;
    try {
      const token = await this.#options.token();
      if (this.#closed || this.#socket !== null) return;
      socket = new WebSocket(this.#url, ["bellwire.v1.json", `bearer.${token}`]);
    } catch (error) {
      return this.#comeBack(String(error));
    }
    this.#socket = socket;
    const session = { joined: false, patience: 30_000, comeBackIn: null };
    // A gateway that says nothing for two heartbeats is dead, whatever the network says. A close could wait for an answer
    // that never comes, so the socket is not listened to any more.
    const alive = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#leave(socket, session, 1006, "silence"), session.patience);
    };
    socket.onopen = () => {
      const { channels } = this.#options;
      socket.send(JSON.stringify({ op: "subscribe", id: 1, channels, resume: this.#position }));
      alive();
    };
    socket.onmessage = ({ data }) => {
      const why = this.#take(JSON.parse(data, exact), socket, session);
      if (why) this.#leave(socket, session, 1006, why);
      else alive();
    };
    socket.onclose = ({ code, reason }) => this.#leave(socket, session, code, reason);
    alive();
  }

  // One frame. Says why the connection is of no use any more, if it is.
  #take(frame, socket, session) {
    const { op, stream } = frame;
    if (op === "hello") session.patience = 2 * frame.heartbeat_ms;
    if (op === "goodbye") session.comeBackIn = frame.reconnect_after_ms;
    if (op === "auth_expiring")
      Promise.resolve(this.#options.token()).then((token) => socket.send(JSON.stringify({ op: "auth", token })));
    if (op === "error" && frame.code === UNKNOWN_POSITION) {
      this.#position = {};
      return frame.msg;
    }
    if (op === "subscribed") {
      for (const [name, { epoch, seq }] of Object.entries(frame.streams)) this.#position[name] = { epoch, seq };
      session.joined = true;
      this.#tries = 0;
      this.#options.onState("live", "");
    }
    if (op === "resync") {
      this.#position[stream] = { epoch: frame.epoch, seq: frame.head };
      this.#options.onResync(stream, frame.why);
    }
    if (!session.joined) return null;
    const moves = op === "heartbeat" ? frame.streams : "prev" in frame ? { [stream]: frame } : {};
    for (const [name, move] of Object.entries(moves)) {
      const at = this.#position[name];
      if (move.epoch !== at.epoch || move.prev !== at.seq) return `a gap in ${name}: at ${at.seq}, told ${move.prev}`;
      for (const { seq, data } of op === "notification" ? [frame] : (frame.items ?? [])) {
        at.seq = seq;
        this.#options.onNotification(name, seq, data, this.#position);
      }
      at.seq = move.seq;
    }
    return null;
  }

  #leave(socket, session, code, reason) {
    if (this.#socket !== socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close();
    this.#socket = null;
    clearTimeout(this.#timer);
    if (this.#closed) return;
    if (FAULTS_OF_OURS.includes(code) || (code >= 4500 && code !== TOKEN_EXPIRED)) {
      this.close();
      return this.#options.onState("refused", `${code} ${reason}`);
    }
    this.#comeBack(`${code} ${reason}`, session.comeBackIn);
  }

  #comeBack(why, inMs = null) {
    const most = Math.min(BACK_OFF_MS.most, BACK_OFF_MS.first * 2 ** this.#tries++);
    this.#options.onState("waiting", why);
    this.#timer = setTimeout(() => this.#connect(), inMs ?? Math.random() * most);
  }
}
