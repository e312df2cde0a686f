"use strict";
// Turns the pages of the picks. All text comes from JSON in this file and goes in as text, never as
// markup. Builds what parts.html.j2 builds (`pick` and what is in it).
(() => {
  const byId = (id) => document.getElementById(id);
  const list = byId("pick-list"), tools = document.querySelector(".tools");
  const pager = document.querySelector(".pager"), status = byId("pick-status");
  const search = byId("pick-search"), printNote = byId("print-note");
  const head = JSON.parse(byId("pick-head").textContent);
  const parts = [...document.querySelectorAll("script.pick-part")];
  const read = [];
  let found = null; // numbers of the picks that match the search; null: all
  let page = 0;

  const word = (n) => (n < 0 ? null : head.words[n]);
  const pickAt = (n) => {
    const at = Math.floor(n / head.part);
    read[at] ??= JSON.parse(parts[at].textContent);
    return read[at][n % head.part];
  };
  const total = () => (found ? found.length : head.n);
  const pages = () => Math.max(1, Math.ceil(total() / head.page));

  const count = (n) => (n === null ? "–" : n.toLocaleString("en-US"));
  const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

  function element(tag, name, ...children) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  function turnOf([role, pieces, hidden]) {
    const text = element("p", "");
    for (const piece of pieces) {
      if (typeof piece === "string") text.append(piece);
      else {
        const mark = element("mark", "f" + piece[1], piece[0]);
        mark.dataset.levels = piece[2];
        text.append(mark);
      }
    }
    if (hidden) text.append(element("em", "", ` … ${count(hidden)} more characters`));
    return element("div", "turn", element("b", "", word(role)), text);
  }

  function turnsOf(turns) {
    if (turns.length) return turns.map(turnOf);
    return [element("p", "muted", "The text was removed from the workspace.")];
  }

  function chipsOf(chips, latents, isMarked) {
    return element("div", "chips", ...chips.map(([words, places, share]) => {
      const own = places.split(" ").map((place) => latents[place]);
      const chip = element("span", own.some((latent) => latent[3]) ? "chip" : "chip plain",
        element("b", "", share ?? own[0][5]), " " + word(words));
      if (isMarked) chip.dataset.level = places;
      return chip;
    }));
  }

  function whyOf(latents, rest) {
    const row = (cells, tag = "td") => element("tr", "", ...cells.map(([text, name]) =>
      element(tag, name, text)));
    const table = element("table", "", row([
      ["a token, or what a latent responds to (a hint)", ""], ["space", ""], ["number", "n"],
      ["contribution", "n"], ["share", "n"]], "th"));
    for (const [name, space, number, described, part, share] of latents)
      table.append(row([[described ? word(name) : "not described", ""], [word(space), ""],
        [String(number), "n"], [count(part), "n"], [share, "n"]]));
    table.append(row([["all others together", "muted"], ["", ""], ["", ""], ["", ""],
      [rest, "n muted"]]));
    return element("div", "scroll", table);
  }

  function pickOf(n) {
    const [rank, value, id, target, source, file, row, ownId, licence, tokens, places, turns,
      latents, rest, exemplar, reason, chips] = pickAt(n);
    const isMarked = turns.some(([, pieces]) => pieces.some((p) => typeof p !== "string"));
    const facts = element("div", "where");
    if (head.several && target >= 0)
      facts.append(element("span", "", "for ", element("b", "", word(target))));
    facts.append(element("span", "", element("b", "", word(source) || "source unknown")));
    if (tokens !== null) facts.append(element("span", "", plural(tokens, "token")));
    if (word(licence)) facts.append(element("span", "", word(licence)));
    if (places > 1) facts.append(element("span", "", `in ${count(places)} places`));
    if (word(reason) && word(reason) !== "score")
      facts.append(element("span", "", "chosen by " + word(reason)));
    const inside = element("div", "inside");
    if (latents.length)
      inside.append(element("h4", "", "What it shares with its nearest exemplar"),
        whyOf(latents, rest));
    if (exemplar >= 0)
      inside.append(element("h4", "", "That exemplar"),
        element("div", "quote", ...turnsOf(head.exemplars[exemplar])));
    const origin = element("p", "small", word(file) || "file unknown");
    if (row !== null) origin.append(`, row ${count(row)}`);
    if (ownId) origin.append(", own id ", element("code", "", ownId));
    origin.append(element("br", ""), "example ", element("code", "", id));
    inside.append(element("h4", "", "Where it came from"), origin);
    const item = element("li", "pick",
      element("div", "rank", count(rank), element("small", "", value)),
      element("div", "body", facts, element("div", "turns", ...turnsOf(turns)),
        latents.length ? chipsOf(chips, latents, isMarked) : null,
        element("details", "", element("summary", "",
          "Whole text, why it ranks here, where it came from"), inside)));
    item.dataset.rank = rank;
    return item;
  }

  function show(wanted, focus) {
    page = Math.min(Math.max(0, wanted), pages() - 1);
    const first = page * head.page, last = Math.min(first + head.page, total());
    const numbers = found ? found.slice(first, last)
      : Array.from({ length: last - first }, (_, i) => first + i);
    list.replaceChildren(...numbers.map(pickOf));
    buttons(list);
    tell(first, last);
    if (focus === "first") step(0);
    if (focus === "last") step(list.children.length - 1);
    if (focus === "top") byId("picks").scrollIntoView();
  }

  function tell(first, last) {
    const n = total(), of = found ? ` that match, of ${count(head.n)}` : "";
    status.textContent = n ? `${count(first + 1)} to ${count(last)} of ${count(n)}${of}`
      : "No pick matches.";
    const [start, back, , forward, end] = pager.children;
    start.disabled = back.disabled = page === 0;
    forward.disabled = end.disabled = page >= pages() - 1;
    byId("page-number").value = page + 1;
    byId("page-number").max = pages();
    byId("page-count").textContent = count(pages());
  }

  function turnButton(text, go, label) {
    const made = element("button", "", text);
    made.type = "button";
    made.setAttribute("aria-label", label);
    made.addEventListener("click", () => show(go(), "top"));
    return made;
  }

  function makePager() {
    const input = element("input", "");
    Object.assign(input, { type: "number", min: 1, id: "page-number" });
    input.addEventListener("change", () => show((parseInt(input.value, 10) || 1) - 1, "top"));
    const of = element("span", "");
    of.id = "page-count";
    pager.setAttribute("role", "navigation");
    pager.setAttribute("aria-label", "Pages of picks");
    pager.append(turnButton("First", () => 0, "First page"),
      turnButton("Previous", () => page - 1, "Previous page"),
      element("label", "", "Page ", input, " of ", of),
      turnButton("Next", () => page + 1, "Next page"),
      turnButton("Last", () => pages() - 1, "Last page"));
    pager.hidden = head.n <= head.page;
  }

  // How strongly a mark has the latents that a chip stands for, 0 to 9.
  function levelOf(mark, chip) {
    const places = chip.dataset.level.split(" ");
    return Math.max(...places.map((place) => Number(mark.dataset.levels[place] || 0)));
  }

  // Chips with marked tokens become buttons that show these tokens alone.
  function buttons(root) {
    for (const chip of root.querySelectorAll("span.chip[data-level]")) {
      const marks = [...chip.closest(".pick").querySelectorAll(".body > .turns mark")];
      if (!marks.some((mark) => levelOf(mark, chip))) continue;
      const made = element("button", chip.className, ...chip.childNodes);
      made.type = "button";
      made.dataset.level = chip.dataset.level;
      made.setAttribute("aria-pressed", "false");
      chip.replaceWith(made);
    }
    for (const mark of root.querySelectorAll(".pick > .body > .turns mark"))
      mark.dataset.heat = mark.className;
  }

  function only(chip) {
    const pick = chip.closest(".pick"), isOn = chip.getAttribute("aria-pressed") !== "true";
    for (const other of pick.querySelectorAll("button.chip"))
      other.setAttribute("aria-pressed", String(isOn && other === chip));
    for (const mark of pick.querySelectorAll(".turns mark[data-heat]")) {
      mark.className = isOn ? "f" + Math.ceil((levelOf(mark, chip) * 4) / 9) : mark.dataset.heat;
    }
  }

  function textOf(pick) {
    const texts = pick[11].flatMap(([, pieces]) => pieces.map((p) =>
      (typeof p === "string" ? p : p[0])));
    const names = [3, 4, 5, 8, 15].map((at) => word(pick[at]) || "");
    return [texts.join(""), pick[2], pick[7] || "", ...names].join("\n").toLowerCase();
  }

  function look() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      found = [];
      for (let n = 0; n < head.n; n++) {
        const text = textOf(pickAt(n));
        if (words.every((each) => text.includes(each))) found.push(n);
      }
    } else found = null;
    show(0);
  }

  // Keys: one pick on or back, over the ends of a page too.
  function step(at) {
    const item = list.children[at];
    if (!item) return;
    item.querySelector("summary").focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  }

  function move(by) {
    const here = document.activeElement.closest("#pick-list > .pick");
    const at = here ? [...list.children].indexOf(here) + by : by > 0 ? 0 : -1;
    if (at >= 0 && at < list.children.length) step(at);
    else if (at < 0 && page > 0) show(page - 1, "last");
    else if (at > 0 && page < pages() - 1) show(page + 1, "first");
  }

  function onKey(event) {
    const here = document.activeElement;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && here === search) {
      search.blur();
      return;
    }
    if (here.matches("input, textarea, select")) return;
    const inList = here.closest("#pick-list") !== null;
    const keys = { j: () => move(1), k: () => move(-1), n: () => show(page + 1, "first"),
      p: () => show(page - 1, "first"), "/": () => search.focus() };
    if (inList) Object.assign(keys, { ArrowDown: () => move(1), ArrowUp: () => move(-1) });
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  }

  // The contents say where one is.
  function follow() {
    const links = new Map([...document.querySelectorAll(".toc a")].map((a) =>
      [a.getAttribute("href").slice(1), a]));
    const sections = [...links.keys()].map(byId).filter(Boolean);
    let now = null;
    const update = () => {
      const line = window.innerHeight / 3;
      const past = sections.filter((s) => s.getBoundingClientRect().top <= line);
      const next = links.get((past.pop() || sections[0]).id);
      if (next === now) return;
      if (now) now.removeAttribute("aria-current");
      now = next;
      now.setAttribute("aria-current", "true");
      const bar = now.closest(".toc");
      if (bar.scrollWidth > bar.clientWidth) bar.scrollLeft = now.offsetLeft - 40;
    };
    let waits = false;
    window.addEventListener("scroll", () => {
      if (waits) return;
      waits = true;
      requestAnimationFrame(() => { waits = false; update(); });
    }, { passive: true });
    update();
  }

  follow();
  buttons(document);
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("button.chip");
    if (chip) only(chip);
  });
  for (const hidden of document.querySelectorAll(".js-only")) hidden.hidden = false;
  if (!head.n) return;
  tools.hidden = false;
  makePager();
  tell(0, Math.min(head.page, head.n));
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, 150);
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("beforeprint", () => {
    if (printNote === null) return;
    const first = page * head.page, last = Math.min(first + head.page, total());
    const ranks = [first, last - 1].map((at) => count(pickAt(found ? found[at] : at)[0]));
    const which = found ? "picks that match the search" : "picks";
    printNote.textContent = `Printed: one page of the ${which}, ranks ${ranks[0]} to ${ranks[1]};`
      + ` the selection holds ${count(head.selected)}. The file on screen turns pages.`;
  });
})();
