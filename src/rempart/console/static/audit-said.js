// What was said, as text: nothing of it becomes markup, a link or a picture.
import { hasWord, say } from "./language.js";

// Elements for the answer of the server: who asked, and each thing that was said.
export function spoken(told) {
  const who = document.createElement("p");
  who.className = "hint";
  if (told.identity) say(who, "audit_asked_by", { name: told.identity });
  else say(who, "audit_asked_by_nobody");
  return [who, ...told.bodies.flatMap((one) => (one.body === null ? [gone(one)] : parts(one.body).map(element)))];
}

function gone({ index }) {
  const line = document.createElement("p");
  line.className = "hint";
  say(line, "audit_gone", { index });
  return line;
}

function element([role, text]) {
  const box = document.createElement("div");
  const who = document.createElement("p");
  who.className = "who";
  const key = `audit_role_${role}`;
  say(who, hasWord(key) ? key : "audit_role_other");
  const said = document.createElement("div");
  said.className = "spoken";
  said.dir = "auto";
  said.textContent = text;
  box.append(who, said);
  return box;
}

// [role, text] of each part of a body. What has another shape than the API's is shown as it is.
function parts(body) {
  const { request, response, error } = body;
  const found = [];
  if (Array.isArray(request?.messages)) {
    found.push(...request.messages.map((message) => [message?.role || "other", content(message)]));
  } else if (request?.prompt !== undefined) found.push(["prompt", content({ content: request.prompt })]);
  else if (request !== undefined) found.push(["other", json(request)]);
  if (Array.isArray(response?.choices)) {
    found.push(...response.choices.map((choice) => ["assistant", content(choice.message || { content: choice.text })]));
  } else if (response !== undefined) {
    found.push(["other", json(response)]);
  }
  if (error !== undefined) found.push(["error", typeof error?.message === "string" ? error.message : json(error)]);
  if (typeof body.reason === "string" && typeof body.query === "string") {
    if (body.query) found.push(["query", body.query]);
    if (body.reason) found.push(["reason", body.reason]);
  }
  return found.length ? found : [["other", json(body)]];
}

function content(message) {
  const { role, content: text, ...others } = message || {};
  const said = Object.entries(others).filter(([, value]) => value && (!Array.isArray(value) || value.length));
  const lines = text === undefined || text === null ? [] : [typeof text === "string" ? text : json(text)];
  return [...lines, ...(said.length ? [json(Object.fromEntries(said))] : [])].join("\n");
}

function json(value) {
  return JSON.stringify(value, null, 2);
}
