"use strict";
// Lines over time on a canvas, times on a logarithmic scale. Colours come from the style sheet.

const Charts = (() => {
  const MARKS_US = [10, 100, 1e3, 1e4, 1e5, 1e6, 1e7];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** A time for people. */
  function time(us) {
    if (us === null || us === undefined) return "–";
    if (us < 1000) return `${us} µs`;
    if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 1 : 0)} ms`;
    return `${(us / 1e6).toFixed(1)} s`;
  }

  /** Draws each class's samples ({at, us} with us null for a gap) up to `now`, `spanMs` back. */
  function latencies(canvas, lines, now, spanMs) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const left = 56, bottom = 20, top = 6, right = 6;
    const all = lines.flat().map((sample) => sample.us).filter((us) => us !== null);
    const low = 10, high = Math.max(10_000, 10 ** Math.ceil(Math.log10(Math.max(...all, 1))));
    const y = (us) => top + (height - top - bottom) * (1 - Math.log(Math.max(us, low) / low) / Math.log(high / low));
    const x = (at) => left + (width - left - right) * (1 - (now - at) / spanMs);

    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("--soft");
    pen.strokeStyle = colour("--line");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const mark of MARKS_US.filter((mark) => mark <= high)) {
      pen.fillText(time(mark).replace(".0", ""), left - 8, y(mark));
      pen.beginPath();
      pen.moveTo(left, y(mark));
      pen.lineTo(width - right, y(mark));
      pen.stroke();
    }
    pen.textBaseline = "alphabetic";
    for (let minutes = 0; minutes <= spanMs / 60_000; minutes++) {
      pen.textAlign = minutes ? "center" : "right";
      pen.fillText(minutes ? `−${minutes} min` : "now", x(now - minutes * 60_000), height - 5);
    }
    lines.forEach((samples, index) => {
      pen.strokeStyle = pen.fillStyle = colour(`--p${index}`);
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      pen.beginPath();
      let isDown = false;
      for (const { at, us } of samples) {
        if (us === null || at < now - spanMs) { isDown = false; continue; }
        if (isDown) pen.lineTo(x(at), y(us)); else pen.moveTo(x(at), y(us));
        isDown = true;
      }
      pen.stroke();
      // The newest alone would be no line yet.
      const last = samples[samples.length - 1];
      if (last && last.us !== null) {
        pen.beginPath();
        pen.arc(x(last.at), y(last.us), 3, 0, 7);
        pen.fill();
      }
    });
  }

  return { latencies, time };
})();
