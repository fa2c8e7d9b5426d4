"use strict";
// Small charts on canvas: no library, no outside resource. Colours come from the style sheet, so that a theme is one
// place; sizes follow the element, so that narrow windows need nothing special.

const Charts = (() => {
  const SPAN_MS = 60_000;

  /** A canvas made sharp for this screen, wiped clean. Gives null while it is not visible. */
  function sheet(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return null;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return { pen, width, height };
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** The value at that share of the sorted samples. */
  function quantile(sorted, share) {
    return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  }

  /** Latencies of one class: a dot each, time to the right, microseconds upward on a logarithmic scale. */
  class Strip {
    static LOW = 50;
    static HIGH = 2_000_000;
    static SAMPLES_MAX = 4_000;

    constructor(canvas, colourName, targetUs) {
      this.canvas = canvas;
      this.colourName = colourName;
      this.targetUs = targetUs;
      this.samples = [];
    }

    add(at, us) {
      this.samples.push({ at, us });
      if (this.samples.length > Strip.SAMPLES_MAX) this.samples.splice(0, Strip.SAMPLES_MAX / 4);
    }

    clear() { this.samples.length = 0; }

    trim(now) {
      let gone = 0;
      while (gone < this.samples.length && this.samples[gone].at < now - SPAN_MS) gone++;
      if (gone) this.samples.splice(0, gone);
    }

    quantiles() {
      if (!this.samples.length) return null;
      const sorted = this.samples.map((sample) => sample.us).sort((a, b) => a - b);
      return { p50: quantile(sorted, .5), p99: quantile(sorted, .99), max: sorted[sorted.length - 1], count: sorted.length };
    }

    draw(now) {
      const paper = sheet(this.canvas);
      if (!paper) return;
      const { pen, width, height } = paper;
      const low = Math.log(Strip.LOW), range = Math.log(Strip.HIGH) - low;
      const y = (us) => height - 3 - (Math.log(Math.min(Math.max(us, Strip.LOW), Strip.HIGH)) - low) / range * (height - 6);
      const ink = colour(this.colourName), faint = colour("--faint");
      pen.font = "10px system-ui, sans-serif";
      pen.textBaseline = "middle";
      const labels = { 100: "100 µs", 10_000: "10 ms", 1_000_000: "1 s" };
      pen.fillStyle = faint;
      for (const us of [100, 1_000, 10_000, 100_000, 1_000_000]) {
        pen.globalAlpha = .22;
        pen.fillRect(labels[us] ? 44 : 0, Math.round(y(us)), width, 1);
        pen.globalAlpha = .9;
        if (labels[us]) pen.fillText(labels[us], 4, y(us));
      }
      pen.globalAlpha = .9;
      pen.strokeStyle = ink;
      pen.setLineDash([4, 4]);
      pen.beginPath();
      pen.moveTo(44, y(this.targetUs));
      pen.lineTo(width, y(this.targetUs));
      pen.stroke();
      pen.setLineDash([]);
      pen.fillStyle = ink;
      pen.globalAlpha = this.samples.length > 800 ? .45 : .75;
      for (const sample of this.samples) {
        const x = width - (now - sample.at) / SPAN_MS * width;
        pen.fillRect(x - 1, y(sample.us) - 1, 2.4, 2.4);
      }
      pen.globalAlpha = 1;
    }
  }

  /** A line with a soft ground, newest to the right. */
  class Line {
    constructor(canvas, colourName, points, { fromZero = true } = {}) {
      Object.assign(this, { canvas, colourName, points, fromZero, values: [] });
    }

    add(value) {
      this.values.push(value);
      if (this.values.length > this.points) this.values.shift();
    }

    clear() { this.values.length = 0; }

    draw() {
      const paper = sheet(this.canvas);
      if (!paper || this.values.length < 2) return;
      const { pen, width, height } = paper;
      let low = this.fromZero ? 0 : Math.min(...this.values), high = Math.max(...this.values);
      if (high - low < 1e-9) { low -= 1; high += 1; }
      const x = (index) => width - (this.values.length - 1 - index) / (this.points - 1) * width;
      const y = (value) => height - 3 - (value - low) / (high - low) * (height - 8);
      const ink = colour(this.colourName);
      pen.beginPath();
      this.values.forEach((value, index) => pen.lineTo(x(index), y(value)));
      pen.strokeStyle = ink;
      pen.lineWidth = 1.6;
      pen.lineJoin = "round";
      pen.stroke();
      pen.lineTo(width, height);
      pen.lineTo(x(0), height);
      const ground = pen.createLinearGradient(0, 0, 0, height);
      pen.globalAlpha = .18;
      ground.addColorStop(0, ink);
      ground.addColorStop(1, "transparent");
      pen.fillStyle = ground;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }

  return { Strip, Line };
})();
