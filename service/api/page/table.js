/** Reads pasted text and files into columns of cells. */

const BLANK = /^\s*(nan|na|n\/a|#n\/a|<na>|nat|none|null)?\s*$/i;
const NUMBER = /^\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*$/i;
const CODE = /^\s*0\d+\s*$/; // would lose its leading zero as a number
const SEPARATORS = [",", "\t", ";"]; // a spreadsheet copies tabs
const BINARY = { PAR1: "Parquet", ARRO: "Arrow" };

/** What a file holds that only other programs can read; the message is the name of its format. */
export class BinaryError extends Error {}

/**
 * Return the columns of a table, in their order.
 *
 * @param {string} text CSV; or JSON: rows as objects, columns as lists, or a body of POST /score.
 * @returns {{name: string, cells: (string | number | null)[]}[]}
 */
export function readTable(text) {
  const columns = /^\s*[[{]/.test(text) ? readJson(text) : readCsv(text);
  if (!columns.length || !columns[0].cells.length) throw new Error("There are no rows.");
  return columns;
}

/** Return the text of a file; anything but UTF-8 is an error. */
export async function readFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const format = BINARY[String.fromCharCode(...bytes.subarray(0, 4))];
  if (format) throw new BinaryError(format);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file.name} is not in UTF-8.`);
  }
}

/** Return cells as doubles, NaN where they are blank; null if one is no number. */
export function toDoubles(cells) {
  const doubles = new Float64Array(cells.length);
  for (const [i, cell] of cells.entries()) {
    if (typeof cell === "number") doubles[i] = cell;
    else if (cell === null || BLANK.test(cell)) doubles[i] = NaN;
    else if (NUMBER.test(cell) && !CODE.test(cell)) doubles[i] = Number(cell);
    else return null;
  }
  return doubles;
}

/** Return cells as text, null where there is none. */
export function toTexts(cells) {
  return cells.map((cell) => (cell === null || cell === "" ? null : String(cell)));
}

function readCsv(text) {
  const header = text.slice(0, text.search(/[\r\n]|$/));
  const separator = SEPARATORS.find((mark) => header.includes(mark)) ?? ",";
  const [names, ...rows] = splitCsv(text, separator);
  while (rows.at(-1)?.every((cell) => !cell.trim())) rows.pop(); // as spreadsheets leave them
  rows.forEach((row, i) => {
    if (row.length !== names.length)
      throw new Error(`Row ${i} has ${row.length} cells, the header ${names.length}.`);
  });
  return names.map((name, i) => ({ name: name.trim(), cells: rows.map((row) => row[i]) }));
}

/** Return the rows of CSV as RFC 4180 has it. */
function splitCsv(text, separator) {
  const cell = new RegExp(
    `(?:"((?:[^"]|"")*)"|([^"${separator}\\r\\n][^${separator}\\r\\n]*)?)(${separator}|\\r?\\n|\\r|$)`,
    "y",
  );
  const rows = [[]];
  while (cell.lastIndex < text.length) {
    const match = cell.exec(text);
    if (!match)
      throw new Error(
        `${rows.length > 1 ? `Row ${rows.length - 2}` : "The header"} has a quotation mark that is not closed.`,
      );
    const [, quoted, plain, end] = match;
    rows.at(-1).push(quoted?.replaceAll('""', '"') ?? plain ?? "");
    if (end !== separator && cell.lastIndex < text.length) rows.push([]);
    if (end === separator && cell.lastIndex === text.length) rows.at(-1).push("");
  }
  return rows;
}

function readJson(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}.`);
  }
  if (Array.isArray(value.series)) value = value.series.flatMap(rowsOfSeries);
  if (Array.isArray(value)) {
    const names = [...new Set(value.flatMap((row) => Object.keys(row ?? {})))];
    return names.map((name) => ({ name, cells: value.map((row) => plain(row?.[name])) }));
  }
  const columns = Object.entries(value).map(([name, cells]) => ({ name, cells }));
  for (const { name, cells } of columns) {
    if (!Array.isArray(cells) || cells.length !== columns[0].cells.length)
      throw new Error(`Column ${name} must be a list as long as the others.`);
  }
  return columns.map(({ name, cells }) => ({ name, cells: cells.map(plain) }));
}

/** Return a row an element of a series in a body of POST /score. */
function rowsOfSeries(series, position) {
  const [prediction, target, weight] = ["prediction", "target", "weight"].map((name) =>
    Array.isArray(series?.[name]) ? series[name].flat() : undefined,
  );
  if (!prediction?.length || prediction.length !== target?.length)
    throw new Error(`Series ${position} needs a prediction and a target of one length.`);
  return prediction.map((number, i) => ({
    series: position, // ids may repeat
    ...("id" in series && { id: series.id }),
    prediction: number,
    target: target[i],
    ...(weight && { weight: weight[i] }),
    ...("scale" in series && { scale: series.scale }),
  }));
}

function plain(cell) {
  if (cell === undefined || cell === null) return null;
  return typeof cell === "number"
    ? cell
    : typeof cell === "object"
      ? JSON.stringify(cell)
      : String(cell);
}
