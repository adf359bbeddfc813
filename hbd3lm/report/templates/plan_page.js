// The problems of a plan file: filtered, shown one at a time, judged. Texts of the file reach the
// document through textContent only. Verdicts live in localStorage under the file's fingerprint.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const problems = data.problems;
  const byId = new Map(problems.map((problem, index) => [problem.id, index]));
  const KEY = "hbd3lm-review:" + data.fingerprint;
  const { $, el, visible, fillCut, button, saveJson, makeList } = reader;
  const list = $("list"), card = $("problem");

  let verdicts = new Map(); // id -> {verdict, plan?}
  let undo = []; // [index, what was there before]
  let shown = problems.map((_, index) => index); // after the filters
  let sample = null; // a Set of indices, or null
  let current = 0; // position in shown
  let editing = false;
  let waiting = false; // a filter was changed meanwhile
  const pressed = new Set(); // faults asked for

  // --- verdicts ---------------------------------------------------------------------------------

  function notice(text) {
    $("notice").textContent = text;
    $("notice").hidden = !text;
  }

  function read() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY) || "[]");
      verdicts = new Map(kept.filter(([id]) => byId.has(id)));
    } catch (error) {
      verdicts = new Map();
      notice("This browser keeps no data for this page: save review.json before you close it.");
    }
  }

  let kept = true; // whether the browser holds all verdicts
  function keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify([...verdicts]));
      kept = true;
    } catch (error) {
      kept = verdicts.size === 0;
      notice("This browser cannot keep your verdicts: save review.json before you close the page.");
    }
  }

  function set(index, entry) {
    const id = problems[index].id;
    undo.push([index, verdicts.get(id) || null]);
    if (entry) verdicts.set(id, entry);
    else verdicts.delete(id);
  }

  function judge(verdict) {
    if (!shown.length || editing) return;
    const index = shown[current];
    const before = verdicts.get(problems[index].id) || {};
    const again = before.verdict === verdict;
    let entry = again ? null : { verdict: verdict };
    if (before.plan !== undefined) {
      // An edited plan is good as edited; taking back "bad" brings the edit back.
      entry = verdict === "bad" && !again ? { verdict: "bad", plan: before.plan } : { verdict: "edited", plan: before.plan };
    }
    set(index, entry);
    keep();
    say(problems[index].id + (entry ? " is " + entry.verdict : ": verdict taken back"));
    if (entry && !again && current < shown.length - 1) current += 1;
    show();
  }

  function takeBack() {
    if (editing || !undo.length) return;
    const [index, before] = undo.pop();
    const id = problems[index].id;
    if (before) verdicts.set(id, before);
    else verdicts.delete(id);
    keep();
    const position = shown.indexOf(index);
    if (position >= 0) current = position;
    say("undone: " + id);
    show();
  }

  function rows() {
    const made = [];
    for (const problem of problems) {
      const entry = verdicts.get(problem.id);
      if (!entry) continue;
      const row = { id: problem.id, verdict: entry.verdict };
      if (entry.verdict === "edited") row.plan = entry.plan;
      made.push(row);
    }
    return made;
  }

  function save() {
    const content = {
      format: data.format, version: data.version, fingerprint: data.fingerprint,
      data_path: data.data_path, examples: problems.length, saved: new Date().toISOString(), verdicts: rows(),
    };
    saveJson("review.json", content);
    kept = true;
    say(content.verdicts.length + " verdicts saved");
  }

  async function load(file) {
    notice("");
    let content;
    try {
      content = JSON.parse(await file.text());
    } catch (error) {
      return notice(file.name + " is no JSON; choose a review.json saved by this page.");
    }
    if (!content || content.format !== data.format || content.version !== data.version || !Array.isArray(content.verdicts))
      return notice(file.name + " is no review of plans.");
    if (content.fingerprint !== data.fingerprint)
      return notice(file.name + " is a review of other plans (fingerprints differ); nothing was loaded.");
    for (const row of content.verdicts) {
      if (!row || !byId.has(row.id) || !["good", "bad", "edited"].includes(row.verdict)) continue;
      if (row.verdict === "edited" && typeof row.plan !== "string") continue;
      const entry = row.verdict === "edited" ? { verdict: "edited", plan: row.plan } : { verdict: row.verdict };
      set(byId.get(row.id), entry);
    }
    keep(); // once: the browser writes all of them each time
    say(content.verdicts.length + " verdicts loaded");
    filter();
  }

  // --- filters ----------------------------------------------------------------------------------

  const haystacks = [];
  function haystack(index) {
    const p = problems[index];
    if (haystacks[index] === undefined)
      haystacks[index] = [p.id, p.question, p.plan, p.execution].join("\n").toLowerCase();
    return haystacks[index];
  }

  function matches(index, withSample) {
    const problem = problems[index];
    const entry = verdicts.get(problem.id);
    const verdict = $("verdict-filter").value, category = $("category").value;
    const words = $("search").value.trim().toLowerCase();
    if (withSample && sample && !sample.has(index)) return false;
    if (category !== "" && problem.category !== Number(category)) return false;
    if (verdict === "open" ? entry : verdict && (!entry || entry.verdict !== verdict)) return false;
    if (pressed.size && !problem.faults.some((fault) => pressed.has(fault))) return false;
    return !words || haystack(index).includes(words);
  }

  function filter(stay) {
    if (editing) {
      waiting = true;
      return notice("The list changes when the edit is kept (Ctrl Enter) or cancelled (Esc).");
    }
    const index = shown[current];
    shown = problems.map((_, i) => i).filter((i) => matches(i, true));
    current = Math.max(0, stay === false ? 0 : shown.indexOf(index));
    show();
  }

  // Numbers from a seed: Mulberry32, so that the same seed draws the same problems anywhere.
  function generator(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function draw() {
    const size = Math.max(1, Math.floor(Number($("size").value)) || 1);
    const random = generator(Math.floor(Number($("seed").value)) || 0);
    const from = problems.map((_, i) => i).filter((i) => matches(i, false));
    for (let i = 0; i < Math.min(size, from.length); i++) {
      const j = i + Math.floor(random() * (from.length - i));
      [from[i], from[j]] = [from[j], from[i]];
    }
    sample = new Set(from.slice(0, size));
    drawn();
    filter(false);
  }

  function drawn() {
    $("draw").textContent = sample ? "Show all" : "Draw";
    $("draw").setAttribute("aria-pressed", String(Boolean(sample)));
  }

  // --- the list ---------------------------------------------------------------------------------

  const SIGNS = { good: "✓ good", bad: "✗ bad", edited: "✎ edited" };

  const rowsInSight = makeList(list, $("all"), (position) => {
    const problem = problems[shown[position]];
    const entry = verdicts.get(problem.id);
    return [
      el("div", { class: "top" }, el("span", { class: "name", dir: "auto" }, visible(problem.id.slice(0, 200))),
        entry ? el("span", { class: "said " + entry.verdict }, SIGNS[entry.verdict])
          : el("span", { class: "said" }, problem.faults.length ? "⚑ " + problem.faults.length : "")),
      el("div", { class: "what", dir: "auto" }, visible(problem.question.slice(0, 160))),
    ];
  }, (position) => go(position));

  function go(position) {
    if (!shown.length || editing) return;
    current = Math.min(Math.max(position, 0), shown.length - 1);
    show();
  }

  // --- one problem ------------------------------------------------------------------------------

  const ROLES = { a: ": the answer", r: ": a result of the solution" };

  function marked(text, marks, end) {
    const parts = [];
    let position = 0;
    for (const [from, to, kind] of marks) {
      if (to > end) break;
      parts.push(visible(text.slice(position, from)));
      const title = (kind[0] === "w" ? "number in words" : "number in digits") + (ROLES[kind[1]] || "");
      const classes = [kind[0], kind[1] ? "leak" : ""].join(" ").trim();
      parts.push(el("mark", { class: classes, title: title }, visible(text.slice(from, to))));
      position = to;
    }
    parts.push(visible(text.slice(position, end)));
    return parts;
  }

  function part(name, text, kind, marks) {
    const body = el("p", { class: "text", dir: "auto" });
    const section = el("div", { class: "part is-" + kind }, el("h4", {}, name), body);
    if (!text.trim()) {
      body.className = "empty";
      body.textContent = "no text";
      return section;
    }
    fillCut(body, text, (end) => marked(text, marks || [], end));
    return section;
  }

  // Digits of a text typed here; the analysis marks the others.
  function digits(text) {
    return [...text.matchAll(/\d[\d,]*(?:\.\d+)?/g)].map((m) => [m.index, m.index + m[0].length, "d"]);
  }

  function notes(problem) {
    const items = problem.faults.map((fault) => el("li", { class: "fault", title: data.faults[fault][2] }, data.faults[fault][1]));
    items.push(el("li", {}, data.categories[problem.category]));
    if (problem.repeats > 1) items.push(el("li", {}, "plan used " + problem.repeats.toLocaleString("en") + " times"));
    if (problem.shared !== null) items.push(el("li", {}, Math.round(100 * problem.shared) + "% of its words in the solution"));
    return el("ul", { class: "notes" }, ...items);
  }

  function show() {
    drawCard();
    rowsInSight.show(shown.length, current);
    const judged = shown.filter((index) => verdicts.has(problems[index].id)).length;
    const of = shown.length.toLocaleString("en");
    $("inspected").textContent = judged.toLocaleString("en") + " of " + of + " inspected" + (sample ? " (sample)" : "");
    $("progress").max = Math.max(1, shown.length);
    $("progress").value = judged;
    $("save").disabled = verdicts.size === 0;
  }

  function drawCard() {
    if (!shown.length) {
      card.replaceChildren(el("p", { class: "none" }, "Loosen a filter to see problems."));
      return;
    }
    const problem = problems[shown[current]];
    const entry = verdicts.get(problem.id) || {};
    const plan = entry.plan === undefined ? problem.plan : entry.plan;
    const planPart = editing ? editor(plan)
      : entry.plan === undefined ? part("Plan", plan, "plan", problem.marks)
      : part("Plan, edited", plan, "plan", digits(plan));
    const place = (current + 1).toLocaleString("en") + " of " + shown.length.toLocaleString("en");
    card.replaceChildren(...[
      el("header", {}, el("h3", { dir: "auto" }, visible(problem.id.slice(0, 300))),
        entry.verdict ? el("strong", { class: entry.verdict }, SIGNS[entry.verdict]) : null,
        el("span", { class: "place" }, place)),
      part("Question", problem.question, "question"),
      planPart,
      entry.plan !== undefined && !editing ? part("Plan, as it was", problem.plan, "before", problem.marks) : null,
      problem.other !== undefined ? part("Plan of " + data.other, problem.other, "other", digits(problem.other)) : null,
      part("Execution", problem.execution, "execution"),
      part("Answer", problem.answer, "answer"),
      el("div", { class: "part" }, el("h4", {}, "Operations: plan | solution"),
        el("p", { class: "text" }, (problem.said || "none named") + "  |  " + (problem.done || "none read"))),
      el("div", { class: "part" }, notes(problem)),
      el("div", { class: "acts" },
        button("Good", "g", { class: "good", "aria-pressed": String(entry.verdict === "good" || entry.verdict === "edited"), disabled: editing }, () => judge("good")),
        button("Bad", "b", { class: "bad", "aria-pressed": String(entry.verdict === "bad"), disabled: editing }, () => judge("bad")),
        button("Edit", "e", { disabled: editing }, edit),
        button("Undo", "u", { disabled: editing || !undo.length }, takeBack),
        el("span", { class: "end" },
          button("Back", "k", { disabled: editing || current === 0 }, () => go(current - 1)),
          button("Next", "j", { disabled: editing || current === shown.length - 1 }, () => go(current + 1))))].filter((child) => child !== null));
  }

  function editor(plan) {
    const area = el("textarea", { id: "editor", dir: "auto", "aria-label": "The plan, edited" });
    area.value = plan;
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.preventDefault(); stopEditing(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); keepEdit(); }
      event.stopPropagation();
    });
    return el("div", { class: "part is-plan" }, el("h4", {}, "Plan"), area,
      button("Keep", "Ctrl Enter", { class: "strong", id: "keep" }, keepEdit), " ",
      button("Cancel", "Esc", {}, stopEditing));
  }

  function edit() {
    if (!shown.length || editing) return;
    editing = true;
    show();
    const area = $("editor");
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  function stopEditing() {
    editing = false;
    notice("");
    if (waiting) filter();
    else show();
    waiting = false;
    list.focus({ preventScroll: true });
  }

  function keepEdit() {
    const index = shown[current], text = $("editor").value.trim();
    if (!text) return notice("A plan needs text; mark it bad instead (Esc, then b).");
    const before = verdicts.get(problems[index].id) || {};
    if (text !== problems[index].plan.trim()) set(index, { verdict: "edited", plan: text });
    else if (before.plan !== undefined) set(index, null); // edited back to what it was
    keep();
    say(problems[index].id + " edited");
    stopEditing();
  }

  function say(text) {
    $("live").textContent = visible(text);
  }

  // --- wiring -----------------------------------------------------------------------------------

  data.categories.forEach((label, index) => {
    const count = problems.filter((problem) => problem.category === index).length;
    if (count) $("category").append(el("option", { value: index }, label + ": " + count.toLocaleString("en")));
  });
  data.faults.forEach(([, label, explanation], index) => {
    const count = problems.filter((problem) => problem.faults.includes(index)).length;
    const chip = el("button", { type: "button", class: "chip", "aria-pressed": "false", title: explanation, disabled: !count },
      label + " ", el("span", { class: "n" }, count.toLocaleString("en")));
    chip.addEventListener("click", () => {
      if (!pressed.delete(index)) pressed.add(index);
      chip.setAttribute("aria-pressed", String(pressed.has(index)));
      filter();
    });
    $("faults").append(chip);
  });
  for (const id of ["category", "verdict-filter"]) $(id).addEventListener("change", () => filter());
  let typing;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filter, 120); });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape" || event.key === "Enter") list.focus();
  });
  $("draw").addEventListener("click", () => {
    if (!sample) return draw();
    sample = null;
    drawn();
    filter();
  });
  for (const id of ["size", "seed"]) $(id).addEventListener("change", () => { if (sample) draw(); });
  $("inspect").addEventListener("click", () => {
    draw();
    document.querySelector(".state").scrollIntoView();
    list.focus({ preventScroll: true });
  });
  $("save").addEventListener("click", save);
  $("load").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => { if ($("file").files.length) load($("file").files[0]); $("file").value = ""; });
  $("help").addEventListener("click", () => $("keys").showModal());
  $("close").addEventListener("click", () => $("keys").close());
  window.addEventListener("storage", (event) => { if (event.key === KEY && !editing) { read(); show(); } });
  window.addEventListener("beforeunload", (event) => { if (!kept || editing) event.preventDefault(); });

  const KEYS = {
    j: () => go(current + 1), k: () => go(current - 1), g: () => judge("good"), b: () => judge("bad"),
    e: edit, u: takeBack, "/": () => $("search").focus(), "?": () => $("keys").showModal(),
  };
  const MOVES = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.target.closest("input, select, textarea")) return;
    if (MOVES[event.key] && event.target === list) {
      event.preventDefault();
      return go(current + MOVES[event.key]);
    }
    if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });

  read();
  drawn();
  show();
})();
