"use strict";
// Pictures: a digit drawn by hand, units as squares, curves.

const SIDE = 28, BOX = 20, CENTRE = 14; // of MNIST's digits, and of a drawing

// -- Drawing a digit, prepared as MNIST was: cropped, 20 x 20, centre of mass at (14, 14)

function shares(from, to) { // how much of each source pixel lies in each target pixel
  return Array.from({ length: to }, (_, t) => {
    const start = (t * from) / to, end = ((t + 1) * from) / to, parts = [];
    for (let s = Math.floor(start); s < Math.min(Math.ceil(end), from); s++) {
      parts.push([s, (Math.min(end, s + 1) - Math.max(start, s)) / (end - start)]);
    }
    return parts;
  });
}

function prepared(ink, width, height) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  ink.forEach((value, n) => {
    if (value <= 0.1) return;
    const row = Math.floor(n / width), column = n % width;
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    [left, right] = [Math.min(left, column), Math.max(right, column)];
  });
  if (bottom < 0) return null;
  const side = Math.max(bottom - top, right - left) + 1;
  top -= Math.floor((side - (bottom - top + 1)) / 2);
  left -= Math.floor((side - (right - left + 1)) / 2);
  const at = (row, column) => (row < 0 || column < 0 || row >= height || column >= width ? 0 : ink[row * width + column]);
  const parts = shares(side, BOX), small = new Float64Array(BOX * BOX);
  parts.forEach((rows, r) => parts.forEach((columns, c) => {
    for (const [row, much] of rows) for (const [column, of] of columns) small[r * BOX + c] += much * of * at(top + row, left + column);
  }));
  const largest = Math.max(...small), mass = small.reduce((sum, v) => sum + v, 0);
  const moment = (place) => small.reduce((sum, v, n) => sum + v * place(n), 0) / mass;
  const start = (mean) => CENTRE - Math.min(Math.max(Math.round(mean), CENTRE + BOX - SIDE), CENTRE);
  const down = start(moment((n) => Math.floor(n / BOX))), across = start(moment((n) => n % BOX));
  const x = new Float64Array(SIDE * SIDE);
  small.forEach((v, n) => {
    const row = Math.floor(n / BOX) + down, column = (n % BOX) + across;
    if (row < SIDE && column < SIDE) x[row * SIDE + column] = v / largest;
  });
  return x;
}

// A canvas to draw on: drawn(x) is called after every stroke, cleared() by the button.
function pad(canvas, button, drawn, cleared) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const clear = () => { pen.fillStyle = "#000"; pen.fillRect(0, 0, canvas.width, canvas.height); };
  let drawing = false, from = null;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
  };
  const stroke = (event) => {
    const to = place(event);
    pen.strokeStyle = "#fff"; pen.lineWidth = 22; pen.lineCap = pen.lineJoin = "round";
    pen.beginPath(); pen.moveTo(...from); pen.lineTo(to[0] + 0.01, to[1]); pen.stroke();
    from = to;
  };
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true; from = place(event); canvas.setPointerCapture(event.pointerId); stroke(event);
  });
  canvas.addEventListener("pointermove", (event) => { if (drawing) stroke(event); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => {
    if (!drawing) return;
    drawing = false;
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    const ink = Float64Array.from({ length: canvas.width * canvas.height }, (_, n) => data[4 * n] / 255);
    const x = prepared(ink, canvas.width, canvas.height);
    if (x) drawn(x);
  });
  button.addEventListener("click", () => { clear(); cleared(); });
  clear();
}

// -- Colours: blue above zero, orange below, the page's own ground at zero

const DARK = matchMedia("screen and (prefers-color-scheme: dark)"); // paper is light

function shade(value, most) {
  const dark = DARK.matches;
  const ground = dark ? [34, 38, 46] : [244, 245, 247], end = value > 0 ? (dark ? [104, 176, 255] : [9, 84, 178]) : (dark ? [255, 160, 80] : [196, 84, 0]);
  const part = most ? Math.min(Math.abs(value) / most, 1) ** 0.6 : 0;
  return ground.map((channel, n) => Math.round(channel + part * (end[n] - channel)));
}

const isPicture = (length) => length === DATA.sizes[0];

function columnsOf(length) {
  return isPicture(length) ? DATA.shape[1] : length > 40 ? 25 : Math.min(length, 10);
}

// A canvas' square under the pointer, as an index; null beside the squares.
function squareAt(event, length) {
  const box = event.target.getBoundingClientRect(), columns = columnsOf(length), rows = Math.ceil(length / columns);
  const part = (place, start, size, count) => Math.min(Math.max(Math.floor(((place - start) / size) * count), 0), count - 1);
  const n = part(event.clientY, box.top, box.height, rows) * columns + part(event.clientX, box.left, box.width, columns);
  return n < length ? n : null;
}

function paint(canvas, values, marked = -1) {
  const columns = columnsOf(values.length), rows = Math.ceil(values.length / columns), picture = isPicture(values.length);
  const cell = picture ? Math.ceil(224 / Math.max(...DATA.shape)) : 14, gap = picture ? 0 : 1, pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [columns * cell, rows * cell];
  const most = magnitude(values);
  values.forEach((value, n) => {
    pen.fillStyle = `rgb(${shade(value, most).join(",")})`;
    pen.fillRect((n % columns) * cell, Math.floor(n / columns) * cell, cell - gap, cell - gap);
  });
  if (marked >= 0) {
    pen.strokeStyle = "#e0218a"; pen.lineWidth = 2;
    pen.strokeRect((marked % columns) * cell + 1, Math.floor(marked / columns) * cell + 1, cell - 3, cell - 3);
  }
}

// Curves from 0 to most in a drawing of 200 x 80: the run before (faint) and this one.
function curves(svg, runs, most) {
  const [width, height, edge] = [200, 80, 4], steps = Math.max(10, ...runs.map((run) => run.length - 1));
  const up = (value) => height - edge - (Math.min(value, most) / (most || 1)) * (height - 2 * edge);
  const line = (run) => run.flatMap((value, n) => (Number.isFinite(value) ? [`${(edge + (n / steps) * (width - 2 * edge)).toFixed(1)},${up(value).toFixed(1)}`] : []));
  svg.innerHTML = `<line class="axis" x1="0" x2="${width}" y1="${height - edge}" y2="${height - edge}"/>` + runs.map((run, n) => {
    const points = line(run), [x, y] = (points.at(-1) ?? "").split(",");
    return `<polyline class="${n ? "now" : "earlier"}" points="${points.join(" ")}"/>` + (n && points.length ? `<circle cx="${x}" cy="${y}" r="3"/>` : "");
  }).join("");
}
