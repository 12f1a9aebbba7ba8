// The server's API. Every failure becomes an `ApiError`; a fetch that was aborted stays an AbortError.
import { events } from "./events.js";

const DONE = "[DONE]";
// A header takes no other characters than these; fetch would report one as a failure of the network.
const PRINTABLE = /^[\x21-\x7e]+$/;

// `code` is the server's own, or "network" or "incomplete"; `exchange` is the ledger's id of it where there is one.
export class ApiError extends Error {
  constructor(message, code, exchange = "") {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.exchange = exchange;
  }
}

// Names of the models that this key may use.
export async function listModels(key, signal) {
  const list = await read("/v1/models", key, signal);
  return list.data.map((model) => model.id);
}

// Whether an engine is down, so that models may be missing from the list. Health is told to everybody.
export async function engineIsDown(signal) {
  const response = await reach("/readyz", { signal });
  const { engines } = await jsonOf(response);
  return Object.values(engines || {}).some((state) => state !== "up");
}

// What an exchange became in the ledger.
export async function lookUp(exchange, key, signal) {
  return await read(`/rempart/v1/exchanges/${encodeURIComponent(exchange)}`, key, signal);
}

// What this key may do with the ledger: its role, whether it may see what was said, whether a second key is needed.
export async function whoReads(key, signal) {
  return await read("/rempart/v1/ledger/reader", key, signal);
}

// Exchanges that a query finds, the newest first; only those before the index `below`, where it is given. With a
// `reason` also where the words stand; `second` is another auditor's key, or empty.
export async function searchLedger(key, { query, reason, second }, below, signal) {
  const asked = below === null ? { q: query } : { q: query, below };
  if (reason) return await readSaid("/rempart/v1/ledger/search", key, { ...asked, reason }, second, signal);
  return await read(`/rempart/v1/ledger/search?${new URLSearchParams(asked)}`, key, signal);
}

// The entries of an exchange, with their proofs.
export async function showExchange(key, exchange, signal) {
  return await read(`/rempart/v1/ledger/exchanges/${encodeURIComponent(exchange)}`, key, signal);
}

// What was said in an exchange. `second` is another auditor's key, or empty.
export async function disclose(key, exchange, reason, second, signal) {
  const path = `/rempart/v1/ledger/exchanges/${encodeURIComponent(exchange)}/bodies`;
  return await readSaid(path, key, { reason }, second, signal);
}

async function readSaid(path, key, asked, second, signal) {
  if (second && !PRINTABLE.test(second)) throw new ApiError("", "invalid_api_key");
  const response = await send(path, key, {
    method: "POST",
    headers: { "content-type": "application/json", ...(second ? { "x-rempart-second": second } : {}) },
    body: JSON.stringify(asked),
    signal,
  });
  if (!response.ok) throw await refusal(response, "");
  return await response.json();
}

// Send a conversation. Gives the exchange's id and the pieces of the answer as they arrive.
export async function ask({ key, model, messages, signal }) {
  const response = await send("/v1/chat/completions", key, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages, stream: true }),
    signal,
  });
  const exchange = response.headers.get("x-rempart-exchange") || "";
  if (!response.ok) throw await refusal(response, exchange);
  return { exchange, pieces: pieces(response.body, exchange) };
}

async function read(path, key, signal) {
  const response = await send(path, key, { signal });
  if (!response.ok) throw await refusal(response, "");
  return await response.json();
}

async function send(path, key, options) {
  if (!PRINTABLE.test(key)) throw new ApiError("", "invalid_api_key");
  return await reach(path, { ...options, headers: { ...options.headers, authorization: `Bearer ${key}` } });
}

async function reach(path, options) {
  try {
    return await fetch(path, { ...options, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    throw asApiError(error, "");
  }
}

// An answer that is not OpenAI's shape comes from something in between, such as a proxy: its status must do.
async function refusal(response, exchange) {
  const error = (await jsonOf(response)).error || {};
  return new ApiError(error.message || `HTTP ${response.status}`, error.code || "other", exchange);
}

async function jsonOf(response) {
  const json = (response.headers.get("content-type") || "").startsWith("application/json");
  return json ? await response.json() : {};
}

async function* pieces(body, exchange) {
  let done = false;
  try {
    for await (const payload of events(body)) {
      if (payload === DONE) done = true;
      else if (!done) yield piece(JSON.parse(payload), exchange);
    }
  } catch (error) {
    throw asApiError(error, exchange);
  }
  if (!done) throw new ApiError("", "incomplete", exchange);
}

function piece(chunk, exchange) {
  if (chunk.error) throw new ApiError(chunk.error.message || "", chunk.error.code || "other", exchange);
  const choice = chunk.choices?.[0] || {};
  const delta = choice.delta || {};
  return {
    text: delta.content || "",
    thought: delta.reasoning_content || delta.reasoning || "",
    finish: choice.finish_reason || "",
  };
}

function asApiError(error, exchange) {
  if (error instanceof ApiError || error.name === "AbortError") return error;
  if (error instanceof SyntaxError) return new ApiError(error.message, "incomplete", exchange);
  return new ApiError("", "network", exchange);
}
