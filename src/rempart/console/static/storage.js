// What this browser keeps: the key for the tab (sessionStorage), the language for longer (localStorage).

const memory = { localStorage: new Map(), sessionStorage: new Map() };

// A browser may forbid storage by policy; reading the property then throws. The page works on, until it is reloaded.
function allowed(area) {
  try {
    return window[area];
  } catch (error) {
    console.info("Storage is forbidden here, so nothing outlives this page.", error.name);
    return null;
  }
}

export function recall(area, name) {
  const store = allowed(area);
  return (store ? store.getItem(name) : memory[area].get(name)) || "";
}

export function remember(area, name, value) {
  const store = allowed(area);
  if (store) store.setItem(name, value);
  else memory[area].set(name, value);
}

export function forget(area, name) {
  const store = allowed(area);
  if (store) store.removeItem(name);
  else memory[area].delete(name);
}
