"use strict";
// The page itself: its state, what is chosen and pressed, and its address.

const DATA = JSON.parse(document.getElementById("data").textContent);
const phi = activation(DATA.activation, DATA.negative_slope);
const last = DATA.sizes.length - 1;
const $ = (id) => document.getElementById(id);

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

const weights = DATA.layers.map(({ W, b }) => ({ W: halves(W), b: halves(b) }));

function trained() {
  return weights.map(({ W, b }, l) => ({ W: W.slice(), b: b.slice(), I: DATA.sizes[l], O: DATA.sizes[l + 1] }));
}

const OTHERS = 9, MOST_STEPS = 200, PAUSE = 150; // images beside this digit in a batch; steps, and milliseconds between, of play
const state = {
  layers: trained(), fresh: true, // weights as trained, but for the steps of this run
  digit: null, x: null, right: null, passed: null, // digit: index of the test image; null: a drawing
  still: null, moved: 0, target: null, // the picture before its moves; how many; the class it moves towards
  deltas: null, gradients: null, broken: null, B: 1,
  run: [], earlier: [], todo: 0, timer: null, // loss and accuracy after each step, of this run and the last one with nothing broken
  unit: { layer: last, number: 0 }, question: null, timers: [],
};

function images({ pixels, labels }) {
  const raw = DATA.divisor > 1 ? bytes(pixels) : halves(pixels), size = DATA.sizes[0];
  return labels.map((label, n) => ({ label, x: Float64Array.from(raw.subarray(n * size, (n + 1) * size), (v) => v / DATA.divisor) }));
}

const digits = images(DATA.digits), sample = images(DATA.sample);

const outputs = () => (state.passed ? [...state.passed.activations.slice(1), state.passed.logits] : []);
const probabilities = () => Array.from(logSoftmax(state.passed.logits), Math.exp);
const loss = () => crossEntropy(state.passed.logits, state.right);
const targetDelta = () => backward(state.layers, phi, state.passed, state.target, state.B, state.broken)[0]; // delta_1 of the target's loss
const push = () => inputGradient(targetDelta(), state.layers[0]).map((slope) => -slope);

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

// -- What is pressed

// Another picture, or another answer to it: the steps taken so far are of no run any more.
function leaveRun(changed) {
  stop();
  forgetQuestion();
  Object.assign(state, { earlier: [], fresh: state.fresh && state.run.length < 2, run: [] }, changed);
}

function choose(x, digit, right) {
  leaveRun({ x, still: x, moved: 0, digit, right, target: right, deltas: null, gradients: null });
  state.passed = x && forward(state.layers, phi, x);
  $("stepped").textContent = x && !state.fresh ? "The weights keep the steps taken so far; reset brings back the trained ones." : "";
  if (x && state.unit.layer === last) look(last, right ?? largestOf(probabilities()));
  else show();
  if (x) reveal([...DATA.sizes.slice(1).map((_, n) => `a-${n + 1}`), "bars"]);
}

const chooseDigit = (n) => choose(digits[n].x, n, digits[n].label);

function answer(right) {
  leaveRun({ x: state.still, moved: 0, right, target: right, deltas: null, gradients: null });
  compute();
  show();
}

function movePicture(x, moved) {
  if (moved !== state.moved) {
    leaveRun({ x, moved });
    compute();
    startRun();
  }
  show();
}

const moveOn = () => movePicture(stepAlong(state.x, push()), state.moved + 1);
const moveBack = () => movePicture(state.still, 0);

function aim(target) {
  state.target = target;
  moveBack();
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
  if (!state.run.length) startRun();
  show();
  reveal([...DATA.sizes.slice(1).map((_, n) => `delta-${last - n}`), "push"]);
}

function startRun() {
  if (state.deltas) state.run = [{ loss: loss(), hits: accuracy() }];
}

const positive = (text) => (Number(text) > 0 && Number.isFinite(Number(text)) ? Number(text) : null);

// The learning rate, with a decimal point or comma; null, with a sentence, if it is none.
function rate() {
  const lr = positive($("lr").value.replace(",", "."));
  if (!lr) $("stepped").textContent = "The learning rate should be a number above 0.";
  return lr;
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
    Accuracy on ${sample.length} test images: ${percent(before.hits)} before, ${percent(after.hits)} after.${Number.isFinite(after.loss) ? "" : " The run has diverged; reset brings back the trained weights."}`;
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

// The trained weights again, with the digit where it was; a run with nothing broken becomes the faint curve.
function startAgain(change = {}) {
  stop();
  forgetQuestion();
  const earlier = state.run.length > 1 && !state.broken ? state.run : state.earlier;
  Object.assign(state, change, { layers: trained(), earlier, run: [], fresh: true, x: state.still, moved: 0 });
  compute();
  startRun();
  $("stepped").textContent = `The trained weights are back: ${percent(state.run[0]?.hits ?? accuracy())} of ${sample.length} test images right.${state.earlier.length ? " The faint curve is the last run with nothing broken." : ""}`;
  show();
}

// -- The address: #digit=3&layer=2&unit=65&steps=10, and what differs from the start

function address() {
  const kept = new URLSearchParams(), { digit, right, unit, run } = state, drawn = digit === null;
  if (!drawn) kept.set("digit", digit + 1);
  if (!drawn && right !== digits[digit].label) kept.set("answer", right);
  if (!drawn && state.target !== right) kept.set("target", state.target);
  kept.set("layer", unit.layer);
  kept.set("unit", unit.number);
  if (state.broken) kept.set("broken", state.broken);
  if (state.B > 1) kept.set("batch", state.B);
  if ($("lr").value !== $("lr").defaultValue) kept.set("lr", $("lr").value);
  if (state.deltas && state.fresh && !drawn) {
    if (state.moved) kept.set("moved", state.moved);
    kept.set("steps", run.length - 1);
  }
  window.history.replaceState(null, "", `#${kept}`);
}

function readAddress() {
  const kept = new URLSearchParams(location.hash.slice(1));
  const whole = (key, least, most) => (/^\d{1,4}$/.test(kept.get(key) ?? "") && kept.get(key) >= least && kept.get(key) <= most ? Number(kept.get(key)) : null);
  const digit = whole("digit", 1, digits.length), layer = whole("layer", 0, last), count = whole("steps", 0, MOST_STEPS);
  state.broken = Object.hasOwn(BROKEN, kept.get("broken")) ? kept.get("broken") : null;
  state.B = whole("batch", 1, OTHERS + 1) === OTHERS + 1 ? OTHERS + 1 : 1;
  $("lr").value = positive(kept.get("lr")) ?? $("lr").defaultValue;
  Object.assign(state, { layers: trained(), fresh: true, run: [] });
  const unit = layer === null ? null : whole("unit", 0, DATA.sizes[layer] - 1);
  if (unit !== null) state.unit = { layer, number: unit };
  chooseDigit(digit === null ? DATA.start : digit - 1);
  if (unit !== null) look(layer, unit);
  const other = whole("answer", 0, DATA.classes.length - 1);
  if (other !== null) answer(other);
  const target = whole("target", 0, DATA.classes.length - 1);
  if (target !== null) aim(target);
  if (count === null) return;
  backwardPressed();
  for (let moves = whole("moved", 0, MOST_STEPS); moves; moves--) moveOn();
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
  $("target").innerHTML = DATA.classes.map((name, c) => `<option value="${c}">${name}</option>`).join("");
  $("answers").innerHTML += DATA.classes.map((name, c) => `<label><input type="radio" name="answer" value="${c}"> ${name}</label>`).join("");
  $("output-deltas").innerHTML = DATA.classes.map((name, c) => `<button type="button" class="plain" data-layer="${last}" data-unit="${c}">${name}: <span>–</span></button>`).join("");
  $("broken").innerHTML = `<option value="">nothing</option>${Object.entries(BROKEN).map(([key, what]) => `<option value="${key}">${key}: ${what}</option>`).join("")}`;
  $("batch").innerHTML = `<option value="1">this digit (B = 1)</option><option value="${OTHERS + 1}">this digit and ${OTHERS} other test images (B = ${OTHERS + 1})</option>`;
}

function listen() {
  const on = (id, type, called) => $(id).addEventListener(type, called);
  on("answers", "change", (event) => answer(Number(event.target.value)));
  on("backward", "click", backwardPressed);
  on("target", "change", (event) => aim(Number(event.target.value)));
  on("move", "click", moveOn);
  on("back", "click", moveBack);
  on("step", "click", () => steps(1, 0));
  on("steps", "click", () => steps(10, 0));
  on("play", "click", playPressed);
  on("reset", "click", () => startAgain());
  on("lr", "change", () => { if (rate() && state.run.length > 1) startAgain(); else address(); });
  on("broken", "change", (event) => startAgain({ broken: event.target.value || null }));
  on("batch", "change", (event) => startAgain({ B: Number(event.target.value) }));
  on("ask", "click", nextQuestion);
  on("options", "click", (event) => { if (event.target.dataset.option) judge(Number(event.target.dataset.option)); });
  DATA.sizes.forEach((_, l) => on(`unit-${l}`, "input", () => typed(l)));
  for (const id of ["seen", "moved", "push"]) onSquare($(id), 0);
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
if (DATA.drawable) pad($("pad"), $("clear"), (x) => choose(x, null, null), () => choose(null, null, null));
tinyNetwork();
readAddress();
