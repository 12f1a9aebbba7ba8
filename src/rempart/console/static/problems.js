// Errors as people read them: what it means and what to do, in their language, chosen by the error's code. What the
// server itself said, in English, is for whoever is asked for help, and lies under "Details".
import { ApiError } from "./api.js";
import { hasWord, say } from "./language.js";

export function isAbort(error) {
  return error.name === "AbortError";
}

// Another key would help, trying again would not.
export function isOfKey(error) {
  return error.code === "invalid_api_key" || error.code === "forbidden";
}

// The key of the words for an error. What is no ApiError is a fault of this page: the console shows where.
export function wordOf(error) {
  if (!(error instanceof ApiError)) console.error(error);
  const key = `error_${error.code}`;
  return hasWord(key) ? key : "error_other";
}

export function showError(box, error) {
  const title = document.createElement("strong");
  say(title, wordOf(error));
  box.replaceChildren(title);
  if (error.message) box.append(said(error));
  box.hidden = false;
}

function said(error) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  say(summary, "details");
  const lead = document.createElement("span");
  say(lead, "server_says");
  const message = document.createElement("span");
  message.lang = "en";
  message.textContent = error.message;
  const code = document.createElement("code");
  code.textContent = error.code;
  const line = document.createElement("p");
  line.append(lead, " ", message, " (", code, ")");
  details.append(summary, line);
  return details;
}
