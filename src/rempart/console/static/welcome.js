// What stands there before the first question: what this is and, for the built-in guide, that it is a demonstration
// with questions to try; or, where the key has no model, that and what to do.
import { say } from "./language.js";
import { DEMONSTRATION } from "./turn.js";

export class Welcome {
  // `ask` sends a question.
  constructor(ask) {
    this.parts = Object.fromEntries(
      ["empty", "demo", "barred", "barred-why", "composer"].map((id) => [id, document.getElementById(id)]),
    );
    for (const button of this.parts.demo.querySelectorAll("button")) {
      button.addEventListener("click", () => ask(typed(button.textContent)));
    }
  }

  show(model) {
    const { empty, demo, barred, composer } = this.parts;
    composer.hidden = false;
    barred.hidden = true;
    empty.hidden = false;
    demo.hidden = model !== DEMONSTRATION;
  }

  holds(element) {
    return this.parts.empty.contains(element);
  }

  hide() {
    this.parts.empty.hidden = true;
  }

  // No model can be asked; `key` names the words that say why.
  bar(key) {
    const { empty, barred, composer, "barred-why": why } = this.parts;
    composer.hidden = true;
    empty.hidden = true;
    barred.hidden = false;
    say(why, key);
    why.focus();
  }
}

// As a person types it: a small model was hardly taught typographic apostrophes and no-break spaces.
function typed(text) {
  return text.replaceAll("\u00a0", " ").replaceAll("’", "'");
}
