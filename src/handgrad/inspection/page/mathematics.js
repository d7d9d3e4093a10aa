"use strict";
// The four equations for one example (B = 1), in the names and numbers of docs/derivation.md. The second writing of what
// backprop.py and loss.py hold; tests/test_inside_lesson.py compares the two. A layer is {W, b, O, I}: W by rows, (O, I).

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

// z = W a + b   (1)
function preActivation({ W, b, O, I }, a) {
  const z = new Float64Array(O);
  for (let o = 0; o < O; o++) {
    let sum = b[o];
    for (let i = 0; i < I; i++) sum += W[o * I + i] * a[i];
    z[o] = sum;
  }
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

// delta_L = p - y   (BP1, 5)
function outputDelta(logits, right) {
  return logSoftmax(logits).map((logP, c) => Math.exp(logP) - (c === right ? 1 : 0));
}

// delta_l = (delta_(l+1) W_(l+1)) * phi'(z_l)   (BP2, 6)
function hiddenDelta(deltaNext, { W, O, I }, phi, z, a) {
  const delta = new Float64Array(I);
  for (let o = 0; o < O; o++) for (let i = 0; i < I; i++) delta[i] += deltaNext[o] * W[o * I + i];
  return delta.map((sum, i) => sum * phi.slope(z[i], a[i]));
}

// delta_1 ... delta_L; dLoss/db_l is delta_l itself   (BP3, 7)
function backward(layers, phi, { zs, activations, logits }, right) {
  const deltas = [outputDelta(logits, right)];
  for (let l = layers.length - 2; l >= 0; l--) {
    deltas.unshift(hiddenDelta(deltas[0], layers[l + 1], phi, zs[l], activations[l + 1]));
  }
  return deltas;
}

// dLoss/dW_l = delta_l a_(l-1), an outer product   (BP4, 8)
function weightGradient(delta, a) {
  const gradient = new Float64Array(delta.length * a.length);
  delta.forEach((d, o) => a.forEach((value, i) => { gradient[o * a.length + i] = d * value; }));
  return gradient;
}

// W <- W - lr dLoss/dW, b <- b - lr dLoss/db, in place
function descend(layers, deltas, activations, lr) {
  layers.forEach(({ W, b }, l) => {
    weightGradient(deltas[l], activations[l]).forEach((slope, n) => { W[n] -= lr * slope; });
    deltas[l].forEach((slope, o) => { b[o] -= lr * slope; });
  });
}
