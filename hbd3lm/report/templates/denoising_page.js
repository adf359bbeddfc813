// Sampled problems, played step by step. A frame k shows what the first k network passes that
// decided something have decided. Texts of the file reach the document through textContent only.
(() => {
  const { $, el, visible, fillCut, button, saveJson, makeList } = reader;
  const data = JSON.parse($("data").textContent);
  const problems = data.problems;
  const KEY = "hbd3lm-edited-plans:" + data.fingerprint;
  const TEXT = 0, END = 1, FILL = 2; // kinds of tokens, as in the data; 3 is dropped
  const LONGEST = 100000; // bytes of an argument that any shell takes
  const REST = 1500; // milliseconds between two problems

  const list = $("list");
  let shown = problems.map((_, index) => index); // after the filters, in order
  let current = 0; // position in shown
  let frame = 0; // passes shown
  let stage = null; // the current problem as it stands in the document
  let timer = 0; // while playing
  let editing = false;
  let edits = new Map(); // index -> plan

  function say(text) {
    $("live").textContent = visible(text);
  }

  function notice(text) {
    $("notice").textContent = text;
    $("notice").hidden = !text;
  }

  const number = (value) => value.toLocaleString("en");
  const problemNow = () => problems[shown[current]];

  // --- edited plans -----------------------------------------------------------------------------

  function readEdits() {
    try {
      edits = new Map(JSON.parse(localStorage.getItem(KEY) || "[]").filter(([index]) => problems[index]));
    } catch (error) {
      notice("This browser keeps no data for this page: save your edited plans before you close it.");
    }
  }

  function keepEdits() {
    try {
      localStorage.setItem(KEY, JSON.stringify([...edits]));
    } catch (error) {
      notice("This browser cannot keep your plans: save them before you close the page.");
    }
  }

  // A word of a command for a POSIX shell.
  function shell(word) {
    return /^[\w@%+=:,./-]+$/.test(word) ? word : "'" + word.replace(/'/g, () => "'\"'\"'") + "'";
  }

  // Any text as a quoted value of Hydra's grammar, where only a backslash before a quote escapes.
  function hydra(text) {
    const escaped = text.replace(/(\\*)"/g, (_, slashes) => slashes + slashes + '\\"').replace(/\$\{/g, () => "\\${");
    return '"' + escaped + escaped.match(/\\*$/)[0] + '"';
  }

  // The command that runs a problem with a plan; null if no command line can hold it.
  function command(problem, plan) {
    const words = ["sampling.question=" + hydra(problem.question), "sampling.plan=" + hydra(plan)];
    const size = (text) => new TextEncoder().encode(text).length;
    if (words.some((word) => word.includes("\0") || size(word) > LONGEST)) return null;
    return data.commands.one + " " + words.map(shell).join(" ") + " &&\n" + data.commands.view_one;
  }

  function example(index) {
    const problem = problems[index];
    return {
      id: problem.id, question: problem.question, plan: edits.get(index),
      execution: problem.gold.execution, answer_numerical: problem.answer.gold,
    };
  }

  // Only what has a gold answer can be scored, which the command for a file does.
  const scored = () => [...edits.keys()].filter((index) => problems[index].answer.gold).sort((a, b) => a - b);

  function drawEdit() {
    const part = $("edit-part"), index = shown[current], problem = problems[index];
    part.hidden = !problem || problem.plan === null || !(editing || edits.has(index));
    if (part.hidden) return part.replaceChildren();
    if (editing) return part.replaceChildren(...editor(index));
    const plan = edits.get(index), line = command(problem, plan), several = scored();
    const body = el("p", { class: "text", dir: "auto", id: "edited-plan" });
    const nodes = [el("h2", { class: "title" }, "Plan, edited"), body];
    nodes.push(el("p", { class: "note" }, "This page holds no model. To see the execution that follows this plan:"));
    if (line === null) nodes.push(el("p", { class: "note" }, "(too long for a command line, or not writable in one; save the plans instead)"));
    else nodes.push(el("pre", { class: "command", id: "command" }, line));
    const acts = el("div", { class: "row-of-buttons" });
    if (line !== null) acts.append(el("button", { type: "button", class: "strong", id: "copy", on: { click: () => copy(line) } }, "Copy command"));
    acts.append(button("Edit", "e", {}, edit), el("button", { type: "button", id: "discard", on: { click: discard } }, "Discard this edit"));
    nodes.push(acts);
    if (several.length) {
      nodes.push(el("p", { class: "note" }, several.length === 1 ? "Or as a file, scored against the gold answer:" : "Or all " + number(several.length) + " edited plans at once, scored against the gold answers:"),
        el("pre", { class: "command", id: "file-command" }, data.commands.many + " &&\n" + data.commands.view_many),
        el("div", { class: "row-of-buttons" },
          el("button", { type: "button", id: "save", on: { click: save } }, "Save " + data.commands.file + " (" + number(several.length) + ")")));
    }
    part.replaceChildren(...nodes);
    fillCut(body, plan, (end) => [visible(plan.slice(0, end))]);
  }

  function editor(index) {
    const area = el("textarea", { id: "editor", dir: "auto", "aria-label": "The plan, edited" });
    area.value = edits.has(index) ? edits.get(index) : problems[index].plan;
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") { event.preventDefault(); stopEditing(); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); keepEdit(); }
      event.stopPropagation();
    });
    return [el("h2", { class: "title" }, "Your plan"), area, el("div", { class: "row-of-buttons" },
      button("Keep", "Ctrl Enter", { class: "strong", id: "keep" }, keepEdit), button("Cancel", "Esc", {}, stopEditing))];
  }

  function edit() {
    if (!shown.length || problemNow().plan === null || editing) return;
    pause();
    editing = true;
    drawEdit();
    $("editor").focus();
    $("editor").scrollIntoView({ block: "center" });
  }

  function stopEditing() {
    editing = false;
    notice("");
    drawEdit();
    list.focus({ preventScroll: true });
  }

  function keepEdit() {
    const index = shown[current], text = $("editor").value.trim();
    if (!text) return notice("A plan needs text.");
    if (text === problems[index].plan.trim()) edits.delete(index);
    else edits.set(index, text);
    keepEdits();
    say("Plan of " + problems[index].id + " edited");
    stopEditing();
    drawList();
    if ($("edited-plan")) $("edit-part").scrollIntoView({ block: "nearest" });
  }

  function discard() {
    edits.delete(shown[current]);
    keepEdits();
    drawEdit();
    drawList();
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) { // no such right for a local file: the older way
      const area = el("textarea", { class: "hidden", "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    $("copy").textContent = "Copied";
    say("Command copied");
  }

  function save() {
    saveJson(data.commands.file, scored().map(example));
    say("Edited plans saved");
  }

  // --- filters and list -------------------------------------------------------------------------

  const VERDICTS = {
    right: ["✓ correct", "good"], wrong: ["✗ wrong", "bad"], open: ["", ""],
  };
  const verdict = (problem) => VERDICTS[problem.answer.correct === null ? "open" : problem.answer.correct ? "right" : "wrong"];

  const CHOICES = {
    all: ["all", () => true],
    right: ["correct", (p) => p.answer.correct === true],
    wrong: ["wrong", (p) => p.answer.correct === false],
    loose: ["wrong, but its last number is right", (p) => p.answer.correct === false && p.answer.loose === true],
    none: ["without an answer line", (p) => p.answer.correct !== null && p.answer.strict === null],
    cut: ["cut off at a cap", (p) => p.cut.length > 0],
    edited: ["with an edited plan", (p, index) => edits.has(index)],
  };

  const haystacks = [];
  function haystack(index) {
    const p = problems[index];
    if (haystacks[index] === undefined)
      haystacks[index] = [p.id, p.question, p.plan || "", p.execution].join("\n").toLowerCase();
    return haystacks[index];
  }

  function filter(fromTheTop) {
    if (editing) return notice("First keep the edit (Ctrl Enter) or cancel it (Esc).");
    const before = shown[current], words = $("search").value.trim().toLowerCase();
    const fits = CHOICES[$("which").value][1], order = $("order").value;
    shown = problems.map((_, i) => i).filter((i) => fits(problems[i], i) && (!words || haystack(i).includes(words)));
    if (order === "doubt") shown.sort((a, b) => problems[a].sure - problems[b].sure || a - b);
    if (order === "passes") shown.sort((a, b) => problems[b].evaluations - problems[a].evaluations || a - b);
    const same = fromTheTop ? -1 : shown.indexOf(before);
    current = Math.max(0, same);
    if (same < 0 || !stage) open();
    else drawList();
  }

  const rows = makeList(list, $("all"), (position) => {
    const index = shown[position], problem = problems[index], [sign, kind] = verdict(problem);
    return [
      el("div", { class: "top" }, el("span", { class: "name", dir: "auto" }, visible(problem.id.slice(0, 200))),
        el("span", { class: "said " + kind }, (edits.has(index) ? "✎ " : "") + sign)),
      el("div", { class: "what", dir: "auto" }, visible(problem.question.slice(0, 160))),
    ];
  }, (position) => go(position));

  function drawList() {
    rows.show(shown.length, current);
    $("place").textContent = number(current + 1) + " of " + number(shown.length);
  }

  function go(position) {
    if (!shown.length) return;
    if (editing) return notice("First keep the edit (Ctrl Enter) or cancel it (Esc).");
    pause();
    current = Math.min(Math.max(position, 0), shown.length - 1);
    open();
  }

  // --- one problem ------------------------------------------------------------------------------

  // The problem as elements: every token once, told later whether it is masked, fresh or decided.
  function open() {
    drawList();
    $("problem").classList.toggle("nothing", !shown.length);
    for (const node of $("problem").children) if (node.id !== "edit-part") node.hidden = !shown.length;
    stage = null;
    drawEdit();
    if (!shown.length) return;
    const problem = problemNow();
    const [sign, kind] = verdict(problem);
    $("name").textContent = visible(problem.id.slice(0, 300));
    const old = $("question").nextElementSibling;
    if (old) old.remove();
    fillCut($("question"), problem.question, (end) => [visible(problem.question.slice(0, end))]);
    const tokens = [], blocks = [];
    const parts = [];
    if (problem.plan_given) parts.push(pair("plan", "Plan", "given to the model", plainText(problem.plan), null));
    problem.segments.forEach((segment, s) => {
      const size = data.segments[segment.of].block_size, name = data.segments[segment.of].name;
      const canvas = el("div", { class: "canvas", dir: "auto" });
      for (let start = 0; start < segment.tokens.length; start += size) {
        const span = el("span", { class: "block" + (size > 1 ? " several" : "") });
        const block = { span, name, number: start / size + 1, of: Math.ceil(segment.tokens.length / size), first: Infinity };
        segment.tokens.slice(start, start + size).forEach(([text, kindOf, sure, at], offset) => {
          const node = tokenNode(text, kindOf, sure);
          node.title = tokenTitle(name, start + offset, sure, problem.passes[at], size);
          span.append(node);
          tokens.push({ node, at, sure, kind: kindOf, segment: s, shown: null });
          block.first = Math.min(block.first, at);
        });
        canvas.append(span);
        blocks.push(block);
      }
      const how = size === 1 ? "token by token" : "blocks of " + number(size);
      const notes = how + (problem.cut.includes(name) ? ", cut off at its cap" : "");
      parts.push(pair(name, name === "plan" ? "Plan" : "Execution", notes, canvas, problem.gold[name]));
    });
    $("segments").replaceChildren(...parts);
    if (problem.plan !== null)
      $("segments").querySelector(".is-plan > div").append(el("div", { class: "row-of-buttons" }, button("Edit the plan", "e", { id: "edit" }, edit)));
    const order = [...tokens].sort((a, b) => a.at - b.at); // so that a frame is a prefix of it
    stage = { problem, tokens, blocks, order, sign, kind, last: problem.passes.length, drawn: null };
    $("scrub").max = stage.last;
    $("passes-of").textContent = "of " + number(problem.evaluations) + " network evaluations";
    try {
      history.replaceState(null, "", "#problem-" + (shown[current] + 1));
    } catch (error) { /* a page without an address of its own, as in a frame: no link to a problem */ }
    show(stage.last);
    say(problem.id + (sign ? ", " + sign : ""));
  }

  function plainText(text) {
    const body = el("p", { class: "text", dir: "auto" });
    const box = el("div", {}, body);
    fillCut(body, text, (end) => [visible(text.slice(0, end))]);
    return box;
  }

  function pair(name, title, how, content, gold) {
    const left = el("div", {}, el("h2", { class: "title" }, title, el("small", {}, how)), content);
    const right = gold ? el("div", { class: "gold" }, el("h2", { class: "title" }, "Gold " + name), plainText(gold)) : null;
    return el("div", { class: "part is-" + name + (right ? " pair" : "") }, left, right);
  }

  function tokenNode(text, kind, sure) {
    const node = el("span", { class: "tok" + ["", " end", " fill", " dropped"][kind] });
    node.style.setProperty("--u", doubt(sure).toFixed(3));
    if (kind === END) node.textContent = "end";
    else if (kind === FILL) node.textContent = "·";
    else text.split("\n").forEach((piece, n) => {
      if (n) node.append(el("span", { class: "newline" }, "↵"), "\n");
      node.append(visible(piece));
    });
    return node;
  }

  const doubt = (sure) => Math.pow(1 - Math.min(1, sure), 0.7);
  const percent = (share) => (100 * share).toFixed(share > 0.995 && share < 1 ? 2 : 1) + " %";

  function tokenTitle(name, position, sure, pass, size) {
    const where = size === 1 ? "" : ", block " + number(pass[1] + 1) + ", step " + number(pass[2]);
    return percent(sure) + " sure; " + name + " token " + number(position + 1) + ", evaluation " + number(pass[3]) + where;
  }

  // --- frames -----------------------------------------------------------------------------------

  function show(k) {
    if (!stage) return;
    frame = Math.min(Math.max(k, 0), stage.last);
    const { problem, tokens, blocks, order } = stage;
    for (const token of tokens) {
      const state = token.at >= frame ? "masked" : token.at === frame - 1 && frame < stage.last ? "fresh" : "";
      if (state === token.shown) continue;
      token.node.classList.toggle("masked", state === "masked");
      token.node.classList.toggle("fresh", state === "fresh");
      if (state === "masked") token.node.setAttribute("aria-hidden", "true");
      else token.node.removeAttribute("aria-hidden");
      token.shown = state;
    }
    // A block appears, all masked, before its first pass; the one at work is that of the next pass.
    for (const block of blocks) {
      block.span.classList.toggle("future", block.first > frame);
    }
    const next = frame < stage.last ? blockOf(problem.passes[frame]) : null;
    for (const block of blocks) block.span.classList.toggle("at-work", block === next);
    const pass = frame ? problem.passes[frame - 1] : null;
    const evaluations = frame === stage.last ? problem.evaluations : pass ? pass[3] : 0;
    let decided = 0;
    while (decided < order.length && order[decided].at < frame) decided += 1;
    $("passes").textContent = number(evaluations);
    $("decided").textContent = number(decided);
    $("rate").textContent = evaluations ? (decided / evaluations).toFixed(2) : "–";
    $("scrub").value = frame;
    $("scrub").setAttribute("aria-valuetext", number(evaluations) + " network evaluations, " + number(decided) + " tokens");
    $("now").textContent = describe(pass, next);
    drawAnswers();
    drawMap();
    drawPlay();
    if (playing()) keepInSight(next ? next.span : $("answers"));
  }

  // What is at work may lie under the player, which sticks to the lower edge of the window.
  function keepInSight(node) {
    const under = node.getBoundingClientRect().bottom - $("player").getBoundingClientRect().top + 12;
    if (under > 0) window.scrollBy(0, under);
  }

  function blockOf(pass) {
    const name = data.segments[problemNow().segments[pass[0]].of].name;
    return stage.blocks.find((block) => block.name === name && block.number === pass[1] + 1);
  }

  function describe(pass, next) {
    if (!pass) return "Nothing is decided yet: " + next.name + " starts with " + (next.span.children.length === 1 ? "one masked token." : number(next.span.children.length) + " masked tokens.");
    const block = blockOf(pass);
    if (block.span.children.length === 1) return block.name + ", token " + number(block.number) + " of " + number(block.of);
    const committed = !pass[4] ? "" : block.number === 1 && block.name === stage.blocks[0].name ? "; the same pass read the question"
      : "; the same pass put the finished block before it into the cache";
    return block.name + ", block " + number(block.number) + " of " + number(block.of) + ", step " + number(pass[2]) + committed;
  }

  function drawAnswers() {
    const { problem, sign, kind } = stage, answer = problem.answer;
    const box = el("div", { class: "verdict", id: "verdict" });
    const notes = [];
    if (!problem.solved) return $("answers").replaceChildren(el("p", { class: "note" }, "Only the plan was sampled: there is no answer to score."));
    if (frame < stage.last) box.append(el("span", { class: "waiting" }, "The answer is read when the execution has ended."));
    else {
      if (sign) box.append(el("strong", { class: kind }, sign));
      box.append(el("span", {}, "answer ", el("b", {}, answer.strict === null ? "none" : visible(answer.strict))));
      if (answer.gold) box.append(el("span", {}, "gold ", el("b", {}, visible(answer.gold))));
      if (answer.strict === null) notes.push("There is no line with ####.");
      if (answer.flexible !== null && answer.flexible !== answer.strict)
        notes.push("The last number written is " + answer.flexible + (answer.loose === null ? "." : answer.loose ? ", which is right." : ", which is wrong, too."));
    }
    $("answers").replaceChildren(box, ...notes.map((text) => el("p", { class: "note" }, visible(text))));
  }

  // --- the map ----------------------------------------------------------------------------------

  let geometry = null;
  function drawMap() {
    const canvas = $("map"), scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !stage) return;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue("--" + name).trim();
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const { problem, tokens, blocks } = stage, left = 4, right = width - 4;
    const total = Math.max(1, problem.evaluations), step = (right - left) / total;
    const line = height / tokens.length, x = (evaluation) => left + (evaluation - 0.5) * step;
    geometry = { left, step };
    let row = 0;
    blocks.forEach((block, n) => { // bands, so that the blocks can be told apart
      const count = block.span.children.length;
      if (n % 2 && count > 1) {
        pen.fillStyle = colour("soft");
        pen.fillRect(0, row * line, width, count * line);
      }
      row += count;
    });
    const radius = Math.min(4.5, Math.max(1.4, Math.min(step, line * 1.6) / 2));
    tokens.forEach((token, n) => {
      const segment = data.segments[problem.segments[token.segment].of].name;
      pen.globalAlpha = token.at < frame ? (token.kind === TEXT ? 1 : 0.45) : 0.13;
      pen.fillStyle = colour(segment);
      pen.beginPath();
      pen.arc(x(problem.passes[token.at][3]), (n + 0.5) * line, token.at === frame - 1 && frame < stage.last ? radius * 1.7 : radius, 0, 7);
      pen.fill();
    });
    pen.globalAlpha = 1;
    const at = frame ? problem.passes[frame - 1][3] : 0;
    pen.fillStyle = colour("now");
    pen.fillRect(left + at * step - 0.75, 0, 1.5, height);
  }

  function seek(event) {
    if (!stage || !geometry) return;
    const evaluation = (event.clientX - $("map").getBoundingClientRect().left - geometry.left) / geometry.step;
    pause();
    show(stage.problem.passes.filter((pass) => pass[3] <= evaluation + 0.5).length);
  }

  // --- playing ----------------------------------------------------------------------------------

  const playing = () => timer !== 0;

  function drawPlay() {
    $("play").replaceChildren(playing() ? "❚❚ Pause" : "▶ Play", el("kbd", { "aria-hidden": "true" }, "Space"));
  }

  function tick() {
    if (frame < stage.last) show(frame + 1);
    if (frame < stage.last) timer = setTimeout(tick, 1000 / Number($("speed").value));
    else if ($("on-and-on").checked && current < shown.length - 1) {
      timer = setTimeout(() => {
        current += 1;
        open();
        begin();
      }, REST);
    } else pause();
  }

  function begin() {
    show(0);
    if ($("problem").getBoundingClientRect().top > 0) $("problem").scrollIntoView();
    timer = setTimeout(tick, 1000 / Number($("speed").value));
    drawPlay();
  }

  function pause() {
    clearTimeout(timer);
    timer = 0;
    drawPlay();
  }

  function toggle() {
    if (!stage || editing) return;
    if (playing()) return pause();
    if (frame >= stage.last) return begin();
    timer = setTimeout(tick, 0);
    drawPlay();
  }

  function step(by) {
    pause();
    show(frame + by);
  }

  // To where the block of the current frame began, or the next one does.
  function block(by) {
    if (!stage) return;
    pause();
    const starts = [...new Set(stage.blocks.map((b) => b.first)), stage.last].sort((a, b) => a - b);
    if (by > 0) show(starts.find((start) => start > frame) ?? stage.last);
    else show(starts.filter((start) => start < frame).pop() ?? 0);
  }

  function faster(by) {
    const speed = $("speed");
    speed.selectedIndex = Math.min(Math.max(speed.selectedIndex + by, 0), speed.options.length - 1);
    say("speed: " + speed.selectedOptions[0].textContent);
  }

  // --- wiring -----------------------------------------------------------------------------------

  readEdits();
  for (const [value, [label, fits]] of Object.entries(CHOICES)) {
    const count = problems.filter(fits).length;
    if (count || value === "edited")
      $("which").append(el("option", { value: value }, value === "edited" ? label : label + ": " + number(count)));
  }
  for (const sure of [1, 0.95, 0.8, 0.5, 0.2]) {
    const swatch = el("span", { class: "tok" }, Math.round(100 * sure) + " %");
    swatch.style.setProperty("--u", doubt(sure).toFixed(3));
    $("shades").append(swatch);
  }
  $("which").addEventListener("change", () => filter());
  $("order").addEventListener("change", () => filter(true));
  let typing;
  $("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => filter(), 120); });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape" || event.key === "Enter") list.focus();
  });
  $("play").addEventListener("click", toggle);
  $("scrub").addEventListener("input", () => { pause(); show(Number($("scrub").value)); });
  for (const [id, act] of Object.entries({
    "to-start": () => step(-Infinity), "block-back": () => block(-1), "step-back": () => step(-1),
    "step-on": () => step(1), "block-on": () => block(1), "to-end": () => step(Infinity),
  })) $(id).addEventListener("click", act);
  $("map").addEventListener("pointerdown", seek);
  $("map").addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
  $("help").addEventListener("click", () => $("keys").showModal());
  $("close").addEventListener("click", () => $("keys").close());
  window.addEventListener("resize", drawMap);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  window.addEventListener("hashchange", follow);
  window.addEventListener("beforeunload", (event) => { if (editing) event.preventDefault(); });

  const KEYS = {
    j: () => go(current + 1), k: () => go(current - 1), e: edit, " ": toggle,
    "+": () => faster(1), "=": () => faster(1), "-": () => faster(-1),
    "/": () => $("search").focus(), "?": () => $("keys").showModal(),
    Home: () => step(-Infinity), End: () => step(Infinity),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const target = event.target.closest("input, select, textarea, button, a");
    const free = !target || target.id === "scrub";
    if (!free && (target.tagName !== "BUTTON" || event.key === " ")) return;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target === list) {
      event.preventDefault();
      return go(current + (event.key === "ArrowDown" ? 1 : -1));
    }
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const by = event.key === "ArrowRight" ? 1 : -1;
      event.preventDefault();
      return event.shiftKey ? block(by) : step(by);
    }
    if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });

  // #problem-3 is a link to the third problem of the file.
  function follow() {
    const index = Number((location.hash.match(/^#problem-(\d+)$/) || [])[1]) - 1;
    const position = shown.indexOf(index);
    if (position >= 0 && position !== current && !editing) go(position);
  }

  const linked = location.hash; // opening a problem changes it
  filter();
  if (linked) {
    history.replaceState(null, "", linked);
    follow();
  }
})();
