// What the browser checks for itself: that entries stand in the signed tree, and who signed it.
// Sources: RFC 9162 section 2.1.3.2 (inclusion), C2SP tlog-checkpoint and signed-note.
import { recall, remember } from "./storage.js";

const ED25519 = 1;
const KNOWN = "ledger-key";

// Throws when anything does not hold of the entries of `exchange`, the one that was asked for. `signed` is false where this browser cannot check Ed25519; `checkpoint` is the
// one that covers the last entry, its root in hex.
export async function check(trace, exchange) {
  if (!trace.entries.length || trace.proofs.length !== trace.entries.length) throw new Error("a proof is missing");
  const { origin, key, id } = verifier(trace.vkey);
  let signed = true;
  let checkpoint = null;
  for (const [at, proof] of trace.proofs.entries()) {
    const entry = JSON.parse(proof.entry);
    const told = trace.entries[at];
    const same = entry.exchange === exchange && entry.type === told.type && proof.index === told.index;
    if (!same) throw new Error("another entry");
    const note = parse(proof.checkpoint);
    if (note.origin !== origin) throw new Error("another log");
    const leaf = await sha256(0, new TextEncoder().encode(proof.entry));
    if (hex(leaf) !== told.leaf_hash) throw new Error("another leaf");
    const root = await climb(proof.index, note.size, leaf, proof.hashes.map(bytes));
    if (hex(root) !== hex(note.root)) throw new Error("another root");
    if (!(await verify(note, origin, id, key))) signed = false;
    checkpoint = { origin, size: note.size, root: hex(note.root) };
  }
  return { signed, checkpoint };
}

// The key that signs is remembered at first sight: false when it is another one now, and no handover leads there.
export async function keyIsKnown({ vkey, handovers }) {
  let known = recall("localStorage", KNOWN);
  if (known && known !== vkey) {
    for (const one of handovers) known = await followed(known, one);
  }
  if (known && known !== vkey) return false;
  remember("localStorage", KNOWN, vkey);
  return true;
}

// The key that a handover leads to from `known`; `known` itself when it is of other keys. Throws when it does not hold:
// both keys have signed a tree with the entry that names them.
async function followed(known, handover) {
  const entry = JSON.parse(handover.entry);
  if (entry.type !== "log-key" || entry.change !== "begun" || entry.old !== known) return known;
  const note = parse(handover.checkpoint);
  const leaf = await sha256(0, new TextEncoder().encode(handover.entry));
  const root = await climb(handover.index, note.size, leaf, handover.hashes.map(bytes));
  if (hex(root) !== hex(note.root)) throw new Error("another root of a handover");
  for (const vkey of [entry.old, entry.new]) {
    const { origin, key, id } = verifier(vkey);
    if (note.origin !== origin) throw new Error("a handover of another log");
    if (!(await verify(note, origin, id, key))) return known;
  }
  return entry.new;
}

async function climb(index, size, leaf, hashes) {
  if (index >= size) throw new Error("not in the tree");
  let place = BigInt(index);
  let last = BigInt(size) - 1n;
  let found = leaf;
  for (const hash of hashes) {
    if (last === 0n) throw new Error("the proof is too long");
    if (place & 1n || place === last) {
      found = await sha256(1, hash, found);
      while (!(place & 1n) && place) [place, last] = [place >> 1n, last >> 1n];
    } else {
      found = await sha256(1, found, hash);
    }
    [place, last] = [place >> 1n, last >> 1n];
  }
  if (last !== 0n) throw new Error("the proof is too short");
  return found;
}

function verifier(vkey) {
  const [origin, id, encoded] = vkey.match(/^([^+]+)\+([0-9a-f]{8})\+(.+)$/).slice(1);
  const decoded = base64(encoded);
  if (decoded[0] !== ED25519) throw new Error("another kind of key");
  return { origin, id, key: decoded.slice(1) };
}

function parse(note) {
  const end = note.lastIndexOf("\n\n");
  const text = note.slice(0, end + 1);
  const [origin, size, root] = text.split("\n");
  return { text, origin, size: Number(size), root: base64(root), signatures: note.slice(end + 2).split("\n") };
}

async function verify(note, origin, id, key) {
  for (const line of note.signatures) {
    const [dash, name, encoded] = line.split(" ");
    const signature = dash === "—" && name === origin ? base64(encoded) : new Uint8Array(4);
    if (hex(signature.slice(0, 4)) !== id) continue;
    const known = await imported(key);
    if (!known) return false;
    const text = new TextEncoder().encode(note.text);
    if (await crypto.subtle.verify("Ed25519", known, signature.slice(4), text)) return true;
    throw new Error("the signature does not hold");
  }
  throw new Error("not signed by this log");
}

async function imported(key) {
  try {
    return await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") return null;
    throw error;
  }
}

async function sha256(prefix, ...parts) {
  const whole = new Uint8Array(1 + parts.reduce((sum, part) => sum + part.length, 0));
  whole[0] = prefix;
  let at = 1;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

function base64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function bytes(text) {
  return Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));
}

function hex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
