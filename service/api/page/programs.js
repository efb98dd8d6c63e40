/** What does the same as the page: a command for curl, a program for Python. */

/** Return the query of a request in the long form; `options` that are defaults are left out. */
export function queryOf({ keys, time, target, weight, scale, losses, options }) {
  const query = new URLSearchParams({ group_columns: keys.join(",") });
  if (time) query.set("time_column", time);
  query.set("target_column", target);
  if (weight) query.set("weight_column", weight);
  if (scale) query.set("scale_column", scale);
  query.set("losses", losses.join(","));
  for (const [name, value] of Object.entries(options)) query.set(name, value);
  return query.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
}

export function curlOf(request, url, needsKey) {
  return [
    `curl -s '${url}score?${queryOf(request)}'`,
    "-H 'Content-Type: application/vnd.apache.arrow.stream'",
    "-H 'Accept: application/json'",
    ...(needsKey ? ['-H "Authorization: Bearer $LOSSCLIENT_API_KEY"'] : []),
    "--data-binary @request.arrows",
  ].join(" \\\n  ");
}

export function pythonOf(request, url, needsKey) {
  const { keys, time, target, weight, scale, losses, options } = request;
  const isJoined = keys.length > 2; // the client takes an id and a cutoff
  const joined = keys.map((name) => `table[${literal(name)}]`).join(", ");
  const columns = {
    id_col: isJoined ? "series" : keys[0],
    cutoff_col: isJoined ? null : (keys[1] ?? null),
    time_col: time ?? null,
    target_col: target,
    ...(weight && { weight_col: weight }),
    ...(scale && { scale_col: scale }),
    ...options,
  };
  return `${needsKey ? "import os\n\n" : ""}import pyarrow as pa
${isJoined ? "import pyarrow.compute as pc\n" : ""}
from lossclient import Client, leaderboard

table = pa.ipc.open_stream("request.arrows").read_all()
${isJoined ? `table = table.append_column("series", pc.binary_join_element_wise(${joined}, "\\x1f"))\n` : ""}\
with Client(${literal(url)}${needsKey ? ', api_key=os.environ["LOSSCLIENT_API_KEY"]' : ""}) as client:
    scores = client.score(
        table,
        losses=[${losses.map(literal).join(", ")}],
${Object.entries(columns)
  .map(([name, value]) => `        ${name}=${literal(value)},\n`)
  .join("")}    )
print(leaderboard(scores, ${literal(losses[0].split(":")[0])}))
`;
}

/** Return a literal of Python. */
const literal = (value) => (value === null ? "None" : JSON.stringify(value));
