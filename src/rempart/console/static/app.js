// Puts the parts of the page together.
import { Chat } from "./chat.js";
import { Gate } from "./gate.js";
import { language, startLanguage, switchLanguage, word } from "./language.js";

const SAID_MS = 10000;

function main() {
  startLanguage();
  const announce = makeAnnouncer(document.getElementById("announcer"));
  const gate = new Gate((key, models, same) => chat.open(key, models, same));
  const chat = new Chat(announce, { again: (goesOn) => gate.again(goesOn), retry: () => gate.start() });
  const button = document.getElementById("language");
  nameLanguageButton(button);
  button.addEventListener("click", () => {
    switchLanguage();
    nameLanguageButton(button);
  });
  document.getElementById("forget").addEventListener("click", () => {
    chat.close();
    gate.lock();
    announce(word("key_forgotten"));
  });
  // What somebody unfolds should not lie under the field at the bottom.
  document.addEventListener("toggle", ({ target }) => {
    if (target.open && target.contains(document.activeElement)) target.scrollIntoView({ block: "nearest" });
  }, true);
  gate.start();
}

// The other language, named in that language.
function nameLanguageButton(button) {
  button.lang = language() === "en" ? "fr" : "en";
  button.textContent = word("other_language");
}

// What a screen reader says. It is taken away again, so that nobody meets the same text twice.
function makeAnnouncer(region) {
  let timer = 0;
  return (text) => {
    clearTimeout(timer);
    region.textContent = text;
    timer = setTimeout(() => region.replaceChildren(), SAID_MS);
  };
}

main();
