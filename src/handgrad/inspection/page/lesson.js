"use strict";
// The page itself: what is chosen, drawn, pressed and shown.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SIDE = 28, BOX = 20, CENTRE = 14;
const phi = activation(DATA.activation, DATA.negative_slope);
const last = DATA.sizes.length - 1;
const $ = (id) => document.getElementById(id);
const state = { layers: trained(), x: null, right: null, passed: null, deltas: null, unit: { layer: last, number: 0 }, timers: [] };

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// 16-bit floats (IEEE 754 binary16), little end first.
function halves(text) {
  const raw = bytes(text), numbers = new Float64Array(raw.length / 2);
  for (let n = 0; n < numbers.length; n++) {
    const bits = raw[2 * n] | (raw[2 * n + 1] << 8), exponent = (bits >> 10) & 31, fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    numbers[n] = bits >> 15 ? -size : size;
  }
  return numbers;
}

function trained() {
  return DATA.layers.map(({ W, b }, l) => ({ W: halves(W), b: halves(b), I: DATA.sizes[l], O: DATA.sizes[l + 1] }));
}

function images({ pixels, labels }) {
  const raw = bytes(pixels), size = SIDE * SIDE;
  return labels.map((label, n) => ({ label, x: Float64Array.from(raw.subarray(n * size, (n + 1) * size), (v) => v / 255) }));
}

const digits = images(DATA.digits), sample = images(DATA.sample);

function accuracy() {
  const right = sample.filter(({ x, label }) => {
    const { logits } = forward(state.layers, phi, x);
    return logits.indexOf(Math.max(...logits)) === label;
  });
  return right.length / sample.length;
}

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

function pad() {
  const canvas = $("pad"), pen = canvas.getContext("2d", { willReadFrequently: true });
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
    choose(prepared(ink, canvas.width, canvas.height), null, "your drawing");
  });
  $("clear").addEventListener("click", clear);
  clear();
}

// -- Colours: blue above zero, orange below, the page's own ground at zero

function shade(value, most) {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const ground = dark ? [34, 38, 46] : [244, 245, 247], end = value > 0 ? (dark ? [104, 176, 255] : [9, 84, 178]) : (dark ? [255, 160, 80] : [196, 84, 0]);
  const part = most ? Math.min(Math.abs(value) / most, 1) ** 0.6 : 0;
  return ground.map((channel, n) => Math.round(channel + part * (end[n] - channel)));
}

function columnsOf(length) {
  return length === SIDE * SIDE ? SIDE : length > 40 ? 25 : Math.min(length, 10);
}

function paint(canvas, values, marked = -1) {
  const columns = columnsOf(values.length), rows = Math.ceil(values.length / columns), cell = values.length === SIDE * SIDE ? 8 : 14;
  const gap = values.length === SIDE * SIDE ? 0 : 1, pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [columns * cell, rows * cell];
  const most = values.reduce((largest, v) => Math.max(largest, Math.abs(v)), 0);
  values.forEach((value, n) => {
    pen.fillStyle = `rgb(${shade(value, most).join(",")})`;
    pen.fillRect((n % columns) * cell, Math.floor(n / columns) * cell, cell - gap, cell - gap);
  });
  if (marked >= 0) {
    pen.strokeStyle = "#e0218a"; pen.lineWidth = 2;
    pen.strokeRect((marked % columns) * cell + 1, Math.floor(marked / columns) * cell + 1, cell - 3, cell - 3);
  }
}

// -- Numbers in words

const number = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(2) : value.toPrecision(3)).replaceAll("-", "−");
const percent = (value) => `${(100 * value).toFixed(value > 0.995 && value < 1 ? 2 : 1)} %`;
const outputs = () => (state.passed ? [...state.passed.activations.slice(1), state.passed.logits] : []);
const probabilities = () => Array.from(logSoftmax(state.passed.logits), Math.exp);

// The largest terms of a sum, the rest in one.
function written(terms, most = 6) {
  const sorted = terms.toSorted((one, other) => Math.abs(other.value) - Math.abs(one.value));
  const shown = sorted.slice(0, most).map(({ text, value }) => `<li>${text} = ${number(value)}</li>`);
  const rest = sorted.slice(most).reduce((sum, { value }) => sum + value, 0);
  if (sorted.length > most) shown.push(`<li>and ${sorted.length - most} smaller terms, together ${number(rest)}</li>`);
  return `<ul>${shown.join("")}</ul>`;
}

// -- What is shown

function layerRow(l) {
  const size = DATA.sizes[l], output = l === last, row = document.createElement("section");
  row.className = "layer";
  row.innerHTML = `
    <h3>Layer ${l}: ${size} units</h3>
    <div class="pair">
      <figure><figcaption>${output ? `<var>z</var><sub>${l}</sub> = <var>W</var><sub>${l}</sub> <var>a</var><sub>${l - 1}</sub> + <var>b</var><sub>${l}</sub> (1), the logits`
        : `<var>a</var><sub>${l}</sub> = φ(<var>W</var><sub>${l}</sub> <var>a</var><sub>${l - 1}</sub> + <var>b</var><sub>${l}</sub>) (1, 2)`}</figcaption>
        <canvas id="a-${l}" role="img" aria-label="layer ${l}: nothing yet"></canvas></figure>
      <figure><figcaption>${output ? `<var>δ</var><sub>${l}</sub> = <var>p</var> − <var>y</var> (5, BP1)`
        : `<var>δ</var><sub>${l}</sub> = (<var>δ</var><sub>${l + 1}</sub> <var>W</var><sub>${l + 1}</sub>) ⊙ φ′(<var>z</var><sub>${l}</sub>) (6, BP2)`}</figcaption>
        <canvas id="delta-${l}" role="img" aria-label="deltas of layer ${l}: press backward"></canvas></figure>
    </div>
    <label>look at unit <input type="number" id="unit-${l}" min="0" max="${size - 1}" value="0"></label>`;
  for (const kind of ["a", "delta"]) row.querySelector(`#${kind}-${l}`).addEventListener("click", (event) => {
    const box = event.target.getBoundingClientRect(), columns = columnsOf(size), rows = Math.ceil(size / columns);
    const picked = Math.floor(((event.clientY - box.top) / box.height) * rows) * columns + Math.floor(((event.clientX - box.left) / box.width) * columns);
    if (picked < size) look(l, picked);
  });
  row.querySelector("input").addEventListener("input", (event) => {
    const picked = event.target.valueAsNumber;
    if (Number.isInteger(picked) && picked >= 0 && picked < size) look(l, picked);
  });
  return row;
}

function look(layer, picked) {
  state.unit = { layer, number: picked };
  $(`unit-${layer}`).value = picked;
  drawLayers();
  unit();
}

function drawLayers() {
  outputs().forEach((values, n) => {
    const l = n + 1, marked = state.unit.layer === l ? state.unit.number : -1, away = values.filter((v) => Math.abs(v) > 1e-6).length;
    paint($(`a-${l}`), values, marked);
    $(`a-${l}`).setAttribute("aria-label", `layer ${l}: ${away} of ${values.length} units are not zero, from ${number(Math.min(...values))} to ${number(Math.max(...values))}`);
    const delta = state.deltas?.[n];
    paint($(`delta-${l}`), delta ?? new Float64Array(values.length), delta ? marked : -1);
    $(`delta-${l}`).setAttribute("aria-label", delta ? `deltas of layer ${l}: from ${number(Math.min(...delta))} to ${number(Math.max(...delta))}` : `deltas of layer ${l}: press backward`);
  });
}

function unit() {
  const { layer: l, number: j } = state.unit, { W, b, I } = state.layers[l - 1], a = state.passed.activations[l - 1];
  const z = state.passed.zs[l - 1][j], output = l === last, value = outputs()[l - 1][j];
  const name = (letter, layer, index) => `<var>${letter}</var><sub>${layer}</sub>[${index}]`;
  const terms = Array.from(a, (input, i) => ({ text: `${number(W[j * I + i])} · ${number(input)} (input ${i})`, value: W[j * I + i] * input }));
  let text = `<h3>Unit ${j} of layer ${l}${output ? `: “${DATA.classes[j]}”` : ""}</h3>
    <p>${name("z", l, j)} = Σ<sub>i</sub> <var>W</var><sub>${l}</sub>[${j}, i] · <var>a</var><sub>${l - 1}</sub>[i] + <var>b</var><sub>${l}</sub>[${j}] = ${number(z - b[j])} + ${number(b[j])} = <b>${number(z)}</b> (1), its strongest inputs:</p>${written(terms)}`;
  text += output ? `<p><var>p</var>[${j}] = <b>${percent(probabilities()[j])}</b> (3)</p>`
    : `<p>${name("a", l, j)} = φ(${number(z)}) = <b>${number(value)}</b> (2), φ′(${number(z)}) = ${number(phi.slope(z, value))}</p>`;
  const delta = state.deltas?.[l - 1][j];
  if (delta !== undefined) {
    if (output) {
      text += `<p>${name("δ", l, j)} = <var>p</var> − <var>y</var> = ${number(probabilities()[j])} − ${j === state.right ? 1 : 0} = <b>${number(delta)}</b> (5, BP1)</p>`;
    } else {
      const next = state.layers[l], back = Array.from(state.deltas[l], (d, k) => ({ text: `${number(d)} · ${number(next.W[k * next.I + j])} (unit ${k})`, value: d * next.W[k * next.I + j] }));
      const sum = back.reduce((total, term) => total + term.value, 0);
      text += `<p>${name("δ", l, j)} = (Σ<sub>k</sub> <var>δ</var><sub>${l + 1}</sub>[k] · <var>W</var><sub>${l + 1}</sub>[k, ${j}]) · φ′(${name("z", l, j)}) = ${number(sum)} · ${number(phi.slope(z, value))} = <b>${number(delta)}</b> (6, BP2), term by term:</p>${written(back, 10)}`;
    }
    const strongest = a.reduce((best, v, i) => (Math.abs(v) > Math.abs(a[best]) ? i : best), 0);
    text += `<p>∂ℓ/∂<var>b</var><sub>${l}</sub>[${j}] = ${name("δ", l, j)} = <b>${number(delta)}</b> (7, BP3)<br>
      ∂ℓ/∂<var>W</var><sub>${l}</sub>[${j}, ${strongest}] = ${name("δ", l, j)} · ${name("a", l - 1, strongest)} = ${number(delta)} · ${number(a[strongest])} = <b>${number(delta * a[strongest])}</b> (8, BP4)</p>`;
  }
  $("unit").innerHTML = text;
  $("unit-weights").hidden = l !== 1;
  if (l === 1) {
    paint($("weights"), W.subarray(j * I, (j + 1) * I));
    $("weights").setAttribute("aria-label", `the 784 weights of unit ${j} as an image`);
  }
}

function bars() {
  const p = probabilities(), best = p.indexOf(Math.max(...p));
  $("bars").innerHTML = p.map((share, c) => `<tr${c === best ? ' class="best"' : ""}><th scope="row">${DATA.classes[c]}</th>
    <td><span class="bar" style="width:${(100 * share).toFixed(2)}%"></span></td><td class="figure">${percent(share)}</td></tr>`).join("");
  const loss = state.right === null ? "" : `; the loss on it is ${number(crossEntropy(state.passed.logits, state.right))} nats`;
  $("verdict").textContent = `The network says ${DATA.classes[best]}, with ${percent(p[best])}${loss}.`;
}

// Show one layer after the other, in an order.
function reveal(order) {
  state.timers.splice(0).forEach(clearTimeout);
  document.querySelectorAll(".waiting").forEach((element) => element.classList.remove("waiting")); // of one cut short
  const pause = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 250;
  order.forEach((id, n) => {
    $(id).classList.add("waiting");
    state.timers.push(setTimeout(() => $(id).classList.remove("waiting"), pause * (n + 1)));
  });
}

function choose(x, label, name) {
  if (!x) return;
  state.x = x;
  paint($("seen"), x);
  $("seen").setAttribute("aria-label", `what the network sees of ${name}`);
  document.querySelectorAll("#digits button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === name)));
  pass();
  if (state.unit.layer === last) look(last, label ?? probabilities().indexOf(Math.max(...probabilities())));
  answer(label);
  reveal([...DATA.sizes.slice(1).map((_, n) => `a-${n + 1}`), "bars"]);
}

function pass() {
  state.passed = forward(state.layers, phi, state.x);
  state.deltas = null;
  drawLayers();
  bars();
  unit();
  $("step").disabled = true;
}

function answer(right) {
  state.right = right;
  document.querySelectorAll("#answers input").forEach((input) => { input.checked = Number(input.value) === right; });
  $("backward").disabled = right === null;
  state.deltas = null;
  $("step").disabled = true;
  $("stepped").textContent = right === null ? "Choose the right answer, then press backward." : "";
  drawLayers();
  bars();
  unit();
}

function backwardPressed() {
  state.deltas = backward(state.layers, phi, state.passed, state.right);
  drawLayers();
  unit();
  reveal(DATA.sizes.slice(1).map((_, n) => `delta-${last - n}`));
  $("step").disabled = false;
  $("stepped").textContent = "The deltas are there, from the last layer to the first. Step moves the weights against them.";
}

function stepPressed() {
  const lr = $("lr").valueAsNumber;
  if (!(lr > 0)) { $("stepped").textContent = "The learning rate should be a number above 0."; return; }
  const before = crossEntropy(state.passed.logits, state.right), hits = accuracy();
  descend(state.layers, state.deltas, state.passed.activations, lr);
  pass();
  const after = crossEntropy(state.passed.logits, state.right), now = accuracy();
  $("stepped").innerHTML = `<b>Loss on this digit: ${number(before)} before, ${number(after)} after.</b>
    Accuracy on ${sample.length} test images: ${percent(hits)} before, ${percent(now)} after.`;
}

function start() {
  $("layers").append(...DATA.sizes.slice(1).map((_, n) => layerRow(n + 1)));
  digits.forEach(({ x, label }, n) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas"), name = `test image ${n + 1}`;
    button.type = "button"; button.dataset.name = name;
    button.setAttribute("aria-label", `${name}: ${DATA.classes[label]}`);
    paint(canvas, x);
    button.append(canvas);
    button.addEventListener("click", () => choose(x, label, name));
    $("digits").append(button);
  });
  $("answers").innerHTML += DATA.classes.map((name, c) => `<label><input type="radio" name="answer" value="${c}"> ${name}</label>`).join("");
  $("answers").addEventListener("change", (event) => answer(Number(event.target.value)));
  $("backward").addEventListener("click", backwardPressed);
  $("step").addEventListener("click", stepPressed);
  $("reset").addEventListener("click", () => {
    state.layers = trained();
    pass();
    $("stepped").textContent = `The trained weights are back: ${percent(accuracy())} of ${sample.length} test images right.`;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.querySelectorAll("#digits canvas").forEach((canvas, n) => paint(canvas, digits[n].x));
    paint($("seen"), state.x);
    drawLayers();
    unit();
  });
  pad();
  choose(digits[DATA.start].x, digits[DATA.start].label, `test image ${DATA.start + 1}`);
}

start();
