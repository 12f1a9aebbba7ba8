// Puts the parts of the page together.
import { Chat } from "./chat.js";
import { Gate } from "./gate.js";
import { word } from "./language.js";
import { makeAnnouncer, startPage } from "./page.js";

function main() {
  startPage();
  const announce = makeAnnouncer();
  const gate = new Gate((key, models, same) => chat.open(key, models, same));
  const chat = new Chat(announce, { again: (goesOn) => gate.again(goesOn), retry: () => gate.start() });
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

main();
