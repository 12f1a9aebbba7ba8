// What this tab keeps through a reload: the key and the conversation, and when they were last used. Nothing of it goes
// into localStorage. A browser that opens its old tabs again brings a tab's storage back with them, on a shared machine
// perhaps to somebody else: what was not used for eight hours, a working day, is thrown away.
import { forget, recall, remember } from "./storage.js";

const AREA = "sessionStorage";
const KEY = "rempart.key";
const CONVERSATION = "rempart.conversation";
const USED = "rempart.used";
const KEPT_MS = 8 * 3600 * 1000;

export function keptKey() {
  if (Date.now() - Number(recall(AREA, USED)) > KEPT_MS) forgetTab();
  return recall(AREA, KEY);
}

export function keepKey(key) {
  remember(AREA, KEY, key);
  remember(AREA, USED, String(Date.now()));
}

export function forgetKey() {
  forget(AREA, KEY);
}

// False when it would not outlive a reload: there is no storage here, or it is full.
export function keepConversation(conversation) {
  remember(AREA, USED, String(Date.now()));
  const kept = remember(AREA, CONVERSATION, JSON.stringify(conversation));
  // Half of a conversation would pass for the whole.
  if (!kept) forget(AREA, CONVERSATION);
  return kept;
}

// What `keepConversation` was given, or null.
export function keptConversation() {
  return JSON.parse(recall(AREA, CONVERSATION) || "null");
}

export function forgetConversation() {
  forget(AREA, CONVERSATION);
}

export function forgetTab() {
  for (const name of [KEY, CONVERSATION, USED]) forget(AREA, name);
}
