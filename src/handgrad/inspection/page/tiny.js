"use strict";
// The worked example of docs/derivation.md: two images, 2-2-2 units, relu; every number can be followed.

const T = 4 * (1 - Math.log(3)), TINY_RATE = 0.5, ACROSS = [27, 172, 322], DOWN = [60, 240];
const tiny = {
  phi: activation("ReLU"), batch: [{ x: Float64Array.of(1, 2), label: 0 }, { x: Float64Array.of(0, T), label: 1 }],
  layers: null, image: 0, backward: false, steps: 0, chosen: { kind: "unit", layer: 1, to: 0 },
};

function tinyStart() {
  tiny.layers = [{ W: Float64Array.of(1 / 2, -1 / 4, 1, 1), b: Float64Array.of(1, -1), O: 2, I: 2 }, { W: Float64Array.of(1, 0, 0, 1 / 2), b: Float64Array.of(0, 0), O: 2, I: 2 }];
  Object.assign(tiny, { backward: false, steps: 0 });
}

// All numbers of the network: per image the forward pass, p and deltas; the batch's gradients and loss.
function tinyNumbers() {
  const images = tiny.batch.map(({ x, label }) => {
    const passed = forward(tiny.layers, tiny.phi, x);
    return { ...passed, p: logSoftmax(passed.logits).map(Math.exp), deltas: backward(tiny.layers, tiny.phi, passed, label, tiny.batch.length), label };
  });
  const loss = images.reduce((sum, { logits, label }) => sum + crossEntropy(logits, label) / images.length, 0);
  return { images, gradients: gradients(tiny.layers, tiny.phi, tiny.batch), loss };
}

function tinyName({ kind, layer, to, from }) {
  if (kind === "edge") return `weight ${to}, ${from} of layer ${layer}`;
  return layer ? `unit ${to} of layer ${layer}, image ${tiny.image + 1}` : `input ${to}, image ${tiny.image + 1}`;
}

function tinyButton(choice, x, y, width, lines) {
  const height = 6 + 15 * lines.length, chosen = JSON.stringify(choice) === JSON.stringify(tiny.chosen);
  return `<g role="button" tabindex="0" class="${choice.kind}${chosen ? " chosen" : ""}" data-choice='${JSON.stringify(choice)}' aria-pressed="${chosen}" aria-label="${tinyName(choice)}: ${lines.join(", ")}">
    <rect x="${x - width / 2}" y="${y - height / 2}" width="${width}" height="${height}" rx="5"/>
    ${lines.map((line, n) => `<text x="${x}" y="${y - height / 2 + 15 + 15 * n}">${line}</text>`).join("")}</g>`;
}

function tinyUnit(numbers, layer, j) {
  const image = numbers.images[tiny.image], lines = layer === 0 ? [`x ${number(image.activations[0][j])}`] : [
    `b ${number(tiny.layers[layer - 1].b[j])}`, `z ${number(image.zs[layer - 1][j])}`,
    layer === 2 ? `p ${number(image.p[j])}` : `a ${number(image.activations[1][j])}`,
    `δ ${tiny.backward ? number(image.deltas[layer - 1][j]) : "?"}`];
  return tinyButton({ kind: "unit", layer, to: j }, ACROSS[layer], DOWN[j], layer ? 74 : 52, lines);
}

function tinyEdge(numbers, layer, to, from) {
  const n = 2 * to + from, start = ACROSS[layer - 1] + (layer === 1 ? 26 : 37), end = ACROSS[layer] - 37, part = to === from ? 0.5 : 0.31;
  const lines = [`W ${number(tiny.layers[layer - 1].W[n])}`, `∂ ${tiny.backward ? number(numbers.gradients[layer - 1].W[n]) : "?"}`];
  const at = (a, b) => a + part * (b - a);
  return [`<line x1="${start}" y1="${DOWN[from]}" x2="${end}" y2="${DOWN[to]}"/>`,
    tinyButton({ kind: "edge", layer, to, from }, at(start, end), at(DOWN[from], DOWN[to]), 66, lines)];
}

function tinyExplained(numbers) {
  const { kind, layer: l, to: j, from: i } = tiny.chosen, image = numbers.images[tiny.image], { W, b } = l ? tiny.layers[l - 1] : {};
  const moved = (letter, value, slope) => `<p>The next step: ${letter} − η ∂ℓ/∂${letter} = ${number(value)} − ${TINY_RATE} · ${sumOfProducts([[slope]])} = <b>${number(value - TINY_RATE * slope)}</b> ${ref(21)}</p>`;
  if (l === 0) return `<p>${indexed("x", "", j)} = ${indexed("a", 0, j)} = <b>${number(image.activations[0][j])}</b>, a pixel.</p>`;
  if (kind === "edge") {
    const slope = numbers.gradients[l - 1].W[2 * j + i], products = numbers.images.map(({ deltas, activations }) => [deltas[l - 1][j], activations[l - 1][i]]);
    return `<p>${indexed("W", l, `${j}, ${i}`)} = <b>${number(W[2 * j + i])}</b>, from ${l === 1 ? "input" : "unit"} ${i} to unit ${j} of layer ${l}.</p>` + (tiny.backward
      ? `<p>${slopeOf("W", l, `${j}, ${i}`)} = Σ<sub>b</sub> ${indexed("δ", l, j)} · ${indexed("a", l - 1, i)} = ${sumOfProducts(products)} = <b>${number(slope)}</b>, over both images ${ref(8)}</p>${moved("<var>W</var>", W[2 * j + i], slope)}` : "");
  }
  const a = image.activations[l - 1], z = image.zs[l - 1][j], value = l === 2 ? `<p>${indexed("p", "", j)} = <b>${number(image.p[j])}</b> ${ref(3)}</p>`
    : `<p>${indexed("a", l, j)} = max(${number(z)}, 0) = <b>${number(image.activations[1][j])}</b> ${ref(2, 13)}</p>`;
  const text = `<p>${indexed("z", l, j)} = ${sumOfProducts([[W[2 * j], a[0]], [W[2 * j + 1], a[1]], [b[j]]])} = <b>${number(z)}</b> ${ref(1)}</p>${value}`;
  if (!tiny.backward) return text;
  const delta = image.deltas[l - 1][j], back = l === 1 ? [0, 1].map((k) => [image.deltas[1][k], tiny.layers[1].W[2 * k + j]]) : null;
  return `${text}<p>${indexed("δ", l, j)} = ${back ? `(${sumOfProducts(back)}) · ${z > 0 ? 1 : 0}` : `(${number(image.p[j])} − ${j === image.label ? 1 : 0}) / 2`} = <b>${number(delta)}</b> ${back ? ref(6, 13) : ref(5)}</p>
    <p>${slopeOf("b", l, j)} = Σ<sub>b</sub> ${indexed("δ", l, j)} = ${sumOfProducts(numbers.images.map(({ deltas }) => [deltas[l - 1][j]]))} = <b>${number(numbers.gradients[l - 1].b[j])}</b> ${ref(7)}</p>${moved("<var>b</var>", b[j], numbers.gradients[l - 1].b[j])}`;
}

function tinyShow() {
  const numbers = tinyNumbers(), focused = document.activeElement?.dataset?.choice, pairs = [[0, 0], [0, 1], [1, 0], [1, 1]];
  const edges = [1, 2].flatMap((layer) => pairs.map(([to, from]) => tinyEdge(numbers, layer, to, from)));
  const units = [0, 1, 2].flatMap((layer) => [0, 1].map((j) => tinyUnit(numbers, layer, j)));
  $("tiny").innerHTML = [...edges.map(([line]) => line), ...units, ...edges.map(([, button]) => button)].join("");
  if (focused) [...$("tiny").querySelectorAll("g")].find((g) => g.dataset.choice === focused)?.focus({ preventScroll: true });
  explain(`<h2>Tiny network: ${tinyName(tiny.chosen)}</h2>${tinyExplained(numbers)}${tiny.backward ? "" : '<p class="faint">Delta and gradients: press backward.</p>'}`);
  $("unit-weights").hidden = true;
  $("tiny-said").textContent = `Loss on both images: ${number(numbers.loss)} nats after ${tiny.steps} ${tiny.steps === 1 ? "step" : "steps"}.${tiny.backward ? "" : " The deltas δ and gradients ∂ come with backward; step needs them."}`;
  $("tiny-step").disabled = !tiny.backward;
}

function tinyPressed(event) {
  const pressed = event.target.closest("g[data-choice]");
  if (!pressed || (event.type === "keydown" && !["Enter", " "].includes(event.key))) return;
  event.preventDefault();
  tiny.chosen = JSON.parse(pressed.dataset.choice);
  tinyShow();
}

function tinyNetwork() {
  const on = (id, change) => $(id).addEventListener("click", () => { change(); tinyShow(); });
  on("tiny-backward", () => { tiny.backward = true; });
  on("tiny-step", () => { descend(tiny.layers, tinyNumbers().gradients, TINY_RATE); tiny.steps += 1; });
  on("tiny-reset", tinyStart);
  $("tiny-images").addEventListener("change", (event) => { tiny.image = Number(event.target.value); tinyShow(); });
  for (const type of ["click", "keydown"]) $("tiny").addEventListener(type, tinyPressed);
  tinyStart();
  tinyShow();
}
