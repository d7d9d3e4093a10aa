"use strict";
// What is shown: the state of lesson.js in layers, bars, curves, buttons and sentences.

function layerRow(l) {
  const size = DATA.sizes[l], output = l === last, row = document.createElement("section");
  const sub = (letter, layer) => `<var>${letter}</var><sub>${layer}</sub>`, z = `${sub("a", l - 1)} ${sub("W", l)}<sup>⊤</sup> + ${sub("b", l)}`;
  row.className = "layer";
  row.innerHTML = `
    <h3>Layer ${l}: ${size} units${output ? ", the logits" : ""}</h3>
    <div class="pair">
      <figure><figcaption>${output ? `${sub("z", l)} = ${z} ${ref(1)}` : `${sub("a", l)} = φ(${z}) ${ref(1, 2)}`}</figcaption>
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
  $(`wrong-${layer}`).textContent = right ? "" : `${layer ? `Layer ${layer} has units` : "There are inputs"} 0 to ${size - 1}.`;
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
  for (const part of [drawSeen, drawLayers, drawUnit, bars, drawPush, outputDeltas, controls, drawCurves, brokenTable]) part();
  if (!state.todo) address();
}

const marked = (layer) => (state.unit.layer === layer ? state.unit.number : -1);

// Numbers of a layer as squares, empty ones without numbers.
function squares(id, layer, values, mark, label) {
  paint($(id), values ?? new Float64Array(DATA.sizes[layer]), mark);
  $(id).setAttribute("aria-label", label);
}

function drawSeen() {
  squares("seen", 0, state.x, marked(0), state.x ? `what the network sees of ${state.digit === null ? "your drawing" : `test image ${state.digit + 1}`}${state.moved ? ", moved" : ""}` : "nothing yet");
  document.querySelectorAll("#digits button").forEach((button, n) => button.setAttribute("aria-pressed", String(n === state.digit)));
}

function drawLayers() {
  DATA.sizes.slice(1).forEach((size, n) => {
    const l = n + 1, values = outputs()[n], delta = state.deltas?.[n];
    const range = (numbers) => `from ${number(Math.min(...numbers))} to ${number(Math.max(...numbers))}`;
    squares(`a-${l}`, l, values, marked(l), values ? `layer ${l}: ${values.filter((v) => Math.abs(v) > 1e-6).length} of ${size} units are not zero, ${range(values)}` : `layer ${l}: no digit yet`);
    squares(`delta-${l}`, l, delta, delta ? marked(l) : -1, delta ? `deltas of layer ${l}: ${range(delta)}` : `deltas of layer ${l}: press backward`);
  });
}

function drawUnit() {
  const { layer, number: unit } = state.unit;
  explain(explanation());
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
  $("verdict").textContent = p.some(Number.isNaN) ? "The network says nothing: its numbers are no longer finite." : state.passed
    ? `The network says ${DATA.classes[best]}, with ${percent(p[best])}${state.right === null ? "" : `; the loss on it is ${number(loss())} nats`}.`
    : "No digit yet: draw one, or choose a test image.";
}

// The picture, where to add ink to it and where to remove some, and what the network says of it.
function drawPush() {
  const pixels = DATA.sizes[0], g = state.deltas && push(), target = DATA.classes[state.target];
  squares("moved", 0, state.x, marked(0), $("seen").getAttribute("aria-label"));
  squares("push", 0, g, g ? marked(0) : -1, g ? `towards ${target}: ${asked(1)} in ${g.filter((v) => v > 0).length} of ${pixels}, ${asked(-1)} in ${g.filter((v) => v < 0).length}` : "gradient of the picture: press backward");
  $("target").value = state.target ?? "";
  $("move").disabled = !g;
  $("moved-said").textContent = !g ? "The picture moves along its gradient: press backward first."
    : `Moved by ${number(norm(state.x.map((v, i) => v - state.still[i])))}; the picture's own length is ${number(norm(state.still))}.
    ${$("verdict").textContent.split(";")[0]}; “${target}” has ${percent(probabilities()[state.target])}.`;
}

function outputDeltas() {
  document.querySelectorAll("#output-deltas button").forEach((button, c) => {
    const delta = state.deltas?.at(-1)[c];
    button.querySelector("span").textContent = delta === undefined ? "–" : number(delta, 2);
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
  $("broken-said").textContent = !errors ? "The gradients come with backward." : errors.flat().every((error) => error <= 1e-9) ? harmless() : `${CONSEQUENCES[state.broken]} Errors are relative to the largest entry of the right gradient.${state.earlier.length ? "" : " To compare: take steps with nothing broken first; that curve stays as the faint one."}`;
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
