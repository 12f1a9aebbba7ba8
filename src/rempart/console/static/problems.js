// Errors as people read them: what it means in their language, and what the server said in its own.
import { ApiError } from "./api.js";
import { hasWord, say } from "./language.js";

export function isAbort(error) {
  return error.name === "AbortError";
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
  if (error.message) {
    const lead = document.createElement("span");
    say(lead, "server_says");
    const message = document.createElement("span");
    message.lang = "en";
    message.textContent = error.message;
    const line = document.createElement("span");
    line.className = "error-detail";
    line.append(lead, " ", message);
    box.append(line);
  }
  box.hidden = false;
}
