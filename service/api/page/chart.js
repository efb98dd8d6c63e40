/** Draws one series: what was predicted and what happened, and below it the gradients. */

import { html, shown, svg } from "./dom.js";

const LEFT = 64;
const RIGHT = 12;
const TOP = 8;
const HEIGHT = 230;
const BELOW = 110;
const GAP = 34;
const STEPS = 500;
const COLORS = 6;

/**
 * @param {HTMLElement} place What the chart fills.
 * @param {object} series `heading`, `loss`, `labels`, `actual`, and `models` with `name`,
 *   `prediction` and `gradient` each; lists are of one length, NaN is missing.
 */
export function drawChart(place, { heading, loss, labels, actual, models }) {
  const from = Math.max(labels.length - STEPS, 0);
  const last = (values) => values.slice(from);
  const drawn = models.map(({ name, prediction, gradient }) => ({
    name,
    prediction: last(prediction),
    gradient: last(gradient),
  }));
  place.replaceChildren(
    html(
      "figcaption",
      {},
      html("strong", {}, heading),
      ...(from ? [` the last ${STEPS} steps`] : []),
    ),
    legend(drawn),
    picture(place.clientWidth || 600, heading, loss, last(labels), last(actual), drawn),
    numbers(loss, last(labels), last(actual), drawn),
  );
}

function legend(models) {
  const key = (kind, name) =>
    html(
      "li",
      {},
      svg(
        "svg",
        { width: 26, height: 10, "aria-hidden": "true" },
        svg("path", { class: kind, d: "M1 5H25" }),
      ),
      name,
    );
  return html(
    "ul",
    { class: "legend" },
    key("actual", "actual"),
    ...models.map(({ name }, m) => key(`model m${m % COLORS}`, name)),
  );
}

function picture(width, heading, loss, labels, actual, models) {
  const count = labels.length;
  const slot = (width - LEFT - RIGHT) / count;
  const x = (i) => LEFT + slot * (i + 0.5);
  const values = scale([actual, ...models.map(({ prediction }) => prediction)], TOP, HEIGHT);
  const bottom = TOP + HEIGHT + GAP;
  const slopes = scale([[0], ...models.map(({ gradient }) => gradient)], bottom, BELOW);
  const bar = Math.max(Math.min(slot / (models.length + 1), 14), 0.5);
  const every = Math.ceil(count / Math.max(Math.floor((width - LEFT) / 110), 1));
  const text = (i) => [
    `${labels[i]}\nactual: ${shown(actual[i])}`,
    ...models.map((m) => `${m.name}: ${shown(m.prediction[i])}, gradient ${shown(m.gradient[i])}`),
  ];
  return svg(
    "svg",
    {
      role: "img",
      "aria-label": `${heading}: actual values, predictions and gradients of ${loss}; the numbers are in the table below`,
      width,
      height: bottom + BELOW + 26,
    },
    ...axis(values, width),
    ...axis(slopes, width),
    svg("text", { class: "title", x: LEFT, y: bottom - 10 }, `gradient of ${loss}`),
    ...labels.flatMap((label, i) =>
      i % every
        ? []
        : [
            svg(
              "text",
              { class: "tick", x: x(i), y: bottom + BELOW + 18, "text-anchor": "middle" },
              label,
            ),
          ],
    ),
    ...models.map(({ prediction }, m) =>
      svg("path", { class: `model m${m % COLORS}`, d: line(prediction, x, values.place) }),
    ),
    svg("path", { class: "actual", d: line(actual, x, values.place) }),
    ...actual.flatMap((value, i) =>
      Number.isNaN(value) || count > 100
        ? []
        : [svg("circle", { class: "actual", cx: x(i), cy: values.place(value), r: 2.5 })],
    ),
    ...models.flatMap(({ gradient }, m) => bars(gradient, m)),
    ...labels.map((_, i) =>
      svg(
        "rect",
        { class: "hover", x: x(i) - slot / 2, y: TOP, width: slot, height: bottom + BELOW - TOP },
        svg("title", {}, text(i).join("\n")),
      ),
    ),
  );

  function bars(gradient, m) {
    const shift = (m - models.length / 2) * bar;
    return gradient.flatMap((value, i) => {
      if (!value) return []; // 0 or NaN
      const [top, zero] = [slopes.place(value), slopes.place(0)];
      const size = { y: Math.min(top, zero), height: Math.abs(top - zero), width: bar };
      return [svg("rect", { class: `bar m${m % COLORS}`, x: x(i) + shift, ...size })];
    });
  }
}

/** Return a path through values, which breaks where one is missing. */
function line(values, x, y) {
  let isDown = false;
  const parts = values.map((value, i) => {
    if (Number.isNaN(value)) {
      isDown = false;
      return "";
    }
    const part = `${isDown ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
    isDown = true;
    return part;
  });
  return parts.join("");
}

/** Return where values are drawn, and the round numbers among them. */
function scale(lists, top, height) {
  const known = lists.flat().filter(Number.isFinite);
  let [low, high] = known.reduce(
    ([a, b], v) => [Math.min(a, v), Math.max(b, v)],
    [Infinity, -Infinity],
  );
  if (!(low < high))
    [low, high] = known.length
      ? [low - (Math.abs(low) || 1), high + (Math.abs(high) || 1)]
      : [0, 1];
  const rough = (high - low) / (height / 45);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough);
  const first = Math.ceil(low / step);
  const ticks = Array.from(
    { length: Math.floor(high / step) - first + 1 },
    (_, i) => (first + i) * step,
  );
  const margin = (high - low) * 0.04;
  const place = (value) => top + ((high + margin - value) / (high - low + 2 * margin)) * height;
  return { ticks, place };
}

function axis({ ticks, place }, width) {
  return ticks.flatMap((tick) => [
    svg("path", {
      class: tick === 0 ? "zero" : "grid",
      d: `M${LEFT} ${place(tick)}H${width - RIGHT}`,
    }),
    svg(
      "text",
      { class: "tick", x: LEFT - 8, y: place(tick) + 4, "text-anchor": "end" },
      shown(Number(tick.toPrecision(12))),
    ),
  ]);
}

function numbers(loss, labels, actual, models) {
  const heads = models.flatMap(({ name }) => [name, `${name}, gradient`]);
  return html(
    "details",
    {},
    html("summary", {}, "Numbers"),
    html(
      "div",
      {
        class: "scroll",
        tabindex: 0,
        role: "region",
        "aria-label": `Numbers of the series, gradients of ${loss}`,
      },
      html(
        "table",
        {},
        html(
          "thead",
          {},
          html(
            "tr",
            {},
            ...["step", "actual", ...heads].map((text) => html("th", { scope: "col" }, text)),
          ),
        ),
        html(
          "tbody",
          {},
          ...labels.map((label, i) =>
            html(
              "tr",
              {},
              html("th", { scope: "row" }, label),
              ...[actual, ...models.flatMap((m) => [m.prediction, m.gradient])].map((values) =>
                html("td", {}, shown(values[i])),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}
