/**
 * Writes a table as an Arrow IPC stream, in which the service takes the long form.
 *
 * Columns hold text or doubles, so little of the format is needed: a message with the schema, one
 * with all rows, and an end. Both carry FlatBuffers; here every field of theirs takes eight bytes,
 * whatever its type, so that all is aligned.
 * https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
 */

const VERSION_5 = 4;
const SCHEMA = 1;
const RECORD_BATCH = 3;
const FLOATING_POINT = 3;
const UTF8 = 5;
const DOUBLE = 2;
const CONTINUATION = 0xffffffff;

const encoder = new TextEncoder();
const padded = (size) => Math.ceil(size / 8) * 8;

/**
 * Return a table as the parts of an Arrow stream, for a Blob.
 *
 * @param {{name: string, cells: Float64Array | (string | null)[]}[]} columns of one length; NaN and
 *   null are missing.
 */
export function arrowStream(columns) {
  const rows = columns[0]?.cells.length ?? 0;
  const fields = columns.map(({ name, cells }) => {
    const isNumber = cells instanceof Float64Array;
    const type = table(...(isNumber ? [DOUBLE] : []));
    return table(name, 1, isNumber ? FLOATING_POINT : UTF8, type, undefined, []);
  });
  const buffersOf = ({ cells }) =>
    cells instanceof Float64Array ? [new Uint8Array(0), cells] : textBuffers(cells);
  const buffers = columns.flatMap(buffersOf);
  const nodes = columns.flatMap(({ cells }) => [rows, countNulls(cells)]);
  let offset = 0;
  const places = buffers.flatMap(({ byteLength }) => {
    const place = [offset, byteLength];
    offset += padded(byteLength);
    return place;
  });
  const batch = table(rows, structs(nodes), structs(places));
  const body = buffers.flatMap((buffer) => [
    buffer,
    new Uint8Array(padded(buffer.byteLength) - buffer.byteLength),
  ]);
  const names = columns.reduce((size, { name }) => size + 4 * name.length, 0);
  const capacity = 1024 + 512 * columns.length + names;
  return [
    ...message(SCHEMA, table(0, fields), 0, capacity),
    ...message(RECORD_BATCH, batch, offset, capacity),
    ...body,
    Uint32Array.of(CONTINUATION, 0),
  ];
}

function countNulls(cells) {
  return cells instanceof Float64Array ? 0 : cells.filter((cell) => cell === null).length;
}

/** Return the buffers of a column of text: which cells are there, their offsets, the text. */
function textBuffers(cells) {
  const isThere = new Uint8Array(Math.ceil(cells.length / 8));
  const offsets = new Int32Array(cells.length + 1);
  const most = 3 * cells.reduce((size, cell) => size + (cell?.length ?? 0), 0);
  const text = new Uint8Array(most);
  cells.forEach((cell, i) => {
    offsets[i + 1] = offsets[i];
    if (cell === null) return;
    isThere[i >> 3] |= 1 << (i & 7);
    offsets[i + 1] += encoder.encodeInto(cell, text.subarray(offsets[i])).written;
  });
  return [isThere, offsets, text.subarray(0, offsets[cells.length])];
}

function message(type, header, bodyLength, capacity) {
  const metadata = flatbuffer(table(VERSION_5, type, header, bodyLength), capacity);
  return [Uint32Array.of(CONTINUATION, metadata.length), metadata];
}

/** A FlatBuffers table: numbers, text, tables, lists of them, structs; undefined is the default. */
const table = (...fields) => ({ fields });

/** A vector of structs of two 64-bit numbers each. */
const structs = (numbers) => BigInt64Array.from(numbers, BigInt);

function flatbuffer(root, capacity) {
  const view = new DataView(new ArrayBuffer(capacity));
  let end = 8;

  function refer(place, node) {
    view.setUint32(place, write(node) - place, true);
  }

  /** Write a node behind all others; return where it is. */
  function write(node) {
    const start = (end = padded(end));
    if (typeof node === "string") {
      const text = encoder.encode(node);
      view.setUint32(start, text.length, true);
      new Uint8Array(view.buffer).set(text, start + 4);
      end += 4 + text.length + 1;
      return start;
    }
    if (node instanceof BigInt64Array) {
      view.setUint32(start + 4, node.length / 2, true); // so that the structs are aligned
      node.forEach((number, i) => view.setBigInt64(start + 8 + 8 * i, number, true));
      end += 8 + 8 * node.length;
      return start + 4;
    }
    if (Array.isArray(node)) {
      view.setUint32(start, node.length, true);
      end += 4 + 4 * node.length;
      node.forEach((child, i) => refer(start + 4 + 4 * i, child));
      return start;
    }
    const { fields } = node;
    const position = padded(start + 4 + 2 * fields.length); // behind its vtable
    const size = 8 + 8 * fields.length;
    const places = fields.map((field, i) => (field === undefined ? 0 : 8 + 8 * i));
    [4 + 2 * fields.length, size, ...places].forEach((number, i) =>
      view.setUint16(start + 2 * i, number, true),
    );
    view.setInt32(position, position - start, true);
    end = position + size;
    fields.forEach((field, i) => {
      if (typeof field === "number") view.setBigInt64(position + places[i], BigInt(field), true);
      else if (field !== undefined) refer(position + places[i], field);
    });
    return position;
  }

  refer(0, root);
  return new Uint8Array(view.buffer, 0, padded(end));
}
