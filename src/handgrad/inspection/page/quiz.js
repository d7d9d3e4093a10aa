"use strict";
// Questions about a digit, answered before the deltas are shown, with a score.

const score = { right: 0, asked: 0 };
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const largestOf = (values, size = (value) => value) => values.reduce((best, value, n) => (size(value) > size(values[best]) ? n : best), 0);

function nextQuestion() {
  const image = pick([...digits.keys()].filter((n) => n !== state.digit));
  if (!rate()) $("lr").value = $("lr").defaultValue;
  chooseDigit(image);
  startAgain({ broken: null, B: 1 });
  const deltas = backward(state.layers, phi, state.passed, state.right);
  const kinds = [signOfOutput, largestDelta, strongestPush, effectOfStep, ...(last > 1 ? [signOfHidden] : [])];
  state.question = kinds[score.asked % kinds.length](deltas);
  $("options").innerHTML = state.question.options.map((text, n) => `<button type="button" class="plain" data-option="${n}">${text}</button>`).join("");
  $("question").textContent = state.question.text;
}

// A question: its text, options, what is right (an option's index, once backward is pressed), why, and the unit to show.
const rightName = () => `“${DATA.classes[state.right]}”`;

function signOfOutput(deltas) {
  const j = pick([...deltas.at(-1).keys()]), d = deltas.at(-1)[j];
  return { text: `Output unit ${j} has p = ${number(probabilities()[j])}, and ${rightName()} is right. Is its delta above or below zero?`,
    options: ["above zero", "below zero"], right: () => (d > 0 ? 0 : 1), layer: last, unit: j,
    why: () => `δ = p − y = ${number(d)}: above zero for every wrong class, below zero for the right one` };
}

function signOfHidden(deltas) {
  const l = last - 1, next = state.layers[l], sizes = [...deltas[l - 1].keys()].toSorted((i, j) => Math.abs(deltas[l - 1][j]) - Math.abs(deltas[l - 1][i]));
  const j = pick(sizes.slice(0, 5)), d = deltas[l - 1][j], term = (k) => Math.abs(deltas[l][k] * next.W[k * next.I + j]);
  const k = largestOf([...deltas[l].keys()], term), weight = number(next.W[k * next.I + j]), of = k === state.right ? "the right answer" : "a wrong answer";
  return { text: `Unit ${j} of layer ${l} has its strongest connection back through W = ${weight} to output unit ${k}, ${of}. Is its delta above or below zero?`,
    options: ["above zero", "below zero"], right: () => (d > 0 ? 0 : 1), layer: l, unit: j,
    why: () => `the strongest term is δ · W = ${sumOfProducts([[deltas[l][k], next.W[k * next.I + j]]])}, and in all δ = ${number(d)}` };
}

function largestDelta(deltas) {
  return { text: `${rightName()} is right. Which output unit gets the delta of the largest size?`, options: DATA.classes, right: () => state.right,
    layer: last, unit: state.right, why: () => `the right answer's |p − 1| = ${number(Math.abs(deltas.at(-1)[state.right]))} is the sum of all others` };
}

function strongestPush(deltas) {
  const wrong = largestOf(deltas.at(-1));
  return { text: `${rightName()} is right. Which logit will a step push down most?`, options: DATA.classes, right: () => wrong,
    layer: last, unit: wrong, why: () => `the wrong class with the largest p has the largest δ above zero, ${number(deltas.at(-1)[wrong])}` };
}

function effectOfStep() {
  const before = probabilities()[state.right], lr = number(rate());
  const change = () => probabilities()[state.right] - before;
  return { text: `One step with learning rate ${lr}: what does it do to p of ${rightName()}, now ${percent(before)}? (Hardly: by less than 1 point.)`,
    options: ["rises", "hardly moves", "falls"],
    right: () => (change() > 0.01 ? 0 : change() < -0.01 ? 2 : 1), layer: last, unit: state.right, step: true,
    why: () => `p goes from ${percent(before)} to ${percent(probabilities()[state.right])}; where p is near 1, p − y is near 0 and the step is small` };
}

function judge(option) {
  const question = state.question;
  if (!question) return;
  state.question = null;
  backwardPressed();
  if (question.step) stepOnce();
  look(question.layer, question.unit);
  const right = question.right();
  score.asked += 1;
  score.right += Number(option === right);
  $("score").textContent = `Score: ${score.right} of ${score.asked}.`;
  $("judged").innerHTML = `<b>${option === right ? "Right" : `No, “${question.options[right]}”`}:</b> ${question.why()}.`;
  document.querySelectorAll("#options button").forEach((button, n) => button.classList.toggle("solution", n === right));
}

function forgetQuestion() {
  state.question = null;
  $("question").textContent = "No question is open: press “next question”.";
  $("options").textContent = $("judged").textContent = "";
}
