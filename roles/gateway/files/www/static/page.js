// The page asks v2, which gives all probabilities. What it says is in texts.js. The browser itself asks for the password, and keeps it.
"use strict";

const element = (id) => document.getElementById(id);
const sentence = element("sentence");
const language = navigator.languages.map((wanted) => wanted.slice(0, 2).toLowerCase()).find((wanted) => wanted in TEXTS) ?? "en";
const text = TEXTS[language];
const percent = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const weight = new Intl.NumberFormat(language, { signDisplay: "always", maximumFractionDigits: 2, minimumFractionDigits: 2 });

function translate() {
  document.documentElement.lang = language;
  document.title = `vmlops: ${text.title}`;
  for (const part of document.querySelectorAll("[data-text]")) part.textContent = text[part.dataset.text];
  for (const part of document.querySelectorAll("[data-label]")) part.setAttribute("aria-label", text[part.dataset.label]);
}

function row(label, probability) {
  const tr = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = label;
  const share = document.createElement("td");
  share.textContent = percent.format(probability);
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.style.width = `${100 * probability}%`;
  const cell = document.createElement("td");
  cell.setAttribute("aria-hidden", "true");
  cell.append(bar);
  tr.append(name, share, cell);
  return tr;
}

function reason({ ngram, weight: value }) {
  const item = document.createElement("li");
  const number = document.createElement("span");
  number.className = "weight";
  number.textContent = weight.format(value);
  item.append(`${ngram} `, number);
  return item;
}

function show(answer, requestId, milliseconds) {
  const ranked = Object.entries(answer.prediction_proba_dict).sort((a, b) => b[1] - a[1]);
  const ngrams = answer.top_ngrams ?? [];
  element("label").textContent = answer.prediction;
  element("bars").replaceChildren(...ranked.map(([label, probability]) => row(label, probability)));
  element("ngrams").replaceChildren(...ngrams.map(reason));
  element("reasons").hidden = ngrams.length === 0;
  element("trace").textContent = text.trace({
    milliseconds: Math.round(milliseconds),
    model: answer.model_version,
    instance: answer.instance,
    request: requestId,
  });
  element("answer").hidden = false;
  element("said").textContent = `${answer.prediction}, ${percent.format(ranked[0][1])}`; // for screen readers
}

function complain(status, problem) {
  element("answer").hidden = true;
  element("said").textContent = "";
  const words = text.problems[status] ?? problem?.detail ?? text.status(status);
  element("problem").textContent = problem?.request_id ? `${words} ${text.request(problem.request_id)}` : words;
  element("problem").hidden = false;
}

const body = () => JSON.stringify({ sentence: sentence.value });
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for a POSIX shell

function showCommand() {
  element("curl").textContent = [
    `curl --cacert certs/ca.crt -u USER ${location.origin}/predict`,
    "  -H 'Content-Type: application/json' -H 'X-Experiment-Group: debug'",
    `  -d ${quoted(body())}`,
  ].join(" \\\n");
}

async function ask(event) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
  element("problem").hidden = true;
  const start = performance.now();
  let status = 0;
  try {
    const response = await fetch("predict", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Experiment-Group": "debug" },
      body: body(),
    });
    status = response.status;
    const answer = await response.json();
    if (response.ok) show(answer, response.headers.get("X-Request-ID"), performance.now() - start);
    else complain(status, answer);
  } catch {
    complain(status);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText(element("curl").textContent);
    element("copied").textContent = text.copied;
  } catch {
    element("copied").textContent = text.notCopied;
  }
}

translate();
element("form").addEventListener("submit", ask);
sentence.addEventListener("input", showCommand);
sentence.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("form").requestSubmit();
  }
});
element("copy").addEventListener("click", copy);
showCommand();
