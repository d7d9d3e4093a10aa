"use strict";
// The four equations in the names and numbers of docs/derivation.md, for one example of a batch of B. The second writing of
// what backprop.py, losses.py and gradcheck.py hold; tests/inspection/test_explain.py compares the two. A layer is
// {W, b, O, I}: W by rows, (O, I).

// Each activation beside its derivative: a = of(z), phi'(z) = slope(z, a).   (11 - 17)
function activation(name, negativeSlope) {
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  return {
    Sigmoid: { of: sigmoid, slope: (z, a) => a * (1 - a) },
    Tanh: { of: Math.tanh, slope: (z, a) => 1 - a * a },
    ReLU: { of: (z) => Math.max(z, 0), slope: (z) => (z > 0 ? 1 : 0) },
    LeakyReLU: { of: (z) => (z > 0 ? z : negativeSlope * z), slope: (z) => (z > 0 ? 1 : negativeSlope) },
    SiLU: { of: (z) => z * sigmoid(z), slope: (z, a) => sigmoid(z) + a * (1 - sigmoid(z)) },
    GELU: { of: (z) => z * normal(z), slope: (z) => normal(z) + (z * Math.exp(-z * z / 2)) / Math.sqrt(2 * Math.PI) },
    Softplus: { of: (z) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z))), slope: sigmoid },
  }[name];
}

// The standard normal's distribution, to 1e-7 of its size (Numerical Recipes, erfc by Chebyshev fitting).
function normal(z) {
  const x = Math.abs(z) / Math.SQRT2, t = 2 / (2 + x);
  const terms = [0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196,
    1.00002368, -1.26551223];
  const tail = (t * Math.exp(-x * x + terms.reduce((sum, term) => sum * t + term, 0))) / 2;
  return z < 0 ? tail : 1 - tail;
}

// Zeros (black pixels, units that are off) add nothing to a sum.
function nonzero(values) {
  return Array.from(values.keys()).filter((i) => values[i] !== 0);
}

// z = W a + b   (1)
function preActivation({ W, b, O, I }, a) {
  const z = Float64Array.from(b), on = nonzero(a);
  for (let o = 0; o < O; o++) for (const i of on) z[o] += W[o * I + i] * a[i];
  return z;
}

// zs: z_1 ... z_L; activations: a_0 = x ... a_(L-1)   (1, 2)
function forward(layers, phi, x) {
  const zs = [], activations = [x];
  layers.forEach((layer, l) => {
    zs.push(preActivation(layer, activations[l]));
    if (l < layers.length - 1) activations.push(zs[l].map(phi.of));
  });
  return { zs, activations, logits: zs[zs.length - 1] };
}

// log p_c = z_c - log sum_k exp(z_k)   (3)
function logSoftmax(logits) {
  const largest = Math.max(...logits);
  const total = Math.log(logits.reduce((sum, z) => sum + Math.exp(z - largest), 0));
  return logits.map((z) => z - largest - total);
}

// loss = -log p of the right class   (4)
function crossEntropy(logits, right) {
  return -logSoftmax(logits)[right];
}

// delta_L = (p - y) / B   (BP1, 5)
function outputDelta(logits, right, B) {
  return logSoftmax(logits).map((logP, c) => (Math.exp(logP) - (c === right ? 1 : 0)) / B);
}

// dLoss/da_(l-1) = delta_l W_l; of layer 1: dLoss/dx   (26)
function inputGradient(delta, { W, I }) {
  const sums = new Float64Array(I);
  for (const o of nonzero(delta)) for (let i = 0; i < I; i++) sums[i] += delta[o] * W[o * I + i];
  return sums;
}

const norm = (values) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0)); // |values|

// x + g / |g|: a step of length 1 along g. With g = -dLoss/dx for another class, an adversarial example
// (Goodfellow et al. 2015; with the L2 norm, as in Miyato et al. 2016).
function stepAlong(x, g) {
  const length = norm(g) || 1;
  return x.map((value, i) => value + g[i] / length);
}

// delta_l = (delta_(l+1) W_(l+1)) * phi'(z_l)   (BP2, 6)
function hiddenDelta(deltaNext, layerNext, phi, z, a) {
  return inputGradient(deltaNext, layerNext).map((sum, i) => sum * phi.slope(z[i], a[i]));
}

// delta_1 ... delta_L of one example of a batch of B; broken: a key of BROKEN
function backward(layers, phi, { zs, activations, logits }, right, B = 1, broken = null) {
  const used = brokenActivation(phi, broken), deltas = [outputDelta(logits, right, broken === "BP1" ? 1 : B)];
  for (let l = layers.length - 2; l >= 0; l--) {
    deltas.unshift(hiddenDelta(deltas[0], layers[l + 1], used, zs[l], activations[l + 1]));
  }
  return deltas;
}

// dLoss/db_l = sum_b delta_l (BP3, 7) and dLoss/dW_l = sum_b delta_l a_(l-1), outer products (BP4, 8), of a batch of {x, label}
function gradients(layers, phi, batch, broken = null) {
  const sums = layers.map(({ W, b }) => ({ W: new Float64Array(W.length), b: new Float64Array(b.length) })), B = batch.length;
  for (const { x, label } of batch) {
    const passed = forward(layers, phi, x), deltas = backward(layers, phi, passed, label, B, broken);
    sums.forEach(({ W, b }, l) => {
      addOuter(W, deltas[l], weightInput(passed, l, broken));
      deltas[l].forEach((d, o) => { b[o] += broken === "BP3" ? d / B : d; });
    });
  }
  return sums;
}

// What layer l + 1 multiplies its deltas by: a_l
function weightInput({ zs, activations }, l, broken) {
  return broken === "BP4" && l > 0 ? zs[l - 1] : activations[l];
}

function addOuter(W, delta, a) {
  const on = nonzero(a);
  for (const o of nonzero(delta)) for (const i of on) W[o * a.length + i] += delta[o] * a[i];
}

// W <- W - lr dLoss/dW, b <- b - lr dLoss/db, in place
function descend(layers, gradients, lr) {
  layers.forEach((layer, l) => {
    for (const part of ["W", "b"]) gradients[l][part].forEach((slope, n) => { layer[part][n] -= lr * slope; });
  });
}

// The terms that can be broken, as in gradcheck.py
const BROKEN = {
  BP1: "δ_L = p − y, the division by B left out",
  BP2: "δ_l without the factor φ′(z_l)",
  BP3: "∂ℓ/∂b_l as the mean over the batch in place of the sum",
  BP4: "∂ℓ/∂W_l with z_(l−1) in place of a_(l−1)",
  phi: "φ′(a_l) in place of φ′(z_l)",
};
const CONSEQUENCES = {
  BP1: "Every gradient is B times too large, as if the learning rate were.",
  BP2: "Units that are off or saturated get deltas as if they were not, and pass them on.",
  BP3: "The biases learn B times too slowly; the weights make up for it, so that the curves hardly show it.",
  BP4: "Inputs count with z in place of a: a unit that is off moves the weights too.",
  phi: "The slope is taken at the wrong place: too flat or too steep, layer after layer.",
};

function brokenActivation(phi, broken) {
  if (broken === "BP2") return { of: phi.of, slope: () => 1 };
  if (broken === "phi") return { of: phi.of, slope: (z, a) => phi.slope(a, phi.of(a)) };
  return phi;
}

const magnitude = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0); // max |values|

// max |ours - right| / max |right|
function relativeError(ours, right) {
  return magnitude(ours.map((value, n) => value - right[n])) / (magnitude(right) || 1);
}
