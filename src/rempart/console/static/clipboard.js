// Copying, also where the page is served without TLS: browsers then hide the clipboard from it.
import { say } from "./language.js";

const TOLD_MS = 2000;

export async function copy(text) {
  if (navigator.clipboard) return await navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = document.createElement("textarea");
  field.className = "unseen";
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  return copied;
}

// A button that copies and says so for a moment. `text` is called when it is pressed.
export function copyButton(key, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain small";
  say(button, key);
  button.addEventListener("click", async () => {
    const copied = await copy(text());
    button.focus();
    say(button, copied ? "copied" : "copy_failed");
    setTimeout(() => say(button, key), TOLD_MS);
  });
  return button;
}
