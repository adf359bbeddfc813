"use strict";
// What pages that show problems one by one share: elements, harmless text, a list of any length.
const reader = (() => {
  const ROW = 58; // px, as in the style
  const CUT = 3000; // characters shown of a long text before it is asked for

  const $ = (id) => document.getElementById(id);

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    for (const child of children) if (child !== null) node.append(child); // strings become text nodes
    return node;
  }

  // Control characters as the pictures Unicode has for them; the length stays the same.
  function visible(text) {
    return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, (c) => {
      const code = c.charCodeAt(0);
      return code < 32 ? String.fromCharCode(0x2400 + code) : code === 127 ? "\u2421" : "\ufffd";
    });
  }

  // Where a long text is cut until it is asked for: never through a pair.
  function cut(text) {
    if (text.length <= CUT) return text.length;
    const code = text.charCodeAt(CUT - 1);
    return code >= 0xd800 && code < 0xdc00 ? CUT - 1 : CUT;
  }

  // The nodes `make(end)` of a text go into `body`; a button for the rest, if it is cut, behind it.
  function fillCut(body, text, make) {
    body.replaceChildren(...make(cut(text)));
    if (cut(text) === text.length) return;
    const more = el("button", { type: "button", class: "more", on: { click: () => { body.replaceChildren(...make(text.length)); more.remove(); } } },
      "Show all " + text.length.toLocaleString("en") + " characters");
    body.after(more);
  }

  function button(label, key, attributes, click) {
    return el("button", { type: "button", ...attributes, on: { click: click } }, label, el("kbd", { "aria-hidden": "true" }, key));
  }

  function saveJson(name, content) {
    const blob = new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  // A list of which only the rows in sight exist. `fill(position)` gives a row's children, `go` is
  // called with the position of a row that is clicked.
  function makeList(list, all, fill, go) {
    let count = 0, current = 0;
    function draw() {
      all.style.height = count * ROW + "px";
      const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
      const last = Math.min(count, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
      const nodes = [];
      for (let position = first; position < last; position++) {
        const row = el("div", {
          class: "row", role: "option", id: "row-" + position, "aria-selected": String(position === current),
          "aria-setsize": count, "aria-posinset": position + 1,
          on: { click: () => { go(position); list.focus({ preventScroll: true }); } },
        }, ...fill(position));
        row.style.top = position * ROW + "px";
        nodes.push(row);
      }
      if (!count) nodes.push(el("p", { class: "none" }, "No problem fits these filters."));
      all.replaceChildren(...nodes);
      list.setAttribute("aria-activedescendant", count ? "row-" + current : "");
    }
    list.addEventListener("scroll", () => requestAnimationFrame(draw));
    window.addEventListener("resize", draw);
    return {
      show(size, position) {
        count = size;
        current = position;
        const top = current * ROW;
        if (top < list.scrollTop) list.scrollTop = top;
        else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
        draw();
      },
    };
  }

  return { $, el, visible, fillCut, button, saveJson, makeList };
})();
