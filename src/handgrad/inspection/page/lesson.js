"use strict";
// The page itself: what is chosen, pressed and shown, and its address.

const DATA = JSON.parse(document.getElementById("data").textContent);
const phi = activation(DATA.activation, DATA.negative_slope);
const last = DATA.sizes.length - 1;
const $ = (id) => document.getElementById(id);
const OTHERS = 9, MOST_STEPS = 200, PAUSE = 150; // images beside this digit in a batch; steps, and milliseconds between, of play
const state = {
  layers: trained(), fresh: true, // weights as trained, but for the steps of this run
  digit: null, x: null, right: null, passed: null, // digit: index of the test image; null: a drawing
  deltas: null, gradients: null, broken: null, B: 1,
  run: [], earlier: [], todo: 0, timer: null, // loss and accuracy after each step, of this run and the one before
  unit: { layer: last, number: 0 }, question: null, timers: [],
};

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

const outputs = () => (state.passed ? [...state.passed.activations.slice(1), state.passed.logits] : []);
const probabilities = () => Array.from(logSoftmax(state.passed.logits), Math.exp);
const loss = () => crossEntropy(state.passed.logits, state.right);

function accuracy() {
  const right = sample.filter(({ x, label }) => {
    const { logits } = forward(state.layers, phi, x);
    return logits.indexOf(Math.max(...logits)) === label;
  });
  return right.length / sample.length;
}

// This digit, and in a batch the first of the other test images.
function batch() {
  const others = digits.filter((_, n) => n !== state.digit).slice(0, state.B === 1 ? 0 : OTHERS);
  return [{ x: state.x, label: state.right }, ...others];
}

// -- What is shown

function layerRow(l) {
  const size = DATA.sizes[l], output = l === last, row = document.createElement("section");
  const sub = (letter, layer) => `<var>${letter}</var><sub>${layer}</sub>`, z = `${sub("a", l - 1)} ${sub("W", l)}<sup>⊤</sup> + ${sub("b", l)}`;
  row.className = "layer";
  row.innerHTML = `
    <h3>Layer ${l}: ${size} units</h3>
    <div class="pair">
      <figure><figcaption>${output ? `${sub("z", l)} = ${z} ${ref(1)}, the logits` : `${sub("a", l)} = φ(${z}) ${ref(1, 2)}`}</figcaption>
        <canvas id="a-${l}" role="img" aria-label="layer ${l}: nothing yet"></canvas></figure>
      <figure><figcaption>${output ? `${sub("δ", l)} = (<var>p</var> − <var>y</var>) / <var>B</var> ${ref(5)}`
        : `${sub("δ", l)} = (${sub("δ", l + 1)} ${sub("W", l + 1)}) ⊙ φ′(${sub("z", l)}) ${ref(6)}`}</figcaption>
        <canvas id="delta-${l}" role="img" aria-label="deltas of layer ${l}: press backward"></canvas></figure>
    </div>
    <p class="chooser"><label>look at unit <input type="number" id="unit-${l}" min="0" max="${size - 1}" value="0"></label> <span id="wrong-${l}" role="status"></span></p>`;
  for (const kind of ["a", "delta"]) onSquare(row.querySelector(`#${kind}-${l}`), l);
  return row;
}

function onSquare(canvas, layer) {
  canvas.addEventListener("click", (event) => {
    const unit = squareAt(event, DATA.sizes[layer]);
    if (unit !== null) look(layer, unit);
  });
}

function typed(layer) {
  const unit = $(`unit-${layer}`).valueAsNumber, size = DATA.sizes[layer], right = Number.isInteger(unit) && unit >= 0 && unit < size;
  $(`wrong-${layer}`).textContent = right ? "" : `${layer ? `Units of layer ${layer}` : "Inputs"} have whole numbers from 0 to ${size - 1}.`;
  if (right) look(layer, unit);
}

function look(layer, unit) {
  state.unit = { layer, number: unit };
  if ($(`unit-${layer}`).valueAsNumber !== unit) $(`unit-${layer}`).value = unit;
  $(`wrong-${layer}`).textContent = "";
  $("unit").scrollTop = 0;
  show();
  const delta = state.deltas?.[layer - 1]?.[unit];
  $("looked").textContent = `Shown: ${nameOf(layer, unit)}${layer ? ` of layer ${layer}` : ""}${delta === undefined ? "" : `, δ = ${number(delta)}`}`;
}

// Show the whole state.
function show() {
  drawSeen();
  drawLayers();
  drawUnit();
  bars();
  outputDeltas();
  controls();
  drawCurves();
  brokenTable();
  if (!state.todo) address();
}

const marked = (layer) => (state.unit.layer === layer ? state.unit.number : -1);

function drawSeen() {
  paint($("seen"), state.x ?? new Float64Array(DATA.sizes[0]), marked(0));
  $("seen").setAttribute("aria-label", state.x ? `what the network sees of ${state.digit === null ? "your drawing" : `test image ${state.digit + 1}`}` : "nothing yet");
  document.querySelectorAll("#digits button").forEach((button, n) => button.setAttribute("aria-pressed", String(n === state.digit)));
}

function drawLayers() {
  DATA.sizes.slice(1).forEach((size, n) => {
    const l = n + 1, nothing = new Float64Array(size), values = outputs()[n], delta = state.deltas?.[n];
    const range = (numbers) => `from ${number(Math.min(...numbers))} to ${number(Math.max(...numbers))}`;
    paint($(`a-${l}`), values ?? nothing, marked(l));
    $(`a-${l}`).setAttribute("aria-label", values ? `layer ${l}: ${values.filter((v) => Math.abs(v) > 1e-6).length} of ${size} units are not zero, ${range(values)}` : `layer ${l}: no digit yet`);
    paint($(`delta-${l}`), delta ?? nothing, delta ? marked(l) : -1);
    $(`delta-${l}`).setAttribute("aria-label", delta ? `deltas of layer ${l}: ${range(delta)}` : `deltas of layer ${l}: press backward`);
  });
}

function drawUnit() {
  const { layer, number: unit } = state.unit;
  replaceContent($("unit-text"), explanation());
  $("unit-weights").hidden = layer !== 1;
  if (layer !== 1) return;
  const { W, I } = state.layers[0];
  paint($("weights"), W.subarray(unit * I, (unit + 1) * I));
  $("weights").setAttribute("aria-label", `the ${I} weights of unit ${unit} as an image`);
}

function bars() {
  const p = state.passed ? probabilities() : DATA.classes.map(() => 0), best = largestOf(p);
  $("bars").innerHTML = p.map((share, c) => `<tr${state.passed && c === best ? ' class="best"' : ""}><th scope="row">${DATA.classes[c]}</th>
    <td><span class="bar" style="width:${(100 * share).toFixed(2)}%"></span></td><td class="figure">${state.passed ? percent(share) : "–"}</td></tr>`).join("");
  $("verdict").textContent = state.passed
    ? `The network says ${DATA.classes[best]}, with ${percent(p[best])}${state.right === null ? "" : `; the loss on it is ${number(loss())} nats`}.`
    : "No digit yet: draw one, or choose a test image.";
}

function outputDeltas() {
  document.querySelectorAll("#output-deltas button").forEach((button, c) => {
    const delta = state.deltas?.at(-1)[c];
    button.querySelector("span").textContent = delta === undefined ? "–" : number(delta);
    button.classList.toggle("below", delta < 0);
  });
}

// Buttons that cannot be pressed have their reason beside them.
function controls() {
  document.querySelectorAll("#answers input").forEach((input) => { input.checked = Number(input.value) === state.right; });
  $("backward").disabled = state.right === null || !state.x;
  $("why-backward").textContent = !state.x ? "No digit yet: draw or choose one." : state.right === null ? "The right answer is missing: choose it."
    : state.deltas ? "The deltas are there, from the last layer to the first." : "Backward computes δ, from the last layer to the first.";
  for (const id of ["step", "steps", "play"]) $(id).disabled = !state.deltas;
  $("why-step").textContent = state.deltas ? `Step number ${state.run.length} moves W and b against their gradients.` : "A step needs the deltas: press backward first.";
  $("play").textContent = state.todo > 10 ? "pause" : "play";
  $("batch").value = state.B;
  $("broken").value = state.broken ?? "";
}

function drawCurves() {
  for (const [id, key, what] of [["loss-curve", "loss", "loss on this digit"], ["accuracy-curve", "hits", `accuracy on ${sample.length} others`]]) {
    const runs = [state.earlier, state.run].map((run) => run.map((point) => point[key])), now = runs[1];
    const most = key === "hits" ? 1 : Math.max(...runs.flat().filter(Number.isFinite), 1e-9);
    const told = key === "hits" ? percent : number;
    curves($(id), runs, most);
    $(`${id}-now`).textContent = now.length ? `${told(now.at(-1))}${key === "loss" ? " nats" : ""}` : "–";
    $(id).setAttribute("aria-label", now.length ? `${what}: ${told(now[0])} at first, ${told(now.at(-1))} after ${now.length - 1} steps` : `${what}: no steps yet`);
  }
}

// With a broken term: how far each gradient is from the right one, as src/check.py measures it.
function brokenTable() {
  $("broken-table").hidden = !state.broken;
  if (!state.broken) return;
  const right = state.deltas ? gradients(state.layers, phi, batch()) : null;
  const errors = right?.map(({ W, b }, l) => [relativeError(state.gradients[l].W, W), relativeError(state.gradients[l].b, b)]);
  const cell = (error) => `<td${error > 1e-9 ? ' class="wrong"' : ""}>${error > 1e-9 || !Number.isFinite(error) ? `wrong by ${number(error)}` : "right"}</td>`;
  $("broken-rows").innerHTML = state.layers.map((_, l) => `<tr><th scope="row">layer ${l + 1}</th>${errors ? errors[l].map(cell).join("") : "<td>–</td><td>–</td>"}</tr>`).join("");
  $("broken-said").textContent = !errors ? "The gradients come with backward." : errors.flat().every((error) => error <= 1e-9) ? harmless() : "Errors are relative to the largest entry of the right gradient.";
}

function harmless() {
  if (["BP1", "BP3"].includes(state.broken)) return `${state.broken} cannot show with one digit: with B = 1, division by B changes nothing. Learn from B = ${OTHERS + 1} to see it.`;
  if (state.broken === "phi" && DATA.activation.endsWith("ReLU")) return `φ′ depends on the sign alone for ${DATA.activation}, and a has the sign of z: φ′(a) = φ′(z).`;
  return `${state.broken} changes no gradient of this digit.`;
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

// -- What is pressed

function choose(x, digit, right) {
  stop();
  forgetQuestion();
  Object.assign(state, { x, digit, right, deltas: null, gradients: null, earlier: [], fresh: state.fresh && state.run.length < 2, run: [] });
  state.passed = x && forward(state.layers, phi, x);
  $("stepped").textContent = x && !state.fresh ? "The weights keep the steps taken so far; reset brings back the trained ones." : "";
  if (x && state.unit.layer === last) look(last, right ?? largestOf(probabilities()));
  else show();
  if (x) reveal([...DATA.sizes.slice(1).map((_, n) => `a-${n + 1}`), "bars"]);
}

const chooseDigit = (n) => choose(digits[n].x, n, digits[n].label);

function answer(right) {
  stop();
  forgetQuestion();
  Object.assign(state, { right, deltas: null, gradients: null, earlier: [], fresh: state.fresh && state.run.length < 2, run: [] });
  show();
}

// Forward, and backward where it was pressed, with the present weights.
function compute() {
  state.passed = state.x && forward(state.layers, phi, state.x);
  if (!state.deltas) return;
  state.deltas = backward(state.layers, phi, state.passed, state.right, state.B, state.broken);
  state.gradients = gradients(state.layers, phi, batch(), state.broken);
}

function backwardPressed() {
  if (state.question) forgetQuestion(); // whoever has looked cannot predict any more
  stop();
  state.deltas = [];
  compute();
  if (!state.run.length) state.run = [{ loss: loss(), hits: accuracy() }];
  show();
  reveal(DATA.sizes.slice(1).map((_, n) => `delta-${last - n}`));
}

// The learning rate; null, with a sentence, if it is none.
function rate() {
  const lr = $("lr").valueAsNumber, right = lr > 0 && Number.isFinite(lr);
  if (!right) $("stepped").textContent = "The learning rate should be a number above 0.";
  return right ? lr : null;
}

function stepOnce() {
  descend(state.layers, state.gradients, rate());
  compute();
  state.run.push({ loss: loss(), hits: accuracy() });
}

// One step, the others after pauses; the sentence comes at the end.
function steps(count, pause, from = state.run.length - 1) {
  if (!rate()) return;
  if (!state.timer) state.todo = 0;
  state.todo += count;
  if (!state.timer) nextStep(pause, from);
}

function nextStep(pause, from) {
  stepOnce();
  state.todo = Number.isFinite(state.run.at(-1).loss) ? state.todo - 1 : 0;
  state.timer = state.todo ? setTimeout(nextStep, pause, pause, from) : null;
  show();
  tellSteps(from);
}

function tellSteps(from) {
  const [before, after] = [state.run[from], state.run.at(-1)], taken = state.run.length - 1 - from;
  $("stepped").setAttribute("aria-busy", String(Boolean(state.todo)));
  $("stepped").innerHTML = `<b>Loss on this digit: ${number(before.loss)} before, ${number(after.loss)} after ${taken} ${taken === 1 ? "step" : "steps"}.</b>
    Accuracy on ${sample.length} test images: ${percent(before.hits)} before, ${percent(after.hits)} after.${Number.isFinite(after.loss) ? "" : " The loss is no number any more: the run has diverged."}`;
}

function stop() {
  clearTimeout(state.timer);
  Object.assign(state, { timer: null, todo: 0 });
}

function playPressed() {
  if (!state.timer) { steps(MOST_STEPS, PAUSE); return; }
  stop();
  show();
  $("stepped").setAttribute("aria-busy", "false");
}

// The trained weights again, with the digit; the run so far becomes the faint curve.
function startAgain() {
  stop();
  forgetQuestion();
  Object.assign(state, { layers: trained(), earlier: state.run.length > 1 ? state.run : state.earlier, run: [], fresh: true });
  compute();
  if (state.deltas) state.run = [{ loss: loss(), hits: accuracy() }];
  $("stepped").textContent = `The trained weights are back: ${percent(state.run[0]?.hits ?? accuracy())} of ${sample.length} test images right.${state.earlier.length ? " The faint curve is the run before." : ""}`;
  show();
}

// -- The address: #digit=3&layer=2&unit=65&steps=10, and what differs from the start

function address() {
  const kept = new URLSearchParams(), { digit, right, unit, run } = state, drawn = digit === null;
  if (!drawn) kept.set("digit", digit + 1);
  if (!drawn && right !== digits[digit].label) kept.set("answer", right);
  kept.set("layer", unit.layer);
  kept.set("unit", unit.number);
  if (state.broken) kept.set("broken", state.broken);
  if (state.B > 1) kept.set("batch", state.B);
  if ($("lr").value !== $("lr").defaultValue) kept.set("lr", $("lr").value);
  if (state.deltas && state.fresh && !drawn) kept.set("steps", run.length - 1);
  window.history.replaceState(null, "", `#${kept}`);
}

function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const whole = (key, least, most) => (/^\d{1,4}$/.test(kept.get(key) ?? "") && kept.get(key) >= least && kept.get(key) <= most ? Number(kept.get(key)) : null);
  const digit = whole("digit", 1, digits.length), layer = whole("layer", 0, last), count = whole("steps", 0, MOST_STEPS);
  state.broken = Object.hasOwn(BROKEN, kept.get("broken")) ? kept.get("broken") : null;
  state.B = whole("batch", 1, OTHERS + 1) === OTHERS + 1 ? OTHERS + 1 : 1;
  $("lr").value = kept.get("lr") ?? "";
  if (!($("lr").valueAsNumber > 0)) $("lr").value = $("lr").defaultValue;
  Object.assign(state, { layers: trained(), fresh: true, run: [] });
  const unit = layer === null ? null : whole("unit", 0, DATA.sizes[layer] - 1);
  if (unit !== null) state.unit = { layer, number: unit };
  chooseDigit(digit === null ? DATA.start : digit - 1);
  if (unit !== null) look(layer, unit);
  const other = whole("answer", 0, DATA.classes.length - 1);
  if (other !== null) answer(other);
  if (count === null) return;
  backwardPressed();
  if (count) steps(count, 0);
}

// -- The start

function digitButton({ x, label }, n) {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  button.type = "button";
  button.setAttribute("aria-label", `test image ${n + 1}: ${DATA.classes[label]}`);
  paint(canvas, x);
  button.append(canvas);
  button.addEventListener("click", () => chooseDigit(n));
  return button;
}

function followLink(event) {
  const unit = event.target.closest("button[data-layer]"), equation = event.target.closest('a[href^="#eq-"]');
  if (unit) look(Number(unit.dataset.layer), Number(unit.dataset.unit));
  if (unit && $("unit").contains(document.activeElement)) $("unit").focus({ preventScroll: true });
  if (!equation) return;
  event.preventDefault(); // the address keeps what is shown
  const target = document.querySelector(equation.getAttribute("href"));
  $("equations").open = true;
  target.scrollIntoView({ block: "center" });
  target.focus({ preventScroll: true });
}

function fill() {
  $("layers").append(...DATA.sizes.slice(1).map((_, n) => layerRow(n + 1)));
  $("digits").append(...digits.map(digitButton));
  $("answers").innerHTML += DATA.classes.map((name, c) => `<label><input type="radio" name="answer" value="${c}"> ${name}</label>`).join("");
  $("output-deltas").innerHTML = DATA.classes.map((name, c) => `<button type="button" class="plain" data-layer="${last}" data-unit="${c}">${name}: <span>–</span></button>`).join("");
  $("broken").innerHTML = `<option value="">nothing</option>${Object.entries(BROKEN).map(([key, what]) => `<option value="${key}">${key}: ${what}</option>`).join("")}`;
  $("batch").innerHTML = `<option value="1">this digit (B = 1)</option><option value="${OTHERS + 1}">this digit and ${OTHERS} other test images (B = ${OTHERS + 1})</option>`;
}

function listen() {
  const on = (id, type, called) => $(id).addEventListener(type, called);
  on("answers", "change", (event) => answer(Number(event.target.value)));
  on("backward", "click", backwardPressed);
  on("step", "click", () => steps(1, 0));
  on("steps", "click", () => steps(10, 0));
  on("play", "click", playPressed);
  on("reset", "click", startAgain);
  on("lr", "change", () => { if (rate() && state.run.length > 1) startAgain(); else address(); });
  on("broken", "change", (event) => { state.broken = event.target.value || null; startAgain(); });
  on("batch", "change", (event) => { state.B = Number(event.target.value); startAgain(); });
  on("ask", "click", nextQuestion);
  on("options", "click", (event) => { if (event.target.dataset.option) judge(Number(event.target.dataset.option)); });
  DATA.sizes.forEach((_, l) => on(`unit-${l}`, "input", () => typed(l)));
  onSquare($("seen"), 0);
  document.addEventListener("click", followLink);
  window.addEventListener("hashchange", readAddress);
  DARK.addEventListener("change", () => {
    document.querySelectorAll("#digits canvas").forEach((canvas, n) => paint(canvas, digits[n].x));
    show();
  });
  let open = false; // the fold, before printing
  window.addEventListener("beforeprint", () => { open = $("equations").open; $("equations").open = true; });
  window.addEventListener("afterprint", () => { $("equations").open = open; });
}

fill();
listen();
pad($("pad"), $("clear"), (x) => choose(x, null, null), () => choose(null, null, null));
tinyNetwork();
readAddress();
