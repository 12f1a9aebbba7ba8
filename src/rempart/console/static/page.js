// What both pages have: the button of the other language, and the words for screen readers.
import { language, startLanguage, switchLanguage, word } from "./language.js";

const SAID_MS = 10000;

export function startPage() {
  startLanguage();
  const button = document.getElementById("language");
  nameLanguageButton(button);
  button.addEventListener("click", () => {
    switchLanguage();
    nameLanguageButton(button);
  });
}

// The other language, named in that language.
function nameLanguageButton(button) {
  button.lang = language() === "en" ? "fr" : "en";
  button.textContent = word("other_language");
}

// What a screen reader says. It is taken away again, so that nobody meets the same text twice.
export function makeAnnouncer() {
  const region = document.getElementById("announcer");
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    region.textContent = text;
    timer = setTimeout(() => region.replaceChildren(), SAID_MS);
  };
}
