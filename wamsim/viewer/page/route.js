// The address is the page's whole state: "#/runs?sort=-rate&q=oracle".
(function (wamsim) {
  "use strict";

  const listeners = [];

  /** @returns {{path: string[], params: URLSearchParams}} What the address says now. */
  function read() {
    const text = location.hash.replace(/^#\/?/, "");
    const at = text.indexOf("?");
    const path = (at < 0 ? text : text.slice(0, at)).split("/").filter(Boolean).map(decode);
    return { path, params: new URLSearchParams(at < 0 ? "" : text.slice(at + 1)) };
  }

  function decode(part) {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // a "%" that somebody typed
    }
  }

  /**
   * Write an address.
   *
   * @param {string[]} path Parts of the path.
   * @param {object} [params] Name -> text, number or array (comma-separated); null, "" and
   *   empty arrays are left out.
   */
  function href(path, params) {
    const query = Object.entries(params || {})
      .map(([name, value]) => [name, Array.isArray(value) ? value.join(",") : value])
      .filter(([, value]) => value !== null && value !== undefined && value !== "")
      .map(([name, value]) => `${encodeURIComponent(name)}=${escape(value)}`)
      .join("&");
    return "#/" + path.map((part) => encodeURIComponent(part)).join("/") + (query && "?" + query);
  }

  // Commas, slashes and colons are harmless in a fragment and keep addresses readable.
  const escape = (value) =>
    encodeURIComponent(String(value))
      .replaceAll("%2C", ",")
      .replaceAll("%2F", "/")
      .replaceAll("%3A", ":");

  /**
   * Change some parameters of the present address.
   *
   * @param {object} changes Name -> value as in `href`; null removes.
   * @param {{push?: boolean, quiet?: boolean}} [how] push: a step that "back" undoes; quiet:
   *   nobody is told, because the caller already shows it.
   */
  function change(changes, how) {
    const { path, params } = read();
    go(href(path, { ...Object.fromEntries(params), ...changes }), how);
  }

  function go(address, how) {
    if (address === location.hash) return;
    if (how && how.push) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    if (!(how && how.quiet)) tell();
  }

  function tell() {
    const now = read();
    for (const listener of listeners) listener(now);
  }

  /** Values of a comma-separated parameter. */
  function list(params, name) {
    return (params.get(name) || "").split(",").filter(Boolean);
  }

  function number(params, name, fallback) {
    const text = params.get(name);
    const value = text === null || text === "" ? NaN : Number(text);
    return Number.isFinite(value) ? value : fallback;
  }

  window.addEventListener("hashchange", tell);

  wamsim.route = {
    read,
    href,
    change,
    go,
    tell,
    list,
    number,
    onChange: (listener) => listeners.push(listener),
  };
})((window.wamsim = window.wamsim || {}));
