// The door: asks for an API key, tries it, and keeps it for this tab only.
import { listModels } from "./api.js";
import { say } from "./language.js";
import { showError } from "./problems.js";
import { forget, recall, remember } from "./storage.js";

const KEPT = "rempart.key";

export class Gate {
  // `opened` gets the key and the models it may use.
  constructor(opened) {
    this.opened = opened;
    this.parts = Object.fromEntries(
      ["gate", "gate-form", "gate-error", "key", "forget"].map((id) => [id, document.getElementById(id)]),
    );
    this.submit = this.parts["gate-form"].querySelector("button");
    this.parts["gate-form"].addEventListener("submit", (event) => {
      event.preventDefault();
      this.#try(this.parts.key.value.trim());
    });
  }

  async start() {
    const kept = recall("sessionStorage", KEPT);
    if (kept) await this.#try(kept);
    else this.#show();
  }

  lock() {
    forget("sessionStorage", KEPT);
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
      remember("sessionStorage", KEPT, key);
      field.value = "";
      field.removeAttribute("aria-invalid");
      this.parts.gate.hidden = true;
      this.parts.forget.hidden = false;
      this.opened(key, models);
    } catch (error) {
      if (error.code === "invalid_api_key") forget("sessionStorage", KEPT);
      field.value = key;
      this.#show();
      field.setAttribute("aria-invalid", "true");
      showError(box, error);
    } finally {
      this.submit.disabled = false;
      say(this.submit, "gate_open");
    }
  }

  #show() {
    this.parts.gate.hidden = false;
    this.parts.forget.hidden = true;
    this.parts.key.focus();
    this.parts.key.select();
  }
}
