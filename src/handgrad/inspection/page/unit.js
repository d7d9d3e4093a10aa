"use strict";
// Words: numbers, links to equations and units, and where a unit's numbers come from.

const number = (value, digits = 3) => (value === 0 ? "0" : !Number.isFinite(value) ? String(value) : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e4 ? value.toExponential(digits - 1) : value.toPrecision(digits)).replaceAll("-", "−");
const plus = (value) => (value < 0 ? `− ${number(-value)}` : `+ ${number(value)}`);
// Products and their sum, negative factors in parentheses.
const sumOfProducts = (terms) => terms.map((factors) => factors.map((value) => (value < 0 ? `(${number(value)})` : number(value))).join(" · ")).join(" + ");
const percent = (value) => (Number.isNaN(value) ? "NaN" : `${(100 * value).toFixed(value > 0.995 && value < 1 ? 2 : 1)} %`);
const indexed = (letter, layer, index) => `<var>${letter}</var><sub>${layer}</sub>[${index}]`;
const slopeOf = (letter, layer, index) => `∂ℓ/∂${indexed(letter, layer, index)}`;
const asked = (g) => (DATA.drawable ? (g > 0 ? "add ink" : "remove ink") : g > 0 ? "brighten" : "darken"); // of a pixel
const nameOf = (layer, unit) => (layer === 0 ? `input ${unit}` : `unit ${unit}`);

const EQUATIONS = { 5: "5, BP1", 6: "6, BP2", 7: "7, BP3", 8: "8, BP4" };
const ACTIVATIONS = { Sigmoid: 11, Tanh: 12, ReLU: 13, LeakyReLU: 14, SiLU: 15, GELU: 16, Softplus: 17 };
const ref = (...equations) => `(${equations.map((n) => `<a href="#eq-${n}">${EQUATIONS[n] ?? n}</a>`).join(", ")})`;
const refPhi = () => ref(2, ACTIVATIONS[DATA.activation]);

function link(layer, unit) {
  return `<button type="button" class="link" data-layer="${layer}" data-unit="${unit}">${nameOf(layer, unit)}</button>`;
}

// The largest terms of a sum as a table, the rest in one row. A row: a unit, its factors, its term, and what is beside it.
function terms(what, heads, rows, most = 6) {
  const sorted = rows.toSorted((one, other) => Math.abs(other.term) - Math.abs(one.term)), rest = sorted.slice(most);
  const cells = (values) => values.map((value) => `<td>${number(value)}</td>`).join("");
  const shown = sorted.slice(0, most).map(({ layer, unit, factors, term, beside = [] }) =>
    `<tr><th scope="row">${link(layer, unit)}</th>${cells([...factors, term, ...beside])}</tr>`);
  if (rest.length) {
    const { factors, beside = [] } = rest[0], sum = rest.reduce((total, { term }) => total + term, 0);
    shown.push(`<tr><th scope="row" colspan="${factors.length + 1}">and ${rest.length} smaller</th>${cells([sum])}${"<td></td>".repeat(beside.length)}</tr>`);
  }
  return `<table class="terms"><caption>${what}</caption><thead><tr>${heads.map((head) => `<th scope="col">${head}</th>`).join("")}</tr></thead><tbody>${shown.join("")}</tbody></table>`;
}

const remark = (broken, text) => (state.broken === broken ? ` <b>${text}: ${broken} is broken.</b>` : "");

function explanation() {
  const { layer, number: unit } = state.unit;
  if (!state.passed) return "<h2>A unit</h2><p>No digit yet: draw one, or choose a test image.</p>";
  if (layer === 0) return inputExplained(unit);
  const output = layer === last, title = `<h2>Unit ${unit} of layer ${layer}${output ? `: “${DATA.classes[unit]}”` : ""}</h2>`;
  const back = !state.deltas ? '<p class="faint">Delta and gradients: press backward.</p>'
    : (output ? outputDeltaExplained : hiddenDeltaExplained)(layer, unit) + gradientsExplained(layer, unit);
  return title + forwardExplained(layer, unit) + back + inputTerms(layer, unit) + (state.deltas && !output ? deltaTerms(layer, unit) : "");
}

function inputExplained(i) {
  const { W, O, I } = state.layers[0], value = state.x[i], gradient = state.gradients?.[0].W;
  const rows = Array.from({ length: O }, (_, k) => ({ layer: 1, unit: k, factors: [W[k * I + i], value], term: W[k * I + i] * value, beside: gradient ? [gradient[k * I + i]] : [] }));
  return `<h2>Input ${i}: row ${Math.floor(i / DATA.shape[1])}, column ${i % DATA.shape[1]}</h2>
    <p>${indexed("a", 0, i)} = ${indexed("x", "", i)} = <b>${number(value)}</b>, the pixel's brightness from 0 to 1${state.moved ? `, moved by ${number(value - state.still[i])}` : ""}.</p>
    ${state.deltas ? pushExplained(i) : '<p class="faint">Its gradient: press backward.</p>'}
    ${terms(`Its terms in ${indexed("z", 1, "k")} of layer 1 ${ref(1)}, the strongest first:`, ["to", indexed("W", 1, `k, ${i}`), indexed("a", 0, i), "<var>W</var> · <var>a</var>", ...(gradient ? ["∂ℓ/∂<var>W</var>"] : [])], rows)}`;
}

function pushExplained(i) {
  const rows = deltaRows(0, i, targetDelta());
  const g = -rows.reduce((sum, { term }) => sum + term, 0), what = `${indexed("δ", 1, "k")} · ${indexed("W", 1, `k, ${i}`)}`;
  return `<p>${indexed("g", "", i)} = −${slopeOf("x", "", i)} = −Σ<sub>k</sub> ${what} = <b>${number(g)}</b> ${ref(26)}, ℓ and <var>δ</var> those of “${DATA.classes[state.target]}”: ${asked(g)} here.</p>
    ${terms(`The strongest terms of ${slopeOf("x", "", i)}:`, ["from", indexed("δ", 1, "k"), indexed("W", 1, `k, ${i}`), "<var>δ</var> · <var>W</var>"], rows)}`;
}

function forwardExplained(l, j) {
  const b = state.layers[l - 1].b[j], z = state.passed.zs[l - 1][j];
  return `<p>${indexed("z", l, j)} = Σ<sub>i</sub> ${indexed("W", l, `${j}, i`)} · ${indexed("a", l - 1, "i")} + ${indexed("b", l, j)} = ${number(z - b)} ${plus(b)} = <b>${number(z)}</b> ${ref(1)}</p>`
    + (l === last ? `<p>${indexed("p", "", j)} = <b>${percent(probabilities()[j])}</b> ${ref(3)}</p>`
      : `<p>${indexed("a", l, j)} = φ(${number(z)}) = <b>${number(outputs()[l - 1][j])}</b> ${refPhi()}</p>`);
}

function inputTerms(l, j) {
  const { W, I } = state.layers[l - 1], gradient = state.gradients?.[l - 1].W;
  const rows = Array.from(state.passed.activations[l - 1], (a, i) => ({ layer: l - 1, unit: i, factors: [W[j * I + i], a], term: W[j * I + i] * a, beside: gradient ? [gradient[j * I + i]] : [] }));
  return terms(`The strongest terms of ${indexed("z", l, j)}:`, ["from", indexed("W", l, `${j}, i`), indexed("a", l - 1, "i"), "<var>W</var> · <var>a</var>", ...(gradient ? ["∂ℓ/∂<var>W</var>"] : [])], rows);
}

function outputDeltaExplained(l, j) {
  const divided = state.B > 1 && state.broken !== "BP1", difference = `${number(probabilities()[j])} − ${j === state.right ? 1 : 0}`;
  const how = divided ? `(<var>p</var> − <var>y</var>) / <var>B</var> = (${difference}) / ${state.B}` : `<var>p</var> − <var>y</var> = ${difference}`;
  return `<p>${indexed("δ", l, j)} = ${how} = <b>${number(state.deltas[l - 1][j])}</b> ${ref(5)}${state.B > 1 ? remark("BP1", "Not divided by B") : ""}</p>`;
}

function hiddenDeltaExplained(l, j) {
  const z = state.passed.zs[l - 1][j], a = outputs()[l - 1][j], sum = deltaRows(l, j).reduce((total, { term }) => total + term, 0);
  const slope = brokenActivation(phi, state.broken).slope(z, a), at = indexed(state.broken === "phi" ? "a" : "z", l, j);
  const factor = state.broken === "BP2" ? ["", ""] : [` · φ′(${at})`, ` · ${number(slope)}`];
  return `<p>${indexed("δ", l, j)} = (Σ<sub>k</sub> ${indexed("δ", l + 1, "k")} · ${indexed("W", l + 1, `k, ${j}`)})${factor[0]}
    = ${number(sum)}${factor[1]} = <b>${number(state.deltas[l - 1][j])}</b> ${ref(6, ACTIVATIONS[DATA.activation])}${remark("BP2", "φ′ left out")}${remark("phi", "φ′ at a in place of z")}</p>`;
}

function deltaRows(l, j, delta = state.deltas[l]) {
  const { W, I } = state.layers[l];
  return Array.from(delta, (d, k) => ({ layer: l + 1, unit: k, factors: [d, W[k * I + j]], term: d * W[k * I + j] }));
}

function deltaTerms(l, j) {
  return terms(`The strongest terms of ${indexed("δ", l, j)}, before φ′:`, ["from", indexed("δ", l + 1, "k"), indexed("W", l + 1, `k, ${j}`), "<var>δ</var> · <var>W</var>"], deltaRows(l, j));
}

// A gradient as this digit's share and, in a batch, that of the others.
function shared(share, total) {
  return state.B === 1 ? `<b>${number(total)}</b>` : `${number(share)} (this digit) ${plus(total - share)} (the ${state.B - 1} others) = <b>${number(total)}</b>`;
}

function gradientsExplained(l, j) {
  const delta = state.deltas[l - 1][j], { W, b } = state.gradients[l - 1], input = weightInput(state.passed, l - 1, state.broken);
  const i = largestOf(input, Math.abs);
  const letter = state.broken === "BP4" && l > 1 ? "z" : "a", sum = state.B > 1 ? "Σ<sub>b</sub> " : "";
  const bias = state.B > 1 && state.broken === "BP3" ? delta / state.B : delta;
  return `<p>${slopeOf("b", l, j)} = ${sum}${indexed("δ", l, j)} = ${shared(bias, b[j])} ${ref(7)}${state.B > 1 ? remark("BP3", "The mean in place of the sum") : ""}</p>
    <p>${slopeOf("W", l, `${j}, ${i}`)} = ${sum}${indexed("δ", l, j)} · ${indexed(letter, l - 1, i)} = ${state.B > 1 ? "" : `${number(delta)} · ${number(input[i])} = `}${shared(delta * input[i], W[j * input.length + i])} ${ref(8)}${l > 1 ? remark("BP4", "z in place of a") : ""}</p>`;
}

// Replace the explanation, and keep the keyboard's focus in it.
function explain(html) {
  const element = $("unit-text"), inside = element.contains(document.activeElement);
  const { layer, unit } = inside ? document.activeElement.dataset : {};
  element.innerHTML = html;
  if (inside) (element.querySelector(`[data-layer="${layer}"][data-unit="${unit}"]`) ?? $("unit")).focus({ preventScroll: true });
}
