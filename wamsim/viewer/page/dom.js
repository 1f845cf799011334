// Elements without innerHTML: what comes from a record can only ever become text.
(function (wamsim) {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";

  /**
   * Make an element.
   *
   * @param {string} tag "div", "div.class.other" or "svg:path".
   * @param {object} [props] "on" (event -> listener), "style" (property -> value), "data",
   *   "text"; a function, object or boolean value is a DOM property, others are attributes;
   *   null and undefined are left out.
   * @param {...(Node|string|number|null|Array)} children Strings become text nodes.
   * @returns {Element} The element.
   */
  function el(tag, props, ...children) {
    const [name, ...classes] = tag.split(".");
    const node = name.startsWith("svg:")
      ? document.createElementNS(SVG, name.slice(4))
      : document.createElement(name);
    if (classes.length) node.setAttribute("class", classes.join(" "));
    for (const [key, value] of Object.entries(props || {})) set(node, key, value);
    append(node, children);
    return node;
  }

  function set(node, key, value) {
    if (value === null || value === undefined) return;
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (key === "style") {
      for (const [property, v] of Object.entries(value)) node.style.setProperty(property, v);
    } else if (key === "data") {
      for (const [name, v] of Object.entries(value)) node.dataset[name] = v;
    } else if (key === "text") {
      node.textContent = value;
    } else if (typeof value === "boolean" && key in node) {
      node[key] = value;
    } else {
      node.setAttribute(key, String(value));
    }
  }

  function append(node, children) {
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      node.append(child instanceof Node ? child : String(child));
    }
  }

  /** Put children in the place of what is there. */
  function fill(node, ...children) {
    node.replaceChildren();
    append(node, children);
    return node;
  }

  /** Text for screen readers only. */
  const hidden = (text) => el("span.hidden", { text });

  /** Text that may be cut; the whole of it is in its title. */
  const cut = (text) => el("span.cut", { text, title: text });

  /** A labelled `<select>`; `options` are [value, text] pairs. */
  function select(label, options, value, onChange) {
    const box = el("select", { on: { change: () => onChange(box.value) } });
    setOptions(box, options, value);
    return el("label.field", null, el("span.field-name", { text: label }), box);
  }

  function setOptions(box, options, value) {
    const key = JSON.stringify(options);
    if (box.dataset.options !== key) {
      fill(
        box,
        options.map(([v, text]) => el("option", { value: v, text })),
      );
      box.dataset.options = key;
    }
    if (value !== undefined && value !== null) box.value = value;
  }

  /** A labelled search box; Escape empties it. */
  function search(label, value, onInput) {
    const box = el("input", {
      type: "search",
      value,
      placeholder: label,
      "aria-label": label,
      spellcheck: "false",
      on: { input: () => onInput(box.value) },
    });
    return box;
  }

  /** Buttons of which several (`many`) or one is pressed; `value` is an array. */
  function toggles(label, options, value, onChange, many) {
    const group = el("div.toggles", { role: "group", "aria-label": label });
    for (const [v, text, title] of options) {
      const pressed = value.includes(v);
      group.append(
        el("button", {
          type: "button",
          text,
          title,
          "aria-pressed": String(pressed),
          on: {
            click: () => {
              if (!many) return onChange([v]);
              const next = options.map((o) => o[0]).filter((o) => value.includes(o) !== (o === v));
              if (next.length) onChange(next);
            },
          },
        }),
      );
    }
    return group;
  }

  // Sentences of wamsim put commands between backticks.
  function coded(sentence) {
    return String(sentence)
      .split("`")
      .map((part, i) => (i % 2 ? el("code", { text: part }) : part));
  }

  /** A sentence in place of content: what is the case, and what to do. */
  function notice(title, sentence, ...more) {
    return el(
      "div.notice",
      null,
      el("h2", { text: title }),
      sentence ? el("p", null, coded(sentence)) : null,
      more,
    );
  }

  Object.assign(wamsim, { el, fill, hidden, cut, select, setOptions, search, toggles, notice });
})((window.wamsim = window.wamsim || {}));
