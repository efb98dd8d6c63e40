/** Calls the service that the page came from, with its key if it asks for one. */

import { arrowStream } from "./arrow.js";
import { byId } from "./dom.js";

export const ARROW = "application/vnd.apache.arrow.stream";
export const BASE = new URL(".", document.baseURI).href;

/** @type {string} In memory only. */
let key = "";

export const hasKey = () => key !== "";

/** Return the answer; throw an error with its `problem` if it is one. */
export async function call(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const answer = await fetch(BASE + path, { ...options, headers, credentials: "omit" });
  if (answer.ok) return answer;
  if (answer.status === 401) askForKey();
  const problem = await answer
    .json()
    .catch(() => ({ detail: `${answer.status} ${answer.statusText}` }));
  throw Object.assign(new Error(problem.detail ?? problem.title), { problem });
}

/** Have columns scored, as `arrowStream` takes them. */
export async function post(query, columns) {
  const body = new Blob(arrowStream(columns));
  const headers = { "Content-Type": ARROW, Accept: "application/json" };
  const answer = await call(`score?${query}`, { method: "POST", headers, body });
  return answer.json();
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("key").focus();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  byId("key-form").hidden = true;
});
