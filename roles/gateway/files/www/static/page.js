// The page asks v2, which gives all probabilities. The form is made from the signature of v2's model, which its OpenAPI document
// carries. What the page says is in texts.js. The browser itself asks for the password, and keeps it.
"use strict";

const element = (id) => document.getElementById(id);
const language = navigator.languages.map((wanted) => wanted.slice(0, 2).toLowerCase()).find((wanted) => wanted in TEXTS) ?? "en";
const text = TEXTS[language];
const percent = new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const weight = new Intl.NumberFormat(language, { signDisplay: "always", maximumFractionDigits: 2, minimumFractionDigits: 2 });
const number = new Intl.NumberFormat(language, { maximumSignificantDigits: 6 });
const debug = { "X-Experiment-Group": "debug" };
let signature; // of the model
let body; // gives the JSON of what the form holds

function translate() {
  document.documentElement.lang = language;
  for (const part of document.querySelectorAll("[data-text]")) part.textContent = text[part.dataset.text];
  for (const part of document.querySelectorAll("[data-label]")) part.setAttribute("aria-label", text[part.dataset.label]);
  entitle(text.title);
}

function entitle(title) {
  element("title").textContent = title;
  document.title = `vmlops: ${title}`;
}

// --- the form ---

function made(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

function showText(example) {
  const field = made("textarea", { id: "sentence", rows: 2, required: true, autocomplete: "off", value: example });
  field.setAttribute("aria-describedby", "hint");
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      element("form").requestSubmit();
    }
  });
  element("fields").replaceChildren(made("label", { htmlFor: "sentence", textContent: text.sentence }), field);
  element("hint").textContent = text.hint;
  field.focus();
  return () => JSON.stringify({ sentence: field.value });
}

function choice(column, values, shown) {
  const field = made("select");
  if (column.nullable) field.append(made("option", { value: "null", textContent: text.missing }));
  for (const value of values) {
    field.append(made("option", { value: JSON.stringify(value), textContent: shown(value), selected: value === column.typical }));
  }
  return [field, () => JSON.parse(field.value)];
}

// The field of a column, and a function that gives its value.
function control(column) {
  if (column.type === "category") return choice(column, column.values, String);
  if (column.type === "boolean") return choice(column, [true, false], (value) => (value ? text.yes : text.no));
  const field = made("input", { required: !column.nullable, autocomplete: "off" });
  if (column.type === "text") {
    field.value = column.typical;
    return [field, () => (field.value === "" && column.nullable ? null : field.value)];
  }
  Object.assign(field, { type: "number", step: column.type === "integer" ? "1" : "any", value: column.typical });
  return [field, () => (field.value === "" ? null : Number(field.value))];
}

function showColumns(columns) {
  const values = columns.map((column, index) => {
    const [field, value] = control(column);
    const hints = [
      column.range ? text.range({ least: number.format(column.range[0]), greatest: number.format(column.range[1]) }) : "",
      column.nullable && field.tagName === "INPUT" ? text.mayBeEmpty : "",
    ];
    Object.assign(field, { id: `column-${index}`, name: column.name });
    field.setAttribute("aria-describedby", `hint-${index}`);
    const cell = made("div");
    cell.append(
      made("label", { htmlFor: field.id, textContent: column.name }),
      field,
      made("span", { id: `hint-${index}`, className: "faint", textContent: hints.filter(Boolean).join(" ") }),
    );
    element("fields").append(cell);
    return value;
  });
  element("fields").className = "columns";
  element("hint").textContent = text.columnsHint;
  return () => JSON.stringify(Object.fromEntries(columns.map((column, index) => [column.name, values[index]()])));
}

async function showForm() {
  let status = 0;
  try {
    const response = await fetch("openapi.json", { headers: debug });
    status = response.status;
    const api = await response.json();
    if (!response.ok) return complain(status, api);
    signature = api["x-signature"];
    const { columns } = signature;
    entitle(text.of(signature.model));
    body = columns.length ? showColumns(columns) : showText(api.components.schemas.Sentence.examples[0].sentence);
    element("terminal").hidden = false;
    showCommand();
  } catch {
    complain(status);
  }
}

// --- the answer ---

const named = (prediction) => (signature.kind === "number" ? number.format(prediction) : String(prediction));

function row(label, probability) {
  const tr = made("tr");
  const cell = made("td");
  const bar = made("div", { className: "bar" });
  bar.style.width = `${100 * probability}%`;
  cell.setAttribute("aria-hidden", "true");
  cell.append(bar);
  tr.append(made("th", { scope: "row", textContent: label }), made("td", { textContent: percent.format(probability) }), cell);
  return tr;
}

function reason({ ngram, column, weight: value }) {
  const item = made("li");
  item.append(`${ngram ?? column} `, made("span", { className: "weight", textContent: weight.format(value) }));
  return item;
}

function show(answer, requestId, milliseconds) {
  for (const field of element("form").elements) field.ariaInvalid = null;
  const ranked = Object.entries(answer.prediction_proba_dict ?? {}).sort((a, b) => b[1] - a[1]);
  const parts = answer.top_ngrams ?? answer.top_columns ?? [];
  const spread = answer.prediction_spread;
  element("label").textContent = named(answer.prediction);
  element("spread").textContent = spread === undefined ? "" : text.spread(number.format(spread));
  element("spread").hidden = spread === undefined;
  element("bars").replaceChildren(...ranked.map(([label, probability]) => row(label, probability)));
  element("probabilities").hidden = ranked.length === 0;
  element("parts").replaceChildren(...parts.map(reason));
  element("reasons").hidden = parts.length === 0;
  element("trace").textContent = text.trace({
    milliseconds: Math.round(milliseconds),
    model: answer.model_version,
    instance: answer.instance,
    request: requestId,
  });
  element("answer").hidden = false;
  const certainty = ranked.length ? percent.format(ranked[0][1]) : element("spread").textContent;
  element("said").textContent = [named(answer.prediction), certainty].filter(Boolean).join(", "); // for screen readers
}

function complain(status, problem) {
  element("answer").hidden = true;
  element("said").textContent = "";
  const words = text.problems[status] ?? problem?.detail ?? text.status(status);
  element("problem").textContent = problem?.request_id ? `${words} ${text.request(problem.request_id)}` : words;
  element("problem").hidden = false;
  const refused = new Set(problem?.errors?.map(({ field }) => field));
  for (const field of element("form").elements) field.ariaInvalid = refused.has(field.name) ? "true" : null;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for a POSIX shell

function showCommand() {
  element("curl").textContent = [
    `curl --cacert certs/ca.crt -u USER ${location.origin}/predict`,
    "  -H 'Content-Type: application/json' -H 'X-Experiment-Group: debug'",
    `  -d ${quoted(body())}`,
  ].join(" \\\n");
}

async function predict() {
  const start = performance.now();
  let status = 0;
  try {
    const response = await fetch("predict", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...debug },
      body: body(),
    });
    status = response.status;
    const answer = await response.json();
    if (response.ok) show(answer, response.headers.get("X-Request-ID"), performance.now() - start);
    else complain(status, answer);
  } catch {
    complain(status);
  }
}

// Do one thing at a time: without a form, the button tries again to get one.
async function work() {
  const button = element("form").querySelector("button");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true"); // not `disabled`, which would lose the focus
  element("problem").hidden = true;
  await (body ? predict() : showForm());
  button.removeAttribute("aria-disabled");
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
element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  work();
});
element("form").addEventListener("input", showCommand);
element("copy").addEventListener("click", copy);
work();
