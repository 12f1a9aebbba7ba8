// The door: asks for an API key, tries it, and keeps it for this tab only.
import { listModels } from "./api.js";
import { say } from "./language.js";
import { showError } from "./problems.js";
import { forgetKey, forgetTab, keepKey, keptKey } from "./tab.js";

export class Gate {
  // `opened` gets the key, the models it may use, and whether it is the key this tab had already.
  constructor(opened) {
    this.opened = opened;
    this.parts = Object.fromEntries(
      ["gate", "gate-form", "gate-error", "gate-goes-on", "key", "forget"].map((id) => [id, document.getElementById(id)]),
    );
    this.submit = this.parts["gate-form"].querySelector("button");
    this.parts["gate-form"].addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(this.parts.key.value.trim());
    });
  }

  async start() {
    const kept = keptKey();
    if (kept) {
      await this.#try(kept);
    } else {
      forgetTab();
      this.#show();
    }
  }

  lock() {
    forgetTab();
    this.parts["gate-goes-on"].hidden = true;
    this.parts["gate-error"].hidden = true;
    this.parts.key.value = "";
    this.parts.key.removeAttribute("aria-invalid");
    this.#show();
  }

  // Ask for another key. A conversation that goes on with it may still be cleared instead.
  again(goesOn) {
    forgetKey();
    this.parts["gate-goes-on"].hidden = !goesOn;
    this.#show();
  }

  async #try(key) {
    const { key: field, "gate-error": box } = this.parts;
    box.hidden = true;
    if (!key) {
      this.#show();
      say(box, "key_missing");
      box.hidden = false;
      return;
    }
    this.submit.disabled = true;
    say(this.submit, "gate_wait");
    try {
      const models = await listModels(key);
      const same = keptKey() === key;
      keepKey(key);
      field.value = "";
      field.removeAttribute("aria-invalid");
      this.parts.gate.hidden = true;
      this.parts["gate-goes-on"].hidden = true;
      this.parts.forget.hidden = false;
      this.opened(key, models, same);
    } catch (error) {
      if (error.code === "invalid_api_key") this.#refused();
      field.value = key;
      this.#show();
      field.setAttribute("aria-invalid", "true");
      showError(box, error);
    } finally {
      this.submit.disabled = false;
      say(this.submit, "gate_open");
    }
  }

  // A conversation that is being gone on with is not on the page now, and not lost by a mistyped key.
  #refused() {
    if (this.parts["gate-goes-on"].hidden) forgetTab();
    else forgetKey();
  }

  #show() {
    this.parts.gate.hidden = false;
    this.parts.forget.hidden = this.parts["gate-goes-on"].hidden;
    this.parts.key.focus();
    this.parts.key.select();
  }
}
