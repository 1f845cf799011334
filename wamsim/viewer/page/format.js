// Numbers and words as the page writes them. No data is "–", never 0.
(function (wamsim) {
  "use strict";

  const NONE = "–";
  const known = (x) => x !== null && x !== undefined && !Number.isNaN(x);
  const MINUS = "−";
  const signed = (text) => text.replace("-", MINUS);

  function fixed(x, digits) {
    if (!known(x)) return NONE;
    const text = Number(x).toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : signed(text); // no "-0.00"
  }

  /** Of any size, in about three digits: 0.123, -17.3, -145, -2.8e+4. */
  function number(x) {
    if (!known(x)) return NONE;
    const size = Math.abs(x);
    if (size >= 9999.5) return signed(Number(x).toExponential(1));
    return fixed(x, size >= 99.95 ? 0 : size >= 9.995 ? 1 : 3);
  }
  const percent = (rate, digits = 1) => fixed(known(rate) ? 100 * rate : null, digits);

  /** "[41.0, 80.3]" of rates, in percent. */
  function interval(pair, digits = 1) {
    return pair ? `[${percent(pair[0], digits)}, ${percent(pair[1], digits)}]` : "";
  }

  function numberInterval(low, high) {
    return known(low) && known(high) ? `[${number(low)}, ${number(high)}]` : "";
  }

  /** Signed percentage points: "+12.5". */
  function points(x, digits = 1) {
    if (!known(x)) return NONE;
    return (x > 0 ? "+" : "") + percent(x, digits);
  }

  function pValue(p) {
    if (!known(p)) return NONE;
    return p < 0.001 ? "< 0.001" : fixed(p, 3);
  }

  const GROUPED = new Intl.NumberFormat("en-US"); // made once: making it takes longer than using it

  function count(n) {
    return known(n) ? GROUPED.format(n) : NONE;
  }

  function plural(n, one, many) {
    return `${count(n)} ${n === 1 ? one : many || one + "s"}`;
  }

  function seconds(s) {
    if (!known(s)) return NONE;
    if (s < 1) return `${(1000 * s).toFixed(s < 0.1 ? 1 : 0)} ms`;
    return `${s.toFixed(s < 10 ? 2 : 1)} s`;
  }

  /** "2026-11-20 12:31" in the reader's time zone. */
  function date(unix_s) {
    if (!known(unix_s)) return NONE;
    const d = new Date(1000 * unix_s);
    const two = (n) => String(n).padStart(2, "0");
    return (
      `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ` +
      `${two(d.getHours())}:${two(d.getMinutes())}`
    );
  }

  /** "pick_up_the_mug" -> "pick up the mug". */
  const words = (name) => String(name).replaceAll("_", " ");

  const OUTCOMES = {
    success: { mark: "✓", word: "success", kind: "good" },
    failure: { mark: "✕", word: "failure", kind: "bad" },
    error: { mark: "!", word: "error", kind: "warn" },
    damaged: { mark: "?", word: "damaged", kind: "warn" },
  };
  const outcome = (name) => OUTCOMES[name] || { mark: "?", word: String(name), kind: "warn" };

  wamsim.format = {
    NONE,
    known,
    fixed,
    number,
    percent,
    interval,
    numberInterval,
    points,
    pValue,
    count,
    plural,
    seconds,
    date,
    words,
    outcome,
  };
})((window.wamsim = window.wamsim || {}));
