/** Shows an answer: the leaderboard, the losses of each series, one of them drawn, and programs. */

import { arrowStream } from "./arrow.js";
import { drawChart } from "./chart.js";
import { byId, counted, digits, html, shown } from "./dom.js";
import { leaderboard } from "./leaderboard.js";
import { curlOf, pythonOf, queryOf } from "./programs.js";
import { ARROW, BASE, hasKey, post } from "./service.js";

const PAGE_SIZE = 12;

/** What was scored, the answer to it, its models, and the rows of each series. */
let scored = null;
/** What is shown of it: the loss, the order and page of the series, the series that is drawn. */
let view = {};

export function hideResults() {
  byId("results").hidden = true;
}

/** Show the answer to a request, given the columns that were sent. */
export function showResults(request, columns, answer) {
  const models = [...new Set(answer.models)];
  const rows = rowsBySeries(columns, request.keys);
  scored = { request, columns, answer, models, rows };
  view = {
    loss: Object.keys(answer.losses)[0],
    sort: { by: null, isDown: false },
    start: 0,
    drawn: 0,
  };
  byId("results").hidden = false;
  byId("summary").textContent =
    `${counted(rows.length, "series", "series")}, ${counted(models.length, "model")}, ${counted(Object.keys(answer.losses).length, "loss", "losses")}.`;
  const radios = Object.keys(answer.losses).map((loss) => {
    const choose = () => {
      Object.assign(view, { loss, sort: { by: null, isDown: false }, start: 0 });
      showLoss();
    };
    return html(
      "label",
      {},
      html("input", {
        type: "radio",
        name: "loss",
        value: loss,
        checked: loss === view.loss,
        onchange: choose,
      }),
      loss,
    );
  });
  byId("ranked-by").replaceChildren(html("legend", {}, "Loss"), ...radios);
  showPrograms();
  showLoss();
  byId("board-heading").focus({ preventScroll: true });
  byId("results").scrollIntoView();
}

/** Return the rows of each series, in the order in which the service answers. */
function rowsBySeries(columns, keys) {
  const cells = keys.map((name) => cellsOf(columns, name));
  const rows = new Map();
  for (let row = 0; row < cells[0].length; row++) {
    const id = JSON.stringify(cells.map((column) => column[row]));
    if (rows.has(id)) rows.get(id).push(row);
    else rows.set(id, [row]);
  }
  return [...rows.values()];
}

const cellsOf = (columns, name) => columns.find((column) => column.name === name).cells;

function showLoss() {
  showBoard();
  showSeries();
  draw();
}

function showBoard() {
  const { answer } = scored;
  const losses = Object.keys(answer.losses);
  const boards = new Map(losses.map((loss) => [loss, leaderboard(answer, loss)]));
  const { rows } = boards.get(view.loss);
  const worst = Math.max(...rows.map(({ mean }) => Math.abs(mean ?? 0)));
  const heads = ["model", "win rate", ...losses.map((loss) => `mean ${loss}`)];
  byId("board").replaceChildren(
    html("thead", {}, html("tr", {}, ...heads.map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...rows.map(boardRow)),
  );

  function boardRow({ model, winRate }) {
    const means = losses.map((loss) => {
      const { mean } = boards.get(loss).rows.find((row) => row.model === model);
      const isBest = boards.get(loss).rows[0].model === model;
      const cell = html("td", { class: isBest ? "best" : "" }, digits(mean));
      if (loss === view.loss && mean !== null && worst) {
        cell.classList.add("bar");
        cell.style.setProperty("--share", Math.abs(mean) / worst);
      }
      return cell;
    });
    const rate = winRate === null ? "–" : `${(100 * winRate).toFixed(0)} %`;
    return html("tr", {}, html("th", { scope: "row" }, model), html("td", {}, rate), ...means);
  }

  byId("notes").replaceChildren(...notesOf(boards).map((text) => html("li", {}, text)));
}

/** Return what a reader must know to trust the leaderboard. */
function notesOf(boards) {
  const { answer, models } = scored;
  const { rows, compared, series } = boards.get(view.loss);
  const notes = [
    `Ranked by the mean ${view.loss}, lower is better, over ${compared} of ${counted(series, "series", "series")}: those of which every model has a loss${lacking(rows)}. The win rate is the share of them on which a model beats another one.`,
  ];
  for (const [loss, board] of boards) {
    if (board.compared !== compared)
      notes.push(`The mean ${loss} is over ${board.compared} series${lacking(board.rows)}.`);
    const masked = (answer.masked[loss] ?? []).reduce((sum, count) => sum + count, 0);
    if (masked)
      notes.push(`${loss}: ${counted(masked, "element")} of all models without a finite quotient.`);
  }
  notes.push(...missingNotes());
  const uneven = unevenSeries();
  if (uneven)
    notes.push(
      `In ${counted(uneven, "compared series", "compared series")} some models lack elements that others have, so their losses are means of different elements.`,
    );
  for (const [name, reason] of Object.entries(answer.left_out))
    notes.push(`Column ${name} is left out: ${reason}.`);
  if (models.length === 1) notes.push("There is one model, so nothing is compared.");
  return notes;
}

/** Return which models have no loss of how many series, for a sentence. */
function lacking(rows) {
  const names = rows
    .filter(({ failures }) => failures)
    .map(({ model, failures }) => `${model} has none for ${failures}`);
  return names.length ? ` (${names.join(", ")})` : "";
}

/** Return how many elements were left out because they are missing. */
function missingNotes() {
  const { columns, models, request } = scored;
  if (request.options.missing !== "skip") return [];
  const lacks = [request.target, ...models].map((name) => ({
    name,
    count: cellsOf(columns, name).filter(Number.isNaN).length,
  }));
  const parts = lacks
    .filter(({ count }) => count)
    .map(({ name, count }) => `${count.toLocaleString("en")} of ${name}`);
  return parts.length ? [`Missing elements, which leave the mean: ${parts.join(", ")}.`] : [];
}

/** Return in how many series that all models are scored on, they lack different elements. */
function unevenSeries() {
  const { answer, columns, models, rows, request } = scored;
  if (request.options.missing !== "skip") return 0;
  const cells = models.map((model) => cellsOf(columns, model));
  const isCommon = (s) =>
    models.every((_, m) => answer.losses[view.loss][s * models.length + m] !== null);
  const isUneven = (row) => new Set(cells.map((column) => Number.isNaN(column[row]))).size > 1;
  return rows.filter((places, s) => isCommon(s) && places.some(isUneven)).length;
}

// Series

function showSeries() {
  const { answer, models, rows, request } = scored;
  const lossOf = (s, m) => answer.losses[view.loss][s * models.length + m];
  const columns = [
    ...request.keys.map((name) => ({
      name,
      of: (s) => answer.groups[name][s * models.length],
      isText: true,
    })),
    { name: "length", of: (s) => rows[s].length },
    ...models.map((name, m) => ({ name, of: (s) => lossOf(s, m) })),
  ];
  const order = rows.map((_, s) => s);
  if (view.sort.by !== null) {
    const { of } = columns[view.sort.by];
    const sign = view.sort.isDown ? -1 : 1;
    order.sort((a, b) => compareCells(of(a), of(b), sign) || a - b);
  }
  const heads = columns.map(({ name, isText }, c) => {
    const isSorted = view.sort.by === c;
    const sort = isSorted ? (view.sort.isDown ? "descending" : "ascending") : undefined;
    const choose = () => {
      view.sort = { by: c, isDown: isSorted ? !view.sort.isDown : !isText };
      view.start = 0;
      showSeries();
      byId("series").querySelectorAll("th button")[c].focus();
    };
    return html(
      "th",
      { scope: "col", class: isText && "text", "aria-sort": sort },
      html("button", { type: "button", onclick: choose }, name),
    );
  });
  const body = order.slice(view.start, view.start + PAGE_SIZE).map((s) => {
    const [first, ...others] = columns;
    const best = Math.min(...models.map((_, m) => Math.abs(lossOf(s, m) ?? Infinity)));
    const choose = () => {
      view.drawn = s;
      showSeries();
      byId("series").querySelector("[aria-pressed=true]").focus();
      byId("chart").scrollIntoView({ block: "nearest" }); // below the table where that is narrow
      draw();
    };
    const pick = html(
      "button",
      { type: "button", onclick: choose, "aria-pressed": String(s === view.drawn) },
      first.of(s),
    );
    return html(
      "tr",
      { class: s === view.drawn ? "drawn" : "" },
      html("th", { scope: "row" }, pick),
      ...others.map(({ name, of, isText }, c) => {
        const value = of(s);
        const isBest =
          c >= others.length - models.length && value !== null && Math.abs(value) === best;
        return html(
          "td",
          { class: isBest ? "best" : isText ? "text" : "" },
          isText ? value : name === "length" ? shown(value) : digits(value),
        );
      }),
    );
  });
  byId("series").replaceChildren(
    html("caption", {}, `${view.loss} of each series; choose one to draw it`),
    html("thead", {}, html("tr", {}, ...heads)),
    html("tbody", {}, ...body),
  );
  const end = Math.min(view.start + PAGE_SIZE, order.length);
  byId("range").textContent = `${view.start + 1} to ${end} of ${order.length}`;
  byId("previous").disabled = view.start === 0;
  byId("next").disabled = end === order.length;
}

/** Compare cells for sorting; those without a value are last either way. */
function compareCells(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return (
    sign *
    (typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }))
  );
}

function turn(pages) {
  view.start += pages * PAGE_SIZE;
  showSeries();
}

byId("previous").addEventListener("click", () => turn(-1));
byId("next").addEventListener("click", () => turn(1));

// The chart

/** Draw the chosen series; its gradients are asked for alone, since that gives the same bits. */
async function draw() {
  const { request, columns, models, rows } = scored;
  const own = view;
  const { loss, drawn } = own;
  const isCurrent = () => view === own && view.loss === loss && view.drawn === drawn;
  byId("chart").ariaBusy = "true"; // the first gradients of a service wait for a compiler
  const places = rows[drawn];
  const needed = new Set([
    ...request.keys,
    request.time,
    request.target,
    request.weight,
    request.scale,
    ...models,
  ]);
  const part = columns
    .filter(({ name }) => needed.has(name))
    .map(({ name, cells }) => ({
      name,
      cells:
        cells instanceof Float64Array
          ? Float64Array.from(places, (row) => cells[row])
          : places.map((row) => cells[row]),
    }));
  const spelled = request.losses.filter((spec) => spec.split(":")[0] === loss);
  const query = `${queryOf({ ...request, losses: spelled })}&gradients=true`;
  let gradients;
  try {
    gradients = (await post(query, part)).gradients[loss];
  } catch (error) {
    if (!isCurrent()) return;
    byId("chart").replaceChildren(html("p", { class: "error" }, error.message));
    return;
  } finally {
    if (isCurrent()) byId("chart").ariaBusy = "false";
  }
  if (!isCurrent()) return; // another was chosen meanwhile
  const numbers = (name) => [...cellsOf(part, name)];
  view.chart = {
    heading: request.keys.map((name) => cellsOf(part, name)[0]).join(" · "),
    loss,
    labels: request.time
      ? cellsOf(part, request.time).map((text) => text ?? "–")
      : places.map((_, i) => String(i + 1)),
    actual: numbers(request.target),
    models: models.map((name, m) => ({ name, prediction: numbers(name), gradient: gradients[m] })),
  };
  drawChart(byId("chart"), view.chart);
}

let width = 0;
new ResizeObserver(([{ contentRect }]) => {
  if (view.chart && Math.abs(contentRect.width - width) > 1) drawChart(byId("chart"), view.chart);
  width = contentRect.width;
}).observe(byId("chart"));

// Programs

function showPrograms() {
  const { request, columns } = scored;
  byId("curl").textContent = curlOf(request, BASE, hasKey());
  byId("python").textContent = pythonOf(request, BASE.replace(/\/$/, ""), hasKey());
  URL.revokeObjectURL(byId("download").href);
  byId("download").href = URL.createObjectURL(new Blob(arrowStream(columns), { type: ARROW }));
}

for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    const code = byId(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(code.textContent);
      byId("copied").textContent = `Copied ${button.dataset.copies}`;
    } catch {
      getSelection().selectAllChildren(code); // a page without TLS may not write to the clipboard
      byId("copied").textContent = "Selected; copy it from here";
    }
  });
}
