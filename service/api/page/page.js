/** The page: reads a table, has the service score it, and shows what comes back. */

import { byId, counted, html } from "./dom.js";
import { queryOf } from "./programs.js";
import { hideResults, showResults } from "./results.js";
import { BASE, call, post } from "./service.js";
import { BinaryError, readFile, readTable, toDoubles, toTexts } from "./table.js";

const ROLES = {
  auto: "model",
  key: "series key",
  time: "time",
  target: "actual value",
  weight: "weight",
  scale: "scale",
  none: "left out",
};
const KNOWN = {
  key: ["unique_id", "item_id", "series_id", "id", "cutoff", "series"],
  time: ["ds", "timestamp", "datetime", "date", "time"],
  target: ["y", "target", "actual", "actuals", "y_true"],
  weight: ["weight", "weights", "sample_weight"],
  scale: ["scale"],
};
const TEXTS = ["key", "time"];
const OPTIONS = { missing: "error", zero_division: "zero", duplicates: "error" };

/** @type {{name: string, cells: (string | number | null)[]}[]} */
let table = [];
let isScoring = false;

// Losses

async function listLosses() {
  try {
    const losses = await (await call("losses")).json();
    byId("losses").replaceChildren(...losses.map(lossChoice));
    showProblem(null);
  } catch (error) {
    showProblem(error);
  }
  allowScore();
}

function lossChoice({ name, title, formula, parameters, scaled, default: isDefault }) {
  const box = html("input", {
    type: "checkbox",
    value: name,
    checked: isDefault,
    onchange: allowScore,
  });
  const inputs = Object.entries(parameters).map(([parameter, schema]) => {
    const value = String(schema.default);
    const input =
      schema.type === "boolean"
        ? html(
            "select",
            {},
            ...["true", "false"].map((text) => html("option", { selected: text === value }, text)),
          )
        : html("input", { type: "number", step: "any", value, required: true });
    Object.assign(input.dataset, { parameter, default: value });
    return html("label", { class: "parameter" }, `${parameter} `, input);
  });
  const about = scaled ? `${title}; needs a column of scales` : title;
  return html(
    "div",
    { class: "choice", title: formula },
    html("label", {}, box, html("strong", {}, name), html("small", {}, about)),
    ...inputs,
  );
}

/** Return the chosen losses as the service spells them, such as `huber:delta=1.5`. */
function chosenLosses() {
  return [...byId("losses").querySelectorAll(":checked[type=checkbox]")].map((box) => {
    const inputs = [...box.closest(".choice").querySelectorAll("[data-parameter]")];
    const changed = inputs.filter(({ value, dataset }) => value !== dataset.default);
    return [
      box.value,
      ...changed.map(({ value, dataset }) => `${dataset.parameter}=${value}`),
    ].join(":");
  });
}

// Data

function load(text, origin) {
  byId("data-error").replaceChildren();
  table = [];
  try {
    if (text.trim()) table = readTable(text);
  } catch (error) {
    showDataError(error.message);
  }
  byId("data").hidden = !table.length;
  if (table.length) {
    byId("data-summary").textContent =
      `${origin}: ${counted(table[0].cells.length, "row")}, ${counted(table.length, "column")}`;
    const taken = new Set();
    byId("columns").replaceChildren(
      ...table.map((column, i) => columnChoice(column, i, guessRole(column.name, taken))),
    );
  }
  allowScore();
}

/** Return what a column is by its name; all but keys are one column each. */
function guessRole(name, taken) {
  const role = Object.keys(KNOWN).find((role) => KNOWN[role].includes(name.toLowerCase()));
  if (!role || taken.has(role)) return "auto";
  if (role !== "key") taken.add(role);
  return role;
}

function columnChoice({ name, cells }, i, role) {
  const options = Object.entries(ROLES).map(([value, text]) =>
    html("option", { value, selected: value === role }, text),
  );
  const select = html("select", { "data-column": i, onchange: allowScore }, ...options);
  const examples = cells.slice(0, 3).map((cell) => cell ?? "–");
  return html(
    "label",
    { class: "choice" },
    html("strong", {}, name || "(no name)"),
    html("small", {}, examples.join(", ")),
    select,
  );
}

/** Return the columns that have a role. */
function columnsOf(role) {
  return [...byId("columns").querySelectorAll("select")]
    .filter((select) => select.value === role)
    .map((select) => table[select.dataset.column]);
}

async function loadFile(file) {
  byId("text").value = "";
  try {
    load(await readFile(file), file.name);
  } catch (error) {
    load("", "");
    if (error instanceof BinaryError) {
      showDataError(
        `${file.name} is ${error.message}, which a browser cannot read. Score it from a shell, `,
        html("code", {}, `lossclient score ${file.name} --url ${BASE}`),
        ", or write it as CSV.",
      );
    } else showDataError(error.message);
  }
}

function showDataError(...parts) {
  byId("data-error").replaceChildren(...parts);
}

byId("file").addEventListener("change", ({ target }) => {
  if (target.files.length) loadFile(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});
byId("text").addEventListener("input", ({ target }) => load(target.value, "Pasted"));
byId("example").addEventListener("click", async () => {
  try {
    const answer = await fetch(`${BASE}page/example.csv`);
    load(await answer.text(), "example.csv");
    byId("missing").value = "skip"; // one of its series lacks weeks
  } catch (error) {
    showDataError(error.message);
  }
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) loadFile(event.dataTransfer.files[0]);
});

// Scoring

function allowScore() {
  byId("score").disabled = !table.length || !chosenLosses().length;
}

byId("request").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (isScoring) return; // the button stays enabled, so that it keeps the focus
  isScoring = true;
  byId("score").textContent = "Scoring …";
  try {
    await score();
    showProblem(null);
  } catch (error) {
    hideResults();
    showProblem(error);
  } finally {
    isScoring = false;
    byId("score").textContent = "Score";
  }
});

async function score() {
  const keys = columnsOf("key");
  const single = (role) => {
    const columns = columnsOf(role);
    if (columns.length > 1) throw new Error(`Only one column can be the ${ROLES[role]}.`);
    return columns[0]?.name;
  };
  const chosen = Object.keys(OPTIONS).map((name) => [name, byId(name).value]);
  const request = {
    keys: keys.map(({ name }) => name),
    time: single("time"),
    target: single("target"),
    weight: single("weight"),
    scale: single("scale"),
    losses: chosenLosses(),
    options: Object.fromEntries(chosen.filter(([name, value]) => value !== OPTIONS[name])),
  };
  if (!keys.length) throw new Error("Say which column is a series key.");
  if (!request.target) throw new Error("Say which column has the actual values.");
  const texts = new Set(TEXTS.flatMap(columnsOf));
  const left = new Set(columnsOf("none"));
  const columns = table
    .filter((column) => !left.has(column))
    .map((column) => ({
      name: column.name,
      cells: (!texts.has(column) && toDoubles(column.cells)) || toTexts(column.cells),
    }));
  const answer = await post(queryOf(request), columns);
  showResults(request, columns, answer);
}

function showProblem(error) {
  const faults = error?.problem?.errors ?? [];
  byId("problem").replaceChildren(
    ...(error ? [html("p", {}, error.message)] : []),
    ...(faults.length
      ? [
          html(
            "ul",
            {},
            ...faults.map(({ pointer, detail }) =>
              html("li", {}, html("code", {}, pointer), ` ${detail}`),
            ),
          ),
        ]
      : []),
  );
}
byId("key-form").addEventListener("submit", listLosses); // the service has the key by then
listLosses();
